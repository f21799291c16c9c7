"""Members and a coordinator of secure sums in one process, for tests: the whole protocol, with
whoever is away."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tequio.core.errors import ProtectionError
from tequio.trust.keys import PrivateKey, new_key, public_bytes
from tequio.trust.secure_sum.agreement import Context, Layout, Policy
from tequio.trust.secure_sum.coordinator import Collector, Opened
from tequio.trust.secure_sum.participant import Member

REQUEST = hashlib.sha256(b"the model of round 1").digest()
FIGURES = {"weight": 8.0, "loss": 16.0}


@cache
def enrolled_key(index: int) -> PrivateKey:
    """Return the key that a member enrolled with."""
    return new_key()


class Scripted:
    """Entropy that repeats from run to run."""

    def __init__(self, seed: str) -> None:
        self.seed, self.drawn = seed, 0

    def __call__(self, size: int) -> bytes:
        """Return the next bytes."""
        self.drawn += 1
        return hashlib.shake_256(f"{self.seed}/{self.drawn}".encode()).digest(size)


def agreed(
    count: int,
    blocks: Sequence[int] = (40,),
    covers: Sequence[int] | None = None,
    round_: int = 1,
    attempt: int = 1,
    colluders: int = 1,
    bound: float = 1.0,
    figures: Mapping[str, float] = FIGURES,
) -> Context:
    """Return the agreement of members 1 … count."""
    indices = range(1, count + 1)
    policy = Policy({index: public_bytes(enrolled_key(index)) for index in indices}, colluders)
    covered = dict(zip(indices, covers or [len(blocks)] * count, strict=True))
    layout = Layout(tuple(blocks), covered, bound, dict(figures))
    return Context("run-1", "f" * 64, "0" * 64, "train", round_, attempt, policy, layout)


def member_of(index: int, kind: Callable[..., Member] = Member) -> Member:
    """Return a member with scripted entropy."""
    return kind(index, enrolled_key(index), Scripted(f"member {index}"))


@dataclass
class Parties:
    """All parties of one sum, step by step; `members` may be replaced by dishonest ones."""

    context: Context
    members: dict[int, Member]
    request: bytes = REQUEST
    collector: Collector = field(init=False)
    directory: bytes = b""
    inboxes: dict[int, bytes] = field(default_factory=dict)
    vectors: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin the coordinator's side."""
        self.collector = Collector(self.context, self.request)

    @classmethod
    def of(cls, context: Context, kind: Callable[..., Member] = Member) -> Parties:
        """Return all members of an agreement."""
        return cls(context, {index: member_of(index, kind) for index in context.policy.members})

    def share(self, absent: Collection[int] = ()) -> None:
        """Announce keys and seal shares."""
        present = {index: member for index, member in self.members.items() if index not in absent}
        self.directory = self.collector.directory(
            {i: m.announce(self.context) for i, m in present.items()}
        )
        outboxes = {i: m.share(self.context, self.directory) for i, m in present.items()}
        self.inboxes = self.collector.inboxes(outboxes)

    def vector(
        self, index: int, values: NDArray[np.float64], figures: Mapping[str, float] | None = None
    ) -> bytes:
        """Return what a member sends for its values."""
        own = figures or {"weight": 1.0, "loss": 0.5}
        shown = {name: own[name] for name in self.context.layout.figures}
        member = self.members[index]
        return member.mask(self.context, self.request, self.inboxes[index], lambda: (values, shown))

    def send(
        self, values: Mapping[int, NDArray[np.float64]], dropped: Collection[int] = ()
    ) -> None:
        """Mask and receive the vectors of all but the dropped."""
        for index in self.inboxes:
            self.vectors[index] = self.vector(index, values[index])
            if index not in dropped:
                self.collector.receive(index, self.vectors[index])

    def finish(self, silent: Collection[int] = ()) -> Opened:
        """Unmask and open; the silent are in the sum but give no shares."""
        survivors = self.collector.close()
        for index in survivors:
            if index not in silent:
                self.collector.answer(
                    index, self.members[index].unmask(self.context, frozenset(survivors))
                )
        return self.collector.open()


def values_of(
    context: Context, seed: int = 0, scale: float = 0.3
) -> dict[int, NDArray[np.float64]]:
    """Return made values for each member: of all blocks, whatever it covers."""
    rng = np.random.default_rng(seed)
    size = sum(context.layout.blocks)
    return {index: rng.normal(0.0, scale, size) for index in context.policy.members}


def code_of(done: Callable[[], object]) -> str:
    """Return the code with which something is refused; empty where it is not."""
    try:
        done()
    except ProtectionError as error:
        return "" if error.reason is None else error.reason.code
    return ""
