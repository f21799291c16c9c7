"""The largest body that an honest participant sends is within the bounds of messages: its personal
model is not missing for it.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.common.replies import personal_outcome
from tequio.core.bounds import BODY
from tequio.core.canonical import canonical_json
from tequio.core.messages import pack_message
from tequio.core.replies import SMALL_REPLY, read_personal_outcome, read_reply
from tequio.core.types import PersonaliseRequest, Reply
from tequio.core.update import zero
from tequio.participant.class_metrics import (
    FEW,
    MOST_CELLS,
    class_metrics,
    confusion,
    published_cells,
)

TASK = PersonaliseRequest(3, 1, "north", zero("spec"), 2, 4)
BEFORE = 1 << 18  # characters, the earlier bound
MODELS = ("base", "local", "shared", "personal")


def every_confusion(labels: int, texts: int) -> tuple[list[int], list[int]]:
    """True and answered class of test texts in which each class is taken for each other one,
    `texts` times.
    """
    truth = np.repeat(np.arange(labels), labels * texts)
    return truth.tolist(), np.tile(np.repeat(np.arange(labels), texts), labels).tolist()


@pytest.mark.parametrize(("labels", "texts"), [(300, 5), (300, 60), (140, 5)])
def test_the_outcome_of_several_hundred_classes_is_read(labels: int, texts: int) -> None:
    """As it travels, with every cell of the confusion counts full; those of 140 classes are all
    there.
    """
    truth, given = every_confusion(labels, texts)
    metrics = class_metrics(labels, truth, dict.fromkeys(MODELS, given), truth)
    sizes = {"validation": 16, "test": len(truth)}
    body = canonical_json(personal_outcome("north", len(truth), 16) | {"classes": metrics}).decode()
    data = pack_message(Reply(3, 1, "north", body=body))
    assert len(body) <= BODY
    assert len(data) <= SMALL_REPLY
    found = read_reply(data, TASK, SMALL_REPLY)
    assert isinstance(found, Reply)
    assert read_personal_outcome(found, sizes)["classes"] == metrics
    assert len(metrics["confusion"]) == min(MOST_CELLS, labels * (labels - 1))
    assert (len(body) > BEFORE) == (labels == 300)


def test_the_widest_cells_and_classes_fit() -> None:
    """Two thousand classes with the most cells, each with as many digits as ten million test texts
    can have.
    """
    rows = [[1999, 1999, 9_999_999]] * MOST_CELLS
    right = [[9_999_999, 9_999_999]] * 2000
    metrics = {
        **class_metrics(2, [0, 1] * FEW, {"personal": [0, 1] * FEW}, [0, 1]),
        "support": [9_999_999] * 2000,
        "right": {"local": right, "personal": right},
        "confusion": rows,
    }
    assert len(canonical_json(personal_outcome("north") | {"classes": metrics}).decode()) <= BODY


def test_of_very_many_cells_the_largest_leave() -> None:
    labels = 210
    table = confusion(labels, *every_confusion(labels, FEW))
    table[7, 9], table[labels - 1, 0] = 90, 80
    cells = published_cells(table)
    assert len(cells) == MOST_CELLS
    assert cells == sorted(cells)
    assert [7, 9, 90] in cells
    assert [labels - 1, 0, 80] in cells
    shown = np.zeros_like(table)
    for true, answered, count in cells:
        assert table[true, answered] == count >= FEW
        shown[true, answered] = count
    hidden = (table - shown).sum(1)
    assert ((hidden == 0) | (hidden >= FEW)).all()
