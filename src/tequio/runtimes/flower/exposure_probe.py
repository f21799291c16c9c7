"""What a stranger without a key can reach of a coordinator: each path of Flower's APIs and of ours,
plain HTTP, old TLS.

The certificate is not checked while asking (whether it is right is a question of its own,
`handshake`); what is sent is invented.
"""

import secrets
import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from tequio.core.errors import NetworkError
from tequio.runtimes.flower.client import Session
from tequio.runtimes.flower.gateway import PATHS
from tequio.runtimes.flower.intake import SMALL
from tequio.runtimes.flower.versions import SPEAKS
from tequio.trust.keys import new_key, public_bytes

PATIENCE = 20.0  # seconds for one question
HIDDEN = (
    "/",
    "/docs",
    "/openapi.json",
    "/health",
    "/metrics",
    "/flwr.proto.Control/StartRun",
    "/tequio/status",
)
LOCAL = (
    "NO_PROTOCOLS_AVAILABLE",
    "UNSUPPORTED_PROTOCOL",
    "NO_CIPHERS_AVAILABLE",
)  # this machine cannot even ask
NOT_FOUND = 404


def handshake(host: str, port: int, authority: str | None) -> bytes:
    """The certificate that is shown, DER; checked against `authority` (PEM) and the host's name,
    None: not checked.

    Raises OSError, and of its kind ssl.SSLError.
    """
    with socket.create_connection((host, port), PATIENCE) as raw:
        context = _open() if authority is None else ssl.create_default_context(cadata=authority)
        with context.wrap_socket(raw, server_hostname=host) as secured:
            return secured.getpeercert(binary_form=True) or b""


def old_tls(host: str, port: int) -> bool | None:
    """Whether a version below 1.2 is accepted; None where this machine cannot ask."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = _open()
        context.minimum_version, context.maximum_version = (
            ssl.TLSVersion.TLSv1,
            ssl.TLSVersion.TLSv1_1,
        )
        context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with (
            socket.create_connection((host, port), PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        return None if error.reason in LOCAL else False
    except OSError:
        return False


def plain_http(host: str, port: int) -> int | None:
    """The status of an answer to plain HTTP; None where there is none."""
    try:
        with socket.create_connection((host, port), PATIENCE) as raw:
            raw.sendall(
                f"GET /tequio/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
            )
            said = raw.recv(64)
    except OSError:
        return None
    words = said.split()
    return (
        int(words[1])
        if said.startswith(b"HTTP/") and len(words) > 1 and words[1].isdigit()
        else None
    )


def open_paths(address: str) -> Iterator[tuple[str, int, bool]]:
    """(method and path, status of the answer, is it refused as it must be) for everything that is
    not ours to offer to strangers.

    The fleet's paths that participants need refuse who has no key; all others are not there. No
    answer is status 0.
    """
    wanted: dict[tuple[str, str], bool] = {
        (method, path): path in PATHS for method, path in PROTOBUF_REQUEST_TYPES
    }
    wanted |= {("GET", path): False for path in HIDDEN}
    with httpx.Client(base_url=f"https://{address}", verify=_open(), timeout=PATIENCE) as client:
        for (method, path), needed in wanted.items():
            status = _ask(
                client, method, path, content=b"", headers={"content-type": PROTOBUF_MEDIA_TYPE}
            )
            yield f"{method} {path}", status, 400 <= status < 500 if needed else status == NOT_FOUND


def joining(address: str) -> Iterator[tuple[str, int, bool]]:
    """The same for wrong requests to join, and for a key that nobody knows."""
    invented = {
        "name": "stranger",
        "token": secrets.token_urlsafe(32),
        "public_key": public_bytes(new_key()).decode(),
    }
    invented |= {"speaks": SPEAKS}
    requests: Mapping[str, dict[str, Any]] = {
        "an empty request to join": {"content": b""},
        "an invented token": {"json": invented},
        "a request to join that is too long": {"content": b"x" * (SMALL + 1)},
    }
    with httpx.Client(base_url=f"https://{address}", verify=_open(), timeout=PATIENCE) as client:
        for words, request in requests.items():
            status = _ask(client, "POST", "/tequio/join", **request)
            yield words, status, 400 <= status < 500


def unknown_key(address: str, authority: bytes) -> int | None:
    """The status that a participant's request with a new key gets.

    None: no answer, or another certificate.
    """
    key = new_key()
    sign = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
        Session(secrets.token_hex(16), address),
    ]
    try:
        with FleetHttpClient.from_server_address(address, False, authority, sign) as client:
            client.ActivateNode(
                ActivateNodeRequest(public_key=public_bytes(key), heartbeat_interval=10)
            )
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    except (httpx.HTTPError, NetworkError, OSError):
        return None
    return 200


def health(address: str) -> dict[str, Any] | None:
    """What the coordinator says of itself to everybody; None where that is no JSON."""
    try:
        with httpx.Client(
            base_url=f"https://{address}", verify=_open(), timeout=PATIENCE
        ) as client:
            return dict(client.get("/tequio/health").json())
    except (httpx.HTTPError, ValueError, TypeError):
        return None


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> int:
    try:
        return client.request(method, path, **options).status_code
    except httpx.HTTPError:
        return 0


def _open() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
