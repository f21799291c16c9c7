"""The types of one round: what is asked (`Request`), what comes back (`Reply`, `Failure`), and the
state between rounds.

All are frozen. A `State` is the whole memory of the coordinator and *is* the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from tequio.core.reason import Reason
from tequio.core.update import Update

Layout = Literal["product", "factors"]
"""product: participants train fresh factors over the folded shared model (mode X).
factors: participants continue the shared factors themselves (mode L, FedIT)."""

Trained = Literal["both", "a", "b"]
"""Which factors a round trains (layout factors); the other is frozen, common to all, and not
sent.
"""


@dataclass(frozen=True)
class Energy:
    """Electrical energy of one piece of work, and how it is known."""

    joules: float
    seconds: float
    method: str  # rapl, model; "nvml + …" with a GPU
    boundary: str  # what is inside: chip, package, node
    uncertainty: float  # relative half-width: 0.4 means ±40 %
    coverage: float = 1.0  # share of the time that `method` saw
    began: str = ""  # UTC
    intensity: float | None = (
        None  # g CO2e/kWh of the electricity, mean over that time; None: not known, or not told
    )
    pue: float = 1.0  # electricity of the building over that of the machine
    embodied: float | None = None  # g CO2e, this work's share of making the machine
    hosted: float | None = (
        # joules of the same work at the watts of the machine that simulates it; None: they are
        # `joules`
        None
    )

    @property
    def grams(self) -> float | None:
        """g CO2e of the electricity, location-based, at the meter of the building."""
        return None if self.intensity is None else self.joules / 3.6e6 * self.pue * self.intensity

    def plus(self, other: Energy) -> Energy:
        """Two pieces of work of one machine as one, at the intensity that gives the grams of both;
        what one does not know is not known.
        """
        joules = self.joules + other.joules
        mean = None
        if self.intensity is not None and other.intensity is not None:
            weighted = self.joules * self.intensity + other.joules * other.intensity
            mean = weighted / joules if joules else self.intensity
        return replace(
            self,
            joules=joules,
            seconds=self.seconds + other.seconds,
            intensity=mean,
            embodied=None
            if self.embodied is None or other.embodied is None
            else self.embodied + other.embodied,
            hosted=None
            if self.hosted is None or other.hosted is None
            else self.hosted + other.hosted,
        )

    def undisclosed(self) -> Energy:
        """Without what tells where the machine is."""
        return replace(self, intensity=None, pue=1.0, embodied=None)


@dataclass(frozen=True)
class Span:
    """A stretch of simulated time: from `begin` (ISO 8601, UTC), so many seconds."""

    begin: str
    seconds: float


@dataclass(frozen=True)
class Money:
    """What a piece of work cost, in the currency of who paid it."""

    amount: float
    currency: str

    def plus(self, other: Money) -> Money:
        """Both together, of one currency."""
        return Money(self.amount + other.amount, self.currency)


@dataclass(frozen=True)
class Addressed:
    """What every request and every answer begins with: the round, and the participant by number and
    by name.
    """

    round: int
    index: int
    name: str


@dataclass(frozen=True)
class TrainRequest(Addressed):
    """Train for one round.

    start: the factors to train further. Layout factors: coordinates `module:a`, `module:b`. Layout
    product: factored entries, scale included, to be filled with fresh ranks up to `rank`; None for
    fresh factors only. held + start is the model that training starts from.
    """

    layout: Layout
    rank: int
    steps: int
    learning_rate: float
    seed: int
    held: Update  # the shared model of this round, relative to the base
    start: Update | None = None
    upload: str = "plain"  # the codec of the reply, by name, and its settings
    upload_settings: Mapping[str, float] = field(default_factory=dict)
    trained: Trained = "both"
    feedback: float | None = (
        None  # what the codec drops is kept, times this, and sent later; None: it is lost
    )
    memory_round: int = 0  # the round after which the kept memory counts; 0: none yet
    terms: Mapping[str, float] = field(
        default_factory=dict
    )  # local loss terms by name, and their strengths
    gradient: Update | None = (
        None  # of the centre's public loss at the round's shared model; for the term `transfer`
    )
    method: str = "plain"  # the local method by name, and its settings
    method_settings: Mapping[str, float] = field(default_factory=dict)
    budget: Mapping[str, float] = field(
        default_factory=dict
    )  # what this task may take, by key of measure.budget
    hours: tuple[
        Span, ...
    ] = ()  # simulated time in which it is worked; empty: the time on the wall


@dataclass(frozen=True)
class EvaluateRequest(Addressed):
    """Evaluate base + `held` on the validation data (participants) or the public slices (the
    centre).
    """

    held: Update
    hours: tuple[Span, ...] = ()  # as in TrainTask


@dataclass(frozen=True)
class GradientRequest(Addressed):
    """Give the gradient of the own loss at base + `held`, a mean over `batches`, as factored
    entries of at most `rank` (the centre).
    """

    held: Update
    rank: int
    batches: int
    seed: int


@dataclass(frozen=True)
class DescribeRequest(Addressed):
    """Say what you have: counts of data, machine, layout.

    Asked before the first round where participants are elsewhere.
    """


@dataclass(frozen=True)
class PersonaliseRequest(Addressed):
    """Make your personal model from the shared one, `held`; rank and steps are those of your
    rounds.
    """

    held: Update
    rank: int
    steps: int
    budget: Mapping[str, float] = field(
        default_factory=dict
    )  # what it may take of the federation's, by key of measure.budget


@dataclass(frozen=True)
class SumRequest(Addressed):
    """Take one step of a secure sum: announce keys, share secrets, send what was asked for under
    masks, give shares that open the sum.

    purpose, round, attempt, head, trained, rate: which sum, as `trust.secure_sum.plan` reads them.
    payload: what the step goes by: the list of members (across a network), the directory, the
    inbox, the survivors. request: what to train or evaluate (step `mask`).
    """

    purpose: Literal["train", "validate"]
    attempt: int
    head: str
    step: Literal["announce", "share", "mask", "unmask"]
    payload: bytes = b""
    trained: Trained = "b"
    rate: float = 0.0
    request: TrainRequest | EvaluateRequest | None = None


Request = (
    TrainRequest
    | EvaluateRequest
    | GradientRequest
    | DescribeRequest
    | PersonaliseRequest
    | SumRequest
)


@dataclass(frozen=True)
class Reply(Addressed):
    """An answer to a request.

    metrics: means over the participant's own data; never a text, a label or a sample.

    `slices` holds per-example losses of *public* slices, and only the centre fills it.
    """

    update: Update | None = None
    payload: bytes | None = None  # the update as coded bytes, in place of `update`
    parts: Sequence[bytes] | None = (
        None  # or as one coded message an entry, sorted by name; may lie on disk (full weights)
    )
    examples: int = 0
    steps: int = 0
    tokens: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    energy: Energy | None = None
    money: Money | None = None
    note: str = ""  # why fewer steps were made than asked for
    # canonical JSON: what is told of data and machine, or of the personal model; counts and means
    body: str = ""


@dataclass(frozen=True)
class Failure(Addressed):
    """A participant could not do its task; errors are data, the round goes on without it."""

    error: str
    message: (
        str  # words for a person, with the reason at their end where it has a code (`core.reason`)
    )

    @classmethod
    def of(cls, request: Request, error: Exception, reason: Reason | None = None) -> Failure:
        """Build the failure of a request by an error, with its reason or this one."""
        found = reason or getattr(error, "reason", None)
        return cls(
            request.round,
            request.index,
            request.name,
            type(error).__name__,
            str(error) if found is None else found.after(str(error)),
        )


@dataclass(frozen=True)
class DistilRequest:
    """Train base + `held` toward `teacher`, probabilities (rows × classes) at `temperature`, on
    these public items in this order.
    """

    held: Update
    items: tuple[int, ...]
    teacher: Tensor
    temperature: float
    rank: int
    steps: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Scores:
    """Means over one data set: loss (nats per example or token), accuracy (classification), number
    of examples.
    """

    loss: float
    examples: int
    accuracy: float | None = None


@dataclass(frozen=True)
class InFlightUpdate:
    """An admitted update on its way (buffered rounds): sent for in round `sent`, it counts in a
    round from `due` on.

    staleness: steps that the shared model has made since. facts and row: what the coordinator will
        weigh and record.
    """

    index: int
    sent: int
    due: int
    staleness: int
    update: Update
    facts: Mapping[str, Any]
    row: Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """What the coordinator knows after `round` rounds.

    shared: what participants hold, relative to the base (layout product: ΔW; layout factors:
        coordinates).
    pending: what the server has accumulated and not yet sent (product layout; exact remainder of
        the truncation).
    momentum: the server optimiser's memory. best: the shared update with the lowest validation loss
        so far.
    step_scale: multiplies the server's step; halved when the gate rejects, doubled back (to 1) when
        it accepts.
    norm_per_rate: median norm of the last admitted updates over their learning rate. base_slices:
        the base's losses on the public slices.
    base_losses, losses: validation loss by participant, of the base and of `shared` (as last
        evaluated).
    memory_rounds: with error feedback, by participant, the last round whose update is in `shared`;
        its own memory is the one after that.
    best_losses: validation loss by participant of `best`; empty where an old checkpoint does not
        have it.
    flights: updates on their way (buffered rounds).
    """

    round: int
    shared: Update
    pending: Update
    momentum: Update
    best: Update
    best_loss: float
    best_round: int
    stale_rounds: int = 0
    step_scale: float = 1.0
    norm_per_rate: float = 0.0
    base_slices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    base_losses: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    best_losses: Mapping[str, float] = field(default_factory=dict)
    memory_rounds: Mapping[str, int] = field(default_factory=dict)
    flights: tuple[InFlightUpdate, ...] = ()
