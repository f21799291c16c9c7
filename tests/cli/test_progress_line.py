"""One line of progress: it fits 80 and 60 columns, says how long the whole run will still take, and
moves inside a personal model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from tequio.app.simulation.run import start
from tequio.app.stages import FineWatch
from tequio.cli.output import STAGES
from tequio.cli.progress import ProgressLine, rough_duration
from tequio.config import load_federation

NAMES = ["north", "n" * 64, "日本" * 20, "a[b]:smile:", ""]


class Clock:
    """A clock that goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("width", [120, 80, 60, 20, 3, 0])
@pytest.mark.parametrize("name", NAMES)
def test_it_fits_whatever_it_says(width: int, name: str) -> None:
    clock = Clock()
    line = ProgressLine(STAGES, clock)
    line.plan({"rounds": 6400.0, "personal": 6400.0, "counterfactuals": 100.0})
    for stage in STAGES:
        for done in (0, 1, 99_999, 100_000):
            line(stage, f"round 1000 of 1000: {name}", done, 100_000)
            line.move(stage, 17.0, 123.456789e-9)
            clock.now += 3600.0
            said = line.line(width)
            assert cell_len(said) <= max(0, width - 1)
            assert "\n" not in line.text(width).plain


@pytest.mark.parametrize("width", [80, 60])
def test_stage_count_time_and_loss_are_there_at_each_width(width: int) -> None:
    clock = Clock()
    line = ProgressLine(STAGES, clock)
    line.plan({"rounds": 100.0, "personal": 100.0})
    line("rounds", "round 1 of 10: north", 0, 20)
    clock.now = 10.0
    line("rounds", "round 5 of 10: north", 10, 20)
    line.move("rounds", 0.0, 0.51234)
    assert line.line(width).startswith("Rounds 11 of 20, about 30 s left, loss 0.5123: round 5")


def test_it_moves_inside_a_personal_model() -> None:
    clock = Clock()
    line = ProgressLine(STAGES, clock)
    line.plan({"rounds": 100.0, "personal": 300.0})
    line("rounds", "", 0, 2)
    clock.now = 5.0
    line("personal", "north", 0, 3)
    assert line.line(80) == "Personal models 1 of 3 (0 %), about 15 s left: north"
    clock.now = 10.0
    line.move("personal", 150.0, 0.25)
    assert line.line(80) == "Personal models 1 of 3 (50 %), about 6 s left, loss 0.25: north"
    line.move("personal", 10_000.0, float("nan"))
    assert line.line(
        80
    ) == "Personal models 1 of 3 (100 %), about 0 s left, loss 0.25: north".replace("0 s", "1 s")


def test_a_run_that_is_resumed_counts_only_what_it_makes_now() -> None:
    clock = Clock()
    line = ProgressLine(STAGES, clock)
    line.plan({"rounds": 100.0})
    line("rounds", "", 9, 10)
    assert line.seconds_left() is None
    clock.now = 7.0
    line("rounds", "", 10, 10)
    assert line.seconds_left() == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (100, "2 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (200_000, "2 days"),
    ],
)
def test_a_length_of_time_as_a_person_says_it(seconds: float, words: str) -> None:
    assert rough_duration(seconds) == words


class Recorded(ProgressLine):
    """The line, and each text that it would have shown at 60 columns."""

    def __init__(self) -> None:
        super().__init__(STAGES)
        self.said: list[str] = []

    def __call__(self, stage: str, what: str, done: int, of: int) -> None:
        super().__call__(stage, what, done, of)
        self.said.append(self.line(60))

    def move(self, stage: str, steps: float, loss: float | None) -> None:
        super().move(stage, steps, loss)
        self.said.append(self.line(60))


def test_a_whole_run_moves_it(tmp_path: Path, make_federation: Callable[..., Path]) -> None:
    line = Recorded()
    assert isinstance(line, FineWatch)
    start(load_federation(make_federation(centre=False)), tmp_path / "run", False, watch=line)
    assert max(map(cell_len, line.said)) < 60
    personal = [said for said in line.said if said.startswith("Personal models")]
    inside = {said.split("(")[1].split(" %")[0] for said in personal if "(" in said}
    assert len(inside) > 4
    assert any("left" in said and "loss" in said for said in line.said if said.startswith("Rounds"))
