"""The laws of starts (fresh, fedex, flexlora) and of frozen factors (ffa, rolora), and which chains are legal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from builders import build_setup, rounds
from tequio.algorithms.compatibility import check_chain
from tequio.algorithms.factors import initial_factors, parted, product, tail, trainable
from tequio.algorithms.registry import (
    REDUCE,
    START,
    reduce_by_name,
    server_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.admission import Admitted, Refused, admit
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.gossip import open_peers
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import digest_update, pack
from tequio.core.errors import ConfigError, UpdateError
from tequio.core.protocols import Start
from tequio.core.seeds import derive
from tequio.core.types import Failure, Reply, Request, State, TrainRequest
from tequio.core.update import Dense, Entry, Factored, Update, plain, zero
from tequio.participant.loop import train
from tequio.participant.text_tasks import batches
from tequio.runtimes.embedded import Embedded

START_ROWS = ["fresh", "fedex", "flexlora"]
FROZEN = {"ffa": ["b", "b", "b"], "rolora": ["b", "a", "b"]}  # what rounds 1, 2, 3 train


def test_every_start_has_a_row() -> None:
    assert sorted(START_ROWS) == sorted(START)


@dataclass(frozen=True)
class Recording:
    """A runtime that keeps training tasks and replies."""

    inner: Embedded
    tasks: list[TrainRequest] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            for reply in self.inner.exchange([task]):
                if isinstance(task, TrainRequest) and isinstance(reply, Reply):
                    self.tasks.append(task)
                    self.replies.append(reply)
                yield reply


# --- what a start gives -------------------------------------------------------------------------------------------------


def shared(kind: str, rank: int, seed: int) -> Update:
    """A 7 × 5 matrix of this rank, factored or dense, and a head."""
    g = torch.Generator().manual_seed(seed)
    b, a = torch.randn(7, rank, generator=g), torch.randn(rank, 5, generator=g)
    entry: Entry = Factored(b, a) if kind == "factored" else Dense(b @ a)
    return Update({"m": entry, "head.weight": Dense(torch.ones(2, 5)), "head.bias": Dense(torch.ones(2))}, "s")


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
@pytest.mark.parametrize("kind", ["factored", "dense"])
@settings(max_examples=20)
@given(rank=st.integers(1, 8), true=st.integers(1, 5), seed=st.integers(0, 50))
def test_what_is_continued_is_the_best_approximation_balanced(
    name: str, kind: str, rank: int, true: int, seed: int
) -> None:
    """Eckart-Young: the error is the root of the sum of the squared singular values left out; ‖b_k‖² = ‖a_k‖² = σ_k."""
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
        torch.testing.assert_close(plain(held.entries["m"]) + found.value(), value, atol=1e-5, rtol=0)
    else:
        assert "m" not in held.entries


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
@pytest.mark.parametrize("entry", [Factored(torch.zeros(7, 2), torch.ones(2, 5)), Dense(torch.zeros(7, 5)), None])
def test_nothing_is_continued_of_a_model_that_is_zero(name: str, entry: Entry | None) -> None:
    g = Update({} if entry is None else {"m": entry}, "s")
    _, start = start_by_name(name).begin(g, 4)
    assert start is not None
    assert start.max_rank() == 0


def test_fresh_holds_all_and_continues_nothing() -> None:
    g = shared("factored", 3, 0)
    assert start_by_name("fresh").begin(g, 2) == (g, None)


# --- the bench ----------------------------------------------------------------------------------------------------------


def logits(w: RunSetup) -> Tensor:
    items = w.nodes[1].data.validation[:6]
    longest = max(len(i.ids) for i in items)
    ids = torch.tensor([[*i.ids, *[0] * (longest - len(i.ids))] for i in items])
    with torch.inference_mode():
        return w.adapted.class_logits(ids, (ids != 0).long())


def random_shared(w: RunSetup, rank: int) -> Update:
    g = torch.Generator().manual_seed(3)
    entries: dict[str, Entry] = {
        name: Factored(torch.randn(m, rank, generator=g) * 0.1, torch.randn(rank, n, generator=g))
        for name, (m, n) in w.adapted.shapes.items()
    }
    heads: dict[str, Entry] = {name: Dense(torch.full(t.shape, 0.1)) for name, t in w.adapted.head.items()}
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
    """Of a model of rank 3, rank 8 continues 3 balanced ranks and adds 5 fresh ones: a random, b = 0. The change has 8 + 3 ranks."""
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
        torch.testing.assert_close(layer.b @ layer.a * adapted.scale, plain(start.entries[name]), atol=1e-5, rtol=1e-4)
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
        torch.testing.assert_close(entry.value(), after - plain(start.entries[name]), atol=1e-5, rtol=1e-4)


def test_a_start_that_does_not_fit_is_refused(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    with pytest.raises(UpdateError, match=r"does not fit\. Expected factors of rank 2 or less"):
        w.adapted.attach_product(random_shared(w, 3), 2, 0)


@pytest.mark.parametrize("trained", ["a", "b"])
def test_a_frozen_factor_has_no_gradient_and_is_not_sent(make_federation: Any, trained: Any) -> None:
    w = build_setup(make_federation(kind="causal", participants=1, centre=False))
    adapted, node = w.adapted, w.nodes[1]
    start = initial_factors(adapted.shapes, 4, 0, adapted.spec)
    ones = {n: Dense(torch.full(e.shape, 0.1)) for n, e in start.entries.items() if n.endswith(":b")}
    start = Update({**start.entries, **ones}, adapted.spec)
    adapted.fold_in(zero(adapted.spec))
    parameters = adapted.attach_factors(start, 2, trained)
    assert len(parameters) == len(adapted.layers)
    train(adapted, node.task, parameters, batches(node.data.train, 4, 0), [1e-2] * 2, "x")
    for name, layer in adapted.layers.items():
        for key, factor, first in (("a", layer.a, slice(0, 2)), ("b", layer.b, (slice(None), slice(0, 2)))):
            assert factor is not None
            moved = not torch.equal(factor.detach(), plain(start.entries[f"{name}:{key}"])[first])
            assert moved is (key == trained)
    assert set(adapted.extract().entries) == {f"{name}:{trained}" for name in adapted.layers}


# --- rounds -------------------------------------------------------------------------------------------------------------


def test_a_federation_of_one_under_fedex_goes_on_with_one_adapter(make_federation: Any) -> None:
    """The plain loop keeps its b and a, put in balanced form between stretches by an SVD of s·b·a; the optimiser starts anew."""
    w = build_setup(make_federation(kind="causal", participants=1, centre=False, algorithm={"start": "fedex"}))
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
                u, s, vh = torch.linalg.svd(layer.b.detach() @ layer.a.detach(), full_matrices=False)
                root = s[: member.rank].sqrt()
                layer.attach(root[:, None] * vh[: member.rank], u[:, : member.rank] * root, adapted.scale)
            parameters = [p for layer in adapted.layers.values() for p in (layer.a, layer.b) if p is not None]
        stream = batches(node.data.train, node.batch_size, seed)
        train(adapted, node.task, parameters, stream, [run_spec.rate(round_)] * member.steps, "plain")
    for name, layer in adapted.layers.items():
        assert layer.a is not None
        assert layer.b is not None
        expected = (layer.b @ layer.a * adapted.scale).detach()
        torch.testing.assert_close(plain(state.shared.entries[name]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
def test_the_first_round_is_that_of_fresh_to_the_bit(make_federation: Any, name: str) -> None:
    w = build_setup(make_federation(participants=3))
    first = rounds(replace(w.run_spec, start=start_by_name(name)), Embedded(w.nodes), 1)
    assert digest_update(first.shared) == digest_update(rounds(w.run_spec, Embedded(w.nodes), 1).shared)
    two = [rounds(replace(w.run_spec, start=start_by_name(n)), Embedded(w.nodes), 2).shared for n in ("fresh", name)]
    assert two[0].minus(two[1]).norm() > 0.01 * two[0].norm()  # and then they part


@pytest.mark.parametrize("centre", [False, True])
def test_flexlora_gives_the_mean_of_what_participants_end_with(make_federation: Any, centre: bool) -> None:
    """G₊ = Σ wᵢ BᵢAᵢ / Σ wᵢ, and λ of it where there is a centre; heads are averaged as everywhere."""
    w = build_setup(make_federation(participants=3, centre=centre, algorithm={"start": "flexlora"}))
    run_spec = replace(w.run_spec, weighting=weights_by_name("examples"), broadcast_rank=64)
    state = rounds(run_spec, Embedded(w.nodes), 1)
    runtime = Recording(Embedded(w.nodes))
    after, body = run_round(state, run_spec, runtime)
    assert body["accepted"]
    share = run_spec.federated_share
    examples = {r.index: r.examples for r in runtime.replies if r.index > 0}
    parts = {i: share * n / sum(examples.values()) for i, n in examples.items()} | ({0: 1 - share} if centre else {})
    assert len({task.rank for task in runtime.tasks}) == 2  # unequal: each starts from its own truncation
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
    torch.testing.assert_close(plain(after.shared.entries[head]), plain(state.shared.entries[head]) + moved)


CHAINS = [
    *[{"start": start} for start in START_ROWS],
    *[{"reduce": name} for name in sorted(REDUCE)],
    {"start": "fedex", "reduce": "geometric_median", "server": "nesterov"},
    {"start": "flexlora", "weights": "q_ffl", "server": "adam"},
    {"reduce": "rolora", "server": "nesterov"},
    {"reduce": "rolora", "server": "yogi", "weights": "term"},
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: "-".join(chain.values()))
def test_a_resumed_run_equals_an_unbroken_one(make_federation: Any, chain: dict[str, str]) -> None:
    w = build_setup(make_federation(participants=4, train={"rounds": 3}, algorithm=chain))
    runtime = Embedded(w.nodes)
    state = rounds(w.run_spec, runtime, 2)
    data = pack_state(state)
    again = unpack_state(data, "test")
    assert pack_state(again) == data
    assert again.losses == state.losses
    assert len(state.base_losses) == 4
    assert pack_state(run_round(again, w.run_spec, runtime)[0]) == pack_state(run_round(state, w.run_spec, runtime)[0])


@pytest.mark.parametrize("server", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("name", sorted(FROZEN))
def test_only_the_trained_factor_changes_in_a_round(make_federation: Any, name: str, server: str) -> None:
    """Momentum of the resting factor rests too: it neither moves it nor decays."""
    w = build_setup(make_federation(participants=3))
    run_spec = replace(w.run_spec, aggregator=reduce_by_name(name), server=server_by_name(server), gate_margin=10.0)
    state, _ = open_state(run_spec, Embedded(w.nodes))
    for trained in FROZEN[name]:
        before, memory = state.shared, state.momentum
        runtime = Recording(Embedded(w.nodes))
        state, body = run_round(state, run_spec, runtime)
        assert body["accepted"]
        for entry in before.entries:
            if entry.endswith((":a", ":b")):
                moved = not torch.equal(plain(before.entries[entry]), plain(state.shared.entries[entry]))
                assert moved is entry.endswith(f":{trained}")
        for entry in memory.entries:
            if entry.endswith((":a", ":b")) and not entry.endswith(f":{trained}"):
                assert torch.equal(plain(memory.entries[entry]), plain(state.momentum.entries[entry]))
        for reply in runtime.replies:
            assert reply.update is not None
            assert {n[-2:] for n in reply.update.entries if not n.startswith("head.")} == {f":{trained}"}


@pytest.mark.parametrize("which", ["a", "b"])
def test_the_mean_of_products_is_the_product_of_means_where_one_factor_is_common(which: str) -> None:
    """The example in which FedIT is biased (mean of products diag(½, ½), product of means all ¼), with one factor frozen."""
    b = [torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])]
    a = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    common = {"m:a": Dense(a[0]), "m:b": Dense(torch.zeros(2, 1))} if which == "b" else {
        "m:a": Dense(torch.zeros(1, 2)), "m:b": Dense(b[0])
    }  # fmt: skip
    piece = reduce_by_name("rolora")
    assert piece.trained(1 if which == "b" else 2) == which
    total, products = piece.init(""), torch.zeros(2, 2)
    for i in range(2):
        total = piece.add(total, Update({f"m:{which}": Dense((a, b)[which == "b"][i])}), 1.0)
        products += 0.5 * (b[i] @ a[0] if which == "b" else b[0] @ a[i])
    after = Update(common).plus(piece.result(total, 2.0))
    torch.testing.assert_close(plain(product(after, 1.0).entries["m"]), products)
    assert products.sum() == 1.0


@pytest.mark.parametrize("name", ["ffa", "rolora"])
def test_nested_ranks_start_from_one_function_and_those_of_fedit_do_not(make_federation: Any, name: str) -> None:
    w = build_setup(make_federation(participants=2))
    for reduce, same in ((name, True), ("fedit", False)):
        run_spec = replace(w.run_spec, aggregator=reduce_by_name(reduce), learning_rate=3e-2)
        state = rounds(run_spec, Embedded(w.nodes), 2)
        runtime = Recording(Embedded(w.nodes))
        run_round(state, run_spec, runtime)
        outputs = {}
        for task in runtime.tasks:
            assert task.start is not None
            w.adapted.fold_in(task.held)
            w.adapted.attach_factors(task.start, task.rank, task.trained)
            outputs[task.rank] = logits(w)
        assert sorted(outputs) == [2, 4]
        gap = float((outputs[2] - outputs[4]).abs().max())
        assert gap <= 1e-5 if same else gap > 1e-3


def test_prefix_and_tail_add_up() -> None:
    g = initial_factors({"m": (7, 5)}, 4, 0, "s")
    g = Update({**g.entries, "m:b": Dense(torch.randn(7, 4, generator=torch.Generator().manual_seed(1)))}, "s")
    value = plain(product(g, 2.0).entries["m"])
    head = Update({"m:a": Dense(plain(g.entries["m:a"])[:1]), "m:b": Dense(plain(g.entries["m:b"])[:, :1])}, "s")
    rest = plain(tail(g, 1, 2.0).entries["m"])
    torch.testing.assert_close(plain(product(head, 2.0).entries["m"]) + rest, value)
    assert not tail(g, 4, 2.0).entries


def test_a_round_of_a_trains_b_while_b_is_zero(make_federation: Any) -> None:
    """Round 1 was rolled back, so B is still 0 and A has no gradient in round 2: without this, nobody's update could be used."""
    w = build_setup(make_federation(kind="causal", participants=2, algorithm={"reduce": "rolora"}))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    after, body = run_round(replace(state, round=1), w.run_spec, Embedded(w.nodes))
    assert body["accepted"]
    moved, rests = parted(after.shared, "b")
    assert all(plain(e).any() for e in moved.entries.values())
    assert digest_update(rests) == digest_update(parted(state.shared, "b")[1])
    assert (trainable(state.shared, "a"), trainable(after.shared, "a")) == ("b", "a")


