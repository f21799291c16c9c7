"""A pilot of one round foretells, for each participant, whether joining pays."""

from __future__ import annotations

from typing import Any

import pytest

from tequio.app.assembly.build import build
from tequio.app.simulation.pilot import run_pilot
from tequio.config import load_federation
from tequio.participant.foretelling import foretold


def body(
    lead: float | None, error: float = 0.1, local: float = 2.0, texts: int = 50
) -> dict[str, Any]:
    choice: dict[str, Any] = {"rule": "shrunk", "texts": texts}
    choice |= {} if lead is None else {"over_local": {"lead": lead, "error": error, "alone": local}}
    return {"name": "north", "choice": choice}


@pytest.mark.parametrize(
    ("lead", "verdict"), [(0.2, "pays"), (0.19, "open"), (-0.19, "open"), (-0.2, "does_not_pay")]
)
def test_a_forecast_is_sure_beyond_two_standard_errors_only(lead: float, verdict: str) -> None:
    row = foretold(body(lead))
    assert (row["name"], row["verdict"]) == ("north", verdict)
    assert (row["benefit"], row["low"], row["high"]) == pytest.approx(
        (lead / 2, lead / 2 - 0.098, lead / 2 + 0.098)
    )


@pytest.mark.parametrize("given", [body(None), body(0.2, local=0.0)])
def test_where_nothing_compares_the_forecast_is_open(given: dict[str, Any]) -> None:
    nothing = {"benefit": None, "low": None, "high": None, "verdict": "open", "needed": None}
    assert foretold(given) == {"name": "north", "texts": 50, **nothing}


def test_few_validation_texts_give_no_verdict_however_large_the_lead() -> None:
    assert [foretold(body(1.0, texts=texts))["verdict"] for texts in (19, 20)] == ["open", "pays"]


def test_an_open_forecast_says_how_many_texts_would_tell() -> None:
    """With 1.96 errors of .1 against a lead of .098, twice as much, four times 50 texts; none for
    no lead.
    """
    assert [foretold(body(lead))["needed"] for lead in (0.098, 0.2, 0.0)] == [200, None, None]


def test_the_model_trained_alone_gets_the_steps_of_the_whole_run(make_federation: Any) -> None:
    config = load_federation(make_federation(participants=2, train={"rounds": 5}))
    short = config.model_copy(update={"train": config.train.model_copy(update={"rounds": 1})})
    whole = build(config).settings
    assert {
        name: settings.alone_for(5) for name, settings in build(short).settings.items()
    } == whole


def test_a_pilot_of_a_federation_whose_centre_trains_first_has_a_round_of_participants(
    make_federation: Any,
) -> None:
    path = make_federation(participants=2, centre={"first": 1}, train={"rounds": 2})
    rounds: list[str] = []
    rows = run_pilot(load_federation(path), lambda stage, what, done, of: rounds.append(what))
    assert "round 2 of 2" in rounds
    assert all(row["benefit"] is not None for row in rows)


def test_a_pilot_makes_one_round_and_leaves_nothing_behind(make_federation: Any) -> None:
    path = make_federation(participants=2, train={"rounds": 5})
    before = sorted(path.parent.rglob("*"))
    rounds: list[str] = []
    rows = run_pilot(load_federation(path), lambda stage, what, done, of: rounds.append(what))
    assert [row["name"] for row in rows] == ["site0", "site1"]
    assert all(row["low"] <= row["benefit"] <= row["high"] for row in rows)
    assert "round 1 of 1" in rounds
    assert sorted(path.parent.rglob("*")) == before
