"""From configuration to a ready run: data read and encoded, memory summed, base loaded, ranks
allotted, plan made.

Everything that can be wrong is found here, before the first step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from tequio.app.assembly.algorithm import Algorithm
from tequio.app.assembly.allocation import allocate_all, personal_settings
from tequio.app.assembly.carbon_schedule import (
    build_carbon_schedule,
    check_shift,
    intensity_digests,
)
from tequio.app.assembly.checks import check_pieces, check_tells_carbon, join_groups
from tequio.app.assembly.context import at_coordinator, build_model_context, build_node, read_splits
from tequio.app.assembly.manifest import participant_indices, participant_row, run_header
from tequio.app.assembly.masked import build_masking, check_least_mode
from tequio.app.assembly.profile import build_centre_profile, build_profile
from tequio.app.assembly.public_data import Centre, PublicData, build_centre, read_public
from tequio.app.assembly.run_spec import build_members, build_run_spec
from tequio.app.assembly.setup import RunSetup
from tequio.app.assembly.site import build_site
from tequio.app.assembly.topology import build_peers
from tequio.config import Federation, ParticipantFile, load_participant
from tequio.participant.splits import Splits

ParticipantData = Mapping[str, tuple[ParticipantFile, Splits]]
"""Participant -> its file and its data, split."""


def read_participants(config: Federation) -> ParticipantData:
    """What participants bring.

    It needs no base: one is looked for when this is right, and when the pieces are known to go
    together.
    """
    files = {entry.name: load_participant(entry.file, entry.name) for entry in config.participants}
    for who, file in files.items():
        check_least_mode(config, who, file)
    for energy, money in (
        (config.energy, config.money),
        *((f.energy, f.money) for f in files.values()),
    ):
        build_site(
            energy, money
        )  # a file of intensities that cannot be used is found before the base is loaded
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
    algorithm: Algorithm | None = None,
) -> RunSetup:
    """Build everything. Raises the error of whatever is wrong, naming file, key or participant.

    measured: participant -> tokens a second as the run's ledger has them, so that a resumed run
        probes nothing again.
    bases: base -> its digest as the run's ledger has it. participants: what they bring, where it
        has been read already.
    algorithm: the pieces, where `check_pieces` has built them already.
    """
    algorithm = algorithm or check_pieces(config)
    participants = read_participants(config) if participants is None else participants
    public, files = read_public(config), {who: file for who, (file, _) in participants.items()}
    built = [
        _build_group(config, algorithm, name, participants, public, measured, bases.get(name))
        for name in config.base_names()
    ]
    setup = join_groups(config, [group for group, _, _ in built])
    shift = build_carbon_schedule(config, files, setup.run_spec, setup.nodes, setup.meter.site)
    header = run_header(
        config, [(group.name, group, rows) for group, _, rows in built], built[0][1], public
    )
    header["provenance"] = [dict(p) for p in provenance]
    if shift is not None:
        header["intensities"] = intensity_digests(config, files)
    digests = {who: splits.digest() for who, (_, splits) in participants.items()}
    return replace(setup, shift=shift, header=header, data_digests=digests)


def _build_group(
    whole: Federation,
    algorithm: Algorithm,
    name: str,
    participants: ParticipantData,
    public: PublicData,
    measured: Mapping[str, float | None],
    recorded: str | None,
) -> tuple[RunSetup, Centre, list[dict[str, Any]]]:
    """One group: the participants of one base, its centre, and their rows."""
    config, places = whole.part(name), participant_indices(whole)
    own = {places[entry.name]: participants[entry.name] for entry in config.participants}
    peers, files = build_peers(config), {file.name: file for file, _ in own.values()}
    context = at_coordinator(
        build_model_context(config, files, recorded=recorded, algorithm=algorithm)
    )
    centre = build_centre(context, public)
    nodes = {
        i: build_node(context, file, splits, centre.text, hosted=True)
        for i, (file, splits) in own.items()
    }
    profiles = {
        i: build_profile(nodes[i], f, splits, measured.get(f.name))
        for i, (f, splits) in own.items()
    }
    if centre.node is not None and public.splits is not None:
        nodes[0], profiles[0] = (
            centre.node,
            build_centre_profile(config, centre.node, public.splits),
        )
    given = allocate_all(context, profiles)
    settings = {
        n.name: personal_settings(config, len(n.data.train), n.name, given[n.name])
        for i, n in nodes.items()
        if i
    }
    run_spec = build_run_spec(context, build_members(profiles, given))
    setup = RunSetup(
        **vars(context),
        run_spec=run_spec,
        nodes=nodes,
        report_slices=centre.held_out,
        settings=settings,
        peers=peers,
        name=name,
        masking=build_masking(config, run_spec),
    )
    full, base = context.adapted.full, name if whole.bases else None
    return (
        setup,
        centre,
        [
            participant_row(profiles[i], given[profiles[i].name], full, base)
            for i in sorted(profiles)
        ],
    )
