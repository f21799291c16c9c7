"""The seams: what a runtime, an aggregator, a weighting, a start, a server optimiser and a local
term offer.

Structural, no base class.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from tequio.core.types import (
    DistilRequest,
    EvaluateRequest,
    Failure,
    GradientRequest,
    Layout,
    Reply,
    Request,
    Trained,
    TrainRequest,
)
from tequio.core.update import Update


class Named(Protocol):
    """Somebody or something that configuration calls by a name."""

    @property
    def name(self) -> str:
        """How configuration calls it."""


class Participant(Named, Protocol):
    """One organisation, or the centre (index 0)."""

    def train(self, task: TrainRequest) -> Reply:
        """Train on its own data and return the update."""

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Score a shared model on its own validation data."""

    def gradient(self, task: GradientRequest) -> Reply:
        """The gradient of its own loss; only the centre is asked, whose texts are public."""


class Runtime(Protocol):
    """Carry tasks to participants and their replies back."""

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Yield one Reply or Failure per task, in order of arrival."""


@dataclass(frozen=True)
class Facts:
    """What a weighting may know of one admitted reply: no tensors.

    excess: validation loss of the shared model at the start of the round on the participant's own
        data, relative to the
    base's there: loss / base loss; 0.0 = not known.
    """

    examples: int
    steps: int
    norm: float
    excess: float = 0.0


Sees = Literal["each update", "norms", "only the sum"]
"""What a piece must be able to look at: every single update, their norms, or nothing but their
sum.
"""


class Weighting(Named, Protocol):
    """Turns replies into coefficients.

    The aggregate is scale(all) · Σ cᵢ Δᵢ / Σ wᵢ, so it can be summed as it arrives.
    """

    @property
    def sees(self) -> Sees:
        """What it must see to weigh an update."""

    def weight(self, facts: Facts) -> float:
        """wᵢ: the share of this reply in the mean."""

    def coefficient(self, facts: Facts) -> float:
        """cᵢ: what multiplies Δᵢ while summing; wᵢ unless the piece rescales updates."""

    def scale(self, facts: Sequence[Facts]) -> float:
        """What multiplies the finished mean."""


class Aggregator(Named, Protocol):
    """Adds updates up. The accumulator is the piece's own: nobody else looks into it.

    A streaming piece keeps it at a constant size, however many updates go in; one that must see all
    updates keeps them.
    """

    @property
    def layout(self) -> Layout:
        """What its updates are."""

    @property
    def streaming(self) -> bool:
        """Whether memory does not grow with the number of updates."""

    @property
    def sees(self) -> Sees:
        """What it must see to add updates up; only the sum: of updates in common coordinates."""

    @property
    def nested(self) -> bool:
        """Layout factors: whether ranks above a participant's own are folded into what it holds,
        frozen; else it lacks them.
        """

    def trained(self, round_: int) -> Trained:
        """Layout factors: which of them round `round_` (from 1) trains."""

    def init(self, spec: str) -> Any:
        """The empty accumulator."""

    def add(self, total: Any, update: Update, coefficient: float) -> Any:
        """A new accumulator in which coefficient · update counts too."""

    def result(self, total: Any, divisor: float) -> Update:
        """The aggregate; `divisor` is Σ wᵢ over the weighting's scale."""


class Start(Named, Protocol):
    """How a participant starts a round from the shared product G (layout product)."""

    @property
    def continues(self) -> bool:
        """Whether factors are continued: the change that comes back then has up to twice the
        participant's rank.
        """

    @property
    def truncates(self) -> bool:
        """Whether participants lack a part of G: the new G is then the mean of what they end with,
        G₊ = Σ wᵢBᵢAᵢ / Σ wᵢ.
        """

    def begin(self, shared: Update, rank: int) -> tuple[Update, Update | None]:
        """Return what is held frozen, heads included, and the factored entries to train further.

        The entries are None for fresh factors.
        """


class ServerOptimizer(Named, Protocol):
    """Turns the aggregated change (the pseudo-gradient, in descent direction) into a step."""

    def init(self, spec: str) -> Update:
        """The empty memory."""

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """(new memory, step to add to the shared model)."""


Need = Literal["public", "base", "gradient"]
"""What a local term looks at: the model's output on public text, the base's there, the centre's
gradient.
"""


@dataclass(frozen=True)
class Step:
    """What a local term may know of one step. Tensors are on the training device;

    `own`, `now` and `public` carry gradients.

    own: loss of the participant's batch. now, start: what is trained, s·B·A a module and the head
        itself, at this step and at the
    start of the round. public, base: logits (rows × classes) of a public batch, of the model and of
    the base; truth: classes (rows).
    gradient: that of the centre's public loss. None where no term needs it.
    """

    own: Tensor
    now: Update
    start: Update
    public: Tensor | None = None
    truth: Tensor | None = None
    base: Tensor | None = None
    gradient: Update | None = None


class LocalTerm(Named, Protocol):
    """A term that is added to the loss of a local step. Strength 0 is no term."""

    @property
    def strength(self) -> float:
        """How much it counts; 0 or more."""

    @property
    def needs(self) -> frozenset[Need]:
        """What must be in a `Step` for it."""

    @property
    def for_centre(self) -> bool:
        """Whether the centre's own training has it too."""

    def added(self, step: Step) -> Tensor:
        """A differentiable scalar, strength included."""


class LocalMethod(Named, Protocol):
    """Where the gradient of a local step is taken."""

    @property
    def batches(self) -> int:
        """Batches a step draws: 1, or 2 where it looks ahead by the gradient of the first."""

    def ahead(self, values: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """The point at which the gradient of the second batch is taken; it is applied at
        `values`.
        """


class Ensemble(Named, Protocol):
    """How several models' predictions become one teacher: teacher(Σ wₖ term(zₖ) / Σ wₖ)."""

    def term(self, logits: Tensor, temperature: float) -> Tensor:
        """Return the quantity to average, from logits (rows × classes)."""

    def teacher(self, mean: Tensor) -> Tensor:
        """Return the probabilities (rows × classes) of the mean of terms."""


class Distiller(Protocol):
    """The centre, over one group's base and its own public texts: says what a model predicts there,
    and trains it toward a teacher.
    """

    @property
    def count(self) -> int:
        """Public items; item k is the same text over every base."""

    def logits(self, model: Update, items: Sequence[int]) -> Tensor:
        """What base + `model` predicts, float32 (rows × classes), item after item.

        Raises TrainingError unless all are finite.
        """

    def distil(self, task: DistilRequest) -> tuple[Update, float, float]:
        """(change, first loss, last loss) of training toward the teacher.

        Raises TrainingError where it diverges.
        """
