"""Question 7: two of eight participants attack: what stops what?

A pair of organisations (another one in each seed) turns its updates round, sends noise, trains on
permuted targets, or plants a trigger that is followed by a fixed text. Each defence runs against
each attack, at the rate that the federation without attackers prefers, and without attackers, for
what it costs. Two targets: the honest end within 2 % of the federation without attackers; after the
trigger the planted text is no more than 1.5 times as likely as there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import EXTENSIONS, Grid, Run, Setting
from benchmarks.study.attackers import ATTACKS, attacker, backdoor
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, mean, outcomes
from benchmarks.study.world import SCARCE, World, split
from tequio.config import AlgorithmSection
from tequio.coordinator.run_spec import Member, RunSpec, Screening
from tequio.core.protocols import Participant
from tequio.core.update import Update
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget

QUESTION = "two of eight attack: what stops what?"
SCENE = Scene(SCARCE, Setting(rounds=4, steps=5))
GRID: Grid = (2e-2, 4e-2, 8e-2)
RATE = {
    "product": 4e-2,
    "factors": 4e-2,
}  # of the clean arms on validation; `answer` says so if they choose another
ADAPT_RATE = 1e-2
NOBODY = "nobody"
ALL = (NOBODY, *ATTACKS)
HARD = (NOBODY, "flip", "labels", "backdoor")  # those that equal lengths do not stop


@dataclass(frozen=True)
class Defence:
    """Pieces, screening and the gate's margin.

    With a finite margin or a screen on losses the centre judges, and does not train.
    """

    algorithm: AlgorithmSection = field(default_factory=AlgorithmSection)
    screening: Screening = field(default_factory=Screening)
    gate_margin: float | None = None
    against: tuple[str, ...] = ALL
    # measured on the personal models: a private adapter over the shared model, trained on each
    # one's own data
    adapted: bool = False

    @property
    def judged(self) -> bool:
        """Whether public slices are needed."""
        return self.gate_margin is not None or self.screening.loss is not None


BY_EXAMPLES = AlgorithmSection(weights="examples")
ONE_VOTE = {"power": 0.0}
DEFENCES = {
    "norm_equalised": Defence(),
    "none": Defence(BY_EXAMPLES, against=("flip", "noise", "backdoor")),
    "norm_bound": Defence(BY_EXAMPLES, Screening(norm_bound=0.5), against=("flip",)),
    "gate": Defence(BY_EXAMPLES, gate_margin=1.1, against=("flip",)),
    "loss": Defence(screening=Screening(loss=2.6, loss_action="refuse"), against=HARD),
    "cosine": Defence(screening=Screening(cosine=0.0, cosine_action="refuse"), against=HARD),
    "cosine and loss": Defence(
        screening=Screening(cosine=0.0, cosine_action="refuse", loss=2.6, loss_action="refuse"),
        against=("flip", "labels"),
    ),
    "private adapter": Defence(adapted=True, against=("backdoor",)),
    "centred_clipping": Defence(
        AlgorithmSection(reduce="centred_clipping", weights_settings=ONE_VOTE),
        against=("flip", "backdoor"),
    ),
    "geometric_median": Defence(
        AlgorithmSection(reduce="geometric_median", weights_settings=ONE_VOTE),
        against=("flip", "backdoor"),
    ),
    "trimmed_mean": Defence(
        AlgorithmSection(reduce="trimmed_mean", weights_settings=ONE_VOTE),
        against=(NOBODY, "flip", "backdoor"),
    ),
}
OURS = "norm_equalised"
# Limits of cosine, loss and gate lie just beyond what the first seed shows without attackers: .003,
# 2.52 and 1.05


def jobs(quick: bool) -> dict[str, Job]:
    """Baselines, and each defence against attacks and against nobody."""
    scene = SCENE.shown(quick)
    made = baselines(scene)
    for name, defence in DEFENCES.items():
        rate = RATE["factors" if name == "trimmed_mean" else "product"]
        for attack in defence.against:
            tunes = attack == NOBODY and name in (OURS, "trimmed_mean") and not quick
            pieces = replace(defence, against=ALL)
            arguments = {
                "scene": scene,
                "defence": pieces,
                "attack": attack,
                "grid": GRID if tunes else (rate,),
            }
            made[f"{name}, {attack}"] = Job(run_defence, arguments)
    return made


def run_defence(scene: Scene, defence: Defence, attack: str, grid: Grid) -> list[dict[str, Any]]:
    """A seed a row: test losses of the honest, success of the backdoor, and who was refused how
    often.
    """
    out: list[dict[str, Any]] = []
    for seed in scene.seeds:
        world, pair = split(scene.world(seed))
        rates = (out[0]["rate"],) if out else grid
        more = EXTENSIONS if len(rates) > 1 else 0
        best = arms.tuned(lambda rate: _run(world, pair, scene, defence, attack, rate), rates, more)  # noqa: B023
        run = best.value
        models = {
            node.name: _personal(node, run, scene) if defence.adapted else run.model
            for node in world.participants
        }
        triggers = [backdoor([node], models[node.name]) for node in world.participants]
        bad = {node.name for node in pair} if attack != NOBODY else set()
        out.append(
            {
                "seed": seed,
                "rate": best.rate,
                "tried": {
                    f"{rate:g}": loss if math.isfinite(loss) else None
                    for rate, loss in best.tried.items()
                },
                "test": {
                    n.name: score(n, models[n.name], n.data.test).scores().loss
                    for n in world.participants
                },
                "probability": mean(t.probability for t in triggers),
                "greedy": mean(t.greedy for t in triggers),
                "public": {
                    k: score(world.centre, run.model, x).scores().loss
                    for k, x in world.centre.slices.items()
                },
                "best_round": run.state.best_round,
                "rounds_rejected": sum(not body["accepted"] for body in run.bodies),
                "refused_bad": _refused(run, bad),
                "refused_honest": _refused(run, {n.name for n in world.participants}),
            }
        )
    return out


def _personal(node: Node, run: Run, scene: Scene) -> Update:
    """The shared model with a private adapter of the steps of the rounds and at most rank 4."""
    rank = min(4, next(member.rank for member in run.run_spec.members if member.name == node.name))
    budget = FitBudget(
        rank, scene.setting.rounds * scene.setting.steps, (ADAPT_RATE,), scene.setting.rounds
    )
    return run.model.plus(
        fit(
            node, run.model, (node.data.train, node.data.validation), budget, run.run_spec.seed
        ).tail
    )


def _run(
    world: World, pair: Sequence[Node], scene: Scene, defence: Defence, attack: str, rate: float
) -> Run:
    """The six honest, and the pair as attackers unless the attack is nobody's."""
    run_spec = arms.plan_of(world, defence.algorithm, scene.setting, rate)
    nodes: dict[int, Participant] = dict(world.nodes)
    whole = scene.world(world.seed)
    if attack != NOBODY:
        members = list(run_spec.members)
        for node in pair:
            index = len(members) + 1
            nodes[index] = attacker(attack, node, world.seed)
            rank = whole.ranks[whole.participants.index(node)]
            members.append(Member(node.name, index, rank, scene.setting.steps))
        run_spec = replace(run_spec, members=tuple(members))
    return arms.play(_defended(run_spec, defence), nodes)


