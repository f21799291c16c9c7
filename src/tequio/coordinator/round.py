"""One round, on the page: plan → dispatch → admit → screen → reduce → centre → step → gate → record.

`run_round(state, plan, runtime)` returns the next state and the record of what happened; the caller commits the record before it
goes on. Replies are folded in the order of the roster whatever the order of arrival, so the result does not depend on it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

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
from tequio.coordinator.aggregation import Fold, counted, folded, mix
from tequio.coordinator.centre_gradient import central_gradient
from tequio.coordinator.evaluation import Looked, seen, why_of
from tequio.coordinator.gate import Slice, judge, verdict
from tequio.coordinator.run_spec import Member, Plan
from tequio.coordinator.screening import screened
from tequio.core.canonical import digest_update, size_of
from tequio.core.errors import BudgetError, RunError
from tequio.core.protocols import Runtime
from tequio.core.seeds import derive
from tequio.core.types import EvaluateTask, Failure, Reply, State, Task, TrainTask
from tequio.core.update import Update, is_matrix, zero


class ShortRound(RunError):
    """Fewer usable replies than the quorum: no step was made and the state is as it was. `body`: what happened, for the record."""

    def __init__(self, round_: int, usable: int, quorum: int, refused: Sequence[Refused]) -> None:
        why = " ".join(f"{r.member.name}: {r.reason.rstrip('.')}." for r in refused)
        few = "no participant's update" if usable == 0 else f"{usable} of the {quorum} updates that a step needs"
        what = f"Round {round_}: {few} could be used."
        super().__init__(what, why, "Mend these and resume.")
        self.body: dict[str, Any] = {"round": round_, "usable": usable, "quorum": quorum, "reason": f"{what} {why}"}
        self.body["admissions"] = admissions([], refused)


BETTER = 1e-4  # relative fall of the validation loss that counts as progress


def open_state(plan: Plan, runtime: Runtime) -> tuple[State, dict[str, Any]]:
    """The state before any training, and the record of the base's scores on validation data and public slices."""
    nothing = zero(plan.spec)
    shared = nothing
    if plan.aggregator.layout == "factors":
        shared = initial_factors(plan.shapes, plan.top_rank(), derive(plan.seed, "factors"), plan.spec)
    looked = evaluate(0, shared, plan, runtime)
    if not looked.validation or (plan.centre and plan.centre.name in looked.failed):
        why = " ".join(f"{name}: {reason}" for name, reason in looked.failed.items())
        raise RunError("The base model cannot be evaluated.", why, "Mend that and start again.")
    state = State(
        round=0,
        shared=shared,
        pending=nothing,
        momentum=plan.server.init(plan.spec),
        best=shared,
        best_loss=looked.mean_loss,
        best_round=0,
        base_slices=looked.slices,
        base_losses=looked.losses(),
        losses=looked.losses(),
        best_losses=looked.losses(),
    )
    body = {
        "validation": looked.validation,
        "mean_validation_loss": looked.mean_loss,
        "not_evaluated": dict(looked.failed),
        "evaluation": list(looked.costs),
        "slices": {name: {"loss": statistics.fmean(x), "examples": len(x)} for name, x in looked.slices.items()},
    }
    return state, body


def run_round(state: State, plan: Plan, runtime: Runtime) -> tuple[State, dict[str, Any]]:
    """Round state.round + 1. Raises ShortRound if fewer updates than the quorum can be used."""
    roster = plan.roster(state.round + 1)
    gradient = central_gradient(state.round + 1, shared_model(state.shared, plan), plan, runtime)
    # dispatch, admit and screen, folding as replies come
    arrivals = in_order(runtime.exchange(training_tasks(state, plan, roster, gradient)), state, plan, roster)
    fold = folded((counted(outcome, plan) for outcome in screened(arrivals, state, plan, runtime)), plan)
    alone = fold.centre is not None and plan.centre_alone(state.round + 1)
    if len(fold.facts) < plan.quorum and not alone:
        raise ShortRound(state.round + 1, len(fold.facts), plan.quorum, fold.refused)
    return conclude(state, fold, plan, runtime, gradient)


