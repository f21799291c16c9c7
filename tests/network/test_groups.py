"""Several bases across a network, which teach each other: the tensors of one process, also where
the coordinator was killed between.
"""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from live_server import at_work, live, resident
from network_processes import ALONE, background, federation, kinds, ready, tequio, until
from safetensors.torch import load_file

from benchmarks.common.replies import personal_outcome
from builders import digests, free_port
from tequio.app.network.coordinator.personal_models import PersonalPhase, owed, reopen
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.monitoring.health import Health
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError
from tequio.core.events import ignore_events
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import PersonaliseRequest, Reply
from tequio.ledger.record import Ledger

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower builds its bundle with it
pytestmark = pytest.mark.filterwarnings(FLOWERS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_bases_give_the_tensors_of_one_process(make_two_bases: Any, tmp_path: Path) -> None:
    """Three participants, one over the smaller base; the coordinator is killed after a round and
    started again.
    """
    toml, hub = make_two_bases(participants=3, train={"rounds": 3}), tmp_path / "hub"
    one = start(load_federation(toml), tmp_path / "one", False).folder
    record, log = hub / "run" / "ledger.sqlite", tmp_path / "coordinator.log"
    with ExitStack() as staying:
        with federation(tmp_path, toml, f"127.0.0.1:{free_port()}", kill=True) as folders:
            people = [
                staying.enter_context(
                    background(tmp_path / f"{name}.log", "participate", folder, *ALONE)
                )
                for name, folder in folders.items()
            ]
            until(lambda: record.exists() and "round" in kinds(record))
        assert "end" not in kinds(record)
        log.write_text("")
        with background(log, "coordinator", "start", hub, *ALONE) as again:
            until(lambda: ready(tmp_path))
            assert again.wait(600) == 0, log.read_text()
        assert [person.wait(60) for person in people] == [0, 0, 0]
    assert digests(hub / "run") == digests(one)
    assert set(digests(one)) == {"site0", "site1", "site2", "shared", "shared-small"}
    for run in (hub / "run", *(folder / "run" for folder in folders.values())):
        assert json.loads(tequio("verify", run, "--json"))["ok"]
    with Ledger.open(record, read_only=True) as ledger:
        header = ledger.last("run")
        rounds = [entry.body for entry in ledger.entries("round")]
    assert header is not None
    assert [(row["name"], row["base"]) for row in header.body["participants"]] == [
        ("site0", "main"),
        ("site1", "small"),
        ("site2", "main"),
    ]
    assert all(set(body["distil"]["groups"]) == {"main", "small"} for body in rounds)
    assert all(set(body["wire"]) == {"site0", "site1", "site2"} for body in rounds)
    rows = json.loads(
        tequio("export", folders["site1"] / "run", "--out", tmp_path / "out", "--json")
    )["exported"]
    assert {row["name"] for row in rows} == {"site1", "shared"}
    for row in rows:
        tensors = load_file(Path(row["adapter"]) / "adapter_model.safetensors")
        assert {t.shape[1] for name, t in tensors.items() if "lora_A" in name} == {
            16
        }  # over the small base
    answer = json.loads(
        tequio("predict", folders["site1"] / "run", "site1", "the nurse was kind", "--json")
    )
    assert answer["predictions"][0]["label"] in ("good", "bad")


def test_opened_again_each_is_sent_the_model_of_its_own_base(
    make_two_bases: Any, tmp_path: Path
) -> None:
    """A run as it stands when nobody has made a personal model, and real nodes that say what they
    were sent.
    """
    one = start(
        load_federation(make_two_bases(participants=2, train={"rounds": 1})),
        tmp_path / "one",
        False,
    ).folder
    run, heard = tmp_path / "run", dict[str, str]()
    shutil.copytree(one, run)
    (run / "ledger.sqlite").unlink()
    with Ledger.open(one / "ledger.sqlite", read_only=True) as ledger:
        header, shared = ledger.last("run"), ledger.last("shared")
    assert header is not None
    assert shared is not None
    with Ledger.create(run / "ledger.sqlite", dict(header.body)) as ledger:
        ledger.append("shared", dict(shared.body))

    def made(data: bytes) -> bytes:
        task = unpack_message(data, "a task", REQUESTS)
        assert isinstance(task, PersonaliseRequest)
        heard[task.name] = digest_update(task.held)
        body = json.dumps(personal_outcome(task.name, 2, 2))
        return pack_message(Reply(task.round, task.index, task.name, body=body))

    assert owed(tmp_path, run) == ["site0", "site1"]
    with live(tmp_path / "hub") as hub:
        nodes = [hub.enrol(), hub.enrol()]
        net = hub.net(*nodes)
        with at_work(*(resident(hub, node, made) for node in nodes)):
            reopen(run, PersonalPhase(tmp_path, net, net.connections, 60.0, ignore_events))
    assert heard == {
        "site0": shared.body["digest"],
        "site1": shared.body["bases"]["small"]["digest"],
    }
    assert owed(tmp_path, run) == []


def test_windows_of_real_time_are_of_one_base(make_two_bases: Any, tmp_path: Path) -> None:
    toml = make_two_bases(train={"pace": "buffered", "round_seconds": 5.0})
    init_coordinator_folder(tmp_path / "hub", toml, f"127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match=r"buffered.*\[\[bases\]\].*tequio run"):
        coordinate(
            tmp_path / "hub",
            "127.0.0.1",
            None,
            Times(1.0, 1.0),
            Health("coordinator", ignore_events),
            lambda *_: None,
        )
