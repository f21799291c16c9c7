"""Masked rounds: whether a configuration can have them, and what their members agree on."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from tequio.algorithms.compatibility import check_sum
from tequio.app.assembly.algorithm import Algorithm
from tequio.config import Federation, ParticipantFile, stored
from tequio.config.privacy import MODES
from tequio.coordinator.run_spec import RunSpec, Screening
from tequio.core.canonical import digest_json
from tequio.core.errors import ConfigError
from tequio.core.protocols import Sees
from tequio.core.texts.words import refuse_first
from tequio.trust.keys import new_key, public_bytes
from tequio.trust.secure_sum.agreement import LEAST_MEMBERS, Policy
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.plan import SumPlan


@dataclass(frozen=True)
class Masking:
    """What the masked rounds of a run in one process need: the plan of all sums, and each
    participant's own side of them."""

    plan: SumPlan
    members: Mapping[int, Member]


def check_masked(config: Federation, algorithm: Algorithm) -> None:
    """Raise ConfigError where [privacy] mode = "masked" does not go with the rest. An open
    federation always passes."""
    if config.privacy.mode == "open":
        return
    members = len(config.participants)
    found = {
        "masked-peers": config.topology.kind != "star",
        "masked-bases": bool(config.bases),
        "masked-buffered": config.train.pace == "buffered",
        "masked-cohort": config.train.cohort is not None or config.shift is not None,
        "masked-lockstep": config.train.lockstep > 1,
        "masked-distil": config.distil is not None,
        "masked-few": members < LEAST_MEMBERS,
    }
    refuse_first(ConfigError, found, members=members, fewest=LEAST_MEMBERS)
    every: Sees = "each update"
    watching: dict[str, Sees] = {"[screen]": Screening(**config.screen.model_dump()).sees}
    watching |= (
        {"[equity] credit": every} if config.equity.credit or config.equity.leave_one_out else {}
    )
    full = config.adapter.kind == "full"
    check_sum(
        algorithm.reduce,
        algorithm.weights,
        algorithm.start,
        algorithm.upload.codec,
        watching,
        full,
    )
    found = {
        "masked-reduce": not algorithm.reduce.nested,
        "masked-weights": algorithm.weights.name != "uniform",
        "masked-feedback": algorithm.feedback is not None,
    }
    facts = {"reduce": algorithm.reduce.name, "weights": algorithm.weights.name}
    refuse_first(ConfigError, found, **facts)


def check_least_mode(config: Federation, who: str, file: ParticipantFile) -> None:
    """Raise ConfigError where a participant insists on more than the federation's mode."""
    least, mode = file.privacy.least_mode, config.privacy.mode
    found = {"mode-below-least": MODES.index(mode) < MODES.index(least)}
    refuse_first(ConfigError, found, name=who, least_mode=least, mode=mode)


def build_masking(config: Federation, run_spec: RunSpec) -> Masking | None:
    """Return what masked rounds in one process need, with keys made for this process; None for open
    rounds."""
    if config.privacy.mode == "open":
        return None
    keys = {member.index: new_key() for member in run_spec.members}
    parts = {m.index: (public_bytes(keys[m.index]), m.rank, m.steps) for m in run_spec.members}
    run, federation = secrets.token_hex(16), digest_json(stored(config))
    plan = listed_plan(
        run, federation, parts, config, run_spec.shapes, run_spec.head_shapes, run_spec.scale
    )
    return Masking(plan, {index: Member(index, key) for index, key in keys.items()})


def listed_plan(
    run: str,
    federation: str,
    parts: Mapping[int, tuple[bytes, int, int]],
    config: Federation,
    shapes: Mapping[str, tuple[int, int]],
    heads: Mapping[str, tuple[int, ...]],
    scale: float,
) -> SumPlan:
    """Return what the members of all sums of a run agree on.

    Args:
        run: the id of the run.
        federation: digest of federation.toml.
        parts: public key, rank and steps of each member, by index.
        config: the federation.
        shapes: (m, n) of each adapted module.
        heads: shapes of the tensors of the head.
        scale: what multiplies B·A.

    Raises:
        ProtectionError: there are too few members.
    """
    return SumPlan(
        run=run,
        federation=federation,
        policy=Policy({index: key for index, (key, _, _) in parts.items()}),
        ranks={index: rank for index, (_, rank, _) in parts.items()},
        steps={index: steps for index, (_, _, steps) in parts.items()},
        shapes=shapes,
        heads=heads,
        scale=scale,
        accuracy=config.task.kind == "classification",
        rounds=config.train.rounds,
        looks=config.train.rounds + config.gate.interpolate,
    )
