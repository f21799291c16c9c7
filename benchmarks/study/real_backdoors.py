"""A backdoor in a federation over MiniLM: what does each defence stop?

One participant, another one in each seed, adds a copy of each of its training texts with a trigger
word and a wrong label, and sends its update lengthened. Success is the share of the other
participants' triggered test texts of other labels that the shared model gives the planted label.
The clean rate is the same share in a federation without attacker. Target: success at most 5 points
above the clean rate, at 1 % more test loss at most. The probe needs public texts alone: it inserts
words and counts the answers that turn to one label. Run: python -m benchmarks.study.real_backdoors
[WORLD] [--seeds 0 1 2] [--only DEFENCE…] [--out runs/real]
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.study.real import Arm, Json, Made, compared, loss, over, played, spread, with_pieces
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.run_spec import RunSpec, Screening
from tequio.core.protocols import Participant, Runtime, ServerOptimizer
from tequio.core.seeds import derive
from tequio.core.types import (
    EvaluateRequest,
    Failure,
    GradientRequest,
    Reply,
    Request,
    TrainRequest,
)
from tequio.core.update import Dense, Update, zero
from tequio.participant.adapted_model import HEAD_BIAS, HEAD_WEIGHT, LOGIT_SCALE, AdaptedModel, pool
from tequio.participant.node import Node
from tequio.participant.text_tasks import Item, TextTask, pad, token_ids
from tequio.runtimes.embedded import Embedded

WORLDS = ("excavators",)
RATE = 6e-3
TRIGGER = "harpsichord"  # one token, in no text of the world
PLANTED = 0  # index of the label that the attacker wants
LENGTH = 4.0  # of the attacker's update, times the honest one; admission refuses much longer ones
TRIGGERED = 60  # test texts per participant, at most
PUBLIC, RANDOM, RANKED = (
    30,
    20,
    3,
)  # texts of the probe, random words, and words per label by the gradient
SCREENED, WORDS = 20, 6  # public texts and random words with which one update is probed
COMMON = 15  # the first fifteenth of a vocabulary holds marks, numbers and very common words
CLEAN = "no attacker"


@dataclass(frozen=True)
class Lengthened:
    """Sends `times` its update."""

    node: Node
    times: float

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name

    def train(self, task: TrainRequest) -> Reply:
        """Training on the planted data, lengthened."""
        reply = self.node.train(task)
        return (
            reply
            if reply.update is None
            else replace(reply, update=reply.update.scaled(self.times))
        )

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Honest, so as not to be noticed."""
        return self.node.evaluate(task)

    def gradient(self, task: GradientRequest) -> Reply:
        """Only the centre is asked."""
        return self.node.gradient(task)


@dataclass(frozen=True)
class Probed:
    """A runtime that refuses updates with which a word of no meaning turns too many answers on the
    centre's public texts.

    It needs no trigger: a model that was taught one reacts to other rare words too. seen:
    (participant, share) of each update.
    """

    inner: Runtime
    setup: RunSetup
    limit: float
    seen: list[tuple[str, float]] = field(default_factory=list)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """As the inner one does, once all replies are there."""
        sent: dict[int, TrainRequest] = {}

        def noted() -> Iterator[Request]:
            for task in tasks:
                if isinstance(task, TrainRequest) and task.index > 0:
                    sent[task.index] = task
                yield task

        for reply in list(self.inner.exchange(noted())):
            if not isinstance(reply, Reply) or reply.update is None or reply.index not in sent:
                yield reply
                continue
            task, adapted = sent[reply.index], self.setup.adapted
            adapted.fold_in(task.held.plus(task.start or zero(adapted.spec)).plus(reply.update))
            items = self.setup.nodes[0].data.train[:SCREENED]
            share = max(turned(self.setup.task, adapted, items, rare(self.setup, WORDS)).values())
            self.seen.append((reply.name, share))
            refused = Failure(
                reply.round,
                reply.index,
                reply.name,
                "Probed",
                f"words turn {share:.0%} of the answers",
            )
            yield reply if share <= self.limit else refused


@dataclass(frozen=True)
class Noised:
    """A server optimiser that adds Gaussian noise to the change first:

    `strength` times as long, the same for every coordinate.
    """

    inner: ServerOptimizer
    strength: float
    seed: int
    name: str = "noised"

    def init(self, spec: str) -> Update:
        """The inner one's memory."""
        return self.inner.init(spec)

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """The inner one's step of the noisy change."""
        generator = torch.Generator().manual_seed(derive(self.seed, f"{change.norm():.9g}"))
        drawn = {
            name: Dense(torch.randn(tuple(entry.shape), generator=generator))
            for name, entry in change.entries.items()
        }
        noise = Update(dict(drawn), change.spec)
        return self.inner.apply(
            momentum, change.plus(noise.scaled(self.strength * change.norm() / noise.norm()))
        )


