"""The personal model: each participant trains its own candidates and keeps the one that is best on its own validation data.

Candidates: the base; a model it trains alone (local); the shared one; the shared one with a private adapter on top, W₀ + G + α·P, for
several α; points between local and shared; and, where asked for, Ditto's (Li et al., arXiv 2012.04221): v minimises f(v) + λ/2·‖v − w‖²
with w = W₀ + G the shared model and v = w + P, so the pull is on the product, λ/2·‖P‖²_F = λ/2·s²·tr((BᵀB)(AAᵀ)), and on the head. (On
factors it would depend on how P is split.) Test data are looked at once, after the choice.
The local model is the baseline, so it may take as many steps as the participant's share of the rounds and its private adapter together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from tequio.algorithms.local._products import still
from tequio.algorithms.registry import terms_by_name
from tequio.core.errors import TrainingError
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.measure.budget import add, smaller
from tequio.measure.energy import Reading
from tequio.measure.statistics import paired_bootstrap, relative_benefit
from tequio.measure.verdicts import Pairs, loss_ratio
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.class_metrics import class_metrics
from tequio.participant.loop import adamw, train
from tequio.participant.node import Node
from tequio.participant.objective import Objective
from tequio.participant.personal_budget import LOCAL, FitBudget, PersonalModelBudget
from tequio.participant.text_tasks import Classification, Item, Losses, batches

NO_GAIN: dict[str, Any] = {"loss": None, "accuracy": None}

Moved = Callable[[float, float | None], None]
"""Called with the steps that were made since it was called last, and the loss on validation data (for progress; it decides nothing)."""
NEXT_TO_NOTHING = 1e-3  # nats: losses below it are a model that is right and sure of it


def ignore_moves(steps: float, loss: float | None) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Fitted:
    """The best adapter of a fit on validation (what it adds to its start), losses there before and after, and how it was reached.

    steps, tokens: made in all, with every rate that was tried; longest: steps at the rate that got furthest.
    """

    tail: Update
    before: Losses
    after: Losses
    rate: float
    step: int
    diverged: tuple[float, ...] = ()  # rates that were tried in vain
    steps: int = 0
    tokens: int = 0
    longest: int = 0


def fit(
    node: Node,
    start: Update,
    data: tuple[Sequence[Item], Sequence[Item]],
    budget: FitBudget,
    seed: int,
    pull: float = 0.0,
    budgeted: PersonalModelBudget | None = None,
    name: str = "",
    moved: Moved = ignore_moves,
) -> Fitted:
    """Train an adapter over base + `start` on data[0]; keep the checkpoint, over all rates, that is best on data[1].

    The start itself is the first checkpoint, so that a fit never ends worse than it began (on validation). A rate that
    diverges is given up and named; its checkpoints from before that count. pull: λ of Ditto, towards `start`. budgeted: what may still be
    spent; it knows this fit by `name`.
    """
    adapted, task, budgeted = node.adapted, node.task, budgeted or PersonalModelBudget()
    items, validation = data
    adapted.fold_in(start)
    with budgeted.looking():
        before = node.losses(validation)
    budget = budgeted.planned(budget, name)
    best = Fitted(zero(adapted.spec), before, before, 0.0, 0)
    steps = tokens = longest = 0
    for rate in budget.rates:
        adapted.fold_in(start)
        parameters = adapted.attach_full() if budget.full else adapted.attach(budget.rank, derive(seed, "factors"))
        stream = batches(items, node.batch_size, derive(seed, "batches"))
        objective = Objective(terms_by_name({"fedprox": pull}), start=still(adapted.moving()))
        optimizer = adamw(parameters)  # one for the whole fit: looking at validation does not disturb it
        done = 0
        for end in _marks(budget):
            rates = [rate * _decay(step, budget) for step in range(done, end)]
            if not budgeted.may(name, done, budget):
                break
            try:
                fitting = budgeted.steps(rates)
                made = train(adapted, task, parameters, stream, fitting, node.name, optimizer, objective, node.together)
            except TrainingError:
                best = replace(best, diverged=(*best.diverged, rate))
                break
            done, steps, tokens = done + made.steps, steps + made.steps, tokens + made.tokens
            longest = max(longest, done)
            after = node.losses(validation)
            moved(made.steps, after.scores().loss)
            if after.scores().loss < best.after.scores().loss:  # never true of NaN
                best = replace(best, tail=adapted.extract(), after=after, rate=rate, step=done)
    adapted.detach()
    return replace(best, steps=steps, tokens=tokens, longest=longest)


def _marks(budget: FitBudget) -> list[int]:
    """Steps after which to look at validation; the last is the end."""
    return sorted({max(1, round(budget.steps * k / budget.checks)) for k in range(1, budget.checks + 1)})


def _decay(step: int, budget: FitBudget) -> float:
    return 1.0 - (1.0 - budget.final_rate) * step / max(1, budget.steps)


@dataclass(frozen=True)
class Settings:
    """How personal models are made: budgets for local and private, the α of the private adapter, the mixes of local and shared."""

    local: FitBudget
    private: FitBudget
    alphas: tuple[float, ...]
    mixes: tuple[float, ...]
    seed: int
    ditto: tuple[float, ...] = ()  # λ of each candidate that is pulled towards the shared model

    @property
    def steps(self) -> int:
        """Optimizer steps in all, at most."""
        private = self.private.steps * len(self.private.rates) * (1 + len(self.ditto))
        return self.local.steps * len(self.local.rates) + private


@dataclass(frozen=True)
class Personal:
    """A participant's outcome: `delivered` and `local` as changes of the base, and what may be reported (means only)."""

    delivered: Update
    local: Update
    body: Mapping[str, Any]


