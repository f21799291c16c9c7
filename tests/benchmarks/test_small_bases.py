"""The arithmetic of the question on small bases, on results made by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.study.arms import Outcome
from benchmarks.study.bases import TEACHINGS, answer, holds_small
from benchmarks.study.world import MANUALS


def rows(loss: float, validation: float = 1.0) -> list[dict[str, Any]]:
    """Every participant with this loss, but those that hold the large base at 9, in two seeds."""
    out = []
    for seed in (0, 1):
        test = {f"{name}-{k}": 9.0 for name in MANUALS for k in (1, 2)} | dict.fromkeys(
            holds_small(seed), loss
        )
        out.append(asdict(Outcome("x", seed, 1e-2, validation, test)))
    return out


def test_the_small_base_changes_hands_with_the_seed() -> None:
    assert holds_small(0) == ("man1-1", "man5-1", "man7-1", "man8-1")
    assert holds_small(1) == ("man1-2", "man5-2", "man7-2", "man8-2")


@pytest.mark.parametrize(("taught", "share", "met"), [(2.2, "75 %", True), (2.34, "40 %", False)])
def test_gains_are_over_training_alone_with_the_same_base(
    taught: float, share: str, met: bool
) -> None:
    """Large: 2.0 − 1.6 = .4.

    Small: 2.5 − 2.4 = .1, a quarter of it; taught 2.5 − 2.2 = .3, or 2.5 − 2.34 = .16.
    """
    results: dict[str, Any] = {
        "base, small": rows(3.0),
        "alone, small": rows(2.5),
        "base, large": rows(2.8),
        "alone, large": rows(2.0),
        "four federated, small": rows(2.4),
        "eight federated, large": rows(1.6),
    }
    for i, name in enumerate(TEACHINGS):  # the first is the best on validation
        small = rows(taught if i == 0 else 2.0, validation=1.0 + i)
        retained = [{"large": 1, "small": 2}] * 2
        results[name] = {
            "small": small,
            "large": rows(1.7),
            "kept": retained,
            "distil rate": [1e-3, 1e-3],
        }
    found = answer(results)
    assert f"{share}; without being taught 25 %" in found.targets[0].measured
    assert [t.met for t in found.targets] == [met, True]
    shown = [f"{x:.3f} ({x:.3f} to {x:.3f})" for x in (taught, 3.0 - taught, 2.5 - taught)]
    assert found.tables[0].rows[6][1:] == [*shown, share]
