"""A Spanish page has no English sentence: reasons of every code and of earlier versions, tiers and
slices are Spanish too.
"""

from __future__ import annotations

import json
import re
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from made_runs import Shape, chained, made_run
from pages import Page

from tequio.core.reason import Reason
from tequio.core.texts.words import AS_WRITTEN, TEXTS
from tequio.report.html.report import render

SAMPLES = tomllib.loads(
    (Path(__file__).parents[2] / "docs" / "messages.toml").read_text(encoding="utf-8")
)
CODES = [key.removeprefix("reason.") for key in TEXTS["en"] if key.startswith("reason.")]
BEFORE = (
    "Rank 4, the largest of the ladder, with all 20 steps: about 26.8 s, within the deadline of 30 "
    "s.",
    "Participant a: its own budget of energy, time is spent. It may raise [budget] in its "
    "participant.toml.",
    "it holds NaN or infinite numbers",
    "NetworkError: no reply within 10 s",
    "Round 3: 1 of the 2 updates that a step needs could be used. north: no reply.",
)


def english_parts() -> Iterator[str]:
    """Pieces of English texts, three words or more, between placeholders; without what Spanish
    texts have as well.
    """
    spanish = " ".join(TEXTS["es"].values())
    for text in TEXTS["en"].values():
        for piece, *_ in string.Formatter().parse(text):
            for part in re.split(r"[\n“”]", piece):
                if len(re.findall(r"[A-Za-z]{2,}", part)) >= 3 and part.strip() not in spanish:
                    yield " ".join(part.split())


def rich_run() -> list[tuple[str, dict[str, Any]]]:
    """Records in which each code is why an update did not count, with tiers of every kind and
    slices of the demos.
    """
    bodies = [
        (e.kind, json.loads(json.dumps(e.body)))
        for e in made_run(Shape(people=4, rounds=4, rejected=(2,)))
    ]
    header, rounds = bodies[0][1], [body for kind, body in bodies if kind == "round"]
    tiers = [
        Reason("tier-full"),
        Reason(
            "tier-base", {"base": "small", "tier": Reason("tier-rank", {"rank": 2}).as_record()}
        ),
    ]
    for row, tier in zip(
        header["participants"], [*(t.as_record() for t in tiers), "full weights"], strict=False
    ):
        row["tier"] = tier
    for code in CODES:
        if code not in AS_WRITTEN:
            row = {"name": "north", "status": "failed", "reason": Reason(code, SAMPLES).as_record()}
            rounds[0]["admissions"].append(row)
    rounds[1]["admissions"] += [
        {"name": "south", "status": "rejected", "reason": words} for words in BEFORE
    ]
    rounds[2]["reason"] = "general model worse on clinic (0.104 → 0.153)"
    bodies[-1][1]["reason"] = "all rounds made"
    return bodies


def test_a_spanish_page_has_no_english_sentence() -> None:
    text = " ".join(Page(render(chained(rich_run()), "es")).text.split())
    found = [part for part in english_parts() if part in text]
    assert found == []
    assert "pesos completos" in text
    assert "small, rango 2" in text
    assert "noticias" in text
    assert not re.search(r"\bnews\b", text)


def test_the_check_finds_english_sentences() -> None:
    text = " ".join(Page(render(chained(rich_run()), "en")).text.split())
    parts = set(english_parts())
    found = {part for part in parts if part in text}
    assert len(parts) > 300
    assert len(found) > 150
    assert "its own budget of" in found


def test_words_of_others_are_quoted_and_marked_as_english() -> None:
    bodies = rich_run()
    for kind, body in bodies:
        if kind == "round":
            body["reason"] = "A comet passed over the hill."
    html = render(chained(bodies), "es")
    assert '<span lang="en">«A comet passed over the hill.»</span>' in html
    assert '<span lang="en">“A comet passed over the hill.”</span>' not in render(
        chained(bodies), "en"
    )