def personalise(
    node: Node,
    shared: Update,
    settings: Settings,
    allowed: Mapping[str, float] | None = None,
    moved: Moved = ignore_moves,
) -> Personal:
    """Make the candidates, choose on validation, then measure base, local, shared and the chosen one on test.

    What is left of the own budget, and `allowed` of the federation's, by key, bounds it: fewer steps and candidates, at worst none, and
    then the shared model is delivered. Base and shared model are looked at in any case.
    """
    data, readings = (node.data.train, node.data.validation), list[Reading]()
    budgeted = _budget_for(node, readings, settings, allowed or {})
    with node.meter.measure() as alone:
        readings.append(alone)
        local = fit(node, zero(node.adapted.spec), data, settings.local, settings.seed, 0.0, budgeted, LOCAL, moved)
    with node.meter.measure() as reading:
        readings.append(reading)
        private = fit(node, shared, data, settings.private, settings.seed + 1, 0.0, budgeted, "private", moved)
        pulled = {}
        for pull, name in ((pull, f"ditto {pull:g}") for pull in settings.ditto):
            if budgeted.may(name, 0, settings.private):
                pulled[name] = fit(node, shared, data, settings.private, settings.seed + 1, pull, budgeted, name, moved)
        candidates = _candidates(node.adapted, shared, local.tail, private.tail, settings)
        candidates |= {name: shared.plus(f.tail) for name, f in pulled.items() if f.tail.entries}
        evaluated = {"base": local.before, "local": local.after, "shared": private.before}
        waiting = [name for name in candidates if name not in evaluated]
        for number, name in enumerate(waiting):
            if not budgeted.may_look():
                budgeted.cut.append(f"{number} of {len(waiting)} further candidates")
                break
            evaluated[name] = score(node, candidates[name], node.data.validation)
        evaluated = {name: losses for name, losses in evaluated.items() if math.isfinite(losses.scores().loss)}
        if not evaluated:
            fix = "Look for odd rows in its data, or use a base in float32."
            raise TrainingError(f"Participant {node.name}: no model gives its validation data a finite loss.", "", fix)
        chosen = choose(evaluated)
        # in one order, for all processes of a team look at the same model at a time
        asked = sorted({"base", "shared", chosen} | ({"local"} if local.tail.entries else set()))
        tested = {name: score(node, candidates[name], node.data.test) for name in asked}
        tested |= {"local": tested["local" if local.tail.entries else "base"], "personal": tested[chosen]}
    own, own_money = node.entered("local", None, alone.energy)
    rest, rest_money = node.entered("personal", None, reading.energy)
    energy = own.plus(rest)
    money = None if own_money is None or rest_money is None else own_money.plus(rest_money)
    fair = budgeted.fair(LOCAL, local.longest, settings.local)
    body = {
        "name": node.name,
        "chosen": chosen,
        "choice": explain_choice(evaluated, chosen),
        "candidates": {name: asdict(losses.scores()) for name, losses in sorted(evaluated.items())},
        "test": {name: asdict(tested[name].scores()) for name in ("base", "local", "shared", "personal")},
        "gains": {
            f"{a}_over_{b}": gain(tested[a], tested[b], derive(settings.seed, "gain", a, b))
            if b != LOCAL or fair
            else NO_GAIN
            for a, b in (("personal", "local"), ("personal", "base"), ("shared", "local"))
        },
        "benefit": _benefit(tested["local"].scores().loss, tested["personal"].scores().loss) if fair else None,
        "fits": {
            k: {"learning_rate": f.rate, "step": f.step, "diverged": list(f.diverged)}
            for k, f in {"local": local, "private": private, **pulled}.items()
        },
        "local_cost": {
            "steps": local.steps,
            "tokens": local.tokens,
            "energy": asdict(own),
            "money": None if own_money is None else asdict(own_money),
        },
        "energy": asdict(energy),
        "money": None if money is None else asdict(money),
        "seconds": energy.seconds,
        "classes": _classes(node, {name: tested[name] for name in ("base", "local", "shared", "personal")}),
        **({"cut": note} if (note := budgeted.note()) else {}),
    }
    return Personal(candidates[chosen], local.tail, body)


