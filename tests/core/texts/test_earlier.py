"""Sentences that versions before codes wrote are read as codes with facts, and shown in both
languages.
"""

from __future__ import annotations

import pytest
from test_reasons import needed

from tequio.core.reason import Reason
from tequio.core.texts.earlier import SENTENCES, read_reason, read_record
from tequio.core.texts.words import ENGLISH, TEXTS, Words

IN_TIME = {
    "rank": 4,
    "why": Reason("rank-in-time").as_record(),
    "steps": 20,
    "seconds": 26.8,
    "deadline": 1e3,
}
CASES = {
    "all rounds made": Reason("rounds-made"),
    "general model worse on news (1.204 → 1.265)": Reason(
        "general-worse", {"slices": "news (1.204 → 1.265)"}
    ),
    "no step: 1 of 2 replies have arrived; they wait for the next window": Reason(
        "window-waits", {"replies": 1, "buffer": 2}
    ),
    "Round 3: 1 of the 2 updates that a step needs could be used. north: no reply.": Reason(
        "quorum-missed", {"round": 3, "usable": 1, "quorum": 2}
    ),
    "its norm is 14.6 times what the round before expects (limit 10)": Reason(
        "norm-too-long", {"times": 14.6, "limit": 10}
    ),
    "the alarm cosine: -0.31, limit 0.1": Reason(
        "alarm", {"alarm": "cosine", "figure": -0.31, "limit": 0.1}
    ),
    "7 of 20 steps: no more fit the budget": Reason("steps-cut", {"steps": 7, "asked": 20}),
    "Participant a: its own budget of energy, time is spent. It may raise [budget] in its "
    "participant.toml.": Reason("own-budget-spent", {"keys": ["kwh", "hours"]}),
    "NetworkError: no reply within 3 min 20 s": Reason("late-reply", {"seconds": "3 min 20 s"}),
    "TrainingError: Participant a: training diverged. The loss became nan at step 7. Lower the "
    "rate.": Reason("diverged", {"loss": "nan", "step": 7}),
    "TrainingError: The term kl needs public text.": Reason("term-without-text", {"term": "kl"}),
    "TrainingError: The term transfer needs the centre's gradient.": Reason(
        "term-without-centre", {"term": "transfer"}
    ),
    "TrainingError: Base small has no centre.": Reason("base-without-centre", {"base": "small"}),
    "MessageError: the reply of a: it says that it made 9 steps of the 8 that it was asked for.": Reason(
        "too-many-steps", {"source": "the reply of a", "steps": 9, "asked": 8}
    ),
    "MessageError: the reply of a: field 'metrics.loss' is refused (finite_number).": Reason(
        "field-refused",
        {"source": "the reply of a", "field": "metrics.loss", "why": "finite_number"},
    ),
    "MessageError: the reply of a: field 'body' is refused: a number is not finite, or too large.": Reason(
        "field-refused",
        {
            "source": "the reply of a",
            "field": "body",
            "why": "a number is not finite, or too large",
        },
    ),
    "MessageError: the reply of a: field 'steps' is not of its type. Both sides need the same "
    "version.": Reason("field-unfit", {"source": "the reply of a", "field": "steps"}),
    "TrainingError: something new": Reason(
        "failed", {"error": "TrainingError", "message": "something new"}
    ),
    "the budget of carbon is spent": Reason("budget-spent", {"keys": ["kg_co2e"]}),
    "Rank 4, the largest that it can finish in time, with all 20 steps: about 26.8 s, within the "
    "deadline of 1e+03 s.": (Reason("allotted", IN_TIME)),
    "small, rank 4": Reason(
        "tier-base", {"base": "small", "tier": Reason("tier-rank", {"rank": 4}).as_record()}
    ),
    "local 5 of 20 steps at 1 of 3 learning rates; private ended after 3 of 5 steps: no more fit "
    "the budget of time": Reason(
        "personal-cut",
        {
            "cut": [
                Reason(
                    "fit-shortened",
                    {"fit": "local", "steps": 5, "full": 20, "rates": 1, "full_rates": 3},
                ).as_record(),
                Reason("fit-ended", {"fit": "private", "steps": 3, "full": 5}).as_record(),
            ],
            "keys": ["hours"],
        },
    ),
}


@pytest.mark.parametrize(("sentence", "expected"), CASES.items())
def test_a_known_sentence_is_a_reason(sentence: str, expected: Reason) -> None:
    assert read_reason(sentence) == expected
    assert ENGLISH.reason(sentence) == ENGLISH.reason(expected)
    assert Words("es").reason(sentence) != ENGLISH.reason(sentence)


def test_each_sentence_has_just_the_facts_of_its_text() -> None:
    for code, pattern in SENTENCES.items():
        assert f"reason.{code}" in TEXTS["es"], code
        assert set(pattern.groupindex) == needed(code), code


def test_an_unknown_sentence_is_quoted_as_it_was_written() -> None:
    assert ENGLISH.reason("A comet passed.") == "“A comet passed.”"
    assert Words("es").reason("A comet passed.") == "«A comet passed.»"
    assert read_record("A comet passed.") == {
        "code": "quoted",
        "facts": {"words": "A comet passed."},
    }


def test_no_reason_is_none() -> None:
    assert [read_reason(""), read_reason(None), read_record("")] == [None, None, None]
    assert ENGLISH.reason(None) == ""


def test_what_is_no_reason_at_all_is_quoted() -> None:
    assert read_reason({"code": 3, "facts": {}}) == Reason(
        "quoted", {"words": "{'code': 3, 'facts': {}}"}
    )
    assert read_reason(["a"]) == Reason("quoted", {"words": "['a']"})
