"""Verdicts, choices, classes, notes on data, time and gate in the report, from records made by
hand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from made_runs import Shape, chained, made_run

from tequio.cli.summary import print_summary
from tequio.core.texts.words import Words
from tequio.ledger.chain import Entry
from tequio.report.data.candidates import candidates, data_notes
from tequio.report.data.elapsed import elapsed, union
from tequio.report.data.rounds import detectable
from tequio.report.data.summary import summary
from tequio.report.data.verdicts import outcome
from tequio.report.html.report import render

LANGS: tuple[Literal["en", "es"], ...] = ("en", "es")


def scores(right: int, n: int, loss: float = 0.5) -> dict[str, Any]:
    return {"loss": loss, "accuracy": right / n, "examples": n}


def personal(
    pairs: tuple[int, int, int, int] | None, chosen: str = "shared", **more: Any
) -> dict[str, Any]:
    """A record of today: both right, only the personal model, only the local one, neither;

    None: of before, 46 and 49 of 60.
    """
    both, better, worse, neither = pairs or (40, 6, 9, 5)
    n = both + better + worse + neither
    gain: dict[str, Any] = {
        "loss": {"mean": 0.02, "low": -0.1, "high": 0.14},
        "accuracy": {"mean": (better - worse) / n, "low": -0.175, "high": 0.075},
    }
    if pairs is not None:
        gain |= {
            "pairs": {"both": both, "better": better, "worse": worse, "neither": neither},
            "log_ratio": {"mean": 0.04, "low": -0.2, "high": 0.3},
        }
    test = {"local": scores(both + worse, n), "personal": scores(both + better, n, 0.48)}
    return {
        "name": "a",
        "chosen": chosen,
        "test": test,
        "gains": {"personal_over_local": gain},
        **more,
    }


def run_of(*bodies: dict[str, Any], kind: str = "classification", **run: Any) -> list[Entry]:
    people = [{"name": body["name"]} for body in bodies]
    header = {"participants": people, "task": {"kind": kind, "labels": ["no", "yes"]}} | run
    return chained([("run", header), *[("personal", body) for body in bodies]])


@pytest.mark.parametrize(
    ("pairs", "chosen", "verdict"),
    [
        ((40, 15, 1, 4), "shared", "gains"),
        ((40, 1, 15, 4), "shared", "loses"),
        ((40, 6, 9, 5), "shared", "too_few"),
        ((40, 6, 9, 5), "local", "kept_local"),
        ((4500, 6, 9, 485), "shared", "no_difference"),
    ],
)
def test_each_verdict_from_counts(
    pairs: tuple[int, int, int, int], chosen: str, verdict: str
) -> None:
    found = summary(run_of(personal(pairs, chosen)))
    (person,) = found["participants"]
    assert person["verdict"] == verdict
    assert found["verdicts"][verdict] == sum(found["verdicts"].values()) == 1
    assert person["outcome"]["estimated"] is False
    assert (person["outcome"]["needed"] is None) is (verdict != "too_few")


def test_counts_lead_on_the_page_and_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    entries = run_of(personal((40, 6, 9, 5)))
    words = "49 of 60 right when trained alone, 46 of 60 with the model it keeps"
    needed = re.compile(r"About [\d,]+ test texts would be needed to show a difference of 5 points")
    page = render(entries, "en")
    assert words in page
    assert needed.search(page)
    assert "49 → 46" in page
    assert "49 de 60 correctos a solas, 46 de 60 con el modelo que conserva" in render(
        entries, "es"
    )
    print_summary(Path("run"), Path("report"), summary(entries))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"a: {words}. About" in printed
    assert needed.search(printed)
    assert "too few test texts to tell (shared)" in printed


def test_one_model_under_two_names_is_no_difference_and_has_no_interval() -> None:
    """A participant whose local and shared model are both the base."""
    body = personal((3, 0, 0, 2))
    body["test"]["personal"] = body["test"]["local"]
    body["gains"]["personal_over_local"]["loss"] = dict.fromkeys(("mean", "low", "high"), 0.0)
    (person,) = summary(run_of(body))["participants"]
    assert person["verdict"] == "no_difference"
    assert set(person["outcome"]["effect"].values()) == {0.0}


def test_the_smallest_effect_is_that_of_the_federation() -> None:
    """Of 1,000 texts the interval is about ± 1.4 points: within ± 2 points, not within ± 1."""
    body = personal((900, 26, 24, 50))
    assert summary(run_of(body))["participants"][0]["verdict"] == "too_few"
    found = summary(run_of(body, config={"equity": {"smallest_effect": 0.02}}))
    assert (found["smallest_effect"], found["participants"][0]["verdict"]) == (
        0.02,
        "no_difference",
    )


def test_an_old_record_is_judged_by_counts_that_fit_its_interval() -> None:
    """46 of 60 against 49 of 60, ± 12.5 points: b + c = 60·(60·(0.125/1.96)² + 0.05²) = 14.8, so 6
    and 9.
    """
    (person,) = summary(run_of(personal(None)))["participants"]
    found = person["outcome"]
    assert found["pairs"] == {"both": 40, "better": 6, "worse": 9, "neither": 5}
    assert (found["estimated"], person["verdict"]) == (True, "too_few")
    assert "An earlier version of Tequio recorded this run" in render(run_of(personal(None)), "en")


def test_no_fall_of_a_loss_passes_100_percent() -> None:
    """An old interval of the difference that reaches 4 times the loss; and a new one on the log
    ratio.
    """
    wide = {"loss": {"mean": 0.6, "low": -2.0, "high": 4.0}, "accuracy": None}
    test = {"local": {"loss": 1.0, "examples": 12}, "personal": {"loss": 0.4, "examples": 12}}
    for gain in (
        wide,
        wide | {"log_ratio": {"mean": 0.92, "low": -1.1, "high": 9.0}, "pairs": None},
    ):
        body = {"chosen": "shared", "test": test, "gains": {"personal_over_local": gain}}
        found = outcome(body, "local", True, 0.01)
        assert found["verdict"] == "too_few"
        assert found["effect"]["low"] < 0 < found["effect"]["mean"] < found["effect"]["high"] <= 1.0


def test_losses_without_a_bounded_ratio_are_too_few_without_a_number() -> None:
    gain = {
        "loss": {"mean": 0.6, "low": 0.2, "high": 4.0},
        "accuracy": None,
        "log_ratio": None,
        "pairs": None,
    }
    test = {"local": {"loss": 1.0, "examples": 3}, "personal": {"loss": 0.4, "examples": 3}}
    body = {"name": "a", "chosen": "shared", "test": test, "gains": {"personal_over_local": gain}}
    found = outcome(body, "local", True, 0.01)
    assert (found["verdict"], found["effect"], found["needed"]) == ("too_few", None, None)
    assert "too few test texts" in render(run_of(body, kind="causal"), "en")


def test_elapsed_time_is_that_on_the_clock_beside_the_sum_of_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rounds 100 s; two personal models of 60 s, begun 20 s apart: 180 s on the clock, 220 s of
    work.
    """
    bodies = [
        personal(
            (40, 6, 9, 5),
            seconds=60.0,
            energy={"joules": 9.0, "began": f"2026-11-30T10:00:{second}+00:00"},
        )
        | {"name": name}
        for name, second in (("a", "00"), ("b", "20"))
    ]
    entries = run_of(*bodies)
    entries = chained(
        [(e.kind, dict(e.body)) for e in entries[:1]]
        + [("round", {"round": 1, "seconds": 100})]
        + [(e.kind, dict(e.body)) for e in entries[1:]]
    )
    cost = summary(entries)["cost"]
    assert (cost["elapsed"], cost["seconds"]) == (180.0, 220.0)
    assert (
        "The run took 3\u00a0min on the clock (all work added up, parallel or not, is 3\u00a0min "
        "40\u00a0s)" in (render(entries, "en"))
    )
    print_summary(Path("run"), Path("report"), summary(entries))
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert "Time on the clock 3 min, sum of all work 3 min 40 s." in printed
    assert elapsed([], [{"seconds": 5.0}, {"seconds": 5.0}])["elapsed"] is None
    assert union([(0.0, 10.0), (5.0, 12.0), (20.0, 21.0)]) == 13.0


