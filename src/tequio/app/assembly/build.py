"""From configuration to a ready run: data read and encoded, memory summed, base loaded, ranks allotted, plan made.

Everything that can be wrong is found here, before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tequio.app.assembly.algorithm import distillation_of, pieces_of
from tequio.app.assembly.allocation import allotments, settings_of
from tequio.app.assembly.carbon_schedule import check_shift, digests_of, shift_of
from tequio.app.assembly.checks import _tells_carbon, check_pieces, check_teaching
from tequio.app.assembly.context import at_coordinator, ground_of, node_of, splits_of
from tequio.app.assembly.manifest import BASE_KEYS, centre_header, header_of, of_base, places_of, row_of
from tequio.app.assembly.profile import told_of, told_of_centre
from tequio.app.assembly.public_data import CENTRE, centre_of, read_public
from tequio.app.assembly.run_spec import members_of, plan_of
from tequio.app.assembly.setup import Wired
from tequio.app.assembly.site import site_of
from tequio.app.assembly.topology import peers_of
from tequio.config import Federation, ParticipantFile, load_participant
from tequio.participant.splits import Splits

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
