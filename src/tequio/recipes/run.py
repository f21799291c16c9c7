"""A run from start to end: rounds, personal models, counterfactuals, general capability, the closing record.

Every stage commits what it found before the next begins; a run cut off anywhere goes on from the last commit with the same result.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.coordinator.federate import federate
from tequio.coordinator.gossip import PeerState, disagreement, mean
from tequio.coordinator.interpolate import Point, best, points, record
from tequio.coordinator.peers import federate_peers
from tequio.coordinator.round import shared_model
from tequio.core.canonical import digest_json, digest_update, pack, unpack
from tequio.core.errors import LedgerCorrupt, LedgerError, RunError, UpdateError
from tequio.core.seeds import derive
from tequio.core.types import State
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger, verify
from tequio.participant.memory import Memory
from tequio.participant.personal import gain, personalise, score
from tequio.recipes.config import Federation
from tequio.recipes.counterfactuals import everybody, pooled
from tequio.recipes.wire import Wired, same_run, wire
from tequio.runtimes.embedded import Embedded

Watch = Callable[[str, str, int, int], None]
"""Told (stage, what, done, of) as work goes on: for progress bars. It decides nothing."""

HEAD_FILE = "head.safetensors"
SPEED_FREE = (
    "seconds",
    "joules",
    "energy",
    "created",
    "commitment",
)  # what two runs of one seed may differ in


def _silent(stage: str, what: str, done: int, of: int) -> None:
    """No progress."""


@dataclass(frozen=True)
class Outcome:
    """Where a finished run is, and its closing record."""

    folder: Path
    end: Mapping[str, Any]


@contextmanager
def _writing(folder: RunFolder, ledger_of: Callable[[], Ledger]) -> Iterator[Ledger]:
    with folder.lock(), ledger_of() as ledger:
        yield ledger


def start(
    config: Federation,
    out: Path,
    counterfactuals: bool,
    provenance: tuple[Mapping[str, Any], ...] = (),
    watch: Watch = _silent,
) -> Outcome:
    """Begin a run in the new folder `out` and bring it to its end. Nothing is written before all input is checked."""
    watch("prepare", "reading data and base model", 0, 1)
    wired = wire(config, provenance)
    folder = RunFolder.create(out)
    commitments = _commit_data(folder, wired)
    header = {**wired.header, "counterfactuals": counterfactuals, "commitment": commitments}
    header["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    _save(folder, HEAD_FILE, wired.bench.head_update())
    with _writing(folder, lambda: Ledger.create(folder.ledger_path, header)) as ledger:
        return _drive(folder, ledger, wired, counterfactuals, watch)


def resume(out: Path, watch: Watch = _silent) -> Outcome:
    """Go on with a run that was cut off.

    Raises LedgerCorrupt if any record is damaged, RunError if base, configuration or data changed since it began.
    """
    folder = RunFolder.open(out)
    with _writing(folder, lambda: _unbroken(folder)) as ledger:
        recorded = recorded_header(ledger, folder)
        ended = ledger.last("end")
        if ended is not None:
            return Outcome(folder.path, ended.body)
        watch("prepare", "reading data and base model", 0, 1)
        speeds = {row["name"]: row.get("measured_tokens_per_second") for row in recorded["participants"]}
        wired = wire(Federation.model_validate(recorded["config"]), tuple(recorded["provenance"]), speeds)
        differences = same_run(wired.header, recorded) + _changed_data(folder, wired, recorded["commitment"])
        if differences:
            why = f"Changed since the run began: {', '.join(differences)}."
            raise RunError(f"{folder.path} cannot be resumed.", why, "Put it back as it was, or start a new run.")
        return _drive(folder, ledger, wired, bool(recorded["counterfactuals"]), watch)


def _unbroken(folder: RunFolder) -> Ledger:
    """The ledger, after its whole chain was checked: nothing is built on a damaged record."""
    found = verify(folder.ledger_path)
    if not found.ok:
        first = found.problems[0]
        if first.seq is None:  # it names the file itself
            raise LedgerCorrupt(first.what, "", "Restore the ledger from a copy.")
        raise LedgerCorrupt(
            f"{folder.ledger_path}, record {first.seq}: {first.what}.", "", "Restore the ledger from a copy."
        )
    return Ledger.open(folder.ledger_path)


def recorded_header(ledger: Ledger, folder: RunFolder) -> Mapping[str, Any]:
    """The body of entry 0. Raises LedgerError if there is none."""
    entry = ledger.last("run")
    if entry is None:
        raise LedgerError(f"{folder.ledger_path} has no record of how the run began.", "", "Run `tequio verify`.")
    return entry.body


def _commit_data(folder: RunFolder, wired: Wired) -> dict[str, str]:
    """Salted commitments to each participant's data. The salt stays in the participant's folder: without it they tell nothing."""
    out: dict[str, str] = {}
    for name, data_digest in wired.data_digests.items():
        salt = secrets.token_hex(16)
        folder.write_atomic(_salt_file(name), salt.encode())
        out[name] = digest_json([salt, data_digest])
    return out


def _changed_data(folder: RunFolder, wired: Wired, recorded: Mapping[str, str]) -> list[str]:
    changed = []
    for name, data_digest in wired.data_digests.items():
        path = folder.path / _salt_file(name)
        salt = path.read_text() if path.is_file() else ""
        if digest_json([salt, data_digest]) != recorded.get(name):
            changed.append(f"the data of participant {name}")
    return changed


def _salt_file(name: str) -> str:
    return f"participants/{name}/salt"


def _drive(folder: RunFolder, ledger: Ledger, wired: Wired, counterfactuals: bool, watch: Watch) -> Outcome:
    nodes = {i: replace(node, memory=Memory(folder, f"participants/{node.name}")) for i, node in wired.nodes.items()}
    wired = replace(wired, nodes=nodes)
    state = _rounds(ledger, wired, watch)
    if isinstance(state, PeerState):
        shared, own = _mean(folder, ledger, state, wired)
    else:
        shared = _shared(folder, ledger, state, wired, watch)
        own = {node.name: shared for node in wired.participants}
    models = _personal(folder, ledger, wired, own, watch)
    if counterfactuals:
        _counterfactuals(folder, ledger, wired, shared, models, watch)
    if ledger.last("general") is None:
        watch("general", "public slices", 0, 1)
        ledger.append("general", _general(wired, shared))
    return _end(folder, ledger, state, wired)


def _shared(folder: RunFolder, ledger: Ledger, state: State, wired: Wired, watch: Watch) -> Update:
    """The shared model that is delivered: the best round's, or the point between base and it that validation and gate prefer."""
    model = shared_model(state.best, wired.plan)
    recorded, tries = ledger.last("shared"), wired.config.gate.interpolate
    tried: list[Point] = []
    if recorded is None and tries:
        watch("shared", f"{tries} points between base and shared model", 0, 1)
        tried = points(model, tries, state, wired.plan, Embedded(wired.nodes))
    alpha = float(recorded.body["alpha"]) if recorded else best(tried).alpha if tried else 1.0
    shared = model if alpha == 1.0 else model.scaled(alpha)
    if recorded is None:
        body = {"round": state.best_round, "alpha": alpha, "points": record(tried)}
        ledger.append("shared", body | {"digest": digest_update(shared)})
    _save(folder, "shared.safetensors", shared)
    return shared


