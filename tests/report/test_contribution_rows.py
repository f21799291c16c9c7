"""What each gave and got: sums, evenness, and the statement when the rich gain and the poor do
not.
"""

from __future__ import annotations

from typing import Any

import pytest
from made_runs import Shape, chained, made_run

from tequio.report.data.summary import summary
from tequio.report.html.report import render


def run(benefits: dict[str, tuple[int, float]], weights: str = "examples") -> list[Any]:
    """name -> (rank, benefit)."""
    people = [
        {"name": n, "rank": rank, "data": {}, "batches": {"train": 10 * rank}}
        for n, (rank, _) in benefits.items()
    ]
    config = {"algorithm": {"weights": weights}}
    train = [
        {"name": n, "tokens": 100 * rank, "energy": {"joules": 5.0 * rank}}
        for n, (rank, _) in benefits.items()
    ]
    credit = [
        {"name": n, "agreement": 0.01 * rank, "leave_one_out": 0.001}
        for n, (rank, _) in benefits.items()
    ]
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("run", {"name": "r", "participants": people, "config": config})
    ]
    round_ = {"accepted": True, "mean_validation_loss": 0.6, "train": train, "credit": credit}
    bodies += [
        ("start", {"mean_validation_loss": 0.76}),
        ("round", {"round": 1, **round_}),
        ("round", {"round": 2, **round_}),
    ]
    scores = {"loss": 1.0, "accuracy": 0.5, "examples": 10}
    for name, (_, benefit) in benefits.items():
        gain = {"mean": benefit, "low": benefit - 0.01, "high": benefit + 0.01}
        body = {
            "name": name,
            "benefit": benefit,
            "gains": {"personal_over_local": {"loss": gain, "accuracy": None}},
        }
        bodies.append(("personal", body | {"test": {"local": scores, "personal": scores}}))
    return chained(bodies)


def test_sums_and_evenness() -> None:
    found = summary(run({"a": (2, 0.1), "b": (6, 0.1)}))["giving"]
    a, b = found["participants"]
    assert (a["tokens"], a["joules"], b["examples"]) == (400, 20.0, 60)
    assert (a["credit"], b["credit"], a["leave_one_out"]) == (
        pytest.approx(0.04),
        pytest.approx(0.12),
        pytest.approx(0.002),
    )
    # two with 1 and 3 parts: Gini |3 - 1| / (2 · 4) = .25, Jain (1 + 3)² / (2 · 10) = .8
    for key in ("examples", "tokens", "joules", "credit"):
        assert found["evenness"][key]["gini"] == pytest.approx(0.25)
        assert found["evenness"][key]["jain"] == pytest.approx(0.8)
    assert found["evenness"]["benefit"]["gini"] == pytest.approx(0.0)
    assert found["statement"] == "even"


@pytest.mark.parametrize(
    ("benefits", "statement"),
    [
        ({"a": (2, -0.01), "b": (2, 0.0), "c": (8, 0.2), "d": (8, 0.1)}, "left_out"),
        ({"a": (2, 0.02), "b": (2, 0.02), "c": (8, 0.2), "d": (8, 0.1)}, "behind"),
        ({"a": (2, 0.1), "b": (2, 0.1), "c": (8, 0.1), "d": (8, 0.1)}, "even"),
        (
            {"a": (2, 0.1), "b": (2, 0.1), "c": (8, -0.1), "d": (8, 0.0)},
            "even",
        ),  # the rich do not gain
    ],
)
def test_the_statement(benefits: dict[str, tuple[int, float]], statement: str) -> None:
    entries = run(benefits)
    found = summary(entries)["giving"]
    assert found["statement"] == statement
    if statement == "even":
        assert found["changes"] == []
        return
    assert found["poor"] == ["a", "b"]
    assert found["changes"] == ["weights", "ranks", "texts", "hosted"]
    page = render(entries, "en")
    assert "q_ffl" in page
    assert "weights" not in summary(run(benefits, "q_ffl"))["giving"]["changes"]


def test_a_run_without_credits_says_so() -> None:
    entries = made_run(Shape())
    assert all(r["credit"] is None for r in summary(entries)["giving"]["participants"])
    assert "Contributions were not measured" in render(entries, "en")
    assert "No se midieron contribuciones" in render(entries, "es")
