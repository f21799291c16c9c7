"""The one line that moves while a run goes on: stage, n of m, time left for the whole run, last
loss; never wider than the terminal.
"""

import math
import time
from collections.abc import Callable, Mapping
from threading import Lock

from rich.cells import cell_len, set_cell_size
from rich.text import Text

SPARE = 1  # columns at the right that stay empty: a terminal breaks a line that fills it
SURE = 0.02  # share of the work from which on the time left can be said


class ProgressLine:
    """A watch (`tequio.app.stages`) that keeps where a run is, and says it in one line.

    Threads may call it.

    on_stage: called when a stage begins, so that a short one is drawn too.
    """

    def __init__(
        self, names: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names, self._clock, self._lock = names, clock, Lock()
        self.on_stage: Callable[[], None] = lambda: None
        self._planned: dict[str, float] = {}
        self._made: dict[str, float] = {}
        self._stage, self._what, self._done, self._of = "", "", 0, 1
        self._loss: float | None = None
        self._began: tuple[float, float] | None = (
            None  # time and work at the first sign of training
        )

    def __call__(self, stage: str, what: str, done: int, of: int) -> None:
        """Keep that a stage has come to `done` of `of`; the stages before it are over."""
        begins = stage != self._stage
        with self._lock:
            if begins and self._stage in self._planned:
                self._made[self._stage] = self._planned[self._stage]
            self._stage, self._what, self._done, self._of = stage, what, done, of
            if stage in self._planned:
                self._raise(stage, self._planned[stage] * done / max(1, of))
        if begins:
            self.on_stage()

    def plan(self, steps: Mapping[str, float]) -> None:
        """Keep how many steps each stage takes at most."""
        with self._lock:
            self._planned = dict(steps)

    def move(self, stage: str, steps: float, loss: float | None) -> None:
        """Keep that a stage made so many more steps, and the loss that it has come to."""
        with self._lock:
            if loss is not None and math.isfinite(loss):
                self._loss = loss
            if stage in self._planned and steps:
                self._raise(stage, self._made.get(stage, 0.0) + steps)

    def _raise(self, stage: str, made: float) -> None:
        self._made[stage] = max(self._made.get(stage, 0.0), min(made, self._planned[stage]))
        if self._began is None:
            self._began = (self._clock(), sum(self._made.values()))

    def seconds_left(self) -> float | None:
        """Return the time left for the whole run, from the pace so far;

        None where too little is known.
        """
        total, made = sum(self._planned.values()), sum(self._made.values())
        if self._began is None or total <= 0.0:
            return None
        began, before = self._began
        since, elapsed = made - before, self._clock() - began
        sure = since >= SURE * total and elapsed > 0.0
        return elapsed * (total - made) / since if sure else None

    def line(self, width: int) -> str:
        """Return the line for a terminal of so many columns."""
        with self._lock:
            room, left = max(0, width - SPARE), self.seconds_left()
            share = self._share()
            parts = [f"{self._names.get(self._stage, self._stage)} {share}".strip()]
            if left is not None:
                parts.append(f"about {rough_duration(left)} left")
            if self._loss is not None:
                parts.append(f"loss {self._loss:.4g}")
            said = ", ".join(part for part in parts if part)
            rest = room - cell_len(said) - 2
            if self._what and rest >= min(6, cell_len(self._what)):
                said += f": {_cut(self._what, rest)}"
        return _cut(said, room)

    def _share(self) -> str:
        """How far the stage is; inside one of several personal models, with the percentage of the
        stage's steps.
        """
        planned = self._planned.get(self._stage)
        count = f"{min(self._done + (self._done < self._of), self._of)} of {self._of}"
        if self._stage != "rounds" and planned:
            return f"{count} ({100 * self._made.get(self._stage, 0.0) / planned:.0f} %)"
        return count if self._of > 1 else ""

    def text(self, width: int) -> Text:
        """Return the line for rich."""
        return Text(self.line(width), no_wrap=True, overflow="crop", end="")


def rough_duration(seconds: float) -> str:
    """Return a length of time as a person says it: 40 s, 3 min, 2 h 5 min, 3 days."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(minutes / 1440)} days"


def _cut(text: str, room: int) -> str:
    if cell_len(text) <= room:
        return text
    return set_cell_size(text, max(0, room - 2)).rstrip() + ".."[: max(0, room)]
