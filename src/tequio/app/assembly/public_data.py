"""Public data of a run: the centre's, the slices of the gate, and text for the local terms ([local]
data, or the centre's).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tequio.app.assembly.context import ModelContext
from tequio.config import Federation
from tequio.core.canonical import digest_json
from tequio.core.errors import DataError
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.participant.data import Columns, Example, read_examples
from tequio.participant.node import Encoded, Node, encode_splits
from tequio.participant.public_text import Public, public_text
from tequio.participant.splits import DataFiles, SplitRule, Splits, content_hash, load_splits
from tequio.participant.text_tasks import Item

CENTRE = "centre"


@dataclass(frozen=True)
class PublicData:
    """As read: the centre's data, the slices by name (without what is trained on), the text of
    [local] data.
    """

    splits: Splits | None
    slices: Mapping[str, Sequence[Example]]
    text: Sequence[Example]


@dataclass(frozen=True)
class Centre:
    """As encoded: the centre itself (None without [centre]), the halves of the slices that the gate
    never sees, text for local terms.
    """

    node: Node | None
    held_out: Mapping[str, Sequence[Item]]
    text: Public | None


def read_public(config: Federation) -> PublicData:
    """Read everything public. Raises DataError or ConfigError naming the file."""
    splits, text = _centre_splits(config), public_examples(config)
    known = _hashes(splits) | {content_hash(e) for e in text}
    slices = {part: _slice(config, part, path, known) for part, path in config.gate.slices.items()}
    return PublicData(splits, slices, text)


def build_centre(context: ModelContext, public: PublicData) -> Centre:
    """Encode it. One half of each slice is the gate's, the other is kept for the end."""
    config, task = context.config, context.task
    data = None if public.splits is None else encode_splits(task, public.splits, CENTRE)
    text = build_public_text(context, public.text, data)
    most = config.gate.max_examples
    gate = {n: task.encode(examples[0::2][:most], n)[0] for n, examples in public.slices.items()}
    held_out = {
        n: task.encode(examples[1::2][: 2 * most], n)[0] for n, examples in public.slices.items()
    }
    if data is None:
        return Centre(None, held_out, text)
    size = config.train.batch_size
    return Centre(
        Node(CENTRE, context.adapted, task, data, size, context.meter, gate, public=text),
        held_out,
        text,
    )


def public_examples(config: Federation) -> list[Example]:
    """The texts of [local] data, without empty ones and repetitions; none where it is not given."""
    path = config.local.data
    if path is None:
        return []
    examples = read_examples(
        path, Columns(), config.task.kind, config.task.label_names(), "[local] data"
    )
    return list({content_hash(e): e for e in examples if e.text.strip()}.values())


def build_public_text(
    context: ModelContext, text: Sequence[Example], centre: Encoded | None
) -> Public | None:
    """In batches; None where no term looks at it. Raises DataError where the file has no text."""
    config = context.config
    if not context.algorithm.local.needs("public"):
        return None
    items: Sequence[Item] = () if centre is None else centre.train
    if config.local.data is not None:
        items = context.task.encode(text, "[local] data")[0]
    if not items:
        raise refusal(DataError, "public-text-empty", path=config.local.data)
    return public_text(items, config.train.batch_size, derive(config.seed, "public"))


def public_digests(
    centre: Splits | None, slices: Mapping[str, Sequence[Example]], text: Sequence[Example]
) -> dict[str, str]:
    """Digests of the data that are public anyway; a participant's are committed to with a salt
    instead.
    """
    out = {} if centre is None else {CENTRE: centre.digest()}
    named = {f"slice {n}": x for n, x in slices.items()} | ({"[local] data": text} if text else {})
    return out | {n: digest_json([[content_hash(e), e.label] for e in x]) for n, x in named.items()}


def _centre_splits(config: Federation) -> Splits | None:
    if config.centre is None:
        return None
    rule = SplitRule(0.1, 0.1, config.centre.max_train, 200, 200)
    files = DataFiles(config.centre.data, None, None, None)
    return load_splits(files, Columns(), rule, config.task.kind, config.task.label_names(), CENTRE)


def _hashes(centre: Splits | None) -> set[str]:
    return (
        set()
        if centre is None
        else {content_hash(e) for e in (*centre.train, *centre.validation, *centre.test)}
    )


def _slice(config: Federation, name: str, path: Path, known: set[str]) -> list[Example]:
    """A public slice in the order of its hashes, without what the centre trains on."""
    who = f"[gate] slices, {name}"
    examples = read_examples(path, Columns(), config.task.kind, config.task.label_names(), who)
    by_hash = {content_hash(e): e for e in examples if e.text.strip()}
    examples = [by_hash[key] for key in sorted(by_hash.keys() - known)]
    if len(examples) < 4:
        raise refusal(DataError, "slice-too-small", name=name, path=path, count=len(examples))
    return examples
