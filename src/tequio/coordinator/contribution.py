"""What each participant contributed to the fall of the validation loss: agreement with the others,
and leave-one-out.

First order: the shared model moved by Δ = Σ pᵢ, each pᵢ one participant's part. To first order what
i's part does to the loss of the others is its inner product with their parts, which are (minus)
their gradients: its agreement is ⟨pᵢ, Δ − pᵢ⟩. The term ‖pᵢ‖² is left out: in it noise agrees with
itself. Of updates in layout product that have a head only the head is compared: its coordinates are
everybody's, while factors that each begins at random overlap by chance. Over a run i is credited
d·Σaᵢ / ΣΣaⱼ of how far the loss fell, d, so credits add up to d (the report does that sum; a round
alone may have parts that disagree). It needs every update of a round at once, and no evaluation.
Leave-one-out: how much higher the loss would be had the round been made without i; one evaluation
by everybody for each. Both are of the
rounds as they were: exact Shapley values would train every coalition from the start (see
    benchmarks/contribution.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tequio.coordinator.aggregation import Aggregate, aggregate
from tequio.coordinator.run_spec import RunSpec
from tequio.core.update import HEAD_PREFIX, Update


def agreements(fold: Aggregate, change: Update, run_spec: RunSpec) -> dict[str, float]:
    """⟨pᵢ, Δ − pᵢ⟩ of each participant and of the centre, by name."""
    whole = _compared(change, run_spec)
    parts = {name: _compared(part, run_spec) for name, part in _parts(fold, run_spec).items()}
    return {name: part.dot(whole) - part.dot(part) for name, part in parts.items()}


def _compared(update: Update, run_spec: RunSpec) -> Update:
    head = {name: entry for name, entry in update.entries.items() if name.startswith(HEAD_PREFIX)}
    return Update(head, update.spec) if head and run_spec.aggregator.layout == "product" else update


def _parts(fold: Aggregate, run_spec: RunSpec) -> dict[str, Update]:
    """What each adds to the mixed change (as `mix` adds up; a robust reduce weighs otherwise, so
    there it is an estimate).
    """
    centre = fold.centre
    if centre is not None and not fold.admitted:
        return {centre.member.name: centre.update}
    scale = fold.scale
    own = 1.0 if centre is None else run_spec.federated_share
    each = own * scale / fold.weight
    out = {
        one.member.name: one.update.scaled(
            each * run_spec.weighting.coefficient(one.facts) * one.discount
        )
        for one in fold.admitted
    }
    if centre is not None:
        factor = (
            run_spec.weighting.coefficient(centre.facts)
            / run_spec.weighting.weight(centre.facts)
            * scale
        )
        out[centre.member.name] = centre.update.scaled(factor * (1.0 - own))
    return out


def without(fold: Aggregate, index: int, run_spec: RunSpec) -> Aggregate:
    """The round's sum as it would be without one participant."""
    rest = [one for one in fold.admitted if one.member.index != index]
    return replace(
        aggregate([*([fold.centre] if fold.centre else []), *rest], run_spec), refused=fold.refused
    )


def rows(
    fold: Aggregate,
    agreed: Mapping[str, float],
    loss: float,
    loss_without: Callable[[Aggregate], float] | None,
    run_spec: RunSpec,
) -> list[dict[str, Any]]:
    """For the record: agreement, and leave-one-out where it is asked for.

    loss: of the round's model; loss_without: the mean loss of the model of another sum, None to
        leave it out.
    """
    names = {one.member.name: one.member.index for one in fold.admitted}
    if fold.centre is not None:
        names[fold.centre.member.name] = 0
    out = []
    for name, index in names.items():
        row: dict[str, Any] = {"name": name, "agreement": agreed.get(name)}
        if loss_without is not None and index > 0 and len(fold.admitted) > 1:
            row["leave_one_out"] = loss_without(without(fold, index, run_spec)) - loss
        out.append(row)
    return out
