"""Distillation between groups of different bases, or from participants to their shared model
(FedDF, Lin et al., arXiv 2006.07242).

Every group makes its own round over its own base. Then all teachers predict on the centre's public
texts, an ensemble makes one teacher of them, and the centre trains each group's shared model toward
it, at low rank. That is a candidate like any other: it is kept only if no public slice gets worse
and the group's mean validation loss does not rise. State in, state out.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from tequio.coordinator.admission import Admitted, admit
from tequio.coordinator.evaluation import Evaluation
from tequio.coordinator.gate import judge, verdict
from tequio.coordinator.round import BETTER, evaluate, shared_model
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import digest_update
from tequio.core.errors import TrainingError, UpdateError
from tequio.core.protocols import Distiller, Ensemble, Runtime
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.types import DistilRequest, Failure, Reply, Request, State, TrainRequest
from tequio.core.update import Update, zero

Teachers = Literal["groups", "participants"]
Votes = Literal["participants", "bases"]


@dataclass(frozen=True)
class Distillation:
    """[distil].

    Rounds between two distillations, who teaches, whose votes are equal, and how the students
    train.

    rate: of AdamW at its first step in round 1; it falls from round to round as the participants'
        does. items: public texts of
    one distillation, at most.
    """

    ensemble: Ensemble
    every: int
    teachers: Teachers
    votes: Votes
    temperature: float
    rank: int
    steps: int
    items: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Group:
    """Participants of one base: their plan, what carries their tasks, and the centre as distiller
    (None: there is none).
    """

    name: str
    run_spec: RunSpec
    runtime: Runtime
    distiller: Distiller | None = None


@dataclass(frozen=True)
class Teacher:
    """One model that teaches: a change of the base of `group`, and its weight in the ensemble."""

    name: str
    group: str
    model: Update
    weight: float


@dataclass(frozen=True)
class Listening:
    """A runtime that keeps training tasks and replies, so that participants' own models can teach
    after the round.
    """

    inner: Runtime
    heard: list[tuple[TrainRequest, Reply]] = field(default_factory=list)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """As the inner one does."""
        sent: dict[int, TrainRequest] = {}

        def noted() -> Iterator[Request]:
            for task in tasks:
                if isinstance(task, TrainRequest):
                    sent[task.index] = task
                yield task

        for reply in self.inner.exchange(noted()):
            if isinstance(reply, Reply) and reply.index in sent:
                self.heard.append((sent[reply.index], reply))
            yield reply


def models_heard(
    group: Group,
    before: State,
    heard: Sequence[tuple[TrainRequest, Reply]],
    admitted: Collection[str],
) -> list[Teacher]:
    """The participants' own models of a round, of the `admitted` only; the first reply of each
    counts.
    """
    members = {member.index: member for member in group.run_spec.members if member.name in admitted}
    out: list[Teacher] = []
    for task, reply in sorted(heard, key=lambda pair: pair[0].index):
        member = members.pop(task.index, None)
        outcome = None if member is None else admit(reply, member, group.run_spec, before)
        if isinstance(outcome, Admitted):
            model = task.held.plus(task.start or zero(group.run_spec.spec)).plus(outcome.update)
            out.append(Teacher(outcome.member.name, group.name, model, 1.0))
    return out


def models_shared(groups: Sequence[Group], states: Mapping[str, State]) -> list[Teacher]:
    """The groups' shared models, each with the weight of its participants."""
    return [
        Teacher(
            g.name, g.name, shared_model(states[g.name].shared, g.run_spec), len(g.run_spec.members)
        )
        for g in groups
    ]


def voting(teachers: Sequence[Teacher], votes: Votes) -> list[Teacher]:
    """Weights so that every participant counts the same, or every base."""
    if votes == "participants":
        return list(teachers)
    totals: dict[str, float] = {}
    for teacher in teachers:
        totals[teacher.group] = totals.get(teacher.group, 0.0) + teacher.weight
    return [replace(t, weight=t.weight / totals[t.group]) for t in teachers]


def distil(
    states: Mapping[str, State],
    groups: Sequence[Group],
    teachers: Sequence[Teacher],
    how: Distillation,
) -> tuple[dict[str, State], dict[str, Any]]:
    """Every group's shared model taught by the ensemble, where that harms nobody; and the record of
    it.
    """
    after = dict(states)
    round_ = max(state.round for state in states.values())
    count = min(group.distiller.count for group in groups if group.distiller is not None)
    generator = torch.Generator().manual_seed(derive(how.seed, "distil", round_))
    items = tuple(torch.randperm(count, generator=generator)[: how.items].tolist())
    target, silent = _teacher({g.name: g for g in groups}, voting(teachers, how.votes), items, how)
    rows: dict[str, dict[str, Any]] = {}
    for group in groups:
        if target is None:
            rows[group.name] = {"accepted": False, "reason": Reason("no-teacher").as_record()}
        else:
            after[group.name], rows[group.name] = _taught(
                states[group.name], group, target, items, how
            )
    body = {
        "teachers": [t.name for t in teachers if t.name not in silent],
        "silent": silent,
        "items": len(items),
        "groups": rows,
    }
    return after, body