def conclude(
    state: State, fold: Fold, plan: Plan, runtime: Runtime, gradient: Update | None = None
) -> tuple[State, dict[str, Any]]:
    """From the sum to the next state and the record: centre, step, broadcast, gate."""
    round_ = state.round + 1
    made = _candidate(state, fold, plan)
    momentum, shared, pending, bytes_down = made.momentum, made.shared, made.pending, made.bytes_down
    # gate
    looked = evaluate(round_, shared, plan, runtime)
    slices = judge(state.base_slices, looked.slices, plan.gate_margin, plan.seed)
    accepted, reason = verdict(slices)
    lost = [row["name"] for row in fold.rows if row["name"] in looked.failed]
    if accepted and lost:
        accepted, reason = False, f"it could be trained but not evaluated: {looked.failed[lost[0]]}"
    norms = [row["norm"] for row in fold.rows if row["weight"] is not None]
    rate = plan.rate(round_)
    per_rate = statistics.median(norms) / rate if norms and rate else state.norm_per_rate
    if accepted:
        after = replace(state, shared=shared, pending=pending, momentum=momentum, norm_per_rate=per_rate)
        after = replace(after, step_scale=min(1.0, state.step_scale * 2.0), losses={**state.losses, **looked.losses()})
        after = replace(after, memory_rounds=_memories(state, fold, plan))
        after = after if plan.centre_alone(round_) else _progress(after, round_, looked)
    else:
        stale = 0 if plan.centre_alone(round_) else state.stale_rounds + 1  # participants have not been asked yet
        after = replace(state, step_scale=state.step_scale / 2.0, stale_rounds=stale)
    after = replace(after, round=round_)
    fold = replace(fold, rows=_down(fold, state, plan, bytes_down, gradient))
    body = _record(after, fold, looked, slices, (accepted, reason))
    if plan.credit:
        body["credit"] = _credit(state, fold, plan, runtime, made.change, looked)
    return after, body | {"bytes_broadcast": bytes_down}


@dataclass(frozen=True)
class Candidate:
    """What a sum would make of the state: the mixed change, the optimiser's memory, the next shared model, what waits, bytes sent."""

    change: Update
    momentum: Update
    shared: Update
    pending: Update
    bytes_down: int


def _candidate(state: State, fold: Fold, plan: Plan) -> Candidate:
    change = mix(fold, plan).plus(_left_out(fold, state, plan))
    momentum, step = _step(state, change, plan)
    if state.step_scale != 1.0:
        step = step.scaled(state.step_scale)
    broadcast, pending, bytes_down = _broadcast(state, step, plan)
    return Candidate(change, momentum, padded_sum(state.shared, broadcast), pending, bytes_down)


def _credit(
    state: State, fold: Fold, plan: Plan, runtime: Runtime, change: Update, looked: Looked
) -> list[dict[str, Any]]:
    """How each one's part agreed with the others', and what the loss would be without it."""

    def loss_without(other: Fold) -> float:
        seen_ = evaluate(state.round + 1, _candidate(state, other, plan).shared, plan, runtime)
        return seen_.mean_loss

    ask = loss_without if plan.leave_one_out else None
    return contribution.rows(fold, contribution.agreements(fold, change, plan), looked.mean_loss, ask, plan)


def _memories(state: State, fold: Fold, plan: Plan) -> Mapping[str, int]:
    """Of whom this round took something: the memory after it counts. Who failed, or a rejected round, keeps the one before."""
    if plan.feedback is None:
        return state.memory_rounds
    return {**state.memory_rounds, **{row["name"]: state.round + 1 for row in fold.rows}}


def shared_model(shared: Update, plan: Plan) -> Update:
    """What a shared state means as a change of the base's weights."""
    return shared if plan.aggregator.layout == "product" else product(shared, plan.scale)


