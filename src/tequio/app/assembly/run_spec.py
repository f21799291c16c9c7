"""Build the specification of all rounds: its members and every setting that a round needs."""

from collections.abc import Mapping

from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.profile import ParticipantProfile
from tequio.coordinator.run_spec import Member, RunSpec, Screening
from tequio.planning.allocation import Assignment


def build_members(
    profiles: Mapping[int, ParticipantProfile], given: Mapping[str, Assignment]
) -> dict[int, Member]:
    """Members by index, as they were allotted."""
    shares = {i: given[who.name] for i, who in profiles.items()}
    return {i: Member(profiles[i].name, i, a.rank, a.steps, a.seconds) for i, a in shares.items()}


def build_run_spec(
    context: ModelContext, members: Mapping[int, Member], top: int | None = None
) -> RunSpec:
    """The plan of all rounds, with its members by index (0: the centre). top: the largest rank, if
    not that of these members.
    """
    config, algorithm, adapted = context.config, context.algorithm, context.adapted
    return RunSpec(
        seed=config.seed,
        rounds=config.train.rounds,
        spec=adapted.spec,
        scale=adapted.scale,
        shapes=adapted.shapes,
        members=tuple(members[i] for i in sorted(members) if i > 0),
        centre=members.get(0),
        federated_share=1.0 if config.centre is None else config.centre.federated_share,
        centre_first=0 if config.centre is None else config.centre.first,
        learning_rate=config.train.learning_rate,
        final_rate=config.train.final_rate,
        aggregator=algorithm.reduce,
        start=algorithm.start,
        weighting=algorithm.weights,
        server=algorithm.server,
        upload=algorithm.upload,
        download=algorithm.download,
        feedback=algorithm.feedback,
        screening=Screening(**config.screen.model_dump()),
        local=algorithm.local,
        full=adapted.full,
        broadcast_rank=config.algorithm.broadcast_rank
        or 2 * (top or max(m.rank for m in members.values())),
        patience=config.train.patience,
        cohort=config.train.cohort,
        window_seconds=config.train.round_seconds if config.train.pace == "buffered" else None,
        buffer=config.train.buffer or 1,
        quorum=config.train.quorum or 1,
        gate_margin=config.gate.margin,
        credit=config.equity.credit,
        leave_one_out=config.equity.leave_one_out,
        head_shapes={name: tuple(tensor.shape) for name, tensor in adapted.head.items()},
    )
