"""`tequio plan` in the terminal: English as ever, Spanish whole, and `--json` the same in both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_plans import LEAST, OUTCOMES, PLANS

from tequio.app.simulation.run import start
from tequio.cli.plan import plan
from tequio.cli.plan_tables import print_after, print_plan
from tequio.config import load_federation
from tequio.core.texts.words import TEXTS, Lang
from tequio.planning.devices import catalogue
from tequio.report.html.plan import render_plan

SAME = {
    "a",
    "bytes",
    "central",
    "factor",
    "no",
    "pareto",
    "personal",
    "plan",
    "tokens",
    "total",
}  # in both
UNITS = {
    "b",
    "gb",
    "gib",
    "mb",
    "g",
    "kg",
    "mg",
    "co",
    "e",
    "co₂e",
    "wh",
    "kwh",
    "s",
    "min",
    "h",
    "d",
}
MONEY = {"eur", "mxn", "usd"}
NAMES = {"oaxaca", "puebla", "maize", "small", "site", "lora", "tokens_per_second", "own"}


def said(lang: Lang, capsys: pytest.CaptureFixture[str]) -> str:
    """All shapes, one after the other."""
    for made in PLANS.values():
        print_plan(made, Path("plan.en.html"), lang)
    for outcome in OUTCOMES.values():
        print_after(outcome, lang)
    return capsys.readouterr().out


def flat(text: str) -> str:
    """In one line, without the lines of tables."""
    return " ".join(re.sub(r"[─-╿]", " ", text).split())


def words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d]+", re.sub(r"\S+\.html", "", text.lower())))


def without_texts(value: Any) -> Any:
    """JSON without the text beside each reason, which is in the language that was asked for."""
    if isinstance(value, dict):
        return {key: without_texts(item) for key, item in value.items() if key != "text"}
    return [without_texts(item) for item in value] if isinstance(value, list) else value


def shared(one: str, other: str) -> set[str]:
    """Words in both that are not the same in English and Spanish."""
    return (words(one) & words(other)) - SAME - UNITS - MONEY - NAMES - words(" ".join(catalogue()))


def test_english_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    expected = Path(__file__).with_name("plans.txt").read_text(encoding="utf-8")
    assert flat(said("en", capsys)) == flat(expected)


def test_spanish_has_no_english_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert shared(said("en", capsys), said("es", capsys)) == set()


@pytest.mark.parametrize("lang", ["en", "es"])
def test_every_sentence_is_said(lang: Lang, capsys: pytest.CaptureFixture[str]) -> None:
    text = flat(said(lang, capsys))
    for key, shown in TEXTS[lang].items():
        if key.startswith(
            ("forecast.", "reason.lever-", "reason.limit-", "plan.machine.", "plan.after.not.")
        ):
            pattern = ".*?".join(re.escape(part) for part in re.split(r"\{[a-z]+\}", shown))
            assert re.search(pattern, text), key


def test_the_page_has_no_english_word_either() -> None:
    more = {"made": "", "own": True}
    for made in PLANS.values():
        for outcome in OUTCOMES.values():
            pages = [render_plan(made | more | {"after": outcome}, lang) for lang in ("en", "es")]
            texts = [re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S) for page in pages]
            assert shared(*texts) == set()


def test_a_real_plan_and_its_outcome_in_both(
    make_federation: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEQUIO_CACHE", str(tmp_path / "cache"))
    path = make_federation(rows=40, budget={"megabytes": 1e3})
    for name, lines in (("site0", "tokens_per_second = 100"), ("site1", "uplink_mbit = 0.001")):
        file = path.parent / "participants" / f"{name}.toml"
        budget = "[budget]\nhours = 1e-6\n[energy]\ncountry = 'NO'\ntell = false\n"
        file.write_text(file.read_text().replace("[hardware]", f"[hardware]\n{lines}") + budget)

    def printed(lang: Lang, **more: Any) -> str:
        plan(path, threads=1, lang=lang, **more)
        return capsys.readouterr().out.replace(str(path.parent), "")

    def rendered(lang: Lang, **more: Any) -> Any:
        return json.loads(printed(lang, json=True, **more))

    one, other = rendered("en", machine="L4"), rendered("es", machine="L4")
    assert other.pop("page").endswith("plan.es.html")
    assert one.pop("page").endswith("plan.en.html")
    assert one.pop("made") <= other.pop("made")
    assert without_texts(one) == without_texts(other)
    assert one["limits"][0]["text"] != other["limits"][0]["text"]
    assert set(one) | {"made"} >= set(LEAST)
    for own in (False, True):
        texts = printed("en", own=own), printed("es", own=own)
        assert shared(*texts) == set()
        assert "Plan de small: cada participante en su equipo" in texts[1]
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    assert rendered("en", after=run) == rendered("es", after=run)
    texts = printed("en", after=run), printed("es", after=run)
    assert shared(*texts) == set()
    assert "El pronóstico junto al resultado" in texts[1]
