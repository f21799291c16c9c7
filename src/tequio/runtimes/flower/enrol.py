"""Joining: the first words of a participant to a coordinator, over TLS, to the certificate in the invitation and no other."""

from __future__ import annotations

import ssl

import httpx

from tequio.core.errors import NetworkError

PATIENCE = 30.0  # seconds


def reach(address: str, authority: str) -> None:
    """Raises NetworkError if the coordinator does not answer, or does not show the right certificate."""
    _ask(address, authority, "GET", "/tequio/health", None)


def enrol(address: str, authority: str, name: str, token: str, public_key: str) -> int:
    """Our number there. Raises NetworkError if it refuses."""
    body = {"name": name, "token": token, "public_key": public_key}
    try:
        return int(_ask(address, authority, "POST", "/tequio/join", body)["node"])
    except (KeyError, ValueError):
        raise NetworkError(
            f"{address} answered something else than a number.", "", "Is it a Tequio coordinator?"
        ) from None


def _ask(address: str, authority: str, method: str, path: str, body: dict[str, str] | None) -> dict[str, str]:
    try:
        context = ssl.create_default_context(cadata=authority)
        answer = httpx.request(method, f"https://{address}{path}", json=body, verify=context, timeout=PATIENCE)
        found = answer.json()
    except (ssl.SSLError, httpx.HTTPError) as error:
        why = f"({type(error).__name__}: {str(error)[:120]})"
        fix = "Is it started, and is the address right? A wrong certificate may be somebody else's machine."
        raise NetworkError(f"{address} cannot be reached as the invitation says {why}.", "", fix) from None
    except ValueError:
        raise NetworkError(
            f"{address} answered something else than expected.", "", "Is it a Tequio coordinator?"
        ) from None
    if answer.status_code != 200 or not isinstance(found, dict):
        said = str(found.get("error", "")) if isinstance(found, dict) else ""
        raise NetworkError(f"{address} refused ({answer.status_code}):", said[:400] or "no reason given.")
    return {str(k): str(v) for k, v in found.items()}
