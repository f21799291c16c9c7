"""What every member of a secure sum agrees on before it begins: who takes part, what is summed, and
in which round of which run.

Each seed and each sealed share binds the digest of it. A coordinator that tells two members two
things gets noise, not a sum.
"""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal, refuse_first

LEAST_MEMBERS = 3  # a sum of two tells each of them what the other one sent
Purpose = Literal["train", "validate"]


@dataclass(frozen=True)
class Policy:
    """Who may take part, and how many must.

    Args:
        members: public keys (PEM, P-384) by index, from 1.
        colluders: how many of them may tell the coordinator all that they know.
        fewest: how many must cover a value, so that its sum is opened.

    Raises:
        ProtectionError: if there are too few members for a secure sum.
    """

    members: Mapping[int, bytes]
    colluders: int = 1
    fewest: int = LEAST_MEMBERS

    def __post_init__(self) -> None:
        """Refuse what could not protect anybody."""
        count = len(self.members)
        least = max(LEAST_MEMBERS, self.fewest, self.colluders + 2)
        few = (
            count < least
            or self.fewest < LEAST_MEMBERS
            or self.colluders < 0
            or min(self.members, default=0) < 1
        )
        found = {"secure-sum-few-members": few}
        refuse_first(ProtectionError, found, members=count, fewest=least)

    @property
    def threshold(self) -> int:
        """Return how many shares give a secret back: ⌊(N + k)/2⌋ + 1.

        Each member answers once, and a colluder gives both kinds of share: both secrets of one
        member would need 2t ≤ N + k answers.
        """
        return (len(self.members) + self.colluders) // 2 + 1

    @property
    def least(self) -> int:
        """Return how many members must be in a sum that is opened."""
        return max(self.threshold, self.fewest)


@dataclass(frozen=True)
class Layout:
    """What a vector holds: blocks of values, of which each member covers the first few, and figures
    that all of them add.

    Args:
        blocks: values in each block.
        covers: blocks of each member, by index; at least one.
        bound: the largest absolute value that a member may send; larger ones are clipped.
        figures: further numbers (a weight, a loss) by name, each with its own bound.
    """

    blocks: tuple[int, ...]
    covers: Mapping[int, int]
    bound: float
    figures: Mapping[str, float]

    def edges(self, blocks: int) -> list[int]:
        """Return where the first `blocks` segments begin and end, sentinels and figures
        included."""
        edges = [0]
        for number in range(blocks):
            first = 1 + len(self.figures) if number == 0 else 0
            edges.append(edges[-1] + first + self.blocks[number] + 1)
        return edges

    def open_blocks(self, members: Collection[int], fewest: int) -> int:
        """Return how many blocks have at least `fewest` of these members; the others rest."""
        counts = [self.count(number, members) for number in range(len(self.blocks))]
        return sum(
            count >= fewest for count in counts
        )  # each member covers the first ones, so counts only fall

    def count(self, block: int, members: Collection[int]) -> int:
        """Return how many of these members cover a block."""
        return sum(self.covers[index] > block for index in members)


@dataclass(frozen=True)
class Context:
    """One sum: of which run, round and attempt, and for what.

    Args:
        run: the id of the run.
        federation: digest of the agreed federation.toml.
        head: hash of the last record of the ledger.
        purpose: train, or validate.
        round: the round, from 1 (0 for the scores of the base).
        attempt: how often this round was begun before.
        policy: who may take part.
        layout: what is summed.
    """

    run: str
    federation: str
    head: str
    purpose: Purpose
    round: int
    attempt: int
    policy: Policy
    layout: Layout

    def __post_init__(self) -> None:
        """Refuse a layout that does not say what each member covers."""
        layout, covers = self.layout, self.layout.covers
        same = covers.keys() == self.policy.members.keys()
        whole = all(0 < number <= len(layout.blocks) for number in covers.values())
        bounded = all(0.0 < bound < math.inf for bound in (layout.bound, *layout.figures.values()))
        if not (same and whole and bounded and layout.blocks):
            raise refusal(ProtectionError, "secure-sum-layout")

    @cached_property
    def digest(self) -> bytes:
        """Return SHA-256 over all of it."""
        policy, layout = self.policy, self.layout
        plain = {
            "what": "tequio-secure-sum-1",
            "run": self.run,
            "federation": self.federation,
            "head": self.head,
            "purpose": self.purpose,
            "round": self.round,
            "attempt": self.attempt,
            "members": {str(index): digest(key) for index, key in policy.members.items()},
            "colluders": policy.colluders,
            "fewest": policy.fewest,
            "blocks": list(layout.blocks),
            "covers": {str(index): number for index, number in layout.covers.items()},
            "bound": layout.bound,
            "figures": list(layout.figures.items()),
        }
        return hashlib.sha256(canonical_json(plain)).digest()

    def sent_blocks(self, index: int, directory: Collection[int]) -> int:
        """Return how many blocks a member sends, where these members are in the directory."""
        return min(
            self.layout.covers[index], self.layout.open_blocks(directory, self.policy.fewest)
        )
