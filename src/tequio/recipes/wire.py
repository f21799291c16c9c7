"""From configuration to a ready run: data read and encoded, memory summed, base loaded, ranks allotted, plan made.

Everything that can be wrong is found here, before the first step.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

import tequio
from tequio.algorithms.chain import check_bound, check_buffered
from tequio.coordinator.distil import Distillation
from tequio.coordinator.gossip import Peers
from tequio.coordinator.plan import Member, Plan, Screening
from tequio.core.canonical import canonical_json, digest_json, digest_update
from tequio.core.errors import ConfigError, DataError, ResourceError
from tequio.core.protocols import Start
from tequio.measure.energy import Meter, open_meter
from tequio.participant.base import Base, best_dtype, load_base, model_shape
from tequio.participant.bench import Bench, head_at_zero, head_from_descriptions
from tequio.participant.data import Columns, Example, read_examples
from tequio.participant.distil import PublicTexts
from tequio.participant.loop import train
from tequio.participant.node import Encoded, Node, encode_splits
from tequio.participant.personal import Budget, Settings
from tequio.participant.public import KEPT_BYTES
from tequio.participant.splits import DataFiles, SplitRule, Splits, content_hash, load_splits
from tequio.participant.tasks import Causal, Classification, Item, TextTask, batches
from tequio.planning.allotment import RANK_COST, Allotment, Hardware, Workload, allot, probe_tokens_per_second
from tequio.planning.memory import RUNTIME_BYTES, BatchShape, available_bytes, check_memory, estimate_memory
from tequio.recipes.config import MAIN, Federation, HardwareSection, ParticipantFile, load_participant
from tequio.recipes.paths import cache_folder
from tequio.recipes.pieces import Pieces, distillation_of, local_of, pieces_of
from tequio.recipes.public import CENTRE, public_digests, public_examples, public_of
from tequio.recipes.topology import peers_of

FULL_COPIES = 3  # with whole weights also: the sum, the step made of it, and the bytes of the checkpoint
STATE_COPIES = 5  # shared, pending, momentum and best of the coordinator, and the one held, live in this process
PEER_COPIES = (
    5  # of each peer: its model, its neighbours' copy of it and its best; of the first two those of the next round too
)
PREDICTION_BYTES = 16  # a prediction: logits, the term of one model, the sum, and the teacher, float32
BASE_KEYS = ("base", "spec", "head_digest", "centre")


@dataclass(frozen=True)
class Wired:
    """A run ready to go. `nodes` by index (0 is the centre); `report_slices` are the halves the gate never sees."""

    config: Federation
    bench: Bench
    task: TextTask
    plan: Plan
    nodes: Mapping[int, Node]
    report_slices: Mapping[str, Sequence[Item]]
    settings: Mapping[str, Settings]
    header: Mapping[str, Any]
    data_digests: Mapping[str, str]
    meter: Meter
    peers: Peers | None = None
    name: str = MAIN
    others: tuple[Wired, ...] = ()
    distillation: Distillation | None = None

    @property
    def participants(self) -> list[Node]:
        """Of this base, without the centre."""
        return [node for index, node in sorted(self.nodes.items()) if index > 0]

    @property
    def groups(self) -> tuple[Wired, ...]:
        """One a base, that of [base] first."""
        return (self, *self.others)

    def group_of(self, participant: str) -> Wired:
        """The group in which a participant is."""
        return next(group for group in self.groups if participant in group.settings)

    @property
    def public(self) -> PublicTexts | None:
        """The centre as distiller over this base."""
        centre = self.nodes.get(0)
        if centre is None:
            return None
        size, classes = self.config.train.batch_size, classes_of(self)
        return PublicTexts(self.name, self.bench, self.task, centre.data.train, size, classes)


def wire(
    config: Federation,
    provenance: Sequence[Mapping[str, Any]] = (),
    measured: Mapping[str, float | None] = MappingProxyType({}),
) -> Wired:
    """Build everything. Raises the error of whatever is wrong, naming file, key or participant.

    measured: participant -> tokens a second as the run's ledger has them, so that a resumed run probes nothing again.
    """
    reduce = pieces_of(config.algorithm, config.adapter.kind == "full").reduce
    if config.distil is not None:
        distillation_of(config.distil, reduce, 1, config.seed)  # refused before anything is read
    main, *others = [_wire(config.part(name), name, places_of(config), measured) for name in config.base_names()]
    how = None
    if config.distil is not None:
        ranks = [group.plan.top_rank() for group in (main, *others)]
        how = distillation_of(config.distil, reduce, max(ranks), config.seed)
        check_teaching((main, *others), how)
    wired = replace(main, config=config, others=tuple(others), distillation=how)
    rows = [row for group in wired.groups for row in _named(group, bool(others))]
    header = _header(config, main.bench.base, main.bench, sorted(rows, key=lambda r: places_of(config)[r["name"]]))
    header |= {key: main.header[key] for key in ("centre", "slices", "public_data")}
    header["provenance"] = [dict(p) for p in provenance]
    if others:
        header["bases"] = {group.name: {k: group.header[k] for k in BASE_KEYS} for group in others}
    return replace(wired, header=header, data_digests=_joined([group.data_digests for group in wired.groups]))


def places_of(config: Federation) -> dict[str, int]:
    """Each participant's index: its place on the whole roster, from 1."""
    return {entry.name: i for i, entry in enumerate(config.participants, 1)}


