"""The run of rounds: each is committed to the ledger, state and record in one transaction, before
the next begins.

The loop is the same for a star (here), several groups (`multi_base.py`) and peers
(`gossip_loop.py`): each is a `Rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

from tequio.coordinator.buffered import run_window
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import ShortRound, open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.types import Energy, State
from tequio.measure.energy import Meter

S = TypeVar("S")
S_in = TypeVar("S_in", contravariant=True)
Replan = Callable[[RunSpec, str], RunSpec]
"""What becomes of the plan of a base, by its name."""


class Record(Protocol):
    """What this module needs of the ledger."""

    def append(self, kind: str, body: dict[str, Any], state: bytes | None = None) -> Any:
        """Commit one record, and the checkpoint with it, in one transaction."""

    def checkpoint(self) -> tuple[Any, bytes] | None:
        """The last checkpoint."""


class Host(Protocol):
    """Who knows the participants where they come and go: across a network."""

    def admit_newcomers(self, run_spec: RunSpec, round_: int, base: str) -> RunSpec:
        """The plan of one base with those who came since; asked before each round."""

    def on_short_round(self, short: ShortRound) -> None:
        """Wait until it is worth another try. Raises `short` or NetworkError where it is not."""

    def traffic(self) -> dict[str, Any]:
        """For the record: what went over the network since it was last asked, and what came
        late.
        """


class Made(Protocol):
    """What a state of any kind tells of its rounds."""

    @property
    def round(self) -> int:
        """How many are made."""

    @property
    def stale_rounds(self) -> int:
        """How many there were since the last progress."""


class Limits(Protocol[S_in]):
    """What bounds the rounds of a run with one base: a budget, hours of clean power
    (`limits.py`).
    """

    def open(self, run_spec: RunSpec) -> RunSpec:
        """The plan with which the base is evaluated."""

    def permit(self, state: S_in, run_spec: RunSpec) -> RunSpec | dict[str, Any]:
        """The plan of the next round; or, for the record, why none may begin."""

    def count(self, body: dict[str, Any], energy: Energy) -> dict[str, Any]:
        """Count what was just made, or waited for; its record with its cost."""


@dataclass(frozen=True)
class Rounds(Generic[S]):
    """What is run round by round, from a state of its own kind to the next.

    run_specs: the plan of each base, that of [base] first; replanned: the same with other plans.
        begin: the state before any training, and
    the record of the base's scores. advance: the state after one more round, and its record; raises
    ShortRound. ended: whether no round is left to make; made: how many are. pack, unpack: the state
    as a checkpoint and back; equal states give equal bytes.
    """

    run_specs: tuple[RunSpec, ...]
    replanned: Callable[[Replan], Rounds[S]]
    begin: Callable[[], tuple[S, dict[str, Any]]]
    advance: Callable[[S], tuple[S, dict[str, Any]]]
    ended: Callable[[S], bool]
    made: Callable[[S], int]
    pack: Callable[[S], bytes]
    unpack: Callable[[bytes, str], S]


class Advance(Protocol):
    """One round of a star: `run_round`, `run_window` or such."""

    def __call__(
        self, state: State, run_spec: RunSpec, runtime: Runtime, /
    ) -> tuple[State, dict[str, Any]]:
        """The next state and the record."""


def finished(state: Made, run_spec: RunSpec) -> bool:
    """Whether a state has all rounds behind it, or no more patience."""
    return state.round >= run_spec.rounds or state.stale_rounds >= run_spec.patience


def star(
    run_spec: RunSpec, runtime: Runtime, way: Advance | None = None, base: str = ""
) -> Rounds[State]:
    """Return the rounds of one coordinator and its participants.

    way: how one round is made, where it is not as the plan says. base: its name, for a host.
    """
    one = way or (run_round if run_spec.window_seconds is None else run_window)
    return Rounds(
        run_specs=(run_spec,),
        replanned=lambda change: star(change(run_spec, base), runtime, way, base),
        begin=lambda: open_state(run_spec, runtime),
        advance=lambda state: one(state, run_spec, runtime),
        ended=lambda state: finished(state, run_spec),
        made=lambda state: state.round,
        pack=pack_state,
        unpack=unpack_state,
    )


def federate(
    rounds: Rounds[S],
    ledger: Record,
    meter: Meter,
    host: Host | None = None,
    limits: Limits[S] | None = None,
) -> Iterator[tuple[S, dict[str, Any] | None]]:
    """Yield the state after every committed round (None as record for the one resumed from), until
    rounds or patience end.

    The rounds end, with a record of it, where `limits` permit none, or participants' own budgets
    leave too few of them. With a host, a round with too few usable replies is recorded as a wait
    and tried again; without one it ends the run.
    """
    saved = ledger.checkpoint()
    if saved is None:
        if limits is not None:
            rounds = rounds.replanned(lambda spec, _: limits.open(spec))
        with meter.at(rounds.run_specs[0].after).measure() as reading:
            state, body = rounds.begin()
        ledger.append(
            "start", _counted(body, reading.energy, limits) | _carried(host), rounds.pack(state)
        )
    else:
        state = rounds.unpack(saved[1], "the checkpoint in the ledger")
    yield state, None
    while not rounds.ended(state):
        made = rounds.made(state)
        if host is not None:
            rounds = _with_newcomers(rounds, host, made + 1)
        if limits is not None:
            permitted = limits.permit(state, rounds.run_specs[0])
            if isinstance(permitted, dict):
                ledger.append("budget", {"round": made} | permitted)
                return
            rounds = _planned(rounds, permitted)
        short: ShortRound | None = None
        with meter.measure() as reading:
            try:
                state, body = rounds.advance(state)
            except ShortRound as found:
                short, body = found, found.body
        body = _counted(body, reading.energy, limits) | _carried(host)
        if short is None:
            ledger.append("round", body, rounds.pack(state))
            yield state, body
            continue
        over = next((why for spec in rounds.run_specs if (why := all_spent(short, spec))), None)
        if host is None and not over:
            raise short
        ledger.append("wait", body)
        if over:
            ledger.append("budget", {"round": made, "reason": over.as_record(), "spent": {}})
            return
        if host is not None:
            host.on_short_round(short)


def _with_newcomers(rounds: Rounds[S], host: Host, round_: int) -> Rounds[S]:
    return rounds.replanned(lambda run_spec, base: host.admit_newcomers(run_spec, round_, base))


def _planned(rounds: Rounds[S], run_spec: RunSpec) -> Rounds[S]:
    return rounds.replanned(lambda _, __: run_spec)


def _counted(body: dict[str, Any], energy: Energy, limits: Limits[S] | None) -> dict[str, Any]:
    return body | cost(energy) if limits is None else limits.count(body, energy)


def all_spent(short: ShortRound, run_spec: RunSpec) -> Reason | None:
    """Why no round can be made any more, where so many participants' own budgets are spent;
    else None.
    """
    names = {member.name for member in run_spec.members}
    withheld = {
        row["name"] for row in short.body["admissions"] if row["status"] == "withheld"
    } & names
    if (
        run_spec.cohort is not None
        or not withheld
        or len(names) - len(withheld) >= max(1, run_spec.quorum)
    ):
        return None
    return Reason("own-budgets-spent", {"count": len(withheld), "participants": len(names)})


def _carried(host: Host | None) -> dict[str, Any]:
    return {} if host is None else host.traffic()


def cost(energy: Energy) -> dict[str, Any]:
    """Energy and time of a round: training, evaluation and the coordinator together."""
    return {"energy": asdict(energy), "seconds": energy.seconds}
