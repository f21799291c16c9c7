from __future__ import annotations

import json
import math
import re
import shutil
import string
import subprocess
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import Shape, chained, made_run

from tequio.cli.summary import print_summary
from tequio.ledger.chain import Entry
from tequio.report.data.records import wilson
from tequio.report.data.verdicts import VERDICTS
from tequio.report.format import Numbers, finite
from tequio.report.html.charts import scale
from tequio.report.html.markup import VOID, Safe, el
from tequio.report.html.report import render, summary
from tequio.report.text import WORDS, Words

Lang = Literal["en", "es"]
LANGS: tuple[Lang, ...] = ("en", "es")
NO_VERDICT = dict.fromkeys((*VERDICTS, "unknown"), 0)
SHAPES = {
    "classification": Shape(),
    "causal": Shape(causal=True, people=4, rounds=5, rejected=(), seed=3),
    "two hundred": Shape(people=200, rounds=6),
    "one, no counterfactuals": Shape(people=1, rounds=2, rejected=(), counterfactuals=False),
    "header only": Shape(stop_after="run"),
    "base scored": Shape(stop_after="start"),
    "three rounds": Shape(stop_after="round", rounds=3),
    "all rejected": Shape(stop_after="round", rounds=2, rejected=(1, 2)),
    "some personal": Shape(stop_after="personal", counterfactuals=False),
}


