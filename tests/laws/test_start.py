"""The laws of starts (fresh, fedex, flexlora): what each gives, at a participant and over
rounds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Recording, build_setup, logits, refused, rounds
from tequio.algorithms.registry import START, start_by_name, weights_by_name
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.gossip import open_peers
from tequio.coordinator.round import run_round
from tequio.core.canonical import digest_update, pack
from tequio.core.errors import ConfigError, UpdateError
from tequio.core.protocols import Start
from tequio.core.seeds import derive
from tequio.core.update import Dense, Entry, Factored, Update, plain, zero
from tequio.participant.loop import train
from tequio.participant.text_tasks import batches
from tequio.runtimes.embedded import Embedded

START_ROWS = ["fresh", "fedex", "flexlora"]


def test_every_start_has_a_row() -> None:
    assert sorted(START_ROWS) == sorted(START)


# --- what a start gives
# -------------------------------------------------------------------------------------------------


def shared(kind: str, rank: int, seed: int) -> Update:
    """A 7 × 5 matrix of this rank, factored or dense, and a head."""
    g = torch.Generator().manual_seed(seed)
    b, a = torch.randn(7, rank, generator=g), torch.randn(rank, 5, generator=g)
    entry: Entry = Factored(b, a) if kind == "factored" else Dense(b @ a)
    return Update(
        {"m": entry, "head.weight": Dense(torch.ones(2, 5)), "head.bias": Dense(torch.ones(2))}, "s"
    )


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
@pytest.mark.parametrize("kind", ["factored", "dense"])
@settings(max_examples=20)
@given(rank=st.integers(1, 8), true=st.integers(1, 5), seed=st.integers(0, 50))
def test_what_is_continued_is_the_best_approximation_balanced(
    name: str, kind: str, rank: int, true: int, seed: int
) -> None:
    """Eckart-Young: the error is the root of the sum of the squared singular values left out;
    ‖b_k‖² = ‖a_k‖² = σ_k.
    """
    g = shared(kind, true, seed)
    held, start = start_by_name(name).begin(g, rank)
    assert start is not None
    found, value = start.entries["m"], plain(g.entries["m"])
    assert isinstance(found, Factored)
    sigma = torch.linalg.svdvals(value)
    effective = min(rank, true)
    assert found.rank == effective
    error = float((value - found.value()).norm())
    assert error == pytest.approx(float(sigma[effective:].square().sum().sqrt()), abs=1e-4)
    torch.testing.assert_close(found.b.square().sum(0), sigma[:effective], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.a.square().sum(1), sigma[:effective], atol=1e-4, rtol=1e-4)
    assert [n for n in held.entries if n != "m"] == ["head.weight", "head.bias"]
    assert set(start.entries) == {"m"}
    if name == "fedex":  # held + start is the whole; that of flexlora lacks the rest
        torch.testing.assert_close(
            plain(held.entries["m"]) + found.value(), value, atol=1e-5, rtol=0
        )
    else:
        assert "m" not in held.entries


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
@pytest.mark.parametrize(
    "entry", [Factored(torch.zeros(7, 2), torch.ones(2, 5)), Dense(torch.zeros(7, 5)), None]
)
def test_nothing_is_continued_of_a_model_that_is_zero(name: str, entry: Entry | None) -> None:
    g = Update({} if entry is None else {"m": entry}, "s")
    _, start = start_by_name(name).begin(g, 4)
    assert start is not None
    assert start.max_rank() == 0


def test_fresh_holds_all_and_continues_nothing() -> None:
    g = shared("factored", 3, 0)
    assert start_by_name("fresh").begin(g, 2) == (g, None)


def random_shared(w: RunSetup, rank: int) -> Update:
    g = torch.Generator().manual_seed(3)
    entries: dict[str, Entry] = {
        name: Factored(torch.randn(m, rank, generator=g) * 0.1, torch.randn(rank, n, generator=g))
        for name, (m, n) in w.adapted.shapes.items()
    }
    heads: dict[str, Entry] = {
        name: Dense(torch.full(t.shape, 0.1)) for name, t in w.adapted.head.items()
    }
    return Update(entries | heads, w.adapted.spec)


@pytest.mark.parametrize(("name", "same"), [("fedex", True), ("flexlora", False)])
def test_fedex_starts_every_rank_from_one_function_and_flexlora_does_not(
    make_federation: Any, name: str, same: bool
) -> None:
    w = build_setup(make_federation(participants=1))
    g = random_shared(w, 20)
    w.adapted.fold_in(g)
    whole = logits(w)
    for rank in (2, 16):
        held, start = start_by_name(name).begin(g, rank)
        assert start is not None
        w.adapted.fold_in(held)
        w.adapted.attach_product(start, rank, 0)
        gap = float((logits(w) - whole).abs().max())
        assert gap <= 1e-5 if same else gap > 1e-2


def test_the_allotted_rank_is_always_used(make_federation: Any) -> None:
    """Of a model of rank 3, rank 8 continues 3 balanced ranks and adds 5 fresh ones: a random,
    b = 0.

    The change has 8 + 3 ranks.
    """
    w = build_setup(make_federation(participants=1))
    adapted, (held, start) = w.adapted, start_by_name("fedex").begin(random_shared(w, 3), 8)
    assert start is not None
    adapted.fold_in(held)
    parameters = adapted.attach_product(start, 8, 0)
    for name, layer in adapted.layers.items():
        assert layer.a is not None
        assert layer.b is not None
        assert (layer.a.shape[0], layer.b.shape[1]) == (8, 8)
        torch.testing.assert_close(layer.a[:3].norm(dim=1), layer.b[:, :3].norm(dim=0))
        assert not layer.b[:, 3:].any()
        assert layer.a[3:].any(dim=1).all()
        torch.testing.assert_close(
            layer.b @ layer.a * adapted.scale, plain(start.entries[name]), atol=1e-5, rtol=1e-4
        )
    assert adapted.extract().norm() == 0.0
    with torch.no_grad():
        for p in parameters:
            p.add_(0.01)
    change = adapted.extract()
    for name, layer in adapted.layers.items():
        entry = change.entries[name]
        assert isinstance(entry, Factored)
        assert entry.rank == 11
        assert layer.a is not None
        assert layer.b is not None
        after = (layer.b @ layer.a * adapted.scale).detach()
        torch.testing.assert_close(
            entry.value(), after - plain(start.entries[name]), atol=1e-5, rtol=1e-4
        )


def test_a_start_that_does_not_fit_is_refused(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    with refused(UpdateError, "start-unfit", rank=2):
        w.adapted.attach_product(random_shared(w, 3), 2, 0)


# --- rounds
# -------------------------------------------------------------------------------------------------------------


def test_a_federation_of_one_under_fedex_goes_on_with_one_adapter(make_federation: Any) -> None:
    """The plain loop keeps its b and a, put in balanced form between stretches by an SVD of s·b·a;
    the optimiser starts anew.
    """
    w = build_setup(
        make_federation(kind="causal", participants=1, centre=False, algorithm={"start": "fedex"})
    )
    run_spec = replace(w.run_spec, weighting=weights_by_name("uniform"), rounds=3)
    state = rounds(run_spec, Embedded(w.nodes), 3)

    node, member, adapted = w.nodes[1], run_spec.members[0], w.adapted
    adapted.fold_in(zero(run_spec.spec))
    for round_ in (1, 2, 3):
        seed = derive(run_spec.seed, "train", round_, 1)
        if round_ == 1:
            parameters = adapted.attach(member.rank, seed)
        else:
            for layer in adapted.layers.values():
                assert layer.a is not None
                assert layer.b is not None
                u, s, vh = torch.linalg.svd(
                    layer.b.detach() @ layer.a.detach(), full_matrices=False
                )
                root = s[: member.rank].sqrt()
                layer.attach(
                    root[:, None] * vh[: member.rank], u[:, : member.rank] * root, adapted.scale
                )
            parameters = [
                p for layer in adapted.layers.values() for p in (layer.a, layer.b) if p is not None
            ]
        stream = batches(node.data.train, node.batch_size, seed)
        train(
            adapted, node.task, parameters, stream, [run_spec.rate(round_)] * member.steps, "plain"
        )
    for name, layer in adapted.layers.items():
        assert layer.a is not None
        assert layer.b is not None
        expected = (layer.b @ layer.a * adapted.scale).detach()
        torch.testing.assert_close(plain(state.shared.entries[name]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
def test_the_first_round_is_that_of_fresh_to_the_bit(make_federation: Any, name: str) -> None:
    w = build_setup(make_federation(participants=3))
    first = rounds(replace(w.run_spec, start=start_by_name(name)), Embedded(w.nodes), 1)
    assert digest_update(first.shared) == digest_update(
        rounds(w.run_spec, Embedded(w.nodes), 1).shared
    )
    two = [
        rounds(replace(w.run_spec, start=start_by_name(n)), Embedded(w.nodes), 2).shared
        for n in ("fresh", name)
    ]
    assert two[0].minus(two[1]).norm() > 0.01 * two[0].norm()  # and then they part


@pytest.mark.parametrize("centre", [False, True])
def test_flexlora_gives_the_mean_of_what_participants_end_with(
    make_federation: Any, centre: bool
) -> None:
    """G₊ = Σ wᵢ BᵢAᵢ / Σ wᵢ, and λ of it where there is a centre; heads are averaged as
    everywhere.
    """
    w = build_setup(make_federation(participants=3, centre=centre, algorithm={"start": "flexlora"}))
    run_spec = replace(w.run_spec, weighting=weights_by_name("examples"), broadcast_rank=64)
    state = rounds(run_spec, Embedded(w.nodes), 1)
    runtime = Recording(Embedded(w.nodes))
    after, body = run_round(state, run_spec, runtime)
    assert body["accepted"]
    share = run_spec.federated_share
    examples = {r.index: r.examples for r in runtime.replies if r.index > 0}
    parts = {i: share * n / sum(examples.values()) for i, n in examples.items()} | (
        {0: 1 - share} if centre else {}
    )
    assert (
        len({task.rank for task in runtime.tasks}) == 2
    )  # unequal: each starts from its own truncation
    for name in run_spec.shapes:
        expected = torch.zeros(run_spec.shapes[name])
        for task, reply in zip(runtime.tasks, runtime.replies, strict=True):
            assert task.start is not None
            assert reply.update is not None
            ended = plain(task.start.entries[name]) + plain(reply.update.entries[name])
            assert int(torch.linalg.matrix_rank(ended, rtol=1e-4)) <= task.rank
            expected = expected + parts[task.index] * ended
        got = plain(after.shared.entries[name])
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)
    head = "head.weight"
    moved = sum(parts[r.index] * plain(r.update.entries[head]) for r in runtime.replies if r.update)
    torch.testing.assert_close(
        plain(after.shared.entries[head]), plain(state.shared.entries[head]) + moved
    )


def test_an_unknown_start_names_the_nearest() -> None:
    with refused(ConfigError, "piece-unknown", value="flex_lora", nearest="flexlora"):
        start_by_name("flex_lora")
    with refused(ConfigError, "settings-unknown", value="fedex", unknown=["rank"]):
        start_by_name("fedex", rank=3.0)


def test_peers_start_afresh(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, centre=False, algorithm={"start": "fedex"}))
    with refused(ConfigError, "peers-algorithm", key="start", value="fedex"):
        open_peers(w.run_spec)


def test_starts_do_not_change_what_they_are_given() -> None:
    g = shared("factored", 3, 0)
    before = pack(g)
    pieces: list[Start] = [start_by_name(name) for name in START_ROWS]
    for piece in pieces:
        piece.begin(g, 2)
    assert pack(g) == before
