"""A run on this machine from start to end: begun or resumed, its rounds, then its other stages.

A run cut off anywhere goes on from the last commit with the same result.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tequio.app.assembly.budget import build_budget_tracker
from tequio.app.assembly.build import build, read_participants
from tequio.app.assembly.carbon_schedule import gone_on
from tequio.app.assembly.checks import check_pieces
from tequio.app.assembly.manifest import begin_record, check_same_run
from tequio.app.assembly.setup import RunSetup
from tequio.app.run_files import (
    base_file,
    config_from_header,
    recorded_bases,
    recorded_header,
    recorded_rule,
    salt_file,
    unbroken,
)
from tequio.app.run_source import check_unedited, remember_source
from tequio.app.simulation.counterfactuals import pooled, pooled_budget, run_counterfactuals
from tequio.app.simulation.parallelism import choose_workers, side_by_side
from tequio.app.simulation.personal_models import mean_of_peers, personal_models
from tequio.app.stages import (
    Outcome,
    Watch,
    WorkerSetups,
    embedded_runtime,
    end,
    general,
    mover,
    shared_models,
    silent,
    tell_plan,
)
from tequio.config import MAIN, Federation
from tequio.coordinator.distillation import Group
from tequio.coordinator.federate import federate, star
from tequio.coordinator.gossip import PeerState
from tequio.coordinator.gossip_loop import peer_rounds
from tequio.coordinator.limits import StarLimits
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.multi_base import States, group_rounds
from tequio.coordinator.round import run_round
from tequio.core.canonical import digest_json
from tequio.core.errors import ConfigError, RunError
from tequio.core.texts.words import refusal
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder, network_command
from tequio.ledger.record import Ledger
from tequio.participant.personal import Settings
from tequio.participant.residual import Residual
from tequio.runtimes.workers import Job, Workers


def start(
    config: Federation,
    out: Path,
    counterfactuals: bool,
    provenance: tuple[Mapping[str, Any], ...] = (),
    watch: Watch = silent,
    workers: int | None = None,
    source: tuple[Path, int | None] | None = None,
    alone_rounds: int = 1,
) -> Outcome:
    """Begin a run in the new folder `out` and bring it to its end.

    Nothing is written before all input is checked.

    workers: how many participants work side by side, as `choose_workers` reads it; the result does
        not depend on it.
    source: the federation.toml from which `config` was read, and the seed that replaced its own.
    alone_rounds: of a pilot of one round, how many rounds' steps the models trained alone get.
    """
    watch("prepare", "reading data and base model", 0, 1)
    if counterfactuals and config.bases:
        raise refusal(ConfigError, "several-bases-pooled")
    algorithm, roster = check_pieces(config), read_participants(config)
    count = choose_workers(config, algorithm, workers)
    setup = build(config, provenance, participants=roster, algorithm=algorithm)
    if alone_rounds > 1:
        setup = _changed_settings(setup, lambda settings: settings.alone_for(alone_rounds))
    _show_notes(setup, watch)
    folder = RunFolder.create(out)
    if source is not None:
        remember_source(folder, *source)
    commitments = _commit_data(folder, setup)
    header = {**setup.header, "counterfactuals": counterfactuals, "commitment": commitments}
    header["threads"] = torch.get_num_threads()
    bases = {group.name: group.adapted for group in setup.groups}
    with folder.lock(), begin_record(folder, header, bases) as ledger:
        return _drive(folder, ledger, setup, count, counterfactuals, watch)


def _show_notes(setup: RunSetup, watch: Watch) -> None:
    """Show what was chosen for the bases: a padding token, for instance."""
    for group in setup.groups:
        for note in group.adapted.base.notes:
            watch("note", f"Base {group.config.base.model}: {note}", 0, 1)


def _check_begun_here(run: Path, recorded: Mapping[str, Any]) -> None:
    """Raises RunError, with the command that goes on, for a record that `tequio run` did not
    begin.
    """
    if recorded.get("simulation") is not False:
        return
    facts, named = recorded.get("facts"), network_command(run) or network_command(run.resolve())
    if facts is not None and "adapted" in facts:
        raise refusal(RunError, "record-of-adapt", run=run)
    usual = "tequio coordinator start FOLDER" if facts is None else "tequio participate FOLDER"
    raise refusal(RunError, "record-of-network", run=run, command=named or usual)


def resume(
    out: Path, watch: Watch = silent, workers: int | None = None, as_recorded: bool = False
) -> Outcome:
    """Resume a run that was cut off, with any number of workers.

    as_recorded: the configuration in the record counts, whatever its federation.toml says by now.
    Raises LedgerCorrupt if any record is damaged, RunError if base, configuration or data changed
    since it began, or it is another command's.
    """
    folder = RunFolder.open(out)
    with folder.lock(), unbroken(folder) as ledger:
        recorded = recorded_header(ledger, folder)
        ended = ledger.last("end")
        if ended is not None:
            watch(
                "note",
                "This run is finished: nothing was added, and later edits of its files do not "
                "count.",
                1,
                1,
            )
            return Outcome(folder.path, ended.body)
        _check_begun_here(folder.path, recorded)
        watch("prepare", "reading data and base model", 0, 1)
        speeds = {
            row["name"]: row.get("measured_tokens_per_second") for row in recorded["participants"]
        }
        config = config_from_header(recorded, folder.ledger_path)
        if not as_recorded:
            check_unedited(folder.path, config)
        algorithm = check_pieces(config)
        count = choose_workers(config, algorithm, workers, recorded.get("threads"))
        bases = recorded_bases(recorded)
        setup = build(
            config, tuple(recorded["provenance"]), speeds, bases=bases, algorithm=algorithm
        )
        rule = recorded_rule(recorded)
        setup = _changed_settings(setup, lambda settings: replace(settings, rule=rule))
        _show_notes(setup, watch)
        data = _changed_data(folder, setup, recorded["commitment"])
        check_same_run(folder.path, setup.header, recorded, data)
        return _drive(folder, ledger, setup, count, bool(recorded["counterfactuals"]), watch)


def _changed_settings(setup: RunSetup, change: Callable[[Settings], Settings]) -> RunSetup:
    """The same setup, with other settings of personal models."""
    settings = {name: change(each) for name, each in setup.settings.items()}
    return replace(
        setup,
        settings=settings,
        others=tuple(_changed_settings(other, change) for other in setup.others),
    )


def _commit_data(folder: RunFolder, setup: RunSetup) -> dict[str, str]:
    """Salted commitments to each participant's data.

    The salt stays in the participant's folder: without it they tell nothing.
    """
    out: dict[str, str] = {}
    for name, data_digest in setup.data_digests.items():
        salt = secrets.token_hex(16)
        folder.write_atomic(salt_file(name), salt.encode(), private=True)
        out[name] = digest_json([salt, data_digest])
    return out


def _changed_data(folder: RunFolder, setup: RunSetup, recorded: Mapping[str, str]) -> list[str]:
    changed = []
    for name, data_digest in setup.data_digests.items():
        path = folder.path / salt_file(name)
        salt = path.read_text() if path.is_file() else ""
        if digest_json([salt, data_digest]) != recorded.get(name):
            changed.append(f"the data of participant {name}")
    return changed


def _drive(
    folder: RunFolder,
    ledger: Ledger,
    setup: RunSetup,
    count: int,
    counterfactuals: bool,
    watch: Watch,
) -> Outcome:
    setup = _remembering(folder, setup)
    places = side_by_side(setup, count)
    tell_plan(watch, _planned_steps(setup, counterfactuals))
    state = _rounds(ledger, setup, places, watch)
    places = tuple(_afterwards(place, ledger) for place in places)
    if isinstance(state, PeerState):
        shared, own = mean_of_peers(folder, ledger, state, setup)
    else:
        shared = shared_models(folder, ledger, state, places, watch)
        own = {
            node.name: shared[group.name] for group in setup.groups for node in group.participants
        }
    with Workers(len(places)) as workers:
        central: Job[tuple[Update, dict[str, Any]]] | None = None
        if (
            counterfactuals and ledger.last("pooled") is None
        ):  # the longest piece of work, so it begins first
            central = workers.submit(lambda k: pooled(places[k], mover(watch, "counterfactuals")))
        models = personal_models(folder, ledger, places, own, workers, watch)
        if counterfactuals:
            run_counterfactuals(
                folder, ledger, places, shared[MAIN], models, workers, central, watch
            )
        if ledger.last("general") is None:
            watch("general", "public slices", 0, 1)
            ledger.append("general", general(places, shared, workers))
    return end(folder, ledger, state, setup)


def _planned_steps(setup: RunSetup, counterfactuals: bool) -> dict[str, float]:
    """Optimizer steps of each stage, at most."""
    rounds = (
        sum(m.steps for group in setup.groups for m in group.run_spec.roster(1))
        * setup.run_spec.rounds
    )
    steps: dict[str, float] = {"rounds": rounds}
    steps["personal"] = sum(s.steps for group in setup.groups for s in group.settings.values())
    if counterfactuals:
        budget = pooled_budget(setup)
        steps["counterfactuals"] = budget.steps * len(budget.rates)
    return steps


def _remembering(folder: RunFolder, setup: RunSetup) -> RunSetup:
    """Every node with its memory and its account book in the run's folder."""
    under = {
        node.name: base_file(setup.name, f"participants/{node.name}")
        for node in setup.nodes.values()
    }
    nodes = {
        i: replace(
            node,
            memory=Residual(folder, under[node.name]),
            books=node.books.opened(folder, f"participants/{node.name}"),
        )
        for i, node in setup.nodes.items()
    }
    return replace(
        setup, nodes=nodes, others=tuple(_remembering(folder, other) for other in setup.others)
    )


