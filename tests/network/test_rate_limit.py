"""One participant cannot fill the coordinator's log by being barred, nor the coordinator that of a
participant.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tequio.app.network.monitoring.health import Health
from tequio.app.network.monitoring.rate_limit import BURST, BY_COORDINATOR, Throttle
from tequio.core.events import Level, Value


def test_a_participant_that_is_barred_again_and_again_cannot_fill_the_log() -> None:
    log_lines: list[tuple[str, str]] = []

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        log_lines.append((event, words))

    throttle = Throttle(tell, lambda: 0.0)
    for number in range(1000):
        throttle(f"north cannot take part: {number}", "barred", "warning", participant="north")
    throttle("south cannot take part", "barred", "warning", participant="south")
    assert [words.split()[0] for event, words in log_lines if event == "barred"] == ["north"] * int(
        BURST
    ) + ["south"]
    throttle.flush()
    assert log_lines[-1] == (
        "refused-more",
        "refused: 940 more requests (north barred), not told one by one",
    )


def test_a_coordinator_cannot_fill_the_log_of_a_participant(tmp_path: Path) -> None:
    """Ten thousand messages: of each kind of event 60 are logged, then how many more; status counts
    all, and our own events pass.
    """
    log_lines: list[tuple[str, Value, Value]] = []

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        log_lines.append((event, fields.get("reason"), fields.get("count")))

    health = Health("participant", tell)
    with health.written_to(tmp_path):
        for _ in range(10_000):
            health.tell("received 1 bytes", "received", bytes_down=1)
            health.tell(
                "Refused: train.steps",
                "departed",
                "error",
                kind="train",
                round=1,
                error="AgreementError",
            )
            health.tell("refused a message", "message-refused", "warning")
            health.tell("sent 1 bytes", "sent", bytes_up=1)
        for _ in range(100):
            health.tell("recorded", "recorded", digest="a")
    logged = Counter(event for event, *_ in log_lines)
    bounded = ("received", "departed", "message-refused", "sent")
    for event in bounded:
        assert event in BY_COORDINATOR
        assert BURST <= logged[event] <= BURST + 6  # and one each ten seconds, on a slow machine
        assert ("events-more", event, 10_000 - logged[event]) in log_lines
    assert logged["recorded"] == 100
    facts = health.facts()
    assert (facts["bytes_down"], facts["failures"]) == (10_000, {"AgreementError": 10_000})


def test_what_the_coordinator_logs_of_its_own_is_not_bounded() -> None:
    """There the same words come of its own work."""
    log_lines: list[str] = []
    health = Health("coordinator", lambda words, *_, **__: log_lines.append(words))
    for _ in range(200):
        health.tell("there", "sent")
    assert log_lines == ["there"] * 200
