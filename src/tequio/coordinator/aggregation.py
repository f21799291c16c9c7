"""The running sum of a round: what is admitted is added as it comes, then the centre's update is mixed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tequio.algorithms.factors import padded_sum
from tequio.coordinator.admission import Admitted, Alarm, Refused
from tequio.coordinator.run_spec import Member, Plan
from tequio.core.canonical import size_of
from tequio.core.protocols import Facts
from tequio.core.types import Reply
from tequio.core.update import Update


@dataclass(frozen=True)
class Counted:
    """One admitted update on its way into the sum, and its row in the record.

    discount: multiplies its change, not the sum of weights; below 1 for an update of an older model (see buffered.py).
    """

    index: int
    update: Update
    facts: Facts
    row: dict[str, Any]
    alarms: tuple[Alarm, ...] = ()
    discount: float = 1.0


@dataclass(frozen=True)
class Fold:
    """The finished sum and what is known of each reply; no update is kept but the centre's, and all for credits."""

    total: Any  # the aggregator's own
    facts: list[Facts]
    refused: list[Refused]
    centre: Counted | None
    rows: list[dict[str, Any]]
    alarms: list[Alarm]
    kept: Sequence[Counted] = ()  # the participants', where credits are asked for


def counted(outcome: Admitted | Refused, plan: Plan) -> Counted | Refused:
    """An admitted reply with its row; a refused one as it is."""
    if isinstance(outcome, Refused):
        return outcome
    return Counted(outcome.member.index, outcome.update, outcome.facts, _row(outcome, plan), outcome.alarms)


def folded(outcomes: Iterable[Counted | Refused], plan: Plan) -> Fold:
    """Add up what comes, in the order in which it comes."""
    total = plan.aggregator.init(plan.spec)
    facts: list[Facts] = []
    refused: list[Refused] = []
    rows: list[dict[str, Any]] = []
    alarms: list[Alarm] = []
    kept: list[Counted] = []
    centre: Counted | None = None
    for outcome in outcomes:
        alarms.extend(outcome.alarms)
        if isinstance(outcome, Refused):
            refused.append(outcome)
            continue
        rows.append({**outcome.row, "discount": outcome.discount} if outcome.discount != 1.0 else outcome.row)
        if outcome.index == 0:
            centre = outcome
            continue
        facts.append(outcome.facts)
        if plan.credit:
            kept.append(outcome)
        coefficient = plan.weighting.coefficient(outcome.facts) * outcome.discount
        for piece in outcome.update.pieces():  # of a streamed update one entry at a time is in memory
            total = plan.aggregator.add(total, piece, coefficient)
    return Fold(total, facts, refused, centre, rows, alarms, kept)


def mix(fold: Fold, plan: Plan) -> Update:
    """λ·Δ_participants + (1 − λ)·Δ_centre; the centre's update is normalised as the participants' are. Alone it counts whole."""
    if fold.centre is not None and not fold.facts:
        return fold.centre.update
    weights = sum(plan.weighting.weight(f) for f in fold.facts)
    scale = plan.weighting.scale(fold.facts)
    federated = plan.aggregator.result(fold.total, weights / scale)
    if fold.centre is None:
        return federated
    facts = fold.centre.facts
    factor = plan.weighting.coefficient(facts) / plan.weighting.weight(facts) * scale
    share = plan.federated_share
    return padded_sum(federated.scaled(share), fold.centre.update.scaled(factor * (1.0 - share)))


def _row(admitted: Admitted, plan: Plan) -> dict[str, Any]:
    member: Member = admitted.member
    reply = admitted.reply
    return {
        "name": member.name,
        "rank": member.rank,
        "steps": reply.steps,
        "tokens": reply.tokens,
        "examples": reply.examples,
        "loss_first": reply.metrics.get("loss_first"),
        "loss_last": reply.metrics.get("loss_last"),
        "norm": admitted.norm,
        "weight": None if member.index == 0 else plan.weighting.weight(admitted.facts),
        "bytes_up": _size(reply, admitted.update),
        **cost_of(reply),
        **({"note": reply.note} if reply.note else {}),
    }


def cost_of(reply: Reply) -> dict[str, Any]:
    """What a reply tells of its cost: seconds, joules, the whole record of its energy, money."""
    energy, money = reply.energy, reply.money
    return {
        "seconds": None if energy is None else energy.seconds,
        "joules": None if energy is None else energy.joules,
        "energy": None if energy is None else asdict(energy),
        "money": None if money is None else asdict(money),
    }


def _size(reply: Reply, update: Update) -> int:
    """Bytes of the message that brought the update."""
    if reply.parts is not None:
        return sum(len(part) for part in reply.parts)
    return size_of(update) if reply.payload is None else len(reply.payload)
