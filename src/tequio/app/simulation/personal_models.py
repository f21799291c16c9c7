"""Make every participant's personal model in this process, or read it back where the ledger says
that it is done.
"""

from collections.abc import Mapping
from functools import partial

from tequio.app.assembly.budget import allowances
from tequio.app.assembly.setup import RunSetup
from tequio.app.run_files import read_model, save
from tequio.app.saved_models import keep_personal
from tequio.app.stages import Watch, WorkerSetups, mover
from tequio.config import MAIN
from tequio.coordinator.gossip import PeerState, disagreement, mean
from tequio.core.canonical import digest_update
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.fit import Moved
from tequio.participant.personal import Personal, personalise
from tequio.runtimes.workers import Workers


def mean_of_peers(
    folder: RunFolder, ledger: Ledger, state: PeerState, setup: RunSetup
) -> tuple[dict[str, Update], dict[str, Update]]:
    """(the mean of the peers' models, which only a simulation can compute and reports show as
    shared; each peer's own by name).
    """
    shared = mean(state.best)
    if ledger.last("shared") is None:
        body = {
            "round": state.best_round,
            "alpha": 1.0,
            "points": [],
            "digest": digest_update(shared),
        }
        ledger.append("shared", body | {"disagreement": disagreement(state.best)})
    save(folder, "shared.safetensors", shared)
    return {MAIN: shared}, {m.name: state.best[m.index] for m in setup.run_spec.members}


def personal_models(
    folder: RunFolder,
    ledger: Ledger,
    places: WorkerSetups,
    shared: Mapping[str, Update],
    workers: Workers,
    watch: Watch,
) -> dict[str, tuple[Update, Update]]:
    """(delivered, local) of every participant; made, or read back where the ledger says that they
    are done.

    shared: by participant; peers have a model each.
    """
    recorded = {entry.body["name"]: entry.body for entry in ledger.entries("personal")}
    models: dict[str, tuple[Update, Update]] = {}
    nodes = [node for group in places[0].groups for node in group.participants]
    allowed = allowances(places[0].config, ledger, one_process=True)
    moved = mover(watch, "personal")
    jobs = {
        node.name: workers.submit(
            partial(
                _personalised,
                places,
                node.name,
                shared[node.name],
                allowed.get(node.name, {}),
                moved,
            )
        )
        for node in nodes
        if node.name not in recorded
    }
    for done, node in enumerate(nodes):
        watch("personal", node.name, done, len(nodes))
        if node.name in recorded:
            body = recorded[node.name]
            models[node.name] = (
                read_model(
                    folder, f"participants/{node.name}/personal.safetensors", body["digest"]
                ),
                read_model(
                    folder, f"participants/{node.name}/local.safetensors", body["local_digest"]
                ),
            )
            continue
        result = jobs.pop(node.name).result()
        ledger.append("personal", keep_personal(folder, result))
        models[node.name] = (result.delivered, result.local)
    watch("personal", "done", len(nodes), len(nodes))
    return models


def _personalised(
    places: WorkerSetups,
    name: str,
    shared: Update,
    allowed: Mapping[str, float],
    moved: Moved,
    worker: int,
) -> Personal:
    group = places[worker].group_of(name)
    node = next(node for node in group.participants if node.name == name)
    return personalise(node, shared, group.settings[name], allowed, moved)
