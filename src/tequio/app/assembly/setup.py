"""A run that is ready to start: one value with everything that its rounds and stages need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.masked import Masking
from tequio.config import MAIN
from tequio.coordinator.carbon_schedule import Shift
from tequio.coordinator.distillation import Distillation
from tequio.coordinator.gossip import Peers
from tequio.coordinator.run_spec import RunSpec
from tequio.participant.distiller import PublicTexts
from tequio.participant.node import Node
from tequio.participant.personal import Settings
from tequio.participant.text_tasks import Causal, Item


@dataclass(frozen=True)
class RunSetup(ModelContext):
    """A run ready to go. `nodes` by index (0 is the centre);

    `report_slices` are the halves the gate never sees.
    """

    run_spec: RunSpec
    nodes: Mapping[int, Node]
    report_slices: Mapping[str, Sequence[Item]]
    settings: Mapping[str, Settings] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    data_digests: Mapping[str, str] = field(default_factory=dict)
    peers: Peers | None = None
    name: str = MAIN
    others: tuple[RunSetup, ...] = ()
    distillation: Distillation | None = None
    shift: Shift | None = None
    masking: Masking | None = None  # of masked rounds

    @property
    def participants(self) -> list[Node]:
        """Of this base, without the centre."""
        return [node for index, node in sorted(self.nodes.items()) if index > 0]

    @property
    def groups(self) -> tuple[RunSetup, ...]:
        """One a base, that of [base] first."""
        return (self, *self.others)

    def group(self, base: str) -> RunSetup:
        """The group of one base."""
        return next(group for group in self.groups if group.name == base)

    def group_of(self, participant: str) -> RunSetup:
        """The group in which a participant is."""
        return next(group for group in self.groups if participant in group.settings)

    @property
    def public(self) -> PublicTexts | None:
        """The centre as distiller over this base."""
        centre = self.nodes.get(0)
        if centre is None:
            return None
        size, classes = self.config.train.batch_size, class_count(self)
        return PublicTexts(self.name, self.adapted, self.task, centre.data.train, size, classes)


def class_count(group: RunSetup) -> int:
    """Labels, or words of the tokenizer."""
    return (
        len(group.adapted.base.tokenizer)
        if isinstance(group.task, Causal)
        else len(group.config.task.label_names())
    )
