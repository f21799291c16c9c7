"""Admission: an update is looked at before any arithmetic, and refused with a reason.

An admitted one has its own type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tequio.algorithms.factors import parted, prefix
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.bounds import cut_text, one_line
from tequio.core.canonical import packed_update_size
from tequio.core.errors import UpdateError
from tequio.core.protocols import Facts
from tequio.core.reason import Reason
from tequio.core.replies import too_many
from tequio.core.texts.words import refusal, sent_reason
from tequio.core.types import Reply, State
from tequio.core.update import Entry, Factored, Streamed, Update

NAME = 256  # bytes of a name of an entry in a reason
NORM_LIMIT = 10.0  # times the median norm of the round before


@dataclass(frozen=True)
class Alarm:
    """What screening noted: whose update, which alarm (norm, cosine, loss), the figure (None: not
    measurable), its limit, what was done.
    """

    name: str
    alarm: str
    figure: float | None
    limit: float
    action: str  # clip | record | refuse


@dataclass(frozen=True)
class Admitted:
    """An update that fits the run_spec (right names and shapes, allotted rank, finite, not absurdly
    long), on its way into the sum.

    row: its row of the record, without its weight; its norm is that of the update as it came.
        `facts.norm` is that of `update`, which
    screening may have cut. discount: multiplies its change, not the sum of weights; below 1 for an
    update of an older model (see buffered.py).
    """

    member: Member
    update: Update
    facts: Facts
    row: Mapping[str, Any]
    alarms: tuple[Alarm, ...] = ()
    discount: float = 1.0


@dataclass(frozen=True)
class Refused:
    """A reply that stays out, and why."""

    member: Member
    reason: Reason
    status: Literal["rejected", "failed", "withheld"] = (
        "rejected"  # its update; it could not do its task; its own budget is spent
    )
    alarms: tuple[Alarm, ...] = ()


def admit(reply: Reply, member: Member, run_spec: RunSpec, state: State) -> Admitted | Refused:
    """Check one reply to a training task."""
    try:
        return _inspected(reply, member, run_spec, state)
    except UpdateError as error:
        return Refused(member, Reason("undecodable", {"why": cut_text(str(error))}))
    except Exception as error:  # whatever is wrong with it, the round goes on without it
        return Refused(member, Reason("undecodable", {"why": type(error).__name__}))


def _inspected(reply: Reply, member: Member, run_spec: RunSpec, state: State) -> Admitted | Refused:
    """The checks, cheap ones first.

    One that is streamed is read here whole, entry by entry, before any of it is added up.
    """
    update = _opened(reply, member, run_spec)
    if update is None:
        return Refused(member, Reason("no-update"))
    widest = 2 * member.rank if run_spec.start.continues else member.rank
    factored = run_spec.aggregator.layout == "product" and not run_spec.full
    problem = None if update.spec == run_spec.spec else Reason("other-layout")
    if (reply.round, reply.index) != (state.round + 1, member.index):
        problem = Reason("wrong-round", {"round": reply.round, "expected": state.round + 1})
    problem = problem or _misfit(update, _expected(run_spec, state, member.rank), widest, factored)
    if problem is not None:
        return Refused(member, problem)
    norm = update.norm()
    times = norm / (run_spec.expected_norm(state) or math.inf)
    found = (
        (Reason("norm-unusable", {"norm": str(norm)}), not math.isfinite(norm) or norm == 0.0),
        (Reason("norm-too-long", {"times": times, "limit": NORM_LIMIT}), times > NORM_LIMIT),
        (Reason("nothing-trained"), reply.examples < 1 or reply.steps < 1),
        (too_many(reply.examples, member.sizes, "train"), True),
    )
    if why := next((why for why, holds in found if why and holds), None):
        return Refused(member, why)
    facts = Facts(reply.examples, reply.steps, norm, _excess(state, member.name))
    return Admitted(member, update, facts, reply_row(member, reply, norm, _size(reply, update)))


def reply_row(member: Member, reply: Reply, norm: float | None, bytes_up: int) -> dict[str, Any]:
    """The row of one who trained in the record of a round, without its weight."""
    return {
        "name": member.name,
        "rank": member.rank,
        "steps": reply.steps,
        "tokens": reply.tokens,
        "examples": reply.examples,
        "loss_first": reply.metrics.get("loss_first"),
        "loss_last": reply.metrics.get("loss_last"),
        "norm": norm,
        "bytes_up": bytes_up,
        **reply_cost(reply),
        **({"note": sent_reason(reply.note).as_record()} if reply.note else {}),
    }


def reply_cost(reply: Reply) -> dict[str, Any]:
    """What a reply tells of its cost: seconds, joules, the whole record of its energy, money."""
    energy, money = reply.energy, reply.money
    return {
        "seconds": None if energy is None else energy.seconds,
        "joules": None if energy is None else energy.joules,
        "energy": None if energy is None else asdict(energy),
        "money": None if money is None else asdict(money),
    }


def _size(reply: Reply, update: Update) -> int:
    """Bytes of the message that brought the update."""
    if reply.parts is not None:
        return sum(len(part) for part in reply.parts)
    return packed_update_size(update) if reply.payload is None else len(reply.payload)


def _opened(reply: Reply, member: Member, run_spec: RunSpec) -> Update | None:
    """The update of a reply, decoded where it came as bytes: at most twice the allotted ranks,
    whatever the bytes promise.
    """
    if reply.parts is not None and run_spec.full:
        return _streamed(reply.parts, member, run_spec)
    if reply.payload is None:
        return reply.update
    matrices = sum(2 * member.rank * (m + n) for m, n in run_spec.shapes.values())
    limit = 8 * (matrices + sum(math.prod(s) for s in run_spec.head_shapes.values())) + 65536
    return run_spec.upload.codec.decode(reply.payload, f"the update of {member.name}", limit)


def _streamed(parts: Sequence[bytes], member: Member, run_spec: RunSpec) -> Update:
    """An update whose entries are decoded as they are looked at, each from its own message.

    Raises UpdateError, then or now.
    """
    shapes = {**run_spec.shapes, **run_spec.head_shapes}
    names = sorted(shapes)
    if len(parts) != len(names):
        raise refusal(UpdateError, "parts-missing", found=len(parts), expected=len(names))
    codec, place = run_spec.upload.codec, {name: number for number, name in enumerate(names)}

    def read(name: str) -> Entry:
        limit = 8 * math.prod(shapes[name]) + 65536
        got = codec.decode(parts[place[name]], f"the update of {member.name}, entry {name}", limit)
        if got.spec != run_spec.spec or list(got.entries) != [name]:
            raise refusal(UpdateError, "part-of-another-entry", number=place[name], entry=name)
        return got.entries[name]

    return Update(Streamed(names, read), run_spec.spec)


def _excess(state: State, name: str) -> float:
    """Validation loss of the shared model over the base's, at this participant; 0 (not known)
    unless both are positive numbers.
    """
    loss, base = state.losses.get(name, 0.0), state.base_losses.get(name, 0.0)
    known = loss > 0.0 and base > 0.0 and math.isfinite(loss / base)
    return loss / base if known else 0.0


def _expected(run_spec: RunSpec, state: State, rank: int) -> Mapping[str, tuple[int, ...]]:
    if run_spec.aggregator.layout == "product":
        return {**run_spec.shapes, **run_spec.head_shapes}
    sent, _ = parted(prefix(state.shared, rank), run_spec.trained(state))
    return {**{n: tuple(e.shape) for n, e in sent.entries.items()}, **run_spec.head_shapes}


def _misfit(
    update: Update, expected: Mapping[str, tuple[int, ...]], rank: int, factored: bool
) -> Reason | None:
    unknown = sorted(update.entries.keys() - expected.keys())
    missing = sorted(expected.keys() - update.entries.keys())
    if unknown or missing:
        shown = {
            "unknown": [one_line(cut_text(name, NAME)) for name in unknown[:3]],
            "missing": missing[:3],
        }
        return Reason("entries-differ", shown)
    for name, entry in update.entries.items():
        if tuple(entry.shape) != expected[name]:
            return Reason(
                "entry-shape",
                {"entry": name, "shape": list(entry.shape), "expected": list(expected[name])},
            )
        if isinstance(entry, Factored) and entry.rank > rank:
            return Reason("entry-rank", {"entry": name, "rank": entry.rank, "most": rank})
        if isinstance(entry, Factored) is not (factored and name not in expected_heads(expected)):
            return Reason("entry-form", {"entry": name})
        if not Update({name: entry}).is_finite():
            return Reason("not-finite")
    return None


def expected_heads(expected: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Names of head entries, which are always dense."""
    return {name for name in expected if name.startswith("head.")}