def _afterwards(setup: RunSetup, ledger: Ledger) -> RunSetup:
    """With [shift]: what comes after the rounds counts at the simulated hour in which they
    ended.
    """
    if setup.shift is None:
        return setup
    hour = gone_on(setup.shift, ledger).hour
    nodes = {i: replace(node, meter=node.meter.at(hour)) for i, node in setup.nodes.items()}
    return replace(
        setup, nodes=nodes, meter=setup.meter.at(hour), run_spec=replace(setup.run_spec, after=hour)
    )


def _rounds(
    ledger: Ledger, setup: RunSetup, places: WorkerSetups, watch: Watch
) -> States | PeerState:
    rounds = setup.run_spec.rounds
    members = sum(len(group.run_spec.roster(1)) for group in setup.groups)
    done = {"round": 0, "trained": 0}

    def report_task(task: Any) -> None:
        if hasattr(task, "steps"):
            done["trained"] += 1
            watch(
                "rounds",
                f"round {task.round} of {rounds}: {task.name}",
                (task.round - 1) * members + done["trained"],
                rounds * members,
            )

    made: States | PeerState | None = None
    for made in _made(ledger, setup, places, report_task):
        round_ = made.round if isinstance(made, PeerState) else made[MAIN].round
        done["trained"] = 0
        watch("rounds", f"round {round_} of {rounds}", round_ * members, rounds * members)
        if not isinstance(made, PeerState) and made[MAIN].losses:
            losses = made[MAIN].losses.values()
            mover(watch, "rounds")(0.0, sum(losses) / len(losses))
    if made is None:
        raise refusal(RunError, "no-round-made")
    return made


