"""Signed headers of Flower's participants, checked before a body is taken: a stranger can hand in
nothing.

SuperLink checks them again, with the participant's number. A key that is not known here is looked
for in SuperLink's list of participants, which is asked at most once a second, for all who wait
together.
"""

import asyncio
import binascii
import datetime
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

PAUSE = 1.0  # seconds between two questions for the list
LONGEST = 1024  # characters of each header


@dataclass
class Signatures:
    """Keys that are known, and whose they are.

    listed: asks SuperLink for the number of each participant by its key (PEM); raises where it does
        not answer.
    """

    listed: Callable[[], Mapping[bytes, int]]
    _known: dict[bytes, int] = field(default_factory=dict)
    _read: dict[bytes, Any] = field(default_factory=dict)  # as Flower's functions read them
    _asked: float = float("-inf")  # when the list was asked for that is known
    _asking: asyncio.Task[None] | None = None

    def add(self, key: bytes, node: int) -> None:
        """Know one more key, and the number of its participant."""
        self._known[key] = node

    def node(self, key: bytes) -> int:
        """Return the number of the participant with this key; a request may name any other."""
        return self._known[key]

    def forget(self, key: bytes) -> None:
        """SuperLink refused it."""
        self._known.pop(key, None)
        self._read.pop(key, None)

    def aged(self, headers: Mapping[str, str]) -> bool:
        """Return whether a signature that was valid before is too old by now: its body travelled
        for longer than it counts.
        """
        return not _counts(headers[TIMESTAMP_HEADER])

    async def signer(self, headers: Mapping[str, str]) -> bytes | None:
        """Return the key (PEM) of the participant that signed these headers now, or None if nobody
        did.

        Raises: what `listed` raises, where the key is not known yet and SuperLink does not answer.
        """
        names = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
        texts = [headers.get(name, "") for name in names]
        if any(not 0 < len(text) <= LONGEST for text in texts):
            return None
        try:
            key, signature = (b64decode(text, validate=True) for text in texts[:2])
            stamp, counts = texts[2].encode("ascii"), _counts(texts[2])
        except (ValueError, TypeError, binascii.Error):
            return None
        if (
            b64encode(key).decode() != texts[0]
        ):  # each key has one name, by which its connections and bodies are counted
            return None
        if not counts:
            return None
        if key not in self._known:
            await self._renew()
        if key not in self._known:
            return None
        if key not in self._read:
            self._read[key] = bytes_to_public_key(key)
        return key if verify_signature(self._read[key], stamp, signature) else None

    async def _renew(self) -> None:
        """Wait for a list that was asked for after this call."""
        since = time.monotonic()
        while self._asked < since:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
            await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._asked + PAUSE - time.monotonic()))
            begun = time.monotonic()
            self._known = dict(await asyncio.to_thread(self.listed))
            self._read = {key: read for key, read in self._read.items() if key in self._known}
            self._asked = begun
        finally:
            self._asking = None


def _counts(stamp: str) -> bool:
    """Return whether SuperLink takes a signature of this time now.

    Raises ValueError or TypeError where it is no time with a zone.
    """
    age = (now() - datetime.datetime.fromisoformat(stamp)).total_seconds()
    return bool(-SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)
