"""What comes after the rounds: the shared models, the personal ones, counterfactuals, general
capability, the closing record.

Every stage commits what it found before the next begins, and reads back what the ledger says is
done.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from tequio.app.assembly.masked import Masking
from tequio.app.assembly.setup import RunSetup
from tequio.app.run_files import SHARED_FILE, base_file, save
from tequio.config import MAIN
from tequio.coordinator.gossip import PeerState
from tequio.coordinator.interpolation import Point, best, points, record
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.multi_base import States
from tequio.coordinator.round import shared_model
from tequio.core.canonical import digest_json, digest_update
from tequio.core.protocols import Participant, Runtime
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.types import State
from tequio.core.update import Update, zero
from tequio.ledger.chain import VERSION, Entry
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.fit import Moved, ignore_moves
from tequio.participant.masked import MaskedNode
from tequio.participant.node import Node
from tequio.participant.personal import gain, score
from tequio.planning.gpu_memory import card_peak_bytes
from tequio.planning.memory import peak_bytes
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.workers import Job, Workers

Watch = Callable[[str, str, int, int], None]
"""Told (stage, what, done, of) as work goes on: for progress bars. It decides nothing."""

SPEED_FREE = (
    "seconds",
    "joules",
    "energy",
    "money",
    "evaluation",
    "spent",
    "created",
    "commitment",
    "threads",
    "wire",
    "late",
    "barred",
    "peak_bytes",
    "card_peak_bytes",
    VERSION,
)  # what two runs of one seed may differ in
PLACES = ("config_digest",)  # a digest over names of files, which lie elsewhere on another machine
WAITING = ("wait", "missing")  # records of what had to be waited for; they change no model
ANY_ORDER = "personal"  # records that participants of a network send in any order


@dataclass(frozen=True)
class Outcome:
    """Where a finished run is, and its closing record."""

    folder: Path
    end: Mapping[str, Any]


WorkerSetups = tuple[RunSetup, ...]
"""The run as each worker sees it: with benches of its own."""


def speed_free(value: Any) -> Any:
    """A record without what two runs of one seed may differ in."""
    if isinstance(value, Mapping):
        return {key: speed_free(item) for key, item in value.items() if key not in SPEED_FREE}
    return [speed_free(item) for item in value] if isinstance(value, list | tuple) else value


def outcome_digest(entries: Iterable[Entry]) -> str:
    """Return the digest of all that two runs of one seed share: no times, energies, folders of
    files, or order of arrival.
    """
    rows = [(entry.kind, _without_folders(speed_free(dict(entry.body)))) for entry in entries]
    first = next((i for i, (kind, _) in enumerate(rows) if kind == ANY_ORDER), len(rows))
    arrived = sorted(
        (row for row in rows if row[0] == ANY_ORDER), key=lambda row: str(row[1].get("name"))
    )
    others = [row for row in rows[first:] if row[0] != ANY_ORDER]
    facts = [list(row) for row in (*rows[:first], *arrived, *others) if row[0] not in WAITING]
    return digest_json(facts)


def _without_folders(value: Any) -> Any:
    """A record with the name alone of each file that it names by an absolute path."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items() if key not in PLACES}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def silent(stage: str, what: str, done: int, of: int) -> None:
    """No progress."""


@runtime_checkable
class FineWatch(Protocol):
    """A watch that also learns how many optimizer steps each stage takes, and hears of them while a
    stage goes on.
    """

    def __call__(self, stage: str, what: str, done: int, of: int) -> None:
        """Learn that a stage has come to `done` of `of`."""

    def plan(self, steps: Mapping[str, float]) -> None:
        """Learn how many steps each stage takes at most."""

    def move(self, stage: str, steps: float, loss: float | None) -> None:
        """Learn that a stage made so many more steps, and its last loss on validation data."""


def tell_plan(watch: Watch, steps: Mapping[str, float]) -> None:
    """Say how many steps each stage takes, to a watch that wants to know it."""
    if isinstance(watch, FineWatch):
        watch.plan(steps)


def mover(watch: Watch, stage: str) -> Moved:
    """Return what a fit of this stage calls as it goes on."""
    return partial(watch.move, stage) if isinstance(watch, FineWatch) else ignore_moves


