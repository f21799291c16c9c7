"""What a participant does in a whole run, counted in steps and tokens, and how long that takes at
given speeds.

Speeds come from a probe of real steps on this machine, or from a device of the catalogue (see
rates.py). Arithmetic only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True)
class Fit:
    """So many steps of training, with evaluations on validation in between."""

    steps: int
    rank: int
    checks: int


@dataclass(frozen=True)
class Work:
    """One participant (or the centre). Tokens are padded ones, for those are computed.

    step_tokens: of a batch, mean; length: of a sequence in it, mean. validation, test: tokens of
        one pass. evaluations: passes over
    validation in the rounds; looks: those for candidates of the personal model beside the fits'
    own; tests: passes over test.
    bytes_up, bytes_down: a round.
    """

    name: str
    rounds: int
    steps: int
    rank: int
    step_tokens: float
    length: float
    validation: float
    test: float
    evaluations: int
    fits: tuple[Fit, ...] = ()
    looks: int = 0
    tests: float = 0
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    uplink_mbit: float | None = None
    full: bool = False
    examples: int = 0
    local_fits: int = 0  # how many of the fits, the first ones, are of the model trained alone

    def alone(self) -> Work:
        """The same participant without the federation: the local model only, and its test."""
        own = self.fits[: self.local_fits]
        return replace(
            self, rounds=0, evaluations=0, fits=own, looks=0, tests=1, bytes_up=0.0, bytes_down=0.0
        )

    def in_rounds(self) -> Work:
        """What the rounds ask, without a personal model."""
        return replace(self, fits=(), looks=0, tests=0)

    @property
    def trained_tokens(self) -> float:
        """Padded tokens of all steps of training."""
        return self.step_tokens * (self.rounds * self.steps + sum(fit.steps for fit in self.fits))


@dataclass(frozen=True)
class Times:
    """Seconds in a whole run: of the rounds' training and evaluation, of the personal model, and of
    sending.
    """

    train: float
    evaluate: float
    personal: float
    network: float

    @property
    def work(self) -> float:
        """At work: without sending."""
        return self.train + self.evaluate + self.personal

    @property
    def total(self) -> float:
        """All."""
        return self.work + self.network


class Rates(Protocol):
    """How fast a machine is."""

    def step(self, work: Work, rank: int) -> float:
        """Seconds of one step of training at this rank."""

    def evaluation(self, work: Work, tokens: float) -> float:
        """Seconds of evaluating so many padded tokens."""

    @property
    def turn(self) -> float:
        """Seconds that a round takes beside its steps: taking the model in, attaching and taking
        factors.
        """

    @property
    def watts(self) -> float:
        """Mean power at work."""


def times(work: Work, rates: Rates) -> Times:
    """The sum over rounds, evaluations, fits and candidates."""
    step = rates.step(work, work.rank)
    look = rates.evaluation(work, work.validation) if work.validation else 0.0
    personal = sum(
        f.steps * rates.step(work, f.rank) + f.checks * look + rates.turn for f in work.fits
    )
    personal += work.looks * look + work.tests * (
        rates.evaluation(work, work.test) if work.test else 0.0
    )
    megabits = 8e-6 * work.bytes_up * work.rounds
    return Times(
        train=work.rounds * (work.steps * step + rates.turn),
        evaluate=work.evaluations * look,
        personal=personal,
        network=megabits / work.uplink_mbit if work.uplink_mbit else 0.0,
    )
