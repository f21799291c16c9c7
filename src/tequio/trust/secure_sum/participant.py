"""A member's side of secure sums: announce → share → mask → unmask, each asked for once, in that
order.

Secrets are fresh in every sum and stay in the memory of this process: they are never written,
pickled or shown. A process that restarts has lost them, and drops out of that sum. An answer is
kept in memory under what was asked: the same question gives the same bytes again, another one in
its place is refused, because two vectors under one mask would tell their difference.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tequio.core.canonical import canonical_json
from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal, refuse_first
from tequio.trust.keys import PrivateKey
from tequio.trust.secure_sum.agreement import Context, Purpose
from tequio.trust.secure_sum.directory import (
    Keys,
    announce,
    pack_boxes,
    read_directory,
    unpack_boxes,
)
from tequio.trust.secure_sum.field import Floats, encode
from tequio.trust.secure_sum.masks import Mask, apply_masks
from tequio.trust.secure_sum.sealing import Shares, channel_key, own_seed, pair_seed, seal, unseal
from tequio.trust.secure_sum.shamir import SECRET, Entropy, split

Vector = Callable[[], tuple[Floats, Mapping[str, float]]]
"""Makes the values and figures of a member; called only where the answer is not known yet."""


@dataclass
class _Secrets:
    """The secrets of one member in one sum; `own`: of its own masks, per block."""

    channel: X25519PrivateKey = field(repr=False)
    pairs: X25519PrivateKey = field(repr=False)
    own: tuple[bytes, ...] = field(default=(), repr=False)
    directory: Mapping[int, Keys] = field(default_factory=dict, repr=False)
    bound: bytes = b""
    held: dict[int, Shares] = field(
        default_factory=dict, repr=False
    )  # shares of each member's secrets
    channels: dict[int, bytes] = field(default_factory=dict, repr=False)


class _Sum:
    """One sum as one member sees it."""

    def __init__(self, context: Context, index: int, key: PrivateKey, entropy: Entropy) -> None:
        self.context, self.index, self._entropy = context, index, entropy
        self._answers: dict[str, tuple[bytes, bytes]] = {}
        self._secrets: _Secrets | None = _Secrets(
            X25519PrivateKey.from_private_bytes(entropy(SECRET)),
            X25519PrivateKey.from_private_bytes(entropy(SECRET)),
        )
        keys = Keys(
            *(
                own.public_key().public_bytes_raw()
                for own in (self._secrets.channel, self._secrets.pairs)
            )
        )
        self.announcement = announce(context, index, key, keys)
        self._answers["announce"] = (b"", self.announcement)

    def answer(
        self, step: str, after: str, asked: bytes, make: Callable[[_Secrets], bytes]
    ) -> bytes:
        """Return the answer to a question of this step, made once."""
        known = self._answers.get(step)
        if known is None:
            if after not in self._answers or self._secrets is None:
                raise refusal(ProtectionError, "secure-sum-order", round=self.context.round)
            known = self._answers[step] = (asked, make(self._secrets))
        if known[0] != asked:
            raise refusal(ProtectionError, "secure-sum-asked-again", round=self.context.round)
        return known[1]

    def share(self, data: bytes, known: _Secrets) -> bytes:
        """Split the secrets among the members of the directory."""
        context, policy = self.context, self.context.policy
        directory = read_directory(context, data)
        mine = directory.get(self.index)
        own_keys = Keys(
            *(own.public_key().public_bytes_raw() for own in (known.channel, known.pairs))
        )
        if mine != own_keys:
            raise refusal(ProtectionError, "secure-sum-directory", round=context.round)
        known.directory, known.bound = directory, context.digest + hashlib.sha256(data).digest()
        places, threshold = sorted(directory), policy.threshold
        known.own = tuple(
            self._entropy(SECRET) for _ in range(context.sent_blocks(self.index, directory))
        )
        own = [split(secret, places, threshold, self._entropy) for secret in known.own]
        pairs = split(known.pairs.private_bytes_raw(), places, threshold, self._entropy)
        boxes = {}
        for place in places:
            shares = Shares(tuple(block[place] for block in own), pairs[place])
            if place == self.index:
                known.held[place] = shares
                continue
            public = directory[place].channel
            known.channels[place] = channel_key(
                known.channel, public, known.bound, self.index, place
            )
            boxes[place] = seal(
                known.channels[place], shares, known.bound, self.index, place, self._entropy
            )
        return pack_boxes(boxes)

    def mask(self, request: bytes, inbox: bytes, vector: Vector, known: _Secrets) -> bytes:
        """Open the shares of the others, and hide the own vector under all masks."""
        boxes = unpack_boxes(inbox)
        if boxes.keys() != known.directory.keys() - {self.index}:
            raise refusal(ProtectionError, "secure-sum-directory", round=self.context.round)
        for sender, sealed in boxes.items():
            blocks = self.context.sent_blocks(sender, known.directory)
            known.held[sender] = unseal(
                known.channels[sender], sealed, known.bound, sender, self.index, blocks
            )
        values, figures = vector()
        hidden = encode(self.context.layout, len(known.own), values, figures)
        apply_masks(hidden, self._masks(known, known.bound + request))
        return hidden.tobytes()

    def _masks(self, known: _Secrets, bound: bytes) -> list[Mask]:
        blocks = len(known.own)
        edges = self.context.layout.edges(blocks)
        masks = [
            Mask(own_seed(secret, bound, self.index, block), 1, edges[block], edges[block + 1])
            for block, secret in enumerate(known.own)
        ]
        for other, keys in known.directory.items():
            if other != self.index:
                common = min(blocks, self.context.sent_blocks(other, known.directory))
                seed = pair_seed(known.pairs, keys.mask, bound, self.index, other)
                masks.append(Mask(seed, 1 if self.index < other else -1, 0, edges[common]))
        return masks

    def unmask(self, survivors: frozenset[int], known: _Secrets) -> bytes:
        """Give the shares that open the sum of these members, and forget every secret."""
        policy = self.context.policy
        strange = self.index not in survivors or not survivors <= known.directory.keys()
        found = {
            "secure-sum-survivors": strange,
            "secure-sum-few-left": len(survivors) < policy.least,
        }
        facts = {"round": self.context.round, "members": len(survivors), "fewest": policy.least}
        refuse_first(ProtectionError, found, **facts)
        opened = self.context.layout.open_blocks(survivors, policy.fewest)
        boxes = {
            member: b"\0" + b"".join(shares.own[:opened])
            if member in survivors
            else b"\1" + shares.pair
            for member, shares in known.held.items()
        }
        self._secrets = None
        return pack_boxes(boxes)


class Member:
    """One member of secure sums; at most one sum of each purpose at a time.

    Args:
        index: its index, from 1.
        key: the key that it enrolled with.
        entropy: where secrets come from; anything but the default is for tests.
        begun: for each purpose, the last round that an earlier process of this member took part in:
            it takes part only in later ones.
    """

    def __init__(
        self,
        index: int,
        key: PrivateKey,
        entropy: Entropy = secrets.token_bytes,
        begun: Mapping[Purpose, int] | None = None,
    ) -> None:
        self.index, self._key, self._entropy = index, key, entropy
        self._sums: dict[Purpose, _Sum] = {}
        self._closed: dict[Purpose, int] = dict(begun or {})

    def __reduce__(self) -> NoReturn:
        """Refuse to be written: secrets stay in this process."""
        raise TypeError("The secrets of a secure sum stay in the memory of one process.")

    def announce(self, context: Context) -> bytes:
        """Return fresh keys for a sum, signed. Raises ProtectionError for a sum that is over, or
        older than the last."""
        last = self._sums.get(context.purpose)
        if last is not None and last.context == context:
            return last.announcement
        place = (context.round, context.attempt)
        old = last is not None and place <= (last.context.round, last.context.attempt)
        over = context.round <= self._closed.get(context.purpose, -1)
        refuse_first(ProtectionError, {"secure-sum-over": old or over}, round=context.round)
        if self.index not in context.policy.members:
            raise refusal(ProtectionError, "secure-sum-stranger", index=self.index)
        self._sums[context.purpose] = made = _Sum(context, self.index, self._key, self._entropy)
        return made.announcement

    def share(self, context: Context, directory: bytes) -> bytes:
        """Return sealed shares of the own secrets for each other member of a directory."""
        found = self._sum(context)
        return found.answer(
            "share", "announce", directory, lambda known: found.share(directory, known)
        )

    def mask(self, context: Context, request: bytes, inbox: bytes, vector: Vector) -> bytes:
        """Return the own vector under masks. `vector` is called only where this was not answered
        before.

        Args:
            context: the sum.
            request: digest of what was asked for: the model, and all that decides what is sent.
            inbox: what the others sealed for this member.
            vector: makes the values and figures.
        """
        found, asked = (
            self._sum(context),
            canonical_json([request.hex(), hashlib.sha256(inbox).hexdigest()]),
        )
        return found.answer(
            "mask", "share", asked, lambda known: found.mask(request, inbox, vector, known)
        )

    def unmask(self, context: Context, survivors: frozenset[int]) -> bytes:
        """Return the shares that open the sum of the survivors; once, and no other sum of this
        round and purpose after it."""
        found = self._sum(context)
        asked = canonical_json(sorted(survivors))
        answer = found.answer("unmask", "mask", asked, lambda known: found.unmask(survivors, known))
        self._closed[context.purpose] = context.round
        return answer

    def _sum(self, context: Context) -> _Sum:
        found = self._sums.get(context.purpose)
        if found is None or found.context != context:
            raise refusal(ProtectionError, "secure-sum-unknown", round=context.round)
        return found
