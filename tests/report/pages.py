"""Runs of every shape for the report's tests, a page taken apart, and a run whose numbers were
worked by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from types import MappingProxyType
from typing import Any, Literal

from made_runs import Shape, chained

from tequio.ledger.chain import Entry
from tequio.report.data.verdicts import VERDICTS
from tequio.report.html.markup import VOID

Lang = Literal["en", "es"]


LANGS: tuple[Lang, ...] = ("en", "es")


SHAPES = {
    "classification": Shape(),
    "causal": Shape(causal=True, people=4, rounds=5, rejected=(), seed=3),
    "two hundred": Shape(people=200, rounds=6),
    "one, no counterfactuals": Shape(people=1, rounds=2, rejected=(), counterfactuals=False),
    "header only": Shape(stop_after="run"),
    "base scored": Shape(stop_after="start"),
    "three rounds": Shape(stop_after="round", rounds=3),
    "all rejected": Shape(stop_after="round", rounds=2, rejected=(1, 2)),
    "some personal": Shape(stop_after="personal", counterfactuals=False),
}


class Page(HTMLParser):
    """Checks that tags balance, and collects cells, headings, ids, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.headings: list[int] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.svgs = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.svgs += tag == "svg" and ("role", "img") in attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


NO_VERDICT = dict.fromkeys((*VERDICTS, "unknown"), 0)


def row_of(page: Page, first: str) -> list[str]:
    """The first table row whose first cell is `first`."""
    return next(row for row in page.rows if row and row[0] == first)


def hand_made(
    accuracy: Mapping[str, float] = MappingProxyType({}), kind: str = "causal"
) -> list[Entry]:
    """One round and three personal models in round numbers. accuracy: the change of each."""
    names = ("a", "b", "c")
    energy = {"joules": 10.0, "method": "rapl", "boundary": "cpu package", "uncertainty": 0.1}
    people = [{"name": n, "rank": r, "steps": 1} for n, r in zip(names, (2, 4, 8), strict=True)]
    rows = [
        {"name": n, "bytes_up": b, "bytes_down": 1000}
        for n, b in zip(names, (100, 200, 300), strict=True)
    ]
    rows.append({"name": "centre", "bytes_up": 9999, "bytes_down": 9999})
    round_ = {
        "round": 1,
        "accepted": True,
        "train": rows,
        "mean_validation_loss": 0.9,
        "seconds": 12,
    }
    start = {"validation": {}, "seconds": 4, "energy": {**energy, "joules": 20.0}}
    round_["energy"] = {
        "joules": 100.0,
        "method": "model",
        "boundary": "cpu package",
        "uncertainty": 0.4,
    }
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("run", {"participants": people, "centre": {"name": "centre"}, "task": {"kind": kind}}),
        ("start", start),
        ("round", round_),
    ]
    for name, gain, half in zip(names, (0.2, 0.0, -0.1), (0.05, 0.0, 0.05), strict=True):
        loss = {"mean": gain, "low": gain - half, "high": gain + half}
        change = accuracy.get(name)
        points = (
            None if change is None else {"mean": change, "low": change - 0.1, "high": change + 0.1}
        )
        body = {
            "name": name,
            "chosen": "local" if gain == 0 else "shared",
            "test": {
                "local": {"loss": 1.0, "examples": 50},
                "personal": {"loss": 1 - gain, "examples": 50},
            },
            "gains": {"personal_over_local": {"loss": loss, "accuracy": points}},
            "benefit": gain,
            "energy": energy,
            "seconds": 2.0,
        }
        bodies.append(("personal", body))
    return chained(bodies)
