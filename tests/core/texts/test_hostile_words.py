"""Words that a hostile participant sends in place of a reason: none ends the coordinator or a
report.
"""

from __future__ import annotations

import json

import pytest

from tequio.core.reason import Reason
from tequio.core.texts.words import Words, sent_reason

HOSTILE = [
    "it answers round 007, not round 1",
    "it is still at work on round 01",
    "it says that it has ٣ train examples, and it joined with 5",
    "its norm is 1e999 times what the round before expects (limit 3)",
    f"its norm is {'9' * 400} times what the round before expects (limit 3)",
    "no reply within 1e999",
    f"no reply within {'9' * 400}",
    "007 of 9 steps: no more fit the budget of energy",
    "\x9b31m\u202e",
]


@pytest.mark.parametrize("words", HOSTILE)
@pytest.mark.parametrize("lang", ["en", "es"])
def test_words_of_a_participant_become_a_reason_that_can_be_recorded_and_shown(
    words: str, lang: str
) -> None:
    for reason in (sent_reason(words), sent_reason(words, "NetworkError")):
        json.dumps(reason.as_record(), allow_nan=False)
        assert Words(lang).reason(reason).isprintable()  # type: ignore[arg-type]
    assert Words(lang).reason(words).isprintable()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reason",
    [
        Reason("budget-spent", {"keys": 3}),
        Reason("bytes-spent", {"most": 10**400, "left": "x"}),
        Reason("no-such-code", {"x": "\x9b31m\u202e"}),
        Reason("bytes-spent", {}),
    ],
)
def test_a_reason_with_facts_of_another_kind_is_shown_somehow(reason: Reason) -> None:
    assert Words("en").reason(reason).isprintable()
