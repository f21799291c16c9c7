"""Counterfactuals, possible only where all participants are simulated on one machine: they mix data
that in reality never meet.

`pooled` trains one central model on everybody's data with the tokens that the federation used;
`everybody` scores each model on the test data of all.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from tequio.app.assembly.setup import RunSetup
from tequio.app.run_files import save
from tequio.app.saved_models import read_familiarity
from tequio.app.stages import Watch, WorkerSetups
from tequio.core.canonical import digest_update
from tequio.core.errors import LedgerError
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.choice import towards
from tequio.participant.fit import Moved, fit, ignore_moves
from tequio.participant.general import Familiarity, answers, blended, embeddings, losses_of
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import LOCAL, FitBudget
from tequio.participant.text_tasks import Classification, Item, Losses
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
    """One model on all participants' and the centre's training data: rank of the largest, steps of
    all together.
    """
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
        losses = {
            node.name: score(node, fitted.tail, node.data.test) for node in setup.participants
        }
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
    generals: Mapping[str, float | Familiarity],
) -> dict[str, Any]:
    """Scores of every model on the test data of all participants together;

    `central` are those of the pooled model, as recorded.

    places: the run as each worker sees it. Models go side by side. generals: how far each general
        model lies from the shared one, or what
    it needs beside both models' answers.
    """
    jobs: dict[str, Job[OnAll]] = {}

    def on_all(model: Update) -> str:
        key = digest_update(model)  # many participants are delivered the same model
        if key not in jobs:
            jobs[key] = workers.submit(partial(_on_all, places, model))
        return key

    base, common = on_all(zero(places[0].run_spec.spec)), on_all(shared)
    keys = {
        name: {LOCAL: on_all(local), "personal": on_all(own)}
        for name, (own, local) in models.items()
    }
    for name, share in generals.items():
        if isinstance(share, float):
            keys[name]["general"] = on_all(towards(shared, models[name][0], share))
    near = (
        workers.submit(partial(_embedded, places))
        if any(isinstance(x, Familiarity) for x in generals.values())
        else None
    )
    found = {key: job.result() for key, job in jobs.items()}
    scores = {key: asdict(one.losses.scores()) for key, one in found.items()}
    for name, familiarity in generals.items():
        own, both = found[keys[name]["personal"]].answers, found[common].answers
        if (
            near is not None
            and isinstance(familiarity, Familiarity)
            and own is not None
            and both is not None
        ):
            answered = blended(own, both, familiarity.weights(near.result()))
            keys[name]["general"] = f"general of {name}"
            scores[f"general of {name}"] = asdict(losses_of(answered, _items(places[0])).scores())
    return {
        "base": scores[base],
        "shared": scores[common],
        "pooled": dict(central),
        "participants": {
            name: {model: scores[key] for model, key in of.items()} for name, of in keys.items()
        },
    }


@dataclass(frozen=True)
class OnAll:
    """What a model says on everybody's test data; answers: log probabilities (texts × classes), in
    classification.
    """

    losses: Losses
    answers: Tensor | None


def _items(setup: RunSetup) -> list[Item]:
    return [item for node in setup.participants for item in node.data.test]


def _embedded(places: tuple[RunSetup, ...], worker: int) -> Tensor:
    return embeddings(places[worker].adapted, [item.ids for item in _items(places[worker])])


def _on_all(places: tuple[RunSetup, ...], model: Update, worker: int) -> OnAll:
    setup = places[worker]
    if not isinstance(setup.task, Classification):
        return OnAll(
            joined({node.name: score(node, model, node.data.test) for node in setup.participants}),
            None,
        )
    items = _items(setup)
    said = answers(setup.adapted, model, [item.ids for item in items])
    return OnAll(losses_of(said, items), said)


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
    """What only a simulation can know: one model trained on everybody's data, and each model on
    everybody's test data.
    """
    if begun is not None:
        watch("counterfactuals", "one model on everybody's data", 0, 2)
        central, body = begun.result()
        save(folder, "pooled.safetensors", central)
        ledger.append("pooled", {**body, "digest": digest_update(central)})
    if ledger.last("everybody") is None:
        watch("counterfactuals", "each model on everybody's test data", 1, 2)
        found = ledger.last("pooled")
        if found is None:
            raise refusal(LedgerError, "record-missing", path=folder.ledger_path, record="pooled")
        bodies = [entry.body for entry in ledger.entries("personal") if "general" in entry.body]
        generals = {
            body["name"]: read_familiarity(folder, body) or float(body["general"]["share"])
            for body in bodies
        }
        ledger.append(
            "everybody",
            everybody(places, workers, shared, found.body["everybody"], models, generals),
        )
    watch("counterfactuals", "done", 2, 2)
