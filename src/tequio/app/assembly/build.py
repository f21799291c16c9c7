"""From configuration to a ready run: data read and encoded, memory summed, base loaded, ranks allotted, plan made.

Everything that can be wrong is found here, before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tequio.app.assembly.algorithm import build_distillation, resolve_algorithm
from tequio.app.assembly.allocation import allocate_all, personal_settings
from tequio.app.assembly.carbon_schedule import build_carbon_schedule, check_shift, intensity_digests
from tequio.app.assembly.checks import check_pieces, check_teaching, check_tells_carbon
from tequio.app.assembly.context import at_coordinator, build_model_context, build_node, read_splits
from tequio.app.assembly.manifest import (
    BASE_KEYS,
    build_header,
    centre_header,
    label_base,
    participant_indices,
    participant_row,
)
from tequio.app.assembly.masked import build_masking, check_least_mode
from tequio.app.assembly.profile import build_centre_profile, build_profile
from tequio.app.assembly.public_data import CENTRE, build_centre, read_public
from tequio.app.assembly.run_spec import build_members, build_run_spec
from tequio.app.assembly.setup import RunSetup
from tequio.app.assembly.site import build_site
from tequio.app.assembly.topology import build_peers
from tequio.config import Federation, ParticipantFile, load_participant
from tequio.participant.splits import Splits

ParticipantData = Mapping[str, tuple[ParticipantFile, Splits]]
"""Participant -> its file and its data, split."""


def read_participants(config: Federation) -> ParticipantData:
    """What participants bring, once it is known that the pieces go together. It needs no base: one is looked for when this is right."""
    check_pieces(config)
    files = {entry.name: load_participant(entry.file, entry.name) for entry in config.participants}
    for who, file in files.items():
        check_least_mode(config, who, file)
    for energy, money in ((config.energy, config.money), *((f.energy, f.money) for f in files.values())):
        build_site(energy, money)  # a file of intensities that cannot be used is found before the base is loaded
    if config.budget.kg_co2e is not None:
        for who, file in files.items():
            check_tells_carbon(who, file)
    check_shift(config, files)
    return {who: (file, read_splits(config, file)) for who, file in files.items()}


def build(
    config: Federation,
    provenance: Sequence[Mapping[str, Any]] = (),
    measured: Mapping[str, float | None] = MappingProxyType({}),
    participants: ParticipantData | None = None,
    bases: Mapping[str, str] = MappingProxyType({}),
) -> RunSetup:
    """Build everything. Raises the error of whatever is wrong, naming file, key or participant.

    measured: participant -> tokens a second as the run's ledger has them, so that a resumed run probes nothing again.
    bases: base -> its digest as the run's ledger has it. roster: what participants bring, where it has been read already.
    """
    participants = read_participants(config) if participants is None else participants
    reduce = resolve_algorithm(config.algorithm, config.adapter.kind == "full").reduce
    main, *others = [
        _build_group(config.part(name), name, participants, participant_indices(config), measured, bases.get(name))
        for name in config.base_names()
    ]
    how = None
    if config.distil is not None:
        ranks = [group.run_spec.top_rank() for group in (main, *others)]
        how = build_distillation(config.distil, reduce, max(ranks), config.seed)
        check_teaching((main, *others), how)
    files = {who: file for who, (file, _) in participants.items()}
    shift = build_carbon_schedule(config, files, main.run_spec, main.nodes, main.meter.site)
    setup = replace(main, config=config, others=tuple(others), distillation=how, shift=shift)
    rows = [row for group in setup.groups for row in _header_rows(group, bool(others))]
    header = build_header(config, main.adapted, sorted(rows, key=lambda r: participant_indices(config)[r["name"]]))
    header |= {key: main.header[key] for key in ("centre", "slices", "public_data")}
    header["provenance"] = [dict(p) for p in provenance]
    if shift is not None:
        header["intensities"] = intensity_digests(config, files)
    if others:
        header["bases"] = {group.name: {k: group.header[k] for k in BASE_KEYS} for group in others}
    return replace(setup, header=header, data_digests=_joined([group.data_digests for group in setup.groups]))


def _header_rows(group: RunSetup, several: bool) -> list[dict[str, Any]]:
    """The rows of the header."""
    return [label_base(row, group.name, several) for row in group.header["participants"]]


def _joined(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {name: value for part in parts for name, value in part.items()}


def _build_group(
    config: Federation,
    name: str,
    participants: ParticipantData,
    places: Mapping[str, int],
    measured: Mapping[str, float | None],
    recorded: str | None,
) -> RunSetup:
    """One group: the participants of one base."""
    full = config.adapter.kind == "full"
    algorithm = resolve_algorithm(config.algorithm, full)
    peers = build_peers(config)
    files = {entry.name: participants[entry.name][0] for entry in config.participants}
    splits = {entry.name: participants[entry.name][1] for entry in config.participants}
    public = read_public(config)
    context = at_coordinator(build_model_context(config, files, recorded=recorded))
    centre = build_centre(context, public)
    nodes = {
        places[who]: build_node(context, file, splits[who], centre.text, hosted=True) for who, file in files.items()
    }
    profiles = {
        places[who]: build_profile(nodes[places[who]], f, splits[who], measured.get(who)) for who, f in files.items()
    }
    if centre.node is not None and public.splits is not None:
        nodes[0], profiles[0] = centre.node, build_centre_profile(config, centre.node, public.splits)
    given = allocate_all(config, profiles, context.adapted)
    run_spec = build_run_spec(config, algorithm, build_members(profiles, given), context.adapted)
    settings = {
        n.name: personal_settings(config, len(n.data.train), n.name, given[n.name]) for i, n in nodes.items() if i
    }
    rows = [participant_row(profiles[i], given[profiles[i].name], full) for i in sorted(profiles)]
    header = build_header(config, context.adapted, [row for row in rows if row["name"] != CENTRE]) | centre_header(
        rows, centre, public
    )
    digests = {who: s.digest() for who, s in splits.items()}
    return RunSetup(
        config,
        context.adapted,
        context.task,
        run_spec,
        nodes,
        centre.held_out,
        settings,
        header,
        digests,
        context.meter,
        peers,
        name,
        masking=build_masking(config, run_spec),
    )
