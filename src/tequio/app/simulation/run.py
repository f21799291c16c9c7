"""A run on this machine from start to end: begun or resumed, its rounds, then its other stages.

A run cut off anywhere goes on from the last commit with the same result.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tequio.app.assembly.budget import purse_of
from tequio.app.assembly.build import read_roster, wire
from tequio.app.assembly.carbon_schedule import gone_on
from tequio.app.assembly.manifest import same_run
from tequio.app.assembly.setup import Wired
from tequio.app.run_files import (
    HEAD_FILE,
    config_of,
    of_base,
    recorded_header,
    salt_file,
    save,
    unbroken,
)
from tequio.app.simulation.counterfactuals import counterfactuals_of, pooled
from tequio.app.simulation.parallelism import choose_workers, side_by_side
from tequio.app.simulation.personal_models import mean_of_peers, personal_models
from tequio.app.stages import (
    Outcome,
    Places,
    Watch,
    end,
    general,
    runtime_of,
    shared_models,
    silent,
)
from tequio.config import MAIN, Federation
from tequio.coordinator.distillation import Group
from tequio.coordinator.federate import federate
from tequio.coordinator.gossip import PeerState
from tequio.coordinator.gossip_loop import federate_peers
from tequio.coordinator.multi_base import States, federate_groups
from tequio.core.canonical import digest_json
from tequio.core.errors import ConfigError, RunError
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder, network_command
from tequio.ledger.record import Ledger
from tequio.participant.residual import Memory
from tequio.runtimes.workers import Job, Workers


@contextmanager
def _writing(folder: RunFolder, ledger_of: Callable[[], Ledger]) -> Iterator[Ledger]:
    with folder.lock(), ledger_of() as ledger:
        yield ledger


def start(
    config: Federation,
    out: Path,
    counterfactuals: bool,
    provenance: tuple[Mapping[str, Any], ...] = (),
    watch: Watch = silent,
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


def _check_begun_here(run: Path, recorded: Mapping[str, Any]) -> None:
    """Raises RunError, with the command that goes on, for a record that `tequio run` did not begin."""
    if recorded.get("simulation") is not False:
        return
    facts, named = recorded.get("facts"), network_command(run) or network_command(run.resolve())
    known = named and f"Go on with: {named}"
    if facts is None:
        fix = known or "Go on in the coordinator's folder: tequio coordinator start FOLDER"
        raise RunError(f"{run} is a coordinator's record.", "`tequio run` did not begin it.", fix)
    name = recorded["participants"][0]["name"]
    if "adapted" in facts:
        why, fix = "`tequio adapt` made it, and it is whole.", f"See it with: tequio report {run}"
    else:
        why, fix = (
            "`tequio run` did not begin it.",
            known or f"Go on in the folder of {name}: tequio participate FOLDER",
        )
    raise RunError(f"{run} is {name}'s own record.", why, fix)


def resume(out: Path, watch: Watch = silent, workers: int | None = None) -> Outcome:
    """Go on with a run that was cut off, with any number of workers.

    Raises LedgerCorrupt if any record is damaged, RunError if base, configuration or data changed since it began, or it is another
    command's.
    """
    folder = RunFolder.open(out)
    with _writing(folder, lambda: unbroken(folder)) as ledger:
        recorded = recorded_header(ledger, folder)
        ended = ledger.last("end")
        if ended is not None:
            return Outcome(folder.path, ended.body)
        _check_begun_here(folder.path, recorded)
        watch("prepare", "reading data and base model", 0, 1)
        speeds = {row["name"]: row.get("measured_tokens_per_second") for row in recorded["participants"]}
        config = config_of(recorded, folder.ledger_path)
        count = choose_workers(config, workers, recorded.get("threads"))
        wired = wire(config, tuple(recorded["provenance"]), speeds)
        differences = same_run(wired.header, recorded) + _changed_data(folder, wired, recorded["commitment"])
        if differences:
            why = f"Changed since the run began: {', '.join(differences)}."
            raise RunError(f"{folder.path} cannot be resumed.", why, "Put it back as it was, or start a new run.")
        return _drive(folder, ledger, wired, count, bool(recorded["counterfactuals"]), watch)


def _commit_data(folder: RunFolder, wired: Wired) -> dict[str, str]:
    """Salted commitments to each participant's data. The salt stays in the participant's folder: without it they tell nothing."""
    out: dict[str, str] = {}
    for name, data_digest in wired.data_digests.items():
        salt = secrets.token_hex(16)
        folder.write_atomic(salt_file(name), salt.encode(), private=True)
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


def _drive(folder: RunFolder, ledger: Ledger, wired: Wired, count: int, counterfactuals: bool, watch: Watch) -> Outcome:
    wired = _remembering(folder, wired)
    places = side_by_side(wired, count)
    state = _rounds(ledger, wired, places, watch)
    places = tuple(_afterwards(place, ledger) for place in places)
    if isinstance(state, PeerState):
        shared, own = mean_of_peers(folder, ledger, state, wired)
    else:
        shared = shared_models(folder, ledger, state, places, watch)
        own = {node.name: shared[group.name] for group in wired.groups for node in group.participants}
    with Workers(len(places)) as workers:
        central: Job[tuple[Update, dict[str, Any]]] | None = None
        if counterfactuals and ledger.last("pooled") is None:  # the longest piece of work, so it begins first
            central = workers.submit(lambda k: pooled(places[k]))
        models = personal_models(folder, ledger, places, own, workers, watch)
        if counterfactuals:
            counterfactuals_of(folder, ledger, places, shared[MAIN], models, workers, central, watch)
        if ledger.last("general") is None:
            watch("general", "public slices", 0, 1)
            ledger.append("general", general(places, shared, workers))
    return end(folder, ledger, state, wired)


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


def _afterwards(wired: Wired, ledger: Ledger) -> Wired:
    """With [shift]: what comes after the rounds counts at the simulated hour in which they ended."""
    if wired.shift is None:
        return wired
    hour = gone_on(wired.shift, ledger).hour
    nodes = {i: replace(node, meter=node.meter.at(hour)) for i, node in wired.nodes.items()}
    return replace(wired, nodes=nodes, meter=wired.meter.at(hour), plan=replace(wired.plan, after=hour))


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
    runtime = runtime_of(places, MAIN, told)
    if wired.peers is not None:
        for peers, _ in federate_peers(wired.plan, wired.peers, runtime, ledger, wired.meter):
            yield peers
        return
    if not wired.others and wired.distillation is None:
        purse = purse_of(wired.config, ledger, one_process=True)
        shift = None if wired.shift is None else gone_on(wired.shift, ledger)
        for state, _ in federate(wired.plan, runtime, ledger, wired.meter, purse=purse, shift=shift):
            yield {MAIN: state}
        return
    groups = [Group(g.name, g.plan, runtime_of(places, g.name, told), g.public) for g in wired.groups]
    for states, _ in federate_groups(groups, wired.distillation, ledger, wired.meter):
        yield states


def with_seed(config: Federation, seed: int | None) -> Federation:
    """The same federation with another seed."""
    return config if seed is None else config.model_copy(update={"seed": seed})
