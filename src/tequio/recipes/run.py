"""A run from start to end: rounds, personal models, counterfactuals, general capability, the closing record.

Every stage commits what it found before the next begins; a run cut off anywhere goes on from the last commit with the same result.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tequio.coordinator.distil import Group
from tequio.coordinator.federate import federate
from tequio.coordinator.gossip import PeerState, disagreement, mean
from tequio.coordinator.groups import States, federate_groups
from tequio.coordinator.interpolate import Point, best, points, record
from tequio.coordinator.peers import federate_peers
from tequio.coordinator.purse import Purse
from tequio.coordinator.round import shared_model
from tequio.core.canonical import digest_json, digest_update, pack, unpack
from tequio.core.errors import ConfigError, LedgerCorrupt, LedgerError, RunError, UpdateError
from tequio.core.protocols import Runtime
from tequio.core.seeds import derive
from tequio.core.types import State
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger, verify
from tequio.participant.memory import Memory
from tequio.participant.personal import Personal, gain, personalise, score
from tequio.planning.memory import peak_bytes
from tequio.recipes.config import MAIN, Federation
from tequio.recipes.cores import choose_workers, side_by_side
from tequio.recipes.counterfactuals import everybody, pooled
from tequio.recipes.wire import Wired, read_roster, same_run, wire
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.workers import Job, Workers

Watch = Callable[[str, str, int, int], None]
"""Told (stage, what, done, of) as work goes on: for progress bars. It decides nothing."""

HEAD_FILE = "head.safetensors"
SHARED_FILE = "shared.safetensors"
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
    "peak_bytes",
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
    workers: int | None = None,
) -> Outcome:
    """Begin a run in the new folder `out` and bring it to its end. Nothing is written before all input is checked.

    workers: how many participants work side by side, as `choose_workers` reads it; the result does not depend on it.
    """
    watch("prepare", "reading data and base model", 0, 1)
    if counterfactuals and config.bases:
        why = "They train one model on everybody's data, and with several bases there is no one model."
        raise ConfigError("Counterfactuals need one base.", why, "Run without --counterfactuals.")
    roster = read_roster(config)
    count = choose_workers(config, workers)
    wired = wire(config, provenance, roster=roster)
    folder = RunFolder.create(out)
    commitments = _commit_data(folder, wired)
    header = {**wired.header, "counterfactuals": counterfactuals, "commitment": commitments}
    header["threads"] = torch.get_num_threads()
    header["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    for group in wired.groups:
        save(folder, of_base(group.name, HEAD_FILE), group.bench.head_update())
    with _writing(folder, lambda: Ledger.create(folder.ledger_path, header)) as ledger:
        return _drive(folder, ledger, wired, count, counterfactuals, watch)


def resume(out: Path, watch: Watch = _silent, workers: int | None = None) -> Outcome:
    """Go on with a run that was cut off, with any number of workers.

    Raises LedgerCorrupt if any record is damaged, RunError if base, configuration or data changed since it began.
    """
    folder = RunFolder.open(out)
    with _writing(folder, lambda: unbroken(folder)) as ledger:
        recorded = recorded_header(ledger, folder)
        ended = ledger.last("end")
        if ended is not None:
            return Outcome(folder.path, ended.body)
        watch("prepare", "reading data and base model", 0, 1)
        speeds = {row["name"]: row.get("measured_tokens_per_second") for row in recorded["participants"]}
        config = Federation.model_validate(recorded["config"])
        count = choose_workers(config, workers, recorded.get("threads"))
        wired = wire(config, tuple(recorded["provenance"]), speeds)
        differences = same_run(wired.header, recorded) + _changed_data(folder, wired, recorded["commitment"])
        if differences:
            why = f"Changed since the run began: {', '.join(differences)}."
            raise RunError(f"{folder.path} cannot be resumed.", why, "Put it back as it was, or start a new run.")
        return _drive(folder, ledger, wired, count, bool(recorded["counterfactuals"]), watch)


def unbroken(folder: RunFolder) -> Ledger:
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
        folder.write_atomic(salt_file(name), salt.encode())
        out[name] = digest_json([salt, data_digest])
    return out


def _changed_data(folder: RunFolder, wired: Wired, recorded: Mapping[str, str]) -> list[str]:
    changed = []
    for name, data_digest in wired.data_digests.items():
        path = folder.path / salt_file(name)
        salt = path.read_text() if path.is_file() else ""
        if digest_json([salt, data_digest]) != recorded.get(name):
            changed.append(f"the data of participant {name}")
    return changed


def salt_file(name: str) -> str:
    """Where the salt of a participant's commitment lies in its folder."""
    return f"participants/{name}/salt"


