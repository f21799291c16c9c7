"""The rounds of a federation across a network, for each of its bases, from the first record to the last.

With several bases the groups take turns within a round: one is asked after the other, in one record, as on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import distillation_of, pieces_of
from tequio.app.assembly.allocation import allotments
from tequio.app.assembly.budget import allowances, purse_of
from tequio.app.assembly.checks import check_teaching
from tequio.app.assembly.context import Ground, at_coordinator, ground_of
from tequio.app.assembly.manifest import BASE_KEYS, centre_header, header_of, places_of, row_of
from tequio.app.assembly.manifest import of_base as row_over
from tequio.app.assembly.profile import told_of_centre
from tequio.app.assembly.public_data import CENTRE, Centre, PublicData, centre_of
from tequio.app.assembly.run_spec import plan_of
from tequio.app.assembly.setup import Wired
from tequio.app.network.coordinator.personal_models import Farewell
from tequio.app.network.coordinator.roster import House
from tequio.app.run_files import HEAD_FILE, of_base, recorded_header, save, unbroken
from tequio.app.stages import (
    Outcome,
    Watch,
    end,
    general,
    shared_models,
)
from tequio.config import MAIN, Federation
from tequio.coordinator.buffered_network import Windows
from tequio.coordinator.distillation import Group
from tequio.coordinator.federate import federate
from tequio.coordinator.multi_base import States, federate_groups
from tequio.coordinator.run_spec import Member
from tequio.core.errors import NetworkError, RunError
from tequio.core.events import Tell
from tequio.core.protocols import Runtime
from tequio.core.types import Failure, PersonaliseTask, Reply, Task
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.residual import Memory
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.runtime import Networked
from tequio.runtimes.workers import Workers


@dataclass(frozen=True)
class Seat:
    """What the coordinator has for one base: the federation of those who train over it, the base, the centre."""

    name: str
    config: Federation
    ground: Ground
    centre: Centre

    @property
    def here(self) -> Embedded:
        """The participants of this process: the centre, if there is one."""
        return Embedded({} if self.centre.node is None else {0: self.centre.node})


@dataclass(frozen=True)
class Turn:
    """The network, with the centre of one base at this end. Groups take turns, so one network serves all."""

    net: Networked
    here: Embedded

    def exchange(self, tasks: Iterable[Task]) -> Iterator[Reply | Failure]:
        """As the network does."""
        self.net.here = self.here
        yield from self.net.exchange(tasks)


def seats_of(config: Federation, public: PublicData, run: Path) -> tuple[Seat, ...]:
    """One a base, that of [base] first; each centre with its error-feedback memory in the run's folder."""
    seats = []
    for name in config.base_names():
        part = config.part(name)
        ground = at_coordinator(ground_of(part, {}))
        centre = centre_of(ground, public)
        if centre.node is not None:
            memory = Memory(RunFolder(run), of_base(name, f"participants/{CENTRE}"))
            centre = replace(centre, node=replace(centre.node, memory=memory))
        seats.append(Seat(name, part, ground, centre))
    return tuple(seats)


def conduct(
    path: Path, house: House, seats: Sequence[Seat], public: PublicData, farewell: Farewell, watch: Watch
) -> Outcome:
    """Begin the run, or go on with it, to its end."""
    with _ledger(path, house, seats, public) as (folder, ledger):
        house.ledger, header = ledger, recorded_header(ledger, folder)
        wired = _whole(house, seats, header)
        turns = {seat.name: Turn(house.net, seat.here) for seat in seats}
        states: States | None = None
        for states, body in _made(wired, turns, ledger, house):
            round_, rounds = states[MAIN].round, wired.plan.rounds
            watch("rounds", f"round {round_} of {rounds}", round_, rounds)
            _say_round(round_, rounds, body, house.say)
        if states is None:
            raise RunError("No round was made.")
        house.say("The rounds are over.", "rounds-over", stage="personal models")
        main, *others = [replace(group, plan=house.whole(group.plan, group.name)) for group in wired.groups]
        wired = replace(main, others=tuple(others))
        best = {name: state.best_round for name, state in states.items()}

        def personal(shared: Mapping[str, Update]) -> None:
            members = [(group.name, member) for group in wired.groups for member in group.plan.members]
            allowed = allowances(wired.config, ledger, one_process=False)
            tasks = [
                PersonaliseTask(best[base], m.index, m.name, shared[base], m.rank, m.steps, allowed.get(m.name, {}))
                for base, m in members
            ]
            farewell.ask(ledger, tasks)

        return finish(folder, ledger, states, wired, turns, personal, watch, house.carried)


