"""From configuration to a ready run: data read and encoded, memory summed, base loaded, ranks allotted, plan made.

Everything that can be wrong is found here, before the first step.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch

import tequio
from tequio.algorithms.chain import check_bound, check_buffered, check_votes
from tequio.coordinator.distil import Distillation
from tequio.coordinator.gossip import Peers
from tequio.coordinator.plan import Member, Plan, Screening
from tequio.coordinator.shift import Shift
from tequio.core.canonical import canonical_json, digest_json, digest_update
from tequio.core.errors import ConfigError, ResourceError
from tequio.measure.energy import Meter
from tequio.participant.bench import Bench
from tequio.participant.distil import PublicTexts
from tequio.participant.node import Node
from tequio.participant.personal import Settings
from tequio.participant.splits import Splits
from tequio.participant.tasks import Causal, Item, TextTask
from tequio.planning.allotment import Allotment
from tequio.planning.memory import available_bytes
from tequio.recipes.config import MAIN, Federation, ParticipantFile, load_participant
from tequio.recipes.ground import at_coordinator, ground_of, node_of, splits_of
from tequio.recipes.pieces import Pieces, distillation_of, local_of, pieces_of
from tequio.recipes.place import site_of
from tequio.recipes.public import CENTRE, centre_header, centre_of, read_public
from tequio.recipes.shift import check_shift, digests_of, shift_of
from tequio.recipes.told import Told, allotments, of_base, row_of, settings_of, told_of, told_of_centre
from tequio.recipes.topology import peers_of

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
    shift: Shift | None = None

    @property
    def participants(self) -> list[Node]:
        """Of this base, without the centre."""
        return [node for index, node in sorted(self.nodes.items()) if index > 0]

    @property
    def groups(self) -> tuple[Wired, ...]:
        """One a base, that of [base] first."""
        return (self, *self.others)

    def group(self, base: str) -> Wired:
        """The group of one base."""
        return next(group for group in self.groups if group.name == base)

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


Roster = Mapping[str, tuple[ParticipantFile, Splits]]
"""Participant -> its file and its data, split."""


def read_roster(config: Federation) -> Roster:
    """What participants bring, once it is known that the pieces go together. It needs no base: one is looked for when this is right."""
    check_pieces(config)
    files = {entry.name: load_participant(entry.file, entry.name) for entry in config.participants}
    for energy, money in ((config.energy, config.money), *((f.energy, f.money) for f in files.values())):
        site_of(energy, money)  # a file of intensities that cannot be used is found before the base is loaded
    if config.budget.kg_co2e is not None:
        for who, file in files.items():
            _tells_carbon(who, file)
    check_shift(config, files)
    return {who: (file, splits_of(config, file)) for who, file in files.items()}


def _tells_carbon(who: str, file: ParticipantFile) -> None:
    """Raise ConfigError where a federation's carbon budget could not count this participant."""
    placed = file.energy.country is not None or file.energy.intensity is not None
    if placed and file.energy.tell:
        return
    what = f"budget.kg_co2e of federation.toml cannot be kept: participant {who} does not tell its carbon."
    if placed:
        why, fix = "[energy] tell = false in its participant.toml.", "Set tell = true there"
    else:
        why, fix = "Its participant.toml has no [energy] country or intensity.", "Add one of them there"
    raise ConfigError(what, why, f"{fix}, or give the federation another budget (kwh, hours, money, megabytes).")


def check_pieces(config: Federation) -> None:
    """Raise ConfigError for an illegal chain."""
    pieces = pieces_of(config.algorithm, config.adapter.kind == "full")
    peers_of(config)
    check_votes(pieces.reduce, config.train.cohort or len(config.participants))
    check_bound(config.screen.norm_bound, pieces.weights)
    local_of(config)
    if config.train.pace == "buffered":
        check_buffered(pieces.reduce, pieces.start, config.screen.cosine, pieces.feedback)
    if config.distil is not None:
        distillation_of(config.distil, pieces.reduce, 1, config.seed)


def wire(
    config: Federation,
    provenance: Sequence[Mapping[str, Any]] = (),
    measured: Mapping[str, float | None] = MappingProxyType({}),
    roster: Roster | None = None,
) -> Wired:
    """Build everything. Raises the error of whatever is wrong, naming file, key or participant.

    measured: participant -> tokens a second as the run's ledger has them, so that a resumed run probes nothing again.
    roster: what participants bring, where it has been read already.
    """
    roster = read_roster(config) if roster is None else roster
    reduce = pieces_of(config.algorithm, config.adapter.kind == "full").reduce
    main, *others = [
        _wire(config.part(name), name, roster, places_of(config), measured) for name in config.base_names()
    ]
    how = None
    if config.distil is not None:
        ranks = [group.plan.top_rank() for group in (main, *others)]
        how = distillation_of(config.distil, reduce, max(ranks), config.seed)
        check_teaching((main, *others), how)
    files = {who: file for who, (file, _) in roster.items()}
    shift = shift_of(config, files, main.plan, main.nodes, main.meter.site)
    wired = replace(main, config=config, others=tuple(others), distillation=how, shift=shift)
    rows = [row for group in wired.groups for row in _named(group, bool(others))]
    header = header_of(config, main.bench, sorted(rows, key=lambda r: places_of(config)[r["name"]]))
    header |= {key: main.header[key] for key in ("centre", "slices", "public_data")}
    header["provenance"] = [dict(p) for p in provenance]
    if shift is not None:
        header["intensities"] = digests_of(config, files)
    if others:
        header["bases"] = {group.name: {k: group.header[k] for k in BASE_KEYS} for group in others}
    return replace(wired, header=header, data_digests=_joined([group.data_digests for group in wired.groups]))


