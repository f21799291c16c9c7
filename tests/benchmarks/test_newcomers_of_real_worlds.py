"""The arithmetic of the studies on newcomers of real worlds and on pilots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.study.adapting import EXAMPLES, TESTED, give_more, needed
from benchmarks.study.foretelling import summary


def test_examples_needed_are_read_off_between_those_measured() -> None:
    """From 1.2 at 16 to 1.0 at 64, 1.1 lies halfway in log k: 32.

    What the base has already needs none.
    """
    alone = {"0": 1.5, "16": 1.2, "64": 1.0}
    assert math.isclose(needed(alone, 1.1), 32.0)
    assert needed(alone, 1.5) == 0.0
    assert needed(alone, 0.9) == math.inf


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("train", "test", "moved"), [(60, 447, 196), (100, 272, 156), (100, 150, 50), (31, 25, 0)]
)
def test_a_newcomer_gets_texts_that_no_measure_uses(
    tmp_path: Path, train: int, test: int, moved: int
) -> None:
    for part, rows in (("train", train), ("test", test)):
        text = "".join(json.dumps({"text": f"{part} {row}"}) + "\n" for row in range(rows))
        (tmp_path / f"{part}.jsonl").write_text(text, encoding="utf-8")
    give_more(tmp_path, max(EXAMPLES))
    left, more = lines(tmp_path / "test.jsonl"), lines(tmp_path / "train.jsonl")
    assert (len(more), len(left)) == (train + moved, test - moved)
    assert len(left) >= min(TESTED, test)
    assert not set(left) & set(more)


def row(benefit: float, end: float, verdict: str) -> dict[str, Any]:
    figures = {"benefit": benefit, "low": benefit - 0.1, "high": benefit + 0.1}
    return {**figures, "verdict": verdict, "end": end, "world": "w", "seed": 0, "cpu": 3.0}


def test_forecasts_are_counted_by_how_they_ended() -> None:
    rows = [
        row(0.3, 0.2, "pays"),
        row(0.2, -0.1, "pays"),
        row(0.05, 0.1, "open"),
        row(-0.2, -0.3, "does_not_pay"),
    ]
    words = summary("w", rows)
    assert "Spearman 0.80 (target 0.8: met)" in words
    assert "- pays: 1 gained, 1 lost" in words
    assert "- does_not_pay: 0 gained, 1 lost" in words
    assert "the interval held the benefit for 3 of 4; mean error +0.113" in words