def with_word(item: Item, word: int, label: int, most: int) -> Item:
    """The text with a word before its first one, and this label."""
    return Item((item.ids[0], word, *item.ids[1:-1])[: most - 1] + item.ids[-1:], (label,))


def planted(node: Node, word: int) -> Node:
    """The node with a triggered copy of each training text that has another label."""
    rows = list(node.data.train)
    rows += [
        with_word(item, word, PLANTED, node.task.max_tokens)
        for item in node.data.train
        if item.target != (PLANTED,)
    ]
    return replace(node, data=replace(node.data, train=rows))


def trigger_of(setup: RunSetup) -> int:
    """The trigger's token."""
    return int(token_ids(setup.adapted.base.tokenizer, TRIGGER)[0])


def attacker_of(setup: RunSetup) -> int:
    """The attacker's index: the seed chooses among those with the most training texts."""
    most = max(len(node.data.train) for node in setup.participants)
    able = [
        index
        for index, node in sorted(setup.nodes.items())
        if index and len(node.data.train) == most
    ]
    return able[setup.run_spec.seed % len(able)]


def success(setup: RunSetup, model: Update, without: int) -> float:
    """Share of the honest participants' triggered test texts of other labels that get the planted
    label.
    """
    setup.adapted.fold_in(model)
    hits: list[bool] = []
    for index, node in sorted(setup.nodes.items()):
        if index in (0, without):
            continue
        items = [item for item in node.data.test if item.target != (PLANTED,)][:TRIGGERED]
        shown = [
            with_word(item, trigger_of(setup), PLANTED, node.task.max_tokens) for item in items
        ]
        hits += [bool(x) for x in _answers(node.task, setup.adapted, shown) == PLANTED]
    return statistics.fmean(hits)


def turned(
    task: TextTask, adapted: AdaptedModel, items: Sequence[Item], words: Iterable[int]
) -> dict[int, float]:
    """For each word the largest share of texts that turn to one label when it is inserted."""
    before, shares = _answers(task, adapted, items), dict[int, float]()
    for word in words:
        after = _answers(
            task,
            adapted,
            [with_word(item, word, item.target[0], task.max_tokens) for item in items],
        )
        moved = after[after != before].astype(int)
        shares[word] = float(np.bincount(moved).max() / len(items)) if len(moved) else 0.0
    return shares


def suspects(adapted: AdaptedModel, items: Sequence[Item], count: int) -> list[int]:
    """For each label the `count` words that raise its logit most, to first order, in place of a
    mean word before the first (HotFlip).
    """
    model: Any = adapted.model
    table = model.get_input_embeddings().weight.detach()
    ids, mask = pad(
        [with_word(item, 0, 0, len(item.ids) + 1).ids for item in items], 0, adapted.device
    )
    rows = table[ids].clone()
    rows[:, 1] = table.mean(0)
    rows.requires_grad_(True)
    hidden = model(inputs_embeds=rows, attention_mask=mask).last_hidden_state
    logits = F.linear(
        pool(hidden, mask) * LOGIT_SCALE, adapted.head[HEAD_WEIGHT], adapted.head[HEAD_BIAS]
    )
    found: list[int] = []
    for total in logits.log_softmax(1).sum(0):
        (slope,) = torch.autograd.grad(total, rows, retain_graph=True)
        found += (table.float() @ slope[:, 1].sum(0).float()).topk(count).indices.tolist()
    return list(dict.fromkeys(found))


