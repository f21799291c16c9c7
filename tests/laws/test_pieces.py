"""Every piece of the catalogue obeys the laws of its kind. A new piece joins by one row here."""

from __future__ import annotations

import pytest
import torch

from tequio.algorithms.catalogue import REDUCE, SERVER, WEIGHTS, reduce_by_name, server_by_name, weights_by_name
from tequio.core.errors import ConfigError
from tequio.core.protocols import Facts
from tequio.core.update import Dense, Factored, Update, plain, zero

REDUCE_ROWS = {"stack": "factored", "fedit": "dense"}
WEIGHT_ROWS = {  # weights of participants with (examples, steps, norm) = (10, 5, 2), (40, 10, 4); worked by hand
    "examples": (10.0, 40.0),
    "uniform": (1.0, 1.0),
    "fednova": (10.0, 40.0),
    "norm_equalised": (10.0**0.5, 40.0**0.5),
}
SERVER_ROWS = {"sgd": {}, "nesterov": {"learning_rate": 1.0, "momentum": 0.0}}
FACTS = [Facts(10, 5, 2.0), Facts(40, 10, 4.0)]


def entry(kind: str, rank: int, seed: int) -> Update:
    g = torch.Generator().manual_seed(seed)
    b, a = torch.randn(6, rank, generator=g), torch.randn(rank, 5, generator=g)
    x = {"m": Factored(b, a)} if kind == "factored" else {"m:a": Dense(a), "m:b": Dense(b)}
    return Update(x, "s")


def test_every_piece_has_a_row() -> None:
    assert set(REDUCE_ROWS) == set(REDUCE)
    assert set(WEIGHT_ROWS) == set(WEIGHTS)
    assert set(SERVER_ROWS) == set(SERVER)


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
def test_reduce_of_equals_is_the_same(name: str) -> None:
    piece = reduce_by_name(name)
    u = entry(REDUCE_ROWS[name], 3, 0)
    total = piece.init("s")
    for weight in (1.0, 2.0, 5.0):
        total = piece.add(total, u, weight)
    mean = piece.result(total, 8.0)
    assert mean.minus(u).norm() <= 1e-5 * u.norm()


@pytest.mark.parametrize("name", sorted(REDUCE_ROWS))
def test_reduce_is_linear_in_the_coefficient(name: str) -> None:
    piece = reduce_by_name(name)
    u, v = entry(REDUCE_ROWS[name], 3, 0), entry(REDUCE_ROWS[name], 3, 1)
    once = piece.add(piece.add(piece.init("s"), u, 2.0), v, 3.0)
    expected = u.scaled(2.0).plus(v.scaled(3.0))
    assert once.minus(expected).norm() <= 1e-5 * expected.norm()


def test_stack_is_exact_where_fedit_is_biased() -> None:
    """Two clients with B₁A₁ and B₂A₂: stack gives the mean of products, FedIT the product of means."""
    b1, a1 = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 0.0]])
    b2, a2 = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 1.0]])
    stack, fedit = reduce_by_name("stack"), reduce_by_name("fedit")
    total = stack.add(
        stack.add(stack.init(""), Update({"m": Factored(b1, a1)}), 1.0), Update({"m": Factored(b2, a2)}), 1.0
    )
    torch.testing.assert_close(plain(stack.result(total, 2.0).entries["m"]), torch.tensor([[0.5, 0.0], [0.0, 0.5]]))
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
    piece, facts = weights_by_name(name), [Facts(7, 3, 1.5)] * 4
    total = sum(piece.coefficient(f) for f in facts) / sum(piece.weight(f) for f in facts)
    assert piece.scale(facts) * total == pytest.approx(1.0)


def test_norm_equalisation_gives_everybody_the_median_length() -> None:
    piece = weights_by_name("norm_equalised", power=0.0)
    lengths = [piece.scale(FACTS) * piece.coefficient(f) * f.norm for f in FACTS]
    assert lengths == pytest.approx([3.0, 3.0])  # the median of 2 and 4


def test_fednova_counts_steps_once() -> None:
    """Two participants on the same straight path, 5 and 10 steps of 0.1: the mean direction has τ_eff·0.1 = 0.9."""
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


def number(u: Update) -> float:
    e = u.entries["x"]
    assert isinstance(e, Dense)
    return float(e.value)


def test_heavy_ball_and_nesterov_on_numbers() -> None:
    """Changes 1 then 1, μ = .5: heavy ball steps 1, 1.5; Nesterov with η = 1 steps 1 + .5·1 = 1.5, then 1 + .5·1.5 = 1.75."""
    ball, nesterov = server_by_name("sgd", momentum=0.5), server_by_name("nesterov", learning_rate=1.0, momentum=0.5)
    m1, s1 = ball.apply(zero("s"), scalar(1.0))
    _, s2 = ball.apply(m1, scalar(1.0))
    assert (number(s1), number(s2)) == (1.0, 1.5)
    m1, s1 = nesterov.apply(zero("s"), scalar(1.0))
    _, s2 = nesterov.apply(m1, scalar(1.0))
    assert (number(s1), number(s2)) == (1.5, 1.75)


def test_an_unknown_piece_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'norm_equalised'"):
        weights_by_name("norm_equalized")
    with pytest.raises(ConfigError, match="does not take these settings"):
        server_by_name("sgd", momentun=0.5)