class Page(HTMLParser):
    """Checks that tags balance, and collects cells, headings, ids, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.headings: list[int] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.svgs = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value) for key, value in attrs]
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.svgs += tag == "svg" and ("role", "img") in attrs

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value) for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def row_of(page: Page, first: str) -> list[str]:
    """The first table row whose first cell is `first`."""
    return next(row for row in page.rows if row and row[0] == first)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", SHAPES)
def test_page_is_whole_offline_and_free_of_nan(name: str, lang: Lang) -> None:
    html = render(made_run(SHAPES[name]), lang)
    page = Page(html)
    assert page.open == []
    assert html.startswith('<!doctype html>\n<html lang="' + lang)
    words = set(re.findall(r"[A-Za-z]+", page.text.replace("became NaN", "")))
    assert not words & {"nan", "NaN", "inf", "None", "null"}
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert page.headings.count(2) == 9
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {tag for tag, _, _ in page.attributes}
    loads = [v for _, key, v in page.attributes if key in {"src", "srcset", "data", "action", "style"}]
    assert loads == []
    assert all(str(v).startswith("#") for _, key, v in page.attributes if key == "href")
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in page.text


@pytest.mark.parametrize("name", SHAPES)
def test_ids_are_unique_and_figures_are_named(name: str) -> None:
    page = Page(render(made_run(SHAPES[name]), "en"))
    ids = [value for _, key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    named = [str(v).split() for tag, key, v in page.attributes if key == "aria-labelledby" and tag == "svg"]
    assert len(named) == page.svgs
    assert {part for parts in named for part in parts} <= set(ids)
    links = {str(v)[1:] for _, key, v in page.attributes if key == "href"}
    assert links <= set(ids)


def test_articles_are_contracted_in_spanish() -> None:
    base = Words("es")("versus.base")
    assert Words("es")("key.who.note", versus=base).startswith("frente al modelo base")
    said = Words("es")("head.here", relative="menor", versus=base, measure="exactitud", before="1 %", after="2 %")
    assert "que la del modelo base" in said


def test_hostile_names_stay_text() -> None:
    hostile = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'
    entries = made_run(Shape(people=2, rounds=3, rejected=(2,), names=(hostile, "{0.__class__} {n}")))
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in entries]
    bodies[0][1]["name"] = hostile
    bodies[0][1]["base"]["model"] = hostile
    bodies[0][1]["provenance"][0] = dict.fromkeys(("name", "version", "licence", "note"), hostile)
    bodies[3][1]["reason"] = hostile
    for lang in LANGS:
        html = render(chained(bodies), lang)
        page = Page(html)
        assert "<script" not in html
        assert "<img" not in html
        assert page.text.count(hostile) >= 8
        assert "{0.__class__} {n}" in page.text
        assert not any(key.startswith("on") for _, key, _ in page.attributes)


def test_every_key_is_there_twice_with_the_same_placeholders() -> None:
    assert len(WORDS) > 200
    for key, both in WORDS.items():
        assert set(both) == {"en", "es"}, key
        fields = [{f for _, f, _, _ in string.Formatter().parse(both[lang]) if f} for lang in LANGS]
        assert fields[0] == fields[1], key
        assert all(both[lang].strip() == both[lang] != "" for lang in LANGS), key


def test_no_key_is_left_unused() -> None:
    folders = [files("tequio.report"), files("tequio.report.html"), files("tequio.report.data"), files("tequio.cli")]
    source = "".join(f.read_text() for folder in folders for f in folder.iterdir() if f.name.endswith(".py"))
    literal = set(re.findall(r'"([a-z]+(?:\.[a-z_]+)*)"', source))
    literal |= set(re.findall(r"'([a-z]+(?:\.[a-z_]+)+)'", source))
    starts = tuple(
        set(re.findall(r'f"([a-z]+(?:\.[a-z]+)*\.)\{', source)) | set(re.findall(r"f'([a-z.]+\.)\{", source))
    )
    groups = tuple(f"{g}." for g in re.findall(r'\.(?:name|quoted)\("([a-z.]+)"', source))
    forms = tuple(f"{g}." for g in re.findall(r'plural\(\s*"([a-z.]+)"', source))
    unused = [k for k in WORDS if k not in literal and not k.startswith((*starts, *groups, *forms))]
    assert unused == []


def test_summary_of_numbers_known_by_hand() -> None:
    """Three participants: benefits 0.2, 0.0 and −0.1 of a local loss of 1; intervals ±0.05, 0 and ±0.05."""
    found = summary(hand_made())
    assert found["comparison"] == "local"
    assert found["verdicts"] == NO_VERDICT | {"gains": 1, "kept_local": 1, "loses": 1}
    assert found["kept_local"] == 1
    assert found["mean"]["gain"]["loss"] == pytest.approx(0.1 / 3)
    assert found["mean"]["gain"]["relative"] == pytest.approx(0.1 / 3)
    equity = found["equity"]
    assert equity["worst_decile"] == pytest.approx(-0.1)
    assert equity["share_positive"] == pytest.approx(1 / 3)
    assert equity["spearman_rank"] == pytest.approx(-1.0)  # ranks 2, 4, 8 with benefits 0.2, 0, −0.1
    assert equity["left_behind"] == "few"  # |−1| is not above 1.96/√2 = 1.39
    assert equity["gini"] == pytest.approx(0.6 / 8.7)  # Σ|xᵢ−xⱼ| over pairs of 0.8, 1, 1.1 = 0.6; n·Σx = 8.7
    assert equity["jain"] == pytest.approx(2.9**2 / (3 * (0.64 + 1 + 1.21)))
    cost = found["cost"]
    assert (cost["bytes_up"], cost["bytes_down"]) == (600, 3000)  # the centre's own bytes do not travel
    assert cost["joules"] == pytest.approx(20 + 100 + 3 * 10)
    assert cost["uncertainty"] == pytest.approx((100 * 0.4 + 50 * 0.1) / 150)
    assert cost["seconds"] == pytest.approx(4 + 12 + 3 * 2)
    assert cost["elapsed"] is None  # nothing says when the personal models were made
    assert found["rounds"]["best"] == 1
    json.dumps(found, allow_nan=False)


def hand_made(accuracy: Mapping[str, float] = MappingProxyType({}), kind: str = "causal") -> list[Entry]:
    """One round and three personal models in round numbers. accuracy: the change of each."""
    names = ("a", "b", "c")
    energy = {"joules": 10.0, "method": "rapl", "boundary": "cpu package", "uncertainty": 0.1}
    people = [{"name": n, "rank": r, "steps": 1} for n, r in zip(names, (2, 4, 8), strict=True)]
    rows = [{"name": n, "bytes_up": b, "bytes_down": 1000} for n, b in zip(names, (100, 200, 300), strict=True)]
    rows.append({"name": "centre", "bytes_up": 9999, "bytes_down": 9999})
    round_ = {"round": 1, "accepted": True, "train": rows, "mean_validation_loss": 0.9, "seconds": 12}
    start = {"validation": {}, "seconds": 4, "energy": {**energy, "joules": 20.0}}
    round_["energy"] = {"joules": 100.0, "method": "model", "boundary": "cpu package", "uncertainty": 0.4}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("run", {"participants": people, "centre": {"name": "centre"}, "task": {"kind": kind}}),
        ("start", start),
        ("round", round_),
    ]
    for name, gain, half in zip(names, (0.2, 0.0, -0.1), (0.05, 0.0, 0.05), strict=True):
        loss = {"mean": gain, "low": gain - half, "high": gain + half}
        change = accuracy.get(name)
        points = None if change is None else {"mean": change, "low": change - 0.1, "high": change + 0.1}
        body = {
            "name": name,
            "chosen": "local" if gain == 0 else "shared",
            "test": {"local": {"loss": 1.0, "examples": 50}, "personal": {"loss": 1 - gain, "examples": 50}},
            "gains": {"personal_over_local": {"loss": loss, "accuracy": points}},
            "benefit": gain,
            "energy": energy,
            "seconds": 2.0,
        }
        bodies.append(("personal", body))
    return chained(bodies)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", ["classification", "causal"])
def test_the_page_shows_the_numbers_of_the_summary(name: str, lang: Lang) -> None:
    entries = made_run(SHAPES[name])
    found, page, n = summary(entries), Page(render(entries, lang)), Numbers(lang)
    for p in found["participants"]:
        row = row_of(page, p["name"])
        shown = [p["test"][m][found["measure"]] for m in ("base", "local", "shared", "personal")]
        texts = [n.percent(v) if found["measure"] == "accuracy" else n.perplexity(v) for v in shown]
        if found["measure"] == "accuracy":
            texts = [f"{n.fixed(round(v * 120))}{text}" for v, text in zip(shown, texts, strict=True)]
        assert row[2] == "120"
        assert row[3:7] == texts
        effect = p["outcome"]["effect"]["mean"]
        assert row[7].startswith(
            n.signed(100 * effect) if found["measure"] == "accuracy" else n.percent(effect, sign=True)
        )
        cost = [r for r in page.rows if r[0] == p["name"] and len(r) == 5][-1]  # nobody tells carbon or money
        values = (n.size(p["bytes_up"]), n.size(p["bytes_down"]), n.energy(p["joules"]), n.duration(p["seconds"]))
        assert tuple(cost[1:5]) == values
    equity, cost_all = found["equity"], found["cost"]
    for text in (
        n.percent(equity["worst_decile"], sign=True),
        n.fixed(equity["gini"], 3),
        n.fixed(equity["jain"], 3),
        n.signed(equity["spearman_rank"], 2),
        n.size(cost_all["bytes_up"]),
        n.energy(cost_all["joules"]),
        n.duration(cost_all["seconds"]),
        entries[-1].hash,
    ):
        assert text in page.text
    assert n.fixed(found["rounds"]["accepted"]) in page.text


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
    """Two rounds with the same alarm are one row, with the last figure; without an alarm there is no such table."""
    rows = [{"name": "bob", "alarm": "cosine", "figure": f, "limit": 0.0, "action": "record"} for f in (-0.5, -0.25)]
    rounds = [("round", {"round": i, "accepted": True, "alarms": [row]}) for i, row in enumerate(rows, 1)]
    run = chained([("run", {"participants": [{"name": "bob"}]}), *rounds])
    expected = {"name": "bob", "alarm": "cosine", "action": "record", "rounds": [1, 2], "figure": -0.25, "limit": 0.0}
    assert summary(run)["alarms"] == [expected]
    for lang, title, done in (
        ("en", "What screening noted", "noted, it counted"),
        ("es", "Lo que la revisión", "contó"),
    ):
        text = Page(render(run, lang)).text  # type: ignore[arg-type]
        assert title in text
        assert done in text
        assert title not in Page(render(made_run(Shape()), lang)).text  # type: ignore[arg-type]


def test_many_participants_open_with_the_worst_tenth() -> None:
    entries = made_run(SHAPES["two hundred"])
    html, found = render(entries, "en"), summary(entries)
    first = html.split("<details>")[0]
    lowest = sorted(found["participants"], key=lambda p: p["outcome"]["effect"]["mean"])[:20]
    assert sum(f'<th scope="row" role="rowheader">{p["name"]}</th>' in first for p in found["participants"]) == 20
    assert all(f'<th scope="row" role="rowheader">{p["name"]}</th>' in first for p in lowest)
    assert all(p["name"] in html for p in found["participants"])
    assert len(html) < 1_500_000


def test_without_local_models_the_base_is_the_yardstick() -> None:
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in made_run(Shape(counterfactuals=False))]
    for kind, body in bodies:
        if kind == "personal":
            body["test"]["local"] = body["benefit"] = None
            body["gains"]["personal_over_local"] = body["gains"]["shared_over_local"] = None
    found = summary(chained(bodies))
    assert found["comparison"] == "base"
    assert found["equity"]["participants"] == 7
    assert "Whether each would have done as well alone was not measured." in render(chained(bodies), "en")


def test_whom_a_budget_left_no_model_trained_alone_is_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """Of three one gained; the other two are in no verdict, mean or index."""
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in hand_made()]
    personal = [body for kind, body in bodies if kind == "personal"]
    for body in personal[1:]:
        nothing = {"loss": None, "accuracy": None}
        body |= {"cut": "local 0 of 42 steps: no more fit the budget of energy", "benefit": None, "chosen": "local"}
        body["gains"] |= {"personal_over_local": nothing, "shared_over_local": nothing}
    entries = chained(bodies)
    found = summary(entries)
    assert found["verdicts"] == NO_VERDICT | {"gains": 1, "unknown": 2}
    assert (found["not_compared"], found["kept_local"]) == (2, 0)
    assert (found["mean"]["gain"]["relative"], found["equity"]["participants"]) == (pytest.approx(0.2), 1)
    assert found["mean"]["loss"]["local"] == pytest.approx(1.0)
    page = Page(render(entries, "en"))
    assert "Joining paid for 1 of the 1 that can be compared. For 2 it is not known" in page.text
    assert row_of(page, "b")[1].startswith("not known")
    assert "left no fair model trained alone to compare with: local 0 of 42 steps" in page.text
    assert "Unirse valió la pena para 1 de los 1" in render(entries, "es")
    print_summary(Path("run"), Path("report"), found)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("not comparable (local)") == 2
    words = (
        "b: a budget cut its personal model, and left no fair model trained alone to compare with: local 0 of 42 steps"
    )
    assert words in printed
    print_summary(Path("run"), Path("report"), found, "es")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("no comparable (local)") == 2
    assert (
        "b: un presupuesto acortó su modelo personal y no dejó un modelo a solas con el cual comparar: local 0 of"
        in printed
    )


def test_where_a_budget_cut_everybody_the_report_says_that_gains_are_over_the_base() -> None:
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in hand_made()]
    for body in (body for kind, body in bodies if kind == "personal"):
        body["gains"]["personal_over_base"] = body["gains"]["personal_over_local"]
        nothing = {"loss": None, "accuracy": None}
        body |= {"cut": "local 0 of 42 steps: no more fit the budget of energy", "benefit": None}
        body["gains"] |= {"personal_over_local": nothing, "shared_over_local": nothing}
    entries = chained(bodies)
    found = summary(entries)
    assert (found["comparison"], found["comparison_cut"], found["not_compared"]) == ("base", True, 0)
    assert [person["versus"] for person in found["participants"]] == ["base"] * 3
    page = Page(render(entries, "en"))
    assert (
        "Whether joining beat training alone is not known: a budget left nobody a fair model trained alone."
        in page.text
    )
    assert page.text.count("so its gain is over the base model: local 0 of 42 steps") == 3
    assert "un presupuesto no dejó a nadie un modelo a solas" in render(entries, "es")


ENGLISH = re.compile(r"\b(the|and|of|gain|over|rank|shared|undecided|loses|gains|Energy|Report|rounds|not|with|its)\b")


@pytest.mark.parametrize("name", SHAPES)
def test_the_summary_in_the_terminal_follows_the_language(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is quoted from the record (reasons, names of runs and commands) stays as it is written there."""
    found = summary(made_run(SHAPES[name]))
    print_summary(Path("r"), Path("p.html"), found, "es")
    printed = capsys.readouterr().out.replace(str(found["name"]), "").replace(str(found["rounds"]["stopped"]), "")
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
        (bodies[:1], "run", f"Go on with: tequio participate {tmp_path}"),
        ([bodies[0], ("personal", bodies[1][1] | {"alone": True})], "run", f"tequio participate {tmp_path}"),
        (bodies[:1], "bundle", "The federation was left before it had come to its end."),
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
    energy = {"joules": 5.0, "seconds": 2.0, "method": "model", "boundary": "cpu package", "uncertainty": 0.4}
    rows = [{"name": "a", "bytes_up": 1, "bytes_down": 1, "energy": energy}]
    refused = [{"name": "b", "status": "refused", "reason": "it holds NaN or infinite numbers"}]
    accuracy = {"mean": 0.1, "low": 0.05, "high": 0.2}
    scores = {"loss": 1.0, "accuracy": 0.5, "examples": 10}
    found = summary(
        chained(
            [
                ("run", {"participants": [{"name": "a"}, {"name": "b"}]}),
                ("round", {"round": 1, "accepted": True, "train": rows, "admissions": refused}),
                ("general", {"s": {"base": scores, "shared": scores, "gain": {"loss": None, "accuracy": accuracy}}}),
            ]
        )
    )
    assert found["cost"]["joules"] == 5.0
    assert found["participants"][0]["seconds"] == 2.0
    assert found["refused"][0]["rounds"] == [1]
    assert found["general"]["better"] == 1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_field_may_be_missing_or_wrong(data: st.DataObject) -> None:
    entries = made_run(Shape(people=2, rounds=1, rejected=()))
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in entries]
    for _, body in bodies:
        for key in list(body):
            if data.draw(st.integers(0, 3)) == 0:
                body[key] = data.draw(JUNK)
    made = [Entry(i, kind, body, "0" * 64, "f" * 64) for i, (kind, body) in enumerate(bodies)]
    for lang in LANGS:
        assert Page(render(made, lang)).open == []


