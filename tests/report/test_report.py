"""The page of the report: whole, offline, safe with hostile names, and right for runs of every
shape.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import Shape, chained, made_run
from pages import LANGS, NO_VERDICT, SHAPES, Lang, Page, row_of

from tequio.ledger.chain import Entry
from tequio.report.format import Numbers
from tequio.report.html.report import render, summary


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
    assert all(
        after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False)
    )
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {
        tag for tag, _, _ in page.attributes
    }
    loads = [
        v for _, key, v in page.attributes if key in {"src", "srcset", "data", "action", "style"}
    ]
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
    named = [
        str(v).split()
        for tag, key, v in page.attributes
        if key == "aria-labelledby" and tag == "svg"
    ]
    assert len(named) == page.svgs
    assert {part for parts in named for part in parts} <= set(ids)
    links = {str(v)[1:] for _, key, v in page.attributes if key == "href"}
    assert links <= set(ids)


def test_hostile_names_stay_text() -> None:
    hostile = '<script>alert("x")</script>\'"&<img src=x onerror=alert(1)>'
    entries = made_run(
        Shape(people=2, rounds=3, rejected=(2,), names=(hostile, "{0.__class__} {n}"))
    )
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
            texts = [
                f"{n.fixed(round(v * 120))}{text}" for v, text in zip(shown, texts, strict=True)
            ]
        assert row[2] == "120"
        assert row[3:7] == texts
        effect = p["outcome"]["effect"]["mean"]
        assert row[7].startswith(
            n.signed(100 * effect)
            if found["measure"] == "accuracy"
            else n.percent(effect, sign=True)
        )
        cost = [r for r in page.rows if r[0] == p["name"] and len(r) == 5][
            -1
        ]  # nobody tells carbon or money
        values = (
            n.size(p["bytes_up"]),
            n.size(p["bytes_down"]),
            n.energy(p["joules"]),
            n.duration(p["seconds"]),
        )
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


def test_many_participants_open_with_the_worst_tenth() -> None:
    entries = made_run(SHAPES["two hundred"])
    html, found = render(entries, "en"), summary(entries)
    first = html.split("<details>")[0]
    lowest = sorted(found["participants"], key=lambda p: p["outcome"]["effect"]["mean"])[:20]
    assert (
        sum(
            f'<th scope="row" role="rowheader">{p["name"]}</th>' in first
            for p in found["participants"]
        )
        == 20
    )
    assert all(f'<th scope="row" role="rowheader">{p["name"]}</th>' in first for p in lowest)
    assert all(p["name"] in html for p in found["participants"])
    assert len(html) < 1_500_000


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
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
    assert (
        "Joining paid for none of the participants: each does best alone and keeps its own local "
        "model." in text
    )
    assert "3 keep their own model" in text


def test_a_folder_of_a_machine_is_not_shown() -> None:
    body = {
        "base": {"model": "/home/someone/models/MiniLM"},
        "provenance": [{"used_for": "centre", "upstream": "b."}],
    }
    text = Page(render(chained([("run", body)]), "en")).text
    assert "MiniLM" in text
    assert "/home" not in text
    assert "centre. b." in text


def test_no_records_at_all() -> None:
    assert summary([])["verdicts"] == NO_VERDICT
    assert Page(render([], "es")).open == []


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


FLAGS = (
    *(
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--window-size=1000,900", "--virtual-time-budget=4000", "--dump-dom"),
)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [360, 390, 900])
@pytest.mark.parametrize("name", ["classification", "two hundred", "header only"])
def test_the_page_never_scrolls_sideways(name: str, width: int, tmp_path: Path) -> None:
    """The page in a frame of this width: its scrollWidth is the width itself; tables scroll in
    their own box.
    """
    measure = (
        "<script>addEventListener('load',()=>parent.document.title="
        "document.documentElement.scrollWidth+' '+innerWidth)</script></body>"
    )
    page = render(made_run(SHAPES[name]), "es").replace("</body>", measure)
    inside = page.replace("&", "&amp;").replace('"', "&quot;")
    frame = f'<iframe style="border:0;width:{width}px;height:800px" srcdoc="{inside}"></iframe>'
    (tmp_path / "frame.html").write_text(
        f"<!doctype html><title>-</title><body>{frame}</body>", encoding="utf-8"
    )
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        (tmp_path / "frame.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert title is not None
    assert (int(title[1]), int(title[2])) == (width, width)