def training_tasks(
    state: State, plan: Plan, roster: Sequence[Member], gradient: Update | None = None
) -> Iterator[Task]:
    """One task a member of the roster, in its order; made one by one, so that a large cohort needs no list of them.

    gradient: the centre's, which travels with the tasks of the others.
    """
    trained = plan.trained(state)
    begun: dict[int, tuple[Update, Update | None]] = {}
    for member in roster:
        if member.rank not in begun:
            begun[member.rank] = _begin(state.shared, member.rank, plan)
        held, start = begun[member.rank]
        yield TrainTask(
            round=state.round + 1,
            index=member.index,
            name=member.name,
            layout=plan.aggregator.layout,
            rank=member.rank,
            steps=member.steps,
            learning_rate=plan.rate(state.round + 1),
            seed=derive(plan.seed, "train", state.round + 1, member.index),
            held=held,
            start=start,
            trained=trained,
            upload=plan.upload.name,
            upload_settings=plan.upload.settings,
            feedback=plan.feedback,
            memory_round=state.memory_rounds.get(member.name, 0),
            terms=plan.local.terms_of(member.index),
            gradient=gradient if member.index > 0 else None,
            method=plan.local.method,
            method_settings=plan.local.method_settings,
            budget=plan.budgets.get(member.index, {}),
            hours=plan.hours.get(member.index, ()),
        )


def _begin(shared: Update, rank: int, plan: Plan) -> tuple[Update, Update | None]:
    """What a participant of this rank holds frozen, and what it goes on with."""
    if plan.aggregator.layout == "product":
        return plan.start.begin(shared, rank)
    held = heads(shared)
    return (held.plus(tail(shared, rank, plan.scale)) if plan.aggregator.nested else held), prefix(shared, rank)


def in_order(
    arrivals: Iterator[Reply | Failure], state: State, plan: Plan, roster: Sequence[Member]
) -> Iterator[Admitted | Refused]:
    """Admit each reply, and hand them on in the order of the roster; only those that are early wait in memory."""
    by_index = {member.index: position for position, member in enumerate(roster)}
    waiting: dict[int, Admitted | Refused] = {}
    turn = 0
    for arrival in arrivals:
        position = by_index.get(arrival.index)
        if position is None or position < turn or position in waiting:
            continue  # not on the roster, or a second reply: the first one counts
        member = roster[position]
        if isinstance(arrival, Failure):
            waiting[position] = refusal(arrival, member)
        else:
            waiting[position] = admit(arrival, member, plan, state)
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1
    for position in range(turn, len(roster)):
        yield waiting.get(position, Refused(roster[position], "no reply", failed=True))


def refusal(failure: Failure, member: Member) -> Refused:
    """Of one who could not do its task, or does not: its own budget is spent."""
    own = failure.error == BudgetError.__name__
    return Refused(member, why_of(failure), failed=not own, withheld=own)


def _left_out(fold: Fold, state: State, plan: Plan) -> Update:
    """Mean of P_r(G) − G over those who trained: replies are changes of P_r(G), the server's step is one of G.

    Added to the mixed changes it gives, at plain weights, G₊ = Σ wᵢBᵢAᵢ / Σ wᵢ (FlexLoRA); nothing where the start truncates nothing.
    """
    if not plan.start.truncates:
        return zero(plan.spec)
    share = 1.0 if fold.centre is None else plan.federated_share if fold.facts else 0.0
    total = sum(row["weight"] for row in fold.rows if row["weight"] is not None)
    parts: dict[int, float] = {}
    for row in fold.rows:
        part = 1.0 - share if row["weight"] is None else share * row["weight"] / total
        parts[row["rank"]] = parts.get(row["rank"], 0.0) + part
    whole = {name: entry for name, entry in state.shared.entries.items() if is_matrix(name, entry)}
    out = Update(whole, plan.spec).scaled(-1.0)
    for rank, part in sorted(parts.items()):
        out = out.plus((plan.start.begin(state.shared, rank)[1] or zero(plan.spec)).scaled(part))
    return out


def _step(state: State, change: Update, plan: Plan) -> tuple[Update, Update]:
    """The server optimiser's (memory, step). Factors that are not trained in this round rest, and so does the memory of them."""
    moves, rests = parted(state.momentum, plan.trained(state))
    memory, step = plan.server.apply(moves, change)
    return memory.plus(rests), step


