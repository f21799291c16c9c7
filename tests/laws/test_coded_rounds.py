"""Rounds with coded updates: fewer bytes, nearly the same model, nothing lost on the way down,
hostile bytes refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from builders import Altered, build_setup, refused
from tequio.app.assembly.algorithm import build_coding
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import digest_update, pack
from tequio.core.errors import ConfigError
from tequio.core.seeds import derive
from tequio.core.types import Failure, Reply, Request, State
from tequio.runtimes.embedded import Embedded

CODES = [
    ("half", {}),
    ("quantise", {"bits": 8.0}),
    ("quantise", {"bits": 4.0}),
    ("eden", {"bits": 2.0}),
]


@pytest.fixture
def small(make_federation: Any) -> RunSetup:
    return build_setup(make_federation(participants=3))


def two_rounds(w: RunSetup, **changes: Any) -> tuple[State, dict[str, Any]]:
    run_spec, runtime = replace(w.run_spec, **changes), Embedded(w.nodes)
    state, _ = open_state(run_spec, runtime)
    state, _ = run_round(state, run_spec, runtime)
    return run_round(state, run_spec, runtime)


@pytest.mark.parametrize(("name", "settings"), CODES)
def test_a_coded_upload_costs_less_and_says_nearly_the_same(
    small: RunSetup, name: str, settings: dict[str, float]
) -> None:
    plain, full = two_rounds(small)
    coded, body = two_rounds(small, upload=build_coding(name, settings))
    for row, whole in zip(body["train"], full["train"], strict=True):
        assert row["bytes_up"] < 0.9 * whole["bytes_up"]
    loss = body["mean_validation_loss"]
    assert loss < body["validation"]["site0"]["loss"] + 1.0
    assert coded.shared.minus(plain.shared).norm() < 0.9 * plain.shared.norm()
    again, _ = two_rounds(small, upload=build_coding(name, settings))
    assert digest_update(again.shared) == digest_update(coded.shared)


@pytest.mark.parametrize(("name", "settings"), CODES)
def test_what_a_coded_broadcast_loses_stays_pending(
    small: RunSetup, name: str, settings: dict[str, float]
) -> None:
    """One round from the same replies: shared + pending is the same, whatever the code of the way
    down.
    """
    runtime = Embedded(small.nodes)
    state, _ = open_state(small.run_spec, runtime)
    plain, full = run_round(state, small.run_spec, runtime)
    run_spec = replace(small.run_spec, download=build_coding(name, settings))
    coded, body = run_round(state, run_spec, runtime)
    whole = plain.shared.plus(plain.pending)
    assert coded.shared.plus(coded.pending).minus(whole).norm() <= 1e-5 * whole.norm()
    assert coded.pending.norm() > plain.pending.norm()
    assert body["train"][0]["bytes_down"] < full["train"][0]["bytes_down"]
    assert digest_update(unpack_state(pack_state(coded), "x").pending) == digest_update(
        coded.pending
    )


@pytest.mark.parametrize("data", [b"", b"not a message", b"\x28\xb5\x2f\xfd" + bytes(40)])
def test_bytes_that_are_no_update_are_refused_with_the_name(small: RunSetup, data: bytes) -> None:
    run_spec = replace(small.run_spec, upload=build_coding("quantise", {"bits": 4.0}))
    runtime = Altered(Embedded(small.nodes), 1, lambda reply: replace(reply, payload=data))
    state, _ = open_state(run_spec, runtime)
    _, body = run_round(state, run_spec, runtime)
    row = next(a for a in body["admissions"] if a["name"] == "site0")
    assert row["status"] == "rejected"
    assert row["reason"]["code"] == "undecodable"
    assert "site0" in row["reason"]["facts"]["why"]


def test_an_unknown_codec_is_refused_when_the_run_is_built(make_federation: Any) -> None:
    with refused(
        ConfigError, "piece-unknown", key="[algorithm] upload or download", value="quantize"
    ):
        build_setup(make_federation(participants=2, folder="g", algorithm={"download": "quantize"}))


@dataclass(frozen=True)
class Counting:
    """A runtime that keeps every reply to a training task."""

    inner: Embedded
    replies: dict[str, Reply] = field(default_factory=dict)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for reply in self.inner.exchange(tasks):
            if isinstance(reply, Reply) and reply.steps:
                self.replies[reply.name] = reply
            yield reply


@pytest.mark.parametrize(("name", "settings"), [("plain", {}), *CODES])
def test_the_bytes_of_the_record_are_those_of_the_whole_messages(
    small: RunSetup, name: str, settings: dict[str, float]
) -> None:
    """Up: the message as it would travel, manifest, scales and container included.

    Down: the broadcast, coded again here.
    """
    run_spec = replace(
        small.run_spec, upload=build_coding(name, settings), download=build_coding(name, settings)
    )
    runtime = Counting(Embedded(small.nodes))
    state, body = run_round(open_state(run_spec, runtime)[0], run_spec, runtime)
    for row in body["train"]:
        reply = runtime.replies[row["name"]]
        message = pack(reply.update) if reply.update is not None else reply.payload
        assert message is not None
        assert row["bytes_up"] == len(message)
        assert (reply.payload is None) is (name == "plain")
    head = state.shared.plus(state.pending).split_rank(run_spec.broadcast_rank)[0]
    again = run_spec.download.codec.encode(head, derive(run_spec.seed, "download", 1))
    assert body["train"][0]["bytes_down"] == pytest.approx(
        len(again), rel=0.05
    )  # another SVD: signs and last bits differ


def test_a_broadcast_that_the_gate_rejects_was_sent_all_the_same(small: RunSetup) -> None:
    runtime = Embedded(small.nodes)
    state, _ = open_state(small.run_spec, runtime)
    state = replace(state, base_slices={n: (-9.0,) * len(x) for n, x in state.base_slices.items()})
    _, body = run_round(state, small.run_spec, runtime)
    assert not body["accepted"]
    assert body["train"][0]["bytes_down"] > 0
