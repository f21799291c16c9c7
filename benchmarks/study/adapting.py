"""A newcomer on real worlds: how many labelled examples does it save by starting from what the
others share?

One participant stays out, another one in each seed; the others federate. It then adapts with k
examples of its own, alone from the base (a grid of rates), from the shared model (fine-tuned, and
taken a part of the way, as `tequio adapt` does), and from the other STARTS. All choose on the same
validation texts, and are measured on test; alone makes three times the steps. Texts that no measure
uses go from the newcomer's test file to its training file, so that alone can be measured up to 256
examples. Results are kept in --out. Run: python -m benchmarks.study.adapting WORLD… [--seeds 0 1 2]
[--rate 6e-3] [--starts shared …] [--out runs/adapting]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.joining import ENCODER, federated, written
from benchmarks.study.worlds.catalogue import WORLDS
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import AlgorithmSection, Federation
from tequio.coordinator.round import open_state, run_round, shared_model
from tequio.core.update import Update, zero
from tequio.participant.choice import private_share
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget
from tequio.runtimes.embedded import Embedded

EXAMPLES = (0, 8, 16, 64, 256)
PRIVATE = (1e-3,)
RANK, EPOCHS, LEAST, CHECKS = 8, 6, 24, 6  # of every fit; LEAST: the fewest steps of one
TESTED = 100  # texts that the newcomer's test file keeps, at least
LAST = 3  # checkpoints of the shared model that are averaged
STRETCHES = (-0.5, 0.5, 1.0)  # steps along a participant's adapter, when coefficients are sought
STARTS = ("shared", "average", "nearest", "subspace", "reptile", "fomaml")


def main() -> None:
    """Run what is missing, and print each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=6e-3, help="the federation's")
    parser.add_argument("--starts", nargs="+", default=["shared"], choices=STARTS)
    parser.add_argument("--out", type=Path, default=Path("runs/adapting"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for world in chosen.worlds:
        found = [one(world, seed, chosen.rate, chosen.starts, chosen.out) for seed in chosen.seeds]
        print(summary(world, found), flush=True)


def one(world: str, seed: int, rate: float, starts: Sequence[str], out: Path) -> dict[str, Any]:
    """The curves of one newcomer, those of further starts beside those kept in `out`."""
    path = out / f"{world}-{seed}.json"
    found: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"curves": {}, "cpu": 0.0}
    )
    missing = [start for start in ("alone", *starts) if start not in found["curves"]]
    if not missing:
        return found
    begin = time.process_time()
    config = written(world, seed, out / f"{world}-{seed}")
    names = [entry.name for entry in config.participants]
    who = names[seed % len(names)]
    give_more(out / f"{world}-{seed}" / "data" / who, max(EXAMPLES))
    others = config.model_copy(
        update={"participants": [e for e in config.participants if e.name != who]}
    )
    setup = build(config)
    newcomer = Newcomer(next(node for node in setup.participants if node.name == who), seed)
    made = models(others, [start for start in missing if start != "alone"], rate, seed)
    most = len(newcomer.node.data.train)
    for start in missing:
        curve = found["curves"].setdefault(start, {})
        for k in sorted({min(k, most) for k in EXAMPLES}):
            model = (
                newcomer.alone(k) if start == "alone" else newcomer.started(made[start], start, k)
            )
            curve[str(k)] = newcomer.test(model)
    found |= {
        "world": world,
        "seed": seed,
        "newcomer": who,
        "cpu": found["cpu"] + time.process_time() - begin,
    }
    path.write_text(json.dumps(found))
    print(f"{world}, seed {seed}: {', '.join(missing)}", flush=True)
    return found


