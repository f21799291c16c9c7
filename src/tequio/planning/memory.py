"""The memory of one training process, summed part by part before anything is loaded.

So a run that cannot fit is refused with the sum, not killed half-way. An estimate: on a CPU (torch
2.13, BERT and Llama shapes, 0.6 to 2 GiB) it was 0.95 to 1.15 of the peak. With blocks of hundreds
of MB glibc may keep
freed memory: 3.9 GiB against 3.0 estimated, and 2.2 with MALLOC_MMAP_THRESHOLD_=65536 in the
    environment.
"""

import resource
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from tequio.core.errors import ConfigError, ResourceError
from tequio.core.texts.words import refusal

GIB = 2**30
RUNTIME_BYTES = GIB // 2
"""Python with torch 2.13 (CPU) and transformers 5 after a first training step: 0.38 GiB resident,
measured;
rounded up for the tokenizer, the encoded data and the allocator. A CUDA context is not inside."""
ADAPTER_BYTES = 16  # a parameter: float32 weight, gradient and the two moments of AdamW
LOGITS_BYTES = 12
"""For each position and word: logits, their float32 copy or log-softmax, and the gradient are alive
together.
Measured peak of cross-entropy and its backward pass: 12.0 bytes, in float32 and in bfloat16."""
LOOK_BYTES = 8  # the same without a gradient: float32 logits and their log-softmax
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a base model. `adapted` is (m, n), out × in, of each adapted layer;

    `causal` makes logits.

    heads: attention heads a layer, used only without a fused attention kernel; None assumes 64 wide
        ones. products: parameters
    in matrix products, with those that make logits and without embeddings; first: of them, those
    that take the first layer's input.
    loss_cells: positions × words of which the loss makes logits at a time; None: of all at once.
    """

    parameters: int
    bytes_per_parameter: float
    layers: int
    hidden: int
    vocabulary: int
    adapted: tuple[tuple[int, int], ...]
    causal: bool
    heads: int | None = None
    products: int = 0
    first: int = 0
    loss_cells: int | None = None


@dataclass(frozen=True)
class BatchShape:
    """Sequences in a batch, and tokens in the longest of them after padding."""

    size: int
    tokens: int


@dataclass(frozen=True)
class MemorySum:
    """Bytes of each part."""

    base_weights: int
    folded_weights: int
    shared_update: int
    adapters_and_optimizer: int
    activations: int
    logits: int
    runtime: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Name in words -> bytes, in the order of the fields."""
        return {f.name.replace("_", " "): int(getattr(self, f.name)) for f in fields(self)}