def _named(group: Wired, several: bool) -> list[dict[str, Any]]:
    """The rows of the header; with several bases each says over which one, in its tier too."""
    rows: list[dict[str, Any]] = group.header["participants"]
    return [{**r, "base": group.name, "tier": f"{group.name}, {r['tier']}"} for r in rows] if several else rows


def _joined(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}


def _wire(config: Federation, name: str, places: Mapping[str, int], measured: Mapping[str, float | None]) -> Wired:
    """One group: the participants of one base."""
    full = config.adapter.kind == "full"
    pieces = pieces_of(config.algorithm, full)
    peers = peers_of(config)
    check_bound(config.screen.norm_bound, pieces.weights)
    local_of(config)
    if config.train.pace == "buffered":
        check_buffered(pieces.reduce, pieces.start, config.screen.cosine, pieces.feedback)
    files = {entry.name: load_participant(entry.file, entry.name) for entry in config.participants}
    splits = {who: splits_of(config, file) for who, file in files.items()}
    centre_splits = _centre_splits(config)
    text = public_examples(config)
    known = _hashes(centre_splits) | {content_hash(e) for e in text}
    slices = {part: _slice(config, part, path, known) for part, path in config.gate.slices.items()}
    dtype = dtype_of(config)
    _check_memory(config, files, dtype, pieces.start)
    base = load_base(config.base.model, config.task.kind, dtype, cache_folder())
    if config.task.max_tokens > base.max_positions:
        why = f"The base reads at most {base.max_positions} tokens."
        raise ConfigError(f"[task] max_tokens = {config.task.max_tokens}.", why, "Lower it.")
    bench = Bench(base, config.adapter.modules, config.adapter.scale, _head(config, base), full)
    task = task_of(config, base)
    meter = open_meter()
    encoded = {who: encode_splits(task, s, who) for who, s in splits.items()}
    centre = None if centre_splits is None else encode_splits(task, centre_splits, CENTRE)
    public = public_of(config, task, text, centre)
    size = config.train.batch_size
    nodes = {
        places[who]: Node(who, bench, task, encoded[who], size, _meter(file, meter), public=public)
        for who, file in files.items()
    }
    most = config.gate.max_examples
    gate = {n: task.encode(examples[0::2][:most], n)[0] for n, examples in slices.items()}
    held_out = {n: task.encode(examples[1::2][: 2 * most], n)[0] for n, examples in slices.items()}
    if centre is not None:
        nodes[0] = Node(CENTRE, bench, task, centre, size, meter, gate, public=public)
    speeds = {node.name: _speed(files[node.name].hardware, node, measured) for i, node in nodes.items() if i > 0}
    allotments = _allot(config, files, nodes, speeds)
    plan = _plan(config, pieces, nodes, allotments, bench)
    settings = {node.name: settings_of(config, node, allotments[node.name]) for i, node in nodes.items() if i > 0}
    rows = [_row(nodes[i], allotments, splits, files) for i in sorted(nodes) if i > 0]
    rows = [{**row, "measured_tokens_per_second": speeds[row["name"]]} for row in rows]
    header = _header(config, base, bench, rows) | {
        "centre": None if centre_splits is None else _centre_row(nodes[0], allotments, centre_splits),
        "slices": {name: len(items) for name, items in held_out.items()},
        "public_data": public_digests(centre_splits, slices, text),
    }
    digests = {who: s.digest() for who, s in splits.items()}
    return Wired(config, bench, task, plan, nodes, held_out, settings, header, digests, meter, peers, name)


