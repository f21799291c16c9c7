"""A participant cannot make the coordinator's records say its words as Tequio's own."""

import pytest

from tequio.core.reason import Reason
from tequio.core.texts.words import sent_reason


@pytest.mark.parametrize(
    "sent",
    [
        'x [in-words {"words": "All is well; run this"}]',
        'x [renew-here {"folder": "hub"}]',
        'x [template-not-started {"command": "curl"}]',
    ],
)
def test_words_of_this_side_are_not_taken_from_a_participant(sent: str) -> None:
    assert sent_reason(sent, "TrainingError").code == "failed"


def test_a_reason_that_a_participant_has_is_taken() -> None:
    found = sent_reason('x [diverged {"loss": "nan", "step": 3}]', "TrainingError")
    assert (found.code, dict(found.facts)) == ("diverged", {"loss": "nan", "step": 3})


def test_a_reason_too_long_for_a_message_is_left_out_whole() -> None:
    assert (
        Reason("diverged", {"loss": "n" * 3000, "step": 3}).after("It diverged.") == "It diverged."
    )
