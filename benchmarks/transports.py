"""What does a round cost by the way that tasks reach a participant? Seconds a round of two exchanges, in which nobody does any work.

- resident: Tequio's own node, a process that stays (`runtimes/flower/client.py`), behind the door.
- shim: Flower's own SuperNode with a client app that only returns its message: the least that a bridge to a resident process would cost.
- stock: the same with a client app that does what a plain one does, importing torch and transformers and loading the model (MiniLM).

Three participants each, TLS and node authentication, one SuperLink each on loopback; messages of some MB down, small ones up.
Flower's SuperNode starts a process for every message. Target of issue and design: resident ≤ 1 s over embedded.

Run: python -m benchmarks.transports [--rounds 5] [--megabytes 2.4]
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

from benchmarks.hub import free_port, no_word, nobody, server_in
from tequio.app.demos.fetch import minilm
from tequio.config.cache import cache_folder
from tequio.core.messages import pack_message, unpack_message
from tequio.core.types import EvaluateRequest, Reply
from tequio.core.update import Dense, Update
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.grid import APP, NOTHING, open_grid
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.superlink import Server, register
from tequio.trust.keys import PrivateKey, new_key, public_bytes, write_secret

PEOPLE, EXCHANGES = 3, 2
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


def enrolled(server: Server) -> dict[int, PrivateKey]:
    """Registered keys, by node number."""
    keys = [new_key() for _ in range(PEOPLE)]
    return {register(server, public_bytes(key)): key for key in keys}


def resident(folder: Path, megabytes: float, rounds: int) -> list[float]:
    """Seconds a round with Tequio's own nodes, in threads of this process (they do nothing but answer)."""
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
                Thread(target=serve, args=(who, answer, Event(), lambda *_, **__: None), daemon=True).start()
            net = FlowerRuntime(
                own_place, dict(enumerate(nodes, 1)), Embedded({}), 120.0, gateway.long_poll, gateway.traffic
            )
            while len(net.connections()) < PEOPLE:
                time.sleep(0.2)
            found = []
            for round_ in range(rounds + 1):
                began = time.monotonic()
                for _ in range(EXCHANGES):
                    held = held.scaled(1.0001)  # other tensors each time: all of them travel
                    got = list(net.exchange(EvaluateRequest(round_, i, f"p{i}", held) for i in net.nodes))
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
    record = ArrayRecord({"w": Array(np.random.default_rng(0).random(int(megabytes * 250_000), dtype=np.float32))})
    with server_in(folder) as server, ExitStack() as stack:
        log = stack.enter_context((folder / "supernodes.log").open("wb"))
        nodes = enrolled(server)
        for node, key in nodes.items():
            write_secret(path := folder / f"{node}.key", key.private_bytes(*OPENSSH))
            command = [program, "--superlink", server.address, "--root-certificates", server.authority]
            command += ["--auth-supernode-private-key", path, "--port", str(free_port())]
            quiet = {
                "FLWR_HOME": str(folder / f"home{node}"),
                "FLWR_TELEMETRY_ENABLED": "0",
                "FLWR_DISABLE_UPDATE_CHECK": "1",
                "PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}",
            }
            one = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, env={**os.environ, **quiet})
            stack.callback(one.wait)
            stack.callback(one.terminate)
        with open_grid(server, print, files) as own_place:
            grid = own_place.grid
            while len(list(grid.get_node_ids())) < PEOPLE:
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
                    asked = [Message(RecordDict({"m": record}), node, "train", group_id=str(round_)) for node in nodes]
                    got = list(grid.send_and_receive(asked, timeout=300.0))
                    if len(got) < PEOPLE or any(reply.has_error() for reply in got):
                        why = [reply.error for reply in got if reply.has_error()]
                        raise SystemExit(
                            f"{len(got)} answers, {why}; {(folder / 'supernodes.log').read_text()[-2000:]}"
                        )
                found.append(time.monotonic() - began)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=2.4)
    chosen = parser.parse_args()
    heavy = HEAVY.replace(b"MODEL", repr(str(minilm(cache_folder()))).encode())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for how in ("resident", "shim", "stock"):
            (folder / how).mkdir()
        rows = {
            "resident": resident(folder / "resident", chosen.megabytes, chosen.rounds),
            "shim": supernodes(folder / "shim", chosen.megabytes, chosen.rounds, LIGHT),
            "stock": supernodes(folder / "stock", chosen.megabytes, chosen.rounds, heavy),
        }
    print(
        f"{PEOPLE} participants, {EXCHANGES} exchanges a round, {chosen.megabytes:g} MB down in each; median of {chosen.rounds}"
    )
    for how, seconds in rows.items():
        print(
            f"{how:<10}{statistics.median(seconds):>8.2f} s a round   (from {min(seconds):.2f} to {max(seconds):.2f})"
        )


if __name__ == "__main__":
    main()