Places = tuple[Wired, ...]
"""The run as each worker sees it: with benches of its own."""


def _drive(folder: RunFolder, ledger: Ledger, wired: Wired, count: int, counterfactuals: bool, watch: Watch) -> Outcome:
    wired = _remembering(folder, wired)
    places = side_by_side(wired, count)
    state = _rounds(ledger, wired, places, watch)
    if isinstance(state, PeerState):
        shared, own = _mean(folder, ledger, state, wired)
    else:
        shared = _shared(folder, ledger, state, places, watch)
        own = {node.name: shared[group.name] for group in wired.groups for node in group.participants}
    with Workers(len(places)) as workers:
        central: Job[tuple[Update, dict[str, Any]]] | None = None
        if counterfactuals and ledger.last("pooled") is None:  # the longest piece of work, so it begins first
            central = workers.submit(lambda k: pooled(places[k]))
        models = _personal(folder, ledger, places, own, workers, watch)
        if counterfactuals:
            _counterfactuals(folder, ledger, places, shared[MAIN], models, workers, central, watch)
        if ledger.last("general") is None:
            watch("general", "public slices", 0, 1)
            ledger.append("general", _general(places, shared, workers))
    return _end(folder, ledger, state, wired)


def _runtime(places: Places, base: str, watch: Callable[[Any], None] | None = None) -> Embedded:
    """The participants of one base, at all places."""
    first, *others = [place.group(base).nodes for place in places]
    return Embedded(first, watch, tuple(others), places[0].config.train.lockstep)


def finish(
    folder: RunFolder,
    ledger: Ledger,
    states: States,
    wired: Wired,
    runtimes: Mapping[str, Runtime],
    personal: Callable[[Mapping[str, Update]], None],
    watch: Watch,
) -> Outcome:
    """The end of a run whose participants are elsewhere: `personal` has them make their models of the shared ones, and records it.

    runtimes: by base.
    """
    shared = _shared(folder, ledger, states, (wired,), watch, runtimes)
    watch("personal", "at the participants", 0, 1)
    personal(shared)
    if ledger.last("general") is None:
        watch("general", "public slices", 0, 1)
        with Workers(1) as workers:
            ledger.append("general", _general((wired,), shared, workers))
    return _end(folder, ledger, states, wired)


def _shared(
    folder: RunFolder,
    ledger: Ledger,
    states: Mapping[str, State],
    places: Places,
    watch: Watch,
    runtimes: Mapping[str, Runtime] = MappingProxyType({}),
) -> dict[str, Update]:
    """The shared model of each base that is delivered: the best round's, or the point between base and it that validation and
    gate prefer; `runtimes` are asked in place of the participants in this process."""
    recorded, tries = ledger.last("shared"), places[0].config.gate.interpolate
    models: dict[str, Update] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for group in places[0].groups:
        state = states[group.name]
        model = shared_model(state.best, group.plan)
        tried: list[Point] = []
        if recorded is None and tries:
            watch("shared", f"{tries} points between base and shared model", 0, 1)
            tried = points(model, tries, state, group.plan, runtimes.get(group.name) or _runtime(places, group.name))
        done = {} if recorded is None else recorded.body if group.name == MAIN else recorded.body["bases"][group.name]
        alpha = float(done["alpha"]) if done else best(tried).alpha if tried else 1.0
        models[group.name] = shared = model if alpha == 1.0 else model.scaled(alpha)
        body = {"round": state.best_round, "alpha": alpha, "points": record(tried)}
        bodies[group.name] = body | {"digest": digest_update(shared)}
    if recorded is None:
        main = bodies.pop(MAIN)
        ledger.append("shared", main | ({"bases": bodies} if bodies else {}))
    for name, shared in models.items():
        save(folder, of_base(name, SHARED_FILE), shared)
    return models


