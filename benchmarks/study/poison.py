"""Question 7: two of eight participants attack: what stops what?

A pair of organisations (another one in each seed) turns its updates round, sends noise, trains on permuted targets, or plants a trigger
that is followed by a fixed text. Each defence runs against each attack, at the rate that the federation without attackers prefers, and
without attackers, for what it costs. Two targets: the honest end within 2 % of the federation without attackers; after the trigger the
planted text is no more than 1.5 times as likely as there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import EXTENSIONS, FEDERATED, Grid, Run, Setting
from benchmarks.study.attackers import ATTACKS, attacker, backdoor
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, mean, outcomes
from benchmarks.study.world import SCARCE, World, split
from tequio.coordinator.plan import Member, Plan, Screening
from tequio.core.protocols import Participant
from tequio.participant.personal import score
from tequio.recipes.config import AlgorithmSection

QUESTION = "two of eight attack: what stops what?"
SCENE = Scene(SCARCE, Setting(rounds=4, steps=5))
RATE = {"product": 2e-2, "factors": 2e-2}  # of the clean arms on validation; `answer` says so if they choose another
NOBODY = "nobody"


@dataclass(frozen=True)
class Defence:
    """Pieces, screening and the gate's margin. With a finite margin or a screen on losses the centre judges, and does not train."""

    algorithm: AlgorithmSection = field(default_factory=AlgorithmSection)
    screening: Screening = field(default_factory=Screening)
    gate_margin: float | None = None

    @property
    def judged(self) -> bool:
        """Whether public slices are needed."""
        return self.gate_margin is not None or self.screening.loss is not None


BY_EXAMPLES = AlgorithmSection(weights="examples")
ONE_VOTE = {"weights_settings": {"power": 0.0}}
DEFENCES = {
    "none": Defence(BY_EXAMPLES),
    "norm_bound": Defence(BY_EXAMPLES, Screening(norm_bound=1.0)),
    "norm_equalised": Defence(),
    "centred_clipping": Defence(AlgorithmSection(reduce="centred_clipping", **ONE_VOTE)),
    "geometric_median": Defence(AlgorithmSection(reduce="geometric_median", **ONE_VOTE)),
    "trimmed_mean": Defence(AlgorithmSection(reduce="trimmed_mean", **ONE_VOTE)),
    "cosine": Defence(screening=Screening(cosine=-0.025, cosine_action="refuse")),
    "loss": Defence(screening=Screening(loss=1.5, loss_action="refuse")),
    "gate": Defence(BY_EXAMPLES, gate_margin=0.5),
}
OURS = "norm_equalised"
# Limits of cosine, loss and gate lie just beyond what the first seed shows without attackers: cosines down to -.02, losses up to 1.2, .32


def jobs(quick: bool) -> dict[str, Job]:
    """Baselines, and each defence against each attack and against nobody."""
    scene = SCENE.shown(quick)
    made = baselines(scene)
    for name, defence in DEFENCES.items():
        rate = RATE["factors" if name == "trimmed_mean" else "product"]
        for attack in (NOBODY, *ATTACKS):
            tunes = attack == NOBODY and name in (OURS, "trimmed_mean") and not quick
            arguments = {"scene": scene, "defence": defence, "attack": attack, "grid": FEDERATED if tunes else (rate,)}
            made[f"{name}, {attack}"] = Job(run_defence, arguments)
    return made


def run_defence(scene: Scene, defence: Defence, attack: str, grid: Grid) -> list[dict[str, Any]]:
    """A seed a row: test losses of the honest, success of the backdoor, and who was refused how often."""
    out: list[dict[str, Any]] = []
    for seed in scene.seeds:
        world, pair = split(scene.world(seed))
        rates = (out[0]["rate"],) if out else grid
        more = EXTENSIONS if len(rates) > 1 else 0
        best = arms.tuned(lambda rate: _run(world, pair, scene, defence, attack, rate), rates, more)  # noqa: B023
        run = best.value
        trigger = backdoor(world.participants, run.model)
        bad = {node.name for node in pair} if attack != NOBODY else set()
        out.append(
            {
                "seed": seed,
                "rate": best.rate,
                "tried": {f"{rate:g}": loss if math.isfinite(loss) else None for rate, loss in best.tried.items()},
                "test": {n.name: score(n, run.model, n.data.test).scores().loss for n in world.participants},
                "probability": trigger.probability,
                "greedy": trigger.greedy,
                "public": {k: score(world.centre, run.model, x).scores().loss for k, x in world.centre.slices.items()},
                "best_round": run.state.best_round,
                "rounds_rejected": sum(not body["accepted"] for body in run.bodies),
                "refused_bad": _refused(run, bad),
                "refused_honest": _refused(run, {n.name for n in world.participants}),
            }
        )
    return out


