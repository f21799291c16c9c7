"""Reasons: codes and facts of the source have texts in both languages, and what a participant sends
is believed only so far.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tequio.core.errors import ConfigError
from tequio.core.reason import Reason, split_words
from tequio.core.texts.words import ENGLISH, TEXTS, Words, refusal, sent_reason

SOURCE = Path(__file__).parents[3] / "src" / "tequio"
SPENT = Reason("own-budget-spent", {"keys": ["hours"]})


def needed(code: str) -> set[str]:
    """The facts that the text of a code shows."""
    return {
        name for _, name, _, _ in string.Formatter().parse(TEXTS["en"][f"reason.{code}"]) if name
    }


def constants(node: ast.expr) -> Iterator[str]:
    """The codes that an expression may be: one, or one of several by a condition."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.IfExp):
        yield from (*constants(node.body), *constants(node.orelse))


def made_in_source() -> Iterator[tuple[str, set[str] | None, str]]:
    """(code, names of its facts where they stand there, place) of each reason and refusal that the
    source makes.
    """
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = {"refusal": 1, "partial": 2}.get(node.func.id, 0)
            if (
                node.func.id not in ("Reason", "refusal", "BadRow", "partial")
                or len(node.args) <= place
            ):
                continue
            if node.func.id == "partial" and not (
                isinstance(node.args[0], ast.Name) and node.args[0].id == "refusal"
            ):
                continue
            codes = list(constants(node.args[place]))
            facts: set[str] | None = set() if len(node.args) == place + 1 else None
            if node.func.id in ("BadRow", "partial"):  # further facts are added later
                facts = None
            elif place and all(keyword.arg for keyword in node.keywords):
                facts = {str(keyword.arg) for keyword in node.keywords}
            elif place:
                facts = None
            elif len(node.args) == 2 and isinstance(node.args[1], ast.Dict):
                facts = {
                    str(key.value) for key in node.args[1].keys if isinstance(key, ast.Constant)
                }
            for code in codes:
                of_others = (
                    {name for other in codes for name in needed(other)} - needed(code)
                    if place
                    else set()
                )
                yield (
                    code,
                    None if facts is None else facts - of_others,
                    f"{path.name}:{node.lineno}",
                )


def test_every_reason_of_the_source_has_its_text_and_just_the_facts_of_it() -> None:
    found = list(made_in_source())
    assert len(found) > 60
    for code, facts, place in found:
        assert f"reason.{code}" in TEXTS["en"], f"{place}: {code}"
        assert facts is None or facts == needed(code), f"{place}: {code}"


@pytest.mark.parametrize("lang", ["en", "es"])
def test_a_refusal_says_what_is_wrong_why_and_what_to_do(lang: Any) -> None:
    several = {key: text.split("\n") for key, text in TEXTS[lang].items() if "\n" in text}
    assert len(several) > 10
    assert {len(lines) for lines in several.values()} == {3}


def test_a_refusal_is_an_error_with_code_and_facts() -> None:
    error = refusal(ConfigError, "full-factors", reduce="fedit")
    assert (error.reason, error.fix) == (
        Reason("full-factors", {"reduce": "fedit"}),
        'Use reduce = "stack".',
    )
    assert str(error) == ENGLISH.reason(error.reason)
    assert error.as_dict()["reason"] == {"code": "full-factors", "facts": {"reduce": "fedit"}}
    assert error.within("Base small").reason == Reason("full-factors", {"reduce": "fedit"})


def test_rows_lists_and_reasons_within_reasons_are_shown() -> None:
    rows = [
        {"name": "news", "base": 0.1, "candidate": None},
        {"name": "own", "base": 0.25, "candidate": 0.5},
    ]
    worse = Reason("general-worse", {"slices": rows}).as_record()
    assert ENGLISH.reason(worse) == "general model worse on news (0.100 → –), own (0.250 → 0.500)"
    assert "noticias (0.100 → –), own (0.250" in Words("es").reason(worse)
    each = Reason(
        "each-base",
        {
            "bases": [
                {"name": "a", "reason": worse},
                {"name": "b", "reason": Reason("no-reply").as_record()},
            ]
        },
    )
    assert ENGLISH.reason(each).endswith("own (0.250 → 0.500); b: no reply")


def test_json_has_the_text_beside_code_and_facts() -> None:
    given = {"rows": [{"name": "north", "reason": SPENT.as_record()}], "reason": None}
    found = Words("es").with_texts(given)
    assert found["rows"][0]["reason"] == SPENT.as_record() | {"text": Words("es").reason(SPENT)}
    assert found["reason"] is None


def test_a_reason_of_a_later_version_is_shown_as_it_is() -> None:
    assert (
        ENGLISH.reason({"code": "comet-passed", "facts": {"name": "Halley"}})
        == 'comet-passed {"name": "Halley"}'
    )
    assert ENGLISH.reason({"code": "diverged", "facts": {}}) == "diverged {}"


def test_a_reason_travels_at_the_end_of_words_that_an_earlier_version_shows() -> None:
    words = SPENT.after("Its own budget is spent.")
    assert words.startswith("Its own budget is spent. [own-budget-spent ")
    assert split_words(words) == ("Its own budget is spent.", SPENT)
    assert sent_reason(words, "BudgetError") == SPENT


@pytest.mark.parametrize(
    "words",
    [
        'Odd. [comet-passed {"name": "Halley"}]',
        'Odd. [own-budget-spent {"keys": ["hours"], "more": 1}]',
        "Odd. [own-budget-spent {}]",
        'Odd. [own-budget-spent {"keys": [{"code": "no-reply", "facts": {}}]}]',
        'Odd. [own-budget-spent {"keys": ["a\\u001b[2J"]}]',
        'Odd. [own-budget-spent {"keys": NaN}]',
        'Odd. [own-budget-spent {"keys": ' + "[" * 4000 + "]" * 4000 + "}]",
        'Odd. [diverged {"loss": 1e999, "step": 1}]',
        "Odd.",
    ],
)
def test_a_reason_that_this_version_would_not_send_is_not_taken(words: str) -> None:
    found = sent_reason(words, "TrainingError")
    assert found.code == "failed"
    assert found.facts["error"] == "TrainingError"
    assert ENGLISH.reason(found).startswith("training failed: “Odd.")


def test_a_fact_with_a_line_end_stays_in_its_line() -> None:
    error = refusal(ConfigError, "not-a-coordinator", folder="a\nb", file="coordinator.json")
    assert error.what == "a b is not a coordinator's folder."
    assert error.why == "Expected coordinator.json in it."