def embedded_runtime(
    places: WorkerSetups, base: str, watch: Callable[[Any], None] | None = None
) -> Embedded | SumRounds:
    """The participants of one base, at all places; in masked rounds only sums come of them."""
    masking = places[0].group(base).masking
    first, *others = [_answering(place.group(base).nodes, masking) for place in places]
    runtime = Embedded(first, watch, tuple(others), places[0].config.train.lockstep)
    return runtime if masking is None else SumRounds(runtime, masking.plan)


def _answering(nodes: Mapping[int, Node], masking: Masking | None) -> Mapping[int, Participant]:
    """Return who answers requests: the nodes themselves, or in masked rounds participants that give
    nothing in the clear.
    """
    if masking is None:
        return nodes
    return {
        i: MaskedNode(node, masking.members[i], masking.plan) if i else node
        for i, node in nodes.items()
    }


def shared_models(
    folder: RunFolder,
    ledger: Ledger,
    states: Mapping[str, State],
    places: WorkerSetups,
    watch: Watch,
    runtimes: Mapping[str, Runtime] = MappingProxyType({}),
) -> dict[str, Update]:
    """The shared model of each base that is delivered: the best round's, or the point between base
    and it that validation and
    gate prefer; `runtimes` are asked in place of the participants in this process."""
    recorded, tries = ledger.last("shared"), places[0].config.gate.interpolate
    models: dict[str, Update] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for group in places[0].groups:
        state = states[group.name]
        model = shared_model(state.best, group.run_spec)
        tried: list[Point] = []
        if recorded is None and tries:
            watch("shared", f"{tries} points between base and shared model", 0, 1)
            tried = points(
                model,
                tries,
                state,
                group.run_spec,
                runtimes.get(group.name) or embedded_runtime(places, group.name),
            )
        done = (
            {}
            if recorded is None
            else recorded.body
            if group.name == MAIN
            else recorded.body["bases"][group.name]
        )
        alpha = float(done["alpha"]) if done else best(tried).alpha if tried else 1.0
        models[group.name] = shared = model if alpha == 1.0 else model.scaled(alpha)
        body = {"round": state.best_round, "alpha": alpha, "points": record(tried)}
        bodies[group.name] = body | {"digest": digest_update(shared)}
    if recorded is None:
        main = bodies.pop(MAIN)
        ledger.append("shared", main | ({"bases": bodies} if bodies else {}))
    for name, shared in models.items():
        save(folder, base_file(name, SHARED_FILE), shared)
    return models


def general(places: WorkerSetups, shared: Mapping[str, Update], workers: Workers) -> dict[str, Any]:
    """Base against shared on the halves of the public slices that the gate never saw."""
    jobs: dict[str, Job[dict[str, Any]]] = {}
    for group in places[0].groups:
        for name, items in group.report_slices.items():
            if 0 in group.nodes and items:
                row = name if group.name == MAIN else f"{name} ({group.name})"
                jobs[row] = workers.submit(
                    partial(_slice, places, group.name, name, shared[group.name])
                )
    return {row: job.result() for row, job in jobs.items()}


def _slice(
    places: WorkerSetups, base: str, name: str, shared: Update, worker: int
) -> dict[str, Any]:
    group = places[worker].group(base)
    centre, items = group.nodes[0], group.report_slices[name]
    before, after = score(centre, zero(group.run_spec.spec), items), score(centre, shared, items)
    gains = gain(after, before, derive(group.run_spec.seed, "general", name))
    return {"base": asdict(before.scores()), "shared": asdict(after.scores()), "gain": gains}


def end(
    folder: RunFolder,
    ledger: Ledger,
    made: States | PeerState,
    setup: RunSetup,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Outcome:
    """The closing record: why and when the run ended, and the digest of all that two runs of one
    seed share.
    """
    state = made if isinstance(made, PeerState) else made[MAIN]
    reason = Reason(
        "rounds-made" if state.round >= setup.run_spec.rounds else "no-progress"
    ).as_record()
    stopped = ledger.last("budget")
    body = {
        "reason": reason if stopped is None else stopped.body["reason"],
        "rounds": state.round,
        "best_round": state.best_round,
        "outcome": outcome_digest(ledger.entries()),
        "peak_bytes": peak_bytes(),
        "card_peak_bytes": card_peak_bytes(),
        **more,
    }
    ledger.append("end", body)
    return Outcome(folder.path, body)
