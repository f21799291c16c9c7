"""The arms that questions compare: base, local-only, pooled central, and federations of given
pieces, each over its own grid of rates.

Rates and checkpoints are chosen on validation, figures are of test. All arms see the same tokens: a
participant's steps are the same alone and federated, and central takes the steps of all. A grid
whose best rate lies at its edge is extended, for every arm alike.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from benchmarks.study.world import World
from tequio.app.assembly.algorithm import build_chain
from tequio.config import AlgorithmSection
from tequio.coordinator.round import open_state, run_round, shared_model
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.errors import RunError
from tequio.core.protocols import Participant
from tequio.core.seeds import derive
from tequio.core.types import State
from tequio.core.update import Update, zero
from tequio.measure.statistics import relative_benefit, spearman
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget
from tequio.participant.residual import Residual
from tequio.participant.text_tasks import Item, Losses
from tequio.runtimes.embedded import Embedded

Grid = tuple[float, ...]
FEDERATED: Grid = (1e-2, 2e-2, 4e-2)
LOCAL: Grid = (5e-3, 1e-2, 2e-2)
CENTRAL: Grid = (5e-3, 1e-2, 2e-2)
FACTOR, EXTENSIONS = 2.0, 3  # of a grid whose best is at its edge

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """What all arms of a question share: rounds, local steps a round, and the rate's fall (linear,
    to final_rate times it).

    federated_share below 1 brings the centre in, as a trainer and with its slices at the gate; so
    do rounds that it makes first.
    """

    rounds: int = 10
    steps: int = 10
    final_rate: float = 0.1
    federated_share: float = 1.0
    gate_margin: float = math.inf
    centre_steps: int | None = None
    centre_first: int = 0  # of the rounds


@dataclass(frozen=True)
class Outcome:
    """What an arm gave: mean losses in nats a byte (validation, the public slices) and the test
    loss of each participant.

    tried: validation loss by rate, None where it diverged. at_edge: the best rate is at the end of
        its (extended) grid.
    curve: mean validation loss after each round. seconds, bytes up and down: of the chosen run
        alone.
    """

    arm: str
    seed: int
    rate: float
    validation: float
    test: Mapping[str, float]
    public: Mapping[str, float] = field(default_factory=dict)
    tried: Mapping[str, float | None] = field(default_factory=dict)
    at_edge: bool = False
    curve: Sequence[float] = ()
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def mean(self) -> float:
        """Mean test loss over participants, each counting the same."""
        return statistics.fmean(self.test.values())


@dataclass(frozen=True)
class Run:
    """One federation at one rate: its last state, the records of its rounds, and what it took."""

    run_spec: RunSpec
    state: State
    bodies: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def model(self) -> Update:
        """The shared model that was best on validation."""
        return shared_model(self.state.best, self.run_spec)

    def bytes(self, way: str) -> int:
        """Bytes of all rounds; `way` is up or down."""
        return sum(row[f"bytes_{way}"] for body in self.bodies for row in body["train"])


def base(world: World) -> Outcome:
    """No training."""
    nothing = zero(world.adapted.spec)
    losses = [_loss(score(node, nothing, node.data.validation)) for node in world.participants]
    return Outcome(
        "base",
        world.seed,
        0.0,
        statistics.fmean(losses),
        _test(world, nothing),
        _public(world, nothing),
    )


def local(
    world: World, setting: Setting, grid: Grid = LOCAL, extensions: int = EXTENSIONS
) -> Outcome:
    """Every participant alone, at its own rank, rate and checkpoint; `rate` is the median one."""
    begin = time.perf_counter()
    losses, test, rates, edges = [], {}, [], []
    for node, rank in zip(world.participants, world.ranks, strict=True):
        seed, data = derive(world.seed, "local", node.name), (node.data.train, node.data.validation)
        budget = FitBudget(
            rank, setting.rounds * setting.steps, (), setting.rounds, setting.final_rate
        )
        best = search(
            grid,
            lambda rate: _fit(node, data, replace(budget, rates=(rate,)), seed),  # noqa: B023
            extensions,
        )
        losses.append(best.loss)
        test[node.name] = _loss(score(node, best.value, node.data.test))
        rates.append(best.rate)
        edges.append(best.at_edge)
    seconds, rate = time.perf_counter() - begin, statistics.median(rates)
    return Outcome(
        "local",
        world.seed,
        rate,
        statistics.fmean(losses),
        test,
        at_edge=any(edges),
        seconds=seconds,
    )


def central(
    world: World, setting: Setting, grid: Grid = CENTRAL, extensions: int = EXTENSIONS
) -> Outcome:
    """One model on everybody's data, at the largest rank, with the steps of all."""
    begin = time.perf_counter()
    best = pooled(world, setting, grid, extensions)
    return _outcome("central", world, best, time.perf_counter() - begin)


