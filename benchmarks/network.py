"""What does the network cost a round?

Seconds a round with three resident participants over TLS on loopback, less those of one process.

The same federation twice: embedded, one thread, participants one after another; and a coordinator
with three participants as processes of their own, one thread each. On few cores the work itself
takes as long in both; what is more is messages, polling and waiting. Target: at most 1 second a
round beyond the embedded one. MiniLM, two steps a round, so that the work is small; the first
round, in which connections are made, is left out.

And what of it is due to the way in which requests reach a participant? Seconds of a round of two
exchanges, in which nobody works:

- resident: Tequio's own node, a process that stays (`runtimes/flower/client.py`), behind the
  gateway.
- shim: Flower's own SuperNode with a client app that only returns its message: the least that a
  bridge to a resident process would cost.
- stock: the same with a client app that does what a plain one does, importing torch and
  transformers and loading the model (MiniLM).

Three participants each, TLS and node authentication, one SuperLink each on loopback; messages of
some MB down, small ones up. Flower's SuperNode starts a process for every message.

Run: python -m benchmarks.network [--rounds 8] [--megabytes 2.4] [--part rounds|transports]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

from tequio.cli.environment import prepare_process

prepare_process()

import numpy as np
import torch
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common import Array
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.common.command import TEQUIO
from benchmarks.common.hub import free_port, no_word, nobody, server_in
from benchmarks.overhead import federation
from tequio.app.demos.fetch import minilm
from tequio.config.cache import cache_folder
from tequio.core.messages import pack_message, unpack_message
from tequio.core.types import EvaluateRequest, Reply
from tequio.core.update import Dense, Update
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.grid import APP, NOTHING, open_grid
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.superlink import Server, register
from tequio.trust.keys import PrivateKey, new_key, public_bytes, write_secret

PARTICIPANTS, ROWS = 3, 40
EXCHANGES = 2
OPENSSH = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())  # what flower-supernode reads
ECHO = b"""\
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
"""
LIGHT = b"""
@app.train()
def train(message, context):
    return Message(RecordDict({}), reply_to=message)
"""
HEAVY = b"""
@app.train()
def train(message, context):
    import torch
    from transformers import AutoModel
    AutoModel.from_pretrained(MODEL)
    return Message(RecordDict({}), reply_to=message)