def test_where_everybody_keeps_the_local_model_the_page_says_so() -> None:
    bodies = [(e.kind, json.loads(json.dumps(e.body))) for e in made_run(Shape(people=3))]
    for kind, body in bodies:
        if kind == "personal":
            zero = dict.fromkeys(("mean", "low", "high"), 0.0)
            body.update(chosen="local", benefit=0.0)
            body["gains"]["personal_over_local"] = {"loss": zero, "accuracy": zero}
    text = Page(render(chained(bodies), "en")).text
    assert "Joining paid for none of the participants: each does best alone and keeps its own local model." in text
    assert "3 keep their own model" in text


def test_a_folder_of_a_machine_is_not_shown() -> None:
    body = {"base": {"model": "/home/someone/models/MiniLM"}, "provenance": [{"used_for": "centre", "upstream": "b."}]}
    text = Page(render(chained([("run", body)]), "en")).text
    assert "MiniLM" in text
    assert "/home" not in text
    assert "centre. b." in text


def test_no_records_at_all() -> None:
    assert summary([])["verdicts"] == NO_VERDICT
    assert Page(render([], "es")).open == []


def test_numbers_in_each_language() -> None:
    en, es = Numbers("en"), Numbers("es")
    assert en.fixed(1234567.891, 2) == "1,234,567.89"
    assert es.fixed(1234567.891, 2) == "1\u202f234\u202f567.89"
    assert es.fixed(1234) == "1234"
    assert (en.percent(0.1234), es.percent(0.1234)) == ("12.3%", "12.3\u202f%")
    assert (en.signed(-0.04), en.signed(0.06), en.signed(-1.25, 2)) == ("0.0", "+0.1", "−1.25")
    assert en.bound(-0.04) == "−0.04"
    assert (en.size(999), en.size(36_864), en.size(12_700_000)) == ("999\u00a0B", "36.9\u00a0kB", "12.7\u00a0MB")
    assert (en.energy(10), en.energy(3600), en.energy(3.6e6)) == ("2.78\u00a0mWh", "1.00\u00a0Wh", "1.00\u00a0kWh")
    assert (en.mass(0.02), en.mass(0.00004)) == ("20.0\u00a0mg", "0.040\u00a0mg")
    assert en.duration(4320) == "1\u00a0h 12\u00a0min"
    assert en.duration(59.9) == "1\u00a0min"
    assert es.date("2026-11-24T10:15:00+00:00") == "24 de noviembre de 2026, 10:15\u00a0UTC"
    assert en.date("2026-11-24T04:15:00-06:00") == "24 November 2026, 10:15\u00a0UTC"
    assert en.fixed(math.nan) == en.percent(None) == en.energy(math.inf) == "–"
    assert finite(True) is None


