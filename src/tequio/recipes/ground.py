"""What one machine has of a federation, whoever it is: the base in memory, the task, the meter; and a participant's data on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from tequio.core.errors import ConfigError
from tequio.measure.energy import Meter, open_meter
from tequio.participant.base import Base, best_device, best_dtype, load_base, model_shape
from tequio.participant.bench import Bench, head_at_zero, head_from_descriptions
from tequio.participant.books import Books
from tequio.participant.data import Columns
from tequio.participant.fused.path import keeps
from tequio.participant.node import Node, encode_splits
from tequio.participant.public import KEPT_BYTES, Public
from tequio.participant.splits import DataFiles, SplitRule, Splits, load_splits
from tequio.participant.tasks import Causal, Classification, TextTask
from tequio.participant.team import ALONE, Team
from tequio.planning.card import beside_card, card_free_bytes, on_card
from tequio.planning.memory import (
    RUNTIME_BYTES,
    BatchShape,
    MemorySum,
    ModelShape,
    available_bytes,
    check_memory,
    estimate_memory,
)
from tequio.recipes.config import Federation, ParticipantFile
from tequio.recipes.paths import cache_folder
from tequio.recipes.pieces import local_of, pieces_of
from tequio.recipes.place import site_of

STATE_COPIES = 5  # shared, pending, momentum and best of the coordinator, and the one held, live in this process
PEER_COPIES = (
    5  # of each peer: its model, its neighbours' copy of it and its best; of the first two those of the next round too
)
FULL_COPIES = 3  # with whole weights also: the sum, the step made of it, and the bytes of the checkpoint


@dataclass(frozen=True)
class Ground:
    """One base loaded, with its task and the machine's meter."""

    config: Federation
    bench: Bench
    task: TextTask
    meter: Meter


def ground_of(config: Federation, files: Mapping[str, ParticipantFile], among: Team = ALONE) -> Ground:
    """Load the base for these participants, once it is known that it fits. among: the processes that keep it in shards.

    Raises ResourceError where memory is too small, BaseModelError for the base, ConfigError for texts longer than it reads.
    """
    full = config.adapter.kind == "full"
    dtype = dtype_of(config)
    _check_memory(config, files, among.size)
    base = load_base(config.base.model, config.task.kind, dtype, cache_folder(), among)
    if config.task.max_tokens > base.max_positions:
        why = f"The base reads at most {base.max_positions} tokens."
        raise ConfigError(f"[task] max_tokens = {config.task.max_tokens}.", why, "Lower it.")
    bench = Bench(base, config.adapter.modules, config.adapter.scale, _head(config, base), full)
    return Ground(config, bench, task_of(config, base), open_meter())


def at_coordinator(ground: Ground) -> Ground:
    """The same where the coordinator stands: federation.toml says where."""
    site = site_of(ground.config.energy, ground.config.money)
    return replace(ground, meter=replace(ground.meter, site=site))


def node_of(ground: Ground, file: ParticipantFile, splits: Splits, public: Public | None, hosted: bool = False) -> Node:
    """A participant on this machine, its data encoded. hosted: in the coordinator's process, which counts its energy too."""
    data = encode_splits(ground.task, splits, file.name)
    size, meter = ground.config.train.batch_size, _meter(file, ground.meter, hosted)
    money, ours = file.money, ground.config.money
    tell = money is not None and money.tell
    counted = tell and money is not None and ours is not None and money.currency == ours.currency
    books = Books(tell_carbon=file.energy.tell, tell_money=tell, limits=file.budget.limits(), counted=counted)
    return Node(file.name, ground.bench, ground.task, data, size, meter, public=public, books=books)


def dtype_of(config: Federation) -> torch.dtype:
    """The base's precision: as configured, or the machine's best."""
    if config.base.dtype == "auto":
        return best_dtype()
    dtype: torch.dtype = getattr(torch, config.base.dtype)
    return dtype


