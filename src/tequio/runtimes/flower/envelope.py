"""Our bytes inside a Flower message: a small message travels whole in its first request, a large one in parts, cut and read one at a time.

A large message is cut after the header of its safetensors, so that equal tensors for several participants are equal parts, which SuperLink
keeps once. Its parts are Flower's own objects, named by their SHA-256; the message lists them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app.message import ConfigRecord, Message, RecordDict, make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_body, get_object_id

from tequio.core.errors import UpdateError

RECORD, WHOLE, PARTS, SIZE = "tequio", "message", "parts", "bytes"
TYPE = "train"  # Flower routes by this word; what we ask stands in our own bytes
SECOND = 1.0
INLINE, PART = 4 << 20, 5 << 20  # bytes: of the largest message that travels whole, and of a part of others


@dataclass(frozen=True)
class Sealed:
    """A message ready to be sent: Flower's message, the tree of its objects, and where its parts lie in `data`."""

    message: Message
    tree: ObjectTree
    data: bytes
    places: Mapping[str, tuple[int, int]]  # part -> first byte, and the one after the last

    @property
    def identity(self) -> str:
        """The message's id."""
        return str(self.message.metadata.message_id)

    def proto(self) -> Any:
        """As it goes over the wire."""
        return message_to_proto(self.message)

    def wanted(self, missing: list[str]) -> Iterator[tuple[str, bytes]]:
        """(id, content) of parts that the server misses, one after another; the last part of the message comes last."""
        asked = set(missing)
        for identity, (start, end) in self.places.items():
            if identity in asked:
                yield identity, _part(self.data, start, end)


def sealed(data: bytes, run: int, source: int, target: int, group: str, ttl: float, reply_to: str = "") -> Sealed:
    """A Flower message with `data` in it."""
    order = [] if len(data) <= INLINE else [(get_object_id(_part(data, *place)), place) for place in _cuts(data)]
    told = {PARTS: [identity for identity, _ in order], SIZE: len(data)} if order else {WHOLE: data}
    message = make_message(
        Metadata(
            run_id=run,
            message_id="",
            src_node_id=source,
            dst_node_id=target,
            reply_to_message_id=reply_to,
            group_id=group,
            created_at=time.time(),
            ttl=ttl,
            message_type=TYPE,
        ),
        content=RecordDict({RECORD: ConfigRecord(told)}),
    )
    message.metadata.__dict__["_message_id"] = message.object_id
    places = dict(order)
    tree = ObjectTree(
        object_id=message.metadata.message_id, children=[ObjectTree(object_id=identity) for identity in places]
    )
    return Sealed(message, tree, data, places)


def opened(message: Message, limit: int, pull: Callable[[str], bytes] | None = None) -> bytes:
    """The bytes in a message; `pull` brings the content of a part. Raises UpdateError if there are none, or more than `limit`."""
    records = message.content.config_records if message.has_content() else {}
    found = records.get(RECORD, {})
    whole, parts, size = found.get(WHOLE), found.get(PARTS), found.get(SIZE)
    if isinstance(whole, bytes):
        return whole if len(whole) <= limit else _too_long(len(whole), limit)
    if pull is None or not isinstance(parts, list) or type(size) is not int or size < 0:
        raise UpdateError("A message that came is not one of Tequio's.", "", "Look at who may reach the coordinator.")
    if size > limit:
        return _too_long(size, limit)
    data, end = bytearray(size), 0
    for identity in parts:
        body = _body(pull(str(identity)), str(identity))
        if end + len(body) > size:
            break
        data[end : end + len(body)] = body
        end += len(body)
    if end != size:
        raise UpdateError("A message that came is damaged.", "Its parts are not as long as it says.")
    return data  # type: ignore[return-value]  # a bytearray that nobody writes to: a copy would double the memory


def parts_of(message: Message) -> list[str]:
    """Ids of the parts in which a message travels, in their order; none of one that came whole."""
    records = message.content.config_records if message.has_content() else {}
    parts = records.get(RECORD, {}).get(PARTS, [])
    return [str(part) for part in parts] if isinstance(parts, list) else []


def remaining(message: Message) -> float:
    """Seconds that a reply to this message may live: until it expires itself."""
    left: float = message.metadata.created_at + message.metadata.ttl - time.time() - SECOND
    return max(SECOND, left)


def _cuts(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts begin and end: the header alone, then as large as parts may be."""
    first = min(8 + int.from_bytes(data[:8], "little"), PART, len(data))
    yield 0, first
    for start in range(first, len(data), PART):
        yield start, min(start + PART, len(data))


def _part(data: bytes, start: int, end: int) -> bytes:
    content: bytes = ArrayChunk(memoryview(data)[start:end]).deflate()
    return content


def _body(content: bytes, identity: str) -> bytes:
    if get_object_id(content) != identity:
        raise UpdateError("A message that came is damaged.", "A part is not what its name says.")
    try:
        body: bytes = get_object_body(content, ArrayChunk)
    except (ValueError, UnicodeDecodeError):
        raise UpdateError("A message that came is damaged.", "A part is not one of a message.") from None
    return body


def _too_long(size: int, limit: int) -> bytes:
    raise UpdateError(f"A message has {size} bytes,", f"at most {limit} are allowed.")
