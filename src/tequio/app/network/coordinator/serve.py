"""A federation across a network, on the coordinator's side; its record is that of any run.

Invited participants join, send their profiles and train. The coordinator holds the base, the public
data and the shared model. It never sees data or personal models: a participant makes its own from
the shared one, and reports means.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import Algorithm, resolve_algorithm
from tequio.app.assembly.masked import check_masked
from tequio.app.assembly.public_data import read_public
from tequio.app.network.chosen_files import check_unchanged
from tequio.app.network.coordinator.confirmations import unheard
from tequio.app.network.coordinator.personal_models import PersonalPhase, owed, reopen
from tequio.app.network.coordinator.roster import Roster, connected
from tequio.app.network.coordinator.rounds import build_seats, conduct
from tequio.app.network.hub.certificates import check_keys, check_lasting, reminder
from tequio.app.network.hub.enrolment import Membership
from tequio.app.network.hub.folder import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    SECRET,
    CoordinatorFolder,
    open_coordinator_folder,
)
from tequio.app.network.monitoring.health import Health, Present
from tequio.app.network.monitoring.metrics import coordinator_pages
from tequio.app.stages import Outcome, Watch
from tequio.config import Federation, load_federation
from tequio.core.addresses import split_address
from tequio.core.durations import duration
from tequio.core.errors import ConfigError
from tequio.core.events import EventHandler
from tequio.core.texts.words import refuse_first
from tequio.ledger.folder import LEDGER, RUN, RunFolder
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.descriptors import raise_descriptor_limit
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.grid import open_grid
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.sessions import Sessions
from tequio.runtimes.flower.superlink import Server, bound_log, present, running


@dataclass(frozen=True)
class Times:
    """Hold three waits in seconds.

    They are for a quorum, for one exchange of a round, and in the end for offline participants.
    """

    wait: float
    deadline: float
    grace: float = 0.0


def coordinate(
    folder: Path, host: str, port: int | None, times: Times, health: Health, watch: Watch
) -> Outcome:
    """Start the federation of this folder, or resume it, to its end. Events go to `health`.

    A finished one is opened again, for `times.grace`, where a participant has not made its personal
    model yet, or does not know that it was recorded. Raises NetworkError if no quorum connects in
    time, ConfigError for what cannot run over a network yet.
    """
    raise_descriptor_limit()
    hub_files = open_coordinator_folder(folder)
    config = load_federation(Path(hub_files.federation))
    algorithm = _check(config)
    check_unchanged(config, hub_files.files, (folder / RUN / LEDGER).exists())
    with (
        RunFolder(folder).lock(),
        health.answering(coordinator_pages(folder, health)),
        health.written_to(folder),
    ):
        ended = _ended(folder / "run")
        late = [] if ended is None else owed(folder, folder / "run")
        waiting = [] if ended is None else list(unheard(folder, folder / "run"))
        if ended is not None and not ((late or waiting) and times.grace > 0):
            return ended
        check_lasting(folder, hub_files)
        check_keys(folder, hub_files)
        with claimed(host, port or split_address(hub_files.address)[1]) as own:
            if ended is None:
                return _coordinate(
                    folder, hub_files, config, algorithm, host, own, times, health, watch
                )
            _say_reopened(late, waiting, times.grace, health)
            with _opened(folder, hub_files, host, own, health, times.deadline) as (sessions, net):
                personal_phase = _personal_phase(folder, config, net, times, health.tell)
                reopen(folder / "run", personal_phase)
                _dismiss(sessions, personal_phase, folder / "run", health)
            return ended


def _coordinate(
    folder: Path,
    hub_files: CoordinatorFolder,
    config: Federation,
    algorithm: Algorithm,
    host: str,
    own: socket.socket,
    times: Times,
    health: Health,
    watch: Watch,
) -> Outcome:
    watch("prepare", "base model and public data", 0, 1)
    public = read_public(config)
    seats = build_seats(config, algorithm, public, folder / "run")
    with _opened(folder, hub_files, host, own, health, times.deadline) as (sessions, net):
        roster = Roster(
            folder,
            config,
            {seat.name: seat.context for seat in seats},
            net,
            times.wait,
            health.tell,
        )
        personal_phase = _personal_phase(folder, config, net, times, health.tell)
        outcome = conduct(folder / "run", roster, seats, public, personal_phase, watch)
        _dismiss(sessions, personal_phase, folder / "run", health)
        return outcome


def _say_reopened(late: list[str], waiting: list[str], grace: float, health: Health) -> None:
    about = [f"{', '.join(late)} made no personal model yet"] if late else []
    about += (
        [f"{', '.join(waiting)} did not learn yet that the coordinator recorded the personal model"]
        if waiting
        else []
    )
    health.tell(
        f"All rounds are done; {'; '.join(about)}. The coordinator stays open for up to "
        f"{duration(grace)}.",
        "reopened",
        stage="personal models",
        missing=", ".join([*late, *waiting]),
    )


def _dismiss(sessions: Sessions, personal_phase: PersonalPhase, run: Path, health: Health) -> None:
    """Dismiss all participants, once they know that their personal models are recorded or time is
    up.
    """
    personal_phase.await_heard(run)
    sessions.dismiss()
    for name in personal_phase.note_heard(run):
        words = f"{name} does not know that its personal model is recorded, so it keeps retrying."
        fix = f"To confirm it, start again: tequio coordinator start {personal_phase.hub}"
        health.tell(f"{words} {fix}", "unconfirmed", "warning", participant=name)


@contextmanager
def _opened(
    folder: Path,
    hub_files: CoordinatorFolder,
    host: str,
    own: socket.socket,
    health: Health,
    deadline: float,
) -> Iterator[tuple[Sessions, FlowerRuntime]]:
    """Run the server and the gateway until the block ends."""
    paths = [folder / name for name in (CERTIFICATE, KEY, AUTHORITY, SECRET)]
    server = Server(
        _free_port(), (folder / "superlink").resolve(), *(path.resolve() for path in paths)
    )
    members, say = Membership(folder, server, health.tell), health.tell
    listen = Gateway(folder / hub_files.certificate, folder / hub_files.key, server)
    with (
        running(server, say),
        members.watched(),
        open_gateway(listen, own, members.enrol, members.leave, say) as sessions,
        open_grid(server, say) as own_place,
    ):
        at = f"{host}:{own.getsockname()[1]}"
        health.look = partial(_look, server, reminder(folder, hub_files, say))
        net = FlowerRuntime(
            own_place, {}, Embedded({}), deadline, listen.long_poll, listen.traffic, server.folder
        )
        health.waits = partial(_waits, net)
        say(f"Listening on {at}.", "listening", address=at)
        yield sessions, net


def _personal_phase(
    folder: Path, config: Federation, net: FlowerRuntime, times: Times, say: EventHandler
) -> PersonalPhase:
    return PersonalPhase(folder, net, lambda: connected(folder, config, net), times.grace, say)


def _look(server: Server, remind: Callable[[], None]) -> Present | None:
    bound_log(server)
    remind()
    return present(server)


def _waits(net: FlowerRuntime) -> list[dict[str, Any]]:
    """Return whom a round waits for, as the health file has it."""
    now = datetime.now(UTC)
    return [
        {
            "name": one.name,
            "task": one.kind,
            "since": (now - timedelta(seconds=one.seconds)).isoformat(timespec="seconds"),
            "sent_again": one.again,
        }
        for one in net.awaited()
    ]


def _ended(run: Path) -> Outcome | None:
    """The outcome, where the run has come to its end."""
    if not (run / "ledger.sqlite").exists():
        return None
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        end = ledger.last("end")
    return None if end is None else Outcome(run, end.body)


def _check(config: Federation) -> Algorithm:
    """The pieces.

    Raises ConfigError for what a network cannot do yet, with the way out, and for pieces that do
    not go together.
    """
    algorithm = resolve_algorithm(config)
    check_masked(config, algorithm)
    refuse_first(
        ConfigError,
        {
            "network-topology": config.topology.kind != "star",
            "network-shift": config.shift is not None,
            "network-windows": config.train.pace == "buffered"
            and (bool(config.bases) or config.distil is not None),
        },
    )
    return algorithm


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