def _check_memory(config: Federation, files: Mapping[str, ParticipantFile], shards: int) -> None:
    lone = _memory(config, 1, 1, 1, shards)
    for name, file in files.items():
        if file.hardware.memory_gib is not None:
            check_memory(lone, int(file.hardware.memory_gib * 2**30), f"Participant {name}")
    here, card = memory_of(config, len(files), 1, shards), card_free_bytes()
    if card is not None:
        check_memory(on_card(here), card, "This machine's graphics card")
        here = beside_card(here)
    check_memory(here, available_bytes(None), "This machine")


def memory_of(config: Federation, hosted: int, benches: int = 1, shards: int = 1) -> MemorySum:
    """Memory of a process that hosts so many participants and the coordinator, with so many benches at work, on one of so many shards."""
    full = config.adapter.kind == "full"
    continues = pieces_of(config.algorithm, full).start.continues
    begun = len(set(config.adapter.ranks)) if continues else 0  # what is held differs from rank to rank
    copies = STATE_COPIES + begun if config.topology.kind == "star" else PEER_COPIES * hosted + 1
    return _memory(
        config, copies + (FULL_COPIES if full else 0), benches, max(1, min(config.train.lockstep, hosted)), shards
    )


def _memory(config: Federation, copies: int, benches: int, lockstep: int = 1, shards: int = 1) -> MemorySum:
    local = local_of(config)
    beside = 2 if local.needs("public") else 1  # a public batch lives beside the own one
    batch = BatchShape(beside * lockstep * config.train.batch_size, config.task.max_tokens)
    process = RUNTIME_BYTES + (KEPT_BYTES if local.needs("base") else 0)
    full, rank = config.adapter.kind == "full", max(config.adapter.ranks) * lockstep  # stacked
    shape = shape_of(config) if shards == 1 else replace(shape_of(config), loss_cells=None)  # transformers' path
    look = look_tokens(config)
    return estimate_memory(
        shape, batch, rank, kept_scores(batch.tokens, shards), copies, process, full, benches, look, shards
    )


def kept_scores(tokens: int, shards: int = 1) -> int:
    """Bytes that attention keeps of each score, with so many tokens: on a card those of Tequio's own layers, else plain attention's."""
    if not keeps(tokens):
        return 0
    return 5 if best_device().type == "cpu" else 2 if shards == 1 else 0  # of shards transformers' path is flash there


def look_tokens(config: Federation) -> int:
    """Padded tokens of a batch of evaluation, at most."""
    kind = Causal if config.task.kind == "causal" else Classification
    return max(kind.batch_tokens, config.task.max_tokens)


def shape_of(config: Federation) -> ModelShape:
    """The base's sizes, without its weights."""
    shape = model_shape(config.base.model, config.task.kind, config.adapter.modules, dtype_of(config), cache_folder())
    if not keeps(config.task.max_tokens) or local_of(config).needs("public") or config.distil:
        return replace(shape, loss_cells=None)  # these look at whole logits
    return shape


def _head(config: Federation, base: Base) -> torch.Tensor | None:
    if config.task.kind == "causal":
        return None
    labels = config.task.labels
    if isinstance(labels, dict):
        return head_from_descriptions(base, labels)
    return head_at_zero(base, len(labels))


def task_of(config: Federation, base: Base) -> TextTask:
    """The task with its tokenizer."""
    if config.task.kind == "causal":
        return Causal(base.tokenizer, config.task.max_tokens)
    return Classification(base.tokenizer, config.task.label_names(), config.task.max_tokens)


def _meter(file: ParticipantFile, shared: Meter, hosted: bool) -> Meter:
    """The machine's meter, or one of the declared power where the participant states it; at the participant's place."""
    meter = shared if file.hardware.tdp_watts is None else open_meter(file.hardware.tdp_watts)
    host = shared.watts if hosted and meter is not shared else None
    return replace(meter, site=site_of(file.energy, file.money), host=host)


def _columns(file: ParticipantFile) -> Columns:
    return Columns(file.data.text, file.data.label, file.data.prompt, file.data.response)


def splits_of(config: Federation, file: ParticipantFile) -> Splits:
    """A participant's data, split."""
    d = file.data
    rule = SplitRule(d.validation_share, d.test_share, d.max_train, d.max_validation, d.max_test)
    files = DataFiles(d.path, d.train, d.validation, d.test)
    return load_splits(files, _columns(file), rule, config.task.kind, config.task.label_names(), file.name)