def classes_of(group: Wired) -> int:
    """Labels, or words of the tokenizer."""
    return len(group.bench.base.tokenizer) if isinstance(group.task, Causal) else len(group.config.task.label_names())


def check_teaching(groups: Sequence[Wired], how: Distillation) -> None:
    """Raise ConfigError where models cannot teach one another (other vocabularies), ResourceError where predictions fill the memory."""
    main = groups[0]
    if isinstance(main.task, Causal):
        known = main.bench.base.tokenizer.get_vocab()
        for group in groups[1:]:
            theirs = group.bench.base.tokenizer.get_vocab()
            if theirs != known or group.nodes[0].data.train != main.nodes[0].data.train:
                what = f"[distil]: base {group.name!r} has another tokenizer than [base]"
                what += (
                    f" ({len(theirs)} and {len(known)} words, {len(theirs.items() & known.items())} of them the same)."
                )
                why = "Language models can teach each other only word by word, so the vocabulary must be one."
                fix = "Take a smaller model of the same family, or leave out [distil]: the groups then train apart."
                raise ConfigError(what, why, fix)
    rows = sorted((main.task.row_count(item) for item in main.nodes[0].data.train), reverse=True)
    need, free = PREDICTION_BYTES * classes_of(main) * sum(rows[: how.items]), available_bytes(None)
    if need > free:
        why = f"The predictions for {how.items} texts need {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free."
        raise ResourceError("[distil]: memory is too small.", why, "Lower items.")


def _meter(file: ParticipantFile, shared: Meter) -> Meter:
    """The machine's meter, or one of the declared power where the participant states it."""
    return shared if file.hardware.tdp_watts is None else open_meter(file.hardware.tdp_watts)


def _columns(file: ParticipantFile) -> Columns:
    return Columns(file.data.text, file.data.label, file.data.prompt, file.data.response)


def splits_of(config: Federation, file: ParticipantFile) -> Splits:
    """A participant's data, split."""
    d = file.data
    rule = SplitRule(d.validation_share, d.test_share, d.max_train, d.max_validation, d.max_test)
    files = DataFiles(d.path, d.train, d.validation, d.test)
    return load_splits(files, _columns(file), rule, config.task.kind, config.task.label_names(), file.name)


def _centre_splits(config: Federation) -> Splits | None:
    if config.centre is None:
        return None
    rule = SplitRule(0.1, 0.1, config.centre.max_train, 200, 200)
    files = DataFiles(config.centre.data, None, None, None)
    return load_splits(files, Columns(), rule, config.task.kind, config.task.label_names(), CENTRE)


def _hashes(centre: Splits | None) -> set[str]:
    return set() if centre is None else {content_hash(e) for e in (*centre.train, *centre.validation, *centre.test)}


def _slice(config: Federation, name: str, path: Path, known: set[str]) -> list[Example]:
    """A public slice in the order of its hashes, without what the centre trains on."""
    who = f"public slice {name}"
    examples = read_examples(path, Columns(), config.task.kind, config.task.label_names(), who)
    by_hash = {content_hash(e): e for e in examples if e.text.strip()}
    examples = [by_hash[key] for key in sorted(by_hash.keys() - known)]
    if len(examples) < 4:
        why = f"It has {len(examples)} texts that the centre does not train on; at least 4 are needed."
        raise DataError(f"[gate] slices: {name} ({path}) is too small.", why, "Add texts, or leave it out.")
    return examples


