"""One round, on the page: plan → dispatch → admit → screen → reduce → centre → step → gate →
record.

`run_round(state, plan, runtime)` returns the next state and the record of what happened; the caller
commits the record before it goes on. Replies are folded in the order of the roster whatever the
order of arrival, so the result does not depend on it.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from tequio.algorithms.factors import (
    heads,
    initial_factors,
    padded_sum,
    parted,
    prefix,
    product,
    tail,
)
from tequio.coordinator import contribution
from tequio.coordinator.admission import Admitted, Refused, admit
from tequio.coordinator.aggregation import Aggregate, OpenedSum, aggregate, mix, opened
from tequio.coordinator.centre_gradient import central_gradient
from tequio.coordinator.evaluation import (
    Evaluation,
    ask_panel,
    failure_reason,
    record_sums,
    recorded,
)
from tequio.coordinator.gate import Slice, judge, verdict
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.coordinator.screening import screened
from tequio.core.canonical import digest_update, packed_update_size
from tequio.core.errors import BudgetError, RunError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.types import EvaluateRequest, Failure, Reply, Request, State, TrainRequest
from tequio.core.update import Update, is_matrix, zero


class ShortRound(RunError):
    """Fewer usable replies than the quorum: no step was made and the state is as it was.

    `body`: what happened, for the record.
    """

    def __init__(self, round_: int, usable: int, quorum: int, refused: Sequence[Refused]) -> None:
        facts = {"round": round_, "usable": usable, "quorum": quorum}
        reason = (
            Reason("quorum-missed", facts)
            if usable
            else Reason("no-update-usable", {"round": round_})
        )
        failed = [{"name": r.member.name, "reason": r.reason.as_record()} for r in refused]
        said = refusal(RunError, "short-round", why=reason.as_record(), failed=failed)
        super().__init__(said.what, said.why, said.fix, reason)
        self.body: dict[str, Any] = {
            **facts,
            "reason": reason.as_record(),
            "admissions": admissions([], refused),
        }


BETTER = 1e-4  # relative fall of the validation loss that counts as progress


def open_state(run_spec: RunSpec, runtime: Runtime) -> tuple[State, dict[str, Any]]:
    """The state before any training, and the record of the base's scores on validation data and
    public slices.
    """
    nothing = shared = zero(run_spec.spec)
    if run_spec.aggregator.layout == "factors":
        shared = initial_factors(
            run_spec.shapes, run_spec.top_rank(), derive(run_spec.seed, "factors"), run_spec.spec
        )
    evaluation = evaluate(0, shared, run_spec, runtime)
    if not evaluation.known or (run_spec.centre and run_spec.centre.name in evaluation.failed):
        failed = [
            {"name": name, "reason": why.as_record()} for name, why in evaluation.failed.items()
        ]
        raise refusal(RunError, "base-not-evaluated", failed=failed)
    state = State(
        round=0,
        shared=shared,
        pending=nothing,
        momentum=run_spec.server.init(run_spec.spec),
        best=shared,
        best_loss=evaluation.mean_loss,
        best_round=0,
        base_slices=evaluation.slices,
        base_losses=evaluation.losses(),
        losses=evaluation.losses(),
        best_losses=evaluation.losses(),
    )
    body = {
        "validation": evaluation.validation,
        "mean_validation_loss": evaluation.mean_loss,
        "not_evaluated": recorded(evaluation.failed),
        "evaluation": list(evaluation.costs),
        "slices": {
            name: {"loss": statistics.fmean(x), "examples": len(x)}
            for name, x in evaluation.slices.items()
        },
        **record_sums({}, evaluation.summed),
    }
    return state, body


class Gather(Protocol):
    """How the replies of a round come: each on its own (`open_replies`), or as one sum.

    It may exchange messages several times.
    """

    def __call__(
        self,
        tasks: Iterator[Request],
        roster: Sequence[Member],
        state: State,
        run_spec: RunSpec,
        runtime: Runtime,
        /,
    ) -> Iterator[Admitted | Refused] | OpenedSum:
        """Hand out the training tasks of the roster, in its order; what came back."""


def open_replies(
    tasks: Iterator[Request],
    roster: Sequence[Member],
    state: State,
    run_spec: RunSpec,
    runtime: Runtime,
    /,
) -> Iterator[Admitted | Refused]:
    """Every reply in the clear, admitted or refused as it comes."""
    return in_order(runtime.exchange(tasks), state, run_spec, roster)


def run_round(
    state: State, run_spec: RunSpec, runtime: Runtime, gather: Gather = open_replies
) -> tuple[State, dict[str, Any]]:
    """Round state.round + 1. Raises ShortRound if fewer updates than the quorum can be used."""
    roster = run_spec.roster(state.round + 1)
    gradient = central_gradient(
        state.round + 1, shared_model(state.shared, run_spec), run_spec, runtime
    )
    # dispatch, admit and screen, folding as replies come
    gathered = gather(
        training_tasks(state, run_spec, roster, gradient), roster, state, run_spec, runtime
    )
    if isinstance(gathered, OpenedSum):
        fold = opened(gathered, run_spec)
    else:
        fold = aggregate(screened(gathered, state, run_spec, runtime), run_spec)
    alone = fold.centre is not None and run_spec.centre_alone(state.round + 1)
    if fold.count < run_spec.quorum and not alone:
        raise ShortRound(state.round + 1, fold.count, run_spec.quorum, fold.refused)
    return conclude(state, fold, run_spec, runtime, gradient)


def conclude(
    state: State,
    fold: Aggregate,
    run_spec: RunSpec,
    runtime: Runtime,
    gradient: Update | None = None,
) -> tuple[State, dict[str, Any]]:
    """From the sum to the next state and the record: centre, step, broadcast, gate."""
    round_ = state.round + 1
    made = _candidate(state, fold, run_spec)
    # gate
    evaluation = evaluate(round_, made.shared, run_spec, runtime)
    slices = judge(state.base_slices, evaluation.slices, run_spec.gate_margin, run_spec.seed)
    accepted, reason = verdict(slices)
    trained = (row["name"] for row in fold.rows)
    lost = [
        name for name in trained if name in evaluation.failed and name not in evaluation.refused
    ]
    if accepted and lost:
        accepted, reason = (
            False,
            Reason("not-evaluated", {"why": evaluation.failed[lost[0]].as_record()}),
        )
    norms = [
        row["norm"] for row in fold.rows if row["weight"] is not None and row["norm"] is not None
    ]
    rate = run_spec.rate(round_)
    per_rate = statistics.median(norms) / rate if norms and rate else state.norm_per_rate
    if accepted:
        after = replace(state, shared=made.shared, pending=made.pending, momentum=made.momentum)
        losses = {**state.losses, **evaluation.losses()}
        after = replace(
            after,
            step_scale=min(1.0, state.step_scale * 2.0),
            losses=losses,
            norm_per_rate=per_rate,
        )
        after = replace(after, memory_rounds=_memories(state, fold, run_spec))
        after = after if run_spec.centre_alone(round_) else _progress(after, round_, evaluation)
    else:
        stale = (
            0 if run_spec.centre_alone(round_) else state.stale_rounds + 1
        )  # participants have not been asked yet
        after = replace(state, step_scale=state.step_scale / 2.0, stale_rounds=stale)
    after = replace(after, round=round_)
    fold = replace(fold, rows=_down(fold, state, run_spec, made.bytes_down, gradient))
    body = _record(after, fold, evaluation, slices, (accepted, reason))
    if run_spec.credit:
        body["credit"] = _credit(state, fold, run_spec, runtime, made.change, evaluation)
    return after, body | {"bytes_broadcast": made.bytes_down}


@dataclass(frozen=True)
class Candidate:
    """What a sum would make of the state: the mixed change, the optimiser's memory, the next shared
    model, what waits, bytes sent.
    """

    change: Update
    momentum: Update
    shared: Update
    pending: Update
    bytes_down: int


def _candidate(state: State, fold: Aggregate, run_spec: RunSpec) -> Candidate:
    change = mix(fold, run_spec).plus(_left_out(fold, state, run_spec))
    momentum, step = _step(state, change, run_spec)
    if state.step_scale != 1.0:
        step = step.scaled(state.step_scale)
    broadcast, pending, bytes_down = _broadcast(state, step, run_spec)
    return Candidate(change, momentum, padded_sum(state.shared, broadcast), pending, bytes_down)


def _credit(
    state: State,
    fold: Aggregate,
    run_spec: RunSpec,
    runtime: Runtime,
    change: Update,
    evaluation: Evaluation,
) -> list[dict[str, Any]]:
    """How each one's part agreed with the others', and what the loss would be without it."""

    def loss_without(other: Aggregate) -> float:
        seen_ = evaluate(
            state.round + 1, _candidate(state, other, run_spec).shared, run_spec, runtime
        )
        return seen_.mean_loss

    ask = loss_without if run_spec.leave_one_out else None
    return contribution.rows(
        fold, contribution.agreements(fold, change, run_spec), evaluation.mean_loss, ask, run_spec
    )


def _memories(state: State, fold: Aggregate, run_spec: RunSpec) -> Mapping[str, int]:
    """Of whom this round took something: the memory after it counts.

    Who failed, or a rejected round, keeps the one before.
    """
    if run_spec.feedback is None:
        return state.memory_rounds
    return {**state.memory_rounds, **{row["name"]: state.round + 1 for row in fold.rows}}


def shared_model(shared: Update, run_spec: RunSpec) -> Update:
    """What a shared state means as a change of the base's weights."""
    return shared if run_spec.aggregator.layout == "product" else product(shared, run_spec.scale)


