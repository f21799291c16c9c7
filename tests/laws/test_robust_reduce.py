"""The robust ways of adding up: known answers, and how far bad updates of a few can move them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from piece_rows import REDUCE_ROWS, ROBUST, entry, number, reduced

from builders import refused
from tequio.algorithms.registry import reduce_by_name, weights_by_name
from tequio.core.canonical import pack
from tequio.core.errors import RunError, UpdateError
from tequio.core.protocols import Facts
from tequio.core.update import Dense, Factored, Update, plain


def test_centred_clipping_without_a_limit_is_stack_to_the_bit() -> None:
    """τ = ∞, and the coefficients and divisor of norm equalisation: cᵢ = nᵢ^½/‖Δᵢ‖, divisor
    Σwᵢ/median‖Δ‖.
    """
    updates = [entry("factored", rank, rank) for rank in (1, 2, 3, 4, 2)]
    weighting = weights_by_name("norm_equalised")
    facts = [Facts(10 * i, 5, u.norm()) for i, u in enumerate(updates, 1)]
    divisor = sum(weighting.weight(f) for f in facts) / weighting.scale(facts)
    results = []
    for piece in (reduce_by_name("stack"), reduce_by_name("centred_clipping", tau=math.inf)):
        total = piece.init("s")
        for f, u in zip(facts, updates, strict=True):
            total = piece.add(total, u, weighting.coefficient(f))
        results.append(pack(piece.result(total, divisor)))
    assert results[0] == results[1]


def test_trimmed_mean_without_trimming_is_the_mean_of_factors() -> None:
    updates = [entry("dense", 3, seed) for seed in range(4)]
    mean = reduced("fedit", updates, (1.0, 2.0, 1.0, 4.0))
    assert (
        reduced("trimmed_mean", updates, (1.0, 2.0, 1.0, 4.0), trim=0.0).minus(mean).norm()
        <= 1e-6 * mean.norm()
    )


def vectors(*rows: tuple[float, ...]) -> list[Update]:
    return [Update({"x": Dense(torch.tensor(row))}, "s") for row in rows]


def test_the_geometric_median_of_a_quadrilateral_is_where_its_diagonals_cross() -> None:
    """(0,0)-(3,3) and (4,0)-(0,2): y = x and y = 2 − x/2 meet at x = 4/3."""
    got = reduced("geometric_median", vectors((0.0, 0.0), (4.0, 0.0), (3.0, 3.0), (0.0, 2.0)))
    torch.testing.assert_close(
        plain(got.entries["x"]), torch.tensor([4 / 3, 4 / 3]), atol=1e-4, rtol=0
    )


def test_one_clipping_step_on_numbers() -> None:
    """1, 2 and 12, τ = 3: the start is their median, 2; offsets −1, 0 and 10 → 3 move it by 2/3.

    Then −5/3, −2/3, 3 by 2/9.
    """
    points = vectors((1.0,), (2.0,), (12.0,))
    once = number(reduced("centred_clipping", points, tau=3.0, iterations=1))
    twice = number(
        reduced("centred_clipping", points, (5.0,) * 3, tau=3.0, iterations=2)
    )  # xᵢ = 3·5·Δᵢ/15: the same
    assert (once, twice) == pytest.approx((2 + 2 / 3, 2 + 2 / 3 + 2 / 9), abs=1e-3)


def test_a_missing_rank_is_no_vote_in_the_trimmed_mean() -> None:
    """Ranks 1, 2, 2, 2, 1. First row 1 … 5: without 1 and 5 the mean is 3.

    Second row 6, 7, 11: the middle one, 7; not 0s.
    """
    rows = [[1.0], [2.0, 6.0], [3.0, 7.0], [4.0, 11.0], [5.0]]
    updates = [Update({"m:a": Dense(torch.tensor(row).reshape(-1, 1))}, "s") for row in rows]
    assert plain(reduced("trimmed_mean", updates).entries["m:a"]).flatten().tolist() == [3.0, 7.0]


def test_trimming_rounds_up_and_two_cannot_be_trimmed() -> None:
    """6 values, 20 %: two at each end, (3 + 4)/2. Two hold the second row: their mean, 15.

    With fewer than three updates, no.
    """
    rows = [[1.0], [2.0], [3.0], [4.0], [50.0, 10.0], [60.0, 20.0]]
    updates = [Update({"m:a": Dense(torch.tensor(row).reshape(-1, 1))}, "s") for row in rows]
    assert plain(reduced("trimmed_mean", updates).entries["m:a"]).flatten().tolist() == [3.5, 15.0]
    with refused(RunError, "too-few-updates-to-trim", count=2):
        reduced("trimmed_mean", updates[:2])


def cohort(kind: str, seed: int) -> list[Update]:
    """Five honest updates: a common one and a fifth as much of their own, of unequal rank where
    that is exact.
    """
    common = entry(kind, 2, 1000 + seed)
    own = [entry(kind, 2, 10 * seed + i).scaled(0.2) for i in range(5)]
    return [common.plus(x) for x in own]


def spoilt(update: Update, how: str, size: float, seed: int) -> Update:
    if how == "reversed":
        return update.scaled(-size)
    g = torch.Generator().manual_seed(seed)
    noise = {n: Dense(torch.randn(e.shape, generator=g)) for n, e in update.entries.items()}
    return Update(noise, update.spec).scaled(
        size * update.norm() / Update(noise, update.spec).norm()
    )


@pytest.mark.parametrize("how", ["reversed", "noise"])
@pytest.mark.parametrize("name", ROBUST)
@settings(max_examples=20)
@given(seed=st.integers(0, 50), size=st.floats(10.0, 1e4))
def test_one_bad_update_of_five_does_not_move_the_robust_ones_far(
    name: str, how: str, seed: int, size: float
) -> None:
    """Within the length of the longest honest deviation from the honest mean; the plain mean goes
    at least three times as far.
    """
    kind = REDUCE_ROWS[name][0]
    honest = cohort(kind, seed)
    bad = [*honest[:4], spoilt(honest[4], how, size, seed)]
    plain_rule = "stack" if kind == "factored" else "fedit"
    truth = reduced(plain_rule, honest[:4])
    spread = max(u.minus(truth).norm() for u in honest[:4])
    assert reduced(name, bad).minus(truth).norm() <= spread
    assert reduced(plain_rule, bad).minus(truth).norm() >= 3.0 * spread


@given(seed=st.integers(0, 50), size=st.floats(1.0, 1e6))
def test_each_trimmed_coordinate_lies_among_the_honest_ones(seed: int, size: float) -> None:
    honest = cohort("dense", seed)[:4]
    got = reduced("trimmed_mean", [*honest, spoilt(honest[0], "noise", size, seed)])
    for name, e in got.entries.items():
        votes = torch.stack([plain(u.entries[name]) for u in honest])
        assert bool(((plain(e) >= votes.amin(0) - 1e-5) & (plain(e) <= votes.amax(0) + 1e-5)).all())


@pytest.mark.parametrize("name", ["centred_clipping", "geometric_median"])
@settings(max_examples=15)
@given(seed=st.integers(0, 50))
def test_robust_rules_see_products_not_factors(name: str, seed: int) -> None:
    """(B·M)(M⁻¹·A) is the same update as B·A; and all that is shared by everybody passes
    through.
    """
    updates = [entry("factored", 2, 5 * seed + i) for i in range(5)]
    expected, mix = reduced(name, updates), torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    turned, shift = [], entry("factored", 1, 999)
    for u in updates:
        e = u.entries["m"]
        assert isinstance(e, Factored)
        turned.append(Update({"m": Factored(e.b @ mix, torch.linalg.inv(mix) @ e.a)}, "s"))
    assert reduced(name, turned).minus(expected).norm() <= 1e-3 * expected.norm()
    shifted = reduced(name, [u.plus(shift) for u in updates])
    assert shifted.minus(expected.plus(shift)).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize("name", ["centred_clipping", "geometric_median"])
def test_one_update_alone_is_the_aggregate(name: str) -> None:
    u = entry("factored", 3, 0)
    assert reduced(name, [u]).minus(u).norm() <= 1e-6 * u.norm()
    with refused(UpdateError, "layouts-differ"):
        reduced(name, [u, Update(u.entries, "other")])