def places_of(config: Federation) -> dict[str, int]:
    """Each participant's index: its place on the whole roster, from 1."""
    return {entry.name: i for i, entry in enumerate(config.participants, 1)}


def _named(group: Wired, several: bool) -> list[dict[str, Any]]:
    """The rows of the header."""
    return [of_base(row, group.name, several) for row in group.header["participants"]]


def _joined(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}


def _wire(
    config: Federation, name: str, roster: Roster, places: Mapping[str, int], measured: Mapping[str, float | None]
) -> Wired:
    """One group: the participants of one base."""
    full = config.adapter.kind == "full"
    pieces = pieces_of(config.algorithm, full)
    peers = peers_of(config)
    files = {entry.name: roster[entry.name][0] for entry in config.participants}
    splits = {entry.name: roster[entry.name][1] for entry in config.participants}
    public = read_public(config)
    ground = at_coordinator(ground_of(config, files))
    centre = centre_of(ground, public)
    nodes = {places[who]: node_of(ground, file, splits[who], centre.text, hosted=True) for who, file in files.items()}
    told = {places[who]: told_of(nodes[places[who]], f, splits[who], measured.get(who)) for who, f in files.items()}
    if centre.node is not None and public.splits is not None:
        nodes[0], told[0] = centre.node, told_of_centre(config, centre.node, public.splits)
    given = allotments(config, told, ground.bench)
    plan = plan_of(config, pieces, members_of(told, given), ground.bench)
    settings = {n.name: settings_of(config, len(n.data.train), n.name, given[n.name]) for i, n in nodes.items() if i}
    rows = [row_of(told[i], given[told[i].name], full) for i in sorted(told)]
    header = header_of(config, ground.bench, [row for row in rows if row["name"] != CENTRE]) | centre_header(
        rows, centre, public
    )
    digests = {who: s.digest() for who, s in splits.items()}
    return Wired(
        config,
        ground.bench,
        ground.task,
        plan,
        nodes,
        centre.held_out,
        settings,
        header,
        digests,
        ground.meter,
        peers,
        name,
    )


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


def members_of(told: Mapping[int, Told], given: Mapping[str, Allotment]) -> dict[int, Member]:
    """Members by index, as they were allotted."""
    shares = {i: given[who.name] for i, who in told.items()}
    return {i: Member(told[i].name, i, a.rank, a.steps, a.seconds) for i, a in shares.items()}


def plan_of(
    config: Federation, pieces: Pieces, members: Mapping[int, Member], bench: Bench, top: int | None = None
) -> Plan:
    """The plan of all rounds, with its members by index (0: the centre). top: the largest rank, if not that of these members."""
    return Plan(
        seed=config.seed,
        rounds=config.train.rounds,
        spec=bench.spec,
        scale=bench.scale,
        shapes=bench.shapes,
        members=tuple(members[i] for i in sorted(members) if i > 0),
        centre=members.get(0),
        federated_share=1.0 if config.centre is None else config.centre.federated_share,
        centre_first=0 if config.centre is None else config.centre.first,
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
        broadcast_rank=config.algorithm.broadcast_rank or 2 * (top or max(m.rank for m in members.values())),
        patience=config.train.patience,
        cohort=config.train.cohort,
        window_seconds=config.train.round_seconds if config.train.pace == "buffered" else None,
        buffer=config.train.buffer or 1,
        quorum=config.train.quorum or 1,
        gate_margin=config.gate.margin,
        credit=config.equity.credit,
        leave_one_out=config.equity.leave_one_out,
        head_shapes={name: tuple(tensor.shape) for name, tensor in bench.head.items()},
    )


def header_of(config: Federation, bench: Bench, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How the run began: configuration, base, roster, versions."""
    base = bench.base
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
            "path": bench.path.why,
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
    now, then = header.get("intensities", {}), recorded.get("intensities", {})
    differences += [f"the intensities of {name}" for name in now if now[name] != then.get(name)]
    before = {row["name"]: row for row in recorded["participants"]}
    rows = {row["name"]: row for row in header["participants"]}
    changed = [name for name, row in rows.items() if canonical_json(row) != canonical_json(before.get(name, {}))]
    return differences + [f"the data or hardware of participant {name}" for name in changed]