def test_frozen_factors_halve_what_is_sent(make_federation: Any) -> None:
    """q_proj is 32 × 32 and v_proj 16 × 32, each twice: B has 96 of 224 numbers a rank and A 128."""
    w = build_setup(make_federation(kind="causal", participants=1, centre=False))
    sizes = {}
    for name in ("fedit", "ffa"):
        runtime = Recording(Embedded(w.nodes))
        rounds(replace(w.run_spec, aggregator=reduce_by_name(name)), runtime, 1)
        assert runtime.replies[0].update is not None
        sizes[name] = runtime.replies[0].update.nbytes()
    assert sizes["ffa"] / sizes["fedit"] == pytest.approx(96 / 224)


# --- admission ----------------------------------------------------------------------------------------------------------


def replied(w: RunSetup, run_spec: RunSpec) -> tuple[State, Reply]:
    state = rounds(run_spec, Embedded(w.nodes), 1)
    runtime = Recording(Embedded(w.nodes))
    run_round(state, run_spec, runtime)
    return state, runtime.replies[-1]


def test_a_continued_start_may_send_twice_its_rank_and_no_more(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, algorithm={"start": "fedex"}))
    state, reply = replied(w, w.run_spec)
    assert reply.update is not None
    member = w.run_spec.members[-1]
    assert (member.rank, reply.update.max_rank()) == (2, 4)
    assert isinstance(admit(reply, member, w.run_spec, state), Admitted)
    refused = admit(reply, member, replace(w.run_spec, start=start_by_name("fresh")), state)
    assert isinstance(refused, Refused)
    assert "has rank 4, at most 2 may come" in refused.reason
    wide = admit(replace(reply, update=reply.update.plus(reply.update)), member, w.run_spec, state)
    assert isinstance(wide, Refused)


