"""What passes between a participant's request and SuperLink: the headers that may, and for whom a question for work is."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.proto.fleet_pb2 import PullMessagesRequest
from google.protobuf.message import DecodeError

from tequio.runtimes.flower.sessions import KEY

HEADERS = ("content-type", "accept", KEY, "flwr-signature", "flwr-timestamp")
VERSION = "flwr-"  # SuperLink's own headers that are not secrets of the inside
INSIDE = ("flwr-superexec", "flwr-task")


def asking_node(body: bytes) -> int:
    """Return whose question for work this is; 0 where it cannot be read, which SuperLink will say."""
    try:
        return int(PullMessagesRequest.FromString(body).node.node_id)
    except DecodeError:
        return 0


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that may pass the gateway, either way."""
    wanted = {k.lower(): v for k, v in headers.items()}
    return {k: v for k, v in wanted.items() if k in HEADERS or (k.startswith(VERSION) and not k.startswith(INSIDE))}
