"""Peer-to-peer rounds: no coordinator sees all; every participant reduces over its neighbours in a
ring or any connected graph.

Choco-gossip (Koloskova, Stich and Jaggi, arXiv 1902.00340): each peer sends its neighbours the best
low-rank part of what its model is beyond the copy that they hold, and moves toward their copies: x
← x + γ Σ_j W_ij (x̂_j − x̂_i). What a truncation leaves out is sent later. With all of it sent, γ =
1 and a complete graph, a round is that of the star.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tequio.coordinator.admission import Refused, reply_row
from tequio.coordinator.evaluation import Evaluation, collect_evaluation, recorded
from tequio.coordinator.round import BETTER, ShortRound, admissions, without_update
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import digest_json, digest_update, packed_update_size
from tequio.core.errors import ConfigError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.core.texts.words import refusal
from tequio.core.types import EvaluateRequest, Failure, Reply, TrainRequest
from tequio.core.update import Update, zero

Graph = Mapping[int, frozenset[int]]
"""Neighbours of each participant's index, without itself; edges go both ways."""


@dataclass(frozen=True)
class Peers:
    """Who mixes with whom. weights:

    W, by `mixing`. pace: γ, at most 1; less than 1 where much is truncated.
    """

    weights: Mapping[int, Mapping[int, float]]
    pace: float = 1.0


@dataclass(frozen=True)
class PeerState:
    """After `round` rounds: each peer's model, and the copy of it that its neighbours hold (changes
    of the base, layout product).

    best: everybody's models after the round of least mean validation loss, which only a simulation
        can know.
    """

    round: int
    models: Mapping[int, Update]
    copies: Mapping[int, Update]
    best: Mapping[int, Update]
    best_loss: float = math.inf
    best_round: int = 0
    stale_rounds: int = 0


def ring(members: Sequence[int]) -> Graph:
    """Everybody with the one before and the one after."""
    n = len(members)
    return {
        m: frozenset({members[k - 1], members[(k + 1) % n]} - {m}) for k, m in enumerate(members)
    }


def complete(members: Sequence[int]) -> Graph:
    """Everybody with everybody."""
    return {m: frozenset(members) - {m} for m in members}


def mixing(graph: Graph) -> dict[int, dict[int, float]]:
    """Metropolis weights W_ij = 1/(1 + max(d_i, d_j)), the rest on i itself (Xiao, Boyd and Kim
    2007): symmetric, rows sum to 1.

    Raises ConfigError if an edge goes one way only or the graph falls apart.
    """
    for i, near in graph.items():
        for j in near:
            if j not in graph or i not in graph[j]:
                raise refusal(ConfigError, "edge-one-way", edge=[i, j])
    if len(reachable(graph)) < len(graph):
        lost = sorted(graph.keys() - reachable(graph))
        raise refusal(ConfigError, "graph-in-parts", name=min(graph), names=lost)
    out: dict[int, dict[int, float]] = {}
    for i, near in graph.items():
        row = {j: 1.0 / (1 + max(len(near), len(graph[j]))) for j in sorted(near)}
        out[i] = {i: 1.0 - sum(row.values()), **row}
    return out


def reachable(graph: Graph) -> set[int]:
    """Who can be reached from the first peer."""
    todo, collect_evaluation = list(graph)[:1], set(list(graph)[:1])
    while todo:
        for near in graph[todo.pop()] - collect_evaluation:
            collect_evaluation.add(near)
            todo.append(near)
    return collect_evaluation


def open_peers(run_spec: RunSpec, loss: float = math.inf) -> PeerState:
    """Everybody at the base, whose mean validation loss is `loss`.

    Raises ConfigError if the reduce does not take products, or the start is not fresh.
    """
    if run_spec.aggregator.layout != "product":
        raise refusal(ConfigError, "peers-algorithm", key="reduce", value=run_spec.aggregator.name)
    if run_spec.start.continues:
        raise refusal(ConfigError, "peers-algorithm", key="start", value=run_spec.start.name)
    if run_spec.centre is not None:
        raise refusal(ConfigError, "peers-centre", kind="graph")
    start = {member.index: zero(run_spec.spec) for member in run_spec.members}
    return PeerState(0, start, start, start, loss)