def test_wilson_interval_of_8_in_10() -> None:
    """0.8 of 10: 0.4902 to 0.9433 (Wilson 1927; the same as R's prop.test without correction)."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(1.0, 5)[1] == 1.0
    assert wilson(0.5, 0) == (None, None)


def test_scale_has_round_ticks_around_all_values() -> None:
    found = scale([-0.036, 0.274], zero=True)
    assert found.ticks == (-0.1, 0.0, 0.1, 0.2, 0.3)
    assert found.at(-5.0) == found.left
    assert scale([0.5, 0.5]).low < 0.5 < scale([0.5, 0.5]).high


def test_markup_escapes_unless_safe() -> None:
    assert el("p", "<b>", Safe("<i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></p>'


def test_text_colours_have_contrast_of_4_5() -> None:
    """WCAG 2.2: (L₁ + 0.05) / (L₂ + 0.05) ≥ 4.5 for ink, soft, gain and lose on paper and card, light and dark."""
    css = files("tequio.report.html").joinpath("style.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", theme))
        for surface in ("paper", "card"):
            for ink in ("ink", "soft", "gain", "lose", "open"):
                pair = sorted((luminance(colours[surface]), luminance(colours[ink])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (surface, ink)


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--window-size=1000,900", "--virtual-time-budget=4000", "--dump-dom"),
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [360, 390, 900])
@pytest.mark.parametrize("name", ["classification", "two hundred", "header only"])
def test_the_page_never_scrolls_sideways(name: str, width: int, tmp_path: Path) -> None:
    """The page in a frame of this width: its scrollWidth is the width itself; tables scroll in their own box."""
    measure = (
        "<script>addEventListener('load',()=>parent.document.title="
        "document.documentElement.scrollWidth+' '+innerWidth)</script></body>"
    )
    page = render(made_run(SHAPES[name]), "es").replace("</body>", measure)
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    frame = f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{inside}"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html><title>-</title><body>{frame}</body>", encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert title is not None
    assert (int(title[1]), int(title[2])) == (width, width)
