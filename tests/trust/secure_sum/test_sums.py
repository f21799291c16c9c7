"""The opened sum is the plain sum within the field's rounding, whoever drops out; below the
threshold nothing opens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sum_parties import Parties, agreed, code_of, values_of

from tequio.core.errors import ProtectionError
from tequio.trust.secure_sum.coordinator import Opened
from tequio.trust.secure_sum.directory import pack_boxes, unpack_boxes
from tequio.trust.secure_sum.field import Field


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_opened_sum_is_the_plain_sum_whoever_drops_out(data: st.DataObject) -> None:
    count = data.draw(st.integers(3, 8), "members")
    colluders = data.draw(st.integers(0, count - 2), "colluders")
    blocks = tuple(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3), "blocks"))
    covers = data.draw(
        st.lists(st.integers(1, len(blocks)), min_size=count, max_size=count), "covers"
    )
    bound = data.draw(st.sampled_from([0.01, 1.0, 7.3]), "bound")
    context = agreed(count, blocks, covers, colluders=colluders, bound=bound)
    away = st.sets(st.integers(1, count), max_size=count)
    absent, dropped, silent = (data.draw(away, name) for name in ("absent", "dropped", "silent"))
    values = values_of(
        context, data.draw(st.integers(0, 99), "seed"), bound
    )  # a third of them are clipped
    parties, policy = Parties.of(context), context.policy
    begun = policy.members.keys() - absent
    survivors = begun - dropped
    results: list[Opened] = []

    def whole() -> None:
        parties.share(absent)
        parties.send(values, dropped)
        results.append(parties.finish(silent))

    code = code_of(whole)
    if code:
        assert code == "secure-sum-few-left"
        assert len(survivors) < policy.least or len(survivors - silent) < policy.threshold
        return
    opened = results[0]
    assert len(survivors) >= policy.least
    assert len(survivors - silent) >= policy.threshold
    assert set(opened.survivors) == survivors
    field, at = Field(bound, count), 0
    for number, size in enumerate(blocks):
        inside = [index for index in survivors if covers[index - 1] > number]
        found = opened.values[at : at + size]
        plain = sum(
            np.clip(values[index][at : at + size], -field.limit, field.limit) for index in inside
        )
        at += size
        if len(inside) < policy.fewest:
            assert not found.any(), "a block of too few members rests"
            continue
        assert opened.counts[number] == len(inside)
        assert np.abs(found - plain).max(initial=0.0) <= len(inside) * field.step * (0.5 + 2**-20)
    assert opened.figures == pytest.approx(
        {"weight": len(survivors), "loss": 0.5 * len(survivors)}, abs=0
    )


def test_vectors_hide_what_is_in_them() -> None:
    context = agreed(4, (2000,))
    zeros, ones = ({i: np.full(2000, x) for i in context.policy.members} for x in (0.0, 1.0))
    for values in (zeros, ones):
        parties = Parties.of(context)
        parties.share()
        parties.send(values)
        for vector in parties.vectors.values():
            numbers = np.frombuffer(vector, "<u4") / 2.0**32
            assert abs(float(numbers.mean()) - 0.5) < 4 * (1 / 12 / len(numbers)) ** 0.5
            assert len(np.unique(numbers)) > 1990


def test_a_member_is_sent_nothing_of_the_others() -> None:
    parties = Parties.of(agreed(5))
    parties.share()
    first, second = (unpack_boxes(parties.inboxes[index]) for index in (1, 2))
    parties.inboxes[1] = pack_boxes({**first, 3: second[3]})
    assert code_of(lambda: parties.send(values_of(parties.context))) == "secure-sum-sealed"


@pytest.mark.parametrize("count", [3, 5])
def test_a_sum_needs_the_threshold(count: int) -> None:
    context = agreed(count)
    parties = Parties.of(context)
    parties.share()
    lost = range(count - context.policy.least + 1)
    parties.send(values_of(context), [index + 1 for index in lost])
    assert code_of(parties.finish) == "secure-sum-few-left"


def test_a_member_without_shares_is_left_out_of_the_next_attempt() -> None:
    parties = Parties.of(agreed(5))
    announced = {i: m.announce(parties.context) for i, m in parties.members.items()}
    directory = parties.collector.directory(announced)
    outboxes = {
        i: m.share(parties.context, directory) for i, m in parties.members.items() if i != 4
    }
    with pytest.raises(ProtectionError) as error:
        parties.collector.inboxes(outboxes)
    assert error.value.reason is not None
    assert error.value.reason.facts == {"missing": [4]}
    again = Parties(agreed(5, attempt=2), parties.members)
    again.share(absent=[4])
    values = values_of(again.context)
    again.send(values)
    opened = again.finish()
    assert opened.survivors == (1, 2, 3, 5)
    assert np.allclose(
        opened.values, sum(np.clip(values[i], -1, 1) for i in (1, 2, 3, 5)), atol=1e-7
    )


@pytest.mark.parametrize("cut", [b"", b"\0", b"\0\1\0\0\0\5abc"])
def test_what_is_no_message_is_refused(cut: bytes) -> None:
    parties = Parties.of(agreed(4))
    parties.share()
    parties.send(values_of(parties.context))
    survivors = frozenset(parties.collector.close())
    good = parties.members[1].unmask(parties.context, survivors)
    for bad in (cut, good[:-1], good + good, good.replace(b"\0\1\0\0", b"\0\1\0\1", 1)):
        with pytest.raises(ProtectionError):
            parties.collector.answer(1, bad)
    parties.collector.answer(1, good)
    with pytest.raises(ProtectionError):
        parties.collector.receive(1, parties.vectors[1])