def test_a_frozen_factor_in_a_reply_is_refused(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, algorithm={"reduce": "ffa"}))
    state, reply = replied(w, w.run_spec)
    assert reply.update is not None
    name = next(iter(w.adapted.layers))
    entries = {**reply.update.entries, f"{name}:a": Dense(torch.ones(2, 32))}
    refused = admit(
        replace(reply, update=Update(entries, reply.update.spec)), w.run_spec.members[-1], w.run_spec, state
    )
    assert isinstance(refused, Refused)
    assert f"unknown: ['{name}:a']" in refused.reason


def test_excess_is_the_last_accepted_loss_over_the_base_s(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    member = w.run_spec.members[-1]
    state, reply = replied(w, w.run_spec)
    first, body = run_round(open_state(w.run_spec, Embedded(w.nodes))[0], w.run_spec, Embedded(w.nodes))
    assert body["accepted"]
    assert first.losses == {name: row["loss"] for name, row in body["validation"].items()}
    assert first.base_losses == {
        name: row["loss"] for name, row in open_state(w.run_spec, Embedded(w.nodes))[1]["validation"].items()
    }
    admitted = admit(reply, member, w.run_spec, state)
    assert isinstance(admitted, Admitted)
    assert admitted.facts.excess == state.losses[member.name] / state.base_losses[member.name] != 1.0
    for losses in ({}, {member.name: 0.0}, {member.name: float("inf")}):
        unknown = admit(reply, member, w.run_spec, replace(state, losses=losses))
        assert isinstance(unknown, Admitted)
        assert unknown.facts.excess == 0.0


def test_a_rejected_round_leaves_the_losses_as_they_were(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    state = rounds(w.run_spec, Embedded(w.nodes), 1)
    perfect = {name: (-1.0,) * len(x) for name, x in state.base_slices.items()}  # no candidate is as good
    after, body = run_round(
        replace(state, base_slices=perfect), replace(w.run_spec, gate_margin=0.0), Embedded(w.nodes)
    )
    assert not body["accepted"]
    assert after.losses == state.losses
    assert body["validation"]["site0"]["loss"] != state.losses["site0"]


def test_weights_by_need_follow_the_losses(make_federation: Any) -> None:
    """q = 2, no equalising: the recorded shares of a round are as the squares of loss over base loss before it; in round 1 equal."""
    settings_ = {"weights": "q_ffl", "weights_settings": {"q": 2.0}}
    w = build_setup(make_federation(participants=2, algorithm=settings_))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    state, body = run_round(state, w.run_spec, Embedded(w.nodes))
    assert [row["weight"] for row in body["train"] if row["weight"] is not None] == [0.5, 0.5]
    _, body = run_round(state, w.run_spec, Embedded(w.nodes))
    need = [(state.losses[n] / state.base_losses[n]) ** 2 for n in ("site0", "site1")]
    got = [row["weight"] for row in body["train"] if row["weight"] is not None]
    assert got == pytest.approx([x / sum(need) for x in need])
    assert got[0] != got[1]


# --- which chains are legal ---------------------------------------------------------------------------------------------

LEGAL = {
    "fresh": {"stack", "fedit", "ffa", "rolora", "trimmed_mean", "centred_clipping", "geometric_median"},
    "fedex": {"stack", "centred_clipping", "geometric_median"},
    "flexlora": {"stack"},
}


@pytest.mark.parametrize("start", START_ROWS)
@pytest.mark.parametrize("reduce", sorted(REDUCE))
def test_a_chain_is_legal_or_refused_with_the_nearest_legal_one(reduce: str, start: str) -> None:
    chain = reduce_by_name(reduce), start_by_name(start)
    if reduce in LEGAL[start]:
        check_chain(*chain)
        return
    with pytest.raises(ConfigError, match=f"start = '{start}' does not go with reduce = '{reduce}'") as caught:
        check_chain(*chain)
    proposed = "fresh" if reduce not in LEGAL["fedex"] else "fedex"
    assert f'Use start = "{proposed}" with {reduce!r}, or reduce = "stack" with {start!r}' in caught.value.fix
    assert reduce in LEGAL[proposed]
    assert "stack" in LEGAL[start]


def test_an_illegal_chain_is_refused_before_anything_is_read(make_federation: Any) -> None:
    path = make_federation(participants=2, algorithm={"start": "fedex", "reduce": "rolora"})
    for data in (path.parent / "data").iterdir():
        data.unlink()
    with pytest.raises(ConfigError, match="start = 'fedex' does not go with reduce = 'rolora'"):
        build_setup(path)


def test_an_unknown_start_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'flexlora'"):
        start_by_name("flex_lora")
    with pytest.raises(ConfigError, match="does not take these settings"):
        start_by_name("fedex", rank=3.0)


def test_peers_start_afresh(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, centre=False, algorithm={"start": "fedex"}))
    with pytest.raises(ConfigError, match="Peers start afresh"):
        open_peers(w.run_spec)


def test_starts_do_not_change_what_they_are_given() -> None:
    g = shared("factored", 3, 0)
    before = pack(g)
    pieces: list[Start] = [start_by_name(name) for name in START_ROWS]
    for piece in pieces:
        piece.begin(g, 2)
    assert pack(g) == before
