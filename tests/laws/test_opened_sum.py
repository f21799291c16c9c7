"""The seam for rounds that learn nothing but the sum of updates, with the plainest sum there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders import build_setup
from tequio.algorithms.compatibility import check_sum
from tequio.algorithms.compress.plain import Plain
from tequio.algorithms.factors import padded_sum
from tequio.algorithms.registry import (
    REDUCE,
    WEIGHTS,
    codec_by_name,
    reduce_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.coordinator.admission import Refused
from tequio.coordinator.aggregation import OpenedSum
from tequio.coordinator.round import ShortRound, in_order, open_state, run_round
from tequio.coordinator.run_spec import Member, RunSpec, Screening
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError
from tequio.core.protocols import Runtime, Sees
from tequio.core.types import EvaluateRequest, Failure, Request, State
from tequio.core.update import zero
from tequio.runtimes.embedded import Embedded

HIDDEN = ("norm", "loss_first", "loss_last")


def plain_sum(
    tasks: Iterator[Request],
    roster: Sequence[Member],
    state: State,
    run_spec: RunSpec,
    runtime: Runtime,
    /,
) -> OpenedSum:
    """Adds updates up before anybody looks at one; in a second exchange those whose updates are in
    it are asked once more.
    """
    total, rows, refused, centre = (
        zero(run_spec.spec),
        list[dict[str, Any]](),
        list[Refused](),
        None,
    )
    for outcome in in_order(runtime.exchange(tasks), state, run_spec, roster):
        if isinstance(outcome, Refused):
            refused.append(outcome)
        elif outcome.member.index == 0:
            centre = outcome
        else:
            total = padded_sum(total, outcome.update)
            rows.append({**outcome.row, **dict.fromkeys(HIDDEN), "weight": 1.0})
    names = {row["name"] for row in rows}
    again = [
        EvaluateRequest(state.round + 1, m.index, m.name, zero(run_spec.spec))
        for m in roster
        if m.name in names
    ]
    assert not any(isinstance(reply, Failure) for reply in runtime.exchange(again))
    return OpenedSum(total, float(len(rows)), rows, refused, centre)


@pytest.mark.parametrize(
    "reduce", sorted(name for name in REDUCE if reduce_by_name(name).sees == "only the sum")
)
@pytest.mark.parametrize("centre", [False, True])
def test_a_round_of_the_opened_sum_makes_the_same_model(
    make_federation: Any, reduce: str, centre: bool
) -> None:
    w = build_setup(make_federation(participants=3, centre=centre))
    run_spec = replace(
        w.run_spec, aggregator=reduce_by_name(reduce), weighting=weights_by_name("uniform")
    )
    runtime = Embedded(w.nodes)
    state, _ = open_state(run_spec, runtime)
    clear, body = run_round(state, run_spec, runtime)
    summed, hidden = run_round(state, run_spec, runtime, plain_sum)
    assert digest_update(summed.shared) == digest_update(clear.shared)
    assert hidden["mean_validation_loss"] == body["mean_validation_loss"]
    participants = [row for row in hidden["train"] if row["name"] != "centre"]
    assert [row["weight"] for row in participants] == pytest.approx([1 / 3] * 3)
    assert all(row[key] is None for row in participants for key in HIDDEN)


def test_an_opened_sum_of_too_few_makes_no_round(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=3, centre=False))
    run_spec = replace(w.run_spec, aggregator=reduce_by_name("ffa"), quorum=2)
    state, _ = open_state(run_spec, Embedded(w.nodes))

    def few(*given: Any) -> OpenedSum:
        found = plain_sum(*given)
        return replace(found, rows=found.rows[:1], weight=1.0)

    with pytest.raises(ShortRound) as short:
        run_round(state, run_spec, Embedded(w.nodes), few)
    assert short.value.body["usable"] == 1


def refused(check: Callable[[], None]) -> str:
    """The code of the refusal."""
    with pytest.raises(ConfigError) as error:
        check()
    assert error.value.reason is not None
    return error.value.reason.code


@pytest.mark.parametrize("reduce", sorted(REDUCE))
@pytest.mark.parametrize("weights", sorted(WEIGHTS))
def test_only_pieces_that_need_no_single_update_go_with_a_sum(reduce: str, weights: str) -> None:
    pieces = reduce_by_name(reduce), weights_by_name(weights), start_by_name("fresh"), Plain()
    legal = {pieces[0].sees, pieces[1].sees} == {"only the sum"}
    if legal:
        check_sum(*pieces, {})
        return
    assert refused(lambda: check_sum(*pieces, {})) == "sum-piece"


@pytest.mark.parametrize(
    ("screening", "sees"),
    [
        (Screening(), "only the sum"),
        (Screening(norm_bound=2.0), "norms"),
        (Screening(loss=0.1), "each update"),
        (Screening(cosine=0.0, cosine_to="centre"), "each update"),
    ],
)
def test_a_screen_says_what_it_must_see(screening: Screening, sees: Sees) -> None:
    assert screening.sees == sees
    pieces = reduce_by_name("rolora"), weights_by_name("uniform"), start_by_name("fresh"), Plain()
    if sees == "only the sum":
        check_sum(*pieces, {"[screen]": screening.sees})
        return
    assert refused(lambda: check_sum(*pieces, {"[screen]": screening.sees})) == "sum-piece"


def test_codes_whole_weights_and_products_do_not_go_with_a_sum() -> None:
    reduce, weights, fresh = (
        reduce_by_name("ffa"),
        weights_by_name("uniform"),
        start_by_name("fresh"),
    )
    assert (
        refused(lambda: check_sum(reduce, weights, fresh, codec_by_name("quantise"), {}))
        == "sum-codec"
    )
    assert (
        refused(lambda: check_sum(reduce, weights, fresh, Plain(), {}, full=True))
        == "sum-coordinates"
    )
    assert (
        refused(lambda: check_sum(reduce, weights, start_by_name("fedex"), Plain(), {}))
        == "sum-coordinates"
    )