def training_tasks(
    state: State, run_spec: RunSpec, roster: Sequence[Member], gradient: Update | None = None
) -> Iterator[Request]:
    """One task a member of the roster, in its order; made one by one, so that a large cohort needs
    no list of them.

    gradient: the centre's, which travels with the tasks of the others.
    """
    trained = run_spec.trained(state)
    begun: dict[int, tuple[Update, Update | None]] = {}
    for member in roster:
        if member.rank not in begun:
            begun[member.rank] = _begin(state.shared, member.rank, run_spec)
        held, start = begun[member.rank]
        yield TrainRequest(
            round=state.round + 1,
            index=member.index,
            name=member.name,
            layout=run_spec.aggregator.layout,
            rank=member.rank,
            steps=member.steps,
            learning_rate=run_spec.rate(state.round + 1),
            seed=derive(run_spec.seed, "train", state.round + 1, member.index),
            held=held,
            start=start,
            trained=trained,
            upload=run_spec.upload.name,
            upload_settings=run_spec.upload.settings,
            feedback=run_spec.feedback,
            memory_round=state.memory_rounds.get(member.name, 0),
            terms=run_spec.local.terms_of(member.index),
            gradient=gradient if member.index > 0 else None,
            method=run_spec.local.method_name,
            method_settings=run_spec.local.method_settings,
            budget=run_spec.budgets.get(member.index, {}),
            hours=run_spec.hours.get(member.index, ()),
        )