def dtype_of(config: Federation) -> torch.dtype:
    """The base's precision: as configured, or the machine's best."""
    if config.base.dtype == "auto":
        return best_dtype()
    dtype: torch.dtype = getattr(torch, config.base.dtype)
    return dtype


def _check_memory(config: Federation, files: Mapping[str, ParticipantFile], dtype: torch.dtype, start: Start) -> None:
    shape = model_shape(config.base.model, config.task.kind, config.adapter.modules, dtype, cache_folder())
    local = local_of(config)
    beside = 2 if local.needs("public") else 1  # a public batch lives beside the own one
    batch = BatchShape(beside * config.train.batch_size, config.task.max_tokens)
    rank = max(config.adapter.ranks)
    process = RUNTIME_BYTES + (KEPT_BYTES if local.needs("base") else 0)
    begun = len(set(config.adapter.ranks)) if start.continues else 0  # what is held differs from rank to rank
    full = config.adapter.kind == "full"
    copies = STATE_COPIES + begun if config.topology.kind == "star" else PEER_COPIES * len(files) + 1
    copies += FULL_COPIES if full else 0
    total = estimate_memory(shape, batch, rank, shared_copies=copies, runtime_bytes=process, full=full)
    lone = estimate_memory(shape, batch, rank, runtime_bytes=process, full=full)
    for name, file in files.items():
        if file.hardware.memory_gib is not None:
            check_memory(lone, int(file.hardware.memory_gib * 2**30), f"Participant {name}")
    check_memory(total, available_bytes(None), "This machine")


def _head(config: Federation, base: Base) -> torch.Tensor | None:
    if config.task.kind == "causal":
        return None
    labels = config.task.labels
    if isinstance(labels, dict):
        return head_from_descriptions(base, labels)
    return head_at_zero(base, len(labels))


def task_of(config: Federation, base: Base) -> TextTask:
    """The task with its tokenizer."""
    if config.task.kind == "causal":
        return Causal(base.tokenizer, config.task.max_tokens)
    return Classification(base.tokenizer, config.task.label_names(), config.task.max_tokens)


def _speed(section: HardwareSection, node: Node, measured: Mapping[str, float | None]) -> float | None:
    """Probed tokens a second, where nothing is declared and a probe is asked for."""
    if section.tokens_per_second is not None or not section.probe:
        return None
    return measured.get(node.name) or _probe(node)


def _probe(node: Node) -> float:
    """Tokens a second of real training steps on this machine; what they changed is thrown away."""
    parameters = node.bench.attach_full() if node.bench.full else node.bench.attach(8, 0)
    stream = batches(node.data.train, node.batch_size, 0)

    def step() -> int:
        return train(node.bench, node.task, parameters, stream, [1e-9], node.name).tokens

    speed = probe_tokens_per_second(step)
    node.bench.drop()
    return speed


def full_steps(config: Federation, data: Encoded) -> int:
    """Local steps of a round before hardware is looked at."""
    epoch = math.ceil(len(data.train) / config.train.batch_size)
    wanted = round(epoch * config.train.local_epochs)
    return max(config.train.min_steps, min(config.train.max_steps, wanted))


