"""The accounts of a run from its ledger: who, the coordinator, in all; what is not told stays
unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_runs import chained, energy

from tequio.app.network.monitoring.totals import RunTotals
from tequio.ledger.chain import Entry
from tequio.report.data.accounts import accounts, card
from tequio.report.data.summary import summary


def run(
    simulation: bool = True, disclosed: bool = True, config: dict[str, Any] | None = None
) -> list[Entry]:
    """Two participants, one round: a at 360 g/kWh with money, b at 720 or untold; 1,000 J are the
    whole process.
    """
    header = {
        "participants": [{"name": "a"}, {"name": "b"}],
        "simulation": simulation,
        "config": config or {},
        "versions": {"tequio": "0"},
    }
    money = {"amount": 0.5, "currency": "EUR"}
    train = [
        {
            "name": "a",
            "tokens": 600,
            "energy": energy(100.0, 360.0, embodied=0.002),
            "money": money,
        },
        {
            "name": "b",
            "tokens": 400,
            "energy": energy(200.0, 720.0 if disclosed else None),
            "money": None,
        },
    ]
    whole = 1000.0 if simulation else 700.0
    round_ = {"round": 1, "accepted": True, "train": train, "energy": energy(whole, 360.0)}
    personal = {"name": "a", "energy": energy(50.0, 360.0), "money": money}
    return chained([("run", header), ("round", round_), ("personal", personal)])


@pytest.mark.parametrize("simulation", [True, False])
def test_parts_add_up_in_one_process_and_across_a_network(simulation: bool) -> None:
    found = accounts(run(simulation))
    a, b = found["participants"]
    assert (a["name"], a["joules"], b["joules"]) == ("a", 150.0, 200.0)
    # 360 g/kWh is 0.1 mg a joule
    assert a["grams"] == pytest.approx(150 * 1e-4)
    assert b["grams"] == pytest.approx(200 * 2e-4)
    assert a["money"] == {"EUR": pytest.approx(1.0)}
    assert b["money"] == {}
    assert found["coordinator"]["joules"] == pytest.approx(
        700.0
    )  # 1,000 − 100 − 200, or its own process
    total = found["total"]
    assert total["joules"] == pytest.approx(1050.0)
    assert total["grams"] == pytest.approx(0.015 + 0.04 + 0.07)
    assert total["grams_share"] == 1.0
    assert found["sci"]["grams_per_million_tokens"] == pytest.approx(
        (0.01 + 0.04 + 0.07 + 0.002) / 1e-3
    )
    assert found["sci"]["tokens"] == 1000
    assert card(found, run())["co2_eq_emissions"]["emissions"] == pytest.approx(0.125 + 0.002)


def test_a_simulated_machine_of_more_watts_takes_nothing_from_the_coordinators_share() -> None:
    """a states 40 times the watts of the machine that simulates it: 4,000 J, of which 100 J are in
    the process's 1,000.
    """
    header = {"participants": [{"name": "a"}], "simulation": True, "versions": {"tequio": "0"}}
    train = [
        {"name": "a", "tokens": 1, "energy": energy(4000.0, 360.0, hosted=100.0), "money": None}
    ]
    body = {"round": 1, "accepted": True, "train": train, "energy": energy(1000.0, 360.0)}
    entries = chained([("run", header), ("round", body)])
    found = accounts(entries)
    assert found["coordinator"]["joules"] == pytest.approx(900.0)
    assert found["total"]["joules"] == pytest.approx(4900.0)
    assert found["total"]["grams"] == pytest.approx(0.49)
    assert summary(entries)["cost"]["joules"] == found["total"]["joules"]


def test_status_across_a_network_counts_what_the_accounts_count() -> None:
    entries, totals = run(simulation=False), RunTotals(Path("no ledger"))
    for entry in entries:
        totals._add_energy(entry.body)
    assert totals.joules == pytest.approx(accounts(entries)["total"]["joules"])


def test_what_is_not_reported_is_not_guessed() -> None:
    found = accounts(run(disclosed=False))
    assert found["participants"][1]["grams"] is None
    assert found["total"]["grams_share"] == pytest.approx(850 / 1050)
    assert found["sci"]["grams_per_million_tokens"] is None
    assert card(found, run(disclosed=False))["co2_eq_emissions"]["emissions"] is None


def test_the_coordinators_money_is_reported_as_its_file_is() -> None:
    money = {"currency": "MXN", "per_kwh": 3.6, "tell": True}
    found = accounts(run(config={"money": money, "energy": {"pue": 2.0}}))
    assert found["coordinator"]["money"] == {"MXN": pytest.approx(3.6 * 700 * 2 / 3.6e6)}
    silent = {"money": {**money, "tell": False}, "energy": {"pue": 2.0}}
    assert accounts(run(config=silent))["coordinator"]["money"] == found["coordinator"]["money"]


def test_an_old_or_empty_ledger_has_no_carbon() -> None:
    bare = {"joules": 5.0, "method": "model", "boundary": "cpu package", "uncertainty": 0.4}
    found = accounts(chained([("run", {}), ("round", {"round": 1, "train": [], "energy": bare})]))
    assert found["total"]["grams"] is None
    assert found["coordinator"]["joules"] == 5.0
    assert accounts([])["total"]["joules"] is None
