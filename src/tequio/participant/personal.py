"""The personal model: each participant trains its own candidates and keeps the one that is best on
its own validation data.

Candidates: the base; a model it trains alone (local); the shared one; the shared one fine-tuned at
home by a private adapter on top, W₀ + G + α·P, for several α; that without classes which its
training texts lack; points between local and shared; and, where asked for, Ditto's (Li et al.,
arXiv 2012.04221): v minimises f(v) + λ/2·‖v − w‖² with w = W₀ + G the shared model and v = w + P,
so the pull is on the product, λ/2·‖P‖²_F = λ/2·s²·tr((BᵀB)(AAᵀ)), and on the head. (On factors it
would depend on how P is split.) How one of them is
chosen: `choice`. Beside it a general model is made: in classification the answers of the kept and
    the shared model together
(`general`), else one on the way from the shared to the kept. Test data are looked at once, after
the choice. The local model is the baseline, so it may take as many steps as the participant's share
of the rounds and its private adapter together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import torch

from tequio.core.errors import TrainingError
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Update, zero
from tequio.measure.budget import add, smaller
from tequio.measure.energy import Reading
from tequio.measure.statistics import paired_bootstrap, relative_benefit
from tequio.measure.verdicts import Pairs, loss_ratio
from tequio.participant.adapted_model import HEAD_BIAS
from tequio.participant.choice import (
    CHOICE_RULE,
    EARLIER_RULE,
    PRIVATE,
    SHARED,
    Choice,
    Recipe,
    fair_lead,
    general_share,
    one_error,
    private_share,
    shrunk,
)
from tequio.participant.class_metrics import class_metrics
from tequio.participant.fit import Moved, fit, ignore_moves
from tequio.participant.general import (
    MOST_TEXTS,
    Familiarity,
    answers,
    blended,
    embeddings,
    learn,
    losses_of,
)
from tequio.participant.node import Node
from tequio.participant.personal_budget import LOCAL, FitBudget, PersonalModelBudget
from tequio.participant.text_tasks import Classification, Item, Losses

OWN_CLASSES = "own classes"
NO_GAIN: dict[str, Any] = {"loss": None, "accuracy": None}

NEXT_TO_NOTHING = 1e-3  # nats: losses below it are a model that is right and sure of it


@dataclass(frozen=True)
class Settings:
    """How personal models are made: budgets for local and private, the α of the private adapter,
    the mixes of local and shared.

    rule: by which one is chosen, see `choice`.
    """

    local: FitBudget
    private: FitBudget
    alphas: tuple[float, ...]
    mixes: tuple[float, ...]
    seed: int
    ditto: tuple[float, ...] = ()  # λ of each candidate that is pulled towards the shared model
    rule: str = CHOICE_RULE

    @property
    def steps(self) -> int:
        """Optimizer steps in all, at most."""
        private = self.private.steps * len(self.private.rates) * (1 + len(self.ditto))
        return self.local.steps * len(self.local.rates) + private

    def alone_for(self, rounds: int) -> Settings:
        """The settings of one round, with the steps of so many rounds for the model trained
        alone.
        """
        steps = (self.local.steps - self.private.steps) * rounds + self.private.steps
        return replace(self, local=replace(self.local, steps=steps))


@dataclass(frozen=True)
class Personal:
    """A participant's outcome:

    `delivered` and `local` as changes of the base, and what may be reported (means only).

    familiarity: what its general model needs beside the kept and the shared one; it stays with the
        participant.
    """

    delivered: Update
    local: Update
    body: Mapping[str, Any]
    familiarity: Familiarity | None = None


def personalise(
    node: Node,
    shared: Update,
    settings: Settings,
    allowed: Mapping[str, float] | None = None,
    moved: Moved = ignore_moves,
) -> Personal:
    """Make the candidates, choose on validation, then measure base, local, shared and the chosen
    one on test.

    What is left of the own budget, and `allowed` of the federation's, by key, bounds it: fewer
    steps and candidates, at worst none, and then the shared model is delivered. Base and shared
    model are looked at in any case.
    """
    data, readings = (node.data.train, node.data.validation), list[Reading]()
    budgeted = _budget_for(node, readings, settings, allowed or {})
    with node.meter.measure() as alone:
        readings.append(alone)
        local = fit(
            node,
            zero(node.adapted.spec),
            data,
            settings.local,
            settings.seed,
            0.0,
            budgeted,
            LOCAL,
            moved,
        )
    with node.meter.measure() as reading:
        readings.append(reading)
        whole = settings.rule == CHOICE_RULE
        private = fit(
            node,
            shared,
            data,
            settings.private,
            settings.seed + 1,
            0.0,
            budgeted,
            "private",
            moved,
            whole,
        )
        pulled = {}
        for pull, name in ((pull, f"ditto {pull:g}") for pull in settings.ditto):
            if budgeted.may(name, 0, settings.private):
                pulled[name] = fit(
                    node,
                    shared,
                    data,
                    settings.private,
                    settings.seed + 1,
                    pull,
                    budgeted,
                    name,
                    moved,
                )
        parts = {SHARED: shared, LOCAL: local.tail, PRIVATE: private.tail}
        parts |= {name: f.tail for name, f in pulled.items() if f.tail.entries}
        recipes = _recipes(parts, settings)
        looks = _Looks(node, parts, recipes, budgeted)
        looks.found |= {"base": local.before, LOCAL: local.after, SHARED: private.before}
        looks.at_all(list(recipes))
        looks.found = {
            name: losses
            for name, losses in looks.found.items()
            if math.isfinite(losses.scores().loss)
        }
        if not looks.found:
            raise refusal(TrainingError, "no-finite-loss", name=node.name)
        choice = _choose(looks, settings, local.looks)
        chosen = choice.name
        # in one order, for all processes of a team look at the same model at a time
        asked = sorted({"base", SHARED, chosen} | ({LOCAL} if local.tail.entries else set()))
        familiarity, tested = _answering(looks, chosen, settings)
        tested |= {
            n: score(node, looks.model(recipes[n]), node.data.test)
            for n in asked
            if n not in tested
        }
        tested |= {
            LOCAL: tested[LOCAL if local.tail.entries else "base"],
            "personal": tested[chosen],
        }
        general: dict[str, Any] = {"way": "answers"}
        if familiarity is None:
            share = _general(looks, chosen)
            general = {"way": "weights", "share": share}
            ends = {0.0: tested[SHARED], 1.0: tested["personal"]}
            between = looks.model(_between(recipes[chosen], share))
            tested["general"] = (
                ends[share] if share in ends else score(node, between, node.data.test)
            )
    own, own_money = node.entered("local", None, alone.energy)
    rest, rest_money = node.entered("personal", None, reading.energy)
    energy = own.plus(rest)
    money = None if own_money is None or rest_money is None else own_money.plus(rest_money)
    fair = budgeted.fair(LOCAL, local.longest, settings.local)
    body = {
        "name": node.name,
        "chosen": chosen,
        "choice": dict(choice.facts),
        "general": general,
        "candidates": {
            name: asdict(losses.scores()) for name, losses in sorted(looks.found.items())
        },
        "test": {
            name: asdict(tested[name].scores())
            for name in ("base", "local", "shared", "personal", "general")
        },
        "gains": {
            f"{a}_over_{b}": gain(tested[a], tested[b], derive(settings.seed, "gain", a, b))
            if b != LOCAL or fair
            else NO_GAIN
            for a, b in (("personal", "local"), ("personal", "base"), ("shared", "local"))
        },
        "benefit": _benefit(tested["local"].scores().loss, tested["personal"].scores().loss)
        if fair
        else None,
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
        "classes": _classes(
            node, {name: tested[name] for name in ("base", "local", "shared", "personal")}
        ),
        **({"cut": note.as_record()} if (note := budgeted.note()) else {}),
    }
    return Personal(looks.model(recipes[chosen]), local.tail, body, familiarity)


def _budget_for(
    node: Node, readings: Sequence[Reading], settings: Settings, allowed: Mapping[str, float]
) -> PersonalModelBudget:
    """readings: of the work, as it is begun."""

    def used() -> dict[str, float]:
        return reduce(add, (node.cost(reading.energy) for reading in readings), dict[str, float]())

    limits = {
        key: limit
        for key, limit in smaller(node.books.left(), node.books.bound(allowed)).items()
        if key != "megabytes"
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


@dataclass
class _Looks:
    """Losses on validation data by candidate, looked at while the budget allows."""

    node: Node
    parts: Mapping[str, Update]
    recipes: dict[str, Recipe]
    budgeted: PersonalModelBudget
    found: dict[str, Losses] = field(default_factory=dict)

    def model(self, recipe: Recipe) -> Update:
        """Return the sum of the parts."""
        scaled = [
            self.parts[part] if times == 1.0 else self.parts[part].scaled(times)
            for part, times in recipe.items()
        ]
        return (
            reduce(lambda whole, more: whole.plus(more), scaled)
            if scaled
            else zero(self.node.adapted.spec)
        )

    def at_all(self, names: Sequence[str]) -> None:
        """Look at those that were not looked at; where the budget ends, note how many are left."""
        waiting = [name for name in names if name not in self.found]
        for number, name in enumerate(waiting):
            if not self.at(self.recipes[name], name):
                left = {"count": number, "candidates": len(waiting)}
                self.budgeted.cut.append(Reason("candidates-left", left))
                return

    def at(self, recipe: Recipe, name: str) -> Losses | None:
        """Look at one candidate; None where the budget does not allow it."""
        if name not in self.found:
            if not self.budgeted.may_look():
                return None
            self.found[name] = score(self.node, self.model(recipe), self.node.data.validation)
        return self.found[name]


def _recipes(parts: Mapping[str, Update], settings: Settings) -> dict[str, Recipe]:
    """The candidates by name."""
    out: dict[str, Recipe] = {"base": {}, LOCAL: {LOCAL: 1.0}, SHARED: {SHARED: 1.0}}
    if parts[PRIVATE].entries:
        out |= {_tuned(alpha): {SHARED: 1.0, PRIVATE: alpha} for alpha in settings.alphas}
    for mix in settings.mixes:
        out[f"{1 - mix:g} shared + {mix:g} local"] = {SHARED: 1 - mix, LOCAL: mix}
    pulled = [name for name in parts if name not in (SHARED, LOCAL, PRIVATE)]
    return out | {name: {SHARED: 1.0, name: 1.0} for name in pulled}


def _tuned(alpha: float) -> str:
    return f"shared + {alpha:g} private"


def _choose(looks: _Looks, settings: Settings, alone: Sequence[Losses]) -> Choice:
    """By the rule of `settings`; a share of the private adapter that was not looked at yet becomes
    a candidate.

    alone: losses of the local model's checkpoints; the lead of the shared model's fine-tuning over
        them decides nothing.
    """
    if settings.rule == EARLIER_RULE or SHARED not in looks.found:
        return one_error(looks.found)
    names = {0.0: SHARED} | {
        alpha: _tuned(alpha) for alpha in settings.alphas if _tuned(alpha) in looks.found
    }
    middle, facts = SHARED, dict[str, Any]()
    if len(names) > 1:
        share, favoured = private_share(
            {alpha: looks.found[name] for alpha, name in names.items()}, settings.seed
        )
        share = min(round(share, 2), max(names))
        facts = {"share": share, "favoured": round(favoured, 2)}
        recipe: Recipe = {SHARED: 1.0, PRIVATE: share}
        if (
            looks.at(recipe, _tuned(share)) is None
        ):  # no budget for one more look: the nearest of those looked at
            share = min(names, key=lambda alpha: abs(alpha - share))
        else:
            looks.recipes[_tuned(share)] = recipe
        middle = names.get(share, _tuned(share))
    family = frozenset(names.values()) | {middle, f"{middle}, {OWN_CLASSES}"}
    middle = _with_own_classes(looks, middle)
    choice = shrunk(looks.found, middle, family)
    if LOCAL in looks.found and alone:
        found = fair_lead(alone, looks.found[middle], settings.seed)
        facts |= {} if found is None else {"over_local": found}
    return replace(choice, facts={**choice.facts, **facts})


def _with_own_classes(looks: _Looks, middle: str) -> str:
    """The same model, or where training texts lack some class one that hardly gives it, if
    validation texts favour that.

    Its bias falls by log 2(n + 1), as if half of n + 1 texts had that class. What a text of it
    would then cost counts with the chance of
    one: (classes seen once + 1) of n + 2 (Good 1953), n being training and validation texts.
    """
    node = looks.node
    if not isinstance(node.task, Classification):
        return middle
    counts = Counter(item.target[0] for item in (*node.data.train, *node.data.validation))
    seen = {item.target[0] for item in node.data.train}
    unseen = torch.tensor([float(label not in seen) for label in range(len(node.task.labels))])
    if not unseen.any():
        return middle
    fall = math.log(2.0 * (len(node.data.train) + 1))
    looks.parts = {
        **looks.parts,
        OWN_CLASSES: Update({HEAD_BIAS: Dense(-fall * unseen)}, node.adapted.spec),
    }
    name = f"{middle}, {OWN_CLASSES}"
    recipe = {**looks.recipes[middle], OWN_CLASSES: 1.0}
    if looks.at(recipe, name) is None:
        return middle
    looks.recipes[name] = recipe
    chance = (sum(count == 1 for count in counts.values()) + 1) / (counts.total() + 2)
    own, plain = (looks.found[each].scores().loss for each in (name, middle))
    return name if own + chance * fall < plain else middle


def _answering(
    looks: _Looks, chosen: str, settings: Settings
) -> tuple[Familiarity | None, dict[str, Losses]]:
    """Where a general model answers by both the kept and the shared one: what it needs, and the
    test losses of all three.
    """
    node = looks.node
    both = chosen != SHARED and SHARED in looks.found and settings.rule == CHOICE_RULE
    if not both or not isinstance(node.task, Classification):
        return None, {}
    texts = min(len(node.data.train), MOST_TEXTS) + len(
        node.data.test
    )  # seen once more than without
    if not looks.budgeted.may_look(texts / len(node.data.validation)):
        return None, {}
    rows = [item.ids for item in node.data.test]
    familiarity = learn(node.adapted, node.data.train)
    weights = familiarity.weights(embeddings(node.adapted, rows))
    said = {
        name: answers(node.adapted, looks.model(looks.recipes[name]), rows)
        for name in (SHARED, chosen)
    }
    said["general"] = blended(said[chosen], said[SHARED], weights)
    return familiarity, {name: losses_of(found, node.data.test) for name, found in said.items()}


def _general(looks: _Looks, chosen: str) -> float:
    """Without that, how far from the shared model to the one chosen the general model lies: 0, a
    half or 1.
    """
    if chosen == SHARED or SHARED not in looks.found:
        return float(chosen != SHARED)
    on_the_way = {0.0: looks.found[SHARED], 1.0: looks.found[chosen]}
    if looks.budgeted.may_look():
        half = looks.model(_between(looks.recipes[chosen], 0.5))
        on_the_way[0.5] = score(looks.node, half, looks.node.data.validation)
    return general_share(on_the_way)


def _between(recipe: Recipe, share: float) -> Recipe:
    """(1 − share)·shared + share·recipe."""
    parts = sorted({SHARED, *recipe}, key=lambda part: (part != SHARED, part))
    mixed = {
        part: share * recipe.get(part, 0.0) + (1.0 - share) * (part == SHARED) for part in parts
    }
    return {part: times for part, times in mixed.items() if times != 0.0}


def _classes(node: Node, tested: Mapping[str, Losses]) -> dict[str, Any] | None:
    """The metrics of classes, in classification."""
    if not isinstance(node.task, Classification):
        return None
    answered = {name: losses.answered for name, losses in tested.items()}
    truth, train = ([item.target[0] for item in part] for part in (node.data.test, node.data.train))
    return class_metrics(
        len(node.task.labels), truth, {k: v for k, v in answered.items() if v is not None}, train
    )


def score(node: Node, model: Update, items: Sequence[Item]) -> Losses:
    """Losses of base + `model` on `items`."""
    node.adapted.fold_in(model)
    return node.losses(items)


def _benefit(local: float, personal: float) -> float | None:
    """Return the relative benefit;

    None where both losses are as good as none, so that their ratio says nothing.
    """
    return (
        relative_benefit(local, personal)
        if local > 0.0 and max(local, personal) >= NEXT_TO_NOTHING
        else None
    )


def gain(better: Losses, than: Losses, seed: int) -> dict[str, Any]:
    """Paired gains, positive where `better` is better.

    loss, accuracy: fall of the loss and rise of the accuracy, with bootstrap intervals of 95 %.
        log_ratio: interval of the
    log of the losses' ratio. pairs: counts of texts by which of the two answers them right. Without
    classes accuracy and pairs are None; where one example or none allows no interval there are only
    loss and accuracy, both None.
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
        found["accuracy"] = asdict(
            paired_bootstrap(better.right, than.right, derive(seed, "accuracy"))
        )
        found["pairs"] = asdict(Pairs.of(better.right, than.right))
    return found
