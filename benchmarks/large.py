"""How much memory does a coordinator need for very large updates that come over the network?

Peak over its start ÷ one update.

A SuperLink, a door and the exchange, as `tequio coordinator start` has them, and as many resident
nodes, in threads of one other process, which answer with made-up full-weight updates. Two figures:
memory that cannot be given back (anonymous), and all that is resident, where mapped files count as
long as nobody else needs the room. Target: under 3 updates with 50 participants; and 1 GB passes.

Run: python -m benchmarks.large [--megabytes 64] [--participants 50]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from tequio.cli.environment import prepare_process

prepare_process()

from benchmarks.common.hub import no_word, nobody, server_in
from benchmarks.common.memory import Watch
from benchmarks.scale import ENTRY, SPEC, made_up, weights_spec
from tequio.coordinator.aggregation import aggregate
from tequio.coordinator.round import in_order, training_tasks
from tequio.coordinator.run_spec import Coding
from tequio.core.errors import TequioError
from tequio.core.messages import pack_message, unpack_message
from tequio.core.types import Reply, State, TrainRequest
from tequio.core.update import Update, zero
from tequio.participant.spool import Spool
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.grid import open_grid
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.superlink import register
from tequio.trust.keys import key_bytes, load_key, new_key, public_bytes, write_secret


def participants(folder: Path, address: str, megabytes: int) -> None:
    """All of them, until they are told that it is over; one at a time makes its update."""
    names, authority = sorted(weights_spec(megabytes, 1).shapes), (folder / "ca.pem").read_bytes()

    def answer(data: bytes) -> bytes:
        task = unpack_message(data, "a task", ["train"])
        assert isinstance(task, TrainRequest)
        spool = Spool()
        for name in names:
            spool.append(Coding().codec.encode(Update({name: made_up(name, task.index)}, SPEC), 0))
        return pack_message(
            Reply(task.round, task.index, task.name, parts=spool, examples=1, steps=1)
        )

    def work(path: Path) -> None:
        with suppress(TequioError):
            who = Identity(address, authority, load_key(path), int(path.stem), folder)
            serve(who, answer, Event(), lambda *_, **__: None)

    threads = [Thread(target=work, args=(path,)) for path in sorted(folder.glob("*.key"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(folder: Path, megabytes: int, people: int) -> None:
    """One round's exchange and fold, in this process."""
    run_spec = weights_spec(megabytes, people)
    state = State(0, zero(SPEC), zero(SPEC), zero(SPEC), zero(SPEC), 1.0, 0)
    with (
        server_in(folder) as server,
        claimed("127.0.0.1", 0) as own,
        open_gateway(
            gateway := Gateway(server.certificate, server.key, server),
            own,
            nobody,
            no_word,
            lambda *_, **__: None,
        ) as sessions,
        open_grid(server, print) as own_place,
    ):
        nodes = {}
        for member in run_spec.members:
            pair = new_key()
            nodes[member.index] = register(server, public_bytes(pair))
            write_secret(folder / f"{nodes[member.index]}.key", key_bytes(pair))
        address = f"127.0.0.1:{own.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "benchmarks.large",
            "--megabytes",
            str(megabytes),
            "--at",
            address,
        ]
        others = subprocess.Popen([*command, "--folder", folder])
        net = FlowerRuntime(
            own_place, nodes, Embedded({}), 3600.0, gateway.long_poll, gateway.traffic, folder
        )
        while len(net.connections()) < people:
            time.sleep(0.5)
        watch, began = Watch(), time.monotonic()
        arrivals = in_order(
            net.exchange(training_tasks(state, run_spec, run_spec.members)),
            state,
            run_spec,
            run_spec.members,
        )
        fold = aggregate(arrivals, run_spec)
        seconds, (anonymous, resident) = time.monotonic() - began, watch.end()
        sessions.dismiss()
        others.terminate()
        others.wait()
    if fold.count < people:
        raise SystemExit(f"only {fold.count} of {people} counted: {fold.refused[:1]}")
    size = megabytes * ENTRY
    row = {"anonymous": anonymous / size, "resident": resident / size, "seconds": seconds}
    print(
        json.dumps(
            {
                "megabytes": megabytes,
                "participants": people,
                **{k: round(v, 2) for k, v in row.items()},
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--participants", type=int, default=50)
    parser.add_argument("--at", help="(own use) the coordinator's address")
    parser.add_argument(
        "--folder", type=Path, help="(own use) where keys are; or, where files may be large"
    )
    chosen = parser.parse_args()
    if chosen.at:
        participants(chosen.folder, chosen.at, chosen.megabytes)
        return
    if (
        os.environ.get("MALLOC_MMAP_THRESHOLD_") is None
    ):  # freed memory goes back to the system at once
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.large", *sys.argv[1:]],
            {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        )
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        measure(Path(name), chosen.megabytes, chosen.participants)


if __name__ == "__main__":
    main()