def estimate_memory(
    shape: ModelShape,
    batch: BatchShape,
    rank: int,
    scores: int = 0,
    shared_copies: int = 1,
    runtime_bytes: int = RUNTIME_BYTES,
    full: bool = False,
    active_models: int = 1,
    look: int = 0,
    shards: int = 1,
) -> MemorySum:
    """Peak bytes of LoRA training at this rank, for b sequences of s tokens, L layers of width h, V
    words.

    base weights            parameters · bytes
    folded weights          Σ m·n · bytes: the adapted layers keep W₀ beside W₀ + H
    shared update           Σ m·n · 4 · shared_copies: H in float32, taken as dense (its largest form)
    adapters and optimizer  Σ r·(m + n) · 16
    activations             s·b·h·L · 34 bytes at 2 bytes a number, twice that at 4 (Korthikanti et al., arXiv
                            2205.05198), and `scores`·a·s²·b·L more for the scores of a heads: 5
                            where attention is plain, 2 where its probabilities alone are kept, 0
                            where it is flash. It
                            counts full training: LoRA kept 23 (BERT) and 36 (Llama) bytes of 34,
                                and
                            45 and 62 of 68, in our measurements
    logits                  12·b·s·V where the model is causal; of `loss_cells` and not b·s·V where those are fewer; or
                            what an evaluation's take above activations, 8·`look`·V, where its
                            batches of `look` tokens are the larger ones
    runtime                 `runtime_bytes`: interpreter and libraries; 0 where they are loaded already

    full: whole weights are trained, whatever the rank: adapters and optimizer are Σ m·n · 16
        (float32 master weight,
    gradient, two moments), and Σ m·n · 2 more for the copy in the base's precision where that has
    16 bits.
    shared_copies: whole shared updates held at once; 1 in a participant, more where the coordinator
        lives in
    the same process. adapted models: how many train at once on one base; each folds, adapts and
    activates, and holds a candidate of its own, for itself. shards: in how many processes the base
    is parted; base and folded weights are one's share of them, and the base has what is gathered at
    a time beside it: the embeddings, or a layer and the next one, each twice (as it comes, and laid
    out). Raises ConfigError when a size is not positive.
    """
    for key, value in (
        ("rank", rank),
        ("batch_size", batch.size),
        ("max_tokens", batch.tokens),
        ("workers", active_models),
    ):
        if value < 1:
            raise refusal(
                ConfigError, "out-of-range", key=key, value=str(value), limits=f"{key} ≥ 1"
            )
    places = sum(m * n for m, n in shape.adapted)
    positions = batch.size * batch.tokens
    number = 4 if shape.bytes_per_parameter > 2 else 2
    heads = shape.heads or max(1, shape.hidden // 64)
    trained = ADAPTER_BYTES * rank * sum(m + n for m, n in shape.adapted)
    if full:
        trained = (ADAPTER_BYTES + (0 if number == 4 else 2)) * places
    cells = positions * shape.vocabulary
    if shape.loss_cells is not None and not full:
        cells = min(cells, shape.loss_cells)
    evaluated = (
        look * shape.vocabulary
        if shape.loss_cells is None
        else min(look * shape.vocabulary, shape.loss_cells)
    )
    ends = shape.vocabulary * shape.hidden
    layer = max(0, shape.parameters - ends) // max(1, shape.layers)
    gathered = 0 if shards == 1 else 2 * max(ends, 2 * layer)
    per_position = 34 * shape.hidden + scores * heads * batch.tokens
    activations = positions * shape.layers * per_position * number // 2
    return MemorySum(
        base_weights=round((shape.parameters / shards + gathered) * shape.bytes_per_parameter),
        folded_weights=active_models * round(places / shards * shape.bytes_per_parameter),
        shared_update=4 * places * (shared_copies + active_models - 1),
        adapters_and_optimizer=active_models * trained,
        activations=active_models * activations,
        logits=active_models * max(LOGITS_BYTES * cells, LOOK_BYTES * evaluated - activations)
        if shape.causal
        else 0,
        runtime=runtime_bytes,
    )


def check_memory(needed: MemorySum, available: int, who: str) -> None:
    """Raise ResourceError, with the sum part by part and what to change, when `needed` is more than
    `available` bytes."""
    if needed.total <= available:
        return
    parts = sorted(((size, name) for name, size in needed.parts().items() if size), reverse=True)
    shown = [{"name": name.replace(" ", "_"), "gib": size / GIB} for size, name in parts]
    fits_without_batch = needed.total - needed.activations - needed.logits <= available
    code = "memory-too-small" if fits_without_batch else "memory-too-small-for-base"
    raise refusal(
        ResourceError, code, who=who, need=needed.total / GIB, free=available / GIB, memory=shown
    )


def peak_bytes() -> int:
    """The most that this process had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes(declared_gib: float | None = None, cgroup: Path = CGROUP) -> int:
    """Bytes that a new process may use: the least of what is free now, what the container allows
    and what was
    declared.

    Raises ConfigError when the declared figure is not positive.
    """
    if declared_gib is not None and not 0 < declared_gib < float("inf"):
        raise refusal(
            ConfigError, "not-above-zero", key="[hardware] memory_gib", value=str(declared_gib)
        )
    limits = [int(psutil.virtual_memory().available), _container_bytes(cgroup)]
    limits.append(None if declared_gib is None else int(declared_gib * GIB))
    return min(limit for limit in limits if limit is not None)


def installed_bytes(cgroup: Path = CGROUP) -> int:
    """Memory of the machine, or the limit of the container: what does not change from run to
    run.
    """
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):
        return total


def _container_bytes(cgroup: Path) -> int | None:
    """What a version 2 control group leaves, counting its file cache as free;

    None without a limit.
    """
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        cache = sum(int(value) for key, value in lines if key == "inactive_file")
    except (OSError, ValueError):
        return None
    return max(0, limit - max(0, used - cache))