def _defended(run_spec: RunSpec, defence: Defence) -> RunSpec:
    """The centre, where it judges, is asked for one step a round that counts nothing (λ = 1)."""
    run_spec = replace(run_spec, screening=defence.screening)
    if not defence.judged:
        return run_spec
    margin = math.inf if defence.gate_margin is None else defence.gate_margin
    return replace(run_spec, centre=Member("centre", 0, 1, 1), gate_margin=margin)


def _refused(run: Run, names: set[str]) -> float | None:
    """Share of these participants' updates that stayed out."""
    rows = [row for body in run.bodies for row in body["admissions"] if row["name"] in names]
    return statistics.fmean(row["status"] != "admitted" for row in rows) if rows else None


def answer(results: Mapping[str, Any]) -> Answer:
    """Loss over the clean run's, the backdoor's likelihood over the clean run's, and refusals, for
    each defence and attack.
    """
    found = {
        name: {a: results[f"{name}, {a}"] for a in defence.against}
        for name, defence in DEFENCES.items()
    }
    clean = found[OURS][NOBODY]
    loss = {
        name: {a: _over(rows, clean, _loss) for a, rows in cells.items()}
        for name, cells in found.items()
    }
    success = {
        name: _over(cells["backdoor"], clean, _likely)
        for name, cells in found.items()
        if "backdoor" in cells
    }
    rows = []
    for name, cells in found.items():
        losses = [f"{100 * (loss[name][a] - 1):+.1f} %" if a in cells else "" for a in ALL]
        planted = found[name].get("backdoor", ())
        said = (
            [f"{success[name]:.1f}", f"{100 * mean(row['greedy'] for row in planted):.0f} %"]
            if planted
            else ["", ""]
        )
        rows.append([name, *losses, *said])
    title = (
        "Mean test loss of the honest, over that of norm_equalised without attackers; the "
        "planted text after the trigger:"
    )
    columns = ["defence", "nobody attacks", *ATTACKS, "times as likely", "bytes right"]
    tables = [Table(columns, rows, title), _refusals(found), _levels(results, clean)]
    targets = [_within(attack, loss) for attack in ATTACKS]
    least = min(success, key=lambda name: success[name])
    words = f"best is {least}: {success[least]:.1f} times"
    targets.append(
        Target(
            "backdoor: at most 1.5 times as likely as without attackers",
            words,
            success[least] <= 1.5,
        )
    )
    chosen = (clean[0]["rate"], found["trimmed_mean"][NOBODY][0]["rate"])
    notes = [f"Rates of the clean arms: {chosen[0]:g} (products), {chosen[1]:g} (factors)."]
    if chosen != tuple(RATE.values()):
        notes.append(f"**The other arms ran at {RATE}: not at these. Change RATE.**")
    return Answer(
        tables,
        targets,
        notes,
        {"loss": loss, "success": success, "clean": [_loss(row) for row in clean]},
    )