def _made(
    ledger: Ledger, setup: RunSetup, places: WorkerSetups, report_task: Callable[[Any], None]
) -> Iterator[States | PeerState]:
    """What is known after each committed round: the states by base, or the peers'."""
    runtime = embedded_runtime(places, MAIN, report_task)
    if setup.peers is not None:
        for peers, _ in federate(
            peer_rounds(setup.run_spec, setup.peers, runtime), ledger, setup.meter
        ):
            yield peers
        return
    if not setup.others and setup.distillation is None:
        tracker = build_budget_tracker(setup.config, ledger, one_process=True)
        shift = None if setup.shift is None else gone_on(setup.shift, ledger)
        limits = StarLimits(tracker, shift)
        way = partial(run_round, gather=runtime.gather) if isinstance(runtime, SumRounds) else None
        for state, _ in federate(
            star(setup.run_spec, runtime, way), ledger, setup.meter, limits=limits
        ):
            yield {MAIN: state}
        return
    groups = [
        Group(g.name, g.run_spec, embedded_runtime(places, g.name, report_task), g.public)
        for g in setup.groups
    ]
    for states, _ in federate(group_rounds(groups, setup.distillation), ledger, setup.meter):
        yield states


def with_seed(config: Federation, seed: int | None) -> Federation:
    """The same federation with another seed."""
    return config if seed is None else config.model_copy(update={"seed": seed})