def pooled(
    world: World, setting: Setting, grid: Grid = CENTRAL, extensions: int = EXTENSIONS
) -> Best[Update]:
    """The model of `central`, at the best rate."""
    people = world.participants
    train = [item for node in people for item in node.data.train]
    validation = [item for node in people for item in node.data.validation]
    steps = setting.rounds * setting.steps * len(people)
    budget = FitBudget(max(world.ranks), steps, (), 2 * setting.rounds, setting.final_rate)
    worker, seed = replace(people[0], name="central"), derive(world.seed, "central")
    return search(
        grid,
        lambda rate: _fit(worker, (train, validation), replace(budget, rates=(rate,)), seed),
        extensions,
    )


def data_parallel(
    world: World, setting: Setting, rank: int, grid: Grid = CENTRAL, extensions: int = EXTENSIONS
) -> Outcome:
    """Everybody's gradients averaged in every step, as many steps as one participant makes:

    AdamW on pooled batches.

    Bytes: each step, an adapter of this rank up and down for each participant, in float32.
    """
    people, steps = world.participants, setting.rounds * setting.steps
    train = [item for node in people for item in node.data.train]
    validation = [item for node in people for item in node.data.validation]
    worker = replace(people[0], name="data parallel", batch_size=people[0].batch_size * len(people))
    budget, seed = (
        FitBudget(rank, steps, (), min(10, steps), setting.final_rate),
        derive(world.seed, "data parallel"),
    )
    best = search(
        grid,
        lambda rate: _fit(worker, (train, validation), replace(budget, rates=(rate,)), seed),
        extensions,
    )
    sent = 4 * rank * sum(m + n for m, n in world.adapted.shapes.values()) * steps * len(people)
    return replace(
        _outcome("data parallel", world, best, 0.0),
        bytes_up=sent,
        bytes_down=sent,
        curve=(best.loss,),
    )


def federated(
    world: World,
    arm: str,
    algorithm: AlgorithmSection,
    setting: Setting,
    grid: Grid = FEDERATED,
    ranks: Sequence[int] | None = None,
    extensions: int = EXTENSIONS,
) -> Outcome:
    """A federation of these pieces; `ranks` replaces the world's."""
    return outcome_of(
        world,
        arm,
        tuned(lambda rate: federate(world, algorithm, setting, rate, ranks), grid, extensions),
    )


def outcome_of(world: World, arm: str, best: Best[Run]) -> Outcome:
    """What a federation's best run gave."""
    run = best.value
    out = _outcome(
        arm, world, Best(best.rate, best.loss, run.model, best.tried, best.at_edge), run.seconds
    )
    losses = (body["mean_validation_loss"] for body in run.bodies)
    curve = tuple(float(loss) for loss in losses if loss is not None)  # None: the centre alone
    return replace(out, bytes_up=run.bytes("up"), bytes_down=run.bytes("down"), curve=curve)


def tuned(run: Callable[[float], Run], grid: Grid, extensions: int = EXTENSIONS) -> Best[Run]:
    """The run at the rate that is best on validation."""

    def attempt(rate: float) -> tuple[float, Run] | None:
        try:
            made = run(rate)
        except RunError:
            return None
        return made.state.best_loss, made

    return search(grid, attempt, extensions)


def federate(
    world: World,
    algorithm: AlgorithmSection,
    setting: Setting,
    rate: float,
    ranks: Sequence[int] | None = None,
) -> Run:
    """All rounds of one federation, through Tequio's own coordinator and embedded runtime."""
    nodes = {
        index: replace(node, memory=Residual()) for index, node in world.nodes.items()
    }  # of error feedback
    return play(plan_of(world, algorithm, setting, rate, ranks), nodes)


def play(run_spec: RunSpec, participants: Mapping[int, Participant]) -> Run:
    """All rounds of a plan."""
    begin = time.perf_counter()
    runtime = Embedded(participants)
    state, _ = open_state(run_spec, runtime)
    bodies = []
    while state.round < run_spec.rounds:
        state, body = run_round(state, run_spec, runtime)
        bodies.append(body)
    return Run(run_spec, state, tuple(bodies), time.perf_counter() - begin)


