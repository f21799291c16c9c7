"""Whose a signed request is: the key says so, under one name alone, and never the number that
stands in the request.
"""

from __future__ import annotations

import asyncio
import string
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

pytest.importorskip("flwr")

from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from live_server import live

from tequio.runtimes.flower.client import Session
from tequio.runtimes.flower.signatures import Signatures
from tequio.trust.keys import PrivateKey, new_key, public_bytes


def signed(key: PrivateKey) -> dict[str, str]:
    stamp = datetime.now(UTC).isoformat()
    signature = b64encode(sign_message(key, stamp.encode())).decode()
    public = b64encode(public_bytes(key)).decode()
    return {"flwr-public-key": public, "flwr-signature": signature, "flwr-timestamp": stamp}


def signer(signatures: Signatures, headers: Mapping[str, str]) -> bytes | None:
    return asyncio.run(signatures.signer(headers))


def test_a_key_has_one_name_and_one_number() -> None:
    key = new_key()
    public, headers = public_bytes(key), signed(key)
    signatures = Signatures(lambda: {public: 7})
    assert signer(signatures, headers) == public
    assert signatures.node(public) == 7
    text = headers["flwr-public-key"]
    assert text.endswith("="), "else its last character has no spare bits"
    place = len(text.rstrip("=")) - 1
    others = [
        text[:place] + char + text[place + 1 :] for char in string.ascii_letters + string.digits
    ]
    same = [
        other for other in others if other != text and b64decode(other, validate=True) == public
    ]
    assert same
    for other in same:
        assert signer(signatures, {**headers, "flwr-public-key": other}) is None


def test_a_key_that_is_not_listed_signs_nothing() -> None:
    known, other = new_key(), new_key()
    signatures = Signatures(lambda: {public_bytes(known): 7})
    assert signer(signatures, signed(other)) is None
    assert (
        signer(signatures, {**signed(known), "flwr-signature": signed(other)["flwr-signature"]})
        is None
    )


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_a_question_in_the_name_of_another_says_nothing_of_that_one(tmp_path: Path) -> None:
    """Else one participant could have the tasks of all others sent again and again."""
    with live(tmp_path / "hub") as hub:
        victim, attacker = hub.enrol(), hub.enrol()
        long_poll, key = hub.gateway.long_poll, hub.keys[attacker]
        long_poll.task(victim)
        long_poll.fetched(asyncio.run(long_poll.due(victim, 0.0)), True)
        assert not long_poll.holds_nothing(victim)
        sign = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
            Session("session", hub.address),
        ]
        with FleetHttpClient.from_server_address(hub.address, False, hub.authority, sign) as client:
            client.ActivateNode(
                ActivateNodeRequest(public_key=public_bytes(key), heartbeat_interval=10)
            )
            for _ in range(2):
                with suppress(httpx.HTTPStatusError):
                    found = client.PullMessages(PullMessagesRequest(node=Node(node_id=victim)))
                    assert not found.messages_list
            assert not long_poll.holds_nothing(victim)
            client.PullMessages(PullMessagesRequest(node=Node(node_id=attacker)))
        assert not long_poll.holds_nothing(victim)
