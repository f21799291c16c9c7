"""The report's summary, on the page and in the terminal: its numbers, and what it says where
something is missing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from made_runs import Shape, chained, made_run
from pages import NO_VERDICT, SHAPES, Page, hand_made, row_of

from tequio.cli.summary import print_summary
from tequio.core.texts.words import Words
from tequio.report.html.report import render, summary


def test_summary_of_numbers_known_by_hand() -> None:
    """Three participants: benefits 0.2, 0.0 and −0.1 of a local loss of 1; intervals ±0.05, 0 and
    ±0.05.
    """
    found = summary(hand_made())
    assert found["comparison"] == "local"
    assert found["verdicts"] == NO_VERDICT | {"gains": 1, "kept_local": 1, "loses": 1}
    assert found["kept_local"] == 1
    assert found["mean"]["gain"]["loss"] == pytest.approx(0.1 / 3)
    assert found["mean"]["gain"]["relative"] == pytest.approx(0.1 / 3)
    equity = found["equity"]
    assert equity["worst_decile"] == pytest.approx(-0.1)
    assert equity["share_positive"] == pytest.approx(1 / 3)
    assert equity["spearman_rank"] == pytest.approx(
        -1.0
    )  # ranks 2, 4, 8 with benefits 0.2, 0, −0.1
    assert equity["left_behind"] == "few"  # |−1| is not above 1.96/√2 = 1.39
    assert equity["gini"] == pytest.approx(
        0.6 / 8.7
    )  # Σ|xᵢ−xⱼ| over pairs of 0.8, 1, 1.1 = 0.6; n·Σx = 8.7
    assert equity["jain"] == pytest.approx(2.9**2 / (3 * (0.64 + 1 + 1.21)))
    cost = found["cost"]
    assert (cost["bytes_up"], cost["bytes_down"]) == (
        600,
        3000,
    )  # the centre's own bytes do not travel
    assert cost["joules"] == pytest.approx(20 + 100 + 3 * 10)
    assert cost["uncertainty"] == pytest.approx((100 * 0.4 + 50 * 0.1) / 150)
    assert cost["seconds"] == pytest.approx(4 + 12 + 3 * 2)
    assert cost["elapsed"] is None  # nothing says when the personal models were made
    assert found["rounds"]["best"] == 1
    json.dumps(found, allow_nan=False)


def test_the_sum_of_participants_bytes_is_the_total() -> None:
    found = summary(made_run(Shape(people=30)))
    assert sum(p["bytes_up"] for p in found["participants"]) == found["cost"]["bytes_up"]
    assert sum(p["bytes_down"] for p in found["participants"]) == found["cost"]["bytes_down"]


def test_refused_and_failed_updates_are_listed() -> None:
    found = summary(made_run(Shape()))
    assert [(r["status"], r["rounds"]) for r in found["refused"]] == [("failed", [3])]
    assert found["rounds"]["rejected"] == 1
    text = Page(render(made_run(Shape()), "en")).text
    assert "One update did not enter its round." in text
    assert "general model worse on news" in text
    assert "all participants ran on one machine" in text


def test_alarms_are_listed_where_there_are_any() -> None:
    """Two rounds with the same alarm are one row, with the last figure; without an alarm there is
    no such table.
    """
    rows = [
        {"name": "bob", "alarm": "cosine", "figure": f, "limit": 0.0, "action": "record"}
        for f in (-0.5, -0.25)
    ]
    rounds = [
        ("round", {"round": i, "accepted": True, "alarms": [row]}) for i, row in enumerate(rows, 1)
    ]
    run = chained([("run", {"participants": [{"name": "bob"}]}), *rounds])
    expected = {
        "name": "bob",
        "alarm": "cosine",
        "action": "record",
        "rounds": [1, 2],
        "figure": -0.25,
        "limit": 0.0,
    }
    assert summary(run)["alarms"] == [expected]
    for lang, title, done in (
        ("en", "Alarms of the screening", "noted, and counted"),
        ("es", "Alarmas de la revisión", "contó"),
    ):
        text = Page(render(run, lang)).text  # type: ignore[arg-type]
        assert title in text
        assert done in text
        assert title not in Page(render(made_run(Shape()), lang)).text  # type: ignore[arg-type]


def test_without_local_models_the_base_is_the_yardstick() -> None:
    bodies = [
        (e.kind, json.loads(json.dumps(e.body))) for e in made_run(Shape(counterfactuals=False))
    ]
    for kind, body in bodies:
        if kind == "personal":
            body["test"]["local"] = body["benefit"] = None
            body["gains"]["personal_over_local"] = body["gains"]["shared_over_local"] = None
    found = summary(chained(bodies))
    assert found["comparison"] == "base"
    assert found["equity"]["participants"] == 7
    assert "It was not measured whether each would have done as well alone." in render(
        chained(bodies), "en"
    )


def test_whom_a_budget_left_no_model_trained_alone_is_not_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of three one gained; the other two are in no verdict, mean or index."""
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in hand_made()]
    personal = [body for kind, body in bodies if kind == "personal"]
    for body in personal[1:]:
        nothing = {"loss": None, "accuracy": None}
        body |= {
            "cut": "local 0 of 42 steps: no more fit the budget of energy",
            "benefit": None,
            "chosen": "local",
        }
        body["gains"] |= {"personal_over_local": nothing, "shared_over_local": nothing}
    entries = chained(bodies)
    found = summary(entries)
    assert found["verdicts"] == NO_VERDICT | {"gains": 1, "unknown": 2}
    assert (found["not_compared"], found["kept_local"]) == (2, 0)
    assert (found["mean"]["gain"]["relative"], found["equity"]["participants"]) == (
        pytest.approx(0.2),
        1,
    )
    assert found["mean"]["loss"]["local"] == pytest.approx(1.0)
    page = Page(render(entries, "en"))
    assert "Joining paid for 1 of the 1 that can be compared. For 2, this is not known" in page.text
    assert row_of(page, "b")[1].startswith("not known")
    assert (
        Words("en")("personal.short", name="b", how="local 0 of 42 steps").rstrip(".") in page.text
    )
    assert "Unirse valió la pena para 1 de los 1" in render(entries, "es")
    print_summary(Path("run"), Path("report"), found)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("not comparable (local)") == 2
    short = Words("en")("personal.short", name="b", how="local 0 of 42 steps").rstrip(".")
    assert short in printed
    print_summary(Path("run"), Path("report"), found, "es")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("no comparable (local)") == 2
    assert Words("es")("personal.short", name="b", how="local 0 of 42 steps").rstrip(".") in printed


