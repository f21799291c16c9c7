"""Every local term and method obeys the laws of its kind, on toy numbers.

A new piece joins by one row in term_rows.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from term_rows import METHODS, TERMS
from torch import Tensor

from builders import refused
from tequio.algorithms.local._products import inner
from tequio.algorithms.registry import LOCAL, METHOD, method_by_name, terms_by_name
from tequio.core.errors import ConfigError
from tequio.core.protocols import Step
from tequio.core.update import Dense, Factored, Update, zero


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, requires_grad=True).reshape(-1, 1)


def toy() -> Step:
    now = Update({"m": Factored(column(2, 1), column(3, 1).T), "head.bias": Dense(column(1))}, "s")
    start = Update(
        {
            "m": Factored(column(1, 1).detach(), column(3, 1).detach().T),
            "head.bias": Dense(torch.full((1, 1), 3.0)),
        },
        "s",
    )
    gradient = Update(
        {
            "m": Factored(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0, 2.0]])),
            "head.bias": Dense(torch.full((1, 1), 5.0)),
        },
        "s",
    )
    base = torch.tensor([[math.log(0.75), math.log(0.25)]])
    return Step(torch.tensor(4.0), now, start, torch.zeros(1, 2), torch.tensor([0]), base, gradient)


def test_every_piece_has_a_row() -> None:
    assert set(TERMS) == set(LOCAL)
    assert set(METHODS) == set(METHOD)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_known_answers(name: str) -> None:
    strength, expected = TERMS[name]
    (term,) = terms_by_name({name: strength})
    assert term.name == name
    assert float(term.added(toy()).detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_strength_0_is_no_term_and_twice_the_strength_is_twice_the_term(name: str) -> None:
    assert terms_by_name({name: 0.0}) == ()
    once, twice = terms_by_name({name: 0.2})[0], terms_by_name({name: 0.4})[0]
    assert float(twice.added(toy()).detach()) == pytest.approx(
        2.0 * float(once.added(toy()).detach()), rel=1e-6
    )


def _fedprox(values: list[Tensor]) -> Tensor:
    b, a, logits = values
    start = Update(
        {"m": Factored(torch.ones(3, 2, dtype=b.dtype), torch.full((2, 4), 0.3, dtype=b.dtype))},
        "s",
    )
    return terms_by_name({"fedprox": 0.7})[0].added(
        Step(logits.sum(), Update({"m": Factored(b, a)}, "s"), start)
    )


def _transfer(values: list[Tensor]) -> Tensor:
    b, a, logits = values
    g = torch.Generator().manual_seed(9)
    left, right = (
        torch.randn(3, 1, generator=g, dtype=b.dtype),
        torch.randn(1, 4, generator=g, dtype=b.dtype),
    )
    now, gradient = Update({"m": Factored(b, a)}, "s"), Update({"m": Factored(left, right)}, "s")
    return terms_by_name({"transfer": 0.7})[0].added(
        Step(logits.sum(), now, now, gradient=gradient)
    )


def _public(name: str) -> Callable[[list[Tensor]], Tensor]:
    def value(values: list[Tensor]) -> Tensor:
        logits, nothing = values[2], zero("s")
        g = torch.Generator().manual_seed(9)
        base = torch.randn(logits.shape, generator=g)
        step = Step(values[0].sum(), nothing, nothing, logits, torch.tensor([0, 2]), base)
        return terms_by_name({name: 0.7})[0].added(step)

    return value


@pytest.mark.parametrize(
    ("value", "tolerance"),
    [(_fedprox, 1e-6), (_transfer, 1e-6), (_public("kl"), 1e-2), (_public("replay"), 1e-2)],
)
def test_gradients_are_those_of_finite_differences(
    value: Callable[[list[Tensor]], Tensor], tolerance: float
) -> None:
    """Central differences, h = 1e-4 in float64; logits are taken in float32 by the terms, hence h =
    1e-2 and 1 % there.
    """
    g = torch.Generator().manual_seed(1)
    points = [
        torch.randn(shape, generator=g, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2), (2, 4), (2, 3))
    ]
    gradients = torch.autograd.grad(value(points), points, allow_unused=True)
    h = 1e-4 if tolerance < 1e-3 else 1e-2
    for k, gradient in enumerate(gradients):
        if gradient is None:
            continue
        for place in range(points[k].numel()):
            moved = []
            for sign in (1.0, -1.0):
                other = [p.detach().clone() for p in points]
                other[k].view(-1)[place] += sign * h
                moved.append(float(value(other)))
            expected = (moved[0] - moved[1]) / (2 * h)
            assert float(gradient.reshape(-1)[place]) == pytest.approx(
                expected, rel=tolerance, abs=tolerance
            )


def test_the_transferred_gradient_is_g_projected_on_the_factors() -> None:
    """gB = w·s·G·Aᵀ and gA = w·s·Bᵀ·G, with G = LR formed here and never there."""
    g = torch.Generator().manual_seed(3)
    left, right, scale = torch.randn(5, 2, generator=g), torch.randn(2, 7, generator=g), 2.0
    b, a = (
        torch.randn(5, 3, generator=g, requires_grad=True),
        torch.randn(3, 7, generator=g, requires_grad=True),
    )
    now, gradient = (
        Update({"m": Factored(b * scale, a)}, "s"),
        Update({"m": Factored(left, right)}, "s"),
    )
    added = terms_by_name({"transfer": 0.3})[0].added(
        Step(torch.zeros(()), now, now, gradient=gradient)
    )
    gb, ga = torch.autograd.grad(added, [b, a])
    whole = left @ right
    assert torch.allclose(gb, 0.3 * scale * whole @ a.detach().T, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ga, 0.3 * scale * b.detach().T @ whole, rtol=1e-5, atol=1e-5)


def test_inner_is_the_dot_of_updates() -> None:
    g = torch.Generator().manual_seed(4)
    x = Update(
        {
            "m": Factored(torch.randn(5, 2, generator=g), torch.randn(2, 7, generator=g)),
            "v": Dense(torch.randn(3, generator=g)),
        },
        "s",
    )
    y = Update(
        {
            "m": Factored(torch.randn(5, 3, generator=g), torch.randn(3, 7, generator=g)),
            "v": Dense(torch.randn(3, generator=g)),
        },
        "s",
    )
    assert float(inner(x, y)) == pytest.approx(x.dot(y), rel=1e-5)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_on_a_parabola(name: str) -> None:
    """f = 3/2·x² at x = 2 has gradient 6. Plain: where it is.

    FOMAML with α = 0.1 looks at 2 − 0.6 = 1.4, where the gradient is 4.2.
    """
    method = method_by_name(name, **METHODS[name])
    (point,) = method.ahead([torch.tensor(2.0)], [torch.tensor(6.0)])
    assert float(point) == pytest.approx({"plain": 2.0, "fomaml": 1.4}[name])
    assert method.batches == {"plain": 1, "fomaml": 2}[name]


@pytest.mark.parametrize(
    ("build", "code", "key", "value"),
    [
        (lambda: terms_by_name({"fedprx": 0.1}), "piece-unknown", "[local] terms", "fedprx"),
        (lambda: method_by_name("fomalm"), "piece-unknown", "[local] method", "fomalm"),
        (
            lambda: method_by_name("fomaml", rate=0.1),
            "settings-unknown",
            "[local] method",
            "fomaml",
        ),
        (
            lambda: method_by_name("fomaml", inner_rate=0.0),
            "out-of-range",
            "[local] fomaml: inner_rate",
            "0",
        ),
        (lambda: terms_by_name({"replay": 1.5}), "out-of-range", "[local] terms: replay", "1.5"),
        (lambda: terms_by_name({"kl": -1.0}), "out-of-range", "[local] terms: kl", "-1"),
    ],
)
def test_what_is_not_known_or_out_of_range_is_refused(
    build: Callable[[], Any], code: str, key: str, value: str
) -> None:
    with refused(ConfigError, code, key=key, value=value):
        build()
