"""Our bytes inside a Flower message: a small message travels whole in its first request, a large
one in parts, cut and read one at a time.

A large message has the header of its safetensors with it and its tensors in parts: equal tensors
for several participants, or in the next task, are equal parts, which go to SuperLink and to a
participant once. Parts are Flower's own objects, named by their SHA-256.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app.message import ConfigRecord, Message, RecordDict, make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_body, get_object_id

from tequio.core.errors import MessageError, ResourceError
from tequio.core.texts.words import refusal

RECORD, HEAD, PARTS, SIZE = "tequio", "head", "parts", "bytes"
TYPE = "train"  # Flower routes by this word; what we ask stands in our own bytes
SECOND = 1.0
IN_MEMORY = (
    1 << 26
)  # bytes of the largest message that is kept in memory; a larger one lies in a file
TASK, ANSWER, PART = (
    1 << 18,
    4 << 20,
    5 << 20,
)  # bytes: of the largest task and the largest answer that travel whole, and of a part

Place = tuple[int, int]
"""First byte, and the one after the last."""


@dataclass(frozen=True)
class Envelope:
    """A message ready to be sent:

    Flower's message, the tree of its objects, and where its parts lie in `data`.
    """

    message: Message
    tree: ObjectTree
    data: bytes
    places: Mapping[str, Place]  # of parts, by id

    @property
    def identity(self) -> str:
        """The message's id."""
        return str(self.message.metadata.message_id)

    def proto(self) -> Any:
        """As it goes over the wire."""
        return message_to_proto(self.message)

    def wanted(self, missing: list[str]) -> Iterator[tuple[str, bytes]]:
        """(id, content) of parts that the server misses, one after another; the last part of the
        message comes last.
        """
        asked = set(missing)
        for identity, (start, end) in self.places.items():
            if identity in asked:
                yield identity, _part(self.data, start, end)


def seal(
    data: bytes, run: int, source: int, target: int, group: str, ttl: float, reply_to: str = ""
) -> Envelope:
    """A Flower message with `data`, one of ours, in it."""
    created = (
        time.time()
    )  # naming the parts of a large message takes seconds, and its life is counted from here
    first, order = len(data), list[tuple[str, Place]]()
    if len(data) > (ANSWER if reply_to else TASK):
        first = min(8 + int.from_bytes(data[:8], "little"), ANSWER)
        cuts = [(start, min(start + PART, len(data))) for start in range(first, len(data), PART)]
        order = [(get_object_id(_part(data, *cut)), cut) for cut in cuts]
    head = {HEAD: data[:first], PARTS: [identity for identity, _ in order], SIZE: len(data)}
    message = make_message(
        Metadata(
            run_id=run,
            message_id="",
            src_node_id=source,
            dst_node_id=target,
            reply_to_message_id=reply_to,
            group_id=group,
            created_at=created,
            ttl=ttl,
            message_type=TYPE,
        ),
        content=RecordDict({RECORD: ConfigRecord(head)}),
    )
    message.metadata.__dict__["_message_id"] = message.object_id
    places = dict(order)
    tree = ObjectTree(
        object_id=message.metadata.message_id,
        children=[ObjectTree(object_id=identity) for identity in places],
    )
    return Envelope(message, tree, data, places)


def open_message(
    message: Message, limit: int, pull: Callable[[str], bytes], folder: Path | None = None
) -> tuple[bytes, dict[str, Place]]:
    """(the bytes in a message, where its parts lie in them); `pull` brings a part.

    Very many bytes lie in a nameless file of `folder`.

    Raises MessageError if it has none, or more than `limit`; ResourceError where the disk is full.
    """
    records = message.content.config_records if message.has_content() else {}
    found = records.get(RECORD, {})
    head, parts, size = found.get(HEAD), found.get(PARTS), found.get(SIZE)
    if not isinstance(head, bytes) or not isinstance(parts, list) or type(size) is not int:
        raise refusal(MessageError, "message-foreign")
    if max(size, len(head)) > limit:
        raise refusal(MessageError, "message-too-large", size=max(size, len(head)), most=limit)
    places: dict[str, Place] = {}
    if not parts and size == len(head):
        return head, places
    data, end = _room(max(size, len(head)), folder), len(head)
    data[:end] = head
    for identity in parts:
        part = pull(str(identity))
        places[str(identity)] = end, end + len(part)
        if end + len(part) > size:
            break
        data[end : end + len(part)] = part
        end += len(part)
    if end != size:
        raise refusal(MessageError, "message-damaged")
    return data, places  # type: ignore[return-value]  # nobody writes to it any more, and a copy would double the memory


def _room(size: int, folder: Path | None) -> bytearray | mmap.mmap:
    """So many bytes, to be written to. Raises ResourceError where the disk has not as many."""
    if size <= IN_MEMORY:
        return bytearray(size)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
        except OSError as error:
            facts = {
                "folder": folder or tempfile.gettempdir(),
                "size": size,
                "error": error.strerror,
            }
            raise refusal(ResourceError, "disk-full", **facts) from None


def read_letter(proto: Any) -> Message:
    """The message of Flower that the other side sent; one with nothing in it where Flower cannot
    read that.
    """
    try:
        return message_from_proto(proto)
    except Exception:  # Flower has no error of its own for what a stranger may write
        nobody = Metadata(
            run_id=0,
            message_id="",
            src_node_id=0,
            dst_node_id=0,
            reply_to_message_id="",
            group_id="",
            created_at=time.time(),
            ttl=SECOND,
            message_type=TYPE,
        )
        return make_message(nobody, content=RecordDict({}))


def list_parts(message: Message) -> list[str]:
    """Ids of the parts in which a message travels, in their order; none of one that came whole."""
    records = message.content.config_records if message.has_content() else {}
    parts = records.get(RECORD, {}).get(PARTS, [])
    return [str(part) for part in parts] if isinstance(parts, list) else []


def remaining(message: Message) -> float:
    """Seconds that a reply to this message may live: until it expires itself."""
    left: float = message.metadata.created_at + message.metadata.ttl - time.time() - SECOND
    return max(SECOND, left)


def find_part(content: bytes, identity: str) -> bytes:
    """A part, as it lies in Flower's object of this id.

    Raises MessageError if it is not what its name says.
    """
    if get_object_id(content) != identity:
        raise refusal(MessageError, "message-damaged")
    try:
        body: bytes = get_object_body(content, ArrayChunk)
    except (ValueError, UnicodeDecodeError):
        raise refusal(MessageError, "message-damaged") from None
    return body


def part_in(data: bytes, place: Place, identity: str) -> bytes | None:
    """The part of this id, if it still lies in an earlier message at this place."""
    found = bytes(memoryview(data)[slice(*place)])
    return found if get_object_id(_part(found, 0, len(found))) == identity else None


def _part(data: bytes, start: int, end: int) -> bytes:
    content: bytes = ArrayChunk(memoryview(data)[start:end]).deflate()
    return content
