"""A newcomer to a federation on its own machine: its data encoded, and how its personal model
is made.
"""

from dataclasses import dataclass

from tequio.app.assembly.allocation import (
    build_hardware,
    build_workload,
    full_steps,
    personal_settings,
)
from tequio.app.assembly.context import ModelContext, build_node
from tequio.app.assembly.profile import ParticipantProfile, build_node_profile
from tequio.config import ParticipantFile
from tequio.participant.node import Node
from tequio.participant.personal import Settings
from tequio.participant.splits import Splits
from tequio.planning.allocation import Assignment, allocate


@dataclass(frozen=True)
class Newcomer:
    """A participant outside the rounds.

    Its local baseline gets the steps that a member with these data would make.
    """

    node: Node
    profile: ParticipantProfile
    assignment: Assignment
    settings: Settings


def build_newcomer(context: ModelContext, file: ParticipantFile, splits: Splits) -> Newcomer:
    """Encode its data, and size its work as that of a member.

    Raises what `build_node` and `allocate` raise.
    """
    node = build_node(context, file, splits, None)
    config, examples = context.config, len(node.data.train)
    data = {
        **splits.facts(),
        **node.data.counts.facts(),
        "licence": file.data.licence,
        "consent": file.data.consent,
    }
    profile = build_node_profile(node, file.hardware, data)
    work = build_workload(context, profile, full_steps(config, examples))
    assignment = allocate(
        build_hardware(file.name, file.hardware, None, context.adapted.full), work
    )
    return Newcomer(
        node, profile, assignment, personal_settings(config, examples, file.name, assignment)
    )
