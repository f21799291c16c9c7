"""Server optimisers and forms of a centre that trains, on MiniLM: which of them pays?

Participants' steps and the centre's public texts are fixed; the arms with half of the steps compare
with half of them alone. A centre that trains makes as many steps per round as the participant in
the middle. The rows of `docs/choosing-algorithms.md` rest on this. Run: python -m
benchmarks.study.real_hybrids [WORLD…] [--seeds 0 1 2] [--only FAMILY…] [--out runs/real]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.study.real import Arm, Json, Made, compared, played, table, with_pieces, with_steps
from tequio.algorithms.registry import ensemble_by_name
from tequio.app.assembly.algorithm import build_local
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.distillation import Distillation, Group
from tequio.coordinator.multi_base import group_rounds
from tequio.coordinator.round import shared_model
from tequio.runtimes.embedded import Embedded

WORLDS = ("excavators", "clinics")
PLAIN = "average"
RATES = (6e-3, 1.2e-2)
SERVERS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "sgd": {"0.7": {"learning_rate": 0.7}, "1.5": {"learning_rate": 1.5}},
    "nesterov": {
        "0.7, 0.6": {"learning_rate": 0.7, "momentum": 0.6},
        "1, 0.3": {"learning_rate": 1.0, "momentum": 0.3},
    },
    "adam": {f"{rate:g}": {"learning_rate": rate} for rate in (1e-2, 3e-2)},
    "yogi": {f"{rate:g}": {"learning_rate": rate} for rate in (3e-2,)},
}


def server(pieces: Mapping[str, Any]) -> Any:
    """Make the federation with these pieces; the centre only judges."""
    return lambda setup, rate: played(
        setup, with_pieces(replace(setup.run_spec, learning_rate=rate), **pieces)
    )


def hybrid(
    share: float = 1.0,
    steps: float = 1.0,
    first: int = 0,
    transfer: float = 0.0,
    distilled: float = 0.0,
) -> Any:
    """Make the federation with a centre in this form.

    Args:
        share: λ, the participants' share beside the centre's; 1: the centre does not train beside
            them.
        steps: share of the participants' steps.
        first: rounds that the centre trains alone before.
        transfer: strength of the centre's gradient in the participants' steps.
        distilled: rate at which the participants' models teach the shared one on the centre's
            texts; 0: they do not.
    """

    def make(setup: RunSetup, rate: float) -> Made:
        plan = with_steps(replace(setup.run_spec, learning_rate=rate, federated_share=share), steps)
        plan = replace(plan, rounds=plan.rounds + first, centre_first=first)
        if transfer:
            plan = replace(plan, local=build_local({"transfer": transfer}))
        return (
            _distilled(replace(setup, run_spec=plan), distilled)
            if distilled
            else played(setup, plan)
        )

    return make


def _distilled(setup: RunSetup, rate: float) -> Made:
    """Make rounds that each end in distillation from all participants' own models."""
    plan = setup.run_spec
    steps = plan.centre.steps if plan.centre is not None else 1
    group = Group("all", plan, Embedded(setup.nodes), setup.public)
    ensemble, rank, size = (
        ensemble_by_name("feddf"),
        plan.top_rank(),
        setup.nodes[0].batch_size * steps,
    )
    how = Distillation(
        ensemble, 1, "participants", "participants", 1.0, rank, steps, size, rate, plan.seed
    )
    rounds = group_rounds([group], how)
    states, _ = rounds.begin()
    records = list[Json]()
    while not rounds.ended(states):
        states, record = rounds.advance(states)
        records.append(record)
    state = states["all"]
    return Made(shared_model(state.best, plan), state.best_loss, state.best_round, records)


ARMS = [
    Arm(PLAIN, server({}), RATES),
    *(
        Arm(
            f"{name} {label}",
            server({"server": name, "server_settings": settings}),
            RATES[:1],
            name,
        )
        for name, tries in SERVERS.items()
        for label, settings in tries.items()
    ),
    *(Arm(f"beside, λ = {share:g}", hybrid(share), RATES[:1], "beside") for share in (0.85, 0.6)),
    Arm("half the steps", hybrid(steps=0.5), RATES[:1]),
    Arm("half the steps, beside, λ = 0.7", hybrid(0.7, 0.5), RATES[:1]),
    Arm("half the steps, first", hybrid(1.0, 0.5, first=5), RATES[:1]),
    Arm("half the steps, first and beside, λ = 0.7", hybrid(0.7, 0.5, first=5), RATES[:1]),
    Arm("half the steps, one-way 0.5", hybrid(1.0, 0.5, transfer=0.5), RATES[:1]),
    Arm("half the steps, distilled", hybrid(1.0, 0.5, distilled=4e-3), RATES[:1]),
]


def main() -> None:
    """Run what is missing, and print a table per world."""
    compared(__doc__, WORLDS, ARMS, PLAIN, lambda found: table(found, PLAIN))


if __name__ == "__main__":
    main()
