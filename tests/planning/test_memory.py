"""The memory sum, against numbers worked by hand and against what torch really keeps."""

import math
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from builders import refused
from tequio.core.errors import ConfigError, ResourceError
from tequio.planning.gpu_memory import WORKSPACE_BYTES, beside_card, on_card
from tequio.planning.memory import (
    GIB,
    RUNTIME_BYTES,
    BatchShape,
    MemorySum,
    ModelShape,
    available_bytes,
    check_memory,
    estimate_memory,
)

TINY = ModelShape(1000, 2, 3, 10, 50, ((10, 10), (20, 10)), causal=True, heads=2)


def test_every_part_by_hand() -> None:
    found = estimate_memory(TINY, BatchShape(4, 8), rank=2, runtime_bytes=7)
    assert found == MemorySum(
        base_weights=2000,  # 1000 * 2
        folded_weights=600,  # (100 + 200) * 2
        shared_update=1200,  # (100 + 200) * 4
        adapters_and_optimizer=1600,  # 16 * 2 * (20 + 30)
        activations=32_640,  # 34 * 8 * 4 * 10 * 3
        logits=19_200,  # 12 * 4 * 8 * 50
        runtime=7,
    )
    assert found.total == 2000 + 600 + 1200 + 1600 + 32_640 + 19_200 + 7


def test_options_by_hand() -> None:
    batch = BatchShape(4, 8)
    plain = estimate_memory(TINY, batch, 2)
    # attention scores: 5 * a * s^2 * b * L = 5 * 2 * 64 * 4 * 3
    assert estimate_memory(TINY, batch, 2, scores=5).activations - plain.activations == 7680
    assert (
        estimate_memory(TINY, batch, 2, scores=2).activations - plain.activations == 3072
    )  # probabilities alone
    wide = estimate_memory(replace(TINY, bytes_per_parameter=4), batch, 2)
    assert (wide.activations, wide.base_weights) == (2 * plain.activations, 4000)
    four_bit = estimate_memory(replace(TINY, bytes_per_parameter=0.5), batch, 2)
    assert (four_bit.activations, four_bit.base_weights) == (
        plain.activations,
        500,
    )  # computed in 2 bytes
    assert estimate_memory(replace(TINY, causal=False), batch, 2).logits == 0
    parts = replace(
        TINY, loss_cells=400
    )  # of 8 · 50 positions and words for each of 4 texts, a quarter at a time
    assert estimate_memory(parts, BatchShape(4, 8), 2).logits == 12 * 400
    assert estimate_memory(parts, BatchShape(4, 8), 2, full=True).logits == 12 * 1600
    assert estimate_memory(replace(TINY, loss_cells=10**9), BatchShape(4, 8), 2).logits == 12 * 1600
    # an evaluation of 1000 tokens: 8 * 1000 * 50 - 32,640 of activations that it has not
    assert estimate_memory(TINY, batch, 2, look=1000).logits == 400_000 - 32_640
    assert estimate_memory(TINY, batch, 2, look=32).logits == 19_200  # training takes more
    assert estimate_memory(parts, batch, 2, look=1000).logits == 12 * 400
    assert estimate_memory(TINY, batch, 2, shared_copies=5).shared_update == 6000
    # whole weights, (100 + 200) places: 16 bytes of master weight, gradient and moments, and 2 of
    # the copy in 16 bits
    assert estimate_memory(TINY, batch, 2, full=True).adapters_and_optimizer == 300 * 18
    assert (
        estimate_memory(
            replace(TINY, bytes_per_parameter=4), batch, 9, full=True
        ).adapters_and_optimizer
        == 300 * 16
    )
    assert plain.runtime == RUNTIME_BYTES


def test_each_part_lies_on_the_card_or_beside_it_and_the_base_on_both() -> None:
    needed = MemorySum(1, 2, 4, 8, 16, 32, 64)
    card, process = on_card(needed), beside_card(needed)
    assert card.total - card.runtime == 1 + 2 + 8 + 16 + 32
    assert card.runtime == WORKSPACE_BYTES
    assert process.total == 1 + 4 + 64


