"""Attacks that make the crowd small, read what crosses the wire, or steal from a process; each
first succeeds against a planted hole."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import zlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sum_attacks import Values, secret_of, shared_parties, victims_values
from sum_parties import Parties, Scripted, agreed, code_of, enrolled_key, member_of, values_of

from tequio.core.errors import ProtectionError
from tequio.trust.keys import sign
from tequio.trust.secure_sum import directory as directory_module
from tequio.trust.secure_sum.agreement import Context, Layout, Policy
from tequio.trust.secure_sum.directory import unpack_boxes
from tequio.trust.secure_sum.field import WIDE, Field
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.sealing import NONCE

# ---- 1: which tokens does an update tell? ----

VOCABULARY, WIDTH, RANK, TOKENS = 500, 48, 16, 8


def tokens_in_span(matrix: Values, embeddings: Values) -> set[int]:
    """Return the tokens whose embeddings lie in the span of the rows of a gradient (Petrov et al.,
    2024)."""
    _, sizes, rows = np.linalg.svd(matrix, full_matrices=False)
    rows = rows[sizes > 1e-5 * sizes[0]]
    outside = embeddings - embeddings @ rows.T @ rows
    return set(
        np.flatnonzero(
            np.linalg.norm(outside, axis=1) < 1e-3 * np.linalg.norm(embeddings, axis=1)
        ).tolist()
    )


def test_tokens_are_read_from_an_open_update_not_from_the_wire() -> None:
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(VOCABULARY, WIDTH))
    texts = {index: rng.choice(VOCABULARY, TOKENS, replace=False) for index in range(1, 5)}
    updates = {
        i: 0.01 * rng.normal(size=(RANK, TOKENS)) @ embeddings[tokens]
        for i, tokens in texts.items()
    }
    assert tokens_in_span(updates[1], embeddings) == set(texts[1].tolist()), (
        "an open update tells the whole text"
    )
    context = agreed(4, (RANK * WIDTH,), bound=1.0)
    parties = shared_parties(context)
    parties.send({i: update.ravel() for i, update in updates.items()})
    hidden = np.frombuffer(parties.vectors[1], "<i4")[3:-1].astype(np.float64).reshape(RANK, WIDTH)
    assert not tokens_in_span(hidden, embeddings)
    opened = parties.finish().values.reshape(RANK, WIDTH)
    assert np.allclose(opened, sum(updates.values()), atol=1e-7)
    assert not tokens_in_span(opened, embeddings), (
        "a sum of several texts has more tokens than rows"
    )


# ---- 6: shrink the crowd ----


@pytest.mark.parametrize("hole", [True, False])
@pytest.mark.parametrize("left", [1, 2])
def test_a_crowd_of_one_or_two_is_not_opened(
    hole: bool, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member is told that all but member 1 and itself dropped out (and that one more is
    there)."""
    context = agreed(6)
    parties = shared_parties(context)
    values = values_of(context)
    parties.send(values)
    if hole:
        monkeypatch.setattr(Policy, "least", 1)
        monkeypatch.setattr(Layout, "open_blocks", lambda self, members, fewest: 1)
    own: dict[int, bytes] = {}
    pairs: dict[int, dict[int, bytes]] = {index: {} for index in range(2, 7)}
    for index, member in parties.members.items():
        heard = frozenset({1, index} if left == 1 else {1, index, 2})
        if not hole:
            assert code_of(partial(member.unmask, context, heard)) == "secure-sum-few-left"
            continue
        boxes = unpack_boxes(member.unmask(context, heard))
        own[index] = boxes[1][1:]
        for other in pairs.keys() - heard:
            pairs[other][index] = boxes[other][1:]
    if hole and left == 1:
        keys = {
            other: secret_of(shares, context.policy.threshold) for other, shares in pairs.items()
        }
        found = victims_values(parties, secret_of(own, context.policy.threshold), keys, range(2, 7))
        assert found is not None
        assert np.allclose(found, np.clip(values[1], -1, 1), atol=1e-6), "the hole opens one update"


class Generous(Member):
    """A planted hole: it opens several sums of one round."""

    def unmask(self, context: Context, survivors: frozenset[int]) -> bytes:
        answer = super().unmask(context, survivors)
        self._closed.clear()
        return answer