def _begin(shared: Update, rank: int, run_spec: RunSpec) -> tuple[Update, Update | None]:
    """What a participant of this rank holds frozen, and what it goes on with."""
    if run_spec.aggregator.layout == "product":
        return run_spec.start.begin(shared, rank)
    held = heads(shared)
    return (
        held.plus(tail(shared, rank, run_spec.scale)) if run_spec.aggregator.nested else held
    ), prefix(shared, rank)


def in_order(
    arrivals: Iterator[Reply | Failure], state: State, run_spec: RunSpec, roster: Sequence[Member]
) -> Iterator[Admitted | Refused]:
    """Admit each reply, and hand them on in the order of the roster; only those that are early wait
    in memory.
    """
    by_index = {member.index: position for position, member in enumerate(roster)}
    waiting: dict[int, Admitted | Refused] = {}
    turn = 0
    for arrival in arrivals:
        position = by_index.get(arrival.index)
        if position is None or position < turn or position in waiting:
            continue  # not on the roster, or a second reply: the first one counts
        member = roster[position]
        if isinstance(arrival, Failure):
            waiting[position] = without_update(arrival, member)
        else:
            waiting[position] = admit(arrival, member, run_spec, state)
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
    for position in range(turn, len(roster)):
        yield waiting.get(position, Refused(roster[position], Reason("no-reply"), "failed"))


def without_update(failure: Failure, member: Member) -> Refused:
    """Return the outcome of a participant that could not do its task, or does not: its own budget
    is spent.
    """
    own = failure.error == BudgetError.__name__
    return Refused(member, failure_reason(failure), "withheld" if own else "failed")


def _left_out(fold: Aggregate, state: State, run_spec: RunSpec) -> Update:
    """Mean of P_r(G) − G over those who trained: replies are changes of P_r(G), the server's step
    is one of G.

    Added to the mixed changes it gives, at plain weights, G₊ = Σ wᵢBᵢAᵢ / Σ wᵢ (FlexLoRA); nothing
    where the start truncates nothing.
    """
    if not run_spec.start.truncates:
        return zero(run_spec.spec)
    share = 1.0 if fold.centre is None else run_spec.federated_share if fold.count else 0.0
    total = sum(row["weight"] for row in fold.rows if row["weight"] is not None)
    parts: dict[int, float] = {}
    for row in fold.rows:
        part = 1.0 - share if row["weight"] is None else share * row["weight"] / total
        parts[row["rank"]] = parts.get(row["rank"], 0.0) + part
    whole = {name: entry for name, entry in state.shared.entries.items() if is_matrix(name, entry)}
    out = Update(whole, run_spec.spec).scaled(-1.0)
    for rank, part in sorted(parts.items()):
        out = out.plus(
            (run_spec.start.begin(state.shared, rank)[1] or zero(run_spec.spec)).scaled(part)
        )
    return out


def _step(state: State, change: Update, run_spec: RunSpec) -> tuple[Update, Update]:
    """The server optimiser's (memory, step).

    Factors that are not trained in this round rest, and so does the memory of them.
    """
    moves, rests = parted(state.momentum, run_spec.trained(state))
    memory, step = run_spec.server.apply(moves, change)
    return memory.plus(rests), step


