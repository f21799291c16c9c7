"""Attacks on secure sums. Each first succeeds against a planted hole, so that it is known to bite;
then it fails on the real thing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from sum_attacks import Values, secret_of, shared_parties, victims_values
from sum_parties import REQUEST, Parties, agreed, code_of, enrolled_key, member_of, values_of

from tequio.trust.keys import new_key
from tequio.trust.secure_sum import directory as directory_module
from tequio.trust.secure_sum.agreement import Context
from tequio.trust.secure_sum.coordinator import Collector
from tequio.trust.secure_sum.directory import Keys, announce, pack_boxes, unpack_boxes
from tequio.trust.secure_sum.field import WIDE
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.sealing import channel_key, unseal
from tequio.trust.secure_sum.shamir import SHARE

OTHER = hashlib.sha256(b"another model under the same round").digest()
# ---- 2: ask twice ----


class Forgetful(Member):
    """A planted hole: it answers again with the same masks, whatever it sends."""

    def mask(self, context: Context, request: bytes, inbox: bytes, vector: Any) -> bytes:
        found = self._sum(context)
        found._answers.pop("mask", None)
        return found.answer(
            "mask", "share", request, lambda known: found.mask(b"", inbox, vector, known)
        )


def difference(first: bytes, second: bytes) -> NDArray[np.int32]:
    """Return what two vectors under one mask tell."""
    return (np.frombuffer(first, WIDE) - np.frombuffer(second, WIDE)).view(np.int32)


def test_two_answers_under_one_mask_would_tell_their_difference() -> None:
    context = agreed(4)
    own, other = np.full(40, 0.25), np.zeros(40)
    parties = shared_parties(context, {i: member_of(i, Forgetful) for i in range(1, 5)})
    found = difference(parties.vector(1, own), parties.vector(1, other))
    step = 0.25 / found[5]
    assert np.allclose(found[3:-1] * step, own), "the hole opens the whole update"
    real = shared_parties(context)
    first = real.vector(1, own)
    assert real.vector(1, other) == first, "the same question gives the same bytes"
    real.request = OTHER
    assert code_of(lambda: real.vector(1, other)) == "secure-sum-asked-again"
    real.request, real.inboxes[1] = REQUEST, real.inboxes[1] + real.inboxes[1]
    assert code_of(lambda: real.vector(1, other)) == "secure-sum-asked-again"


def test_each_step_is_answered_once() -> None:
    context = agreed(5)
    parties = shared_parties(context)
    member = parties.members[1]
    assert member.announce(context) == member.announce(context)
    assert member.share(context, parties.directory) == member.share(context, parties.directory)
    fewer = pack_boxes({i: box for i, box in unpack_boxes(parties.directory).items() if i != 5})
    assert code_of(lambda: member.share(context, fewer)) == "secure-sum-asked-again"
    early = frozenset(range(1, 6))
    assert code_of(lambda: member.unmask(context, early)) == "secure-sum-order"
    parties.send(values_of(context))
    answer = member.unmask(context, early)
    assert member.unmask(context, early) == answer
    assert code_of(lambda: member.unmask(context, early - {5})) == "secure-sum-asked-again"


def test_a_process_that_restarted_drops_out_of_the_sum() -> None:
    context = agreed(5)
    parties = shared_parties(context)
    parties.members[2] = member_of(2)
    assert code_of(lambda: parties.vector(2, np.zeros(40))) == "secure-sum-unknown"
    later = Member(2, enrolled_key(2), begun={"train": 1})
    assert code_of(lambda: later.announce(context)) == "secure-sum-over"
    assert later.announce(agreed(5, round_=2))


# ---- 4: split view ----


class Unbound(Member):
    """A planted hole: its masks do not say what was asked for."""

    def mask(self, context: Context, request: bytes, inbox: bytes, vector: Any) -> bytes:
        return super().mask(context, REQUEST, inbox, vector)


@pytest.mark.parametrize("kind", [Unbound, Member])
def test_asking_one_member_another_thing_gives_noise(kind: type[Member]) -> None:
    context = agreed(4)
    parties = shared_parties(context, {i: member_of(i, kind) for i in range(1, 5)})
    values = values_of(context)
    for index in range(1, 5):
        parties.request = OTHER if index == 3 else REQUEST
        parties.collector.receive(index, parties.vector(index, values[index]))
    if kind is Unbound:
        assert parties.finish().survivors == (1, 2, 3, 4), "the hole sums answers to two questions"
        return
    assert code_of(parties.finish) == "secure-sum-garbage"


@pytest.mark.parametrize(
    "change",
    [
        {"round": 2},
        {"attempt": 2},
        {"head": "1" * 64},
        {"federation": "e" * 64},
        {"run": "run-2"},
        {"purpose": "validate"},
    ],
)
def test_keys_of_another_sum_are_refused(change: dict[str, Any]) -> None:
    context = agreed(4)
    other = replace(context, **change)
    announced = {
        i: m.announce(other if i == 2 else context) for i, m in Parties.of(context).members.items()
    }
    assert code_of(lambda: Collector(context, REQUEST).directory(announced)) == "secure-sum-forged"


def test_members_with_two_directories_cannot_read_each_other() -> None:
    context = agreed(6)
    parties = Parties.of(context)
    announced = {i: m.announce(context) for i, m in parties.members.items()}
    whole, part = (
        pack_boxes(announced),
        pack_boxes({i: box for i, box in announced.items() if i != 6}),
    )
    shown = {i: part if i == 1 else whole for i in announced}
    boxes = {i: unpack_boxes(m.share(context, shown[i])) for i, m in parties.members.items()}
    inbox = pack_boxes({sender: sent[1] for sender, sent in boxes.items() if sender not in (1, 6)})
    refusing = parties.members[1]
    assert code_of(lambda: refusing.mask(context, REQUEST, inbox, _zeros)) == "secure-sum-sealed"


def _zeros() -> tuple[Values, dict[str, float]]:
    return np.zeros(40), {"weight": 1.0, "loss": 0.0}


# ---- 5: both kinds of share of one member ----


class Talkative(Member):
    """A planted hole, and a colluder: it gives both kinds of share of everybody."""

    def unmask(self, context: Context, survivors: frozenset[int]) -> bytes:
        held = self._sum(context)._secrets
        assert held is not None
        return pack_boxes(
            {i: b"".join((*shares.own, shares.pair)) for i, shares in held.held.items()}
        )


@pytest.mark.parametrize(("count", "booked"), [(6, 1), (7, 1), (7, 2), (8, 0)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_both_kinds_of_share_need_more_colluders_than_booked(
    count: int, booked: int, beyond: int
) -> None:
    """The coordinator says to half of the others that member 1 dropped out, and to the rest that it
    did not."""
    context = agreed(count, colluders=booked)
    threshold = context.policy.threshold
    more = (
        0 if not beyond else 1 + (count + booked + 1) % 2
    )  # where the threshold was rounded up it takes one more
    colluding = booked + more
    colluders = set(range(count - colluding + 1, count + 1))
    kinds = {i: member_of(i, Talkative if i in colluders else Member) for i in range(1, count + 1)}
    parties = shared_parties(context, kinds)
    values = values_of(context)
    parties.send(values)
    own: dict[int, bytes] = {}
    pairs: dict[int, bytes] = {}
    for index in sorted(kinds, reverse=True):
        if index in colluders:
            box = unpack_boxes(kinds[index].unmask(context, frozenset()))[1]
            own[index], pairs[index] = box[:33], box[33:]
            continue
        survivors = frozenset(kinds) - ({1} if index != 1 and len(pairs) < threshold else set())
        box = unpack_boxes(kinds[index].unmask(context, survivors))[1]
        (pairs if box[:1] == b"\1" else own)[index] = box[1:]
    keys = {1: secret_of(pairs, threshold)}
    found = victims_values(parties, secret_of(own, threshold), keys, kinds)
    if beyond:
        assert found is not None, "with more colluders than booked the attack succeeds"
        assert np.allclose(found, np.clip(values[1], -1, 1), atol=1e-6)
        return
    assert found is None


class Trusting(Member):
    """A planted hole: it begins a sum with whoever's shares the coordinator shows, not with all of
    the directory."""

    def mask(self, context: Context, request: bytes, inbox: bytes, vector: Any) -> bytes:
        known = self._sum(context)._secrets
        assert known is not None
        shown = unpack_boxes(inbox).keys() | {self.index}
        known.directory = {i: keys for i, keys in known.directory.items() if i in shown}
        known.held = {i: shares for i, shares in known.held.items() if i in shown}
        return super().mask(context, request, inbox, vector)


@pytest.mark.parametrize("kind", [Trusting, Member])
def test_a_member_takes_part_only_with_all_of_the_directory(kind: type[Member]) -> None:
    """Six members, one colluder: 1 is shown only 2, 3 and the colluder, and the others are told in
    turn that 2 or 3 dropped out."""
    context, colluder = agreed(6), 6
    kinds = {i: member_of(i, kind) for i in range(1, 6)} | {
        colluder: member_of(colluder, Talkative)
    }
    parties = shared_parties(context, kinds)
    inbox = unpack_boxes(parties.inboxes[1])
    parties.inboxes[1] = pack_boxes({i: inbox[i] for i in (2, 3, colluder)})
    values = values_of(context)
    if kind is Member:
        assert code_of(lambda: parties.send(values)) == "secure-sum-directory"
        return
    parties.send(values)
    heard = {2: {3}, 3: {2}, 4: {2, 3}, 5: {2, 3}}
    own: dict[int, bytes] = {}
    pairs: dict[int, dict[int, bytes]] = {2: {}, 3: {}}
    for index, lost in heard.items():
        boxes = unpack_boxes(kinds[index].unmask(context, frozenset(kinds) - lost))
        own[index] = boxes[1][1:]
        for other in lost:
            pairs[other][index] = boxes[other][1:]
    both = unpack_boxes(kinds[colluder].unmask(context, frozenset()))
    own[colluder] = both[1][:SHARE]
    for other in pairs:
        pairs[other][colluder] = both[other][SHARE:]
    secrets = kinds[colluder]._sum(context)._secrets
    assert secrets is not None
    threshold = context.policy.threshold
    keys = {other: secret_of(shares, threshold) for other, shares in pairs.items()}
    keys[colluder] = secrets.pairs.private_bytes_raw()
    found = victims_values(parties, secret_of(own, threshold), keys, (2, 3, colluder))
    assert found is not None
    assert np.allclose(found, np.clip(values[1], -1, 1), atol=1e-6), (
        "one colluder is enough against the hole"
    )


@pytest.mark.parametrize("hole", [True, False])
def test_a_key_that_the_enrolled_member_did_not_sign_is_refused(
    hole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator puts a key of its own in the place of member 2's: it would then read what is
    sealed for it."""
    context = agreed(4)
    parties = Parties.of(context)
    announced = {i: m.announce(context) for i, m in parties.members.items()}
    own = X25519PrivateKey.generate()
    announced[2] = announce(
        context, 2, new_key(), Keys(own.public_key().public_bytes_raw(), announced[2][32:64])
    )
    if hole:
        monkeypatch.setattr(directory_module, "_is_signed", lambda *given: True)
        forged = pack_boxes(announced)
        sealed = unpack_boxes(parties.members[1].share(context, forged))[2]
        bound = context.digest + hashlib.sha256(forged).digest()
        key = channel_key(own, announced[1][:32], bound, 1, 2)
        assert len(unseal(key, sealed, bound, 1, 2, 1).pair) == SHARE, (
            "the hole opens sealed shares"
        )
        return
    assert (
        code_of(lambda: parties.members[1].share(context, pack_boxes(announced)))
        == "secure-sum-forged"
    )
    assert code_of(lambda: parties.collector.directory(announced)) == "secure-sum-forged"


