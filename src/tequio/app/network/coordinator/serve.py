"""A federation across a network, the coordinator's side: who is invited joins, says what it has, trains; the record is that of any run.

The coordinator holds the base, the public data and the shared model. It never sees data or personal models: a participant makes its own
from the shared one, and tells means.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tequio.algorithms.compatibility import check_buffered
from tequio.app.assembly.algorithm import distillation_of, pieces_of
from tequio.app.assembly.public_data import read_public
from tequio.app.network.coordinator.personal_models import Farewell, owed, reopen
from tequio.app.network.coordinator.roster import House, connected
from tequio.app.network.coordinator.rounds import conduct, seats_of
from tequio.app.network.hub.certificates import check_keys, check_lasting, reminder
from tequio.app.network.hub.enrolment import Membership
from tequio.app.network.hub.folder import AUTHORITY, CERTIFICATE, KEY, SECRET, Office, open_office
from tequio.app.network.monitoring.health import Present, Vitals
from tequio.app.network.monitoring.metrics import coordinator_pages
from tequio.app.stages import Outcome, Watch
from tequio.config import Federation, load_federation
from tequio.core.errors import ConfigError
from tequio.core.events import Tell
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.gateway import Door, claimed, open_door
from tequio.runtimes.flower.grid import place
from tequio.runtimes.flower.runtime import Networked
from tequio.runtimes.flower.sessions import Guests
from tequio.runtimes.flower.superlink import Server, bound_log, present, running


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
        check_keys(folder, office)
        with claimed(host, port or int(office.address.rpartition(":")[2])) as own:
            if ended is None:
                return _coordinate(folder, office, config, host, own, times, vitals, watch)
            names = ", ".join(late)
            words = f"The rounds are over; {names} made no personal model yet. Open at most {times.grace / 60:g} minutes for that."
            vitals.tell(words, "reopened", stage="personal models", missing=names)
            with _opened(folder, office, host, own, vitals, times.deadline) as (guests, net):
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
    public = read_public(config)
    seats = seats_of(config, public, folder / "run")
    with _opened(folder, office, host, own, vitals, times.deadline) as (guests, net):
        grounds = {seat.name: seat.ground for seat in seats}
        house = House(folder, config, grounds, net, times.wait, vitals.tell)
        outcome = conduct(
            folder / "run", house, seats, public, _farewell(folder, config, net, times, vitals.tell), watch
        )
        guests.farewell()
        return outcome


@contextmanager
def _opened(
    folder: Path,
    office: Office,
    host: str,
    own: socket.socket,
    vitals: Vitals,
    deadline: float,
) -> Iterator[tuple[Guests, Networked]]:
    """Server and door, until the block ends."""
    paths = [folder / name for name in (CERTIFICATE, KEY, AUTHORITY, SECRET)]
    server = Server(_free_port(), (folder / "superlink").resolve(), *(path.resolve() for path in paths))
    members, say = Membership(folder, server, vitals.tell), vitals.tell
    listen = Door(folder / office.certificate, folder / office.key, server)
    with (
        running(server, say),
        members.watched(),
        open_door(listen, own, members.enrol, members.leave, say) as guests,
        place(server, say) as own_place,
    ):
        at = f"{host}:{own.getsockname()[1]}"
        vitals.look = partial(_look, server, reminder(folder, office, say))
        say(f"Listening on {at}.", "listening", address=at)
        yield guests, Networked(own_place, {}, Embedded({}), deadline, listen.bell, listen.traffic, server.folder)


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


def _check(config: Federation) -> None:
    """What a network cannot do yet, with the way out, and pieces that do not go together."""
    fix = "Leave it out, or run on one machine: tequio run"
    pieces = pieces_of(config.algorithm, config.adapter.kind == "full")
    if config.topology.kind != "star":
        why = "Participants reach the coordinator alone."
        raise ConfigError("[topology] cannot be used across a network yet.", why, fix)
    if config.shift is not None:
        why = "Its time is simulated. Here each participant keeps its own hours: [schedule] greenest_hours in participant.toml."
        raise ConfigError("[shift] cannot be used across a network.", why, fix)
    if config.distil is not None:
        distillation_of(config.distil, pieces.reduce, 1, config.seed)
    if config.train.pace == "buffered":
        if config.bases or config.distil is not None:
            what = '[train] pace = "buffered" cannot be used with [[bases]] or [distil] across a network yet.'
            raise ConfigError(what, "Windows of real time are those of one base.", fix)
        check_buffered(pieces.reduce, pieces.start, config.screen.cosine, pieces.feedback)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