def _mean(
    folder: RunFolder, ledger: Ledger, state: PeerState, wired: Wired
) -> tuple[dict[str, Update], dict[str, Update]]:
    """(the mean of the peers' models, which only a simulation can compute and reports show as shared; each peer's own by name)."""
    shared = mean(state.best)
    if ledger.last("shared") is None:
        body = {"round": state.best_round, "alpha": 1.0, "points": [], "digest": digest_update(shared)}
        ledger.append("shared", body | {"disagreement": disagreement(state.best)})
    save(folder, "shared.safetensors", shared)
    return {MAIN: shared}, {m.name: state.best[m.index] for m in wired.plan.members}


def _remembering(folder: RunFolder, wired: Wired) -> Wired:
    """Every node with its memory and its account book in the run's folder."""
    under = {node.name: of_base(wired.name, f"participants/{node.name}") for node in wired.nodes.values()}
    nodes = {
        i: replace(
            node,
            memory=Memory(folder, under[node.name]),
            books=node.books.opened(folder, f"participants/{node.name}"),
        )
        for i, node in wired.nodes.items()
    }
    return replace(wired, nodes=nodes, others=tuple(_remembering(folder, other) for other in wired.others))


def _rounds(ledger: Ledger, wired: Wired, places: Places, watch: Watch) -> States | PeerState:
    rounds = wired.plan.rounds
    members = sum(len(group.plan.roster(1)) for group in wired.groups)
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

    made: States | PeerState | None = None
    for made in _made(ledger, wired, places, told):
        round_ = made.round if isinstance(made, PeerState) else made[MAIN].round
        done["trained"] = 0
        watch("rounds", f"round {round_} of {rounds}", round_ * members, rounds * members)
    if made is None:
        raise RunError("No round was made.")
    return made


def _made(ledger: Ledger, wired: Wired, places: Places, told: Callable[[Any], None]) -> Iterator[States | PeerState]:
    """What is known after each committed round: the states by base, or the peers'."""
    runtime = _runtime(places, MAIN, told)
    if wired.peers is not None:
        for peers, _ in federate_peers(wired.plan, wired.peers, runtime, ledger, wired.meter):
            yield peers
        return
    if not wired.others and wired.distillation is None:
        purse = purse_of(wired.config, ledger, one_process=True)
        for state, _ in federate(wired.plan, runtime, ledger, wired.meter, purse=purse):
            yield {MAIN: state}
        return
    groups = [Group(g.name, g.plan, _runtime(places, g.name, told), g.public) for g in wired.groups]
    for states, _ in federate_groups(groups, wired.distillation, ledger, wired.meter):
        yield states


def _personal(
    folder: RunFolder,
    ledger: Ledger,
    places: Places,
    shared: Mapping[str, Update],
    workers: Workers,
    watch: Watch,
) -> dict[str, tuple[Update, Update]]:
    """(delivered, local) of every participant; made, or read back where the ledger says that they are done.

    shared: by participant; peers have a model each.
    """
    recorded = {entry.body["name"]: entry.body for entry in ledger.entries("personal")}
    models: dict[str, tuple[Update, Update]] = {}
    nodes = [node for group in places[0].groups for node in group.participants]
    jobs = {
        node.name: workers.submit(partial(_personalised, places, node.name, shared[node.name]))
        for node in nodes
        if node.name not in recorded
    }
    for done, node in enumerate(nodes):
        watch("personal", node.name, done, len(nodes))
        if node.name in recorded:
            body = recorded[node.name]
            models[node.name] = (
                read_model(folder, f"participants/{node.name}/personal.safetensors", body["digest"]),
                read_model(folder, f"participants/{node.name}/local.safetensors", body["local_digest"]),
            )
            continue
        result = jobs.pop(node.name).result()
        save(folder, f"participants/{node.name}/personal.safetensors", result.delivered)
        save(folder, f"participants/{node.name}/local.safetensors", result.local)
        digests = {"digest": digest_update(result.delivered), "local_digest": digest_update(result.local)}
        ledger.append("personal", {**result.body, **digests})
        models[node.name] = (result.delivered, result.local)
    watch("personal", "done", len(nodes), len(nodes))
    return models


