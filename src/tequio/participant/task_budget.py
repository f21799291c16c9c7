"""What a task may take of a participant's own budget: asked before the work begins, refused without
figures where it does not fit.
"""

from collections.abc import Sequence

from tequio.algorithms.compress._bounds import upload_most
from tequio.algorithms.factors import parted
from tequio.algorithms.registry import codec_by_name
from tequio.core.errors import BudgetError
from tequio.core.texts.words import refusal
from tequio.core.types import TrainRequest
from tequio.measure.budget import exhausted, smaller
from tequio.participant.accounts import AccountBook
from tequio.participant.adapted_model import AdaptedModel

FORWARDS = 3.0  # passes that a step takes: forward, and back through activations and factors


def for_training(
    task: TrainRequest, name: str, books: AccountBook, most: int, closing: float, pass_steps: float
) -> dict[str, float]:
    """By key; kept back are the look at validation data that follows, and the last one (`closing`
    passes).

    Raises BudgetError.

    most: bytes that the upload can have. pass_steps: batches of a pass; by it what a look takes is
        guessed from steps, for who has not
    looked yet (a cohort has its panel).
    """
    remaining = _beyond(books, 1.0 + closing, pass_steps / FORWARDS)
    gone = exhausted(remaining)
    if "megabytes" in remaining and most > 1e6 * remaining["megabytes"]:
        gone = [*gone, "megabytes"]
    _refuse(name, gone)
    return {
        key: value
        for key, value in smaller(remaining, books.bound(task.budget)).items()
        if key != "megabytes"
    }


def check_look(name: str, books: AccountBook, closing: float) -> None:
    """Raise BudgetError where a look at validation data does not fit.

    One that follows own training was kept back for.
    """
    if not books.spending.trained:
        beyond = _beyond(books, 1.0 + closing)
        _refuse(name, [key for key in beyond if key != "megabytes" and beyond[key] < 0.0])


def upload_bytes(adapted: AdaptedModel, task: TrainRequest) -> int:
    """Bytes that the update of a task can have."""
    heads = {name: tuple(tensor.shape) for name, tensor in adapted.head_start.items()}
    moves = None
    if task.layout != "product":
        moves = {} if task.start is None else parted(task.start, task.trained)[0].entries
    rank = task.rank if task.start is None else 2 * task.rank
    codec = codec_by_name(task.upload, **task.upload_settings)
    return upload_most(codec, adapted.spec, adapted.shapes, heads, adapted.full, rank, moves)


def _beyond(books: AccountBook, looks: float, steps: float = 0.0) -> dict[str, float]:
    """What is left beside so many passes over validation data; steps: that a pass takes as long
    as.
    """
    spending = books.spending
    look = spending.look or {key: steps * value for key, value in spending.step.items()}
    return {
        k: value - (0.0 if k == "megabytes" else looks * look.get(k, 0.0))
        for k, value in books.left().items()
    }


def _refuse(name: str, gone: Sequence[str]) -> None:
    if gone:
        found = refusal(BudgetError, "own-budget-spent", keys=list(dict.fromkeys(gone)))
        raise found.within(f"Participant {name}")
