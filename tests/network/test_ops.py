"""Operating a federation across a network: what `status`, the metrics page and the log say of real
processes, and what they must not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, TEQUIO, background, kinds, tequio, until
from prometheus_client.parser import text_string_to_metric_families

from builders import free_port
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.monitoring.health import FILE, Health, read_health
from tequio.app.network.monitoring.metrics import known, metric, participant_pages
from tequio.app.network.monitoring.rate_limit import BURST, Throttle
from tequio.app.network.monitoring.status import coordinator_status, read_status
from tequio.app.network.monitoring.totals import RunTotals
from tequio.cli.log import event_handler, parse_address
from tequio.core.errors import ConfigError, NetworkError, ResourceError, RunError
from tequio.core.events import Level, Value
from tequio.core.texts.words import ENGLISH
from tequio.ledger.record import Ledger
from tequio.runtimes.http_pages import served


def silent(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
    """Nobody listens."""


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def numbers(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """(name of the sample, its labels' values) -> its number, as Prometheus itself reads the
    page.
    """
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {(s.name, tuple(s.labels.values())): s.value for s in samples}


def test_labels_with_any_text_are_read_back_and_missing_numbers_left_out() -> None:
    odd = 'a "quoted" \\ name\nof two lines'
    rows: list[Any] = [
        ({"participant": odd}, 3),
        ({"participant": "x"}, None),
        ({"participant": "y"}, float("inf")),
    ]
    text = metric("tequio_test_total", "counter", "Help.", rows)
    assert numbers(text) == {("tequio_test_total", (odd,)): 3.0}


def test_an_error_that_a_participant_invents_makes_no_new_label() -> None:
    assert [known(kind) for kind in ("NetworkError", "", "InventedError")] == [
        "NetworkError",
        "",
        "other",
    ]


def test_health_are_counted_retained_and_read_after_the_end(tmp_path: Path) -> None:
    health = Health("participant", silent, ("127.0.0.1", free := free_port()))
    with (
        suppress(RunError),
        health.answering(participant_pages(health)),
        health.written_to(tmp_path),
    ):
        health.tell("connected", "connected", address="hub")
        for round_ in (1, 2):
            health.tell("task", "task", kind="train", round=round_, stage="train")
            health.tell("sent", "sent", bytes_up=500)
        health.tell("lost", "disconnected", "warning")
        found = numbers(get(f"127.0.0.1:{free}", "/metrics")[1])
        assert found["tequio_tasks_total", ("train",)] == 2.0
        assert found["tequio_message_bytes_total", ("up",)] == 1000.0
        assert found["tequio_connected", ()] == 0.0
        assert found["tequio_connections_total", ()] == 1.0
        assert get(f"127.0.0.1:{free}", "/else")[0] == 404
        until(lambda: (tmp_path / FILE).exists(), 60)
        raise RunError("It ended.")
    written_to = read_health(tmp_path)
    assert written_to is not None
    assert (written_to["stage"], written_to["last_error"]["what"]) == ("failed", "It ended.")
    assert written_to["last_task"]["round"] == 2
    assert written_to["alive"], "this process itself"


def test_health_of_a_process_that_is_gone_are_not_alive(tmp_path: Path) -> None:
    assert read_health(tmp_path) is None
    health = Health("participant", silent)
    with health.written_to(tmp_path):
        pass
    written_to = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(
        json.dumps({**written_to, "started": written_to["started"] - 100})
    )  # the number was given anew
    found = read_health(tmp_path)
    assert found is not None
    assert not found["alive"]


def test_an_error_of_ours_is_retained_by_its_kind_alone(tmp_path: Path) -> None:
    health = Health("participant", silent)
    with pytest.raises(ZeroDivisionError), health.written_to(tmp_path):
        raise ZeroDivisionError("a text of a participant")
    assert "a text of" not in (tmp_path / FILE).read_text()
    assert "ZeroDivisionError" in (tmp_path / FILE).read_text()


def test_the_log_is_one_json_object_a_line_and_survives_being_moved(tmp_path: Path) -> None:
    log_lines = event_handler("json", tmp_path / "log")
    log_lines("two\nlines", "joined", "warning", participant="north")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log_lines("next")
    first = json.loads((tmp_path / "log.1").read_text())
    assert (first["event"], first["level"], first["participant"]) == ("joined", "warning", "north")
    assert first["message"] == "two\nlines"
    assert first["time"].endswith("Z")
    assert json.loads((tmp_path / "log").read_text())["event"] == "note"
    event_handler("plain", tmp_path / "plain")("two\nlines")
    assert (tmp_path / "plain").read_text().count("\n") == 1
    with pytest.raises(ResourceError):
        event_handler("json", tmp_path / "none" / "log")


def test_metrics_are_on_loopback_unless_reported() -> None:
    assert parse_address("9464") == ("127.0.0.1", 9464)
    assert parse_address("0.0.0.0:9464") == ("0.0.0.0", 9464)
    assert parse_address(None) is None
    for wrong in ("x", "70000", "host:", "0", "²"):
        with pytest.raises(ConfigError):
            parse_address(wrong)


def test_a_taken_port_is_an_error_and_a_broken_page_is_503() -> None:
    def broken() -> tuple[int, str, str]:
        raise RunError("in use")

    with served("127.0.0.1", 0, {"/health": broken}) as address:
        assert get(address, "/health") == (503, "RunError\n")
        with pytest.raises(NetworkError), served("127.0.0.1", int(address.rpartition(":")[2]), {}):
            pass


def test_a_scanner_cannot_fill_the_log_nor_hide_another_reason(tmp_path: Path) -> None:
    """10,000 wrong paths in a minute, one wrong token among them; every one is counted, 65 and the
    token are told, then how many more.
    """
    log_lines: list[tuple[str, Value, Value]] = []
    clock = [0.0]

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        log_lines.append((event, fields.get("reason"), fields.get("count")))

    throttle = Throttle(tell, lambda: clock[0])
    for k in range(10_000):
        clock[0] = 60.0 * k / 10_000
        throttle("refused", "refused", "warning", reason="path")
        if k == 9_000:
            throttle("refused", "refused", "warning", reason="join")
        throttle("joined", "joined")
    assert log_lines.count(("refused", "path", None)) == 65  # 60, and one each ten seconds
    assert log_lines.count(("refused", "join", None)) == 1
    assert log_lines.count(("joined", None, None)) == 10_000
    throttle.flush()
    assert log_lines[-1] == ("refused-more", "path", 10_000 - 65)
    throttle.flush()
    assert log_lines[-1][2] == 10_000 - 65, "nothing new, nothing said"
    health = Health("coordinator", tell)
    log_lines.clear()
    with health.written_to(tmp_path):
        for _ in range(100):
            health.tell("refused", "refused", "warning", reason="key")
    assert health.facts()["refusals"] == {"key": 100}
    assert [row for row in log_lines if row[0] == "refused-more"] == [("refused-more", "key", 40)]


def test_a_command_is_proposed_only_where_it_works(make_federation: Any, tmp_path: Path) -> None:
    """While the coordinator prepares nobody can join; then with the invitation where it lies, until
    the rounds are over.
    """
    hub, health = tmp_path / "hub", Health("coordinator", silent)
    init_coordinator_folder(hub, make_federation(participants=1), "127.0.0.1:9443")

    def proposed() -> Any:
        return coordinator_status(
            hub, RunTotals(hub / "none"), health.facts() | {"alive": True, "metrics": None}
        )["next"]

    assert proposed() is None
    health.tell("Waiting for site0.", "waiting", stage="waiting")
    assert proposed() == f"tequio join {hub / 'invitations/site0.json'} participant.toml"
    assert (hub / "invitations/site0.json").exists()


def test_a_participant_that_waits_says_so() -> None:
    health, stages = Health("participant", silent), []
    health.tell("connected", "connected")
    stages.append(health.facts()["stage"])
    health.tell("round 1", "task", kind="train", round=1, stage="train")
    stages.append(health.facts()["stage"])
    health.tell("sent", "sent", bytes_up=3)
    stages.append(health.facts()["stage"])
    health.tell("lost", "disconnected", "warning")
    stages.append(health.facts()["stage"])
    assert stages == ["waiting", "train", "waiting", "not connected"]


def written_by(folder: Path, process: int, **facts: Any) -> None:
    """The file that a running process left 74 seconds ago, its number and beginning as the system
    has them.
    """
    health = Health("participant" if (folder / "identity.json").exists() else "coordinator", silent)
    then = (datetime.now(UTC) - timedelta(seconds=74)).isoformat(timespec="seconds")
    began = psutil.Process(process).create_time()
    own = {"stage": "rounds", "process": process, "started": began, "seen": then}
    (folder / FILE).write_text(json.dumps(health.facts() | own | facts))


def test_a_process_that_writes_no_more_is_not_responding(
    make_federation: Any, tmp_path: Path
) -> None:
    """Paused, and hanging: its state, since when, and what to do; who is connected is not known
    then.

    One that is over is left alone.
    """
    hub, site0 = tmp_path / "hub", tmp_path / "site0"
    init_coordinator_folder(hub, make_federation(participants=1), "127.0.0.1:9443")
    site0.mkdir()
    (site0 / "identity.json").write_text(json.dumps({"name": "site0", "address": "127.0.0.1:9443"}))
    with subprocess.Popen(["sleep", "600"]) as process:
        number = process.pid
        for folder, again in (
            (hub, f"tequio coordinator start {hub}"),
            (site0, f"tequio participate {site0}"),
        ):
            written_by(folder, number, connected=True)
            found = read_status(folder)
            since = datetime.fromisoformat(found["process"]["seen"])
            assert found["state"] == "not responding"
            assert found["note"]["code"] == "process-hangs"
            assert f"{since:%H:%M:%S} UTC" in found["note"]["facts"]["since"]
            assert found["next"] == f"kill -9 {number}; {again}"
            assert found.get("connected") is None
        process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(number).status() == psutil.STATUS_STOPPED, 60)
        paused = read_status(hub)
        assert paused["note"]["code"] == "process-paused"
        assert paused["next"] == f"kill -CONT {number}"
        assert ENGLISH.reason(paused["note"]) in " ".join(tequio("status", hub).split())
        written_by(hub, number, stage="ended")
        assert read_status(hub)["state"] == "ended"
        written_by(hub, number, seen=datetime.now(UTC).isoformat())
        fresh = read_status(hub)
        assert (fresh["state"], fresh["note"]) == ("rounds", None)
        process.kill()


def test_status_of_a_folder_that_is_neither(tmp_path: Path) -> None:
    assert "neither a coordinator's folder nor a participant's" in tequio(
        "status", tmp_path, fails=True
    )
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "run"}):
        pass
    assert f"tequio report {tmp_path}" in tequio("status", tmp_path, fails=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_running_federation_is_seen_from_outside(make_federation: Any, tmp_path: Path) -> None:
    """Status, pages and logs before anybody is there, while the rounds go on, after a kill -9, and
    at the end.
    """
    toml = make_federation(participants=2, train={"rounds": 40, "patience": 40})
    hub, address = tmp_path / "hub", f"127.0.0.1:{free_port()}"
    pages, own_pages = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    tequio("coordinator", "init", hub, toml, "--address", address)

    def status(folder: Path) -> dict[str, Any]:
        return dict(json.loads(tequio("status", folder, "--json")))

    def events(log: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]

    def seen(event: str) -> bool:
        happened = (
            [e["event"] for e in events(tmp_path / "hub.log")]
            if (tmp_path / "hub.log").exists()
            else []
        )
        assert "failed" not in happened, (tmp_path / "hub.log").read_text()
        return event in happened

    before = status(hub)
    assert (before["state"], before["process"]) == ("not started", None)
    assert before["next"] == f"tequio coordinator start {hub}"
    observed: list[str | Path] = [
        "--metrics",
        pages.rpartition(":")[2],
        "--log",
        "json",
        "--log-file",
        tmp_path / "hub.log",
    ]
    start: list[str | Path] = ["coordinator", "start", hub, "--wait", "10", *observed, *ALONE]
    with background(tmp_path / "out", *start) as coordinator:
        until(lambda: seen("listening"))
        tequio(
            "join",
            hub / "invitations/site0.json",
            toml.parent / "participants/site0.toml",
            "--out",
            tmp_path / "site0",
            "--yes",
        )
        waiting = status(hub)
        assert [row["enrolled"] for row in waiting["participants"]] == [True, False]
        assert waiting["process"]["health"] == "ok"
        assert "site1.json" in waiting["next"]
        checked = json.loads(tequio("coordinator", "check", hub, "--json"))
        assert checked["ok"]
        assert {row["status"] for row in checked["findings"]} == {"ok"}, checked
        assert [row["check"] for row in checked["findings"] if "loopback" in row["what"]] == [
            "ports"
        ]
        counts = numbers(get(pages, "/metrics")[1])
        refused = {
            labels[0]: n
            for (name, labels), n in counts.items()
            if name == "tequio_door_refusals_total"
        }
        assert refused["path"] > 30
        # the eight paths that participants need, and an unknown key; with two of them one comes,
        # and states its version
        assert (refused["key"], refused["version"]) == (7, 2), refused
        assert refused["join"] == 1
        paths = [e["path"] for e in events(tmp_path / "hub.log") if e["event"] == "refused"]
        assert len(paths) == sum(min(count, BURST) for count in refused.values())
        assert "/v1/control/start-run" in paths
        (hub / "secret").chmod(0o644)
        loosened = [*TEQUIO, "coordinator", "check", str(hub)]
        failed = subprocess.run(loosened, capture_output=True, text=True, check=False)
        (hub / "secret").chmod(0o600)
        assert failed.returncode == 1
        assert "FAIL     secrets" in failed.stdout
        tequio(
            "join",
            hub / "invitations/site1.json",
            toml.parent / "participants/site1.toml",
            "--out",
            tmp_path / "site1",
            "--yes",
        )
        site0 = background(
            tmp_path / "site0.out",
            "participate",
            tmp_path / "site0",
            "--log",
            "json",
            "--metrics",
            own_pages,
            *ALONE,
        )
        site1 = background(tmp_path / "site1.out", "participate", tmp_path / "site1", *ALONE)
        with site0, site1:
            until(lambda: seen("round"))
            until(
                lambda: all(row["connected"] for row in status(hub)["participants"])
            )  # looked at every few seconds
            running = status(hub)
            assert running["state"] == "rounds"
            assert running["round"] >= 1
            assert running["rounds"] == 40
            assert all(
                len(row["since"]) == len("2026-11-24T12:00:00+00:00")
                for row in running["participants"]
            )
            assert all(
                row["bytes_up"] > 0 and row["last"] == "admitted" for row in running["participants"]
            )
            code, text = get(pages, "/metrics")
            found = numbers(text)
            assert code == 200
            assert found["tequio_superlink_up", ()] == 1.0
            assert found["tequio_participants", ("connected",)] == 2.0
            assert found["tequio_updates_total", ("site0", "admitted", "")] >= 1.0
            assert found["tequio_update_bytes_total", ("site1", "up")] > 0.0
            assert json.loads(get(pages, "/health")[1])["ok"]
            own = numbers(get(own_pages, "/metrics")[1])
            assert own["tequio_connected", ()] == 1.0
            assert own["tequio_tasks_total", ("train",)] >= 1.0
            assert not any("site" in label for _, labels in own for label in labels)
            coordinator.send_signal(signal.SIGKILL)
            coordinator.wait()
            killed = status(hub)
            assert (killed["state"], killed["process"]) == ("killed", None)
            assert killed["next"] == f"tequio coordinator start {hub}"
            assert killed["round"] >= running["round"]
            (tmp_path / "hub.log").rename(tmp_path / "hub.log.1")
            with background(tmp_path / "out", *start) as again:
                again.wait(600)
            until(
                lambda: (
                    (tmp_path / "site0/run/ledger.sqlite").exists()
                    and "personal" in kinds(tmp_path / "site0/run/ledger.sqlite")
                )
            )
    ended = status(hub)
    assert (ended["state"], ended["round"]) == ("finished", len(ended["validation"]) - 1)
    assert all(row["personal"] for row in ended["participants"])
    with Ledger.open(hub / "run/ledger.sqlite", read_only=True) as ledger:
        wires = [
            {e.body["name"]: e.body["wire"]} if e.kind == "personal" else e.body.get("wire", {})
            for e in ledger.entries()
        ]
    for row in ended["participants"]:
        assert row["wire_up"] == sum(wire.get(row["name"], {"up": 0})["up"] for wire in wires) > 0
        assert (
            row["wire_down"]
            == sum(wire.get(row["name"], {"down": 0})["down"] for wire in wires)
            > 0
        )
    assert ended["next"] == f"tequio report {hub / 'run'}"
    assert "Validation loss by round" in tequio("status", hub)
    mine = status(tmp_path / "site0")
    assert mine["personal"] is not None
    assert "tequio predict" in mine["next"]
    book = (tmp_path / "site0/run/participants/site0/accounts.jsonl").read_text().splitlines()
    assert mine["updates_up"] == sum(json.loads(line)["bytes"] for line in book)
    assert (
        mine["since_started"]["bytes_up"] > mine["updates_up"] > 0
    )  # one process; messages have more in them
    assert "by its own book" in tequio("status", tmp_path / "site0")
    assert "Bytes are those of the record" in tequio("status", hub)
    logged = (
        events(tmp_path / "hub.log.1")
        + events(tmp_path / "hub.log")
        + events(tmp_path / "site0.out")
    )
    assert {"joined", "listening", "waiting", "round", "connected", "task", "sent", "ended"} <= {
        e["event"] for e in logged
    }
    written = "".join(p.read_text() for p in (hub / FILE, tmp_path / "site0" / FILE)) + json.dumps(
        logged
    )
    for row in (toml.parent / "data" / "site0.jsonl").read_text().splitlines():
        assert json.loads(row)["text"] not in written
    for name in ("site0", "site1"):
        assert json.loads((hub / f"invitations/{name}.json").read_text())["token"] not in written
    assert os.stat(hub / "superlink/superlink.log").st_size < 1 << 24