def _mean(folder: RunFolder, ledger: Ledger, state: PeerState, wired: Wired) -> tuple[Update, dict[str, Update]]:
    """(the mean of the peers' models, which only a simulation can compute and reports show as shared; each peer's own by name)."""
    shared = mean(state.best)
    if ledger.last("shared") is None:
        body = {"round": state.best_round, "alpha": 1.0, "points": [], "digest": digest_update(shared)}
        ledger.append("shared", body | {"disagreement": disagreement(state.best)})
    _save(folder, "shared.safetensors", shared)
    return shared, {m.name: state.best[m.index] for m in wired.plan.members}


def _rounds(ledger: Ledger, wired: Wired, watch: Watch) -> State | PeerState:
    plan, rounds = wired.plan, wired.plan.rounds
    members = len(plan.roster(1))
    done = {"round": 0, "trained": 0}

    def told(task: Any) -> None:
        if hasattr(task, "steps"):
            done["trained"] += 1
            watch(
                "rounds",
                f"round {task.round} of {rounds}: {task.name}",
                (task.round - 1) * members + done["trained"],
                rounds * members,
            )

    runtime, state = Embedded(wired.nodes, told), None
    made: Iterator[tuple[State | PeerState, Any]] = federate(plan, runtime, ledger, wired.meter)
    if wired.peers is not None:
        made = federate_peers(plan, wired.peers, runtime, ledger, wired.meter)
    for state, _body in made:
        done["trained"] = 0
        watch("rounds", f"round {state.round} of {rounds}", state.round * members, rounds * members)
    if state is None:
        raise RunError("No round was made.")
    return state


