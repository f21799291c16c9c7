"""Slow lines and slow neighbours at the gateway: a body that travels for too long is asked for
again, and nobody waits for who joins.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("flwr")

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from live_server import live
from open_gateway import opened

from tequio.app.network.hub.folder import changing, enrolled, open_coordinator_folder
from tequio.runtimes.flower.enrolment_client import enrol
from tequio.trust.invitation import read_invitation
from tequio.trust.keys import PrivateKey, new_key, public_bytes

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings(FLOWERS)]


def signed(key: PrivateKey, age: float) -> dict[str, str]:
    """Headers that were signed so many seconds ago."""
    stamp = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    signature = b64encode(sign_message(key, stamp.encode())).decode()
    names = {"flwr-public-key": b64encode(public_bytes(key)).decode(), "flwr-signature": signature}
    names |= dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())
    return {
        **names,
        "flwr-timestamp": stamp,
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
    }


def test_a_body_that_travels_for_longer_than_its_signature_counts_is_to_be_sent_again(
    tmp_path: Path,
) -> None:
    """SuperLink's own 401 would say that the key is not known, and the participant would end."""
    counts = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    with live(tmp_path / "hub") as hub, httpx.Client(verify=hub.context(), timeout=60) as client:
        node = hub.enrol()
        part = PushObjectRequest(
            node=Node(node_id=node), run_id=1, object_id="ab", object_content=b"x" * 1000
        )

        def slowly(seconds: float) -> Iterator[bytes]:
            whole = part.SerializeToString()
            yield whole[:500]
            time.sleep(seconds)
            yield whole[500:]

        def sent(age: float, seconds: float) -> httpx.Response:
            headers = signed(hub.keys[node], age)
            return client.post(
                f"https://{hub.address}/v1/fleet/push-object",
                content=slowly(seconds),
                headers=headers,
            )

        late = sent(counts - 3.0, 4.0)
        assert (late.status_code, late.headers.get("retry-after")) == (503, "5"), late.text
        assert any("longer than its signature counts" in line for line in hub.log_lines)
        assert not any("unknown key" in line for line in hub.log_lines)
        assert sent(0.0, 4.0).status_code not in (401, 503), "the same key, signed now"
        assert sent(counts + 1.0, 0.0).status_code == 401, "too old before its body came"
        part.node.node_id = node + 1
        assert sent(0.0, 0.0).status_code == 401, "the number of another participant"


def test_nobody_waits_while_the_list_of_participants_is_locked(
    make_federation: Any, tmp_path: Path
) -> None:
    """As while `tequio coordinator invite` changes it."""
    with opened(make_federation, tmp_path) as (hub, _), ThreadPoolExecutor(4) as pool:
        address = open_coordinator_folder(hub).address
        found = {
            name: read_invitation(hub / "invitations" / f"{name}.json")
            for name in ("site0", "site1")
        }

        def joins(name: str) -> int | str:
            one = found[name]
            return enrol(address, one.authority, name, one.token, public_bytes(new_key()).decode())

        with changing(hub):
            joining = [pool.submit(joins, name) for name in found]
            time.sleep(1.0)
            for _ in range(20):
                answer = httpx.get(f"https://{address}/nothing", verify=False, timeout=5.0)
                assert answer.status_code == 404
            assert not any(one.done() for one in joining)
            assert enrolled(hub) == {}
        assert [one.result(60) for one in joining] == [7, 7]
        assert enrolled(hub).keys() == found.keys()
