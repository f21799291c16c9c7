"""Bound what a base's config.json can ask for, before anything is built or reserved for it.

A configuration is a few numbers, and each can be any number: as many layers as it says are built
one after the other. So the counts are bounded first, and then the model that it describes, built
without memory, is compared with the weight files.
"""

import copy
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tequio.core.errors import BaseModelError
from tequio.core.texts.words import refusal
from tequio.participant.base_files import cannot_load, read_header

LAYERS, EXPERTS, MODULES = (
    4_096,
    16_384,
    131_072,
)  # the deepest language models have some 200 layers
COUNTS = re.compile(r"layer|block|expert|attention_types|depth|head|stage")
OTHER = re.compile(
    r"size|dim|length|token|index|_id|every|start|width|max_|freq"
)  # of such a name, no counts
# numbers that a model may have beside those of its files: a pooler, positions, masks
FREE = 50_000_000


def check_counts(name: str, raw: dict[str, Any]) -> None:
    """Raise BaseModelError where a configuration asks for more layers or experts than any model
    has.

    raw: config.json as it was read.
    """
    found = list(_counts(raw, "", False))
    for key, count in found:
        if count > (EXPERTS if "expert" in key else LAYERS):
            raise refusal(BaseModelError, "base-unlikely", name=name, key=key, count=count)
    layers = max([1, *(n for key, n in found if "layer" in key)])
    experts = max([1, *(n for key, n in found if "expert" in key)])
    if layers * experts > MODULES:
        raise refusal(
            BaseModelError,
            "base-unlikely",
            name=name,
            key="layers × experts",
            count=layers * experts,
        )


def _counts(value: Any, key: str, counted: bool) -> Iterator[tuple[str, int]]:
    """Yield (key, number) of whatever counts parts of a model, also in tables and lists below such
    a key.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            low = str(name).lower()
            yield from _counts(
                item, str(name)[:64], bool(COUNTS.search(low)) and not OTHER.search(low)
            )
    elif isinstance(value, list):
        for item in value:
            yield from _counts(item, key, counted)
    elif counted and isinstance(value, int | float) and not isinstance(value, bool):
        yield key, int(value) if math.isfinite(value) else LAYERS * EXPERTS


def stored_numbers(name: str, paths: Sequence[Path]) -> int:
    """Return how many numbers weight files hold, by their headers."""
    total = 0
    for path in paths:
        rows = (row for key, row in read_header(name, path)[0].items() if key != "__metadata__")
        total += sum(math.prod(int(n) for n in row["shape"]) for row in rows)
    return total


def described(name: str, config: Any, auto: Any) -> Any:
    """Return the model that a configuration describes, without memory for its numbers."""
    try:
        with torch.device("meta"):
            return auto.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception as error:
        raise cannot_load(name, error) from None


def check_described(name: str, model: Any, stored: int) -> None:
    """Raise BaseModelError where a model has far more numbers than its weight files: those would be
    made up.
    """
    count = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    if count > 2 * stored + FREE:
        raise refusal(
            BaseModelError, "base-larger-than-files", name=name, count=count, stored=stored
        )
