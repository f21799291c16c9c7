"""A federation across a network, the coordinator's side: who is invited joins, says what it has, trains; the record is that of any run.

The coordinator holds the base, the public data and the shared model. It never sees data or personal models: a participant makes its own
from the shared one, and tells means.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.coordinator.federate import federate
from tequio.core.errors import ConfigError, NetworkError, RunError
from tequio.core.types import DescribeTask, Failure, PersonaliseTask, Reply, State
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.memory import Memory
from tequio.recipes.config import MAIN, Federation, load_federation
from tequio.recipes.ground import Ground, ground_of
from tequio.recipes.membership import Membership
from tequio.recipes.office import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    Office,
    numbers_of,
    open_office,
)
from tequio.recipes.pieces import pieces_of
from tequio.recipes.public import CENTRE, Centre, PublicData, centre_header, centre_of, read_public
from tequio.recipes.run import HEAD_FILE, Outcome, Watch, finish, recorded_header, save, unbroken
from tequio.recipes.told import Told, allotments, row_of, told_of_centre
from tequio.recipes.wire import Wired, header_of, plan_of
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.door import Door, claimed, open_door
from tequio.runtimes.flower.exchange import Networked
from tequio.runtimes.flower.superlink import Server, place, running

Say = Callable[[str], None]


@dataclass(frozen=True)
class Times:
    """Seconds: to wait for everybody to be there, and for one exchange of a round."""

    wait: float
    deadline: float


def coordinate(folder: Path, host: str, port: int | None, times: Times, say: Say, watch: Watch) -> Outcome:
    """Start the federation of this folder, or go on with it, to its end.

    Raises NetworkError if not all are there in time, ConfigError for what cannot run over a network yet.
    """
    office = open_office(folder)
    config = load_federation(Path(office.federation))
    _check(config)
    if (ended := _ended(folder / "run")) is not None:
        return ended
    with claimed(host, port or int(office.address.rpartition(":")[2])) as own:
        return _coordinate(folder, office, config, host, own, times, say, watch)


def _coordinate(
    folder: Path,
    office: Office,
    config: Federation,
    host: str,
    own: socket.socket,
    times: Times,
    say: Say,
    watch: Watch,
) -> Outcome:
    watch("prepare", "base model and public data", 0, 1)
    public, ground = read_public(config), ground_of(config, {})
    centre = _remembering(centre_of(ground, public), folder / "run")
    (folder / "superlink").mkdir(exist_ok=True)
    paths = [folder / name for name in (CERTIFICATE, KEY, AUTHORITY, "secret")]
    server = Server(_free_port(), (folder / "superlink").resolve(), *(path.resolve() for path in paths))
    members = Membership(folder, server, say)
    listen = Door(folder / office.certificate, folder / office.key, server)
    here: dict[int, Any] = {} if centre.node is None else {0: centre.node}
    with (
        RunFolder(folder).lock(),
        running(server),
        members.watched(),
        open_door(listen, own, members.enrol, members.leave, say) as guests,
        place(server) as grid,
    ):
        say(f"Listening on {host}:{own.getsockname()[1]}.")
        nodes = _all_there(folder, config, grid.get_node_ids, times.wait, say)
        net = Networked(grid, nodes, Embedded(here), times.deadline)
        outcome = _run(folder / "run", config, ground, centre, public, net, say, watch)
        guests.farewell()
        return outcome


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
        '[train] pace = "buffered"': config.train.pace == "buffered",
    }
    for key, present in refused.items():
        if present:
            fix = "Leave it out, or run on one machine: tequio run"
            raise ConfigError(
                f"{key} cannot be used across a network yet.", "Participants would not be asked for it.", fix
            )


def _all_there(folder: Path, config: Federation, online: Callable[[], Any], wait: float, say: Say) -> dict[int, int]:
    """Index -> number of every participant, once all are connected. Raises NetworkError naming those who are not."""
    end, told = time.monotonic() + wait, None
    while True:
        numbers = numbers_of(folder)
        connected = set(online())
        missing = [e.name for e in config.participants if numbers.get(e.name) not in connected]
        if not missing:
            return {i: numbers[e.name] for i, e in enumerate(config.participants, 1)}
        if missing != told:
            say(f"Waiting for {', '.join(missing)}.")
            told = missing
        if time.monotonic() > end:
            why = f"They were not connected within {wait / 60:g} minutes."
            raise NetworkError(
                f"Missing: {', '.join(missing)}.", why, "Start again when they are there; nothing is lost."
            )
        time.sleep(0.2)


def _run(
    path: Path,
    config: Federation,
    ground: Ground,
    centre: Centre,
    public: PublicData,
    net: Networked,
    say: Say,
    watch: Watch,
) -> Outcome:
    said = _describe(config, ground, net)
    told = {i: _told(e.name, said[e.name]) for i, e in enumerate(config.participants, 1)}
    if centre.node is not None and public.splits is not None:
        told[0] = told_of_centre(config, centre.node, public.splits)
    given = allotments(config, told, ground.bench)
    full = config.adapter.kind == "full"
    rows = [row_of(told[i], given[told[i].name], full) for i in sorted(told)]
    header = header_of(config, ground.bench, [row for row in rows if row["name"] != CENTRE])
    header |= centre_header(rows, centre, public) | {"simulation": False, "provenance": [], "counterfactuals": False}
    header["commitment"] = {name: facts["commitment"] for name, facts in said.items()}
    plan = plan_of(config, pieces_of(config.algorithm, full), told, given, ground.bench)
    nodes = {} if centre.node is None else {0: centre.node}
    wired = Wired(config, ground.bench, ground.task, plan, nodes, centre.held_out, {}, header, {}, ground.meter)
    with _ledger(path, wired) as (folder, ledger):
        state: State | None = None
        for state, body in federate(plan, net, ledger, ground.meter):
            watch("rounds", f"round {state.round} of {plan.rounds}", state.round, plan.rounds)
            for row in (body or {}).get("admissions", []):
                if row["status"] != "admitted":
                    say(f"Round {state.round}: {row['name']} {row['status']}: {row['reason']}")
        if state is None:
            raise RunError("No round was made.")
        return finish(folder, ledger, {MAIN: state}, wired, net, _personal(net, say), watch)


def _describe(config: Federation, ground: Ground, net: Networked) -> dict[str, dict[str, Any]]:
    """What each says of itself. Raises NetworkError naming who has another base or layout, or does not answer."""
    tasks = [DescribeTask(0, i, entry.name) for i, entry in enumerate(config.participants, 1)]
    said: dict[str, dict[str, Any]] = {}
    for reply in net.exchange(tasks):
        if isinstance(reply, Failure):
            raise NetworkError(
                f"{reply.name} did not say what it has: {reply.message}.", "", "Mend that and start again."
            )
        facts = json.loads(reply.body)
        if facts.get("spec") != ground.bench.spec:
            why = "Its base model, its adapter layout or its version differ from the coordinator's."
            raise NetworkError(f"{reply.name} cannot take part.", why, "All need the same base, by its digest.")
        said[reply.name] = facts
    return said


def _told(name: str, facts: Mapping[str, Any]) -> Told:
    try:
        return Told.of(name, facts["told"])
    except (KeyError, TypeError, ValueError):
        raise NetworkError(
            f"What {name} says of itself cannot be read.", "", "Both sides need the same version."
        ) from None


@contextmanager
def _ledger(path: Path, wired: Wired) -> Iterator[tuple[RunFolder, Ledger]]:
    """The run's folder and ledger, new or gone on with. Raises RunError if what it began with has changed."""
    if (path / "ledger.sqlite").exists():
        folder = RunFolder.open(path)
        with folder.lock(), unbroken(folder) as ledger:
            recorded = recorded_header(ledger, folder)
            changed = [
                k for k in ("config_digest", "spec", "participants", "commitment") if wired.header[k] != recorded[k]
            ]
            if changed:
                why = f"Changed since it began: {', '.join(changed)}."
                raise RunError(f"{path} cannot go on.", why, "Put it back as it was, or begin in a new folder.")
            yield folder, ledger
        return
    folder = RunFolder.create(path)
    save(folder, HEAD_FILE, wired.bench.head_update())
    header = {**wired.header, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    with folder.lock(), Ledger.create(folder.ledger_path, header) as ledger:
        yield folder, ledger


def _personal(net: Networked, say: Say) -> Callable[[Ledger, Wired, Update, int], None]:
    """Everybody makes its personal model at home; who cannot be reached is told, and has no row."""

    def ask(ledger: Ledger, wired: Wired, shared: Update, round_: int) -> None:
        done = {entry.body["name"] for entry in ledger.entries("personal")}
        members = [m for m in wired.plan.members if m.name not in done]
        tasks = [PersonaliseTask(round_, m.index, m.name, shared, m.rank, m.steps) for m in members]
        for reply in net.exchange(tasks):
            if isinstance(reply, Reply):
                ledger.append("personal", {**json.loads(reply.body), "kept": "participant"})
            else:
                say(f"{reply.name} made no personal model: {reply.message}")

    return ask


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
