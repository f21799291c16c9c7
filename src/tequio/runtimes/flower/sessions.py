"""Who is at the gateway: whose nodes are connected, which process works for which key, and how all
are told that it is over.
"""

import time
from dataclasses import dataclass, field
from threading import Event

from starlette.requests import Request

from tequio.runtimes.flower.long_poll import LongPoll

KEY = "flwr-public-key"
AWAY, DISMISSAL = 30.0, 5.0  # seconds after which one is away, and in which all are told
MOST = 10_000  # connected at most
MANY = 64  # former processes of a key that are remembered


class Sessions:
    """Whose nodes are connected (by their keys), and how they are told that it is over."""

    def __init__(self, long_poll: LongPoll) -> None:
        self._over, self._here, self._long_poll = Event(), dict[str, float](), long_poll

    def dismiss(self) -> None:
        """Tell everybody, as they ask for work, that there will be none; at most FAREWELL
        seconds.
        """
        self._over.set()
        self._long_poll.everybody()
        end = time.monotonic() + DISMISSAL
        while (
            any(seen > time.monotonic() - AWAY for seen in list(self._here.values()))
            and time.monotonic() < end
        ):
            time.sleep(0.05)

    def dismissed(self, request: Request) -> bool:
        """Note a request; whether its answer is that it is over."""
        key, what = request.headers.get(KEY, ""), request.url.path.rpartition("/")[2]
        dismissed = self._over.is_set() and what == "pull-messages"
        if dismissed or what == "deactivate-node":
            self._here.pop(key, None)
        elif what == "pull-messages" and len(self._here) < MOST:
            self._here[key] = time.monotonic()
        return dismissed


@dataclass
class Connections:
    """Which process works for which key: the one that came last.

    Those before it are told that their place is taken.
    """

    now: dict[str, str] = field(default_factory=dict)
    sending: set[str] = field(default_factory=set)  # keys whose answers are on their way in parts
    former: dict[str, list[str]] = field(default_factory=dict)

    def free(self, key: str, session: str, path: str) -> bool:
        """Whether this process may ask: it is the one that works, or it comes to take the place and
        did not have it before.
        """
        if session in self.former.get(key, ()):
            return False
        coming = path.endswith(("/activate-node", "/deactivate-node"))
        return coming or self.now.get(key, session) == session

    def taken(self, key: str, session: str) -> None:
        """This process came, and SuperLink knows its key."""
        before = self.now.get(key)
        if session in self.former.get(key, ()):
            return  # a question that was under way when its place was taken
        if before is not None and before != session:
            self.former[key] = [*self.former.get(key, ()), before][-MANY:]
        self.now[key] = session