def _teacher(
    groups: Mapping[str, Group],
    teachers: Sequence[Teacher],
    items: tuple[int, ...],
    how: Distillation,
) -> tuple[Tensor | None, dict[str, Any]]:
    """The ensemble's probabilities (rows × classes), and who could not teach and why.

    One model's predictions are held at a time.
    """
    total, weight, silent = None, 0.0, dict[str, Any]()
    for teacher in teachers:
        distiller = groups[teacher.group].distiller
        try:
            if distiller is None:
                raise refusal(TrainingError, "base-without-centre", base=teacher.group)
            term = (
                how.ensemble.term(distiller.logits(teacher.model, items), how.temperature)
                * teacher.weight
            )
        except (TrainingError, UpdateError) as error:
            silent[teacher.name] = error.as_reason().as_record()
            continue
        if total is not None and total.shape != term.shape:
            shapes = {"shape": list(term.shape), "expected": list(total.shape)}
            silent[teacher.name] = Reason("other-predictions", shapes).as_record()
            continue
        total, weight = term if total is None else total.add_(term), weight + teacher.weight
    return (None if total is None else how.ensemble.teacher(total / weight)), silent


def _taught(
    state: State, group: Group, target: Tensor, items: tuple[int, ...], how: Distillation
) -> tuple[State, dict[str, Any]]:
    """One student: train, code, gate, and keep or leave."""
    run_spec = group.run_spec
    task = DistilRequest(
        held=shared_model(state.shared, run_spec),
        items=items,
        teacher=target,
        temperature=how.temperature,
        rank=how.rank,
        steps=how.steps,
        learning_rate=how.rate * run_spec.rate(state.round) / run_spec.learning_rate,
        seed=derive(run_spec.seed, "distil", state.round, group.name),
    )
    try:
        if group.distiller is None:
            raise refusal(TrainingError, "base-without-centre", base=group.name)
        change, first, last = group.distiller.distil(task)
    except (TrainingError, UpdateError) as error:
        return state, {"accepted": False, "reason": error.as_reason().as_record()}
    sent, pending, size = _sent(state, change, run_spec)
    shared = state.shared.plus(sent)
    evaluation = evaluate(state.round, shared, run_spec, group.runtime)
    slices = judge(state.base_slices, evaluation.slices, run_spec.gate_margin, run_spec.seed)
    accepted, reason, before, then = _harmless(state, evaluation)
    if accepted:
        accepted, reason = verdict(slices)
    row = {
        "accepted": accepted,
        "reason": reason.as_record(),
        "loss_first": first,
        "loss_last": last,
        "before": before,
        "after": then,
        "gate": {
            n: {k: v if math.isfinite(v) else None for k, v in asdict(s).items()}
            for n, s in slices.items()
        },
        "bytes_down": size
        if run_spec.cohort is None
        else 0,  # who is drawn now and then is sent the whole model
        "digest": digest_update(shared if accepted else state.shared),
    }
    if not accepted:
        return state, row
    losses = {**state.losses, **evaluation.losses()}
    after = replace(state, shared=shared, pending=pending, losses=losses)
    if evaluation.mean_loss < state.best_loss * (1.0 - BETTER):
        after = replace(
            after,
            best=shared,
            best_loss=evaluation.mean_loss,
            best_round=state.round,
            stale_rounds=0,
        )
    return after, row | {"validation": evaluation.validation}


def _harmless(
    state: State, evaluation: Evaluation
) -> tuple[bool, Reason, float | None, float | None]:
    """(whether the mean validation loss does not rise, why, before, after) over those who know
    both.
    """
    after = evaluation.losses()
    lost = sorted(name for name in state.losses if name not in after)
    common = [name for name in state.losses if name in after]
    if lost or not common:
        return (
            False,
            Reason("group-not-evaluated", {"names": lost}) if lost else Reason("nobody-evaluates"),
            None,
            None,
        )
    before = statistics.fmean(state.losses[name] for name in common)
    then = statistics.fmean(after[name] for name in common)
    if not then <= before:
        known = then if math.isfinite(then) else None
        return False, Reason("loss-would-rise", {"before": before, "after": known}), before, known
    return True, Reason("general-kept"), before, then


def _sent(state: State, change: Update, run_spec: RunSpec) -> tuple[Update, Update, int]:
    """What participants are sent of the change, what stays pending (the loss of the code), and the
    bytes.
    """
    seed = derive(run_spec.seed, "distil download", state.round)
    sent, size = run_spec.download.sent(change, seed, "the distilled change")
    return sent, state.pending if sent is change else state.pending.plus(change.minus(sent)), size
