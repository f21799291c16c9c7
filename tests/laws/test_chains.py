"""Which chains of pieces are legal, what each admits, what it takes from the losses, and that it
resumes as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from piece_rows import REDUCE_ROWS

from builders import Recording, build_setup, rounds
from tequio.algorithms.compatibility import check_chain
from tequio.algorithms.registry import (
    REDUCE,
    START,
    reduce_by_name,
    start_by_name,
)
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.admission import Admitted, Refused, admit
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.types import Reply, State
from tequio.core.update import Dense, Update
from tequio.runtimes.embedded import Embedded

CHAINS = [
    *[{"start": start} for start in sorted(START)],
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
    assert pack_state(run_round(again, w.run_spec, runtime)[0]) == pack_state(
        run_round(state, w.run_spec, runtime)[0]
    )


# --- admission
# ----------------------------------------------------------------------------------------------------------


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
    assert refused.reason.code == "entry-rank"
    assert (refused.reason.facts["rank"], refused.reason.facts["most"]) == (4, 2)
    wide = admit(replace(reply, update=reply.update.plus(reply.update)), member, w.run_spec, state)
    assert isinstance(wide, Refused)


def test_a_frozen_factor_in_a_reply_is_refused(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, algorithm={"reduce": "ffa"}))
    state, reply = replied(w, w.run_spec)
    assert reply.update is not None
    name = next(iter(w.adapted.layers))
    entries = {**reply.update.entries, f"{name}:a": Dense(torch.ones(2, 32))}
    refused = admit(
        replace(reply, update=Update(entries, reply.update.spec)),
        w.run_spec.members[-1],
        w.run_spec,
        state,
    )
    assert isinstance(refused, Refused)
    assert refused.reason == Reason("entries-differ", {"unknown": [f"{name}:a"], "missing": []})


def test_excess_is_the_last_accepted_loss_over_the_base_s(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    member = w.run_spec.members[-1]
    state, reply = replied(w, w.run_spec)
    first, body = run_round(
        open_state(w.run_spec, Embedded(w.nodes))[0], w.run_spec, Embedded(w.nodes)
    )
    assert body["accepted"]
    assert first.losses == {name: row["loss"] for name, row in body["validation"].items()}
    assert first.base_losses == {
        name: row["loss"]
        for name, row in open_state(w.run_spec, Embedded(w.nodes))[1]["validation"].items()
    }
    admitted = admit(reply, member, w.run_spec, state)
    assert isinstance(admitted, Admitted)
    assert (
        admitted.facts.excess == state.losses[member.name] / state.base_losses[member.name] != 1.0
    )
    for losses in ({}, {member.name: 0.0}, {member.name: float("inf")}):
        unknown = admit(reply, member, w.run_spec, replace(state, losses=losses))
        assert isinstance(unknown, Admitted)
        assert unknown.facts.excess == 0.0


def test_a_rejected_round_leaves_the_losses_as_they_were(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    state = rounds(w.run_spec, Embedded(w.nodes), 1)
    perfect = {
        name: (-1.0,) * len(x) for name, x in state.base_slices.items()
    }  # no candidate is as good
    after, body = run_round(
        replace(state, base_slices=perfect), replace(w.run_spec, gate_margin=0.0), Embedded(w.nodes)
    )
    assert not body["accepted"]
    assert after.losses == state.losses
    assert body["validation"]["site0"]["loss"] != state.losses["site0"]


def test_weights_by_need_follow_the_losses(make_federation: Any) -> None:
    """q = 2, no equalising: the recorded shares of a round are as the squares of loss over base
    loss before it; in round 1 equal.
    """
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


# --- which chains are legal
# ---------------------------------------------------------------------------------------------

LEGAL = {
    start: {name for name, (_, starts) in REDUCE_ROWS.items() if start in starts} for start in START
}


@pytest.mark.parametrize("start", sorted(START))
@pytest.mark.parametrize("reduce", sorted(REDUCE))
def test_a_chain_is_legal_or_refused_with_the_nearest_legal_one(reduce: str, start: str) -> None:
    chain = reduce_by_name(reduce), start_by_name(start)
    if reduce in LEGAL[start]:
        check_chain(*chain)
        return
    with pytest.raises(ConfigError) as caught:
        check_chain(*chain)
    code = "start-of-factors" if REDUCE_ROWS[reduce][0] == "dense" else "start-of-robust"
    assert caught.value.reason == Reason(code, {"start": start, "reduce": reduce})
    proposed = "fresh" if reduce not in LEGAL["fedex"] else "fedex"
    assert (
        f'Use start = "{proposed}" with {reduce!r}, or reduce = "stack" with {start!r}'
        in caught.value.fix
    )
    assert reduce in LEGAL[proposed]
    assert "stack" in LEGAL[start]


def test_an_illegal_chain_is_refused_before_anything_is_read(make_federation: Any) -> None:
    path = make_federation(participants=2, algorithm={"start": "fedex", "reduce": "rolora"})
    for data in (path.parent / "data").iterdir():
        data.unlink()
    with pytest.raises(ConfigError) as caught:
        build_setup(path)
    assert caught.value.reason == Reason("start-of-factors", {"start": "fedex", "reduce": "rolora"})
