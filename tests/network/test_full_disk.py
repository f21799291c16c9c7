"""Answers take no room that the ledger needs: on a disk that is nearly full they wait, and the
coordinator works on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr")

from live_server import at_work, live, resident
from network_processes import until

from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import DescribeRequest, Failure, Reply
from tequio.runtimes.flower import intake

BODY = "x" * 30_000  # more than a request of no weight
TASK = DescribeRequest(1, 1, "north")


def answer(data: bytes) -> bytes:
    asked = unpack_message(data, "a task", REQUESTS)
    assert isinstance(asked, DescribeRequest)
    return pack_message(Reply(asked.round, asked.index, asked.name, body=BODY))


def test_space_counts_as_short_below_what_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SPARE", 0)
    assert not intake.short_of_space(tmp_path)
    monkeypatch.setattr(intake, "SPARE", 1 << 60)
    monkeypatch.setattr(intake, "SPARE_SHARE", 2.0)
    assert intake.short_of_space(tmp_path)
    monkeypatch.setattr(intake, "SPARE_SHARE", 0.0)
    assert not intake.short_of_space(tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_an_answer_waits_while_the_disk_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(tmp_path / "hub") as hub:
        node = hub.enrol()
        net = hub.net(node, deadline=120.0)
        with at_work(resident(hub, node, answer)):
            until(lambda: 1 in net.connections(), 60)
            with monkeypatch.context() as patch:
                patch.setattr(intake, "SPARE", 1 << 60)
                patch.setattr(intake, "SPARE_SHARE", 2.0)
                (failure,) = net.exchange([TASK], 6.0)
                assert isinstance(failure, Failure)
                assert any("the disk is nearly full" in line for line in hub.log_lines)

            def free() -> bool:
                net.settle()
                return not net.pending

            until(free, 60)
            (reply,) = net.exchange([TASK])
            assert isinstance(reply, Reply)
            assert reply.body == BODY