def plan_of(
    world: World,
    algorithm: AlgorithmSection,
    setting: Setting,
    rate: float,
    ranks: Sequence[int] | None = None,
) -> RunSpec:
    """The plan of a run. Raises ConfigError where the pieces do not go together."""
    pieces = build_chain(algorithm)
    people = zip(world.participants, ranks or world.ranks, strict=True)
    members = tuple(
        Member(node.name, i, rank, setting.steps) for i, (node, rank) in enumerate(people, start=1)
    )
    top = max(member.rank for member in members)
    trains = setting.federated_share < 1.0 or setting.centre_first > 0
    centre = Member("centre", 0, top, setting.centre_steps or setting.steps) if trains else None
    return RunSpec(
        seed=world.seed,
        rounds=setting.rounds,
        spec=world.adapted.spec,
        scale=world.adapted.scale,
        shapes=world.adapted.shapes,
        members=members,
        centre=centre,
        federated_share=setting.federated_share,
        learning_rate=rate,
        final_rate=setting.final_rate,
        aggregator=pieces.reduce,
        start=pieces.start,
        weighting=pieces.weights,
        server=pieces.server,
        broadcast_rank=algorithm.broadcast_rank or 2 * top,
        upload=pieces.upload,
        download=pieces.download,
        feedback=pieces.feedback,
        patience=setting.rounds,
        gate_margin=setting.gate_margin,
        centre_first=setting.centre_first,
    )


@dataclass(frozen=True)
class Best(Generic[T]):
    """The best of a grid: its rate, validation loss, and what came of it; the losses of all rates
    (inf: diverged).
    """

    rate: float
    loss: float
    value: T
    tried: Mapping[float, float]
    at_edge: bool


def search(
    grid: Grid, attempt: Callable[[float], tuple[float, T] | None], extensions: int = EXTENSIONS
) -> Best[T]:
    """Try each rate, then go on beyond the end of the grid while the best is there.

    `attempt` gives a validation loss and what was trained, None where it diverged. Raises RunError
    if all diverge.
    """
    tried: dict[float, float] = {}
    best: tuple[float, float, T] | None = None
    waiting = list(grid)
    while waiting:
        rate = waiting.pop(0)
        outcome = attempt(rate)
        tried[rate] = math.inf if outcome is None else outcome[0]
        if outcome is not None and (best is None or outcome[0] < best[0]):
            best = (outcome[0], rate, outcome[1])
        at = best[1] if best else max(tried)  # all diverged so far: look below
        beyond = at * FACTOR if best and at == max(tried) else min(tried) / FACTOR
        if not waiting and at in (min(tried), max(tried)) and len(tried) < len(grid) + extensions:
            waiting.append(beyond)
    if best is None:
        raise RunError(
            "No learning rate of the grid could be trained.",
            f"Tried: {', '.join(f'{r:g}' for r in tried)}.",
        )
    loss, rate, value = best
    return Best(
        rate,
        loss,
        value,
        dict(sorted(tried.items())),
        len(tried) > 1 and rate in (min(tried), max(tried)),
    )


def _fit(
    node: Node, data: tuple[Sequence[Item], Sequence[Item]], budget: FitBudget, seed: int
) -> tuple[float, Update]:
    fitted = fit(node, zero(node.adapted.spec), data, budget, seed)
    return _loss(fitted.after), fitted.tail


def _outcome(arm: str, world: World, best: Best[Update], seconds: float) -> Outcome:
    tried = {
        f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in best.tried.items()
    }
    test, public = _test(world, best.value), _public(world, best.value)
    return Outcome(
        arm, world.seed, best.rate, best.loss, test, public, tried, best.at_edge, seconds=seconds
    )


def _test(world: World, model: Update) -> dict[str, float]:
    return {node.name: _loss(score(node, model, node.data.test)) for node in world.participants}


def _public(world: World, model: Update) -> dict[str, float]:
    return {
        name: _loss(score(world.centre, model, items))
        for name, items in world.centre.slices.items()
    }


def _loss(losses: Losses) -> float:
    return losses.scores().loss


def benefits(alone: Outcome, together: Outcome) -> dict[str, float]:
    """b = (local − federated) / local, of test losses, by participant."""
    return {name: relative_benefit(loss, together.test[name]) for name, loss in alone.test.items()}


def closed(start: Outcome, end: Outcome, arm: Outcome) -> float:
    """Share of the gap between two arms' mean test losses that a third closes;

    NaN where there is no gap.
    """
    gap = start.mean - end.mean
    return (start.mean - arm.mean) / gap if gap else math.nan


def rank_correlation(benefit: Mapping[str, float], ranks: Sequence[int]) -> float | None:
    """Spearman's correlation of benefit and rank; None where it is not defined."""
    return spearman(list(benefit.values()), list(ranks))
