"""Joining: the first words of a participant to a coordinator, over TLS, to the certificate in the
invitation and no other.
"""

import ssl
from collections.abc import Mapping

import httpx

from tequio.core.errors import NetworkError
from tequio.core.texts.words import refusal
from tequio.runtimes.flower.proxies import proxy_advice
from tequio.runtimes.flower.versions import SPEAKS, difference, same_version

PATIENCE = 30.0  # seconds
OK, RESTING = (
    200,
    503,
)  # of health: all is well; it is there, but SuperLink behind it does not answer just now


def reach(address: str, authority: str) -> None:
    """Raises NetworkError if the coordinator does not answer, does not show the right certificate,
    or has another version.
    """
    status, found = _ask(address, authority, "GET", "/tequio/health", None)
    if status not in (OK, RESTING):
        raise refusal(NetworkError, "coordinator-unwell", address=address, status=status)
    if not same_version(found.get("speaks", "")):
        raise difference(found.get("speaks", ""), "coordinator")


def take_leave(address: str, authority: str, request: Mapping[str, str]) -> str:
    """Nothing if the coordinator let us go, else why it refused.

    Raises NetworkError if it does not answer.
    """
    status, found = _ask(address, authority, "POST", "/tequio/leave", request)
    return "" if status == OK else found.get("error", "")[:400] or f"no reason given ({status})."


def foreign(error: BaseException | None) -> str:
    """In what the other side's certificate is not the expected one, where that is why something
    failed; else nothing.
    """
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return ""


def not_ours(address: str, how: str) -> NetworkError:
    """What a foreign certificate means."""
    return refusal(NetworkError, "foreign-certificate", address=address, how=how.rstrip("."))


def enrol(address: str, authority: str, name: str, token: str, public_key: str) -> int | str:
    """Our number there, or why it refused.

    Raises NetworkError if it does not answer: it may have heard us then.
    """
    body = {"name": name, "token": token, "public_key": public_key, "speaks": SPEAKS}
    status, found = _ask(address, authority, "POST", "/tequio/join", body)
    if status != OK:
        return found.get("error", "")[:400] or f"no reason given ({status})."
    try:
        return int(found["node"])
    except (KeyError, ValueError):
        raise refusal(
            NetworkError, "not-tequio", address=address, next=proxy_advice(address)
        ) from None


def _ask(
    address: str, authority: str, method: str, path: str, body: Mapping[str, str] | None
) -> tuple[int, dict[str, str]]:
    """(status, what was answered)."""
    try:
        if (
            not authority.strip()
        ):  # with none at all, every authority that this machine knows would do
            raise ValueError
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise refusal(NetworkError, "invitation-certificate") from None
    try:
        answer = httpx.request(
            method, f"https://{address}{path}", json=body, verify=context, timeout=PATIENCE
        )
        found = answer.json()
    except (ssl.SSLError, httpx.HTTPError) as error:
        if how := foreign(error):
            raise not_ours(address, how) from None
        why = f"{type(error).__name__}: {str(error)[:120]}"
        raise refusal(
            NetworkError, "unreachable", address=address, error=why, next=proxy_advice(address)
        ) from None
    except httpx.InvalidURL:
        raise refusal(NetworkError, "address-unfit", address=address) from None
    except ImportError:  # a SOCKS proxy needs a package that is not there
        raise refusal(
            NetworkError, "socks-proxy", address=address, next=proxy_advice(address)
        ) from None
    except ValueError:
        raise refusal(
            NetworkError, "not-tequio", address=address, next=proxy_advice(address)
        ) from None
    return answer.status_code, {str(k): str(v) for k, v in found.items()} if isinstance(
        found, dict
    ) else {}
