"""[shift] in real small runs: same tensors, other hours; sitting out; resuming; what is refused
before anything is loaded.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import records
from tequio.app.simulation.run import resume, start
from tequio.cli.accounts import accounts as command
from tequio.config import load_federation
from tequio.core.errors import ConfigError, RunError
from tequio.core.reason import Reason
from tequio.participant.accounts import read_account_books
from tequio.report.data.summary import summary
from tequio.report.html.report import render

SHIFT = {"start": "2026-03-03T00:00:00Z", "deadline_hours": 24.0, "work_hours": 2.0}


def test_shifted_and_at_once_the_model_is_the_same_and_the_carbon_is_not(
    make_shifted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {}
    for policy in ("greedy", "none"):
        runs[policy] = tmp_path / f"run-{policy}"
        start(load_federation(make_shifted(policy, policy=policy)), runs[policy], False)
    entries, greedy = records(runs["greedy"])
    _, plain = records(runs["none"])
    assert [b["digest"] for b in greedy["round"]] == [
        b["digest"] for b in plain["round"]
    ]  # to the bit
    first = greedy["round"][0]["shift"]
    # of the day before it is known when the sun shines: from nine on, and the wind blows at once
    assert {w["name"]: (w["hours"], w["intensity"]) for w in first["work"]} == {
        "centre": ([["2026-03-03T09:00:00+00:00", 7200.0]], 100.0),
        "site0": ([["2026-03-03T09:00:00+00:00", 7200.0]], 100.0),
        "site1": ([["2026-03-03T00:00:00+00:00", 7200.0]], 200.0),
    }
    assert first["ended"] == "2026-03-03T11:00:00+00:00"
    assert (
        plain["round"][2]["shift"]["ended"]
        == greedy["round"][2]["shift"]["clock"]["plain"]
        == "2026-03-03T06:00:00+00:00"
    )
    row = next(r for r in greedy["round"][0]["train"] if r["name"] == "site0")
    assert (row["energy"]["intensity"], row["energy"]["began"]) == (
        100.0,
        "2026-03-03T09:00:00+00:00",
    )
    assert (
        greedy["round"][0]["evaluation"][0]["energy"]["intensity"] == 100.0
    )  # at the end of the round
    assert (
        greedy["round"][0]["energy"]["intensity"] == 100.0
    )  # the coordinator's: the centre then, the rest at the end
    assert greedy["personal"][0]["energy"]["intensity"] is not None
    assert {
        line["intensity"]
        for line in read_account_books(runs["greedy"])["site1"]
        if line["work"] == "train"
    } >= {200.0}
    found = summary(entries)["shift"]
    own = {p["name"]: p for p in found["participants"]}
    joules = [r["joules"] for b in greedy["round"] for r in b["train"] if r["name"] == "site0"]
    assert own["site0"]["grams"] == pytest.approx(sum(joules) / 3.6e6 * 100.0)
    assert own["site0"]["at_once"] == pytest.approx(sum(joules) / 3.6e6 * 400.0)
    assert own["site0"]["saved"] == pytest.approx(0.75)
    assert own["site0"]["hours"] == pytest.approx(6.0)
    assert summary(records(runs["none"])[0])["shift"]["total"]["saved"] == 0.0
    command(runs["greedy"])
    said = capsys.readouterr().out
    assert "75.0 %" in said
    assert "would have ended at 2026-03-03T06:00:00" in said
    assert "Work at greener hours" in render(entries, "en")
    assert "horas más verdes" in render(entries, "es")


def test_a_budget_lets_some_sit_out_and_never_below_the_minimum(
    make_shifted: Any, tmp_path: Path
) -> None:
    # a round of 2 h at 100 W: site0 20 g, site1 40 or 100 g
    path = make_shifted(kg_co2e=0.16, minimum=0.3)
    start(load_federation(path), tmp_path / "run", False)
    entries, kinds = records(tmp_path / "run")
    found = summary(entries)["shift"]
    own = {p["name"]: p for p in found["participants"]}
    assert own["site0"]["rounds"] == 3
    assert 1 <= own["site1"]["rounds"] < 3
    assert own["site1"]["rested"] == 3 - own["site1"]["rounds"]
    assert found["budget"]["spent"] <= 0.16
    rested = [body for body in kinds["round"] if body["shift"]["rested"]]
    assert all("site1" not in {r["name"] for r in body["train"]} for body in rested)
    assert all(
        "site1" in body["validation"] for body in rested
    )  # it still says how good the shared model is for it


def test_a_run_cut_off_goes_on_with_the_same_hours(make_shifted: Any, tmp_path: Path) -> None:
    path = make_shifted(kg_co2e=0.16, minimum=0.3)
    whole = start(load_federation(path), tmp_path / "whole", False)

    def cut(stage: str, what: str, done: int, of: int) -> None:
        if what.startswith("round 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(load_federation(path), tmp_path / "cut", False, watch=cut)
    assert len(records(tmp_path / "cut")[1]["round"]) == 1
    again = resume(tmp_path / "cut")
    assert again.end["outcome"] == whole.end["outcome"]
    first, second = (records(tmp_path / name)[1]["round"] for name in ("whole", "cut"))
    assert [b["shift"] for b in first] == [b["shift"] for b in second]


def test_a_run_goes_on_with_the_same_intensities_only(make_shifted: Any, tmp_path: Path) -> None:
    path = make_shifted()

    def cut(stage: str, what: str, done: int, of: int) -> None:
        if what.startswith("round 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(load_federation(path), tmp_path / "run", False, watch=cut)
    shutil.copy(path.parent / "site0.csv", path.parent / "site1.csv")
    with pytest.raises(RunError, match="the intensities of participant site1"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"start": "2026-03-03T00:00:00"}, "has no time zone"),
        ({"slot_minutes": 7}, "whole number of slots"),
        (
            {"start": "2026-03-09T12:00:00Z"},
            "does not cover the simulated time.*3 rounds need 2026-03-09T12:00:00Z to",
        ),
        ({"deadline_hours": 1.5}, "deadline_hours = 1.5 is shorter than the work of site0"),
        ({"kg_co2e": 0.05}, "is too small for the minimum"),
    ],
)
def test_what_cannot_be_is_refused(
    make_shifted: Any, tmp_path: Path, shift: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        start(load_federation(make_shifted(**({"minimum": 0.9} | shift))), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_participants_that_cannot_be_counted_are_named(make_shifted: Any, tmp_path: Path) -> None:
    def refused(path: Path) -> Reason | None:
        with pytest.raises(ConfigError) as caught:
            start(load_federation(path), tmp_path / "run", False)
        return caught.value.reason

    path = make_shifted(tail="", kg_co2e=1.0)
    assert refused(path) == Reason("shift-power", {"who": "site0"})
    path = make_shifted("slow")
    path.write_text(path.read_text().replace("work_hours = 2.0\n", ""))
    key = "[hardware] tokens_per_second to its participant.toml"
    assert refused(path) == Reason("shift-speed", {"who": "site0", "key": key})
    path = make_shifted("silent")
    file = path.parent / "participants" / "site1.toml"
    whole = file.read_text()
    file.write_text(whole + "tell = false\n")
    assert refused(path) == Reason("shift-private", {"who": "participant site1"})
    file.write_text(whole.split("[energy]")[0])
    assert refused(path) == Reason("shift-place", {"who": "participant site1"})


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"topology": {"kind": "ring"}, "centre": False},
            "shift: rounds are those of a coordinator",
        ),
        (
            {"train": {"pace": "buffered", "round_seconds": 1.0}},
            "shift: rounds are those of a coordinator",
        ),
        ({"train": {"cohort": 1}, "shift": SHIFT | {"kg_co2e": 1.0}}, "so does train.cohort"),
    ],
)
def test_what_it_does_not_go_with(
    make_federation: Any, sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_federation(make_federation(**({"shift": SHIFT} | sections)))