def _personalised(places: Places, name: str, shared: Update, worker: int) -> Personal:
    group = places[worker].group_of(name)
    node = next(node for node in group.participants if node.name == name)
    return personalise(node, shared, group.settings[name])


def _counterfactuals(
    folder: RunFolder,
    ledger: Ledger,
    places: Places,
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
        ledger.append("everybody", everybody(places, workers, shared, found.body["everybody"], models))
    watch("counterfactuals", "done", 2, 2)


def _general(places: Places, shared: Mapping[str, Update], workers: Workers) -> dict[str, Any]:
    """Base against shared on the halves of the public slices that the gate never saw."""
    jobs: dict[str, Job[dict[str, Any]]] = {}
    for group in places[0].groups:
        for name, items in group.report_slices.items():
            if 0 in group.nodes and items:
                row = name if group.name == MAIN else f"{name} ({group.name})"
                jobs[row] = workers.submit(partial(_slice, places, group.name, name, shared[group.name]))
    return {row: job.result() for row, job in jobs.items()}


def _slice(places: Places, base: str, name: str, shared: Update, worker: int) -> dict[str, Any]:
    group = places[worker].group(base)
    centre, items = group.nodes[0], group.report_slices[name]
    before, after = score(centre, zero(group.plan.spec), items), score(centre, shared, items)
    gains = gain(after, before, derive(group.plan.seed, "general", name))
    return {"base": asdict(before.scores()), "shared": asdict(after.scores()), "gain": gains}


def purse_of(config: Federation, ledger: Ledger, one_process: bool) -> Purse | None:
    """The federation's budget, with what this run spent before; None without one."""
    limits = config.budget.limits()
    if not limits:
        return None
    purse = Purse(limits, one_process, "" if config.money is None else config.money.currency)
    for kind in ("start", "round"):
        for entry in ledger.entries(kind):
            purse.add(entry.body)
    return purse


def _end(folder: RunFolder, ledger: Ledger, made: States | PeerState, wired: Wired) -> Outcome:
    state = made if isinstance(made, PeerState) else made[MAIN]
    reason = "all rounds made" if state.round >= wired.plan.rounds else "no progress on validation any more"
    stopped = ledger.last("budget")
    if stopped is not None:
        reason = str(stopped.body["reason"])
    facts = [[entry.kind, speed_free(dict(entry.body))] for entry in ledger.entries()]
    body = {
        "reason": reason,
        "rounds": state.round,
        "best_round": state.best_round,
        "outcome": digest_json(facts),
        "peak_bytes": peak_bytes(),
    }
    ledger.append("end", body)
    return Outcome(folder.path, body)


def speed_free(value: Any) -> Any:
    """A record without what two runs of one seed may differ in."""
    if isinstance(value, Mapping):
        return {key: speed_free(item) for key, item in value.items() if key not in SPEED_FREE}
    return [speed_free(item) for item in value] if isinstance(value, list | tuple) else value


def of_base(name: str, file: str) -> str:
    """Where a file of one base lies in the run."""
    return file if name == MAIN else f"bases/{name}/{file}"


def save(folder: RunFolder, relative: str, update: Update) -> None:
    """Write a model into the run's folder."""
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