def _personal(
    folder: RunFolder, ledger: Ledger, wired: Wired, shared: Mapping[str, Update], watch: Watch
) -> dict[str, tuple[Update, Update]]:
    """(delivered, local) of every participant; made, or read back where the ledger says that they are done.

    shared: by participant; peers have a model each.
    """
    recorded = {entry.body["name"]: entry.body for entry in ledger.entries("personal")}
    models: dict[str, tuple[Update, Update]] = {}
    nodes = wired.participants
    for done, node in enumerate(nodes):
        watch("personal", node.name, done, len(nodes))
        if node.name in recorded:
            body = recorded[node.name]
            models[node.name] = (
                read_model(folder, f"participants/{node.name}/personal.safetensors", body["digest"]),
                read_model(folder, f"participants/{node.name}/local.safetensors", body["local_digest"]),
            )
            continue
        result = personalise(node, shared[node.name], wired.settings[node.name])
        _save(folder, f"participants/{node.name}/personal.safetensors", result.delivered)
        _save(folder, f"participants/{node.name}/local.safetensors", result.local)
        digests = {"digest": digest_update(result.delivered), "local_digest": digest_update(result.local)}
        ledger.append("personal", {**result.body, **digests})
        models[node.name] = (result.delivered, result.local)
    watch("personal", "done", len(nodes), len(nodes))
    return models


def _counterfactuals(
    folder: RunFolder,
    ledger: Ledger,
    wired: Wired,
    shared: Update,
    models: Mapping[str, tuple[Update, Update]],
    watch: Watch,
) -> None:
    """What only a simulation can know: one model trained on everybody's data, and each model on everybody's test data."""
    entry = ledger.last("pooled")
    if entry is None:
        watch("counterfactuals", "one model on everybody's data", 0, 2)
        central, body = pooled(wired)
        _save(folder, "pooled.safetensors", central)
        ledger.append("pooled", {**body, "digest": digest_update(central)})
    else:
        central = read_model(folder, "pooled.safetensors", entry.body["digest"])
    if ledger.last("everybody") is None:
        watch("counterfactuals", "each model on everybody's test data", 1, 2)
        ledger.append("everybody", everybody(wired, shared, central, models))
    watch("counterfactuals", "done", 2, 2)


def _general(wired: Wired, shared: Update) -> dict[str, Any]:
    """Base against shared on the halves of the public slices that the gate never saw."""
    centre = wired.nodes.get(0)
    out: dict[str, Any] = {}
    for name, items in wired.report_slices.items():
        if centre is None or not items:
            continue
        before, after = score(centre, zero(wired.plan.spec), items), score(centre, shared, items)
        gains = gain(after, before, derive(wired.plan.seed, "general", name))
        out[name] = {"base": asdict(before.scores()), "shared": asdict(after.scores()), "gain": gains}
    return out


def _end(folder: RunFolder, ledger: Ledger, state: State | PeerState, wired: Wired) -> Outcome:
    reason = "all rounds made" if state.round >= wired.plan.rounds else "no progress on validation any more"
    facts = [[entry.kind, _speed_free(dict(entry.body))] for entry in ledger.entries()]
    body = {
        "reason": reason,
        "rounds": state.round,
        "best_round": state.best_round,
        "outcome": digest_json(facts),
    }
    ledger.append("end", body)
    return Outcome(folder.path, body)


def _speed_free(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _speed_free(item) for key, item in value.items() if key not in SPEED_FREE}
    return [_speed_free(item) for item in value] if isinstance(value, list | tuple) else value


def _save(folder: RunFolder, relative: str, update: Update) -> None:
    folder.write_atomic(relative, pack(update))


def read_model(folder: RunFolder, relative: str, expected: str) -> Update:
    """A model file of the run. Raises UpdateError if it is missing or not what the ledger recorded."""
    path = folder.path / relative
    try:
        update = unpack(path.read_bytes(), str(path))
    except OSError as error:
        raise UpdateError(f"{path} cannot be read ({type(error).__name__}).", "", "Restore it from a copy.") from None
    if digest_update(update) != expected:
        why = "Its digest is not the one in the ledger."
        raise UpdateError(f"{path} was changed or damaged.", why, "Restore it from a copy, or run again.")
    return update


def with_seed(config: Federation, seed: int | None) -> Federation:
    """The same federation with another seed."""
    return config if seed is None else config.model_copy(update={"seed": seed})