def _refusals(found: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> Table:
    """Whose updates the screens refused."""
    rows = []
    for name in ("cosine", "loss"):
        cells = [
            f"{_share(rows, 'refused_bad')}, {_share(rows, 'refused_honest')}"
            for a, rows in found[name].items()
            if a != NOBODY
        ]
        rows.append([name, _share(found[name][NOBODY], "refused_honest"), *cells])
    columns = ["screen", "honest, nobody attacks", *(f"{a}: attackers, honest" for a in HARD[1:])]
    return Table(columns, rows, "Share of updates refused:")


def _levels(results: Mapping[str, Any], clean: Sequence[Mapping[str, Any]]) -> Table:
    """The clean run among the baselines, on the same six."""
    rows = []
    for name in ("base", "local", "central"):
        each = zip(outcomes(results, name), clean, strict=True)
        rows.append(
            [name, f"{mean(mean(o.test[who] for who in row['test']) for o, row in each):.3f}"]
        )
    rows.append(["federation without attackers", f"{mean(_loss(row) for row in clean):.3f}"])
    return Table(
        ["arm", "test loss"],
        rows,
        "Levels, on the same six (central: pooled with all eight, all honest):",
    )


def _within(attack: str, loss: Mapping[str, Mapping[str, float]]) -> Target:
    tried = {name: cells[attack] for name, cells in loss.items() if attack in cells}
    best = min(tried, key=lambda name: tried[name])
    words = ", ".join(
        f"{name} {100 * (x - 1):+.1f} %"
        for name, x in tried.items()
        if name in ("none", OURS, best)
    )
    return Target(f"{attack}: the honest within 2 % of the clean run", words, tried[best] <= 1.02)


def _over(
    rows: Sequence[Mapping[str, Any]], clean: Sequence[Mapping[str, Any]], measure: Any
) -> float:
    """Mean over seeds of the ratio to the clean run of the same seed."""
    return mean(measure(row) / measure(other) for row, other in zip(rows, clean, strict=True))


def _loss(row: Mapping[str, Any]) -> float:
    return mean(row["test"].values())


def _likely(row: Mapping[str, Any]) -> float:
    return float(row["probability"])


def _share(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"{100 * mean(row[key] for row in rows):.0f} %"
