"""A participant's word that it leaves: signed with its key, over its name, its number and the time,
so that nobody else can say it.
"""

import time

from tequio.core.canonical import canonical_json
from tequio.trust.keys import PrivateKey, is_signed, sign

FRESH = 60.0  # seconds for which such a word counts, either way: clocks differ
KEYS = ("name", "node", "time", "signature")


def leave_request(key: PrivateKey, name: str, node: str) -> dict[str, str]:
    """The request."""
    now = f"{time.time():.3f}"
    return {
        "name": name,
        "node": node,
        "time": now,
        "signature": sign(key, _bytes(name, node, now)),
    }


def is_leave_request(public: bytes, wanted: dict[str, str]) -> bool:
    """Whether the owner of this public key (PEM) said so within the last minute."""
    try:
        fresh = abs(time.time() - float(wanted["time"])) <= FRESH  # never true of NaN
    except ValueError:
        return False
    return fresh and is_signed(
        public, _bytes(wanted["name"], wanted["node"], wanted["time"]), wanted["signature"]
    )


def _bytes(name: str, node: str, at: str) -> bytes:
    return canonical_json({"what": "tequio-leave-1", "name": name, "node": node, "time": at})
