"""Updates come back from their vectors, members of unequal ranks mean the same shared model, and
messages have their sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sum_parties import Parties, agreed, values_of

from tequio.algorithms.factors import (
    heads,
    initial_factors,
    padded_sum,
    parted,
    prefix,
    product,
    tail,
)
from tequio.core.canonical import digest_update
from tequio.core.errors import ProtectionError
from tequio.core.types import Trained, TrainRequest
from tequio.core.update import Dense, Update, plain
from tequio.trust.secure_sum.updates import Places, asked_model

SHAPES = {"layers.0.q": (5, 7), "layers.1.v": (3, 4)}
HEADS: dict[str, tuple[int, ...]] = {"head.weight": (2, 3), "head.bias": (2,)}
SCALE = 1.7


def made(rank: int, seed: int = 0) -> Update:
    """Return shared factors of this rank, with a head."""
    draw = torch.Generator().manual_seed(seed)
    entries = {
        name: Dense(torch.randn(plain(e).shape, generator=draw))
        for name, e in initial_factors(SHAPES, rank, 1, "s").entries.items()
    }
    return Update(
        {
            **entries,
            **{name: Dense(torch.randn(shape, generator=draw)) for name, shape in HEADS.items()},
        },
        "s",
    )


@given(
    ranks=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    trained=st.sampled_from(["a", "b", "both"]),
    seed=st.integers(0, 50),
)
def test_the_sum_of_vectors_is_the_sum_of_updates(
    ranks: list[int], trained: Trained, seed: int
) -> None:
    tiers = tuple(sorted(set(ranks)))
    places = Places(tiers, SHAPES, HEADS, trained)
    total, expected = np.zeros(sum(places.sizes)), Update({}, "s")
    for number, rank in enumerate(ranks):
        update, _ = parted(prefix(made(tiers[-1], seed + number), rank), trained)
        vector = places.vector(update, tiers.index(rank) + 1)
        assert len(vector) == sum(places.sizes[: tiers.index(rank) + 1])
        total[: len(vector)] += vector
        expected = padded_sum(expected, update)
    found = places.update(total, "s")
    assert found.entries.keys() == expected.entries.keys()
    for name, entry in found.entries.items():
        assert torch.allclose(plain(entry), plain(expected.entries[name]), atol=1e-5)


def test_an_update_of_other_entries_is_refused() -> None:
    places = Places((4,), SHAPES, HEADS, "b")
    for wrong in (made(4), parted(made(4), "a")[0], heads(made(4))):
        with pytest.raises(ProtectionError):
            places.vector(wrong, 1)


def asked(shared: Update, rank: int) -> TrainRequest:
    """Return the request of a member of this rank, as the coordinator makes it."""
    held = heads(shared).plus(tail(shared, rank, SCALE))
    start = prefix(shared, rank)
    return TrainRequest(1, 1, "north", "factors", rank, 3, 0.1, 0, held, start, trained="b")


def test_the_model_of_a_request_is_the_same_for_every_rank() -> None:
    shared = made(6)
    found = {asked_model(asked(shared, rank), SCALE) for rank in (1, 2, 4, 6)}
    assert found == {digest_update(product(shared, SCALE))}
    assert asked_model(asked(made(6, seed=9), 2), SCALE) not in found


@pytest.mark.parametrize("part", ["start", "held"])
def test_a_model_that_is_changed_for_one_member_is_another(part: str) -> None:
    shared = made(6)
    request = asked(shared, 2)
    model = request.start if part == "start" else request.held
    assert model is not None
    for name, entry in model.entries.items():
        if not isinstance(entry, Dense):
            continue
        moved = Update({**model.entries, name: Dense(entry.value + 1e-3)}, "s")
        changed = replace(request, start=moved) if part == "start" else replace(request, held=moved)
        if name in HEADS:  # it stands in both parts, which must agree
            with pytest.raises(ProtectionError):
                asked_model(changed, SCALE)
            continue
        assert asked_model(changed, SCALE) != asked_model(request, SCALE)


def test_what_a_member_sends_beside_its_values() -> None:
    """At most 1.5 % of 300,000 plain float32 values with 100 members."""

    def beside(members: int) -> int:
        keys, shares, opening = 160, (members - 1) * (6 + 12 + 66 + 16), members * (6 + 1 + 33)
        return keys + shares + opening + 4 * 4

    context = agreed(7, (50,))
    parties = Parties.of(context)
    announced = parties.members[1].announce(context)
    parties.share()
    sealed = parties.members[1].share(context, parties.directory)
    parties.send(values_of(context))
    survivors = frozenset(parties.collector.close())
    opened = parties.members[1].unmask(context, survivors)
    sent = sum(len(message) for message in (announced, sealed, parties.vectors[1], opened))
    assert sent == 4 * 50 + beside(7)
    assert beside(100) <= 0.015 * 4 * 300_000
