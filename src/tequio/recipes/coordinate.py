"""A federation across a network, the coordinator's side: who is invited joins, says what it has, trains; the record is that of any run.

The coordinator holds the base, the public data and the shared model. It never sees data or personal models: a participant makes its own
from the shared one, and tells means.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tequio.algorithms.chain import check_buffered
from tequio.coordinator.arrivals import Windows
from tequio.coordinator.federate import federate
from tequio.coordinator.plan import Member
from tequio.core.errors import ConfigError, RunError
from tequio.core.events import Tell
from tequio.core.types import State
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.memory import Memory
from tequio.recipes.config import MAIN, Federation, load_federation
from tequio.recipes.farewell import Farewell, owed, reopen
from tequio.recipes.ground import at_coordinator, ground_of
from tequio.recipes.house import House, connected
from tequio.recipes.membership import Membership
from tequio.recipes.metrics import coordinator_pages
from tequio.recipes.office import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    Office,
    open_office,
)
from tequio.recipes.pieces import pieces_of
from tequio.recipes.public import CENTRE, Centre, PublicData, centre_header, centre_of, read_public
from tequio.recipes.renewal import check_lasting, reminder
from tequio.recipes.run import HEAD_FILE, Outcome, Watch, finish, recorded_header, save, unbroken
from tequio.recipes.told import allotments, row_of, told_of_centre
from tequio.recipes.vitals import Present, Vitals
from tequio.recipes.wire import Wired, header_of, plan_of
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.door import Door, Guests, claimed, open_door
from tequio.runtimes.flower.exchange import Networked
from tequio.runtimes.flower.superlink import Server, bound_log, place, present, running


@dataclass(frozen=True)
class Times:
    """Seconds: to wait for a quorum to be there, for one exchange of a round, and in the end for who is away then."""

    wait: float
    deadline: float
    grace: float = 0.0


def coordinate(folder: Path, host: str, port: int | None, times: Times, vitals: Vitals, watch: Watch) -> Outcome:
    """Start the federation of this folder, or go on with it, to its end. What happens is told to `vitals`.

    One that is over is opened again, for `times.grace`, where somebody did not make its personal model yet.
    Raises NetworkError if no quorum is there in time, ConfigError for what cannot run over a network yet.
    """
    office = open_office(folder)
    config = load_federation(Path(office.federation))
    _check(config)
    with RunFolder(folder).lock(), vitals.answering(coordinator_pages(folder, vitals)), vitals.kept(folder):
        ended = _ended(folder / "run")
        late = [] if ended is None else owed(folder, folder / "run")
        if ended is not None and not (late and times.grace > 0):
            return ended
        check_lasting(folder, office)
        with claimed(host, port or int(office.address.rpartition(":")[2])) as own:
            if ended is None:
                return _coordinate(folder, office, config, host, own, times, vitals, watch)
            names = ", ".join(member.name for member in late)
            words = f"The rounds are over; {names} made no personal model yet. Open at most {times.grace / 60:g} minutes for that."
            vitals.tell(words, "reopened", stage="personal models", missing=names)
            with _opened(folder, office, host, own, vitals, {}, times.deadline) as (guests, net):
                reopen(folder / "run", _farewell(folder, config, net, times, vitals.tell))
                guests.farewell()
            return ended


def _coordinate(
    folder: Path,
    office: Office,
    config: Federation,
    host: str,
    own: socket.socket,
    times: Times,
    vitals: Vitals,
    watch: Watch,
) -> Outcome:
    watch("prepare", "base model and public data", 0, 1)
    public, ground = read_public(config), at_coordinator(ground_of(config, {}))
    centre = _remembering(centre_of(ground, public), folder / "run")
    here: dict[int, Any] = {} if centre.node is None else {0: centre.node}
    with _opened(folder, office, host, own, vitals, here, times.deadline) as (guests, net):
        house = House(folder, config, ground, net, times.wait, vitals.tell)
        outcome = _run(folder / "run", house, centre, public, _farewell(folder, config, net, times, vitals.tell), watch)
        guests.farewell()
        return outcome


@contextmanager
def _opened(
    folder: Path,
    office: Office,
    host: str,
    own: socket.socket,
    vitals: Vitals,
    here: Mapping[int, Any],
    deadline: float,
) -> Iterator[tuple[Guests, Networked]]:
    """Server and door, until the block ends. here: the participants of this process, by index."""
    (folder / "superlink").mkdir(exist_ok=True)
    paths = [folder / name for name in (CERTIFICATE, KEY, AUTHORITY, "secret")]
    server = Server(_free_port(), (folder / "superlink").resolve(), *(path.resolve() for path in paths))
    members, say = Membership(folder, server, vitals.tell), vitals.tell
    listen = Door(folder / office.certificate, folder / office.key, server)
    with (
        running(server, say),
        members.watched(),
        open_door(listen, own, members.enrol, members.leave, say) as guests,
        place(server) as grid,
    ):
        at = f"{host}:{own.getsockname()[1]}"
        vitals.look = partial(_look, server, reminder(folder, office, say))
        say(f"Listening on {at}.", "listening", address=at)
        yield guests, Networked(grid, {}, Embedded(here), deadline, listen.bell, listen.traffic)


def _farewell(folder: Path, config: Federation, net: Networked, times: Times, say: Tell) -> Farewell:
    return Farewell(folder, net, lambda: connected(folder, config, net), times.grace, say)


def _look(server: Server, remind: Callable[[], None]) -> Present | None:
    bound_log(server)
    remind()
    return present(server)


def _ended(run: Path) -> Outcome | None:
    """The outcome, where the run has come to its end."""
    if not (run / "ledger.sqlite").exists():
        return None
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        end = ledger.last("end")
    return None if end is None else Outcome(run, end.body)


def _remembering(centre: Centre, run: Path) -> Centre:
    """The centre with its error-feedback memory in the run's folder."""
    if centre.node is None:
        return centre
    memory = Memory(RunFolder(run), f"participants/{CENTRE}")
    return replace(centre, node=replace(centre.node, memory=memory))


