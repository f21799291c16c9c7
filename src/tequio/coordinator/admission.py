"""Admission: an update is looked at before any arithmetic, and refused with a reason. An admitted one has its own type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tequio.algorithms.factors import parted, prefix
from tequio.coordinator.run_spec import Member, Plan
from tequio.core.errors import UpdateError
from tequio.core.protocols import Facts
from tequio.core.types import Reply, State
from tequio.core.update import Entry, Factored, Streamed, Update

NORM_LIMIT = 10.0  # times the median norm of the round before


@dataclass(frozen=True)
class Alarm:
    """What screening noted: whose update, which alarm (norm, cosine, loss), the figure (None: not measurable), its limit, what was done."""

    name: str
    alarm: str
    figure: float | None
    limit: float
    action: str  # clip | record | refuse


@dataclass(frozen=True)
class Admitted:
    """A reply whose update fits the plan: right names and shapes, allotted rank, finite, not absurdly long.

    norm: of the update as it came; `facts.norm` is that of `update`, which screening may have cut.
    """

    member: Member
    reply: Reply
    update: Update
    facts: Facts
    norm: float
    alarms: tuple[Alarm, ...] = ()


@dataclass(frozen=True)
class Refused:
    """A reply that stays out, and why."""

    member: Member
    reason: str
    failed: bool = False  # it could not do its task; otherwise its update was rejected
    withheld: bool = False  # it does not work: its own budget is spent
    alarms: tuple[Alarm, ...] = ()


def admit(reply: Reply, member: Member, plan: Plan, state: State) -> Admitted | Refused:
    """Check one reply to a training task."""
    try:
        return _looked_at(reply, member, plan, state)
    except UpdateError as error:
        return Refused(member, f"it cannot be decoded: {error}")


def _looked_at(reply: Reply, member: Member, plan: Plan, state: State) -> Admitted | Refused:
    """The checks, cheap ones first. One that is streamed is read here whole, entry by entry, before any of it is added up."""
    update = _opened(reply, member, plan)
    if update is None:
        return Refused(member, "the reply carries no update")
    if (reply.round, reply.index) != (state.round + 1, member.index):
        return Refused(member, f"it answers round {reply.round}, not round {state.round + 1}")
    if update.spec != plan.spec:
        return Refused(member, "it belongs to another base model or adapter layout")
    widest = 2 * member.rank if plan.start.continues else member.rank
    factored = plan.aggregator.layout == "product" and not plan.full
    problem = _misfit(update, _expected(plan, state, member.rank), widest, factored)
    if problem:
        return Refused(member, problem)
    norm = update.norm()
    if not math.isfinite(norm) or norm == 0.0:
        return Refused(member, f"its norm is {norm}")
    reference = plan.expected_norm(state)
    if reference and norm > NORM_LIMIT * reference:
        times = norm / reference
        return Refused(member, f"its norm is {times:.1f} times what the round before expects (limit {NORM_LIMIT:g})")
    if reply.examples < 1 or reply.steps < 1:
        return Refused(member, "it says that it saw no example or made no step")
    facts = Facts(reply.examples, reply.steps, norm, _excess(state, member.name))
    return Admitted(member, reply, update, facts, norm)


def _opened(reply: Reply, member: Member, plan: Plan) -> Update | None:
    """The update of a reply, decoded where it came as bytes: at most twice the allotted ranks, whatever the bytes promise."""
    if reply.parts is not None and plan.full:
        return _streamed(reply.parts, member, plan)
    if reply.payload is None:
        return reply.update
    matrices = sum(2 * member.rank * (m + n) for m, n in plan.shapes.values())
    limit = 8 * (matrices + sum(math.prod(s) for s in plan.head_shapes.values())) + 65536
    return plan.upload.codec().decode(reply.payload, f"the update of {member.name}", limit)


def _streamed(parts: Sequence[bytes], member: Member, plan: Plan) -> Update:
    """An update whose entries are decoded as they are looked at, each from its own message. Raises UpdateError, then or now."""
    shapes = {**plan.shapes, **plan.head_shapes}
    names = sorted(shapes)
    if len(parts) != len(names):
        raise UpdateError(f"It has {len(parts)} parts,", f"expected one for each of {len(names)} entries.")
    codec, place = plan.upload.codec(), {name: number for number, name in enumerate(names)}

    def read(name: str) -> Entry:
        limit = 8 * math.prod(shapes[name]) + 65536
        got = codec.decode(parts[place[name]], f"the update of {member.name}, entry {name}", limit)
        if got.spec != plan.spec or list(got.entries) != [name]:
            raise UpdateError(f"Part {place[name]} is not entry {name} of this base and layout.")
        return got.entries[name]

    return Update(Streamed(names, read), plan.spec)


def _excess(state: State, name: str) -> float:
    """Validation loss of the shared model over the base's, at this participant; 0 (not known) unless both are positive numbers."""
    loss, base = state.losses.get(name, 0.0), state.base_losses.get(name, 0.0)
    known = loss > 0.0 and base > 0.0 and math.isfinite(loss / base)
    return loss / base if known else 0.0


def _expected(plan: Plan, state: State, rank: int) -> Mapping[str, tuple[int, ...]]:
    if plan.aggregator.layout == "product":
        return {**plan.shapes, **plan.head_shapes}
    sent, _ = parted(prefix(state.shared, rank), plan.trained(state))
    return {**{n: tuple(e.shape) for n, e in sent.entries.items()}, **plan.head_shapes}


def _misfit(update: Update, expected: Mapping[str, tuple[int, ...]], rank: int, factored: bool) -> str:
    unknown = sorted(update.entries.keys() - expected.keys())
    missing = sorted(expected.keys() - update.entries.keys())
    if unknown or missing:
        return f"its entries differ from the layout (unknown: {unknown[:3]}, missing: {missing[:3]})"
    for name, entry in update.entries.items():
        if tuple(entry.shape) != expected[name]:
            return f"entry {name} has shape {tuple(entry.shape)}, expected {expected[name]}"
        if isinstance(entry, Factored) and entry.rank > rank:
            return f"entry {name} has rank {entry.rank}, at most {rank} may come"
        if isinstance(entry, Factored) is not (factored and name not in expected_heads(expected)):
            return f"entry {name} is not in the form that the layout asks for"
        if not Update({name: entry}).is_finite():
            return "it holds NaN or infinite numbers"
    return ""


def expected_heads(expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Names of head entries, which are always dense."""
    return {name for name in expected if name.startswith("head.")}
