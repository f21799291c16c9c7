"""Counterfactuals, possible only where all participants are simulated on one machine: they mix data that in reality never meet.

`pooled` trains one central model on everybody's data with the tokens that the federation used; `everybody` scores each model on the
test data of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from tequio.core.canonical import digest_update
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.participant.node import Node
from tequio.participant.personal import Budget, fit, score
from tequio.participant.tasks import Losses
from tequio.recipes.wire import Wired


def pooled(wired: Wired) -> tuple[Update, dict[str, Any]]:
    """One model on all participants' and the centre's training data: rank of the largest, steps of all together."""
    nodes = [wired.nodes[i] for i in sorted(wired.nodes)]
    members = [*wired.plan.members, *([wired.plan.centre] if wired.plan.centre else [])]
    config = wired.config
    budget = Budget(
        rank=wired.plan.top_rank(),
        steps=sum(m.steps for m in members) * wired.plan.rounds,
        rates=tuple(config.personal.pooled_rates or config.personal.local_rates),
        checks=config.personal.checks,
        full=wired.plan.full,
    )
    train = [item for node in nodes for item in node.data.train]
    validation = [item for node in wired.participants for item in node.data.validation]
    worker: Node = replace(nodes[0], name="pooled")
    with wired.meter.measure() as reading:
        fitted = fit(worker, zero(wired.plan.spec), (train, validation), budget, derive(wired.plan.seed, "pooled"))
        losses = {node.name: score(node, fitted.tail, node.data.test) for node in wired.participants}
    return fitted.tail, {
        "test": {name: asdict(x.scores()) for name, x in losses.items()},
        "everybody": asdict(joined(losses).scores()),
        "chosen_learning_rate": fitted.rate,
        "energy": asdict(reading.energy),
        "seconds": reading.energy.seconds,
    }


def everybody(
    wired: Wired, shared: Update, central: Update, models: Mapping[str, tuple[Update, Update]]
) -> dict[str, Any]:
    """Scores of every model on the test data of all participants together."""
    seen: dict[str, dict[str, Any]] = {}

    def on_all(model: Update) -> dict[str, Any]:
        key = digest_update(model)  # many participants are delivered the same model
        if key not in seen:
            losses = {node.name: score(node, model, node.data.test) for node in wired.participants}
            seen[key] = asdict(joined(losses).scores())
        return seen[key]

    return {
        "base": on_all(zero(wired.plan.spec)),
        "shared": on_all(shared),
        "pooled": on_all(central),
        "participants": {
            name: {"local": on_all(local), "personal": on_all(delivered)} for name, (delivered, local) in models.items()
        },
    }


def joined(losses: Mapping[str, Losses]) -> Losses:
    """The losses of several sets as one."""
    parts = list(losses.values())
    return Losses(
        np.concatenate([p.total for p in parts]),
        np.concatenate([p.terms for p in parts]),
        np.concatenate([p.right for p in parts]),
    )