def _made(
    wired: Wired, turns: Mapping[str, Turn], ledger: Ledger, house: House
) -> Iterator[tuple[States, dict[str, Any] | None]]:
    """What is known after each committed round: the states by base, and the record."""
    if wired.others or wired.distillation is not None:
        groups = [Group(g.name, g.plan, turns[g.name], g.public) for g in wired.groups]
        yield from federate_groups(groups, wired.distillation, ledger, wired.meter, house)
        return
    house.net.here = turns[MAIN].here
    advance = Windows(house.net) if wired.plan.window_seconds is not None else None
    purse = purse_of(wired.config, ledger, one_process=False)
    for state, body in federate(wired.plan, house.net, ledger, wired.meter, house, advance, purse):
        yield {MAIN: state}, body


def _whole(house: House, seats: Sequence[Seat], header: Mapping[str, Any]) -> Wired:
    """All groups. Raises ConfigError or ResourceError where they cannot teach one another, and are asked to."""
    main, *others = [_wired(seat, house, header) for seat in seats]
    how, config = None, house.config
    if config.distil is not None:
        top = max(group.plan.top_rank() for group in (main, *others))
        how = distillation_of(config.distil, main.plan.aggregator, top, config.seed)
        check_teaching((main, *others), how)
    return replace(main, config=config, others=tuple(others), distillation=how)


def _wired(seat: Seat, house: House, header: Mapping[str, Any]) -> Wired:
    """One group, with the parts that the record gave its members."""
    config, bench, node = seat.config, seat.ground.bench, seat.centre.node
    row = header["centre"] if seat.name == MAIN else header["bases"][seat.name]["centre"]
    members = {i: house.members[i] for i in sorted(house.members) if house.base_of(i) == seat.name}
    began = [each for each in header["participants"] if each.get("base", MAIN) == seat.name]
    if row is not None:
        members[0] = Member(CENTRE, 0, int(row["rank"]), int(row["steps"]))
        began.append(row)
    pieces = pieces_of(config.algorithm, config.adapter.kind == "full")
    plan = plan_of(config, pieces, members, bench, max(int(each["rank"]) for each in began))
    nodes = {} if node is None else {0: node}
    held_out, meter = seat.centre.held_out, seat.ground.meter
    return Wired(config, bench, seat.ground.task, plan, nodes, held_out, {}, header, {}, meter, name=seat.name)


def _say_round(round_: int, rounds: int, body: Mapping[str, Any] | None, say: Tell) -> None:
    """One event a round, and one for each whose update does not count."""
    if body is None:
        say(f"At round {round_} of {rounds}.", "begun", stage="rounds", round=round_, rounds=rounds)
        return
    verdict, loss, seconds = body["accepted"], body["mean_validation_loss"], body["seconds"]
    words = f"Round {round_} of {rounds}: {'accepted' if verdict else 'rejected: ' + body['reason']}"
    words += f", validation loss {'–' if loss is None else f'{loss:.4f}'}, {seconds:.1f} s."
    say(words, "round", round=round_, rounds=rounds, accepted=verdict, loss=loss, seconds=seconds)
    for row in body["admissions"]:
        if row["status"] != "admitted":
            words = f"Round {round_}: {row['name']} {row['status']}: {row['reason']}"
            fields = {"participant": row["name"], "status": row["status"], "reason": row["reason"]}
            say(words, "update-not-counted", "warning", round=round_, **fields)


