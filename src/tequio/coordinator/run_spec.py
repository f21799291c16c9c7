"""What stays the same for a whole run: who takes part with which rank and steps, and the chosen
pieces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.compress.plain import Plain as PlainCodec
from tequio.algorithms.factors import trainable
from tequio.algorithms.local.plain import Plain
from tequio.core.canonical import packed_update_size
from tequio.core.protocols import (
    Aggregator,
    LocalMethod,
    LocalTerm,
    Sees,
    ServerOptimizer,
    Start,
    Weighting,
)
from tequio.core.seeds import derive
from tequio.core.types import Span, State, Trained
from tequio.core.update import Update
from tequio.planning.learning_rate import round_rate


@dataclass(frozen=True)
class Member:
    """One participant's part: index (the centre is 0), rank and local steps a round; the seconds it
    needs, None if not known.

    sizes: its items by split, as it joined with them; empty where they are not compared (in one
        process).
    """

    name: str
    index: int
    rank: int
    steps: int
    seconds: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Coding:
    """A codec, with its name and settings as a task carries them."""

    codec: Codec = field(default_factory=PlainCodec)
    name: str = "plain"
    settings: Mapping[str, float] = field(default_factory=dict)

    def sent(self, update: Update, seed: int, source: str) -> tuple[Update, int]:
        """An update as the other side reads it, and its bytes."""
        if self.name == "plain":
            return update, packed_update_size(update)
        coded = self.codec.encode(update, seed)
        return self.codec.decode(coded, source), len(coded)


@dataclass(frozen=True)
class Screening:
    """What `screen.py` does with admitted updates; None: nothing.

    norm_bound: × the expected norm (see `screen.py`). cosine: least value, -1 to 1. loss: largest
        increase on a public slice,
    relative to the shared model's.
    """

    norm_bound: float | None = None
    cosine: float | None = None
    cosine_to: Literal["others", "centre"] = "others"
    cosine_action: Literal["record", "refuse"] = "record"
    loss: float | None = None
    loss_action: Literal["record", "refuse"] = "record"

    @property
    def streaming(self) -> bool:
        """Whether no update need be kept until all are in."""
        return self.loss is None and (self.cosine is None or self.cosine_to == "centre")

    @property
    def sees(self) -> Sees:
        """What it must see of a round's updates."""
        if self.loss is not None or self.cosine is not None:
            return "each update"
        return "only the sum" if self.norm_bound is None else "norms"


@dataclass(frozen=True)
class Local:
    """What participants minimise, and by which method, with its name and settings as a task carries
    them.
    """

    terms: tuple[LocalTerm, ...] = ()
    method: LocalMethod = field(default_factory=Plain)
    method_name: str = "plain"
    method_settings: Mapping[str, float] = field(default_factory=dict)

    def terms_of(self, index: int) -> dict[str, float]:
        """The terms of one member's task; the centre (0) has not all of them."""
        return {term.name: term.strength for term in self.terms if index > 0 or term.for_centre}

    def needs(self, what: str) -> bool:
        """Whether a term needs `what`: public, base or gradient."""
        return any(what in term.needs for term in self.terms)


@dataclass(frozen=True)
class RunSpec:
    """A run.

    `federated_share` is λ in λ·Δ_participants + (1 − λ)·Δ_centre (Augenstein et al., arXiv
    2205.13655).

    cohort: how many members train in a round, and how many evaluate; None for all.
    quorum: usable replies without which a round makes no step.
    centre_first: rounds that the centre trains alone before the others begin; the rate then begins
        anew.
    window_seconds: length of a window of buffered rounds, None where rounds wait for everybody;
        buffer: replies that a step needs.
    """

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
    full: bool = (
        False  # updates are changes of whole weights, entry by entry (`Reply.parts`), not factors
    )
    feedback: float | None = (
        None  # decay of the uploads' error feedback; None: what a code drops is lost
    )
    screening: Screening = Screening()
    local: Local = Local()
    head_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cohort: int | None = None
    window_seconds: float | None = None
    buffer: int = 1
    quorum: int = 1
    centre_first: int = 0
    credit: bool = False  # keep a round's updates, and say what each contributed
    leave_one_out: bool = False
    budgets: Mapping[int, Mapping[str, float]] = field(
        default_factory=dict
    )  # what each may take in the next round
    hours: Mapping[int, tuple[Span, ...]] = field(
        default_factory=dict
    )  # simulated time in which each works in it
    after: tuple[Span, ...] = ()  # and in which the models are evaluated
    resting: frozenset[int] = frozenset()  # who sits it out

    def rate(self, round_: int) -> float:
        """Local learning rate of round 1…rounds: linear from learning_rate to final_rate times it,
        for the centre alone and for all.
        """
        return round_rate(
            round_, self.rounds, self.centre_first, self.learning_rate, self.final_rate
        )

    def centre_alone(self, round_: int) -> bool:
        """Whether only the centre trains in a round, and only it evaluates."""
        return 0 < round_ <= self.centre_first

    def roster(self, round_: int) -> tuple[Member, ...]:
        """Who trains in a round: the centre first, then everybody, or a uniform sample of `cohort`,
        in order of index.

        A centre that does not count (λ = 1) does not train, unless the participants' updates are
        compared with its.
        """
        drawn = self._with_centre(self._centre_trains(round_), round_, "cohort", round_)
        return tuple(member for member in drawn if member.index not in self.resting)

    def panel(self, round_: int) -> tuple[Member, ...]:
        """Who evaluates: the centre first, then everybody, or one sample of `cohort` that stays the
        same for the whole run.

        Mean losses of different rounds are then of the same participants, and can be compared.
        Round 0 is the base.
        """
        return self._with_centre(True, round_, "panel")

    def _centre_trains(self, round_: int) -> bool:
        compared = self.screening.cosine is not None and self.screening.cosine_to == "centre"
        return self.federated_share < 1.0 or compared or self.centre_alone(round_)

    def _with_centre(
        self, centre_too: bool, round_: int, *purpose: str | int
    ) -> tuple[Member, ...]:
        centre = (self.centre,) if self.centre is not None and centre_too else ()
        if self.centre_alone(round_):
            return centre
        if self.cohort is None or self.cohort >= len(self.members):
            return (*centre, *self.members)
        chosen = sample(len(self.members), self.cohort, self.seed, *purpose)
        return (*centre, *(self.members[i] for i in chosen))

    def trained(self, state: State) -> Trained:
        """Which factors the round after `state` trains (layout factors)."""
        return trainable(state.shared, self.aggregator.trained(state.round + 1))

    def expected_norm(self, state: State) -> float:
        """Median norm of the round before, at the rate of the next; 0 where that is not known."""
        return state.norm_per_rate * self.rate(state.round + 1)

    def top_rank(self) -> int:
        """The largest rank of all, the centre's included."""
        centre = [] if self.centre is None else [self.centre.rank]
        return max([m.rank for m in self.members] + centre)


def sample(count: int, size: int, seed: int, *purpose: str | int) -> list[int]:
    """`size` different numbers below `count`, rising; every such set is equally likely (Floyd's
    algorithm, Bentley 1987).
    """
    chosen: set[int] = set()
    for top in range(count - size, count):
        drawn = derive(seed, *purpose, top) % (top + 1)
        chosen.add(top if drawn in chosen else drawn)
    return sorted(chosen)
