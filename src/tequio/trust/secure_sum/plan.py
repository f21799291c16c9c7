"""The part that all secure sums of a run share, and which sum a request means: both sides derive it
from what they agreed on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tequio.core.canonical import canonical_json, digest_update
from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal, refuse_first
from tequio.core.types import EvaluateRequest, SumRequest, Trained, TrainRequest
from tequio.trust.secure_sum.agreement import Context, Layout, Policy
from tequio.trust.secure_sum.updates import Places, asked_model

LARGEST_LOSS = 64.0  # nats; a larger loss is sent as this
# rates of the optimizer that one value can move in a step: AdamW's √((1 − β₁)²/(1 − β₂)/(1 −
# β₁²/β₂)) = 7.3
FARTHEST = 8.0

LEAST_BOUND = 1e-9  # of a value: at the rate 0 nothing moves, and a grid still needs a step


@dataclass(frozen=True)
class SumPlan:
    """What the members of all sums of a run agree on.

    Args:
        run: the id of the run.
        federation: digest of federation.toml.
        policy: who takes part.
        ranks: the rank of each member, by index.
        steps: local steps per round of each member.
        shapes: (m, n) of each adapted module.
        heads: shapes of the tensors of the head.
        scale: what multiplies B·A.
        accuracy: whether a model's answers can be right or wrong (classification).
        rounds: rounds of training; there is no sum of a later one.
        looks: the last round with a look at validation data: points between base and shared model
            come after the rounds.
    """

    run: str
    federation: str
    policy: Policy
    ranks: Mapping[int, int]
    steps: Mapping[int, int]
    shapes: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, ...]]
    scale: float
    accuracy: bool
    rounds: int
    looks: int

    @cached_property
    def tiers(self) -> tuple[int, ...]:
        """Return the different ranks, rising."""
        return tuple(sorted(set(self.ranks.values())))

    def places(self, trained: Trained) -> Places:
        """Return where values stand in a round that trains these factors."""
        return Places(self.tiers, self.shapes, self.heads, trained)

    def context(self, asked: SumRequest) -> Context:
        """Return the sum that a request is a step of. Raises ProtectionError for a round beyond
        what was agreed."""
        validates = asked.purpose == "validate"
        over = (
            not (0 if validates else 1) <= asked.round <= (self.looks if validates else self.rounds)
        )
        refuse_first(ProtectionError, {"secure-sum-over": over}, round=asked.round)
        layout = self._validation() if validates else self._training(asked.trained, asked.rate)
        place = (asked.purpose, asked.round, asked.attempt)
        return Context(self.run, self.federation, asked.head, *place, self.policy, layout)

    def _training(self, trained: Trained, rate: float) -> Layout:
        sizes = self.places(trained).sizes
        covers = {index: self.tiers.index(rank) + 1 for index, rank in self.ranks.items()}
        figures = {
            "loss_first": LARGEST_LOSS,
            "loss_last": LARGEST_LOSS,
            "clipped": float(sum(sizes)),
        }
        farthest = max(FARTHEST * rate * max(self.steps.values()), LEAST_BOUND)
        return Layout(sizes, covers, farthest, figures)

    def _validation(self) -> Layout:
        figures = {"loss": LARGEST_LOSS} | ({"accuracy": 1.0} if self.accuracy else {})
        return Layout((0,), dict.fromkeys(self.ranks, 1), 1.0, figures)

    def asked(self, step: SumRequest) -> bytes:
        """Return the digest of what a step asks to train or evaluate: all in it that is the same
        for everybody.

        Raises ProtectionError where the request in it is not the one that the step says it is.
        """
        request = step.request
        if isinstance(request, TrainRequest) and step.purpose == "train":
            same = (request.trained, request.learning_rate) == (step.trained, step.rate)
            own = (request.rank, request.steps) == (self.ranks[step.index], self.steps[step.index])
            plain: dict[str, object] = {
                "model": asked_model(request, self.scale),
                "method": request.method,
                "method_settings": dict(request.method_settings),
                "terms": dict(request.terms),
                "upload": request.upload,
                "gradient": "" if request.gradient is None else digest_update(request.gradient),
            }
        elif isinstance(request, EvaluateRequest) and step.purpose == "validate":
            same = own = True
            plain = {"model": digest_update(request.held)}
        else:
            raise refusal(ProtectionError, "secure-sum-layout")
        if not same or not own or (request.round, request.index) != (step.round, step.index):
            raise refusal(ProtectionError, "secure-sum-layout")
        return hashlib.sha256(canonical_json(plain)).digest()
