"""Our bytes inside a Flower message: one byte array, which Flower cuts into chunks of 5 MB, so that no message is too large."""

from __future__ import annotations

import time
from collections.abc import Callable

from flwr.app.message import Array, ArrayRecord, Message, RecordDict, make_message
from flwr.app.metadata import Metadata
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from tequio.core.errors import UpdateError

RECORD, ARRAY, STYPE = "tequio", "message", "tequio.message"
TYPE = "train"  # Flower routes by this word; what we ask stands in our own bytes
SECOND = 1.0


def sealed(data: bytes, run: int, source: int, target: int, group: str, ttl: float, reply_to: str = "") -> Message:
    """A Flower message with `data` in it. Set its id with `identified` before it is sent."""
    array = Array("uint8", (len(data),), STYPE, data)
    return make_message(
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
        content=RecordDict({RECORD: ArrayRecord({ARRAY: array})}),
    )


def opened(message: Message, limit: int) -> bytes:
    """The bytes in a message. Raises UpdateError if there are none, or more than `limit`."""
    records = message.content.array_records if message.has_content() else {}
    array = records[RECORD].get(ARRAY) if RECORD in records else None
    if array is None or array.stype != STYPE:
        raise UpdateError("A message that came is not one of Tequio's.", "", "Look at who may reach the coordinator.")
    if len(array.data) > limit:
        raise UpdateError(f"A message has {len(array.data)} bytes,", f"at most {limit} are allowed.")
    return bytes(array.data)


def identified(message: Message) -> tuple[Message, dict[str, bytes], object]:
    """(the message with its id, its parts by id, their tree)."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        parts = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
        return message, parts, get_object_tree(message)


def gathered(message: Message, tree: object, pull: Callable[[str], bytes]) -> Message:
    """The whole message: its parts, pulled one by one."""
    identity = message.metadata.message_id
    parts = {node.object_id: pull(node.object_id) for node in iterate_object_tree(tree)}
    whole: Message = inflate_object_from_contents(identity, parts)
    whole.metadata.__dict__["_message_id"] = identity
    return whole


def remaining(message: Message) -> float:
    """Seconds that a reply to this message may live: until it expires itself."""
    left: float = message.metadata.created_at + message.metadata.ttl - time.time() - SECOND
    return max(SECOND, left)