def test_the_choice_is_shown_with_its_rule() -> None:
    rows = {
        "base": scores(30, 60, 0.9),
        "local": scores(47, 60, 0.532),
        "shared": scores(47, 60, 0.506),
    }
    assert candidates({"chosen": "shared", "candidates": rows})["rule"] == "lowest_loss"
    rows["shared + 1 private"] = scores(48, 60, 0.5)
    found = candidates({"chosen": "shared", "candidates": rows})
    assert found["rule"] == "within_one_error"
    assert [row["name"] for row in found["rows"]] == [
        "base",
        "local",
        "shared",
        "shared + 1 private",
    ]
    assert [row["right"] for row in found["rows"]] == [30, 47, 47, 48]
    choice = {
        "rule": "within_one_error",
        "best": "shared + 1 private",
        "lead": 0.006,
        "error": 0.011,
    }
    page = render(run_of(personal((40, 6, 9, 5), candidates=rows, choice=choice)), "en")
    assert "by less than one standard error" in page
    assert "Its lead is 0.0060, the standard error 0.0110 (nats)." in page
    assert candidates({"chosen": ["x"], "candidates": {"base": 3}})["rows"] == []


CLASSES = {
    "balanced_accuracy": {"base": 0.5, "local": 0.5, "shared": 0.8, "personal": 0.83},
    "macro_f1": {"base": 0.49, "local": 0.49, "shared": 0.7, "personal": 0.71},
    "baseline": {"label": 0, "accuracy": 0.83, "balanced_accuracy": 0.5},
    "support": [50, 10],
    "right": {"local": [[46, 50], [0, 4]], "personal": [[43, 43], [6, 10]]},
    "confusion": [[0, 0, 43], [0, 1, 7]],
}


