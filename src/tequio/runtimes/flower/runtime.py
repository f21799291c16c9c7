"""The coordinator's runtime over a network: tasks out as messages, replies in one by one as they
arrive, until all came or time is up.

Errors are data: who is away, late or answers nonsense is a Failure of this exchange, and the round
goes on without it. Nothing is lost
silently: a reply after the deadline is looked for until it expires, and told as late. Whose
    connection is lost has a while to come back;
who connects anew is sent its task again: a process that had done it answers from memory, a new one
    does it anew, with the same result.
So is a participant that asks for work while its answer is awaited: its task or its answer was lost.
Nothing depends on one message. The centre (index 0) trains in the coordinator's own process.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app.message import Message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest
from flwr.superlink.grid import HttpGrid

from tequio.core.errors import MessageError, NetworkError, ResourceError, UpdateError
from tequio.core.messages import LIMIT, kind_of, pack_message
from tequio.core.reason import Reason
from tequio.core.replies import read_reply, refused_reply, reply_limit
from tequio.core.texts.words import ENGLISH, refusal, sent_reason
from tequio.core.types import Failure, Reply, Request
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.envelope import (
    Envelope,
    find_part,
    list_parts,
    open_message,
    read_letter,
    seal,
)
from tequio.runtimes.flower.grid import CoordinatorGrid, Moved
from tequio.runtimes.flower.long_poll import LongPoll
from tequio.runtimes.flower.traffic import Traffic

LOOK = 2.0  # seconds between two looks at everybody, while the long poll tells of no answer
PART = (
    0.1,
    60.0,
    # seconds between two looks for a part of an answer, and for which all of its parts are waited
    # for
)
BACK = 30.0  # seconds in which who was lost may come back, before the others go on without it
AGAIN = (2.0, 8.0)  # seconds between two sendings of a task that was lost: at first, and later
LOST = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
)
GRACE = 60.0  # seconds that a task lives beyond twice the deadline


@dataclass(frozen=True)
class SentRequest:
    """A task on its way: the message's id and run, when it was sent (seconds, monotonic), and the
    participant's connection then.

    lost: when its connection was lost (seconds, monotonic); None while it is there. letter: its
        answer, of which parts may be on the way.
    newest: when it was sent last (seconds, monotonic); again: how often it was sent again.
    """

    message: str
    run: int
    task: Request
    at: float
    connection: str
    lost: float | None = None
    letter: Message | None = None
    newest: float = 0.0
    again: int = 0

    def away(self, now: float) -> float:
        """Seconds since the connection was lost; 0 while it is there."""
        return 0.0 if self.lost is None else now - self.lost


@dataclass(frozen=True)
class Awaited:
    """A participant that the coordinator waits for, the kind of its task (empty: it is to connect),
    and for how many seconds.

    again: how often the task was sent again.
    """

    name: str
    kind: str
    seconds: float
    again: int


@dataclass
class FlowerRuntime:
    """Participants elsewhere: node number by index. `here` are those in this process;

    `deadline` in seconds for one exchange.

    folder: where very large answers lie while they are read.
    A task that is not answered in time is `pending`: its participant is asked nothing until it
    answers or twice the deadline is over. With windows a task is `flying` until it is answered, or
    the deadline is over.
    """

    place: CoordinatorGrid
    nodes: Mapping[int, int]
    here: Embedded
    deadline: float
    long_poll: LongPoll
    traffic: Traffic
    folder: Path | None = None
    limit: int = LIMIT
    back: float = BACK
    pending: dict[int, SentRequest] = field(default_factory=dict)
    flying: dict[int, SentRequest] = field(default_factory=dict)
    asked: dict[int, str] = field(default_factory=dict)  # index -> name
    late: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[int, SentRequest] = field(
        default_factory=dict
    )  # tasks of the exchange that goes on
    absent: dict[str, float] = field(
        default_factory=dict
    )  # name -> since when it is waited for to connect

    def connections(self) -> dict[int, str]:
        """Of every participant that is connected now, by index: since when (as the server
        writes it).
        """
        online = {
            node.node_id: str(node.last_activated_at)
            for node in self.place.ask_again(HttpGrid.get_nodes)
        }
        return {index: online[node] for index, node in self.nodes.items() if node in online}

    def exchange(
        self, tasks: Iterable[Request], within: float | None = None
    ) -> Iterator[Reply | Failure]:
        """One Reply or Failure a task, in order of arrival; first those of this process, while the
        others work.

        within: seconds, where it is less than the deadline.
        """
        limit = min(self.deadline, within or self.deadline)
        end, waiting = time.monotonic() + limit, dict[int, SentRequest]()
        self.waiting = waiting
        try:
            yield from self._hand_out(tasks, waiting)
            yield from self.arrivals(waiting, end, ordered=True)
        finally:
            self.waiting = {}
        for index, sent in waiting.items():
            if self._whole(sent):
                yield self.answer(sent)
                continue
            if sent.lost is None:
                self.pending[index] = sent
            yield _failure(sent.task, Reason("late-reply", {"seconds": limit}))

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        """Hand out tasks; what comes within `seconds`, to these or to earlier ones.

        It ends sooner where nothing is left to come.
        """
        end = time.monotonic() + seconds
        yield from self._hand_out(tasks, self.flying)
        yield from self.arrivals(self.flying, end)
        for index, sent in list(self.flying.items()):
            if time.monotonic() - sent.at > self.deadline:
                self.pending[index] = self.flying.pop(index)
                yield _failure(sent.task, Reason("late-reply", {"seconds": self.deadline}))

    def working(self) -> set[int]:
        """Who has a task of a window and has not answered."""
        return set(self.flying)

    def awaited(self) -> list[Awaited]:
        """Return whom the coordinator waits for now; another thread may ask."""
        now = time.monotonic()
        sent = [*self.waiting.copy().values(), *self.flying.copy().values()]
        rows = [Awaited(one.task.name, kind_of(one.task), now - one.at, one.again) for one in sent]
        return rows + [
            Awaited(name, "", now - since, 0) for name, since in self.absent.copy().items()
        ]

    def expect(self, names: Iterable[str]) -> None:
        """Note who is waited for to connect; nobody any more where there are no names."""
        now = time.monotonic()
        self.absent = {name: self.absent.get(name, now) for name in names}

    def _hand_out(
        self, tasks: Iterable[Request], waiting: dict[int, SentRequest]
    ) -> Iterator[Reply | Failure]:
        """Send each task and note it in `waiting`; yield who cannot be asked, and the replies of
        this process.
        """
        self.settle()
        local: list[Request] = []
        away: list[Failure] = []
        connected, busy = self.connections(), {**self.pending, **self.flying}
        for task in tasks:
            if task.index in self.here.participants:
                local.append(task)
            elif task.index in busy:
                away.append(
                    _failure(task, Reason("still-at-work", {"round": busy[task.index].task.round}))
                )
            elif task.index not in connected:
                away.append(_failure(task, Reason("not-connected")))
            else:
                waiting[task.index] = self.send(task, connected[task.index])
        yield from away
        yield from self.here.exchange(local)

    def arrivals(
        self, waiting: dict[int, SentRequest], end: float, ordered: bool = False
    ) -> Iterator[Reply | Failure]:
        """What comes until `end` (seconds, monotonic); who answered is taken out of `waiting`.

        ordered: large answers in the order of `waiting`, so that who folds in that order need not
            keep them: they wait at the server.
        """
        due, checked = set[int](), time.monotonic()
        while waiting:
            for index, sent in list(
                waiting.items()
            ):  # one by one: only one reply is held at a time
                if sent.lost is not None or (index not in due and sent.letter is None):
                    continue
                sent = waiting[index] = self._check_connection(sent)
                first = not ordered or index == next(iter(waiting))
                if self._whole(sent) and (first or not list_parts(sent.letter)):
                    del waiting[index]
                    yield self.answer(sent)
            for index in [
                i for i, sent in waiting.items() if sent.away(time.monotonic()) > self.back
            ]:
                yield _failure(waiting.pop(index).task, Reason("connection-lost"))
            left = end - time.monotonic()
            if not waiting or left <= 0.0:
                return
            rung = self.long_poll.answers(min(left, LOOK))
            due = {index for index in waiting if self.nodes[index] in rung}
            if time.monotonic() - checked > LOOK:
                self._again(waiting)
                due, checked = set(waiting), time.monotonic()  # nobody rings for who was killed

    def settle(self) -> None:
        """Look for replies to tasks of exchanges that are over: they are told as late, and their
        participants are free again.
        """
        connected = self.connections() if self.pending else {}
        for index, sent in list(self.pending.items()):
            idle = self._holds_nothing(
                index
            )  # before the look for its answer, which it sends first
            sent = self.pending[index] = self._check_connection(sent)
            whole, there = (
                self._whole(sent),
                connected.get(index, sent.connection) == sent.connection,
            )
            if not whole and there and sent.lost is None and not idle:
                continue  # still at work, as far as anybody knows
            del self.pending[index]
            after = time.monotonic() - sent.at
            row = {
                "name": sent.task.name,
                "sent": sent.task.round,
                "task": type(sent.task).__name__,
            }
            reason = Reason("round-over" if whole else "task-lost" if there else "asked-again")
            found = self.answer(sent) if whole else None
            if sent.lost is not None:
                found = _failure(sent.task, Reason("connection-lost"))
            if isinstance(found, Failure):
                reason = sent_reason(found.message, found.error)
            self.late.append(
                row
                | {"late_seconds": max(0.0, after - self.deadline), "reason": reason.as_record()}
            )

    def carried(self) -> dict[str, Any]:
        """Bytes that went to and from each participant, and late replies; both since this was last
        asked.
        """
        self.settle()
        wire = {
            name: self.traffic.take(self.nodes[index]) for index, name in sorted(self.asked.items())
        }
        late, self.late = self.late, []
        return {"wire": wire} | ({"late": late} if late else {})

    def send(self, task: Request, connection: str) -> SentRequest:
        """Hand a task to the server."""
        data, node, life = pack_message(task), self.nodes[task.index], 2.0 * self.deadline + GRACE

        def hand(grid: HttpGrid) -> Envelope:
            letter = seal(data, grid.run.run_id, grid.node.node_id, node, str(task.round), life)
            post(grid, letter)
            return letter

        letter = self.place.ask_again(hand)
        self.long_poll.task(node)
        self.asked[task.index] = task.name
        now = time.monotonic()
        return SentRequest(letter.identity, self.place.run, task, now, connection, newest=now)

    def _again(self, waiting: dict[int, SentRequest]) -> None:
        """Send a task again to a participant that connected anew, or that holds no task although it
        was sent one.

        The server delivers a message once, and the participant may have been killed or cut off as
        it came.
        """
        connected = self.connections()
        for index, sent in waiting.items():
            if index not in connected:
                continue
            if connected[index] == sent.connection:
                waiting[index] = sent = self._check_loss(index, sent)
                if sent.lost is None or _pauses(sent):
                    continue
            sending = self.send(sent.task, connected[index])
            waiting[index] = replace(sending, at=sent.at, again=sent.again + 1)

    def _check_loss(self, index: int, sent: SentRequest) -> SentRequest:
        """Return it with its answer, or as lost where its participant asks for work and no answer
        is there.
        """
        known = sent.letter is not None or sent.lost is not None
        if known or _pauses(sent) or not self._holds_nothing(index):
            return sent
        found = self._check_connection(
            sent
        )  # a participant asks for work only after the whole answer has arrived
        return (
            found
            if found.letter is not None
            else replace(found, lost=found.lost or time.monotonic())
        )

    def _holds_nothing(self, index: int) -> bool:
        return index in self.nodes and self.long_poll.holds_nothing(self.nodes[index])

    def _check_connection(self, sent: SentRequest) -> SentRequest:
        """With its answer, or that its participant is not connected any more, where the server says
        so.
        """
        if sent.letter is not None and not list_parts(sent.letter):
            return sent
        if sent.run != self.place.run:
            return replace(sent, letter=None, lost=sent.lost or time.monotonic())
        if sent.letter is not None:
            return sent
        asked = PullAppMessagesRequest(message_ids=[sent.message])
        try:
            found = self.place.ask(
                lambda grid: grid._runtime_client.PullMessages(asked)
            ).messages_list
        except Moved:
            return replace(sent, lost=time.monotonic())
        letter = read_letter(found[0]) if found else None
        if letter is not None and letter.has_error() and letter.error.code in LOST:
            return replace(sent, lost=time.monotonic())
        return replace(sent, letter=letter)

    def _whole(self, sent: SentRequest) -> bool:
        """Whether the answer is there, its last part too."""
        parts = [] if sent.letter is None else list_parts(sent.letter)
        return sent.letter is not None and (not parts or self._content(parts[-1]) is not None)

    def answer(self, sent: SentRequest) -> Reply | Failure:
        """What a participant answered; its parts are brought, and the server may forget them."""
        assert sent.letter is not None
        found = self.read(sent.letter, sent.task)
        if list_parts(sent.letter):
            asked, identity = ConfirmMessageReceivedRequest, sent.letter.metadata.message_id
            with suppress(Moved):
                self.place.ask(
                    lambda grid: grid._runtime_client.ConfirmMessageReceived(
                        asked(node=grid.node, run_id=sent.run, message_object_id=identity)
                    )
                )
        return found

    def _content(self, identity: str) -> bytes | None:
        """A part; None while it is on its way, empty if it is nowhere."""
        try:
            found = self.place.ask(
                lambda grid: grid._runtime_client.PullObject(
                    PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=identity)
                )
            )
        except Moved:
            return None
        if not found.object_found:
            return b""
        return bytes(found.object_content) if found.object_available else None

    def _part(self, identity: str, end: float) -> bytes:
        """A part, waited for until `end` (seconds, monotonic).

        Raises UpdateError if it does not come.
        """
        while (content := self._content(identity)) is None and time.monotonic() < end:
            time.sleep(PART[0])
        if not content:
            raise refusal(UpdateError, "part-gone")
        return find_part(content, identity)

    def read(self, message: Message, task: Request) -> Reply | Failure:
        """The reply in a message, of the participant that was asked and for the round that was
        asked.
        """
        if message.has_error():
            return _failure(task, Reason("connection-lost"))
        limit, end = reply_limit(task, self.limit), time.monotonic() + PART[1]
        try:
            data, _ = open_message(
                message, limit, lambda identity: self._part(identity, end), self.folder
            )
        except MessageError as error:
            return refused_reply(task, error.as_reason().after(str(error)))
        except (
            UpdateError,
            ResourceError,
        ) as error:  # a part did not come, or there is no room for what it sends
            return Failure.of(task, NetworkError(str(error)), error.reason)
        return read_reply(data, task, limit)


def post(grid: HttpGrid, letter: Envelope) -> None:
    """Hand in a message, and the parts of it that the server misses."""
    server = grid._runtime_client
    taken = server.PushMessages(
        PushAppMessagesRequest(messages_list=[letter.proto()], message_object_trees=[letter.tree])
    )
    for identity, content in letter.wanted(list(taken.objects_to_push)):
        part = PushObjectRequest(
            node=grid.node, run_id=grid.run.run_id, session_id=taken.session_id
        )
        part.object_id, part.object_content = identity, content
        server.PushObject(part)


def _pauses(sent: SentRequest) -> bool:
    """Whether it was sent too recently to be sent again over the same connection."""
    return time.monotonic() - sent.newest < min(AGAIN[0] * 2.0**sent.again, AGAIN[1])


def _failure(task: Request, why: Reason) -> Failure:
    return Failure.of(task, NetworkError(ENGLISH.reason(why)), why)
