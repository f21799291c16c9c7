"""The laws of frozen factors (ffa, rolora): one factor trains in a round, the other rests and is
not sent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from builders import Recording, build_setup, logits, rounds
from tequio.algorithms.factors import initial_factors, parted, product, tail, trainable
from tequio.algorithms.registry import reduce_by_name, server_by_name
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import digest_update
from tequio.core.update import Dense, Update, plain, zero
from tequio.participant.loop import train
from tequio.participant.text_tasks import batches
from tequio.runtimes.embedded import Embedded

FROZEN = {"ffa": ["b", "b", "b"], "rolora": ["b", "a", "b"]}  # what rounds 1, 2, 3 train


@pytest.mark.parametrize("trained", ["a", "b"])
def test_a_frozen_factor_has_no_gradient_and_is_not_sent(
    make_federation: Any, trained: Any
) -> None:
    w = build_setup(make_federation(kind="causal", participants=1, centre=False))
    adapted, node = w.adapted, w.nodes[1]
    start = initial_factors(adapted.shapes, 4, 0, adapted.spec)
    ones = {
        n: Dense(torch.full(e.shape, 0.1)) for n, e in start.entries.items() if n.endswith(":b")
    }
    start = Update({**start.entries, **ones}, adapted.spec)
    adapted.fold_in(zero(adapted.spec))
    parameters = adapted.attach_factors(start, 2, trained)
    assert len(parameters) == len(adapted.layers)
    train(adapted, node.task, parameters, batches(node.data.train, 4, 0), [1e-2] * 2, "x")
    for name, layer in adapted.layers.items():
        for key, factor, first in (
            ("a", layer.a, slice(0, 2)),
            ("b", layer.b, (slice(None), slice(0, 2))),
        ):
            assert factor is not None
            moved = not torch.equal(factor.detach(), plain(start.entries[f"{name}:{key}"])[first])
            assert moved is (key == trained)
    assert set(adapted.extract().entries) == {f"{name}:{trained}" for name in adapted.layers}


@pytest.mark.parametrize("server", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("name", sorted(FROZEN))
def test_only_the_trained_factor_changes_in_a_round(
    make_federation: Any, name: str, server: str
) -> None:
    """Momentum of the resting factor rests too: it neither moves it nor decays."""
    w = build_setup(make_federation(participants=3))
    run_spec = replace(
        w.run_spec, aggregator=reduce_by_name(name), server=server_by_name(server), gate_margin=10.0
    )
    state, _ = open_state(run_spec, Embedded(w.nodes))
    for trained in FROZEN[name]:
        before, memory = state.shared, state.momentum
        runtime = Recording(Embedded(w.nodes))
        state, body = run_round(state, run_spec, runtime)
        assert body["accepted"]
        for entry in before.entries:
            if entry.endswith((":a", ":b")):
                moved = not torch.equal(
                    plain(before.entries[entry]), plain(state.shared.entries[entry])
                )
                assert moved is entry.endswith(f":{trained}")
        for entry in memory.entries:
            if entry.endswith((":a", ":b")) and not entry.endswith(f":{trained}"):
                assert torch.equal(
                    plain(memory.entries[entry]), plain(state.momentum.entries[entry])
                )
        for reply in runtime.replies:
            assert reply.update is not None
            assert {n[-2:] for n in reply.update.entries if not n.startswith("head.")} == {
                f":{trained}"
            }


@pytest.mark.parametrize("which", ["a", "b"])
def test_the_mean_of_products_is_the_product_of_means_where_one_factor_is_common(
    which: str,
) -> None:
    """The example in which FedIT is biased (mean of products diag(½, ½), product of means all ¼),
    with one factor frozen.
    """
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
def test_nested_ranks_start_from_one_function_and_those_of_fedit_do_not(
    make_federation: Any, name: str
) -> None:
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
    g = Update(
        {**g.entries, "m:b": Dense(torch.randn(7, 4, generator=torch.Generator().manual_seed(1)))},
        "s",
    )
    value = plain(product(g, 2.0).entries["m"])
    head = Update(
        {"m:a": Dense(plain(g.entries["m:a"])[:1]), "m:b": Dense(plain(g.entries["m:b"])[:, :1])},
        "s",
    )
    rest = plain(tail(g, 1, 2.0).entries["m"])
    torch.testing.assert_close(plain(product(head, 2.0).entries["m"]) + rest, value)
    assert not tail(g, 4, 2.0).entries


def test_a_round_of_a_trains_b_while_b_is_zero(make_federation: Any) -> None:
    """Round 1 was rolled back, so B is still 0 and A has no gradient in round 2: without this,
    nobody's update could be used.
    """
    w = build_setup(make_federation(kind="causal", participants=2, algorithm={"reduce": "rolora"}))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    after, body = run_round(replace(state, round=1), w.run_spec, Embedded(w.nodes))
    assert body["accepted"]
    moved, rests = parted(after.shared, "b")
    assert all(plain(e).any() for e in moved.entries.values())
    assert digest_update(rests) == digest_update(parted(state.shared, "b")[1])
    assert (trainable(state.shared, "a"), trainable(after.shared, "a")) == ("b", "a")


def test_frozen_factors_halve_what_is_sent(make_federation: Any) -> None:
    """q_proj is 32 × 32 and v_proj 16 × 32, each twice:

    B has 96 of 224 numbers a rank and A 128.
    """
    w = build_setup(make_federation(kind="causal", participants=1, centre=False))
    sizes = {}
    for name in ("fedit", "ffa"):
        runtime = Recording(Embedded(w.nodes))
        rounds(replace(w.run_spec, aggregator=reduce_by_name(name)), runtime, 1)
        assert runtime.replies[0].update is not None
        sizes[name] = runtime.replies[0].update.nbytes()
    assert sizes["ffa"] / sizes["fedit"] == pytest.approx(96 / 224)