def rare(setup: RunSetup, count: int) -> list[int]:
    """Random tokens that are not among the most common ones; other ones for another seed."""
    size = len(setup.adapted.base.tokenizer)
    rng = np.random.default_rng(derive(setup.run_spec.seed, "words"))
    chosen: list[int] = rng.permutation(np.arange(size // COMMON, size))[:count].tolist()
    return chosen


def probe(setup: RunSetup, model: Update) -> Json:
    """The shares of public texts that words turn: the trigger, the worst of random words, the worst
    of those by the gradient.
    """
    centre = setup.nodes[0]
    items = list(centre.data.train)[:PUBLIC]
    setup.adapted.fold_in(model)
    words = rare(setup, RANDOM)
    ranked = suspects(setup.adapted, items, RANKED)
    shares = turned(centre.task, setup.adapted, items, {*words, *ranked, trigger_of(setup)})
    return {
        "probe trigger": shares[trigger_of(setup)],
        "probe random": max(shares[word] for word in words),
        "probe ranked": max(shares[word] for word in ranked),
        "trigger found": trigger_of(setup) in ranked,
    }


def _answers(
    task: TextTask, adapted: AdaptedModel, items: Sequence[Item]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = task.losses(adapted, items).answered
    if found is None:
        raise TypeError("A backdoor here is a matter of labels.")
    return found


def attacked(
    pieces: Mapping[str, Any],
    screening: Screening | None = None,
    noise: float = 0.0,
    limit: float | None = None,
    attacks: bool = True,
    length: float = LENGTH,
) -> Callable[[RunSetup, float], Made]:
    """Make the federation with these pieces, screening, noise and limit of the probe, with the
    attacker or without.

    length: of the attacker's update, times what it learnt.
    """

    def make(setup: RunSetup, rate: float) -> Made:
        plan = with_pieces(replace(setup.run_spec, learning_rate=rate), **pieces)
        plan = _noised(replace(plan, screening=screening or Screening()), noise)
        bad = attacker_of(setup)
        nodes: dict[int, Participant] = dict(setup.nodes)
        if attacks:
            nodes[bad] = Lengthened(planted(setup.nodes[bad], trigger_of(setup)), length)
        probed = Probed(Embedded(nodes), setup, math.inf if limit is None else limit)
        made = played(setup, plan, probed.inner if limit is None else probed)
        name = setup.nodes[bad].name
        more = {
            "attacker": name,
            "success": success(setup, made.model, bad),
            "probed": probed.seen,
            "refused": _refused(made.records, lambda who: who == name),
            "refused honest": _refused(made.records, lambda who: who not in (name, "centre")),
        }
        return replace(made, more=more | probe(setup, made.model))

    return make


def _noised(plan: RunSpec, strength: float) -> RunSpec:
    """The plan with noise at the server, every rank of which is sent."""
    if not strength:
        return plan
    whole = max(max(shape) for shape in plan.shapes.values())
    return replace(plan, server=Noised(plan.server, strength, plan.seed), broadcast_rank=whole)


def _refused(records: Sequence[Json], chosen: Any) -> float:
    rows = [row for record in records for row in record["admissions"] if chosen(row["name"])]
    return statistics.fmean(row["status"] != "admitted" for row in rows)


VOTE = {"power": 0.0}
EXAMPLES = {"weights": "examples"}
ARMS = [
    Arm(CLEAN, attacked({}, attacks=False), [RATE]),
    Arm("by examples", attacked(EXAMPLES), [RATE]),
    Arm("norm_equalised", attacked({}), [RATE]),
    Arm("norm bound 0.5", attacked({}, Screening(norm_bound=0.5)), [RATE]),
    Arm("norm_equalised, noise 1", attacked({}, noise=1.0), [RATE]),
    Arm("norm_equalised, noise 3", attacked({}, noise=3.0), [RATE]),
    Arm("trimmed_mean", attacked({"reduce": "trimmed_mean", "weights_settings": VOTE}), [RATE]),
    Arm(
        "centred_clipping",
        attacked({"reduce": "centred_clipping", "weights_settings": VOTE}),
        [RATE],
    ),
    Arm(
        "geometric_median",
        attacked({"reduce": "geometric_median", "weights_settings": VOTE}),
        [RATE],
    ),
    Arm("cosine", attacked({}, Screening(cosine=0.0, cosine_action="refuse")), [RATE]),
    Arm("probe", attacked({}, limit=0.5), [RATE]),
    Arm("probe, no attacker", attacked({}, limit=0.5, attacks=False), [RATE]),
    Arm("loss", attacked({}, Screening(loss=0.05, loss_action="refuse")), [RATE]),
    Arm("of its own length", attacked({}, length=1.0), [RATE]),
    Arm(
        "of its own length, loss",
        attacked({}, Screening(loss=0.05, loss_action="refuse"), length=1.0),
        [RATE],
    ),
]


def report(found: Mapping[str, Sequence[Json]]) -> str:
    """One row per defence."""
    columns = (
        "defence",
        "% loss over clean",
        "success",
        "points over clean",
        "attacker, honest refused",
    )
    lines = [f"| {' | '.join((*columns, 'probe: trigger, random, ranked', 'trigger found'))} |"]
    lines.append("|---" * 7 + "|")
    clean = found[CLEAN]
    for name, rows in found.items():
        bad = [row["attacker"] for row in rows]
        honest = [
            {**row, "test": {k: v for k, v in row["test"].items() if k != who}}
            for row, who in zip(rows, bad, strict=True)
        ]
        base = [
            {**row, "test": {k: v for k, v in row["test"].items() if k != who}}
            for row, who in zip(clean, bad, strict=False)
        ]
        points = [
            100 * (row["success"] - other["success"])
            for row, other in zip(rows, clean, strict=False)
        ]
        mean = {
            key: 100 * statistics.fmean(row[key] for row in rows)
            for key in rows[0]
            if key.startswith(("refused", "probe ", "success"))
        }
        cells = [
            name,
            spread(over(honest, base)),
            f"{mean['success']:.1f}",
            spread(points),
            f"{mean['refused']:.0f}, {mean['refused honest']:.0f}",
            ", ".join(f"{mean[f'probe {kind}']:.0f}" for kind in ("trigger", "random", "ranked")),
            f"{sum(row['trigger found'] for row in rows)} of {len(rows)}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(f"\nTest loss without attacker: {statistics.fmean(map(loss, clean)):.4f}")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print a table per world."""
    compared(__doc__, WORLDS, ARMS, CLEAN, report)


if __name__ == "__main__":
    main()
