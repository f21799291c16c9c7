"""What does it cost to have no coordinator?

Star, complete graph and ring at equal steps: test loss, bytes, disagreement.

The study's miniature world: eight organisations with their own ranks, `stack` and `uniform`, no
centre; one rate for all arms, not searched for. `alone` trains the same steps and sends nothing.
Each participant is judged on its own test texts, in nats a byte, with the model that it holds after
the last round. Bytes: up and down of the star, each way of each edge between peers.

Run: python -m benchmarks.topologies [--rounds 10] [--steps 10] [--rate 0.02] [--seed 0] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.study.arms import Setting, federate, plan_of
from benchmarks.study.scenes import TINY
from benchmarks.study.world import SCARCE, World, make_world
from tequio.config import AlgorithmSection
from tequio.coordinator.gossip import Graph, Peers, complete, gossip_round, mixing, open_peers, ring
from tequio.coordinator.round import shared_model
from tequio.core.update import Update
from tequio.participant.personal import score
from tequio.runtimes.embedded import Embedded

STACK = AlgorithmSection(weights="uniform")


@dataclass(frozen=True)
class Arm:
    """graph: neighbours by index, None for the star. rank of what is sent:

    None for twice the largest.
    """

    name: str
    graph: Graph | None
    rank: int | None = None
    pace: float = 1.0


@dataclass(frozen=True)
class Row:
    """What an arm gave: mean and worst test loss, all bytes sent, disagreement after the last
    round, seconds.
    """

    mean: float
    worst: float
    sent: int
    disagreement: float
    seconds: float


def arms(members: Sequence[int]) -> list[Arm]:
    """Who is compared."""
    return [
        Arm("star", None),
        Arm("complete", complete(members)),
        Arm("ring", ring(members)),
        Arm("ring, rank 8", ring(members), 8),
        Arm("ring, rank 8, pace 0.5", ring(members), 8, 0.5),
        Arm("alone", {m: frozenset() for m in members}),
    ]


def measure(world: World, arm: Arm, setting: Setting, rate: float) -> Row:
    """All rounds of one arm."""
    begin = time.perf_counter()
    chosen = STACK.model_copy(update={"broadcast_rank": arm.rank})
    if arm.graph is None:
        run = federate(world, chosen, setting, rate)
        shared = shared_model(run.state.shared, run.run_spec)
        models: Mapping[int, Update] = {m.index: shared for m in run.run_spec.members}
        sent, separate = run.bytes("up") + run.bytes("down"), 0.0
    else:
        run_spec, runtime = plan_of(world, chosen, setting, rate), Embedded(world.nodes)
        alone = not any(arm.graph.values())
        peers = Peers({i: {i: 1.0} for i in arm.graph} if alone else mixing(arm.graph), arm.pace)
        state, sent, separate = open_peers(run_spec), 0, 0.0
        while state.round < run_spec.rounds:
            state, body = gossip_round(state, run_spec, peers, runtime)
            sent, separate = sent + body["bytes"], body["disagreement"]
        models = state.models
    seconds = time.perf_counter() - begin
    losses = [
        score(world.nodes[i], m, world.nodes[i].data.test).scores().loss for i, m in models.items()
    ]
    return Row(statistics.fmean(losses), max(losses), sent, separate, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="an offline toy that only shows that all works"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = make_world(given.seed, TINY if given.quick else SCARCE, offline=given.quick)
    setting = replace(Setting(), rounds=given.rounds, steps=given.steps)
    print(
        "| topology | mean test loss | worst | MB sent | × star's bytes | disagreement | seconds "
        "|\n" + "|---" * 7 + "|"
    )
    star = 0
    for arm in arms(range(1, len(world.participants) + 1)):
        row = measure(world, arm, setting, given.rate)
        star = star or row.sent
        figures = f"{row.mean:.4f} | {row.worst:.4f} | {row.sent / 1e6:.1f} | {row.sent / star:.2f}"
        print(
            f"| {arm.name} | {figures} | {row.disagreement:.3f} | {row.seconds:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