def test_nobody_beyond_the_roster_takes_part() -> None:
    context = agreed(4)
    parties = Parties.of(context)
    announced = {i: m.announce(context) for i, m in parties.members.items()}
    announced[5] = announced[4]
    assert (
        code_of(lambda: parties.members[1].share(context, pack_boxes(announced)))
        == "secure-sum-stranger"
    )
    assert code_of(lambda: member_of(5).announce(context)) == "secure-sum-stranger"
    twice = {**parties_keys(parties), 3: parties_keys(parties)[2]}
    assert code_of(lambda: parties.collector.directory(twice)) == "secure-sum-forged"


def parties_keys(parties: Parties) -> dict[int, bytes]:
    """Return what each member announces."""
    return {i: m.announce(parties.context) for i, m in parties.members.items()}


def test_a_share_of_an_older_attempt_is_refused() -> None:
    old = shared_parties(agreed(4))
    again = shared_parties(agreed(4, attempt=2), old.members)
    inbox = {**unpack_boxes(again.inboxes[1]), 2: unpack_boxes(old.inboxes[1])[2]}
    again.inboxes[1] = pack_boxes(inbox)
    assert code_of(lambda: again.vector(1, np.zeros(40))) == "secure-sum-sealed"
    late = code_of(lambda: old.members[1].unmask(old.context, frozenset(range(1, 5))))
    assert late == "secure-sum-unknown", "secrets of the older attempt are gone"


def test_a_wrong_share_opens_nothing() -> None:
    context = agreed(5)
    parties = shared_parties(context)
    parties.send(values_of(context), [5])
    survivors = frozenset(parties.collector.close())
    for index in survivors:
        boxes = unpack_boxes(parties.members[index].unmask(context, survivors))
        if index == 1:
            boxes[5] = boxes[5][:-1] + bytes([boxes[5][-1] ^ 1])
        parties.collector.answer(index, pack_boxes(boxes))
    assert code_of(parties.collector.open) == "secure-sum-garbage"
