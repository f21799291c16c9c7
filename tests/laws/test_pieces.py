"""Every piece of the catalogue obeys the laws of its kind. A new piece joins by one row here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from piece_rows import FACTS, LINEAR, REDUCE_ROWS, SERVER_ROWS, WEIGHT_ROWS, entry, number, reduced

from builders import refused
from tequio.algorithms.registry import (
    REDUCE,
    SERVER,
    WEIGHTS,
    reduce_by_name,
    server_by_name,
    weights_by_name,
)
from tequio.core.canonical import pack, unpack
from tequio.core.errors import ConfigError, UpdateError
from tequio.core.protocols import Facts
from tequio.core.update import Dense, Factored, Update, plain, zero


def test_every_piece_has_a_row() -> None:
    assert set(REDUCE_ROWS) == set(REDUCE)
    assert set(WEIGHT_ROWS) == set(WEIGHTS)
    assert set(SERVER_ROWS) == set(SERVER)


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
def test_reduce_of_equals_is_the_same(name: str) -> None:
    """Whatever the weights where the sum is linear; at equal weights in the robust rules, where a
    weight is a length.
    """
    u = entry(REDUCE_ROWS[name][0], 3, 0)
    weights = (1.0, 2.0, 5.0) if name in LINEAR else (2.0, 2.0, 2.0)
    mean = reduced(name, [u] * 3, weights)
    assert mean.minus(u).norm() <= 1e-5 * u.norm()


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
def test_twice_the_updates_give_twice_the_aggregate(name: str) -> None:
    updates = [entry(REDUCE_ROWS[name][0], 3, seed) for seed in range(5)]
    expected = reduced(name, updates).scaled(2.0)
    assert (
        reduced(name, [u.scaled(2.0) for u in updates]).minus(expected).norm()
        <= 1e-5 * expected.norm()
    )


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
@settings(max_examples=15)
@given(order=st.permutations(range(5)))
def test_reduce_does_not_depend_on_the_order(name: str, order: list[int]) -> None:
    updates = [entry(REDUCE_ROWS[name][0], 3, seed) for seed in range(5)]
    weights = (1.0, 2.0, 1.5, 1.0, 3.0)
    expected = reduced(name, updates, weights)
    got = reduced(name, [updates[i] for i in order], tuple(weights[i] for i in order))
    assert got.minus(expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
def test_a_streaming_piece_keeps_a_constant_size_and_the_others_say_so(name: str) -> None:
    piece = reduce_by_name(name)
    assert piece.streaming is (name in LINEAR)
    total, sizes = piece.init("s"), []
    for seed in range(8):
        total = piece.add(total, entry(REDUCE_ROWS[name][0], 3, seed), 1.0)
        sizes.append(total.nbytes() if piece.streaming else len(total.updates))
    if piece.streaming:
        assert (
            len(set(sizes[1:])) == 1
        )  # the first may be smaller or larger: factors, before the sum is kept dense
    else:
        assert sizes == list(range(1, 9))


@pytest.mark.parametrize("name", LINEAR)
def test_reduce_is_linear_in_the_coefficient(name: str) -> None:
    piece = reduce_by_name(name)
    u, v = entry(REDUCE_ROWS[name][0], 3, 0), entry(REDUCE_ROWS[name][0], 3, 1)
    once = piece.add(piece.add(piece.init("s"), u, 2.0), v, 3.0)
    expected = u.scaled(2.0).plus(v.scaled(3.0))
    assert once.minus(expected).norm() <= 1e-5 * expected.norm()


def test_stack_is_exact_where_fedit_is_biased() -> None:
    """Two clients with B₁A₁ and B₂A₂: stack gives the mean of products, FedIT the product of
    means.
    """
    b1, a1 = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]])
    b2, a2 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 1.0]])
    stack, fedit = reduce_by_name("stack"), reduce_by_name("fedit")
    total = stack.add(
        stack.add(stack.init(""), Update({"m": Factored(b1, a1)}), 1.0),
        Update({"m": Factored(b2, a2)}),
        1.0,
    )
    torch.testing.assert_close(
        plain(stack.result(total, 2.0).entries["m"]), torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    )
    total = fedit.init("")
    for b, a in ((b1, a1), (b2, a2)):
        total = fedit.add(total, Update({"m:a": Dense(a), "m:b": Dense(b)}), 1.0)
    coordinates = fedit.result(total, 2.0).entries
    left, right = coordinates["m:a"], coordinates["m:b"]
    torch.testing.assert_close(plain(right) @ plain(left), torch.full((2, 2), 0.25))


def test_fedit_pads_missing_ranks_with_zero() -> None:
    fedit = reduce_by_name("fedit")
    total = fedit.add(fedit.init("s"), entry("dense", 2, 0), 1.0)
    total = fedit.add(total, entry("dense", 4, 1), 1.0)
    a = total.entries["m:a"]
    assert isinstance(a, Dense)
    low, high = entry("dense", 2, 0).entries["m:a"], entry("dense", 4, 1).entries["m:a"]
    assert isinstance(low, Dense)
    assert isinstance(high, Dense)
    torch.testing.assert_close(a.value[:2], low.value + high.value[:2])
    torch.testing.assert_close(a.value[2:], high.value[2:])


@pytest.mark.parametrize("name", sorted(WEIGHT_ROWS))
def test_weights_are_those_worked_by_hand(name: str) -> None:
    piece = weights_by_name(name)
    assert tuple(piece.weight(f) for f in FACTS) == pytest.approx(WEIGHT_ROWS[name])


@pytest.mark.parametrize("name", sorted(WEIGHT_ROWS))
def test_equal_participants_keep_their_update(name: str) -> None:
    """With equal facts, scale · Σ cΔ / Σ w = Δ for every weighting."""
    piece, facts = weights_by_name(name), [Facts(7, 3, 1.5, 0.8)] * 4
    total = sum(piece.coefficient(f) for f in facts) / sum(piece.weight(f) for f in facts)
    assert piece.scale(facts) * total == pytest.approx(1.0)


def test_norm_equalisation_gives_everybody_the_median_length() -> None:
    piece = weights_by_name("norm_equalised", power=0.0)
    lengths = [piece.scale(FACTS) * piece.coefficient(f) * f.norm for f in FACTS]
    assert lengths == pytest.approx([3.0, 3.0])  # the median of 2 and 4


@pytest.mark.parametrize("name", ["q_ffl", "term"])
def test_weights_by_need_equalise_lengths_unless_reported_not_to(name: str) -> None:
    piece, raw = weights_by_name(name), weights_by_name(name, normalise=False)
    lengths = [piece.scale(FACTS) * piece.coefficient(f) * f.norm / piece.weight(f) for f in FACTS]
    assert lengths == pytest.approx([3.0, 3.0])  # the median of 2 and 4
    assert [raw.coefficient(f) for f in FACTS] == [raw.weight(f) for f in FACTS]
    assert raw.scale(FACTS) == 1.0


@pytest.mark.parametrize(
    ("name", "setting", "ratio"), [("q_ffl", "q", 9.0), ("term", "t", math.exp(2.0))]
)
def test_weights_by_need_on_numbers(name: str, setting: str, ratio: float) -> None:
    """At 2, excesses 1.5 and .5 weigh (1.5/.5)² = 9 or e^(2·1) to one; at 0 all weigh 1; unknown
    weighs as the base's own, 1.
    """
    piece, flat = weights_by_name(name, **{setting: 2.0}), weights_by_name(name, **{setting: 0.0})
    assert piece.weight(FACTS[1]) / piece.weight(FACTS[0]) == pytest.approx(ratio)
    assert [flat.weight(f) for f in FACTS] == [1.0, 1.0]
    assert [piece.weight(Facts(5, 5, 1.0, x)) for x in (0.0, 1.0, math.nan)] == [1.0, 1.0, 1.0]
    assert piece.weight(Facts(5, 5, 1.0, math.inf)) == piece.weight(
        Facts(5, 5, 1.0, 10.0)
    )  # ten times the base's at most


def test_fednova_counts_steps_once() -> None:
    """Two participants on the same straight path, 5 and 10 steps of 0.1: the mean direction has
    τ_eff·0.1 = 0.9.
    """
    piece = weights_by_name("fednova")
    moved = [0.5, 1.0]
    total = sum(piece.coefficient(f) * m for f, m in zip(FACTS, moved, strict=True)) / 50
    assert piece.scale(FACTS) * total == pytest.approx(0.9)  # τ_eff = (10·5 + 40·10)/50 = 9


@pytest.mark.parametrize("name", sorted(SERVER_ROWS))
def test_a_server_without_momentum_and_rate_one_passes_the_change_on(name: str) -> None:
    piece = server_by_name(name, **SERVER_ROWS[name])
    change = entry("factored", 2, 0)
    _, step = piece.apply(piece.init("s"), change)
    assert step.minus(change).norm() <= 1e-6 * change.norm()


def scalar(value: float) -> Update:
    return Update({"x": Dense(torch.tensor([value]))}, "s")


def test_heavy_ball_and_nesterov_on_numbers() -> None:
    """Changes 1 then 1, μ = .5: heavy ball steps 1, 1.5;

    Nesterov with η = 1 steps 1 + .5·1 = 1.5, then 1 + .5·1.5 = 1.75.
    """
    ball, nesterov = (
        server_by_name("sgd", momentum=0.5),
        server_by_name("nesterov", learning_rate=1.0, momentum=0.5),
    )
    m1, s1 = ball.apply(zero("s"), scalar(1.0))
    _, s2 = ball.apply(m1, scalar(1.0))
    assert (number(s1), number(s2)) == (1.0, 1.5)
    m1, s1 = nesterov.apply(zero("s"), scalar(1.0))
    _, s2 = nesterov.apply(m1, scalar(1.0))
    assert (number(s1), number(s2)) == (1.5, 1.75)


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_the_first_adaptive_step_is_the_sign_of_the_change(name: str) -> None:
    """m = .1·Δ, v = .01·Δ² and τ → 0: step = η·.1Δ/(.1|Δ|) = η·sign Δ, with η = .01."""
    change = Update({"x": Dense(torch.tensor([3.0, -0.5, 20.0]))}, "s")
    piece = server_by_name(name, tau=1e-12)
    _, step = piece.apply(piece.init("s"), change)
    torch.testing.assert_close(plain(step.entries["x"]), torch.tensor([0.01, -0.01, 0.01]))


@pytest.mark.parametrize(
    ("name", "v"), [("adam", 0.5 * 0.5 + 0.5 * 0.01), ("yogi", 0.5 - 0.5 * 0.01)]
)
def test_adam_and_yogi_part_when_changes_become_small(name: str, v: float) -> None:
    """β = .5, Δ = 1 then .1: m = .5 then .3; v = .5, then Adam's .255 (half forgotten), Yogi's .495
    (less Δ²/2 only).
    """
    piece = server_by_name(name, learning_rate=1.0, beta1=0.5, beta2=0.5, tau=1e-12)
    memory, first = piece.apply(piece.init("s"), scalar(1.0))
    memory, second = piece.apply(memory, scalar(0.1))
    assert number(first) == pytest.approx(0.5 / math.sqrt(0.5))
    assert number(second) == pytest.approx(0.3 / math.sqrt(v))
    assert sorted(memory.entries) == ["m/x", "v/x"]


@pytest.mark.parametrize("name", ["adam", "yogi"])
def test_the_memory_of_an_adaptive_server_survives_its_bytes(name: str) -> None:
    """Factors, heads, absent entries and fewer ranks than before; the step is dense and fits the
    shared model.
    """
    piece = server_by_name(name)
    head = {"head.weight": Dense(torch.ones(2, 5))}
    memory, step = piece.apply(
        piece.init("s"), Update({**entry("factored", 2, 0).entries, **head}, "s")
    )
    assert {n: type(e) for n, e in step.entries.items()} == {"m": Dense, "head.weight": Dense}
    again = unpack(pack(memory))
    results = [piece.apply(start, entry("factored", 1, 1)) for start in (memory, again)]
    assert [pack(m) for m, _ in results[:1]] == [pack(m) for m, _ in results[1:]]
    coasting = plain(
        results[0][1].entries["head.weight"]
    )  # m = .09, v = .99·(.99τ² + .01), no new change
    torch.testing.assert_close(
        coasting, torch.full((2, 5), 0.01 * 0.09 / (0.0099 + 9.8e-7) ** 0.5), rtol=2e-2, atol=0
    )
    wide, _ = piece.apply(piece.init("s"), entry("dense", 4, 0))
    assert piece.apply(wide, entry("dense", 2, 1))[1].entries["m:a"].shape == (4, 5)
    narrow, _ = piece.apply(piece.init("s"), entry("dense", 2, 1).scaled(1e-3))
    grown, _ = piece.apply(narrow, entry("dense", 4, 0).scaled(1e-3))
    fresh, _ = piece.apply(piece.init("s"), entry("dense", 4, 0).scaled(1e-3))
    for name_ in ("m/m:a", "v/m:a"):  # ranks that are new start as in the first round
        torch.testing.assert_close(
            plain(grown.entries[name_])[2:], plain(fresh.entries[name_])[2:], atol=0, rtol=1e-5
        )
    with refused(UpdateError, "layouts-differ"):
        piece.apply(memory, Update(head, "other"))


@pytest.mark.parametrize(
    ("make", "name", "wrong"),
    [
        (reduce_by_name, "trimmed_mean", {"trim": 0.5}),
        (reduce_by_name, "centred_clipping", {"iterations": 0}),
        (reduce_by_name, "centred_clipping", {"factor": 0.0}),
        (reduce_by_name, "centred_clipping", {"tau": -1.0}),
        (reduce_by_name, "geometric_median", {"smoothing": 0.0}),
        (weights_by_name, "q_ffl", {"q": -1.0}),
        (weights_by_name, "term", {"t": 11.0}),
        (server_by_name, "adam", {"beta1": 1.0}),
        (server_by_name, "yogi", {"tau": 0.0}),
    ],
)
def test_a_setting_out_of_range_names_the_piece_and_itself(
    make: Any, name: str, wrong: dict[str, float]
) -> None:
    ((setting, value),) = wrong.items()
    with refused(
        ConfigError, "out-of-range", key=f"[algorithm] {name}: {setting}", value=f"{value:g}"
    ):
        make(name, **wrong)


def test_an_unknown_piece_names_the_nearest() -> None:
    with refused(ConfigError, "piece-unknown", value="norm_equalized", nearest="norm_equalised"):
        weights_by_name("norm_equalized")
    with refused(
        ConfigError,
        "settings-unknown",
        value="sgd",
        unknown=["momentun"],
        known=["learning_rate", "momentum"],
    ):
        server_by_name("sgd", momentun=0.5)


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_momentum_outlives_a_round_without_the_highest_rank(name: str) -> None:
    piece = server_by_name(name, learning_rate=1.0, momentum=0.5)
    high, low = entry("dense", 4, 0), entry("dense", 2, 1)
    memory, _ = piece.apply(piece.init("s"), high)
    memory, step = piece.apply(memory, low)
    for update in (memory, step):
        assert plain(update.entries["m:a"]).shape == (4, 5)
    expected = plain(high.entries["m:a"])[2:] * 0.5  # what the absent ranks had, decayed once
    torch.testing.assert_close(plain(memory.entries["m:a"])[2:], expected)
