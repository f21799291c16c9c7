"""A plan of a small federation, its run, and the two beside each other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import refused
from tequio.app.assembly.build import build, read_participants
from tequio.app.forecast.calibration import (
    HERE,
    calibration_key,
    compare,
    known_factors,
    not_learnt,
    recalibrate,
    teachers,
)
from tequio.app.forecast.forecast import estimate_work, make_plan
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import ConfigError, RunError
from tequio.ledger.record import Ledger
from tequio.measure.energy import open_meter
from tequio.planning.devices import catalogue
from tequio.report.html.plan import render_plan, write_plan


def planned(path: Path, **more: Any) -> dict[str, Any]:
    config = load_federation(path)
    roster = read_participants(config)
    return make_plan(config, build(config, participants=roster), roster, catalogue(), **more)


def test_a_plan_its_run_and_the_next_plan(
    make_federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEQUIO_CACHE", str(tmp_path / "cache"))
    path = make_federation(rows=60, energy={"country": "DE"})
    plan = planned(path)
    json.dumps(plan, allow_nan=False)
    names = [row["name"] for row in plan["participants"]]
    assert names == ["site0", "site1"]
    row = plan["participants"][0]
    assert row["machine"] == HERE
    assert row["seconds"]["work"] == pytest.approx(
        sum(row["seconds"][k] for k in ("train", "evaluate", "personal"))
    )
    assert row["joules"] == pytest.approx(row["watts"] * row["seconds"]["work"])
    assert row["grams"] is None  # the participants do not say where they are
    assert plan["total"]["grams"] is None
    assert plan["centre"]["grams"] == pytest.approx(plan["centre"]["joules"] / 3.6e6 * 380.95)
    assert [m["fits"] for m in row["memory"]] == [
        True
    ] * 4  # ranks 2 and 4, a 4-bit base, whole weights
    ways = {(o["key"], o["where"]): o for o in plan["options"]}
    texts = sum(r["examples"] for r in (*plan["participants"], plan["centre"]))
    assert ways["hybrid", ""]["quality"] == ways["central", "H100 SXM"]["quality"] == texts
    assert ways["alone", ""]["quality"] == sum(r["examples"] for r in plan["participants"]) / 2
    assert any(o["best"] for o in plan["options"])
    assert not any(
        o["best"] for o in plan["options"] if o["key"] == "central"
    )  # data would have to leave
    assert plan["weakest"]["name"] == "site1"  # rank 2 of 4
    assert plan["weakest"]["levers"][0]["rank"] == 4
    for lang in ("en", "es"):
        page = render_plan(plan, lang)
        assert "site1" in page
        assert "H100 SXM" in page
    start(load_federation(path), tmp_path / "run", False)
    found = compare(plan, tmp_path / "run")
    assert [r["name"] for r in found["participants"]] == names
    assert all(r["ratio"] > 0 and r["joules_ratio"] > 0 for r in found["participants"])
    assert found["memory_ratio"] == found["memory"]["measured"] / plan["process_memory"]
    if not torch.cuda.is_available():
        assert (plan["card_memory"], found["card"]["ratio"]) == (None, None)
    on_card = found | {"card": {"predicted": 4, "measured": 3, "ratio": 0.75}, "factors": {}}
    assert "Memory of the graphics card, measured ÷ forecast: 0.75." in render_plan(
        plan | {"after": on_card}, "en"
    )
    assert "Of its graphics card it takes 2.00\u00a0GB" in render_plan(
        plan | {"card_memory": 2 * 10**9}, "en"
    )
    factor = recalibrate(plan, found)[HERE]
    ratios = sorted(r["ratio"] for r in found["participants"])
    assert factor == pytest.approx(sum(ratios) / 2)  # the median of two
    stored = known_factors(calibration_key(plan["base"]["digest"], plan["threads"], plan["card"]))
    assert stored == {HERE: pytest.approx(factor)}
    again = planned(path, factors=stored)
    assert again["factors"] == {HERE: pytest.approx(factor)}
    assert recalibrate(again, compare(again, tmp_path / "run"))[HERE] > 0
    with pytest.raises(RunError, match="another base or name"):
        compare({**plan, "federation": "other"}, tmp_path / "run")


def test_devices_by_participant_and_for_all(make_federation: Any) -> None:
    path = make_federation(rows=40, centre=False)
    file = path.parent / "participants" / "site0.toml"
    file.write_text(file.read_text().replace("[hardware]", '[hardware]\ndevice = "L4"'))
    plan = planned(path)
    assert [row["machine"] for row in plan["participants"]] == ["L4", HERE]
    assert plan["participants"][0]["range"][0] <= plan["participants"][0]["seconds"]["work"]
    everybody = planned(path, machine="H100 SXM")
    assert everybody["machine"] is None  # nothing was probed
    assert {row["machine"] for row in everybody["participants"]} == {"H100 SXM"}
    with refused(ConfigError, "device-unknown", nearest="L40S"):
        planned(path, machine="L40X")


def declare(path: Path, name: str, line: str) -> None:
    file = path.parent / "participants" / f"{name}.toml"
    file.write_text(file.read_text().replace("[hardware]", f"[hardware]\n{line}"))


def test_a_simulation_teaches_only_this_machine(
    make_federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEQUIO_CACHE", str(tmp_path / "cache"))
    path = make_federation(rows=40, centre=False)
    declare(path, "site0", 'device = "L4"')
    plan = planned(path)
    start(load_federation(path), tmp_path / "run", False)
    found = compare(plan, tmp_path / "run")
    assert found["simulation"]
    assert not_learnt(found) == ["L4"]
    rows = {row["name"]: row for row in found["participants"]}
    assert (rows["site0"]["alike"], rows["site1"]["alike"]) == (False, True)
    assert (found["ratio"], found["joules_ratio"]) == (
        rows["site1"]["ratio"],
        rows["site1"]["joules_ratio"],
    )
    assert (
        compare({**plan, "participants": [plan["participants"][0]]}, tmp_path / "run")["ratio"]
        is None
    )
    assert (
        set(recalibrate(plan, found))
        == set(
            known_factors(calibration_key(plan["base"]["digest"], plan["threads"], plan["card"]))
        )
        == {HERE}
    )
    page = render_plan(plan | {"after": found | {"factors": {}, "not_learnt": ["L4"]}}, "en")
    assert "Not learnt: L4." in page
    network = found | {"simulation": False}
    assert not_learnt(network) == [HERE]
    ratio = next(row["ratio"] for row in found["participants"] if row["machine"] == "L4")
    assert recalibrate(plan, network) == {"L4": pytest.approx(ratio)}


def test_who_was_cut_by_a_budget_teaches_nothing(make_federation: Any, tmp_path: Path) -> None:
    path = make_federation(rows=40, centre=False)
    plan = planned(path)
    file = path.parent / "participants" / "site0.toml"
    file.write_text(file.read_text() + "\n[budget]\nkwh = 1e-12\n")
    start(load_federation(path), tmp_path / "run", False)
    found = compare(plan, tmp_path / "run")
    rows = {row["name"]: row for row in found["participants"]}
    assert [(rows[name]["cut"], rows[name]["alike"]) for name in ("site0", "site1")] == [
        (True, False),
        (False, True),
    ]
    assert teachers(found) == {HERE: [rows["site1"]["ratio"]]}
    assert found["ratio"] == rows["site1"]["ratio"]
    assert "cut by a budget" in render_plan(
        plan | {"after": found | {"factors": {}, "not_learnt": []}}, "en"
    )


def test_rounds_of_the_centre_alone_and_of_a_cohort_are_counted(make_federation: Any) -> None:
    def works(path: Path) -> dict[str, Any]:
        config = load_federation(path)
        roster = read_participants(config)
        setup = build(config, participants=roster)
        return {
            node.name: estimate_work(config, setup, node, roster[node.name][0])
            for node in setup.participants
        }

    late = works(make_federation(folder="late", centre={"first": 2}, train={"rounds": 5}))
    assert {(work.rounds, work.evaluations) for work in late.values()} == {(3, 4)}
    drawn = works(make_federation(folder="drawn", participants=4, train={"rounds": 6, "cohort": 2}))
    assert [work.rounds for work in drawn.values()] == [3, 3, 3, 3]  # on average
    assert sorted(work.evaluations for work in drawn.values()) == [
        0,
        0,
        7,
        7,
    ]  # the panel stays the same


def test_a_lever_changes_what_it_names(make_federation: Any) -> None:
    """A slow line is mended by a faster one, and not by a faster machine; also where no speed is
    declared.
    """
    path = make_federation(rows=40, centre=False)
    declare(path, "site1", "uplink_mbit = 0.001")  # rank 2: the weakest
    weak = planned(path)["weakest"]
    levers = {lever["what"]["code"]: lever for lever in weak["levers"]}
    assert weak["name"] == "site1"
    assert levers["lever-uplink"]["round_seconds"] == pytest.approx(
        0.5 * weak["round_seconds"], rel=0.05
    )
    assert levers["lever-faster"]["round_seconds"] == pytest.approx(weak["round_seconds"], rel=0.05)
    more = levers["lever-rank"]
    assert (more["rank"], more["round_seconds"]) == (
        4,
        pytest.approx(2.0 * weak["round_seconds"], rel=0.05),
    )


def test_energy_is_of_each_ones_own_rated_power(make_federation: Any) -> None:
    path = make_federation(rows=40, centre=False)
    declare(path, "site0", "tdp_watts = 50")
    declare(path, "site1", "tdp_watts = 200")
    rows = planned(path)["participants"]
    ratio = 1.0 if open_meter().method == "rapl" else 4.0  # counters win over what is stated
    assert rows[1]["watts"] / rows[0]["watts"] == pytest.approx(ratio, rel=0.02)
    for row in rows:
        assert row["joules"] == pytest.approx(row["watts"] * row["seconds"]["work"])


def test_budgets_and_declared_speeds_stand_beside_the_forecast(make_federation: Any) -> None:
    path = make_federation(rows=40, centre=False, budget={"megabytes": 1e3})
    declare(path, "site0", "tokens_per_second = 100")
    file = path.parent / "participants" / "site1.toml"
    file.write_text(file.read_text() + "\n[budget]\nhours = 1e-6\nkwh = 1e3\n")
    assert {row["who"] for row in planned(path)["budgets"]} == {
        None
    }  # those of participants are private
    plan = planned(path, own=True)
    rows = {(row["who"], row["key"]): row for row in plan["budgets"]}
    assert set(rows) == {(None, "megabytes"), ("site1", "hours"), ("site1", "kwh")}
    people = {row["name"]: row for row in plan["participants"]}
    sent = sum(row["bytes_up"] + row["bytes_down"] for row in people.values())
    assert (
        rows[None, "megabytes"]["rounds"]
        == rows[None, "megabytes"]["whole"]
        == pytest.approx(sent / 1e6)
    )
    work = people["site1"]["seconds"]["train"] + people["site1"]["seconds"]["evaluate"]
    assert rows["site1", "hours"]["ratio"] == pytest.approx(work / 3600 / 1e-6)
    whole = people["site1"]["seconds"]["work"]
    assert rows["site1", "hours"]["whole_ratio"] == pytest.approx(
        whole / 3600 / 1e-6
    )  # personal models too
    assert rows["site1", "kwh"]["whole_ratio"] < 1
    [own] = plan["declared"]
    assert own["name"] == "site0"
    member = people["site0"]
    assert (
        own["seconds"] > member["rounds"] * member["steps"] * 8 * 4 / 100
    )  # batches of 8 texts of more than 4 tokens
    page = render_plan(plan, "en")
    assert all(
        text in page
        for text in ("over by ×", "within", "all together", "that the participants declare")
    )
    assert planned(path, machine="L4")["declared"] == []


def test_what_participants_keep_private_is_in_no_plan_but_an_own_one(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(rows=40, participants=3, centre=False)
    tables = {
        "site0": '[money]\ncurrency = "VND"\nper_kwh = 1234567.0\n[energy]\ncountry = "NO"\ntell = '
        "false\n[budget]\nkwh = 0.00765\n",
        "site1": '[money]\ncurrency = "EUR"\nper_kwh = 0.3\ntell = true\n[energy]\ncountry = "DE"\n',
    }
    for name, text in tables.items():
        file = path.parent / "participants" / f"{name}.toml"
        file.write_text(f"{file.read_text()}\n{text}")
    for own in (False, True):
        plan = planned(path, own=own)
        rows = {row["name"]: row for row in plan["participants"]}
        page = write_plan(tmp_path / str(own), plan, "en")
        written = [(page.parent / "plan.json").read_text(), page.read_text()]
        for text in written:
            assert ("VND" in text, "0.00765" in text) == (own, own)
            assert "EUR" in text
        assert (rows["site0"]["money"] is not None, rows["site0"]["grams"] is not None) == (
            own,
            own,
        )
        assert plan["total"]["priced"] == [2 if own else 1, 3]
        assert ("(for 2 of 3)" in written[1], "(for 1 of 3)" in written[1]) == (own, not own)
        assert "money" not in plan["axes"]
        assert rows["site1"]["money"] is not None
        assert rows["site1"]["grams"] is not None
        assert plan["private"] == ({} if own else {"site0": ["carbon", "money", "own-budget"]})
        assert ("do not pass it on" in written[1]) == own


def test_pages_with_private_figures_are_their_owners_alone_and_none_stays_behind(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(rows=40, centre=False)
    file = path.parent / "participants" / "site0.toml"
    file.write_text(f'{file.read_text()}\n[money]\ncurrency = "VND"\nper_kwh = 1234567.0\n')
    before = os.umask(0o022)
    try:
        write_plan(tmp_path, planned(path, own=True), "es")
        pages = [tmp_path / "plan.json", tmp_path / "plan.es.html"]
        assert [page.stat().st_mode & 0o777 for page in pages] == [0o600, 0o600]
        assert all("VND" in page.read_text() for page in pages)
        pages.append(write_plan(tmp_path, planned(path, own=False), "en"))
    finally:
        os.umask(before)
    assert sorted(tmp_path.glob("plan.*")) == sorted(pages)
    assert [page.stat().st_mode & 0o777 for page in pages] == [0o644, 0o644, 0o644]
    assert not any("VND" in page.read_text() for page in pages)


def test_an_unknown_device_says_whose(make_federation: Any) -> None:
    path = make_federation(rows=40, centre=False)
    declare(path, "site1", 'device = "L40X"')
    with refused(ConfigError, "device-unknown", nearest="L40S"):
        planned(path)


def test_break_even_counts_the_tariff(make_federation: Any) -> None:
    path = make_federation(rows=40, centre=False)
    cheap = {r["device"]: r["hours"] for r in planned(path, machine="L4")["break_even"]}
    dear = {r["device"]: r["hours"] for r in planned(path, machine="L4", tariff=0.3)["break_even"]}
    rent, buy = (2.69 * 12.29) ** 0.5, 1000 * (22 * 30) ** 0.5
    assert cheap["H100 SXM"] == pytest.approx(buy / rent)
    assert dear["H100 SXM"] == pytest.approx(buy / (rent - 0.7 * 0.3))


def test_a_participants_own_record_is_not_what_a_plan_is_held_against(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger.sqlite", {"facts": {"spec": "x"}}):
        pass
    with refused(RunError, "record-of-participant"):
        compare({}, tmp_path)
