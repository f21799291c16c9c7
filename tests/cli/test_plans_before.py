"""A plan that an earlier version made, with sentences for levers and limits, is shown in both
languages.
"""

from __future__ import annotations

import re

from made_plans import MOST

from tequio.report.html.plan import render_plan

LEVERS = ("a machine twice as fast", "leave to train any rank", "hosted training, or one L4")
RENTS = (
    "Rents are public offers in US dollars; a participant's own costs are in its own "
    "currency. Nothing is converted."
)


def test_sentences_of_an_earlier_plan_are_translated() -> None:
    rows = [{**MOST["weakest"]["levers"][0], "what": words} for words in LEVERS]
    plan = MOST | {
        "made": "",
        "own": False,
        "weakest": MOST["weakest"] | {"levers": rows},
        "limits": [RENTS],
    }
    english, spanish = (
        " ".join(
            re.sub(r"<style>.*?</style>|<[^>]+>", " ", render_plan(plan, lang), flags=re.S).split()
        )
        for lang in ("en", "es")
    )
    assert all(
        words in english
        for words in (LEVERS[0], "permission to train any rank", LEVERS[2], RENTS[:40])
    )
    assert not any(words in spanish for words in (*LEVERS, RENTS[:40]))
    assert "un equipo el doble de rápido" in spanish
    assert "entrenamiento hospedado, o un equipo L4" in spanish
    assert "Las rentas son ofertas públicas" in spanish