def give_more(data: Path, most: int) -> None:
    """Move texts from the end of the newcomer's test file to its training file, up to `most`;

    TESTED stay.
    """
    train, test = (
        (data / f"{part}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        for part in ("train", "test")
    )
    stay = max(min(TESTED, len(test)), len(test) - max(0, most - len(train)))
    (data / "train.jsonl").write_text("".join([*train, *test[stay:]]), encoding="utf-8")
    (data / "test.jsonl").write_text("".join(test[:stay]), encoding="utf-8")


Started = tuple[Update, list[Update]]
"""A model to start from, and what each participant adds to it for itself (for the starts that
use it).
"""


def models(others: Federation, starts: Sequence[str], rate: float, seed: int) -> dict[str, Started]:
    """What the newcomer can start from, of the participants that federated without it."""
    if not starts:
        return {}
    setup = build(others)
    out: dict[str, Started] = {}
    if set(starts) & {"shared", "average", "nearest", "subspace"}:
        shared, average = checkpoints(setup, rate)
        out |= {"shared": (shared, []), "average": (average, [])}
        if set(starts) & {"nearest", "subspace"}:
            tails = [own(node, shared, seed) for node in setup.participants]
            out |= {"nearest": (shared, tails), "subspace": (shared, tails)}
    if "reptile" in starts:
        algorithm = AlgorithmSection(**(others.algorithm.model_dump() | {"server": "reptile"}))
        setup = build(others.model_copy(update={"algorithm": algorithm}))
        out["reptile"] = federated(setup, rate)[1], []
    if "fomaml" in starts:
        local = others.local.model_copy(update={"method": "fomaml"})
        setup = build(others.model_copy(update={"local": local}))
        out["fomaml"] = federated(setup, rate)[1], []
    return out


def checkpoints(setup: RunSetup, rate: float) -> tuple[Update, Update]:
    """The shared model of least validation loss, and the mean of those after each of the last
    rounds.
    """
    plan, runtime, after = (
        replace(setup.run_spec, learning_rate=rate),
        Embedded(setup.nodes),
        list[Update](),
    )
    state, _ = open_state(plan, runtime)
    while state.round < plan.rounds and state.stale_rounds < plan.patience:
        state, _ = run_round(state, plan, runtime)
        after.append(shared_model(state.shared, plan))
    last = after[-LAST:]
    mean = last[0].scaled(1.0 / len(last))
    for model in last[1:]:
        mean = mean.plus(model.scaled(1.0 / len(last)))
    return shared_model(state.best, plan), mean


def own(node: Node, shared: Update, seed: int) -> Update:
    """What a participant adds to the shared model for itself: two epochs at home, to the end."""
    steps = max(4, round(2 * len(node.data.train) / node.batch_size))
    data = (node.data.train, node.data.validation)
    return fit(node, shared, data, FitBudget(RANK, steps, PRIVATE, 1), seed, whole=True).tail


class Newcomer:
    """The participant that stayed out, and how it makes a model from its first k examples."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node, self.seed = node, seed

    def test(self, model: Update) -> float:
        """Loss on its test texts."""
        return score(self.node, model, self.node.data.test).scores().loss

    def alone(self, k: int) -> Update:
        """From the base: the best of the rates and checkpoints."""
        if k == 0:
            return zero(self.node.adapted.spec)
        steps = max(LEAST, round(EPOCHS * k / self.node.batch_size))
        budget = FitBudget(RANK, steps, ENCODER["local_rates"], CHECKS)
        return fit(self.node, zero(self.node.adapted.spec), self._data(k), budget, self.seed).tail

    def started(self, made: Started, start: str, k: int) -> Update:
        """From what the others share: a start chosen on validation data, then adapted with k
        examples.
        """
        spec = self.node.adapted.spec
        model, *tails = (Update(part.entries, spec) for part in (made[0], *made[1]))
        if start == "nearest":
            model = min([model, *(model.plus(tail) for tail in tails)], key=self._validation)
        if start == "subspace":
            model = self._combined(model, tails)
        return self._adapted(model, k) if k else model

    def _adapted(self, start: Update, k: int) -> Update:
        """Fine-tune for two epochs and take a part of the way, as a participant's rule does."""
        data = self._data(k)
        steps = max(4, round(2 * k / self.node.batch_size))
        tuned = fit(
            self.node, start, data, FitBudget(RANK, steps, PRIVATE, 1), self.seed, whole=True
        )
        evaluated = {0.0: tuned.before}
        for share in (0.5, 1.0):
            evaluated[share] = score(self.node, start.plus(tuned.tail.scaled(share)), data[1])
        return start.plus(tuned.tail.scaled(private_share(evaluated, self.seed)[0]))

    def _combined(self, start: Update, tails: Sequence[Update]) -> Update:
        """Seek the coefficients of the participants' adapters, one after another, by validation
        loss.
        """
        best, least = start, self._validation(start)
        for tail in tails:
            tried = [best.plus(tail.scaled(stretch)) for stretch in STRETCHES]
            losses = [self._validation(model) for model in tried]
            if min(losses) < least:
                best, least = tried[losses.index(min(losses))], min(losses)
        return best

    def _validation(self, model: Update) -> float:
        return score(self.node, model, self.node.data.validation).scores().loss

    def _data(self, k: int) -> tuple[Sequence[Any], Sequence[Any]]:
        return self.node.data.train[:k], self.node.data.validation


def needed(alone: Mapping[str, float], loss: float) -> float:
    """How many examples alone needs for that loss, between those measured in log k; infinite where
    none was enough.
    """
    points = sorted((int(k), value) for k, value in alone.items())
    before: tuple[int, float] | None = None
    for k, value in points:
        if value <= loss:
            if before is None or before[1] <= value or k == 0:
                return float(k)
            share = (before[1] - loss) / (before[1] - value)
            low = math.log(max(1, before[0]))
            return math.exp(low + share * (math.log(k) - low))
        before = (k, value)
    return math.inf


def summary(world: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The curves, and how many times fewer examples, in Markdown."""
    lines = [
        f"## {world}: newcomers {', '.join(r['newcomer'] for r in found)} (test loss, mean over "
        "seeds)",
        "",
    ]
    counts = sorted({int(k) for r in found for k in r["curves"]["alone"]})
    common = [k for k in counts if all(str(k) in r["curves"]["alone"] for r in found)]
    lines += [
        "| examples | " + " | ".join(map(str, common)) + " |",
        "|---" * (len(common) + 1) + "|",
    ]
    names = [name for name in ("alone", *STARTS) if all(name in r["curves"] for r in found)]
    for name in names:
        cells = [
            f"{statistics.fmean(r['curves'][name][str(k)] for r in found):.3f}" for k in common
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name in names[1:]:
        for k in (0, 8, 16):
            needs = [_need(r["curves"], name, k) for r in found]
            lines.append(f"- from {name} with {k}: alone needs {', '.join(needs)} examples")
    return "\n".join(lines) + f"\n- CPU: {statistics.fmean(r['cpu'] for r in found):.0f} s a seed\n"


def _need(curves: Mapping[str, Mapping[str, float]], start: str, k: int) -> str:
    """The examples that alone needs for what this start has with k; beyond those measured, how many
    were.
    """
    most = max(int(n) for n in curves["alone"])
    need = needed(curves["alone"], curves[start][str(k)])
    return f"more than {most}" if math.isinf(need) else f"{need:.0f}"


if __name__ == "__main__":
    main()
