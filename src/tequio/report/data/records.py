"""Reading the ledger's records without trusting them: what is missing or of another type
becomes None.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tequio.config import whole as whole_config
from tequio.core.bounds import LARGEST
from tequio.core.reply_schemas import LEAST_LOSS, MOST_AMOUNT, MOST_LOSS, MOST_SECONDS, MOST_WATTS
from tequio.report.format import finite

Z95 = 1.959964
Json = dict[str, Any]


class Record(Protocol):
    """One record of the ledger, as `docs/record.md` describes it."""

    @property
    def kind(self) -> str:
        """run, start, round, wait, joined, shared, personal, pooled, everybody, general or end."""

    @property
    def body(self) -> Mapping[str, Any]:
        """The JSON body."""

    @property
    def hash(self) -> str:
        """The record's own hash."""


def bodies(entries: Sequence[Record], kind: str) -> list[Mapping[str, Any]]:
    """The bodies of one kind, in order."""
    return [entry.body for entry in entries if entry.kind == kind]


def last_body(entries: Sequence[Record], kind: str) -> Mapping[str, Any]:
    """The body of the last record of a kind; empty if there is none."""
    found = bodies(entries, kind)
    return found[-1] if found else {}


def config_of(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration in a run's first record, with the keys that it leaves out because they
    stand at their default.
    """
    return whole_config(run.get("config"))


def at_home(entries: Sequence[Record]) -> bool:
    """Whether this is a participant's own record of a federation across a network: it has no
    rounds, its book has them.
    """
    return bool(table(last_body(entries, "run").get("facts")))


def adapted(entries: Sequence[Record]) -> bool:
    """Whether this is the record of a newcomer, who was in no round."""
    return bool(table(last_body(entries, "run").get("facts")).get("adapted"))


def table(value: Any) -> Mapping[str, Any]:
    """The value if it is a table, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def tables(value: Any) -> list[Mapping[str, Any]]:
    """The tables of a list."""
    return (
        [item for item in value if isinstance(item, Mapping)]
        if isinstance(value, list | tuple)
        else []
    )


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known values."""
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def total(values: Iterable[Any]) -> float | None:
    """Sum of the known values; None if there is none."""
    known = [v for v in map(finite, values) if v is not None]
    return math.fsum(known) if known else None


def rounds_of(entries: Sequence[Record]) -> list[Mapping[str, Any]]:
    """The bodies of all that happened in rounds: the start, waiting, the rounds themselves."""
    return [body for kind in ("start", "wait", "round") for body in bodies(entries, kind)]


def is_causal(run: Mapping[str, Any]) -> bool:
    """Whether the task of a run is language modelling."""
    return table(run.get("task")).get("kind") not in (None, "classification")


def whole(values: Iterable[Any]) -> int:
    """Sum of the known values as a count."""
    return int(total(values) or 0)


def scores(value: Any) -> Json | None:
    """One Scores record, with perplexity = exp(loss) and Wilson's 95 % interval of the accuracy."""
    given = table(value)
    loss, accuracy, examples = (finite(given.get(key)) for key in ("loss", "accuracy", "examples"))
    loss = None if loss is None else plausible_loss(loss)
    accuracy = accuracy if accuracy is not None and 0 <= accuracy <= 1 else None
    examples = examples if examples is not None and 0 <= examples <= LARGEST else None
    if loss is None and accuracy is None:
        return None
    low, high = wilson(accuracy, examples)
    return {
        "loss": loss,
        "perplexity": math.exp(loss) if loss is not None and loss < 700 else None,
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "examples": None if examples is None else int(examples),
    }


def plausible_loss(value: Any) -> float | None:
    """A cross-entropy; None for what older versions recorded unread and what cannot be one."""
    loss = finite(value)
    return loss if loss is not None and LEAST_LOSS <= loss <= MOST_LOSS else None


def wilson(share: float | None, examples: float | None) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share of `examples` (Wilson 1927, JASA 22, 209-212)."""
    if share is None or not examples or examples < 1:
        return None, None
    extra = Z95**2 / examples
    middle = (share + extra / 2) / (1 + extra)
    half = (
        Z95
        * math.sqrt(max(0.0, share * (1 - share)) / examples + extra / (4 * examples))
        / (1 + extra)
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def interval(value: Any) -> Json | None:
    """One Interval record, or None unless all three numbers are there."""
    given = table(value)
    middle, low, high = (finite(given.get(key)) for key in ("mean", "low", "high"))
    if middle is None or low is None or high is None:
        return None
    return {"mean": middle, "low": low, "high": high}


def energy_rows(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The energy records of a round or a personal model: its own, or one for each `train` row."""
    if table(body.get("energy")):
        return [table(body["energy"])]
    return [found for row in tables(body.get("train")) if (found := row_energy(row))]


def row_energy(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The energy of one `train` row: a record under `energy`, or bare `joules`.

    Empty where it is not usable.
    """
    found = table(row.get("energy")) or (
        {"joules": row["joules"]} if finite(row.get("joules")) is not None else {}
    )
    return found if usable_energy(found) else {}


def usable_energy(found: Mapping[str, Any]) -> bool:
    """Whether no figure of an energy record is negative or larger than any machine's: older
    versions recorded some unread.
    """
    figures = [
        finite(found.get(key))
        for key in ("joules", "seconds", "embodied", "hosted")
        if found.get(key) is not None
    ]
    most = MOST_WATTS * MOST_SECONDS
    return all(value is not None and 0 <= value <= most for value in figures)


def row_money(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The money of a row: amount and currency. Empty where there is none, or it is not usable."""
    found = table(row.get("money"))
    amount, currency = finite(found.get("amount")), found.get("currency")
    return (
        found
        if amount is not None and 0 <= amount <= MOST_AMOUNT and isinstance(currency, str)
        else {}
    )


def unusable(row: Mapping[str, Any]) -> bool:
    """Whether a row holds energy or money that cannot be used."""
    given = table(row.get("energy")), table(row.get("money"))
    return any(
        found and not used
        for found, used in zip(given, (row_energy(row), row_money(row)), strict=True)
    )
