"""What the gateway takes in from outside: how many bytes of bodies at a time, which words, and how
many tries with a wrong token.
"""

import asyncio
import json
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tequio.runtimes.flower.visits import origin_of

BODY = 16 << 20  # bytes of one request; a message travels in parts of 5 MB
SMALL = 1 << 14  # bytes of a request to join
SPARE, SPARE_SHARE = (
    1 << 30,
    0.05,
)  # of a disk: bytes, or a share where that is less, that no answer may take
LONGEST = 4096  # characters of one word of a request
WAIT = 20.0  # seconds that a body waits for room; its sender gives up after 30
TRIES, EACH = 20.0, 6.0  # tries in vain that an address has at once, and seconds for each more
ADDRESSES = 4096  # that are remembered


class Full(Exception):
    """There was no room in time."""


@dataclass
class Intake:
    """Bytes of bodies that travel or wait for their turn:

    `total` at most, and `each` of one participant. wait: seconds for room.
    """

    total: int
    each: int
    wait: float = WAIT
    _used: dict[str, int] = field(default_factory=dict)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def room(self, key: str, size: int) -> AsyncIterator[None]:
        """Hold room for a body of `size` bytes by this key.

        Raises Full where there is none for a while.
        """
        if not size:
            yield
            return
        end = asyncio.get_running_loop().time() + self.wait
        while (
            sum(self._used.values()) + size > self.total
            or self._used.get(key, 0) + size > self.each
        ):
            left, freed = end - asyncio.get_running_loop().time(), self._freed
            try:
                await asyncio.wait_for(freed.wait(), left)
            except TimeoutError:
                raise Full from None
        self._used[key] = self._used.get(key, 0) + size
        try:
            yield
        finally:
            self._used[key] -= size
            if not self._used[key]:
                del self._used[key]
            self._freed.set()  # all look again; whoever finds no room waits for the next
            self._freed = asyncio.Event()


def short_of_space(folder: Path) -> bool:
    """Return whether the disk of `folder` is so full that the rest is for the ledger alone."""
    found = shutil.disk_usage(folder)
    return found.free < min(SPARE, SPARE_SHARE * found.total)


def read_words(body: bytes, needed: Iterable[str], optional: Iterable[str] = ()) -> dict[str, str]:
    """Return these texts of a JSON object; an optional one that is missing is empty.

    Raises ValueError for anything else.
    """
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no object")
    words = {name: found.get(name) for name in needed} | {
        name: found.get(name, "") for name in optional
    }
    texts = {
        name: word for name, word in words.items() if isinstance(word, str) and len(word) <= LONGEST
    }
    if texts.keys() != words.keys():
        raise ValueError("a word is missing, too long or no text")
    for text in texts.values():
        text.encode()  # half a surrogate is a ValueError here, and nowhere later
    return texts


@dataclass
class Tries:
    """Tries in vain, by address (of IPv6 by network): so many at once, and one more each few
    seconds.

    Addresses not seen for longest are forgotten.
    """

    most: float = TRIES
    each: float = EACH
    addresses: int = ADDRESSES
    clock: Callable[[], float] = time.monotonic
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait(self, address: str) -> float:
        """Return the seconds until this address may try; 0.0: it may now."""
        left, at = self._left.get(origin_of(address), (self.most, 0.0))
        return max(0.0, (1.0 - left) * self.each - (self.clock() - at))

    def failed(self, address: str) -> None:
        """One more was in vain."""
        origin, now = origin_of(address), self.clock()
        left, at = self._left.pop(origin, (self.most, now))
        self._left[origin] = (min(self.most, left + (now - at) / self.each) - 1.0, now)
        while len(self._left) > self.addresses:
            self._left.popitem(last=False)

    def __len__(self) -> int:
        return len(self._left)


async def take_body(request: Request, limit: int, out: IO[bytes]) -> bool:
    """Write the request's body to `out`. Returns whether it is not longer than `limit`."""
    async for part in request.stream():
        out.write(part)
        if out.tell() > limit:
            return False
    return True


async def small_body(request: Request) -> bytes:
    """Return the body of a request that must be short. Raises ValueError where it is longer."""
    out = BytesIO()
    if announced(request, SMALL) > SMALL or not await take_body(request, SMALL, out):
        raise ValueError("too long")
    return out.getvalue()


def announced(request: Request, unknown: int = BODY) -> int:
    """Return the bytes of the body that the header announces;

    `unknown` where it comes in chunks.
    """
    size = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        return unknown
    return int(size[:20]) if size.isascii() and size.isdigit() else unknown + 1


def unread(
    request: Request, status: int, headers: Mapping[str, str] | None = None, body: object = None
) -> Response:
    """Return an answer to a request whose body was not read: where it is large, the connection
    ends.
    """
    close = {"connection": "close"} if announced(request) > SMALL else {}
    if body is None:
        return Response(status_code=status, headers={**(headers or {}), **close})
    return JSONResponse(body, status, {**(headers or {}), **close})