def _check(config: Federation) -> None:
    """What a network cannot do yet, with the way out."""
    refused = {
        "[[bases]]": bool(config.bases),
        "[distil]": config.distil is not None,
        "[topology]": config.topology.kind != "star",
    }
    for key, asked in refused.items():
        if asked:
            fix = "Leave it out, or run on one machine: tequio run"
            raise ConfigError(
                f"{key} cannot be used across a network yet.", "Participants would not be asked for it.", fix
            )
    if config.train.pace == "buffered":
        pieces = pieces_of(config.algorithm, config.adapter.kind == "full")
        check_buffered(pieces.reduce, pieces.start, config.screen.cosine, pieces.feedback)


def _run(path: Path, house: House, centre: Centre, public: PublicData, farewell: Farewell, watch: Watch) -> Outcome:
    config, ground, net = house.config, house.ground, house.net
    with _ledger(path, house, centre, public) as (folder, ledger):
        house.ledger, header = ledger, recorded_header(ledger, folder)
        members = {**{i: house.members[i] for i in sorted(house.members)}, **_centre_member(header)}
        began = [row["rank"] for row in (*header["participants"], header["centre"]) if row is not None]
        pieces = pieces_of(config.algorithm, config.adapter.kind == "full")
        plan = plan_of(config, pieces, members, ground.bench, max(began))
        nodes = {} if centre.node is None else {0: centre.node}
        wired = Wired(config, ground.bench, ground.task, plan, nodes, centre.held_out, {}, header, {}, ground.meter)
        state: State | None = None
        advance = Windows(net) if config.train.pace == "buffered" else None
        for state, body in federate(plan, net, ledger, ground.meter, house, advance):
            watch("rounds", f"round {state.round} of {plan.rounds}", state.round, plan.rounds)
            _say_round(state.round, plan.rounds, body, house.say)
        if state is None:
            raise RunError("No round was made.")
        house.say("The rounds are over.", "rounds-over", stage="personal models")
        wired = replace(wired, plan=house.whole(plan))

        def personal(ledger: Ledger, wired: Wired, shared: Update, round_: int) -> None:
            farewell.ask(ledger, wired.plan.members, shared, round_)

        return finish(folder, ledger, {MAIN: state}, wired, net, personal, watch)


def _centre_member(header: Mapping[str, Any]) -> dict[int, Member]:
    row = header["centre"]
    return {} if row is None else {0: Member(CENTRE, 0, int(row["rank"]), int(row["steps"]))}


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
def _ledger(path: Path, house: House, centre: Centre, public: PublicData) -> Iterator[tuple[RunFolder, Ledger]]:
    """The run's folder and ledger, new or gone on with. Raises RunError if what it began with has changed."""
    if (path / "ledger.sqlite").exists():
        folder = RunFolder.open(path)
        with folder.lock(), unbroken(folder) as ledger:
            recorded = recorded_header(ledger, folder)
            now = header_of(house.config, house.ground.bench, [])
            changed = [key for key in ("config_digest", "spec") if now[key] != recorded[key]]
            if changed:
                why = f"Changed since it began: {', '.join(changed)}."
                raise RunError(f"{path} cannot go on.", why, "Put it back as it was, or begin in a new folder.")
            house.recall(recorded, ledger)
            yield folder, ledger
        return
    header = _begin(house, centre, public)
    folder = RunFolder.create(path)
    save(folder, HEAD_FILE, house.ground.bench.head_update())
    header["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    with folder.lock(), Ledger.create(folder.ledger_path, header) as ledger:
        yield folder, ledger


def _begin(house: House, centre: Centre, public: PublicData) -> dict[str, Any]:
    """Wait for a quorum, and allot everybody's part: the header of the record."""
    config, ground = house.config, house.ground
    told = house.begin()
    if centre.node is not None and public.splits is not None:
        told[0] = told_of_centre(config, centre.node, public.splits)
    given, full = allotments(config, told, ground.bench), config.adapter.kind == "full"
    rows = {i: row_of(told[i], given[told[i].name], full) for i in sorted(told)}
    for i, row in rows.items():
        if i > 0:
            house.keep(i, row, house.commitments[i])
    header = header_of(config, ground.bench, [row for i, row in rows.items() if i > 0])
    header |= centre_header(list(rows.values()), centre, public)
    header |= {"simulation": False, "provenance": [], "counterfactuals": False}
    header |= {"commitment": {house.names[i]: said for i, said in house.commitments.items()}}
    return header | {"invitations": {house.names[i]: house.invited.get(i, 0) for i in house.commitments}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