def test_classes_are_shown_beside_the_trivial_baseline() -> None:
    page = re.sub(r"<[^>]+>", "|", render(run_of(personal((40, 6, 9, 5), classes=CLASSES)), "en"))
    assert (
        "balanced accuracy of 50%. The models trained alone have 50%, the models that are kept 83%"
        in page
    )
    assert "always “no”: 83% right" in page
    cells = [cell for cell in page.split("|") if cell]
    yes = cells.index("yes")
    assert cells[yes + 1 : yes + 4] == ["10", "&lt;5", "6–10"]
    no = cells.index("no", cells.index("Mistaken for"))
    assert cells[no + 1 : no + 5] == ["50", "46–50", "43", "yes (7)"]


def test_broken_classes_are_left_out() -> None:
    for broken in (
        {},
        {"support": "x"},
        {"support": [1, 2, 3]},
        {"support": [None], "right": 3, "confusion": [[0, 9, 7], 4]},
    ):
        assert "Mistaken for" not in render(
            run_of(personal((40, 6, 9, 5), classes=broken)), "en"
        ) or broken.get("support") == [None]


DATA = {
    "rows": 40,
    "counts": {"train": 6, "validation": 2, "test": 2},
    "balance": {"train": {"no": 6}, "validation": {"no": 2}, "test": {"no": 2}},
    "dropped": {"conflicting_labels": 20, "duplicates": 10, "empty": 0, "broken_rows": 1},
    "cut": 10,
}


def test_what_was_left_out_and_cut_is_said_on_page_and_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    people = [{"name": "a", "data": DATA}]
    entries = run_of(
        personal((40, 6, 9, 5)), participants=people, config={"task": {"max_tokens": 24}}
    )
    said = (
        "31 of 40 rows were left out (20 because equal texts had two labels, 10 repeated, 1 for "
        "another reason (broken_rows)).",
        "10 of 10 texts were cut at 24 tokens: raise [task] max_tokens.",
        "Its training texts all have one class, so alone it can learn nothing else.",
        "One class has no test text here",
        "One class is rare: fewer than 5 test texts.",
    )
    page = re.sub(r"<[^>]+>", "", render(entries, "en"))
    print_summary(Path("run"), Path("report"), summary(entries))
    printed = " ".join(capsys.readouterr().out.split())
    for words in said:
        assert words in page
        assert words in printed
    print_summary(Path("run"), Path("report"), summary(entries), "es")
    assert "Se cortaron 10 de 10 textos a 24 tokens" in " ".join(capsys.readouterr().out.split())


