"""Counterfactuals, possible only where all participants are simulated on one machine: they mix data that in reality never meet.

`pooled` trains one central model on everybody's data with the tokens that the federation used; `everybody` scores each model on the
test data of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from tequio.app.assembly.setup import RunSetup
from tequio.app.run_files import save
from tequio.app.stages import Watch, WorkerSetups
from tequio.core.canonical import digest_update
from tequio.core.errors import LedgerError
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.choice import towards
from tequio.participant.fit import Moved, fit, ignore_moves
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import LOCAL, FitBudget
from tequio.participant.text_tasks import Losses
from tequio.runtimes.workers import Job, Workers


def pooled_budget(setup: RunSetup) -> FitBudget:
    """Return the rank of the largest, and the steps of all together."""
    run_spec, config = setup.run_spec, setup.config
    steps = sum(m.steps for m in run_spec.members) * (run_spec.rounds - run_spec.centre_first)
    steps += run_spec.centre.steps * run_spec.rounds if run_spec.centre else 0
    return FitBudget(
        rank=run_spec.top_rank(),
        steps=steps,
        rates=tuple(config.personal.pooled_rates or config.personal.local_rates),
        checks=config.personal.checks,
        full=setup.run_spec.full,
    )


def pooled(setup: RunSetup, moved: Moved = ignore_moves) -> tuple[Update, dict[str, Any]]:
    """One model on all participants' and the centre's training data: rank of the largest, steps of all together."""
    nodes = [setup.nodes[i] for i in sorted(setup.nodes)]
    budget = pooled_budget(setup)
    train = [item for node in nodes for item in node.data.train]
    validation = [item for node in setup.participants for item in node.data.validation]
    worker: Node = replace(nodes[0], name="pooled")
    with setup.meter.measure() as reading:
        fitted = fit(
            worker,
            zero(setup.run_spec.spec),
            (train, validation),
            budget,
            derive(setup.run_spec.seed, "pooled"),
            moved=moved,
        )
        losses = {node.name: score(node, fitted.tail, node.data.test) for node in setup.participants}
    return fitted.tail, {
        "test": {name: asdict(x.scores()) for name, x in losses.items()},
        "everybody": asdict(joined(losses).scores()),
        "chosen_learning_rate": fitted.rate,
        "energy": asdict(reading.energy),
        "seconds": reading.energy.seconds,
    }


def everybody(
    places: tuple[RunSetup, ...],
    workers: Workers,
    shared: Update,
    central: Mapping[str, Any],
    models: Mapping[str, tuple[Update, Update]],
    shares: Mapping[str, float],
) -> dict[str, Any]:
    """Scores of every model on the test data of all participants together; `central` are those of the pooled model, as recorded.

    places: the run as each worker sees it. Models go side by side. shares: how far each general model lies from the shared one.
    """
    jobs: dict[str, Job[dict[str, Any]]] = {}

    def on_all(model: Update) -> str:
        key = digest_update(model)  # many participants are delivered the same model
        if key not in jobs:
            jobs[key] = workers.submit(partial(_on_all, places, model))
        return key

    base, common = on_all(zero(places[0].run_spec.spec)), on_all(shared)
    keys = {name: {LOCAL: on_all(local), "personal": on_all(own)} for name, (own, local) in models.items()}
    for name, share in shares.items():
        keys[name]["general"] = on_all(towards(shared, models[name][0], share))
    scores = {key: job.result() for key, job in jobs.items()}
    return {
        "base": scores[base],
        "shared": scores[common],
        "pooled": dict(central),
        "participants": {name: {model: scores[key] for model, key in of.items()} for name, of in keys.items()},
    }


def _on_all(places: tuple[RunSetup, ...], model: Update, worker: int) -> dict[str, Any]:
    nodes = places[worker].participants
    return asdict(joined({node.name: score(node, model, node.data.test) for node in nodes}).scores())


def joined(losses: Mapping[str, Losses]) -> Losses:
    """The losses of several sets as one."""
    parts = list(losses.values())
    return Losses(
        np.concatenate([p.total for p in parts]),
        np.concatenate([p.terms for p in parts]),
        np.concatenate([p.right for p in parts]),
    )


def run_counterfactuals(
    folder: RunFolder,
    ledger: Ledger,
    places: WorkerSetups,
    shared: Update,
    models: Mapping[str, tuple[Update, Update]],
    workers: Workers,
    begun: Job[tuple[Update, dict[str, Any]]] | None,
    watch: Watch,
) -> None:
    """What only a simulation can know: one model trained on everybody's data, and each model on everybody's test data."""
    if begun is not None:
        watch("counterfactuals", "one model on everybody's data", 0, 2)
        central, body = begun.result()
        save(folder, "pooled.safetensors", central)
        ledger.append("pooled", {**body, "digest": digest_update(central)})
    if ledger.last("everybody") is None:
        watch("counterfactuals", "each model on everybody's test data", 1, 2)
        found = ledger.last("pooled")
        if found is None:
            raise LedgerError("The ledger has no record of the model on everybody's data.")
        shares = {e.body["name"]: e.body["general"]["share"] for e in ledger.entries("personal") if "general" in e.body}
        ledger.append("everybody", everybody(places, workers, shared, found.body["everybody"], models, shares))
    watch("counterfactuals", "done", 2, 2)
