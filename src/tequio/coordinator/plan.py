"""What stays the same for a whole run: who takes part with which rank and steps, and the chosen pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tequio.algorithms.catalogue import codec_by_name
from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.factors import trainable
from tequio.core.protocols import Aggregator, ServerOptimizer, Start, Weighting
from tequio.core.types import State, Trained


@dataclass(frozen=True)
class Member:
    """One participant's part: index (the centre is 0), rank and local steps a round."""

    name: str
    index: int
    rank: int
    steps: int


@dataclass(frozen=True)
class Coding:
    """A codec by name, with its settings: what a task can carry."""

    name: str = "plain"
    settings: Mapping[str, float] = field(default_factory=dict)

    def codec(self) -> Codec:
        """The codec itself."""
        return codec_by_name(self.name, **self.settings)


@dataclass(frozen=True)
class Plan:
    """A run. `federated_share` is λ in λ·Δ_participants + (1 − λ)·Δ_centre (Augenstein et al., arXiv 2205.13655)."""

    seed: int
    rounds: int
    spec: str
    scale: float
    shapes: Mapping[str, tuple[int, int]]
    members: tuple[Member, ...]
    centre: Member | None
    federated_share: float
    learning_rate: float
    final_rate: float
    aggregator: Aggregator
    start: Start
    weighting: Weighting
    server: ServerOptimizer
    broadcast_rank: int
    patience: int
    gate_margin: float
    upload: Coding = Coding()
    download: Coding = Coding()
    head_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def rate(self, round_: int) -> float:
        """Local learning rate of round 1…rounds: linear from learning_rate to final_rate times it."""
        done = (round_ - 1) / max(1, self.rounds - 1)
        return self.learning_rate * (1.0 + (self.final_rate - 1.0) * done)

    def trained(self, state: State) -> Trained:
        """Which factors the round after `state` trains (layout factors)."""
        return trainable(state.shared, self.aggregator.trained(state.round + 1))

    def top_rank(self) -> int:
        """The largest rank of all, the centre's included."""
        centre = [] if self.centre is None else [self.centre.rank]
        return max([m.rank for m in self.members] + centre)