def _allot(
    config: Federation,
    files: Mapping[str, ParticipantFile],
    nodes: Mapping[int, Node],
    speeds: Mapping[str, float | None],
) -> dict[str, Allotment]:
    """Rank and steps of every participant from its hardware; the centre makes as many steps as the median participant."""
    out: dict[str, Allotment] = {}
    for index in sorted(nodes, reverse=True):  # the centre, index 0, comes last
        node = nodes[index]
        steps = full_steps(config, node.data)
        hardware = Hardware(config.centre.tokens_per_second if config.centre else None, None, None, None)
        if index > 0:
            hardware = hardware_of(files[node.name], speeds[node.name], node.bench.full)
        else:
            median = sorted(a.steps for a in out.values())[len(out) // 2]
            steps = (config.centre.steps if config.centre else None) or median
        out[node.name] = _in_windows(config, index, allot(hardware, workload_of(config, node, steps)))
    return out


def _in_windows(config: Federation, index: int, allotment: Allotment) -> Allotment:
    """The allotment, saying how often a participant that needs more than a window counts (buffered rounds)."""
    window, seconds = config.train.round_seconds, allotment.seconds
    if config.train.pace != "buffered" or index == 0 or window is None or seconds is None or seconds <= window:
        return allotment
    every = math.ceil(seconds / window)
    return replace(allotment, reason=f"{allotment.reason} A window is {window:.3g} s: it counts in one of {every}.")


def hardware_of(file: ParticipantFile, measured: float | None, full: bool = False) -> Hardware:
    """What a participant declares, its speed as measured where it is not declared. full: whole weights are trained."""
    own = file.hardware
    if full and own.max_rank is not None:
        why = 'With [adapter] kind = "full" everybody trains whole weights, which have no rank.'
        raise ConfigError(f"Participant {file.name}: max_rank = {own.max_rank}.", why, "Leave it out, or use lora.")
    return Hardware(own.tokens_per_second or measured, own.uplink_mbit, own.memory_gib, own.max_rank)


def workload_of(config: Federation, node: Node, steps: int) -> Workload:
    """What a round of `steps` steps asks of this participant."""
    whole = config.train.pace == "buffered" and node.name != CENTRE  # who is slow is late instead of cut short
    local = local_of(config)
    drawn = local.built()[1].batches + int(local.needs("public"))  # batches a step
    mean_tokens = sum(len(i.ids) for i in node.data.train) / len(node.data.train)
    shapes = node.bench.shapes.values()
    if node.bench.full:  # one rank, which no matrix exceeds; a declared or measured speed is that of the whole step
        rank = max(min(m, n) for m, n in shapes)
        ranks: tuple[int, ...] = (rank,)
        bytes_per_rank, rank_cost = math.ceil(4 * sum(m * n for m, n in shapes) / rank), 0.0
    else:
        twice = 2 if pieces_of(config.algorithm).start.continues else 1  # a change of factors: up to twice their rank
        ranks, rank_cost = tuple(sorted(set(config.adapter.ranks))), RANK_COST
        bytes_per_rank = 4 * twice * sum(m + n for m, n in shapes)
    return Workload(
        tokens_per_step=max(1, round(mean_tokens * config.train.batch_size * drawn)),
        steps=steps,
        ranks=ranks,
        bytes_per_rank=bytes_per_rank,
        deadline_seconds=None if whole else config.train.round_seconds,
        min_steps=config.train.min_steps,
        rank_cost=rank_cost,
    )


def _plan(
    config: Federation, pieces: Pieces, nodes: Mapping[int, Node], allotments: Mapping[str, Allotment], bench: Bench
) -> Plan:
    given = {i: allotments[node.name] for i, node in nodes.items()}
    members = {i: Member(nodes[i].name, i, a.rank, a.steps, a.seconds) for i, a in given.items()}
    return Plan(
        seed=config.seed,
        rounds=config.train.rounds,
        spec=bench.spec,
        scale=bench.scale,
        shapes=bench.shapes,
        members=tuple(members[i] for i in sorted(members) if i > 0),
        centre=members.get(0),
        federated_share=1.0 if config.centre is None else config.centre.federated_share,
        learning_rate=config.train.learning_rate,
        final_rate=config.train.final_rate,
        aggregator=pieces.reduce,
        start=pieces.start,
        weighting=pieces.weights,
        server=pieces.server,
        upload=pieces.upload,
        download=pieces.download,
        feedback=pieces.feedback,
        screening=Screening(**config.screen.model_dump()),
        local=local_of(config),
        full=bench.full,
        broadcast_rank=config.algorithm.broadcast_rank or 2 * max(m.rank for m in members.values()),
        patience=config.train.patience,
        cohort=config.train.cohort,
        window_seconds=config.train.round_seconds if config.train.pace == "buffered" else None,
        buffer=config.train.buffer or 1,
        gate_margin=config.gate.margin,
        head_shapes={name: tuple(tensor.shape) for name, tensor in bench.head.items()},
    )


def settings_of(config: Federation, node: Node, allotment: Allotment) -> Settings:
    """How a participant's personal model is made."""
    p, rank = config.personal, allotment.rank
    epoch = math.ceil(len(node.data.train) / config.train.batch_size)
    private_steps = max(1, round(epoch * p.private_epochs))
    private = Budget(min(rank, p.private_rank), private_steps, tuple(p.private_rates), p.checks)
    steps, full = allotment.steps * config.train.rounds + private_steps, config.adapter.kind == "full"
    local = Budget(rank, steps, tuple(p.local_rates), p.checks, full=full)
    digest = hashlib.sha256(f"{config.seed}/{node.name}".encode()).digest()
    return Settings(local, private, tuple(p.alphas), tuple(p.mixes), int.from_bytes(digest[:6], "big"), tuple(p.ditto))


def _row(
    node: Node,
    allotments: Mapping[str, Allotment],
    splits: Mapping[str, Splits],
    files: Mapping[str, ParticipantFile],
) -> dict[str, Any]:
    allotment, file = allotments[node.name], files[node.name]
    return {
        "name": node.name,
        "tier": _tier(node, allotment),
        "rank": allotment.rank,
        "steps": allotment.steps,
        "reason": allotment.reason,
        "hardware": file.hardware.model_dump(exclude_none=True),
        "data": {
            **splits[node.name].facts(),
            "cut": node.data.cut,
            "licence": file.data.licence,
            "consent": file.data.consent,
        },
        "batches": _shape_of(node),
    }


def _tier(node: Node, allotment: Allotment) -> str:
    return "full weights" if node.bench.full else f"rank {allotment.rank}"


def _centre_row(node: Node, allotments: Mapping[str, Allotment], splits: Splits) -> dict[str, Any]:
    allotment = allotments[CENTRE]
    data = {**splits.facts(), "cut": node.data.cut}
    row = {"name": CENTRE, "tier": _tier(node, allotment), "rank": allotment.rank, "steps": allotment.steps}
    return row | {"reason": allotment.reason, "hardware": {}, "data": data, "batches": _shape_of(node)}


def _shape_of(node: Node) -> dict[str, int]:
    return {
        "train": len(node.data.train),
        "validation": len(node.data.validation),
        "test": len(node.data.test),
    }


def _header(config: Federation, base: Base, bench: Bench, rows: list[dict[str, Any]]) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    versions = {"tequio": tequio.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "name": config.name,
        "seed": config.seed,
        "config": plain,
        "config_digest": digest_json(plain),
        "spec": bench.spec,
        "base": {
            "model": config.base.model,
            "licence": config.base.licence,
            "digest": base.digest,
            "parameters": base.parameters,
            "dtype": str(base.dtype).removeprefix("torch."),
        },
        "head_digest": digest_update(bench.head_update()),
        "task": {"kind": config.task.kind, "labels": list(config.task.label_names())},
        "participants": rows,
        "simulation": True,
        "versions": versions,
    }


def same_run(header: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """What differs between a run that is to be resumed and what its ledger recorded, in words; empty if nothing does."""
    differences: list[str] = []
    for key, words in (
        ("config_digest", "federation.toml"),
        ("spec", "the base model or the adapter layout"),
    ):
        if header[key] != recorded.get(key):
            differences.append(words)
    for name, further in header.get("bases", {}).items():
        then = recorded.get("bases", {}).get(name, {})
        if further["spec"] != then.get("spec"):
            differences.append(f"the base {name} or its adapter layout")
        elif further["base"]["dtype"] != then["base"]["dtype"]:
            differences.append(f'the precision that dtype = "auto" gives base {name} on this machine')
    if header["base"]["dtype"] != recorded["base"]["dtype"]:
        differences.append('the precision that [base] dtype = "auto" gives on this machine')
    now, then = header["public_data"], recorded.get("public_data", {})
    differences += [f"the public data of {name}" for name in now if now[name] != then.get(name)]
    before = {row["name"]: row for row in recorded["participants"]}
    rows = {row["name"]: row for row in header["participants"]}
    changed = [name for name, row in rows.items() if canonical_json(row) != canonical_json(before.get(name, {}))]
    return differences + [f"the data or hardware of participant {name}" for name in changed]
