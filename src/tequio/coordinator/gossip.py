"""Peer-to-peer rounds: no coordinator sees all; every participant reduces over its neighbours in a ring or any connected graph.

Choco-gossip (Koloskova, Stich and Jaggi, arXiv 1902.00340): each peer sends its neighbours the best low-rank part of what its model
is beyond the copy that they hold, and moves toward their copies: x ← x + γ Σ_j W_ij (x̂_j − x̂_i). What a truncation leaves out is
sent later. With all of it sent, γ = 1 and a complete graph, a round is that of the star.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tequio.coordinator.plan import Plan
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError, RunError
from tequio.core.protocols import Runtime
from tequio.core.seeds import derive
from tequio.core.types import EvaluateTask, Failure, TrainTask
from tequio.core.update import Update, zero

Graph = Mapping[int, frozenset[int]]
"""Neighbours of each participant's index, without itself; edges go both ways."""


@dataclass(frozen=True)
class PeerState:
    """After `round` rounds: each peer's model, and the copy of it that its neighbours hold (changes of the base, layout product)."""

    round: int
    models: Mapping[int, Update]
    copies: Mapping[int, Update]


def ring(members: Sequence[int]) -> Graph:
    """Everybody with the one before and the one after."""
    n = len(members)
    return {m: frozenset({members[k - 1], members[(k + 1) % n]} - {m}) for k, m in enumerate(members)}


def complete(members: Sequence[int]) -> Graph:
    """Everybody with everybody."""
    return {m: frozenset(members) - {m} for m in members}


def mixing(graph: Graph) -> dict[int, dict[int, float]]:
    """Metropolis weights W_ij = 1/(1 + max(d_i, d_j)), the rest on i itself (Xiao, Boyd and Kim 2007): symmetric, rows sum to 1.

    Raises ConfigError if an edge goes one way only or the graph falls apart.
    """
    for i, near in graph.items():
        for j in near:
            if j not in graph or i not in graph[j]:
                raise ConfigError(f"The graph of peers: {i} names {j}, but {j} does not name {i}.")
    if len(reachable(graph)) < len(graph):
        lost = sorted(graph.keys() - reachable(graph))
        raise ConfigError(f"The graph of peers falls apart: {lost} cannot be reached.", "", "Add edges.")
    out: dict[int, dict[int, float]] = {}
    for i, near in graph.items():
        row = {j: 1.0 / (1 + max(len(near), len(graph[j]))) for j in sorted(near)}
        out[i] = {i: 1.0 - sum(row.values()), **row}
    return out


def reachable(graph: Graph) -> set[int]:
    """Who can be reached from the first peer."""
    todo, seen = list(graph)[:1], set(list(graph)[:1])
    while todo:
        for near in graph[todo.pop()] - seen:
            seen.add(near)
            todo.append(near)
    return seen


def open_peers(plan: Plan) -> PeerState:
    """Everybody at the base. Raises ConfigError if the reduce does not take products, or the start is not fresh."""
    if plan.aggregator.layout != "product":
        raise ConfigError("Peers exchange products.", f"reduce = {plan.aggregator.name!r} does not.", "Use 'stack'.")
    if plan.start.continues:
        raise ConfigError("Peers start afresh.", f"start = {plan.start.name!r} does not.", "Use 'fresh'.")
    if plan.centre is not None:
        raise ConfigError("Peers have no centre.", "", "Leave out [centre], or make it a participant.")
    start = {member.index: zero(plan.spec) for member in plan.members}
    return PeerState(0, start, start)


def gossip_round(
    state: PeerState, plan: Plan, weights: Mapping[int, Mapping[int, float]], runtime: Runtime, pace: float = 1.0
) -> tuple[PeerState, dict[str, Any]]:
    """Train everywhere, send `plan.broadcast_rank` ranks along every edge, mix. A peer that fails keeps its model and still mixes.

    pace: γ, at most 1; less than 1 where much is truncated. Raises RunError if nobody could train.
    """
    round_ = state.round + 1
    models, failed, rows = dict(state.models), {}, []
    for reply in runtime.exchange(_tasks(state, plan)):
        if isinstance(reply, Failure) or reply.update is None or not reply.update.is_finite():
            failed[reply.name] = f"{reply.error}: {reply.message}" if isinstance(reply, Failure) else "no usable update"
            continue
        models[reply.index] = models[reply.index].plus(reply.update)
        rows.append({"name": reply.name, "steps": reply.steps, "tokens": reply.tokens, "norm": reply.update.norm()})
    if not rows:
        raise RunError(f"Round {round_}: no peer could train.", " ".join(failed.values()), "Mend these and go on.")
    sent = {i: model.minus(state.copies[i]).to_rank(plan.broadcast_rank) for i, model in models.items()}
    copies = {i: state.copies[i].plus(sent[i]) for i in models}
    mixed = {i: _mix(i, models[i], copies, weights[i], pace) for i in models}
    looked = _evaluate(round_, mixed, plan, runtime)
    sizes = {i: len(pack(update)) for i, update in sent.items()}
    record = {
        "round": round_,
        "train": rows,
        "failed": failed,
        "bytes": sum(sizes[i] * (len(weights[i]) - 1) for i in sizes),
        "validation": looked,
        "disagreement": disagreement(mixed),
    }
    return replace(state, round=round_, models=mixed, copies=copies), record


def _tasks(state: PeerState, plan: Plan) -> list[TrainTask]:
    round_ = state.round + 1
    return [
        TrainTask(
            round=round_,
            index=m.index,
            name=m.name,
            layout="product",
            rank=m.rank,
            steps=m.steps,
            learning_rate=plan.rate(round_),
            seed=derive(plan.seed, "train", round_, m.index),
            held=state.models[m.index],
        )
        for m in plan.members
    ]


def _mix(i: int, model: Update, copies: Mapping[int, Update], weights: Mapping[int, float], pace: float) -> Update:
    """x_i + γ Σ_j W_ij (x̂_j − x̂_i)."""
    pull = copies[i].scaled(-pace * (1.0 - weights[i]))
    for j, weight in weights.items():
        if j != i:
            pull = pull.plus(copies[j].scaled(pace * weight))
    return model.plus(pull)


def _evaluate(round_: int, models: Mapping[int, Update], plan: Plan, runtime: Runtime) -> dict[str, float]:
    """Each peer's own model on its own validation data."""
    tasks = [EvaluateTask(round_, m.index, m.name, models[m.index]) for m in plan.members]
    replies = runtime.exchange(tasks)
    return {reply.name: reply.metrics["loss"] for reply in replies if not isinstance(reply, Failure)}


def mean(models: Mapping[int, Update]) -> Update:
    """The average model; mixing does not change it."""
    parts = list(models.values())
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total.scaled(1.0 / len(parts))


def disagreement(models: Mapping[int, Update]) -> float:
    """Root mean square distance of the peers' models from their mean, relative to the mean's norm."""
    centre = mean(models)
    distances = [model.minus(centre).norm() ** 2 for model in models.values()]
    return float((sum(distances) / len(distances)) ** 0.5 / max(centre.norm(), 1e-12))
