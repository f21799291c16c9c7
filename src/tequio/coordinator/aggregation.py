"""The running sum of a round: what is admitted is added as it comes, then the centre's update is
mixed in.

A round may also learn the sum alone (`OpenedSum`): then no single update, norm or weight is known,
and the rest of the round is the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.algorithms.factors import padded_sum
from tequio.coordinator.admission import Admitted, Alarm, Refused
from tequio.coordinator.run_spec import RunSpec
from tequio.core.protocols import Facts
from tequio.core.update import Update


@dataclass(frozen=True)
class OpenedSum:
    """What a round knows where single updates stay hidden.

    update: Σ cᵢ Δᵢ of the participants in it, in common coordinates. weight: Σ wᵢ. rows: who is in
        it, for the record; without norms.
    figures: what else the sum told, for the record.
    """

    update: Update
    weight: float
    rows: Sequence[dict[str, Any]]
    refused: Sequence[Refused] = ()
    centre: Admitted | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aggregate:
    """The finished sum and what is known of each reply; no update is kept but the centre's, and all
    for credits.

    count: participants in the sum; weight: Σ wᵢ of theirs; scale: what multiplies their mean.
    """

    total: Any  # the aggregator's own
    count: int
    weight: float
    scale: float
    refused: list[Refused]
    centre: Admitted | None
    rows: list[dict[str, Any]]
    alarms: list[Alarm]
    admitted: Sequence[Admitted] = ()  # the participants', where credits are asked for
    figures: Mapping[str, float] = field(default_factory=dict)  # what a sum told beside the update


def weighed(admitted: Admitted, run_spec: RunSpec) -> dict[str, Any]:
    """Its row of the record with its weight, which screening may have changed; the centre's is not
    weighed.
    """
    weight = None if admitted.member.index == 0 else run_spec.weighting.weight(admitted.facts)
    discount = {"discount": admitted.discount} if admitted.discount != 1.0 else {}
    return {**admitted.row, "weight": weight, **discount}


def aggregate(outcomes: Iterable[Admitted | Refused], run_spec: RunSpec) -> Aggregate:
    """Add up what comes, in the order in which it comes."""
    total = run_spec.aggregator.init(run_spec.spec)
    facts: list[Facts] = []
    refused: list[Refused] = []
    rows: list[dict[str, Any]] = []
    alarms: list[Alarm] = []
    admitted: list[Admitted] = []
    centre: Admitted | None = None
    for outcome in outcomes:
        alarms.extend(outcome.alarms)
        if isinstance(outcome, Refused):
            refused.append(outcome)
            continue
        rows.append(weighed(outcome, run_spec))
        if outcome.member.index == 0:
            centre = outcome
            continue
        facts.append(outcome.facts)
        if run_spec.credit:
            admitted.append(outcome)
        coefficient = run_spec.weighting.coefficient(outcome.facts) * outcome.discount
        for (
            piece
        ) in outcome.update.pieces():  # of a streamed update one entry at a time is in memory
            total = run_spec.aggregator.add(total, piece, coefficient)
    weight = sum(run_spec.weighting.weight(f) for f in facts)
    scale = run_spec.weighting.scale(facts) if facts else 1.0
    return Aggregate(total, len(facts), weight, scale, refused, centre, rows, alarms, admitted)


def opened(found: OpenedSum, run_spec: RunSpec) -> Aggregate:
    """The aggregate of a sum that was opened as one."""
    total = run_spec.aggregator.add(run_spec.aggregator.init(run_spec.spec), found.update, 1.0)
    rows = [*([] if found.centre is None else [weighed(found.centre, run_spec)]), *found.rows]
    return Aggregate(
        total,
        len(found.rows),
        found.weight,
        1.0,
        list(found.refused),
        found.centre,
        rows,
        [],
        (),
        found.figures,
    )


def mix(fold: Aggregate, run_spec: RunSpec) -> Update:
    """λ·Δ_participants + (1 − λ)·Δ_centre; the centre's update is normalised as the
    participants' are.

    Alone it counts whole.
    """
    if fold.centre is not None and not fold.count:
        return fold.centre.update
    scale = fold.scale
    federated = run_spec.aggregator.result(fold.total, fold.weight / scale)
    if fold.centre is None:
        return federated
    facts = fold.centre.facts
    factor = run_spec.weighting.coefficient(facts) / run_spec.weighting.weight(facts) * scale
    share = run_spec.federated_share
    return padded_sum(federated.scaled(share), fold.centre.update.scaled(factor * (1.0 - share)))