def _budget_for(
    node: Node, readings: Sequence[Reading], settings: Settings, allowed: Mapping[str, float]
) -> PersonalModelBudget:
    """readings: of the work, as it is begun."""

    def used() -> dict[str, float]:
        return reduce(add, (node.cost(reading.energy) for reading in readings), dict[str, float]())

    limits = {
        key: limit for key, limit in smaller(node.books.left(), node.books.bound(allowed)).items() if key != "megabytes"
    }
    return PersonalModelBudget(
        limits,
        used,
        node.batch_size,
        len(node.data.validation),
        len(node.data.test),
        [settings.private] * (1 + len(settings.ditto)),
        len(settings.alphas) + len(settings.mixes) + len(settings.ditto),
    )


def choose(evaluated: Mapping[str, Losses]) -> str:
    """The candidate of least loss on validation; the shared model, unless that one is better by more than one standard error.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), on paired differences: local and private models were
    already picked as the best of several checkpoints on the same data, so their lead is flattered; the shared one was not.
    """
    best = _lowest(evaluated)
    if "shared" not in evaluated:
        return best
    lead, error = _lead(evaluated["shared"], evaluated[best])
    return best if lead > error else "shared"


def explain_choice(evaluated: Mapping[str, Losses], chosen: str) -> dict[str, Any]:
    """Say by which rule `choose` chose: `lowest_loss`, or `within_one_error` where the shared model won although another led.

    lead, error: by how much the best candidate's validation loss lies below the shared model's, and its standard error.
    """
    best = _lowest(evaluated)
    found: dict[str, Any] = {"rule": "lowest_loss" if chosen == best else "within_one_error", "best": best}
    if "shared" in evaluated and best != "shared":
        lead, error = _lead(evaluated["shared"], evaluated[best])
        found |= {"lead": lead, "error": error if math.isfinite(error) else None}
    return found


def _lowest(evaluated: Mapping[str, Losses]) -> str:
    return min(evaluated, key=lambda name: (evaluated[name].scores().loss, name))


def _lead(shared: Losses, best: Losses) -> tuple[float, float]:
    lead = shared.per_example() - best.per_example()
    return float(lead.mean()), float(lead.std(ddof=1)) / math.sqrt(len(lead)) if len(lead) > 1 else math.inf


def _classes(node: Node, tested: Mapping[str, Losses]) -> dict[str, Any] | None:
    """The metrics of classes, in classification."""
    if not isinstance(node.task, Classification):
        return None
    answered = {name: losses.answered for name, losses in tested.items()}
    truth, train = ([item.target[0] for item in part] for part in (node.data.test, node.data.train))
    return class_metrics(len(node.task.labels), truth, {k: v for k, v in answered.items() if v is not None}, train)


def _candidates(
    adapted: AdaptedModel, shared: Update, local: Update, private: Update, settings: Settings
) -> dict[str, Update]:
    out = {"base": zero(adapted.spec), "local": local, "shared": shared}
    if private.entries:
        for alpha in settings.alphas:
            out[f"shared + {alpha:g} private"] = shared.plus(private.scaled(alpha))
    for mix in settings.mixes:
        out[f"{1 - mix:g} shared + {mix:g} local"] = shared.scaled(1 - mix).plus(local.scaled(mix))
    return out


def score(node: Node, model: Update, items: Sequence[Item]) -> Losses:
    """Losses of base + `model` on `items`."""
    node.adapted.fold_in(model)
    return node.losses(items)


def _benefit(local: float, personal: float) -> float | None:
    """Return the relative benefit; None where both losses are as good as none, so that their ratio says nothing."""
    return relative_benefit(local, personal) if local > 0.0 and max(local, personal) >= NEXT_TO_NOTHING else None


def gain(better: Losses, than: Losses, seed: int) -> dict[str, Any]:
    """Paired gains, positive where `better` is better.

    loss, accuracy: fall of the loss and rise of the accuracy, with bootstrap intervals of 95 %. log_ratio: interval of the
    log of the losses' ratio. pairs: counts of texts by which of the two answers them right. Without classes accuracy and
    pairs are None; where one example or none allows no interval there are only loss and accuracy, both None.
    """
    if len(better.total) < 2:
        return dict(NO_GAIN)
    loss = paired_bootstrap(than.per_example(), better.per_example(), derive(seed, "loss"))
    ratio = loss_ratio(better.per_example(), than.per_example())
    found: dict[str, Any] = {
        "loss": asdict(loss),
        "accuracy": None,
        "log_ratio": None if ratio is None else asdict(ratio),
        "pairs": None,
    }
    if not np.isnan(better.right).any():
        found["accuracy"] = asdict(paired_bootstrap(better.right, than.right, derive(seed, "accuracy")))
        found["pairs"] = asdict(Pairs.of(better.right, than.right))
    return found