def gossip_round(
    state: PeerState, run_spec: RunSpec, peers: Peers, runtime: Runtime
) -> tuple[PeerState, dict[str, Any]]:
    """Train everywhere, send `plan.broadcast_rank` ranks along every edge, mix.

    A peer that fails keeps its model and still mixes.

    Raises ShortRound if nobody could train.
    """
    round_, weights = state.round + 1, peers.weights
    members = {member.index: member for member in run_spec.members}
    models, failed, replies = dict(state.models), list[Refused](), list[Reply]()
    for reply in runtime.exchange(_tasks(state, run_spec)):
        if isinstance(reply, Failure):
            failed.append(without_update(reply, members[reply.index]))
        elif reply.update is None or not reply.update.is_finite():
            failed.append(Refused(members[reply.index], Reason("no-update"), "failed"))
        else:
            models[reply.index] = models[reply.index].plus(reply.update)
            replies.append(reply)
    if not replies:
        raise ShortRound(round_, 0, 1, failed)
    sent = {
        i: model.minus(state.copies[i]).to_rank(run_spec.broadcast_rank)
        for i, model in models.items()
    }
    copies = {i: state.copies[i].plus(sent[i]) for i in models}
    mixed = {i: _mix(i, models[i], copies, weights[i], peers.pace) for i in models}
    evaluation = _evaluate(round_, mixed, run_spec, runtime)
    after = _progress(replace(state, round=round_, models=mixed, copies=copies), evaluation)
    sizes = {i: packed_update_size(update) for i, update in sent.items()}
    rows = [
        _row(members[reply.index], reply, sizes, weights)
        for reply in sorted(replies, key=lambda r: r.index)
    ]
    return after, _record(after, rows, failed, evaluation) | {
        "bytes": sum(sizes[i] * (len(weights[i]) - 1) for i in sizes),
        "disagreement": disagreement(mixed),
    }


def _progress(state: PeerState, evaluation: Evaluation) -> PeerState:
    """The best round so far; one in which a peer's model could not be evaluated is none."""
    if not evaluation.failed and evaluation.mean_loss < state.best_loss * (1.0 - BETTER):
        return replace(
            state,
            best=state.models,
            best_loss=evaluation.mean_loss,
            best_round=state.round,
            stale_rounds=0,
        )
    return replace(state, stale_rounds=state.stale_rounds + 1)


def _row(
    member: Member,
    reply: Reply,
    sizes: Mapping[int, int],
    weights: Mapping[int, Mapping[int, float]],
) -> dict[str, Any]:
    """A peer's row: what it sends to each neighbour, and what each of them sends."""
    near = [j for j in weights[reply.index] if j != reply.index]
    norm = None if reply.update is None else reply.update.norm()
    row = reply_row(member, reply, norm, sizes[reply.index] * len(near))
    return row | {"weight": None, "bytes_down": sum(sizes[j] for j in near)}


def _record(
    after: PeerState, rows: list[dict[str, Any]], failed: Sequence[Refused], evaluation: Evaluation
) -> dict[str, Any]:
    """In the form of a star's round; nobody judges it, so it is accepted.

    The digest is over all peers' models.
    """
    return {
        "round": after.round,
        "accepted": True,
        "reason": Reason("no-public-slice").as_record(),
        "admissions": admissions(rows, failed),
        "alarms": [],
        "train": rows,
        "validation": evaluation.validation,
        "mean_validation_loss": evaluation.mean_loss
        if math.isfinite(evaluation.mean_loss)
        else None,
        "not_evaluated": recorded(evaluation.failed),
        "evaluation": list(evaluation.costs),
        "gate": {},
        "step_scale": 1.0,
        "digest": digest_json({str(i): digest_update(model) for i, model in after.models.items()}),
    }


def _tasks(state: PeerState, run_spec: RunSpec) -> list[TrainRequest]:
    round_ = state.round + 1
    return [
        TrainRequest(
            round=round_,
            index=m.index,
            name=m.name,
            layout="product",
            rank=m.rank,
            steps=m.steps,
            learning_rate=run_spec.rate(round_),
            seed=derive(run_spec.seed, "train", round_, m.index),
            held=state.models[m.index],
            terms=run_spec.local.terms_of(m.index),
            method=run_spec.local.method_name,
            method_settings=run_spec.local.method_settings,
        )
        for m in run_spec.members
    ]


def _mix(
    i: int, model: Update, copies: Mapping[int, Update], weights: Mapping[int, float], pace: float
) -> Update:
    """x_i + γ Σ_j W_ij (x̂_j − x̂_i)."""
    pull = copies[i].scaled(-pace * (1.0 - weights[i]))
    for j, weight in weights.items():
        if j != i:
            pull = pull.plus(copies[j].scaled(pace * weight))
    return model.plus(pull)


def _evaluate(
    round_: int, models: Mapping[int, Update], run_spec: RunSpec, runtime: Runtime
) -> Evaluation:
    """Each peer's own model on its own validation data."""
    tasks = [EvaluateRequest(round_, m.index, m.name, models[m.index]) for m in run_spec.members]
    return collect_evaluation(runtime.exchange(tasks), run_spec.members)


def mean(models: Mapping[int, Update]) -> Update:
    """The average model; mixing does not change it."""
    parts = list(models.values())
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total.scaled(1.0 / len(parts))


def disagreement(models: Mapping[int, Update]) -> float:
    """Root mean square distance of the peers' models from their mean, relative to the mean's
    norm.
    """
    centre = mean(models)
    distances = [model.minus(centre).norm() ** 2 for model in models.values()]
    return float((sum(distances) / len(distances)) ** 0.5 / max(centre.norm(), 1e-12))