def test_where_a_budget_cut_everybody_the_report_says_that_gains_are_over_the_base() -> None:
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in hand_made()]
    for body in (body for kind, body in bodies if kind == "personal"):
        body["gains"]["personal_over_base"] = body["gains"]["personal_over_local"]
        nothing = {"loss": None, "accuracy": None}
        body |= {"cut": "local 0 of 42 steps: no more fit the budget of energy", "benefit": None}
        body["gains"] |= {"personal_over_local": nothing, "shared_over_local": nothing}
    entries = chained(bodies)
    found = summary(entries)
    assert (found["comparison"], found["comparison_cut"], found["not_compared"]) == (
        "base",
        True,
        0,
    )
    assert [person["versus"] for person in found["participants"]] == ["base"] * 3
    page = Page(render(entries, "en"))
    assert (
        "It is not known whether joining beat training alone: because of a budget, no participant"
        in page.text
    )
    assert page.text.count("So its gain is over the base model: local 0 of 42 steps") == 3
    assert "por un presupuesto, ningún participante tiene un modelo entrenado a solas" in render(
        entries, "es"
    )


ENGLISH = re.compile(
    r"\b(the|and|of|gain|over|rank|shared|undecided|loses|gains|Energy|Report|rounds|not|with|its)\b"
)


@pytest.mark.parametrize("name", SHAPES)
def test_the_summary_in_the_terminal_follows_the_language(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is quoted from the record (reasons, names of runs and commands) stays as it is written
    there.
    """
    found = summary(made_run(SHAPES[name]))
    print_summary(Path("r"), Path("p.html"), found, "es")
    printed = (
        capsys.readouterr()
        .out.replace(str(found["name"]), "")
        .replace(str(found["rounds"]["stopped"]), "")
    )
    printed = re.sub(r"tequio [a-z]+( --[a-z]+)? r\b", "", printed)
    assert ENGLISH.findall(printed) == []
    assert "con los datos de prueba de cada participante" in " ".join(printed.split())
    assert "Informe: p.html" in printed
    print_summary(Path("r"), Path("p.html"), found)
    assert "Report: p.html" in capsys.readouterr().out


def test_a_participants_own_record_is_finished_with_its_personal_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never `run --resume` for it; whoever left has nothing to go on with."""
    bodies = [(e.kind, dict(e.body)) for e in hand_made() if e.kind in ("run", "personal")][:2]
    bodies[0][1]["facts"] = {"spec": "x"}
    (tmp_path / "identity.json").write_text("{}")
    for retained, folder, words in (
        (bodies, "run", ""),
        (bodies[:1], "run", f"Resume with: tequio participate {tmp_path}"),
        (
            [bodies[0], ("personal", bodies[1][1] | {"alone": True})],
            "run",
            f"tequio participate {tmp_path}",
        ),
        (bodies[:1], "bundle", Words("en")("say.unfinished.left")),
    ):
        found = summary(chained(retained))
        assert found["finished"] is (words == "")
        assert ("This run is not finished." in render(chained(retained), "en")) is (words != "")
        print_summary(tmp_path / folder, Path("report"), found)
        printed = capsys.readouterr().out
        assert words in printed
        assert "--resume" not in printed
        assert "not finished" not in printed


def test_records_in_the_form_that_the_coordinator_writes() -> None:
    """Energy inside the `train` rows, refusals called `refused`, gains of slices by measure."""
    energy = {
        "joules": 5.0,
        "seconds": 2.0,
        "method": "model",
        "boundary": "cpu package",
        "uncertainty": 0.4,
    }
    rows = [{"name": "a", "bytes_up": 1, "bytes_down": 1, "energy": energy}]
    refused = [{"name": "b", "status": "refused", "reason": "it holds NaN or infinite numbers"}]
    accuracy = {"mean": 0.1, "low": 0.05, "high": 0.2}
    scores = {"loss": 1.0, "accuracy": 0.5, "examples": 10}
    found = summary(
        chained(
            [
                ("run", {"participants": [{"name": "a"}, {"name": "b"}]}),
                ("round", {"round": 1, "accepted": True, "train": rows, "admissions": refused}),
                (
                    "general",
                    {
                        "s": {
                            "base": scores,
                            "shared": scores,
                            "gain": {"loss": None, "accuracy": accuracy},
                        }
                    },
                ),
            ]
        )
    )
    assert found["cost"]["joules"] == 5.0
    assert found["participants"][0]["seconds"] == 2.0
    assert found["refused"] == [
        {**refused[0], "reason": {"code": "not-finite", "facts": {}}, "rounds": [1]}
    ]
    assert found["general"]["better"] == 1
