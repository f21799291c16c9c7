"""An outcome covers what was trained and measured, and neither folders nor the order in which
personal models arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tequio.app.stages import outcome_digest
from tequio.ledger.chain import ZEROS, link

Record = tuple[str, Mapping[str, Any]]


def digest(*records: Record) -> str:
    return outcome_digest(
        link(seq, kind, dict(body), ZEROS) for seq, (kind, body) in enumerate(records)
    )


def run(folder: str, seed: int = 7, rows: str = "site0.jsonl") -> Record:
    files = [{"name": "site0", "file": f"{folder}/{rows}"}]
    return "run", {
        "seed": seed,
        "config": {"participants": files, "seed": seed},
        "config_digest": folder,
        "created": folder,
    }


def personal(name: str, loss: float = 0.5) -> Record:
    return "personal", {"name": name, "test": {"loss": loss}, "seconds": len(name)}


ROUND: Record = (
    "round",
    {"round": 1, "digest": "ab", "seconds": 3.0, "wire": {"site0": {"up": 3}}},
)
GENERAL: Record = ("general", {"public": 0.1})
PLAIN = digest(run("/a"), ROUND, personal("north"), personal("south"), GENERAL)


def test_folder_order_of_arrival_and_what_was_waited_for_do_not_count() -> None:
    wait: Record = ("wait", {"round": 1, "reason": "one was killed"})
    missing: Record = (
        "missing",
        {"participants": [{"name": "south", "reason": "it was not connected"}]},
    )
    records = (run("/b/c"), wait, ROUND, personal("south"), missing, personal("north"), GENERAL)
    assert digest(*records) == PLAIN


def test_everything_that_was_trained_or_measured_counts() -> None:
    other: Record = ("round", {"round": 1, "digest": "cd", "seconds": 3.0})
    assert digest(run("/a", seed=8), ROUND, personal("north"), personal("south"), GENERAL) != PLAIN
    assert (
        digest(run("/a", rows="site1.jsonl"), ROUND, personal("north"), personal("south"), GENERAL)
        != PLAIN
    )
    assert digest(run("/a"), other, personal("north"), personal("south"), GENERAL) != PLAIN
    assert digest(run("/a"), ROUND, personal("north", 0.4), personal("south"), GENERAL) != PLAIN
    assert digest(run("/a"), ROUND, personal("north"), GENERAL) != PLAIN
    assert digest(run("/a"), ROUND, GENERAL, personal("north"), personal("south")) != PLAIN


def test_rounds_count_in_their_order() -> None:
    second: Record = ("round", {"round": 2, "digest": "cd"})
    assert digest(run("/a"), ROUND, second) != digest(run("/a"), second, ROUND)
