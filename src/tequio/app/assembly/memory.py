"""Sum the memory that a process of a run needs, and check it against the machine before the base is
loaded.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from tequio.app.assembly.algorithm import Algorithm
from tequio.config import Federation, ParticipantFile
from tequio.config.cache import cache_folder
from tequio.participant.base import best_device, best_dtype, model_shape
from tequio.participant.fused.select import keeps
from tequio.participant.public_text import CACHE_BYTES
from tequio.participant.text_tasks import Causal, Classification
from tequio.planning.gpu_memory import beside_card, card_free_bytes, on_card
from tequio.planning.memory import (
    RUNTIME_BYTES,
    BatchShape,
    MemorySum,
    ModelShape,
    available_bytes,
    check_memory,
    estimate_memory,
)

# shared, pending, momentum and best of the coordinator, and the one held, live in this process
STATE_COPIES = 5


# of each peer: its model, its neighbours' copy of it and its best; of the first two those of the
# next round too
PEER_COPIES = 5


FULL_COPIES = (
    3  # with whole weights also: the sum, the step made of it, and the bytes of the checkpoint
)


def resolve_dtype(config: Federation) -> torch.dtype:
    """The base's precision: as configured, or the machine's best."""
    if config.base.dtype == "auto":
        return best_dtype()
    dtype: torch.dtype = getattr(torch, config.base.dtype)
    return dtype


def check_run_memory(
    config: Federation, algorithm: Algorithm, files: Mapping[str, ParticipantFile], shards: int
) -> None:
    """Check each declared machine, and this one with its graphics card.

    Raises ResourceError naming the one that is too small.
    """
    lone = _memory(config, algorithm, 1, 1, 1, shards)
    for name, file in files.items():
        if file.hardware.memory_gib is not None:
            check_memory(lone, int(file.hardware.memory_gib * 2**30), f"Participant {name}")
    here, card = process_memory(config, algorithm, len(files), 1, shards), card_free_bytes()
    if card is not None:
        check_memory(on_card(here), card, "This machine's graphics card")
        here = beside_card(here)
    check_memory(here, available_bytes(None), "This machine")


def process_memory(
    config: Federation, algorithm: Algorithm, hosted: int, active_models: int = 1, shards: int = 1
) -> MemorySum:
    """Sum the memory of a process that hosts this many participants and the coordinator, on one of
    `shards` shards.
    """
    full = config.adapter.kind == "full"
    begun = (
        len(set(config.adapter.ranks)) if algorithm.start.continues else 0
    )  # what is held differs from rank to rank
    copies = STATE_COPIES + begun if config.topology.kind == "star" else PEER_COPIES * hosted + 1
    copies, lockstep = (
        copies + (FULL_COPIES if full else 0),
        max(1, min(config.train.lockstep, hosted)),
    )
    return _memory(config, algorithm, copies, active_models, lockstep, shards)


def _memory(
    config: Federation,
    algorithm: Algorithm,
    copies: int,
    active_models: int,
    lockstep: int,
    shards: int,
) -> MemorySum:
    local = algorithm.local
    beside = 2 if local.needs("public") else 1  # a public batch lives beside the own one
    batch = BatchShape(beside * lockstep * config.train.batch_size, config.task.max_tokens)
    process = RUNTIME_BYTES + (CACHE_BYTES if local.needs("base") else 0)
    full, rank = config.adapter.kind == "full", max(config.adapter.ranks) * lockstep  # stacked
    shape = load_model_shape(config, algorithm)
    shape = shape if shards == 1 else replace(shape, loss_cells=None)  # transformers' path
    look = look_tokens(config)
    return estimate_memory(
        shape,
        batch,
        rank,
        stored_score_bytes(batch.tokens, shards),
        copies,
        process,
        full,
        active_models,
        look,
        shards,
    )


def stored_score_bytes(tokens: int, shards: int = 1) -> int:
    """Return the bytes that attention keeps of each score: on a card those of Tequio's own layers,
    else plain attention's.
    """
    if not keeps(tokens):
        return 0
    return (
        5 if best_device().type == "cpu" else 2 if shards == 1 else 0
    )  # of shards transformers' path is flash there


def look_tokens(config: Federation) -> int:
    """Padded tokens of a batch of evaluation, at most."""
    kind = Causal if config.task.kind == "causal" else Classification
    return max(kind.batch_tokens, config.task.max_tokens)


def load_model_shape(config: Federation, algorithm: Algorithm) -> ModelShape:
    """The base's sizes, without its weights."""
    shape = model_shape(
        config.base.model,
        config.task.kind,
        config.adapter.modules,
        resolve_dtype(config),
        cache_folder(),
    )
    if not keeps(config.task.max_tokens) or algorithm.local.needs("public") or config.distil:
        return replace(shape, loss_cells=None)  # these look at whole logits
    return shape
