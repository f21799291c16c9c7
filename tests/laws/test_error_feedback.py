"""Error feedback: what a codec leaves out is sent later, and nothing is lost on the way."""

from __future__ import annotations

import torch
from codec_rows import EVERY, ROWS, SOURCE, error, realistic

from builders import refused
from tequio.algorithms.compress.feedback import step
from tequio.algorithms.registry import COMPRESS
from tequio.core.canonical import to_tensors
from tequio.core.errors import UpdateError
from tequio.core.update import Dense, Update, zero


def changes(count: int) -> list[Update]:
    out = []
    for seed in range(count):
        g = torch.Generator().manual_seed(seed)
        entries = {
            "m:a": Dense(torch.randn(4, 80, generator=g)),
            "m:b": Dense(torch.randn(70, 4, generator=g) * 0.01),
            "head.w": Dense(torch.randn(3, 5, generator=g)),
        }
        out.append(Update(entries, "s"))
    return out


@EVERY
def test_feedback_loses_nothing(row: str) -> None:
    """Σ decoded + memory = Σ updates, and what travels exactly is not kept."""
    codec, updates = ROWS[row].make(), changes(6)
    memory, arrived, wanted = zero("s"), zero("s"), zero("s")
    for seed, update in enumerate(updates):
        sent, memory = step(memory, update, codec, seed)
        arrived, wanted = arrived.plus(codec.decode(sent, SOURCE)), wanted.plus(update)
    assert arrived.plus(memory).minus(wanted).norm() <= 1e-5 * wanted.norm()
    assert "head.w" not in memory.entries


def test_feedback_sends_small_coordinates_in_the_end() -> None:
    """One constant update, top 10 %: without feedback 90 % of it never arrive; with it the mean of
    60 rounds is near.
    """
    codec, update = COMPRESS["topk"](density=0.1), changes(1)[0]
    memory, arrived = zero("s"), zero("s")
    for seed in range(60):
        sent, memory = step(memory, update, codec, seed)
        arrived = arrived.plus(codec.decode(sent, SOURCE))
    alone = codec.decode(codec.encode(update, 0), SOURCE)
    assert error(update, alone) > 0.5
    assert error(update, arrived.scaled(1 / 60)) < 0.15


def test_feedback_decays_and_keeps_what_is_not_sent() -> None:
    """β = .5 and an exact codec: sent = .5 · memory + update; an entry that this round leaves out
    stays as it was.
    """
    old = Update({"m:a": Dense(torch.full((2, 2), 4.0)), "m:b": Dense(torch.ones(2, 2))}, "s")
    new = Update({"m:a": Dense(torch.ones(2, 2))}, "s")
    codec = COMPRESS["plain"]()
    sent, memory = step(old, new, codec, 0, decay=0.5)
    assert torch.equal(to_tensors(codec.decode(sent, SOURCE))["m:a"], torch.full((2, 2), 3.0))
    assert memory.entries.keys() == {"m:b"}
    assert torch.equal(to_tensors(memory)["m:b"], torch.ones(2, 2))


def test_feedback_refuses_factors_that_are_drawn_afresh() -> None:
    with refused(UpdateError, "feedback-of-factors"):
        step(zero("s"), realistic(), COMPRESS["topk"](), 0)
