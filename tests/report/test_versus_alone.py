"""What joining took against training alone: sums by hand, what is not told, and no price on a
quality that was never reached.
"""

from __future__ import annotations

from typing import Any

import pytest
from made_runs import chained, energy

from tequio.report.data.versus_alone import against_alone, of_books
from tequio.report.html.report import render


def eur(amount: float) -> dict[str, Any]:
    return {"amount": amount, "currency": "EUR"}


def run() -> list[Any]:
    """a gains surely and tells its money; b does not gain, and does not tell its carbon."""
    header = {
        "participants": [{"name": "a"}, {"name": "b"}],
        "simulation": True,
        "config": {},
        "versions": {"tequio": "0"},
    }
    train = [
        {"name": "a", "energy": energy(100.0, 360.0), "money": eur(0.5)},
        {"name": "b", "energy": energy(300.0, None), "money": None},
    ]
    round_ = {
        "accepted": True,
        "train": train,
        "evaluation": [{"name": "a", "energy": energy(10.0, 360.0), "money": eur(0.1)}],
    }
    scores = {"loss": 1.0, "accuracy": 0.5, "examples": 10}

    def personal(
        name: str, low: float, whole: dict[str, Any], own: dict[str, Any]
    ) -> dict[str, Any]:
        gain = {"mean": low + 0.1, "low": low, "high": low + 0.2}
        body = {
            "name": name,
            "chosen": "shared",
            "benefit": low + 0.1,
            "gains": {"personal_over_local": {"loss": gain, "accuracy": None}},
        }
        return (
            body
            | {"test": {"local": scores, "personal": scores}}
            | whole
            | {"local_cost": own | {"steps": 7, "tokens": 70}}
        )

    first = (
        {"energy": energy(500.0, 720.0), "money": eur(2.0)},
        {"energy": energy(400.0, 720.0), "money": eur(1.5)},
    )
    second = (
        {"energy": energy(90.0, None), "money": None},
        {"energy": energy(60.0, None), "money": None},
    )
    return chained(
        [
            ("run", header),
            ("round", {"round": 1, **round_}),
            ("round", {"round": 2, **round_}),
            ("personal", personal("a", 0.01, *first)),
            ("personal", personal("b", -0.05, *second)),
        ]
    )


def test_sums_by_hand() -> None:
    found = against_alone(run())
    a, b = found["participants"]
    # two rounds of 110 J, and 500 − 400 J of the personal model beside the local one
    assert (a["joined"]["joules"], a["alone"]["joules"], a["avoided"]["joules"]) == (
        320.0,
        400.0,
        80.0,
    )
    # 360 g/kWh is .1 mg a joule: 220 J at .1, 100 J at .2; alone 400 J at .2
    assert a["joined"]["grams"] == pytest.approx(0.042)
    assert a["alone"]["grams"] == pytest.approx(0.08)
    assert a["avoided"]["grams"] == pytest.approx(0.038)
    assert a["joined"]["money"] == {"EUR": pytest.approx(1.7)}
    assert a["avoided"]["money"] == {"EUR": pytest.approx(-0.2)}
    assert (a["steps"], a["tokens"], a["as_good"]) == (7, 70, False)
    assert (b["joined"]["joules"], b["avoided"]["joules"]) == (630.0, -570.0)
    assert (b["avoided"]["grams"], b["avoided"]["money"], b["as_good"]) == (None, {}, True)
    assert found["total"]["avoided"]["joules"] == pytest.approx(-490.0)
    assert found["total"]["avoided"]["grams"] is None
    assert (found["never_as_good"], found["judged"]) == (1, 2)
    # avoided 80 and (below zero) 0: Gini 80/(2 · 80) = .5, Jain 80²/(2 · 80²) = .5
    assert found["evenness"] == {"gini": pytest.approx(0.5), "jain": pytest.approx(0.5)}


def test_the_report_puts_no_price_on_what_was_never_reached() -> None:
    english, spanish = render(run(), "en"), render(run(), "es")
    assert (
        "For 1 of 2, the model trained alone did not reach the quality of the delivered one"
        in english
    )
    assert "never reached it" in english
    assert "Para 1 de 2, el modelo entrenado a solas no alcanzó la calidad" in spanish
    assert "−0.20" in english.replace("\u00a0", " ")


def test_older_runs_say_nothing() -> None:
    entries = run()
    bodies = [(e.kind, {k: v for k, v in e.body.items() if k != "local_cost"}) for e in entries]
    assert against_alone(chained(bodies))["participants"] == []
    assert "Against training alone" not in render(chained(bodies), "en")


def test_a_participants_own_record_has_no_rounds_to_compare_with() -> None:
    entries = [
        (
            e.kind,
            e.body | ({"facts": {"spec": "x"}, "simulation": False} if e.kind == "run" else {}),
        )
        for e in run()
    ]
    home = chained([(kind, body) for kind, body in entries if kind != "round"])
    assert against_alone(home)["participants"] == []
    assert "Against training alone" not in render(home, "en")


def test_the_own_book_knows_private_money() -> None:
    lines = [
        {"work": "train", **energy(10.0, 360.0), "money": eur(1.0)},
        {"work": "local", **energy(40.0, 360.0), "money": eur(3.0)},
        {"work": "personal", **energy(5.0, 360.0), "money": eur(0.5)},
    ]
    (row,) = of_books({"a": lines, "old": lines[:1]})
    assert (row["name"], row["joined"]["joules"], row["alone"]["joules"]) == ("a", 15.0, 40.0)
    assert row["avoided"]["money"] == {"EUR": pytest.approx(1.5)}
    cut = chained([("personal", {"name": "a", "cut": "local 0 of 7 steps"})])
    assert of_books({"a": lines}, cut) == []
