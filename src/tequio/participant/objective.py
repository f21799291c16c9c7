"""What a stretch of local training minimises: the own loss, terms on top of it, and what these look
at.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from tequio.algorithms.local._products import still
from tequio.algorithms.local.plain import Plain
from tequio.algorithms.registry import method_by_name, terms_by_name
from tequio.core.errors import TrainingError
from tequio.core.protocols import LocalMethod, LocalTerm, Step
from tequio.core.seeds import derive
from tequio.core.texts.words import refuse_first
from tequio.core.types import TrainRequest
from tequio.core.update import Update
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.public_text import Public
from tequio.participant.text_tasks import TextTask


@dataclass(frozen=True)
class Objective:
    """The terms and the method; where training started; the centre's gradient; public text and the
    order of its batches.
    """

    terms: tuple[LocalTerm, ...] = ()
    method: LocalMethod = field(default_factory=Plain)
    start: Update | None = None
    gradient: Update | None = None
    public: Public | None = None
    order: Iterator[int] | None = None

    def total(self, own: Tensor, adapted: AdaptedModel, task: TextTask) -> Tensor:
        """The own loss and all terms.

        Draws the next public batch, one for all terms, where one is needed.
        """
        if not self.terms:
            return own
        needs = frozenset[str]().union(*(term.needs for term in self.terms))
        logits = truth = base = None
        if self.public is not None and self.order is not None and needs & {"public", "base"}:
            position = next(self.order)
            base = self.public.base(position, adapted, task) if "base" in needs else None
            logits, truth = task.logits(adapted, self.public.batches[position])
        now = adapted.moving()
        step = Step(own, now, self.start or still(now), logits, truth, base, self.gradient)
        total = own
        for term in self.terms:
            total = total + term.added(step)
        return total


def build_objective(task: TrainRequest, adapted: AdaptedModel, public: Public | None) -> Objective:
    """What `task` asks to minimise, from the factors just attached to the adapted model.

    Raises TrainingError where a term needs public text or the centre's gradient, and there is none.
    """
    terms = terms_by_name(task.terms)
    method = method_by_name(task.method, **task.method_settings)
    for term in terms:
        found = {
            "term-without-own-text": bool(term.needs & {"public", "base"}) and public is None,
            "term-without-gradient": "gradient" in term.needs and task.gradient is None,
        }
        refuse_first(TrainingError, found, name=task.name, term=term.name)
    if not terms:
        return Objective(method=method)
    gradient = None if task.gradient is None else still(task.gradient, adapted.device)
    order = None if public is None else public.order(derive(task.seed, "public"))
    return Objective(terms, method, still(adapted.moving()), gradient, public, order)