def _broadcast(state: State, step: Update, run_spec: RunSpec) -> tuple[Update, Update, int]:
    """What participants are sent, what stays pending (the exact remainder of truncation and
    coding), and the bytes sent.
    """
    if run_spec.aggregator.layout == "factors":
        due, tail_ = parted(
            state.pending, run_spec.trained(state)
        )  # what waits of resting factors rests too
        head = padded_sum(due, step)
    else:
        head, tail_ = state.pending.plus(step).split_rank(run_spec.broadcast_rank)
    sent, size = run_spec.download.sent(
        head, derive(run_spec.seed, "download", state.round + 1), "the broadcast"
    )
    return sent, tail_ if sent is head else tail_.plus(head.minus(sent)), size


def evaluate(round_: int, shared: Update, run_spec: RunSpec, runtime: Runtime) -> Evaluation:
    """Score a shared model with the panel (mean over its members, each counting the same) and on
    the slices.
    """
    held, panel = shared_model(shared, run_spec), run_spec.panel(round_)
    return ask_panel(
        (EvaluateRequest(round_, m.index, m.name, held, run_spec.after) for m in panel),
        panel,
        runtime,
    )


def _progress(state: State, round_: int, evaluation: Evaluation) -> State:
    """Best so far or not, as those see it who evaluated both models: who comes and goes changes no
    verdict.
    """
    losses = evaluation.losses()
    both = [name for name in losses if name in state.best_losses]
    loss, before = evaluation.mean_loss, state.best_loss
    if both and len(both) < max(len(losses), len(state.best_losses)):
        loss, before = (
            statistics.fmean(of[name] for name in both) for of in (losses, state.best_losses)
        )
    if loss < before * (1.0 - BETTER):
        best = {
            "best": state.shared,
            "best_loss": evaluation.mean_loss,
            "best_losses": losses,
            "best_round": round_,
        }
        return replace(state, **best, stale_rounds=0)  # type: ignore[arg-type]
    return replace(state, stale_rounds=state.stale_rounds + 1)


def _down(
    fold: Aggregate, state: State, run_spec: RunSpec, broadcast: int, gradient: Update | None
) -> list[dict[str, Any]]:
    """Rows with the bytes sent down: everybody follows by broadcasts, but who is drawn now and then
    is sent the whole model.

    The centre's gradient, where a term needs it, goes down too. What a row brings along was sent
    before (see buffered.py).
    """
    if run_spec.cohort is None:
        follows = broadcast + task_bytes(state, run_spec, gradient)
        return [{**row, "bytes_down": row.get("bytes_down", 0) + follows} for row in fold.rows]
    whole = task_bytes(state, run_spec, gradient)
    return [{"bytes_down": whole, **row} for row in fold.rows]


def task_bytes(state: State, run_spec: RunSpec, gradient: Update | None) -> int:
    """What goes down with a task: the whole model to who is drawn now and then or begins late, and
    the centre's gradient.
    """
    late = run_spec.centre_first and state.round == run_spec.centre_first
    model = packed_update_size(state.shared) if run_spec.cohort is not None or late else 0
    return model + (0 if gradient is None else packed_update_size(gradient))


def admissions(
    rows: Sequence[Mapping[str, Any]], refused: Sequence[Refused]
) -> list[dict[str, Any]]:
    """Who was admitted, and who was not and why."""
    admitted: list[dict[str, Any]] = [
        {"name": row["name"], "status": "admitted", "reason": None} for row in rows
    ]
    return admitted + [
        {"name": r.member.name, "status": r.status, "reason": r.reason.as_record()} for r in refused
    ]


def _record(
    after: State,
    fold: Aggregate,
    evaluation: Evaluation,
    slices: Mapping[str, Slice],
    verdict_: tuple[bool, Reason],
) -> dict[str, Any]:
    total = sum(row["weight"] for row in fold.rows if row["weight"] is not None)
    rows = [
        {
            **r,
            "weight": None if r["weight"] is None else r["weight"] / total * r.get("discount", 1.0),
        }
        for r in fold.rows
    ]
    return {
        "round": after.round,
        "accepted": verdict_[0],
        "reason": verdict_[1].as_record(),
        "admissions": admissions(rows, fold.refused),
        "alarms": [asdict(alarm) for alarm in fold.alarms],
        "train": rows,
        "validation": evaluation.validation,
        "mean_validation_loss": evaluation.mean_loss
        if math.isfinite(evaluation.mean_loss)
        else None,
        "not_evaluated": recorded(evaluation.failed),
        "evaluation": list(evaluation.costs),
        "gate": {
            name: {k: v if math.isfinite(v) else None for k, v in asdict(s).items()}
            for name, s in slices.items()
        },
        "step_scale": after.step_scale,
        "digest": digest_update(after.shared),
        **record_sums(fold.figures, evaluation.summed),
    }
