"""The headers that may pass between a participant's request and SuperLink."""

from collections.abc import Mapping

from tequio.runtimes.flower.sessions import KEY

HEADERS = ("content-type", "accept", KEY, "flwr-signature", "flwr-timestamp")
VERSION = "flwr-"  # SuperLink's own headers that are not secrets of the inside
INSIDE = ("flwr-superexec", "flwr-task")


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that may pass the gateway, either way."""
    wanted = {k.lower(): v for k, v in headers.items()}
    return {
        k: v
        for k, v in wanted.items()
        if k in HEADERS or (k.startswith(VERSION) and not k.startswith(INSIDE))
    }
