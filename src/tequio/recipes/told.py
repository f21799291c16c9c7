"""What a participant says of itself before the first round, and what it is given to do in turn: rank, steps, its row in the record."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tequio.core.errors import ConfigError
from tequio.participant.bench import Bench
from tequio.participant.loop import train
from tequio.participant.node import Node
from tequio.participant.personal import Settings
from tequio.participant.splits import Splits
from tequio.participant.tasks import batches
from tequio.participant.thrift import Budget
from tequio.planning.allotment import RANK_COST, Allotment, Hardware, Workload, allot, probe_tokens_per_second
from tequio.recipes.config import Federation, HardwareSection, ParticipantFile
from tequio.recipes.pieces import local_of, pieces_of
from tequio.recipes.public import CENTRE

SPLITS = ("train", "validation", "test")
PROBE = b"probe"  # handed on to the other processes of a participant: make a step of `probing`


@dataclass(frozen=True)
class Told:
    """Counts and machine, never data. batches: items by split; mean_tokens: of a training item; speed: probed tokens a second."""

    name: str
    hardware: HardwareSection
    batches: Mapping[str, int]
    mean_tokens: float
    data: Mapping[str, Any]
    speed: float | None = None

    @classmethod
    def of(cls, name: str, facts: Mapping[str, Any]) -> Told:
        """From `facts`, as they came. Raises ValueError, TypeError or KeyError if they are not such facts."""
        counts = {split: int(facts["batches"][split]) for split in SPLITS}
        mean, speed = float(facts["mean_tokens"]), facts["speed"]
        if min(counts.values()) < 1 or not 0.0 < mean < math.inf or not isinstance(facts["data"], dict):
            raise ValueError("counts must be positive")
        hardware = HardwareSection.model_validate(facts["hardware"])
        return cls(name, hardware, counts, mean, facts["data"], None if speed is None else float(speed))

    def facts(self) -> dict[str, Any]:
        """As JSON, to be told over a network."""
        return {
            **asdict(replace(self, hardware=HardwareSection())),
            "hardware": self.hardware.model_dump(exclude_none=True),
        }


def told_of(node: Node, file: ParticipantFile, splits: Splits, measured: float | None = None) -> Told:
    """Of a participant on this machine. measured: its speed as it was probed before; else it is probed where the file asks for it."""
    data = {**splits.facts(), "cut": node.data.cut, "licence": file.data.licence, "consent": file.data.consent}
    return replace(told_of_node(node, file.hardware, data), speed=_speed(file.hardware, node, measured))


def told_of_centre(config: Federation, node: Node, splits: Splits) -> Told:
    """Of the centre: its speed as federation.toml declares it."""
    speed = None if config.centre is None else config.centre.tokens_per_second
    return told_of_node(node, HardwareSection(tokens_per_second=speed), {**splits.facts(), "cut": node.data.cut})


def told_of_node(node: Node, hardware: HardwareSection, data: Mapping[str, Any]) -> Told:
    """Of any node, with what else is to be told of its data; its speed as declared."""
    counts = {split: len(getattr(node.data, split)) for split in SPLITS}
    mean = sum(len(item.ids) for item in node.data.train) / counts["train"]
    return Told(node.name, hardware, counts, mean, data)


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
    node.bench.drop()
    return speed


def probing(node: Node) -> Callable[[], int]:
    """What makes one training step, in which all processes of the node take part, and returns its tokens."""
    parameters = node.bench.attach_full() if node.bench.full else node.bench.attach(8, 0)
    stream = batches(node.data.train, node.batch_size, 0)
    return lambda: train(node.bench, node.task, parameters, stream, [1e-9], node.name, together=node.together).tokens


def allotments(config: Federation, told: Mapping[int, Told], bench: Bench) -> dict[str, Allotment]:
    """Rank and steps of every participant from its hardware; the centre (index 0) makes as many steps as the median participant."""
    out: dict[str, Allotment] = {}
    for index in sorted(told, reverse=True):  # the centre comes last
        who = told[index]
        steps = full_steps(config, who.batches["train"])
        if index == 0:
            median = sorted(a.steps for a in out.values())[len(out) // 2]
            steps = (config.centre.steps if config.centre else None) or median
        hardware = hardware_of(who.name, who.hardware, who.speed, bench.full)
        out[who.name] = _in_windows(config, index, allot(hardware, workload_of(config, who, steps, bench)))
    return out


def full_steps(config: Federation, examples: int) -> int:
    """Local steps of a round before hardware is looked at."""
    epoch = math.ceil(examples / config.train.batch_size)
    wanted = round(epoch * config.train.local_epochs)
    return max(config.train.min_steps, min(config.train.max_steps, wanted))


def _in_windows(config: Federation, index: int, allotment: Allotment) -> Allotment:
    """The allotment, saying how often a participant that needs more than a window counts (buffered rounds)."""
    window, seconds = config.train.round_seconds, allotment.seconds
    if config.train.pace != "buffered" or index == 0 or window is None or seconds is None or seconds <= window:
        return allotment
    every = math.ceil(seconds / window)
    return replace(allotment, reason=f"{allotment.reason} A window is {window:.3g} s: it counts in one of {every}.")


def hardware_of(name: str, own: HardwareSection, measured: float | None, full: bool = False) -> Hardware:
    """What a participant declares, its speed as measured where it is not declared. full: whole weights are trained."""
    if full and own.max_rank is not None:
        why = 'With [adapter] kind = "full" everybody trains whole weights, which have no rank.'
        raise ConfigError(f"Participant {name}: max_rank = {own.max_rank}.", why, "Leave it out, or use lora.")
    return Hardware(own.tokens_per_second or measured, own.uplink_mbit, own.memory_gib, own.max_rank)


def workload_of(config: Federation, told: Told, steps: int, bench: Bench) -> Workload:
    """What a round of `steps` steps asks of this participant."""
    whole = config.train.pace == "buffered" and told.name != CENTRE  # who is slow is late instead of cut short
    local = local_of(config)
    drawn = local.built()[1].batches + int(local.needs("public"))  # batches a step
    shapes = bench.shapes.values()
    if bench.full:  # one rank, which no matrix exceeds; a declared or measured speed is that of the whole step
        rank = max(min(m, n) for m, n in shapes)
        ranks: tuple[int, ...] = (rank,)
        bytes_per_rank, rank_cost = math.ceil(4 * sum(m * n for m, n in shapes) / rank), 0.0
    else:
        twice = 2 if pieces_of(config.algorithm).start.continues else 1  # a change of factors: up to twice their rank
        ranks, rank_cost = tuple(sorted(set(config.adapter.ranks))), RANK_COST
        bytes_per_rank = 4 * twice * sum(m + n for m, n in shapes)
    return Workload(
        tokens_per_step=max(1, round(told.mean_tokens * config.train.batch_size * drawn)),
        steps=steps,
        ranks=ranks,
        bytes_per_rank=bytes_per_rank,
        deadline_seconds=None if whole else config.train.round_seconds,
        min_steps=config.train.min_steps,
        rank_cost=rank_cost,
    )


def settings_of(config: Federation, examples: int, name: str, allotment: Allotment) -> Settings:
    """How a participant's personal model is made."""
    p, rank = config.personal, allotment.rank
    epoch = math.ceil(examples / config.train.batch_size)
    private_steps = max(1, round(epoch * p.private_epochs))
    private = Budget(min(rank, p.private_rank), private_steps, tuple(p.private_rates), p.checks)
    rounds = config.train.rounds - (0 if config.centre is None else config.centre.first)
    steps, full = allotment.steps * rounds + private_steps, config.adapter.kind == "full"
    local = Budget(rank, steps, tuple(p.local_rates), p.checks, full=full)
    digest = hashlib.sha256(f"{config.seed}/{name}".encode()).digest()
    return Settings(local, private, tuple(p.alphas), tuple(p.mixes), int.from_bytes(digest[:6], "big"), tuple(p.ditto))


def row_of(told: Told, allotment: Allotment, full: bool) -> dict[str, Any]:
    """Its row in the record of the run."""
    shown = {} if told.name == CENTRE else told.hardware.model_dump(exclude_none=True)
    row = {
        "name": told.name,
        "tier": "full weights" if full else f"rank {allotment.rank}",
        "rank": allotment.rank,
        "steps": allotment.steps,
        "reason": allotment.reason,
        "hardware": shown,
        "data": dict(told.data),
        "batches": dict(told.batches),
    }
    return row if told.name == CENTRE else row | {"measured_tokens_per_second": told.speed}


def of_base(row: dict[str, Any], base: str, several: bool) -> dict[str, Any]:
    """The row; with several bases it says over which one, in its tier too."""
    return {**row, "base": base, "tier": f"{base}, {row['tier']}"} if several else row