def _broadcast(state: State, step: Update, plan: Plan) -> tuple[Update, Update, int]:
    """What participants are sent, what stays pending (the exact remainder of truncation and coding), and the bytes sent."""
    if plan.aggregator.layout == "factors":
        due, tail_ = parted(state.pending, plan.trained(state))  # what waits of resting factors rests too
        head = padded_sum(due, step)
    else:
        head, tail_ = state.pending.plus(step).split_rank(plan.broadcast_rank)
    if plan.download.name == "plain":
        return head, tail_, size_of(head)
    codec = plan.download.codec()
    coded = codec.encode(head, derive(plan.seed, "download", state.round + 1))
    sent = codec.decode(coded, "the broadcast")
    return sent, tail_.plus(head.minus(sent)), len(coded)


def evaluate(round_: int, shared: Update, plan: Plan, runtime: Runtime) -> Looked:
    """Score a shared model with the panel (mean over its members, each counting the same) and on the slices."""
    held, panel = shared_model(shared, plan), plan.panel(round_)
    return seen(runtime.exchange(EvaluateTask(round_, m.index, m.name, held, plan.after) for m in panel), panel)


def _progress(state: State, round_: int, looked: Looked) -> State:
    """Best so far or not, as those see it who evaluated both models: who comes and goes changes no verdict."""
    losses = looked.losses()
    both = [name for name in losses if name in state.best_losses]
    loss, before = looked.mean_loss, state.best_loss
    if both and len(both) < max(len(losses), len(state.best_losses)):
        loss, before = (statistics.fmean(of[name] for name in both) for of in (losses, state.best_losses))
    if loss < before * (1.0 - BETTER):
        best = {"best": state.shared, "best_loss": looked.mean_loss, "best_losses": losses, "best_round": round_}
        return replace(state, **best, stale_rounds=0)  # type: ignore[arg-type]
    return replace(state, stale_rounds=state.stale_rounds + 1)


def _down(fold: Fold, state: State, plan: Plan, broadcast: int, gradient: Update | None) -> list[dict[str, Any]]:
    """Rows with the bytes sent down: everybody follows by broadcasts, but who is drawn now and then is sent the whole model.

    The centre's gradient, where a term needs it, goes down too. What a row brings along was sent before (see buffered.py).
    """
    if plan.cohort is None:
        follows = broadcast + task_bytes(state, plan, gradient)
        return [{**row, "bytes_down": row.get("bytes_down", 0) + follows} for row in fold.rows]
    whole = task_bytes(state, plan, gradient)
    return [{"bytes_down": whole, **row} for row in fold.rows]


def task_bytes(state: State, plan: Plan, gradient: Update | None) -> int:
    """What goes down with a task: the whole model to who is drawn now and then or begins late, and the centre's gradient."""
    late = plan.centre_first and state.round == plan.centre_first
    model = size_of(state.shared) if plan.cohort is not None or late else 0
    return model + (0 if gradient is None else size_of(gradient))


def admissions(rows: Sequence[Mapping[str, Any]], refused: Sequence[Refused]) -> list[dict[str, str]]:
    """Who was admitted, and who was not and why."""
    admitted = [{"name": row["name"], "status": "admitted", "reason": ""} for row in rows]
    return admitted + [{"name": r.member.name, "status": _status(r), "reason": r.reason} for r in refused]


def _status(refused: Refused) -> str:
    return "withheld" if refused.withheld else "failed" if refused.failed else "rejected"


def _record(
    after: State,
    fold: Fold,
    looked: Looked,
    slices: Mapping[str, Slice],
    verdict_: tuple[bool, str],
) -> dict[str, Any]:
    total = sum(row["weight"] for row in fold.rows if row["weight"] is not None)
    rows = [
        {**r, "weight": None if r["weight"] is None else r["weight"] / total * r.get("discount", 1.0)}
        for r in fold.rows
    ]
    return {
        "round": after.round,
        "accepted": verdict_[0],
        "reason": verdict_[1],
        "admissions": admissions(rows, fold.refused),
        "alarms": [asdict(alarm) for alarm in fold.alarms],
        "train": rows,
        "validation": looked.validation,
        "mean_validation_loss": looked.mean_loss if math.isfinite(looked.mean_loss) else None,
        "not_evaluated": dict(looked.failed),
        "evaluation": list(looked.costs),
        "gate": {
            name: {k: v if math.isfinite(v) else None for k, v in asdict(s).items()} for name, s in slices.items()
        },
        "step_scale": after.step_scale,
        "digest": digest_update(after.shared),
    }