def _run(world: World, pair: Sequence[Any], scene: Scene, defence: Defence, attack: str, rate: float) -> Run:
    """The six honest, and the pair as attackers unless the attack is nobody's."""
    plan = arms.plan_of(world, defence.algorithm, scene.setting, rate)
    nodes: dict[int, Participant] = dict(world.nodes)
    whole = scene.world(world.seed)
    if attack != NOBODY:
        members = list(plan.members)
        for node in pair:
            index = len(members) + 1
            nodes[index] = attacker(attack, node, world.seed)
            rank = whole.ranks[whole.participants.index(node)]
            members.append(Member(node.name, index, rank, scene.setting.steps))
        plan = replace(plan, members=tuple(members))
    return arms.play(_defended(plan, defence), nodes)


def _defended(plan: Plan, defence: Defence) -> Plan:
    """The centre, where it judges, is asked for one step a round that counts nothing (λ = 1)."""
    plan = replace(plan, screening=defence.screening)
    if not defence.judged:
        return plan
    margin = math.inf if defence.gate_margin is None else defence.gate_margin
    return replace(plan, centre=Member("centre", 0, 1, 1), gate_margin=margin)


def _refused(run: Run, names: set[str]) -> float | None:
    """Share of these participants' updates that stayed out."""
    rows = [row for body in run.bodies for row in body["admissions"] if row["name"] in names]
    return statistics.fmean(row["status"] != "admitted" for row in rows) if rows else None


def answer(results: Mapping[str, Any]) -> Answer:
    """Loss over the clean run's, the backdoor's likelihood over the clean run's, and refusals, for each defence and attack."""
    found = {name: [results[f"{name}, {attack}"] for attack in (NOBODY, *ATTACKS)] for name in DEFENCES}
    clean = found[OURS][0]
    loss = {name: [_over(rows, clean, _loss) for rows in cells] for name, cells in found.items()}
    success = {name: [_over(rows, clean, _likely) for rows in cells] for name, cells in found.items()}
    tables = [
        Table(
            ["defence", "nobody attacks", *ATTACKS, "planted text, times as likely", "greedy"],
            [
                [
                    name,
                    *(f"{100 * (x - 1):+.1f} %" for x in loss[name]),
                    f"{success[name][-1]:.1f}",
                    f"{100 * mean(row['greedy'] for row in found[name][-1]):.0f} %",
                ]
                for name in DEFENCES
            ],
            "Mean test loss of the honest, over that of norm_equalised without attackers; the backdoor's success:",
        ),
        Table(
            ["defence", "honest, nobody attacks", *ATTACKS, *(f"honest, {attack}" for attack in ATTACKS)],
            [
                [
                    name,
                    _share(found[name][0], "refused_honest"),
                    *(_share(rows, "refused_bad") for rows in found[name][1:]),
                    *(_share(rows, "refused_honest") for rows in found[name][1:]),
                ]
                for name in ("cosine", "loss")
            ],
            "Share of updates refused:",
        ),
        _levels(results, clean),
    ]
    targets = [_within(attack, i, loss) for i, attack in enumerate(ATTACKS, start=1)]
    least = min(success, key=lambda name: success[name][-1])
    words = f"{least}: {success[least][-1]:.2f} times, with a loss of {100 * (loss[least][-1] - 1):+.1f} %"
    targets.append(Target("backdoor: at most 1.5 times the clean rate", words, success[least][-1] <= 1.5))
    chosen = {name: rows[0]["rate"] for name, rows in ((n, found[n][0]) for n in (OURS, "trimmed_mean"))}
    notes = [f"Rates of the clean arms: {chosen[OURS]:g} (products), {chosen['trimmed_mean']:g} (factors)."]
    if (chosen[OURS], chosen["trimmed_mean"]) != tuple(RATE.values()):
        notes.append(f"**The attacked arms ran at {RATE}: not at these. Change RATE.**")
    figures = {"loss": loss, "success": success, "clean": [_loss(row) for row in clean]}
    return Answer(tables, targets, notes, figures)


def _levels(results: Mapping[str, Any], clean: Sequence[Mapping[str, Any]]) -> Table:
    """The clean run among the baselines, on the same six."""
    rows = []
    for name in ("base", "local", "central"):
        each = zip(outcomes(results, name), clean, strict=True)
        rows.append([name, f"{mean(mean(o.test[who] for who in row['test']) for o, row in each):.3f}"])
    rows.append(["federation without attackers", f"{mean(_loss(row) for row in clean):.3f}"])
    return Table(["arm", "test loss"], rows, "Levels, on the same six (central: pooled with all eight, all honest):")


def _within(attack: str, place: int, loss: Mapping[str, Sequence[float]]) -> Target:
    best = min(loss, key=lambda name: loss[name][place])
    words = f"{best} {100 * (loss[best][place] - 1):+.1f} %, none {100 * (loss['none'][place] - 1):+.1f} %"
    return Target(f"{attack}: the honest within 2 % of the clean run", words, loss[best][place] <= 1.02)


def _over(rows: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]], measure: Any) -> float:
    """Mean over seeds of the ratio to the clean run of the same seed."""
    return mean(measure(row) / measure(other) for row, other in zip(rows, clean, strict=True))


def _loss(row: Mapping[str, Any]) -> float:
    return mean(row["test"].values())


def _likely(row: Mapping[str, Any]) -> float:
    return float(row["probability"])


def _share(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"{100 * mean(row[key] for row in rows):.0f} %"