def test_data_without_anything_to_mind_say_nothing() -> None:
    fine = DATA | {
        "dropped": {},
        "cut": 0,
        "balance": {s: {"no": 9, "yes": 9} for s in ("train", "test")},
    }
    assert Words("en")("notes.title") not in render(
        run_of(personal((40, 6, 9, 5)), participants=[{"name": "a", "data": fine}]), "en"
    )
    notes = data_notes(
        {"data": fine | {"balance": {"train": {"no": 5, "yes": 1}, "test": {"no": 9}}}},
        24,
        ["no", "yes", "so"],
    )
    assert (notes["missing"], notes["missing_test"], notes["rare_test"], notes["one_class"]) == (
        1,
        2,
        0,
        False,
    )


def test_the_smallest_rise_that_the_gate_would_have_rolled_back() -> None:
    """Half of the interval where it is wide, the limit where that is larger, four texts where all
    answers agree.
    """
    assert detectable(0.18, 40, 0.02) == 0.18
    assert detectable(0.01, 1000, 0.02) == 0.02
    assert detectable(0.0, 40, 0.02) == 0.1
    assert detectable(0.0, None, 0.02) == 0.02
    found = summary(made_run(Shape()))
    news = found["rounds"]["history"][0]["gate"]["news"]
    assert news["detectable"] == pytest.approx(0.024)  # the limit; half of the interval is 0.01
    assert found["general"]["slices"]["news"]["detectable"] == pytest.approx(0.04)
    for lang, words in (
        ("en", "No slice is shown to be worse."),
        ("es", "No hay evidencia de que ninguna parte haya empeorado."),
    ):
        page = render(made_run(Shape()), lang)  # type: ignore[arg-type]
        assert words in page
        assert "surely" not in page
    assert "news 4 points, reviews 4 points" in render(made_run(Shape()), "en")


def test_unmeasured_sections_are_one_line_that_names_the_setting() -> None:
    entries = run_of(personal((40, 6, 9, 5)), counterfactuals=False)
    for lang in LANGS:
        page = render(entries, lang)
        for key, setting in (
            ("general", "[gate] slices"),
            ("everybody", "tequio run --counterfactuals"),
        ):
            (part,) = re.findall(rf'<section id="{key}".*?</section>', page, re.S)
            assert setting in part
    (part,) = re.findall(r'<section id="general".*?</section>', render(entries, "en"), re.S)
    assert part.count("<p") == 1


def test_the_total_of_carbon_is_that_of_the_accounts_and_empty_columns_are_left_out() -> None:
    energy = {
        "joules": 3.6e6,
        "seconds": 10.0,
        "method": "rapl",
        "intensity": 100.0,
        "pue": 1.0,
        "uncertainty": 0.1,
    }
    body = personal((40, 6, 9, 5), energy=energy, seconds=10.0)
    first = run_of(body)[0]
    round_ = {
        "round": 1,
        "seconds": 20.0,
        "energy": energy | {"joules": 1.8e6},
        "train": [{"name": "a", "bytes_up": 5}],
    }
    entries = chained([("run", dict(first.body)), ("round", round_), ("personal", body)])
    found = summary(entries)
    assert found["accounts"]["total"]["grams"] == pytest.approx(150.0)
    (part,) = re.findall(r'<section id="cost".*?</section>', render(entries, "en"), re.S)
    total = re.sub(r"<[^>]+>", "|", part[part.index("Total") :])
    assert "150\u00a0g" in total
    assert ">Money<" not in part
    assert json.dumps(found, allow_nan=False)
