"""Give every participant its assignment, rank and steps, from its declared or measured hardware."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.profile import ParticipantProfile
from tequio.app.assembly.public_data import CENTRE
from tequio.config import Federation, HardwareSection
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.participant.choice import CHOICE_RULE
from tequio.participant.personal import Settings
from tequio.participant.personal_budget import FitBudget
from tequio.planning.allocation import RANK_COST, Assignment, Hardware, Workload, allocate
from tequio.trust.secure_sum.agreement import LEAST_MEMBERS


def allocate_all(
    context: ModelContext, profiles: Mapping[int, ParticipantProfile]
) -> dict[str, Assignment]:
    """Rank and steps of every participant from its hardware; the centre (index 0) makes as many
    steps as the median participant.
    """
    config, out = context.config, dict[str, Assignment]()
    for index in sorted(profiles, reverse=True):  # the centre comes last
        who = profiles[index]
        steps = full_steps(config, who.batches["train"])
        if index == 0:
            median = sorted(a.steps for a in out.values())[len(out) // 2]
            steps = (config.centre.steps if config.centre else None) or median
        hardware = build_hardware(who.name, who.hardware, who.speed, context.adapted.full)
        out[who.name] = _in_windows(
            config, index, allocate(hardware, build_workload(context, who, steps))
        )
    return out if config.privacy.mode == "open" else _masked(out)


def _masked(given: Mapping[str, Assignment]) -> dict[str, Assignment]:
    """The assignments of masked rounds: no rank above the one that enough participants train, for
    its sum would rest in every round.
    """
    ranks = sorted(
        (assignment.rank for name, assignment in given.items() if name != CENTRE), reverse=True
    )
    usable = ranks[min(LEAST_MEMBERS, len(ranks)) - 1]
    return {
        name: one if name == CENTRE or one.rank <= usable else _capped(one, usable)
        for name, one in given.items()
    }


def _capped(assignment: Assignment, rank: int) -> Assignment:
    """Return an assignment of a smaller rank, saying why."""
    facts = {"allotted": assignment.reason.as_record(), "rank": rank, "fewest": LEAST_MEMBERS}
    return replace(assignment, rank=rank, reason=Reason("allotted-masked", facts))


def full_steps(config: Federation, examples: int) -> int:
    """Local steps of a round before hardware is looked at."""
    epoch = math.ceil(examples / config.train.batch_size)
    wanted = round(epoch * config.train.local_epochs)
    return max(config.train.min_steps, min(config.train.max_steps, wanted))


def _in_windows(config: Federation, index: int, assignment: Assignment) -> Assignment:
    """The allotment, saying how often a participant that needs more than a window counts (buffered
    rounds).
    """
    window, seconds = config.train.round_seconds, assignment.seconds
    if (
        config.train.pace != "buffered"
        or index == 0
        or window is None
        or seconds is None
        or seconds <= window
    ):
        return assignment
    every = math.ceil(seconds / window)
    return replace(
        assignment,
        reason=Reason(
            "allotted-windows",
            {"allotted": assignment.reason.as_record(), "window": window, "every": every},
        ),
    )


def build_hardware(
    name: str, own: HardwareSection, measured: float | None, full: bool = False
) -> Hardware:
    """What a participant declares, its speed as measured where it is not declared. full: whole
    weights are trained.
    """
    if full and own.max_rank is not None:
        raise refusal(ConfigError, "rank-of-full", name=name, max_rank=own.max_rank)
    return Hardware(
        own.tokens_per_second or measured, own.uplink_mbit, own.memory_gib, own.max_rank
    )


def build_workload(context: ModelContext, profile: ParticipantProfile, steps: int) -> Workload:
    """What a round of `steps` steps asks of this participant."""
    config, adapted, local = context.config, context.adapted, context.algorithm.local
    whole = (
        config.train.pace == "buffered" and profile.name != CENTRE
    )  # who is slow is late instead of cut short
    drawn = local.method.batches + int(local.needs("public"))  # batches a step
    shapes = adapted.shapes.values()
    if (
        adapted.full
    ):  # one rank, which no matrix exceeds; a declared or measured speed is that of the whole step
        rank = max(min(m, n) for m, n in shapes)
        ranks: tuple[int, ...] = (rank,)
        bytes_per_rank, rank_cost = math.ceil(4 * sum(m * n for m, n in shapes) / rank), 0.0
    else:
        twice = (
            2 if context.algorithm.start.continues else 1
        )  # a change of factors: up to twice their rank
        ranks, rank_cost = tuple(sorted(set(config.adapter.ranks))), RANK_COST
        bytes_per_rank = 4 * twice * sum(m + n for m, n in shapes)
    return Workload(
        tokens_per_step=max(1, round(profile.mean_tokens * config.train.batch_size * drawn)),
        steps=steps,
        ranks=ranks,
        bytes_per_rank=bytes_per_rank,
        deadline_seconds=None if whole else config.train.round_seconds,
        min_steps=config.train.min_steps,
        rank_cost=rank_cost,
    )


def personal_settings(
    config: Federation, examples: int, name: str, assignment: Assignment, rule: str = CHOICE_RULE
) -> Settings:
    """How a participant's personal model is made; rule: by which it is chosen."""
    p, rank = config.personal, assignment.rank
    epoch = math.ceil(examples / config.train.batch_size)
    private_steps = max(1, round(epoch * p.private_epochs))
    private = FitBudget(min(rank, p.private_rank), private_steps, tuple(p.private_rates), p.checks)
    rounds = config.train.rounds - (0 if config.centre is None else config.centre.first)
    steps, full = assignment.steps * rounds + private_steps, config.adapter.kind == "full"
    local = FitBudget(rank, steps, tuple(p.local_rates), p.checks, full=full)
    digest = hashlib.sha256(f"{config.seed}/{name}".encode()).digest()
    seed = int.from_bytes(digest[:6], "big")
    return Settings(local, private, tuple(p.alphas), tuple(p.mixes), seed, tuple(p.ditto), rule)
