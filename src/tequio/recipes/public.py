"""Public data of a run: text for the local terms (the file that [local] data names, or else the centre's training data), and digests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tequio.core.canonical import digest_json
from tequio.core.errors import DataError
from tequio.core.seeds import derive
from tequio.participant.data import Columns, Example, read_examples
from tequio.participant.node import Encoded
from tequio.participant.public import Public, public_text
from tequio.participant.splits import Splits, content_hash
from tequio.participant.tasks import Item, TextTask
from tequio.recipes.config import Federation
from tequio.recipes.pieces import local_of

CENTRE = "centre"


def public_examples(config: Federation) -> list[Example]:
    """The texts of [local] data, without empty ones and repetitions; none where it is not given."""
    path = config.local.data
    if path is None:
        return []
    examples = read_examples(path, Columns(), config.task.kind, config.task.label_names(), "[local] data")
    return list({content_hash(e): e for e in examples if e.text.strip()}.values())


def public_of(config: Federation, task: TextTask, text: Sequence[Example], centre: Encoded | None) -> Public | None:
    """In batches; None where no term looks at it. Raises DataError where the file has no text."""
    if not local_of(config).needs("public"):
        return None
    items: Sequence[Item] = () if centre is None else centre.train
    if config.local.data is not None:
        items = task.encode(text, "[local] data")[0]
    if not items:
        raise DataError(f"[local] data: {config.local.data} holds no text.", "", "Give it some, or leave the key out.")
    return public_text(items, config.train.batch_size, derive(config.seed, "public"))


def public_digests(
    centre: Splits | None, slices: Mapping[str, Sequence[Example]], text: Sequence[Example]
) -> dict[str, str]:
    """Digests of the data that are public anyway; a participant's are committed to with a salt instead."""
    out = {} if centre is None else {CENTRE: centre.digest()}
    named = {f"slice {n}": x for n, x in slices.items()} | ({"[local] data": text} if text else {})
    return out | {n: digest_json([[content_hash(e), e.label] for e in x]) for n, x in named.items()}