"""


def seconds(ledger: Path) -> list[float]:
    """Of each round but the first."""
    with Ledger.open(ledger, read_only=True) as opened:
        return [float(entry.body["seconds"]) for entry in opened.entries("round")][1:]


def embedded(toml: Path, out: Path) -> list[float]:
    """One process."""
    subprocess.run(
        [*TEQUIO, "run", toml, "--out", out, "--threads", "1", "--json"],
        check=True,
        capture_output=True,
    )
    return seconds(out / "ledger.sqlite")


def networked(toml: Path, folder: Path) -> list[float]:
    """A coordinator and resident participants, each a process."""
    address = f"127.0.0.1:{free_port()}"
    hub, log = folder / "hub", folder / "coordinator.log"
    subprocess.run(
        [*TEQUIO, "coordinator", "init", hub, toml, "--address", address],
        check=True,
        capture_output=True,
    )
    with ExitStack() as stack:
        stream = stack.enter_context(log.open("wb"))
        main = subprocess.Popen(
            [*TEQUIO, "coordinator", "start", hub, "--threads", "1"], stdout=stream, stderr=stream
        )
        stack.callback(main.terminate)
        while b"Listening" not in log.read_bytes():
            if main.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        for i in range(PARTICIPANTS):
            own, at = toml.parent / "participants" / f"p{i}.toml", folder / f"p{i}"
            invitation = hub / "invitations" / f"p{i}.json"
            subprocess.run(
                [*TEQUIO, "join", invitation, own, "--yes", "--out", at],
                check=True,
                capture_output=True,
            )
            one = subprocess.Popen(
                [*TEQUIO, "participate", at, "--threads", "1"], stdout=stream, stderr=stream
            )
            stack.callback(one.wait)
            stack.callback(one.terminate)
        if main.wait():
            raise SystemExit(log.read_text())
    return seconds(hub / "run" / "ledger.sqlite")


def enrolled(server: Server) -> dict[int, PrivateKey]:
    """Registered keys, by node number."""
    keys = [new_key() for _ in range(PARTICIPANTS)]
    return {register(server, public_bytes(key)): key for key in keys}


def resident_rounds(folder: Path, megabytes: float, rounds: int) -> list[float]:
    """Seconds a round with Tequio's own nodes, in threads of this process (they do nothing but
    answer).
    """
    held = Update({"w": Dense(torch.rand(int(megabytes * 250_000)))}, "s" * 64)

    def answer(data: bytes) -> bytes:
        task = unpack_message(data, "a task", ["evaluate"])
        assert isinstance(task, EvaluateRequest)
        return pack_message(Reply(task.round, task.index, task.name, examples=1))

    with server_in(folder) as server, claimed("127.0.0.1", 0) as own:
        gateway = Gateway(server.certificate, server.key, server)
        with (
            open_gateway(gateway, own, nobody, no_word, lambda *_, **__: None) as sessions,
            open_grid(server, print) as own_place,
        ):
            nodes = enrolled(server)
            address = f"127.0.0.1:{own.getsockname()[1]}"
            for node, key in nodes.items():
                who = Identity(address, server.authority.read_bytes(), key, node)
                Thread(
                    target=serve, args=(who, answer, Event(), lambda *_, **__: None), daemon=True
                ).start()
            net = FlowerRuntime(
                own_place,
                dict(enumerate(nodes, 1)),
                Embedded({}),
                120.0,
                gateway.long_poll,
                gateway.traffic,
            )
            while len(net.connections()) < PARTICIPANTS:
                time.sleep(0.2)
            found = []
            for round_ in range(rounds + 1):
                began = time.monotonic()
                for _ in range(EXCHANGES):
                    held = held.scaled(1.0001)  # other tensors each time: all of them travel
                    got = list(
                        net.exchange(EvaluateRequest(round_, i, f"p{i}", held) for i in net.nodes)
                    )
                    assert all(isinstance(reply, Reply) for reply in got)
                found.append(time.monotonic() - began)
            sessions.dismiss()
    return found[1:]


def supernodes(folder: Path, megabytes: float, rounds: int, code: bytes) -> list[float]:
    """Seconds a round with Flower's own, each a process that starts one for each message."""
    program = shutil.which("flower-supernode", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit('flower-supernode is not installed: pip install "tequio[flower]"')
    toml = APP.replace("none:app", "echo:app").encode()
    files = {**NOTHING, "pyproject.toml": toml, "echo.py": ECHO + code}
    record = ArrayRecord(
        {"w": Array(np.random.default_rng(0).random(int(megabytes * 250_000), dtype=np.float32))}
    )
    with server_in(folder) as server, ExitStack() as stack:
        log = stack.enter_context((folder / "supernodes.log").open("wb"))
        nodes = enrolled(server)
        for node, key in nodes.items():
            write_secret(path := folder / f"{node}.key", key.private_bytes(*OPENSSH))
            command = [
                program,
                "--superlink",
                server.address,
                "--root-certificates",
                server.authority,
            ]
            command += ["--auth-supernode-private-key", path, "--port", str(free_port())]
            quiet = {
                "FLWR_HOME": str(folder / f"home{node}"),
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}",
            }
            one = subprocess.Popen(
                [str(c) for c in command], stdout=log, stderr=log, env={**os.environ, **quiet}
            )
            stack.callback(one.wait)
            stack.callback(one.terminate)
        with open_grid(server, print, files) as own_place:
            grid = own_place.grid
            while len(list(grid.get_node_ids())) < PARTICIPANTS:
                time.sleep(0.2)
            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id, found = (
                grid.run.run_id,
                grid.node.node_id,
                1,
                [],
            )
            for round_ in range(rounds + 1):
                began = time.monotonic()
                for _ in range(EXCHANGES):
                    asked = [
                        Message(RecordDict({"m": record}), node, "train", group_id=str(round_))
                        for node in nodes
                    ]
                    got = list(grid.send_and_receive(asked, timeout=300.0))
                    if len(got) < PARTICIPANTS or any(reply.has_error() for reply in got):
                        why = [reply.error for reply in got if reply.has_error()]
                        raise SystemExit(
                            f"{len(got)} answers, {why}; "
                            f"{(folder / 'supernodes.log').read_text()[-2000:]}"
                        )
                found.append(time.monotonic() - began)
    return found[1:]


def over_embedded(rounds: int) -> None:
    """Print the median round of both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toml = federation(folder, PARTICIPANTS, ROWS, rounds, 2)
        one = statistics.median(embedded(toml, folder / "run"))
        many = statistics.median(networked(toml, folder))
        traffic = folder / "hub" / "run" / "ledger.sqlite"
        with Ledger.open(traffic, read_only=True) as opened:
            rows = opened.last("round")
        up = sum(row["bytes_up"] for row in (rows.body["train"] if rows else []))
    print(
        f"median round: embedded {one:.2f} s, network {many:.2f} s: {many - one:+.2f} s; "
        f"{up / 1e6:.1f} MB up a round"
    )


def by_transport(rounds: int, megabytes: float) -> None:
    """Print the seconds of a round in which nobody works, by how requests arrive."""
    heavy = HEAVY.replace(b"MODEL", repr(str(minilm(cache_folder()))).encode())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for how in ("resident", "shim", "stock"):
            (folder / how).mkdir()
        rows = {
            "resident": resident_rounds(folder / "resident", megabytes, rounds),
            "shim": supernodes(folder / "shim", megabytes, rounds, LIGHT),
            "stock": supernodes(folder / "stock", megabytes, rounds, heavy),
        }
    print(
        f"{PARTICIPANTS} participants, {EXCHANGES} exchanges a round, {megabytes:g} MB down in "
        f"each; median of {rounds}"
    )
    for how, seconds in rows.items():
        print(
            f"{how:<10}{statistics.median(seconds):>8.2f} s a round   (from {min(seconds):.2f} to "
            f"{max(seconds):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--megabytes", type=float, default=2.4)
    parser.add_argument(
        "--part", choices=("rounds", "transports"), help="one of the two questions alone"
    )
    chosen = parser.parse_args()
    if chosen.part != "transports":
        over_embedded(chosen.rounds)
    if chosen.part != "rounds":
        by_transport(min(chosen.rounds, 5), chosen.megabytes)


if __name__ == "__main__":
    main()
