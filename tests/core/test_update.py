"""The update algebra against plain matrices: numpy-like oracles formed by multiplying the
factors out.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import refused
from tequio.core.canonical import digest_update, pack, unpack
from tequio.core.errors import UpdateError
from tequio.core.update import Dense, Factored, Update, zero

M, N = 24, 20


def factored(rank: int, seed: int, m: int = M, n: int = N) -> Factored:
    g = torch.Generator().manual_seed(seed)
    return Factored(torch.randn(m, rank, generator=g), torch.randn(rank, n, generator=g))


def update(rank: int, seed: int) -> Update:
    g = torch.Generator().manual_seed(seed + 1000)
    head = Dense(torch.randn(3, 5, generator=g))
    return Update({"x": factored(rank, seed), "head.weight": head}, "s")


def plain(u: Update) -> dict[str, torch.Tensor]:
    return {k: (e.value() if isinstance(e, Factored) else e.value) for k, e in u.entries.items()}


ranks = st.integers(1, 9)
seeds = st.integers(0, 50)


@given(ranks, ranks, seeds, st.floats(-3, 3))
def test_sum_and_scale_are_those_of_matrices(r1: int, r2: int, seed: int, factor: float) -> None:
    u, v = update(r1, seed), update(r2, seed + 99)
    got, a, b = plain(u.scaled(factor).plus(v)), plain(u), plain(v)
    for name in a:
        torch.testing.assert_close(got[name], factor * a[name] + b[name], atol=1e-4, rtol=1e-4)


@given(ranks, ranks, seeds)
def test_dot_and_norm_are_those_of_matrices(r1: int, r2: int, seed: int) -> None:
    u, v = update(r1, seed), update(r2, seed + 7)
    expected = sum(float((plain(u)[k].double() * plain(v)[k].double()).sum()) for k in plain(u))
    assert u.dot(v) == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert u.norm() == pytest.approx(
        math.sqrt(sum(float(t.double().square().sum()) for t in plain(u).values())), rel=1e-4
    )


@given(st.integers(2, 9), st.integers(1, 8), seeds)
def test_split_is_the_best_approximation_and_loses_nothing(r: int, keep: int, seed: int) -> None:
    u = update(r, seed)
    head, tail = u.split_rank(keep)
    whole = plain(u)["x"]
    torch.testing.assert_close(plain(head.plus(tail))["x"], whole, atol=1e-3, rtol=1e-3)
    singular = torch.linalg.svdvals(whole.double())
    lost = float(singular[keep:].square().sum().sqrt())  # Eckart-Young
    assert float((plain(head)["x"] - whole).double().norm()) == pytest.approx(lost, abs=1e-3)
    assert torch.equal(plain(head)["head.weight"], plain(u)["head.weight"])


def test_the_prefix_of_a_split_is_the_best_smaller_split() -> None:
    head = update(8, 3).to_rank(6)
    x = head.entries["x"]
    assert isinstance(x, Factored)
    smaller = update(8, 3).to_rank(2).entries["x"]
    assert isinstance(smaller, Factored)
    torch.testing.assert_close(x.b[:, :2] @ x.a[:2], smaller.value(), atol=1e-3, rtol=1e-3)


def test_a_small_enough_update_is_not_touched_by_a_split() -> None:
    u = update(4, 0)
    head, tail = u.split_rank(4)
    assert head.entries["x"] is u.entries["x"]
    assert not tail.entries


def test_stacking_turns_dense_before_it_outgrows_the_matrix() -> None:
    total = zero("s")
    for seed in range(20):
        total = total.plus(Update({"x": factored(4, seed)}, "s"))
    assert isinstance(total.entries["x"], Dense)
    assert total.nbytes() == M * N * 4
    expected = sum(factored(4, seed).value().double() for seed in range(20))
    torch.testing.assert_close(plain(total)["x"].double(), expected, atol=1e-4, rtol=1e-4)


def test_dense_entries_of_modules_can_be_split_too() -> None:
    dense = Update({"x": Dense(factored(5, 1).value())}, "s")
    head = dense.to_rank(5)
    torch.testing.assert_close(plain(head)["x"], plain(dense)["x"], atol=1e-4, rtol=1e-4)


def test_inputs_are_not_changed() -> None:
    u, v = update(3, 1), update(3, 2)
    before = digest_update(u), digest_update(v)
    u.plus(v).scaled(2.0).split_rank(1)
    u.minus(v)
    assert (digest_update(u), digest_update(v)) == before


def test_updates_of_two_layouts_do_not_mix() -> None:
    with refused(UpdateError, "layouts-differ"):
        update(2, 1).plus(Update({}, "other"))
    with refused(UpdateError, "entry-shapes-differ", entry="x"):
        update(2, 1).plus(Update({"x": factored(2, 0, m=7)}, "s"))


@given(ranks, seeds)
def test_bytes_round_trip_and_are_canonical(r: int, seed: int) -> None:
    u = update(r, seed)
    again = unpack(pack(u))
    assert again.spec == u.spec
    assert digest_update(again) == digest_update(u)
    reordered = Update(dict(reversed(list(u.entries.items()))), u.spec)
    assert pack(reordered) == pack(u)
    assert digest_update(reordered) == digest_update(u)


@given(st.data())
def test_damaged_bytes_give_one_named_error_or_another_update(data: st.DataObject) -> None:
    raw = bytearray(pack(update(2, 0)))
    where = data.draw(st.integers(0, len(raw) - 1))
    raw[where] ^= data.draw(st.integers(1, 255))
    try:
        again = unpack(bytes(raw), "file F")
    except UpdateError as error:
        assert "file F" in str(error)  # noqa: PT017
    else:
        assert digest_update(again) != digest_update(update(2, 0)) or pack(again) == pack(
            update(2, 0)
        )


@given(st.binary(max_size=200))
def test_any_bytes_give_a_named_error(raw: bytes) -> None:
    with refused(UpdateError, "not-safetensors", source="file F"):
        unpack(raw, "file F")


def test_norms_do_not_form_the_matrix() -> None:
    """A matrix of 200,000 × 200,000 (160 GB) has a norm here: ‖b·a‖ of two vectors is ‖b‖·‖a‖."""
    b, a = torch.ones(200_000, 1), torch.full((1, 200_000), 2.0)
    assert Update({"x": Factored(b, a)}, "s").norm() == pytest.approx(200_000 * 2.0, rel=1e-6)


def test_a_split_is_as_exact_as_the_svd_of_the_matrix_however_fast_singular_values_fall() -> None:
    """Singular values 1, 10^-0.25, … 10^-5.75, 24 ranks stacked twice: against the float64 SVD, as
    near as the whole's float32 allows.
    """
    g = torch.Generator().manual_seed(5)
    u, _ = torch.linalg.qr(torch.randn(96, 24, generator=g, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(80, 24, generator=g, dtype=torch.float64))
    values = torch.logspace(0, -5.75, 24, dtype=torch.float64)
    one = Update({"x": Factored((u * values).float(), v.T.float().contiguous())}, "s")
    twice = one.scaled(0.25).plus(one.scaled(0.75))  # rank 48 in factors, 24 in truth
    head, tail = twice.split_rank(12)
    x = head.entries["x"]
    assert isinstance(x, Factored)
    assert x.rank == 12
    found = torch.linalg.svdvals(x.value().double())[:12]
    assert (
        float((found - values[:12]).abs().max()) <= 1e-6
    )  # float32 of the largest, 1: 6e-8 a rounding
    best = (u[:, :12] * values[:12]) @ v[:, :12].T
    rest = float(values[12:].norm())
    assert float((x.value().double() - (u * values) @ v.T).norm()) == pytest.approx(rest, rel=1e-3)
    assert float((x.value().double() - best).norm()) <= 1e-2 * rest
    assert head.plus(tail).minus(twice).norm() <= 1e-6 * twice.norm()