@pytest.mark.parametrize("kind", [Generous, Member])
def test_two_sums_of_one_round_would_tell_their_difference(kind: type[Member]) -> None:
    context = agreed(5)
    parties = shared_parties(context, {i: member_of(i, kind) for i in range(1, 6)})
    values = values_of(context)
    parties.send(values)
    first = parties.finish()
    second = Parties(agreed(5, attempt=2), parties.members)
    if kind is Member:
        assert code_of(second.share) == "secure-sum-over"
        return
    second.share(absent=[3])
    second.send(values)
    gap = first.values - second.finish().values
    assert np.allclose(gap, np.clip(values[3], -1, 1), atol=1e-6), "the hole tells one update"


@pytest.mark.parametrize("hole", [True, False])
@pytest.mark.parametrize("covers", [(2, 1, 1, 1, 1), (2, 2, 2, 1, 1)])
def test_a_block_of_too_few_owners_rests(
    hole: bool, covers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two of three owners drop out after they sent, the block was uploaded, and is not
    opened."""
    context = agreed(5, (10, 6), covers)
    if hole:
        monkeypatch.setattr(Layout, "open_blocks", lambda self, members, fewest: len(self.blocks))
    parties = shared_parties(context)
    values = values_of(context)
    parties.send(values, dropped=[i for i in (2,) if covers[1] == 2])
    sizes = {i: len(vector) for i, vector in parties.vectors.items()}
    opened = parties.finish()
    if hole:
        owners = [i for i in opened.survivors if covers[i - 1] == 2]
        plain = sum(np.clip(values[i][10:], -1, 1) for i in owners)
        assert np.allclose(opened.values[10:], plain, atol=1e-6), (
            "the hole opens the block of one or two owners"
        )
        return
    assert not opened.values[10:].any()
    assert opened.values[:10].any()
    assert (sizes[1] == sizes[5]) == (covers[1] == 1), "what cannot be opened is not sent"


# ---- 7: a masked look is answered once a round ----


@pytest.mark.parametrize("kind", [Generous, Member])
def test_looks_at_validation_data_end_after_one_per_round(kind: type[Member]) -> None:
    members = {i: member_of(i, kind) for i in range(1, 5)}
    answered = []
    for attempt in range(1, 6):
        context = Context(
            **{
                **vars(agreed(4, (0,), attempt=attempt, figures={"loss": 16.0})),
                "purpose": "validate",
            }
        )
        parties = Parties(context, members)
        if code := code_of(parties.share):
            assert code == "secure-sum-over"
            continue
        parties.send(dict.fromkeys(members, np.zeros(0)))
        answered.append(parties.finish().figures["loss"])
    assert len(answered) == (1 if kind is Member else 5)


# ---- 8: one text more ----


class Squeezing(Member):
    """A planted hole: its bytes get fewer where its values are plain."""

    def mask(self, context: Context, request: bytes, inbox: bytes, vector: Any) -> bytes:
        return super().mask(context, request, inbox, vector) + zlib.compress(vector()[0].tobytes())


@pytest.mark.parametrize("kind", [Squeezing, Member])
def test_data_of_a_neighbour_change_nothing_but_the_vector(
    kind: type[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        directory_module, "sign", cache(sign)
    )  # signatures are drawn at random; entropy is scripted
    context = agreed(4)
    values = values_of(context)
    neighbour = {**values, 1: np.where(np.arange(40) < 3, values[1], 0.0)}
    crossed = []
    for own in (values, neighbour):
        parties = shared_parties(context, {i: member_of(i, kind) for i in range(1, 5)})
        vectors = {i: parties.vector(i, own[i]) for i in own}
        answers = [m.unmask(context, frozenset(range(1, 5))) for m in parties.members.values()]
        others = [m.announce(context)[:64] for m in parties.members.values()]
        crossed.append(
            (vectors, [*answers, *others, *(len(box) for box in parties.inboxes.values())])
        )
    (first, rest), (second, same) = crossed
    if kind is Squeezing:
        assert len(first[1]) != len(second[1]), "the hole tells by its length"
        return
    assert rest == same
    assert {i: len(v) for i, v in first.items()} == {i: len(v) for i, v in second.items()}
    assert all(first[i] == second[i] for i in (2, 3, 4))
    gap = (np.frombuffer(first[1], WIDE) - np.frombuffer(second[1], WIDE)).view(np.int32)[3:-1]
    step = Field(1.0, 4).step
    assert np.abs(gap * step - (values[1] - neighbour[1]).clip(-1, 1)).max() <= step


# ---- 10: robbed or killed, and poison ----


def test_a_vector_of_extremes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    context = agreed(5)
    values = values_of(context)

    def poisoned(parties: Parties) -> Parties:
        parties.send(values)
        place = np.full(len(parties.vectors[1]) // 4, 1 << 31, WIDE)
        place[[0, 1, 2, -1]] = 0
        parties.collector._total += (
            place  # member 1 had 2³¹ added to all of its values under its masks
        )
        return parties

    assert code_of(poisoned(shared_parties(context)).finish) == "secure-sum-garbage"
    monkeypatch.setattr(Field, "opened", lambda self, total, count: total.view("<i4") * self.step)
    moved = poisoned(shared_parties(context)).finish().values
    assert np.abs(moved).max() > 5, "the hole moves the model"


@pytest.mark.parametrize("phase", ["share", "mask", "unmask"])
def test_a_member_that_is_killed_costs_no_more_than_its_part(phase: str) -> None:
    context = agreed(5)
    parties = shared_parties(context)
    values = values_of(context)
    if phase != "unmask":
        parties.members[2] = member_of(2)
        assert code_of(lambda: parties.vector(2, values[2])) == "secure-sum-unknown"
        del parties.inboxes[2]
    parties.send(values)
    if phase == "unmask":
        parties.members[2] = member_of(2)
        assert (
            code_of(lambda: parties.members[2].unmask(context, frozenset(range(1, 6))))
            == "secure-sum-unknown"
        )
    opened = parties.finish(silent=[2])
    inside = [i for i in values if i != 2 or phase == "unmask"]
    assert np.allclose(opened.values, sum(np.clip(values[i], -1, 1) for i in inside), atol=1e-6)


class Recorded(Scripted):
    """Entropy that remembers what it gave."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.given: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        """Return the next bytes."""
        self.given.append(super().__call__(size))
        return self.given[-1]


def bytes_within(root: object, beyond: tuple[object, ...]) -> Iterator[bytes]:
    """Return every bytes object that is reachable from an object, but not through these."""
    seen, waiting = {id(item) for item in beyond}, [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | logging.Logger) or hasattr(item, "__spec__"):
            continue
        seen.add(id(item))
        if isinstance(item, bytes):
            yield item
        waiting.extend(gc.get_referents(item))


def test_secrets_are_in_memory_alone_and_gone_after_the_sum(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    context = agreed(4)
    entropy = Recorded("robbed")
    parties = Parties.of(context)
    member = parties.members[1] = Member(1, enrolled_key(1), entropy)
    parties.share()
    parties.send(values_of(context))
    secret = [piece for piece in entropy.given if len(piece) == 32]
    assert len(secret) == 3, "two keys and the seed of its own masks"

    def found() -> bool:
        state = vars(member)
        held = bytes_within(
            {key: state[key] for key in ("_sums", "_closed")}, (entropy, context, member)
        )
        return any(piece in item for item in held for piece in secret)

    assert found(), "the search bites while the sum is open"
    for done in (lambda: pickle.dumps(member), lambda: copy.deepcopy(member)):
        with pytest.raises(TypeError):
            done()
    shown = (
        repr(member)
        + repr(vars(member))
        + repr(vars(member._sums["train"]))
        + repr(member._sums["train"]._secrets)
    )
    with pytest.raises(ProtectionError) as error:
        member.mask(context, b"other", parties.inboxes[1], lambda: (np.zeros(40), {}))
    shown += str(error.value) + repr(error.value) + caplog.text
    parties.finish()
    assert not found()
    for piece in (given for given in entropy.given if len(given) != NONCE):
        assert piece.hex() not in shown
        assert repr(piece)[2:-1] not in shown
    assert not list(tmp_path.iterdir())


def test_the_opened_sum_does_not_depend_on_who_answers() -> None:
    context = agreed(7)
    values = values_of(context)
    found = []
    for silent in ([1], [7], []):
        parties = shared_parties(context)
        parties.send(values, dropped=[4])
        found.append(parties.finish(silent).values)
    assert all((other == found[0]).all() for other in found)
