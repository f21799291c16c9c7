"""The coordinator's side of one secure sum: announce → share → receive, member by member → close →
answer → open.

Vectors are added to one running sum as they come; no single one is held. Whatever a member sends
that is not as agreed raises ProtectionError, and that member drops out. Where too few are left
nothing is opened, and the round needs a new attempt.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal, refuse_first
from tequio.trust.secure_sum.agreement import Context
from tequio.trust.secure_sum.directory import (
    Keys,
    pack_boxes,
    read_directory,
    read_keys,
    unpack_boxes,
)
from tequio.trust.secure_sum.field import WIDE, decode
from tequio.trust.secure_sum.masks import Mask, apply_masks
from tequio.trust.secure_sum.sealing import own_seed, pair_seed
from tequio.trust.secure_sum.shamir import SHARE, combine, lagrange


@dataclass(frozen=True)
class Opened:
    """What a sum tells: summed values (zero where a block rests), summed figures, and members in
    each opened block."""

    values: NDArray[np.float64]
    figures: Mapping[str, float]
    counts: tuple[int, ...]
    survivors: tuple[int, ...]


class Collector:
    """One sum. `request`: digest of what the members are asked for, as they compute it."""

    def __init__(self, context: Context, request: bytes) -> None:
        self.context, self._request = context, request
        self._directory: dict[int, Keys] = {}
        self._bound = b""
        self._arrived: set[int] = set()
        self._survivors: tuple[int, ...] = ()
        self._answers: dict[int, dict[int, bytes]] = {}
        self._total = np.zeros(0, WIDE)

    def check_keys(self, index: int, announced: bytes) -> None:
        """Raise ProtectionError unless the enrolled member of that index signed these keys for this
        sum."""
        read_keys(self.context, index, announced)

    def directory(self, announced: Mapping[int, bytes]) -> bytes:
        """Return the directory of those who announced their keys. Raises ProtectionError if they
        are too few."""
        data = pack_boxes(announced)
        self._directory = read_directory(self.context, data)
        self._bound = self.context.digest + hashlib.sha256(data).digest() + self._request
        return data

    def check_shares(self, index: int, outbox: bytes) -> None:
        """Raise ProtectionError unless a member sealed something for each other member of the
        directory."""
        if unpack_boxes(outbox).keys() != self._directory.keys() - {index}:
            raise refusal(ProtectionError, "secure-sum-message")

    def inboxes(self, outboxes: Mapping[int, bytes]) -> dict[int, bytes]:
        """Return what the others sealed for each member. Raises ProtectionError if one of the
        directory sent nothing, or not to all.

        Everybody's shares must be there: with a part of them a coordinator could show each member
        another crowd.
        """
        sent = {index: unpack_boxes(outbox) for index, outbox in outboxes.items()}
        missing = sorted(
            index
            for index in self._directory
            if sent.get(index, {}).keys() != self._directory.keys() - {index}
        )
        refuse_first(ProtectionError, {"secure-sum-no-shares": bool(missing)}, missing=missing)
        self._total = np.zeros(self.context.layout.edges(self._blocks())[-1], WIDE)
        return {
            index: pack_boxes(
                {sender: boxes[index] for sender, boxes in sent.items() if sender != index}
            )
            for index in self._directory
        }

    def receive(self, index: int, vector: bytes) -> None:
        """Add a member's vector to the running sum. Raises ProtectionError if it has another size,
        or came already."""
        size = (
            self.context.layout.edges(self.context.sent_blocks(index, self._directory))[-1]
            * WIDE.itemsize
        )
        if (
            index not in self._directory
            or index in self._arrived
            or len(vector) != size
            or self._survivors
        ):
            raise refusal(ProtectionError, "secure-sum-message")
        part = np.frombuffer(vector, WIDE)
        self._total[: len(part)] += part
        self._arrived.add(index)

    def close(self) -> tuple[int, ...]:
        """Return whose vectors are in the sum. Raises ProtectionError if they are too few for it to
        be opened."""
        least = self.context.policy.least
        found = {"secure-sum-few-left": len(self._arrived) < least}
        refuse_first(ProtectionError, found, members=len(self._arrived), fewest=least)
        self._survivors = tuple(sorted(self._arrived))
        return self._survivors

    def answer(self, index: int, opened: bytes) -> None:
        """Take the shares that a survivor gives. Raises ProtectionError if they are not those that
        were asked for."""
        boxes = unpack_boxes(opened)
        wanted = {member: self._kind(member) for member in self._directory}
        fits = {member: (box[:1], len(box)) for member, box in boxes.items()} == wanted
        if index not in self._survivors or not fits:
            raise refusal(ProtectionError, "secure-sum-message")
        self._answers[index] = {member: box[1:] for member, box in boxes.items()}

    def _kind(self, member: int) -> tuple[bytes, int]:
        if member not in self._survivors:
            return b"\1", 1 + SHARE
        return b"\0", 1 + SHARE * min(
            self._opened(), self.context.sent_blocks(member, self._directory)
        )

    def _blocks(self) -> int:
        return self.context.layout.open_blocks(self._directory, self.context.policy.fewest)

    def _opened(self) -> int:
        return self.context.layout.open_blocks(self._survivors, self.context.policy.fewest)

    def open(self) -> Opened:
        """Take the masks away and return the sum.

        Raises ProtectionError if too few answered, a share was wrong, or what remains is not a sum
        of so many vectors.
        """
        threshold = self.context.policy.threshold
        found = {"secure-sum-few-left": len(self._answers) < threshold}
        refuse_first(ProtectionError, found, members=len(self._answers), fewest=threshold)
        layout, opened = self.context.layout, self._opened()
        total = self._total[: layout.edges(opened)[-1]].copy()
        apply_masks(total, self._masks(sorted(self._answers)[:threshold], opened))
        counts = [layout.count(block, self._survivors) for block in range(opened)]
        values, figures = decode(layout, total, counts)
        return Opened(values, figures, tuple(counts), self._survivors)

    def _masks(self, answered: list[int], opened: int) -> list[Mask]:
        """Return what to take away: own masks of the survivors, and masks that they have in common
        with members that dropped out."""
        factors, edges = lagrange(answered), self.context.layout.edges(opened)
        blocks = {
            index: self.context.sent_blocks(index, self._directory) for index in self._directory
        }
        masks = []
        for member in self._directory:
            shares = {index: self._answers[index][member] for index in answered}
            if member in self._survivors:
                for block in range(min(opened, blocks[member])):
                    cut = slice(block * SHARE, (block + 1) * SHARE)
                    secret = combine(
                        {index: share[cut] for index, share in shares.items()}, factors
                    )
                    if secret is None:
                        raise refusal(ProtectionError, "secure-sum-garbage")
                    seed = own_seed(secret, self._bound, member, block)
                    masks.append(Mask(seed, -1, edges[block], edges[block + 1]))
                continue
            secret = combine(shares, factors)
            key = None if secret is None else X25519PrivateKey.from_private_bytes(secret)
            if key is None or key.public_key().public_bytes_raw() != self._directory[member].mask:
                raise refusal(ProtectionError, "secure-sum-garbage")
            for other in self._survivors:
                common = min(opened, blocks[member], blocks[other])
                seed = pair_seed(key, self._directory[other].mask, self._bound, member, other)
                masks.append(Mask(seed, 1 if member < other else -1, 0, edges[common]))
        return masks
