"""One participant cannot fill the coordinator's log by being barred."""

from __future__ import annotations

from tequio.app.network.monitoring.rate_limit import BURST, Throttle
from tequio.core.events import Level, Value


def test_a_participant_that_is_barred_again_and_again_cannot_fill_the_log() -> None:
    log_lines: list[tuple[str, str]] = []

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        log_lines.append((event, words))

    throttle = Throttle(tell, lambda: 0.0)
    for number in range(1000):
        throttle(f"north cannot take part: {number}", "barred", "warning", participant="north")
    throttle("south cannot take part", "barred", "warning", participant="south")
    assert [words.split()[0] for event, words in log_lines if event == "barred"] == ["north"] * int(BURST) + ["south"]
    throttle.flush()
    assert log_lines[-1] == ("refused-more", "refused: 940 more requests (north barred), not told one by one")