@contextmanager
def _ledger(path: Path, house: House, seats: Sequence[Seat], public: PublicData) -> Iterator[tuple[RunFolder, Ledger]]:
    """The run's folder and ledger, new or gone on with. Raises RunError if what it began with has changed."""
    if (path / "ledger.sqlite").exists():
        folder = RunFolder.open(path)
        with folder.lock(), unbroken(folder) as ledger:
            recorded = recorded_header(ledger, folder)
            now = header_of(house.config, seats[0].ground.bench, [])
            changed = [key for key in ("config_digest", "spec") if now[key] != recorded[key]]
            further = {seat.name: seat.ground.bench.spec for seat in seats[1:]}
            changed += [f"base {n}" for n, spec in further.items() if recorded["bases"][n]["spec"] != spec]
            if changed:
                why = f"Changed since it began: {', '.join(changed)}."
                raise RunError(f"{path} cannot go on.", why, "Put it back as it was, or begin in a new folder.")
            house.recall(recorded, ledger)
            yield folder, ledger
        return
    header = _begin(house, seats, public)
    folder = RunFolder.create(path)
    for seat in seats:
        save(folder, of_base(seat.name, HEAD_FILE), seat.ground.bench.head_update())
    header["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    with folder.lock(), Ledger.create(folder.ledger_path, header) as ledger:
        yield folder, ledger


def _begin(house: House, seats: Sequence[Seat], public: PublicData) -> dict[str, Any]:
    """Wait for a quorum, and allot everybody's part: the header of the record."""
    told, several, rows = house.begin(), len(seats) > 1, list[dict[str, Any]]()
    headers: dict[str, dict[str, Any]] = {}
    for seat in seats:
        config, bench, node = seat.config, seat.ground.bench, seat.centre.node
        own = {i: said for i, said in told.items() if house.base_of(i) == seat.name}
        if not own:
            raise NetworkError(f"Nobody is there who trains over base {seat.name}.", "", "Invite somebody anew.")
        if node is not None and public.splits is not None:
            own[0] = told_of_centre(config, node, public.splits)
        given, full = allotments(config, own, bench), config.adapter.kind == "full"
        parts = {i: row_of(own[i], given[own[i].name], full) for i in sorted(own)}
        named = {i: row_over(row, seat.name, several) for i, row in parts.items() if i > 0}
        for i, row in named.items():
            house.keep(i, row, house.commitments[i])
        rows += named.values()
        headers[seat.name] = header_of(config, bench, []) | centre_header(list(parts.values()), seat.centre, public)
    places = places_of(house.config)
    header = header_of(house.config, seats[0].ground.bench, sorted(rows, key=lambda row: places[row["name"]]))
    header |= {key: headers[MAIN][key] for key in ("centre", "slices", "public_data")}
    if several:
        header["bases"] = {seat.name: {key: headers[seat.name][key] for key in BASE_KEYS} for seat in seats[1:]}
    header |= {"simulation": False, "provenance": [], "counterfactuals": False}
    header |= {"commitment": {house.names[i]: said for i, said in house.commitments.items()}}
    header |= {"invitations": {house.names[i]: house.invited.get(i, 0) for i in house.commitments}}
    _whole(house, seats, header)  # before anything is written
    return header


def finish(
    folder: RunFolder,
    ledger: Ledger,
    states: States,
    wired: Wired,
    runtimes: Mapping[str, Runtime],
    personal: Callable[[Mapping[str, Update]], None],
    watch: Watch,
    carried: Callable[[], dict[str, Any]],
) -> Outcome:
    """The end of a run whose participants are elsewhere: `personal` has them make their models of the shared ones, and records it.

    runtimes: by base. carried: what went over the network since the record before.
    """
    shared = shared_models(folder, ledger, states, (wired,), watch, runtimes)
    watch("personal", "at the participants", 0, 1)
    personal(shared)
    if ledger.last("general") is None:
        watch("general", "public slices", 0, 1)
        with Workers(1) as workers:
            ledger.append("general", general((wired,), shared, workers))
    return end(folder, ledger, states, wired, carried())