def test_known_model_is_of_the_right_size() -> None:
    # SmolLM2-135M in bfloat16, query and value adapted: weights 269 MB; 4 x 256 tokens of 49,152
    # words: 604
    # MB of logits
    shape = ModelShape(134_515_008, 2, 30, 576, 49_152, ((576, 576), (192, 576)) * 30, causal=True)
    found = estimate_memory(shape, BatchShape(4, 256), rank=8)
    assert found.base_weights == 269_030_016
    assert found.logits == 603_979_776
    assert 1.9 * GIB < found.total < 2.1 * GIB


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_part_bounds_what_torch_keeps_for_cross_entropy(dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    words, positions = 4000, 64
    logits = torch.randn(positions, words).to(dtype).requires_grad_()
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(logits.float(), torch.zeros(positions, dtype=torch.long))
    shape = ModelShape(0, dtype.itemsize, 0, 1, words, (), causal=True)
    part = estimate_memory(shape, BatchShape(1, positions), 1).logits
    # alive at once: the logits, what autograd saved (log-softmax, 4 bytes), and a float32 gradient
    alive = logits.nbytes + sum(saved.values()) + 4 * positions * words
    assert loss.isfinite()
    assert 0.8 * part <= alive <= part * 1.01  # 10 bytes of 12 in bfloat16, 12 of 12 in float32


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 64), st.sampled_from([0, 2, 5]))
def test_more_work_never_needs_less(size: int, tokens: int, rank: int, scores: int) -> None:
    here = estimate_memory(TINY, BatchShape(size, tokens), rank, scores).total
    assert estimate_memory(TINY, BatchShape(size + 1, tokens), rank, scores).total > here
    assert estimate_memory(TINY, BatchShape(size, tokens + 1), rank, scores).total > here
    assert estimate_memory(TINY, BatchShape(size, tokens), rank + 1, scores).total > here


@pytest.mark.parametrize(
    ("size", "tokens", "rank", "key"),
    [(0, 1, 1, "batch_size"), (1, 0, 1, "max_tokens"), (1, 1, 0, "rank")],
)
def test_sizes_below_one_are_refused(size: int, tokens: int, rank: int, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = 0"):
        estimate_memory(TINY, BatchShape(size, tokens), rank)


def test_what_fits_exactly_passes_and_one_byte_less_does_not() -> None:
    needed = estimate_memory(TINY, BatchShape(1, 1), 1)
    check_memory(needed, needed.total, "bees")
    with refused(ResourceError, "memory-too-small", who="bees"):
        check_memory(needed, needed.total - 1, "bees")


def test_the_message_prints_the_sum_and_what_to_change() -> None:
    needed = MemorySum(2 * GIB, 0, GIB // 4, 0, GIB, 0, GIB // 2)
    with refused(
        ResourceError, "memory-too-small", who="Participant bees", need=3.75, free=3.0
    ) as caught:
        check_memory(needed, 3 * GIB, "Participant bees")
    assert str(caught.value) == (
        "Participant bees needs about 3.75 GiB of memory and has 3.00 GiB. "
        "The sum in GiB: base weights 2.00, activations 1.00, runtime 0.50, shared update 0.25. "
        "Use a smaller [train] batch_size or [task] max_tokens. Or use a smaller [base] model, "
        'or [base] dtype = "bfloat16" if it is float32 now.'
    )
    with refused(ResourceError, "memory-too-small-for-base", free=2.0):
        check_memory(needed, 2 * GIB, "Participant bees")  # 2.75 remain without any batch


def control_group(folder: Path, limit: str) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("700000\n")
    (folder / "memory.stat").write_text("anon 400000\ninactive_file 300000\n")
    return folder


def test_available_is_the_least_of_free_container_and_declared(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    assert available_bytes(None, tmp_path) == pytest.approx(free, rel=0.2)
    assert available_bytes(0.001, tmp_path) == math.floor(0.001 * GIB)
    assert available_bytes(1e6, tmp_path) == pytest.approx(free, rel=0.2)  # a boast gives no memory
    control_group(tmp_path, "1000000")
    assert (
        available_bytes(None, tmp_path) == 600_000
    )  # 1,000,000 - (700,000 - 300,000 of file cache)
    control_group(tmp_path, "100")
    assert available_bytes(None, tmp_path) == 0
    control_group(tmp_path, "max")
    assert available_bytes(None, tmp_path) == pytest.approx(free, rel=0.2)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_declared_memory_that_is_not_positive_is_refused(bad: float) -> None:
    with refused(ConfigError, "not-above-zero"):
        available_bytes(bad)
