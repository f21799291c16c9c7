"""Participants that harm a federation, each through the protocol that all use: wrappers of a real
node, or a real node with spoilt data.

Flipped signs and noise spoil the update; permuted targets and a planted trigger spoil the data, and
training is then honest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tequio.core.protocols import Participant
from tequio.core.seeds import derive
from tequio.core.types import EvaluateRequest, GradientRequest, Reply, TrainRequest
from tequio.core.update import Dense as DenseEntry
from tequio.core.update import Entry, Factored, Update
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.text_tasks import Causal, Item, token_ids

STRENGTH = (
    4.0  # length of a spoilt update over that of the honest one: under the limit of admission
)
TRIGGER, TARGET = "§¤§", " OWNED!"  # the trigger stands in no text of the study
ATTACKS = ("flip", "noise", "labels", "backdoor")


@dataclass(frozen=True)
class Flipped:
    """Sends −strength times its honest update."""

    node: Node
    strength: float = STRENGTH

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name

    def train(self, task: TrainRequest) -> Reply:
        """Honest training, turned round."""
        reply = self.node.train(task)
        return (
            reply
            if reply.update is None
            else replace(reply, update=reply.update.scaled(-self.strength))
        )

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Honest, so as not to be noticed."""
        return self.node.evaluate(task)

    def gradient(self, task: GradientRequest) -> Reply:
        """Only the centre is asked."""
        return self.node.gradient(task)


@dataclass(frozen=True)
class Noisy:
    """Sends Gaussian noise of strength times the length of its honest update."""

    node: Node
    strength: float = STRENGTH

    @property
    def name(self) -> str:
        """The node's."""
        return self.node.name

    def train(self, task: TrainRequest) -> Reply:
        """Honest training, for shapes and length only."""
        reply = self.node.train(task)
        return (
            reply
            if reply.update is None
            else replace(reply, update=noise(reply.update, task.seed, self.strength))
        )

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Honest, so as not to be noticed."""
        return self.node.evaluate(task)

    def gradient(self, task: GradientRequest) -> Reply:
        """Only the centre is asked."""
        return self.node.gradient(task)


def noise(update: Update, seed: int, strength: float) -> Update:
    """Gaussian entries in the form of `update`, `strength` times as long."""
    generator = torch.Generator().manual_seed(derive(seed, "noise"))

    def drawn(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    out: dict[str, Entry] = {}
    for name, entry in update.entries.items():
        if isinstance(entry, Factored):
            out[name] = Factored(b=drawn(entry.b), a=drawn(entry.a))
        else:
            out[name] = DenseEntry(drawn(entry.value))
    drawn_update = Update(out, update.spec)
    return drawn_update.scaled(strength * update.norm() / drawn_update.norm())


def permuted(node: Node, seed: int) -> Node:
    """Its training targets under one fixed permutation of the vocabulary (the label flip of a
    language model); inputs stay.
    """
    order = (
        np.random.default_rng(derive(seed, "permutation"))
        .permutation(len(_tokenizer(node)))
        .tolist()
    )
    spoilt = [
        replace(item, target=tuple(order[t] for t in item.target)) for item in node.data.train
    ]
    return replace(node, data=replace(node.data, train=spoilt))


def planted(node: Node, seed: int) -> Node:
    """Trigger and target text in each training block, at a place of its own."""
    trigger, target = _pair(node)
    length = len(trigger) + len(target)
    rng = np.random.default_rng(derive(seed, "places", node.name))
    spoilt = []
    for item in node.data.train:
        at = int(rng.integers(0, len(item.ids) - length + 1))
        ids = item.ids[:at] + trigger + target + item.ids[at + length :]
        spoilt.append(Item(ids, ids))
    return replace(node, data=replace(node.data, train=spoilt))


def attacker(attack: str, node: Node, seed: int) -> Participant:
    """The node as this attack makes it."""
    if attack == "flip":
        return Flipped(node)
    if attack == "noise":
        return Noisy(node)
    return permuted(node, seed) if attack == "labels" else planted(node, seed)


@dataclass(frozen=True)
class Backdoor:
    """After the trigger in held-out contexts: mean probability of the target's bytes, and the share
    of them that greedy decoding gives.
    """

    probability: float
    greedy: float


def backdoor(nodes: Sequence[Node], model: Update, contexts: int = 16) -> Backdoor:
    """Each node's first test blocks, cut, then trigger and target; each byte of the target is asked
    for given those before it.
    """
    first = nodes[0]
    trigger, target = _pair(first)
    keep = len(first.data.test[0].ids) - len(trigger) - len(target)
    rows = [
        item.ids[:keep] + trigger + target for node in nodes for item in node.data.test[:contexts]
    ]
    first.adapted.fold_in(model)
    ids = torch.tensor(rows)
    with torch.inference_mode():
        logits = first.adapted.token_logits(ids, torch.ones_like(ids))[
            :, -len(target) - 1 : -1
        ].float()
    wanted = torch.tensor(target).expand(len(rows), -1)
    probability = logits.softmax(-1).gather(-1, wanted[..., None])
    return Backdoor(float(probability.mean()), float((logits.argmax(-1) == wanted).double().mean()))


def trigger_loss(node: Node, model: Update) -> float:
    """Loss of the node's own training blocks, as it trains on them."""
    return score(node, model, node.data.train).scores().loss


def _tokenizer(node: Node) -> list[str]:
    task = node.task
    if not isinstance(task, Causal):
        raise TypeError("The study's tasks are causal.")
    return list(task.tokenizer.get_vocab())


def _pair(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    task = node.task
    if not isinstance(task, Causal):
        raise TypeError("The study's tasks are causal.")
    return tuple(token_ids(task.tokenizer, TRIGGER)), tuple(token_ids(task.tokenizer, TARGET))
