"""A personal model within a budget: steps are planned from what a look at validation data took, and
made while they fit.

What a step takes is not known before one is made: three times a forward pass of its batch, until
then. Where the whole does not fit, all trainings are shortened in one proportion (their learning
rate falls over the steps that are left), below a few steps to one learning rate. A training of
which less than a quarter would be made leaves its part to those after it; the last one, of which
fewer steps than looks would, is not made. Candidates are scored while that fits. Kept back is what
the last look at the models takes, on test data.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tequio.core.reason import Reason
from tequio.measure.budget import KEYS
from tequio.participant.task_budget import FORWARDS

QUARTER = 0.25  # of a training: less is not worth its looks, where another one comes after it
TESTED = 5  # models looked at on test data: base, local, shared, the chosen one and the general one
LEAST = (
    2  # of those, what is looked at in any case: base and shared, on validation and on test data
)

FAIR = 0.5  # of a training: a model of which a budget left less is not compared with
LOCAL = "local"  # the training alone

Cost = Mapping[str, float]


@dataclass(frozen=True)
class FitBudget:
    """How much a fit may do: rank, total steps, learning rates to try, how often to look at
    validation, smallest rate share.
    """

    rank: int
    steps: int
    rates: tuple[float, ...]
    checks: int
    final_rate: float = 0.1
    full: bool = False  # whole weights, not factors of `rank`


def closing_passes(validation: int, test: int) -> float:
    """What the last look at base and shared model takes, in passes over validation data; counts of
    texts.
    """
    return LEAST * (1.0 + test / max(1, validation))


@dataclass
class PersonalModelBudget:
    """Without limits nothing is counted and everything fits. used: since the work began, by key;
    what is not known adds nothing.

    batch, validation, test: texts. fits: trainings that are still to come; looks: candidates that
        will be scored beside them.
    """

    limits: Cost = field(default_factory=dict)
    used: Callable[[], Mapping[str, float | None]] = dict
    batch: int = 1
    validation: int = 1
    test: int = 0
    fits: list[FitBudget] = field(default_factory=list)
    looks: int = 0
    tested: int = TESTED
    look: dict[str, float] = field(default_factory=dict)  # one pass over validation data
    step: dict[str, float] = field(default_factory=dict)  # mean of those made
    steps_made: int = 0
    cut: list[Reason] = field(default_factory=list)  # what was made less of
    short: set[str] = field(default_factory=set)  # of which keys there was too little

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Around one pass over validation data, whose cost is learnt."""
        before = self._now() if self.limits else {}
        yield
        if self.limits:
            spent = _minus(self._now(), before)
            self.look = {key: max(self.look.get(key, 0.0), spent[key]) for key in self.limits}

    def planned(self, fit: FitBudget, name: str) -> FitBudget:
        """The next training, shortened where all that is to come would not fit."""
        if not self.limits:
            return fit
        fits, step = [fit, *self.fits], self.step or self._guess()
        self.fits = self.fits[1:]
        steps = sum(each.steps * len(each.rates) for each in fits)
        looks = sum(min(each.checks, each.steps) * len(each.rates) for each in fits)
        need = {key: steps * step[key] + looks * self.look.get(key, 0.0) for key in self.limits}
        room = self._room(
            self.looks + 2 * len(fits) - 1
        )  # each begins with a look, and ends with one
        share = min(
            (max(0.0, room[key]) / need[key] for key in self.limits if need[key] > 0.0), default=1.0
        )
        if share >= 1.0:
            return fit
        self.short |= {key for key in self.limits if room[key] < need[key]}
        rates = fit.rates
        if share * fit.steps < fit.checks:  # too few for each learning rate
            share, rates = share * len(rates), rates[len(rates) // 2 :][:1]
        steps = min(fit.steps, int(share * fit.steps))
        if steps < min(fit.checks, fit.steps) or (len(fits) > 1 and share < QUARTER):
            steps, rates = 0, ()
            self.tested -= name == LOCAL  # it is the base then
        facts = {
            "fit": name,
            "steps": steps,
            "full": fit.steps,
            "rates": len(rates),
            "full_rates": len(fit.rates),
        }
        self.cut.append(Reason("fit-shortened", facts))
        return replace(fit, steps=steps, rates=rates, checks=max(1, int(share * fit.checks)))

    def may(self, name: str, done: int, fit: FitBudget) -> bool:
        """Whether one more step of a training fits, and the look after it; noted where it ends the
        training.
        """
        if self._step_fits():
            return True
        if "fit-ended" not in self._cuts(name):  # at the next learning rate it ends as well
            self.cut.append(Reason("fit-ended", {"fit": name, "steps": done, "full": fit.steps}))
        return False

    def steps(self, rates: Sequence[float]) -> Iterable[float]:
        """The rates of the steps that fit, the first of them in any case."""
        return self._counted(rates) if self.limits else rates

    def may_look(self, passes: float = 1.0) -> bool:
        """Whether one more candidate can be scored, or so many passes over validation data made."""
        return self._fits({key: passes * value for key, value in self.look.items()})

    def fair(self, name: str, made: int, fit: FitBudget) -> bool:
        """Whether a training, of which `made` steps were made at the rate that got furthest, is one
        to compare with.
        """
        return made >= FAIR * fit.steps or not self._cuts(name)

    def note(self) -> Reason | None:
        """What was made less of, and why; None where everything fitted."""
        facts = {
            "cut": [one.as_record() for one in self.cut],
            "keys": [key for key in KEYS if key in self.short],
        }
        return Reason("personal-cut", facts) if self.cut else None

    def _cuts(self, name: str) -> list[str]:
        """The codes of what was cut of one training."""
        return [one.code for one in self.cut if one.facts.get("fit") == name]

    def _counted(self, rates: Sequence[float]) -> Iterator[float]:
        for done, rate in enumerate(rates):
            if done and not self._step_fits():
                return
            before = self._now()
            yield rate
            spent, n = _minus(self._now(), before), self.steps_made
            self.step = {
                key: (self.step.get(key, 0.0) * n + spent[key]) / (n + 1) for key in self.limits
            }
            self.steps_made += 1

    def _step_fits(self) -> bool:
        step = self.step or self._guess()
        return self._fits({key: step[key] + self.look.get(key, 0.0) for key in self.limits})

    def _now(self) -> dict[str, float]:
        found = self.used()
        return {key: found.get(key) or 0.0 for key in self.limits}

    def _guess(self) -> dict[str, float]:
        share = FORWARDS * self.batch / max(1, self.validation)
        return {key: share * self.look.get(key, 0.0) for key in self.limits}

    def _room(self, looks: int) -> dict[str, float]:
        """What is left when the test data were looked at, and so many candidates scored."""
        passes, now = looks + self.tested * self.test / max(1, self.validation), self._now()
        return {
            key: limit - now[key] - passes * self.look.get(key, 0.0)
            for key, limit in self.limits.items()
        }

    def _fits(self, need: Cost) -> bool:
        if not self.limits:
            return True
        room = self._room(0)
        short = {key for key in self.limits if room[key] < need.get(key, 0.0) or room[key] <= 0.0}
        self.short |= short
        return not short


def _minus(a: Cost, b: Cost) -> dict[str, float]:
    return {key: value - b[key] for key, value in a.items()}
