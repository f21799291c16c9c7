"""What a participant says of itself before the first round, and what it is given to do in turn:
rank, steps, its row in the record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tequio.config import Federation, HardwareSection, ParticipantFile
from tequio.participant.loop import train
from tequio.participant.node import Node
from tequio.participant.splits import Splits
from tequio.participant.text_tasks import batches
from tequio.planning.allocation import probe_tokens_per_second

SPLITS = ("train", "validation", "test")
PROBE = b"probe"  # handed on to the other processes of a participant: make a step of `probing`


@dataclass(frozen=True)
class ParticipantProfile:
    """Counts and machine, never data. batches: items by split; mean_tokens: of a training item;
    speed: probed tokens a second.
    """

    name: str
    hardware: HardwareSection
    batches: Mapping[str, int]
    mean_tokens: float
    data: Mapping[str, Any]
    speed: float | None = None

    @classmethod
    def of(cls, name: str, facts: Mapping[str, Any]) -> ParticipantProfile:
        """From `facts`, as they came.

        Raises ValueError, TypeError or KeyError if they are not such facts.
        """
        counts = {split: int(facts["batches"][split]) for split in SPLITS}
        mean, speed = float(facts["mean_tokens"]), facts["speed"]
        if (
            min(counts.values()) < 1
            or not 0.0 < mean < math.inf
            or not isinstance(facts["data"], dict)
        ):
            raise ValueError("counts must be positive")
        hardware = HardwareSection.model_validate(facts["hardware"])
        return cls(
            name, hardware, counts, mean, facts["data"], None if speed is None else float(speed)
        )

    def facts(self) -> dict[str, Any]:
        """As JSON, to be told over a network."""
        return {
            **asdict(replace(self, hardware=HardwareSection())),
            "hardware": self.hardware.model_dump(exclude_none=True),
        }


def build_profile(
    node: Node, file: ParticipantFile, splits: Splits, measured: float | None = None
) -> ParticipantProfile:
    """Of a participant on this machine. measured: its speed as it was probed before; else it is
    probed where the file asks for it.
    """
    data = {
        **splits.facts(),
        **node.data.counts.facts(),
        "licence": file.data.licence,
        "consent": file.data.consent,
    }
    return replace(
        build_node_profile(node, file.hardware, data), speed=_speed(file.hardware, node, measured)
    )


def build_centre_profile(config: Federation, node: Node, splits: Splits) -> ParticipantProfile:
    """Of the centre: its speed as federation.toml declares it."""
    speed = None if config.centre is None else config.centre.tokens_per_second
    return build_node_profile(
        node,
        HardwareSection(tokens_per_second=speed),
        {**splits.facts(), **node.data.counts.facts()},
    )


def build_node_profile(
    node: Node, hardware: HardwareSection, data: Mapping[str, Any]
) -> ParticipantProfile:
    """Of any node, with what else is to be told of its data; its speed as declared."""
    counts = {split: len(getattr(node.data, split)) for split in SPLITS}
    mean = sum(len(item.ids) for item in node.data.train) / counts["train"]
    return ParticipantProfile(node.name, hardware, counts, mean, data)


def _speed(section: HardwareSection, node: Node, measured: float | None) -> float | None:
    """Probed tokens a second, where nothing is declared and a probe is asked for."""
    if section.tokens_per_second is not None or not section.probe:
        return None
    return measured or _probe(node)


def _probe(node: Node) -> float:
    """Tokens a second of real training steps on this machine; what they changed is thrown away."""
    own = probing(node)

    def step() -> int:
        node.together.hand_on(PROBE)
        return own()

    speed = probe_tokens_per_second(step)
    node.adapted.detach()
    return speed


def probing(node: Node) -> Callable[[], int]:
    """What makes one training step, in which all processes of the node take part, and returns its
    tokens.
    """
    parameters = node.adapted.attach_full() if node.adapted.full else node.adapted.attach(8, 0)
    stream = batches(node.data.train, node.batch_size, 0)
    return lambda: (
        train(
            node.adapted, node.task, parameters, stream, [1e-9], node.name, together=node.together
        ).tokens
    )
