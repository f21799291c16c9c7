"""What a federation will take, before it runs: memory, time, energy, carbon and money for each and
in all, and the other ways to do it.

The work is that of the run to come, counted in steps and padded tokens of the real data; the speed
is probed here, or that of a device of the catalogue. It is a forecast: `forecast.py` sets it beside
what a run measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from tequio.app.assembly.build import ParticipantData
from tequio.app.assembly.memory import (
    STATE_COPIES,
    load_model_shape,
    look_tokens,
    process_memory,
    stored_score_bytes,
)
from tequio.app.assembly.setup import RunSetup
from tequio.app.assembly.site import build_site, disclosed_site, private_fields
from tequio.app.forecast.alternatives import break_even, build_options, judged, total
from tequio.app.forecast.bottleneck import help_for_the_weakest
from tequio.app.forecast.calibration import HERE
from tequio.app.forecast.limits import budgets, speeds
from tequio.app.forecast.placement import Placed, costs
from tequio.app.forecast.speed_probe import padded, pass_tokens, probe
from tequio.config import Federation, ParticipantFile
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.measure.site import Site
from tequio.participant.node import Node
from tequio.participant.personal import Settings
from tequio.participant.personal_budget import FitBudget
from tequio.planning.devices import Device, find_device
from tequio.planning.gpu_memory import (
    card_free_bytes,
    card_name,
    card_peak_bytes,
    forget_card_peak,
    on_card,
)
from tequio.planning.memory import (
    GIB,
    BatchShape,
    ModelShape,
    available_bytes,
    estimate_memory,
    peak_bytes,
)
from tequio.planning.pareto import compared
from tequio.planning.throughput import OnDevice
from tequio.planning.workload import Fit, Work, times

# bytes a parameter of a 4-bit base with its scales: .52 to .6 in the literature; not supported here
# yet
QUANTISED = 0.56
TESTS = 3.5  # base, local, shared and the chosen one, which is often one of these


def make_plan(
    config: Federation,
    setup: RunSetup,
    roster: ParticipantData,
    devices: Mapping[str, Device],
    machine: str | None = None,
    factors: Mapping[str, float] | None = None,
    tariff: float | None = None,
    own: bool = False,
) -> dict[str, Any]:
    """The whole plan as plain JSON. machine: a device for all;

    None: as each says, else this machine, probed. factors: by machine, from
    earlier runs. tariff: USD/kWh of a bought device. own: with what participants do not tell,
    money, carbon and own budgets; such a plan is not to be passed on. Raises ConfigError for an
    unknown device, offering the nearest.
    """
    if config.bases:
        raise refusal(ConfigError, "plan-of-several-bases")
    factors, files = factors or {}, {name: file for name, (file, _) in roster.items()}
    shape = load_model_shape(config, setup.algorithm)
    named = {name: machine or file.hardware.device for name, file in files.items()}
    for name, device in named.items():
        _known(device, devices, None if machine else name)
    here = None
    if not all(named.values()) or (config.centre and not machine):
        forget_card_peak()
        median = sorted(m.rank for m in setup.run_spec.members)[len(setup.run_spec.members) // 2]
        probed = probe(list(setup.nodes.values()), median)
        here = {name: replace(one, factor=factors.get(HERE, 1.0)) for name, one in probed.items()}

    def placed(work: Work, device: str | None, site: Site, memory_gib: float | None) -> Placed:
        if device is None:
            assert here is not None
            card = card_free_bytes() if memory_gib is None else None
            have = card or (available_bytes(None) if memory_gib is None else int(memory_gib * GIB))
            return Placed(work, HERE, here[work.name], site, have, card is not None)
        found = find_device(device, devices)
        have = int((memory_gib or found.memory or 0.0) * GIB) or available_bytes(None)
        return Placed(
            work, found.name, OnDevice(found, shape, factors.get(found.name, 1.0)), site, have
        )

    people = []
    for node in setup.participants:
        file = files[node.name]
        work = estimate_work(config, setup, node, file)
        site = (
            build_site(file.energy, file.money) if own else disclosed_site(file.energy, file.money)
        )
        people.append(placed(work, named[node.name], site, file.hardware.memory_gib))
    home = build_site(config.energy, config.money)
    centre = placed(centre_work(config, setup), machine, home, None) if 0 in setup.nodes else None
    options = build_options(people, centre, home, shape, devices, factors)
    axes = compared([option for option in options if option.key != "central"])
    return {
        "federation": config.name,
        "rounds": [config.train.rounds, config.centre.first if config.centre else 0],
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {
            "model": config.base.model,
            "parameters": shape.parameters,
            "digest": setup.adapted.base.digest,
        },
        "threads": _threads(),
        "machine": None
        if here is None
        else {k: v for k, v in asdict(next(iter(here.values()))).items() if k != "watts"},
        "factors": {one.machine: factors.get(one.machine, 1.0) for one in people},
        "participants": [_row(config, shape, one) for one in people],
        "centre": None if centre is None else _row(config, shape, centre),
        "process_memory": process_bytes(config, setup, here is not None),
        "card": card_name(),
        "card_memory": card_bytes(config, setup, here is not None),
        "own": own,
        "private": {}
        if own
        else {name: withheld for name, file in files.items() if (withheld := _withheld(file))},
        "budgets": budgets(config, files, people, centre, own),
        "declared": speeds(files, people, setup.run_spec.members),
        "total": total([*people, *([centre] if centre else [])]),
        "options": judged(options, axes),
        "axes": list(axes),
        "break_even": break_even(devices, options, tariff),
        "weakest": help_for_the_weakest(config, setup, people, devices, shape),
        "limits": [Reason(code).as_record() for code in LIMITS],
    }


def _withheld(file: ParticipantFile) -> list[str]:
    """What a plan that can be passed on leaves out of this participant."""
    return private_fields(file.energy, file.money) + (
        ["own-budget"] if file.budget.limits() else []
    )


def _known(device: str | None, devices: Mapping[str, Device], whose: str | None) -> None:
    """Raise ConfigError for a device that is not in the catalogue, saying in whose file. whose:

    None where it is `--machine`.
    """
    if device is None:
        return
    try:
        find_device(device, devices)
    except ConfigError as error:
        if whose is None:
            raise
        raise error.within(f"Participant {whose}, [hardware] device") from None


def process_bytes(config: Federation, setup: RunSetup, probed: bool) -> int:
    """Memory of a process that hosts all participants and the coordinator: what the probe took, and
    the states of the rounds beside it.

    Without a probe the sum of `planning.memory`, which takes updates as dense and rounds up.
    """
    if not probed:
        return process_memory(config, setup.algorithm, len(config.participants)).total
    dense = 4 * sum(m * n for m, n in setup.adapted.shapes.values())
    factored = (
        4 * setup.run_spec.broadcast_rank * sum(m + n for m, n in setup.adapted.shapes.values())
    )
    return peak_bytes() + STATE_COPIES * (dense if setup.adapted.full else min(dense, factored))


def card_bytes(config: Federation, setup: RunSetup, probed: bool) -> int | None:
    """Memory of this machine's graphics card: what the probe took, else the sum's part on it;

    None without one.
    """
    if probed:
        return card_peak_bytes()
    if card_free_bytes() is None:
        return None
    return on_card(process_memory(config, setup.algorithm, len(config.participants))).total


LIMITS = ("limit-quality", "limit-times", "limit-devices", "limit-rents")


def estimate_work(config: Federation, setup: RunSetup, node: Node, file: ParticipantFile) -> Work:
    """A participant's work in the run to come."""
    member = next(m for m in setup.run_spec.members if m.name == node.name)
    tokens, length = padded(node)
    rounds = config.train.rounds - (config.centre.first if config.centre else 0)
    looks = rounds + 1 if member in setup.run_spec.panel(config.train.rounds) else 0
    if config.train.cohort is not None:  # drawn anew for each round: so many on average
        rounds = max(1, round(rounds * config.train.cohort / len(config.participants)))
    size = setup.adapted.shapes.values()
    per_rank = 4.0 * sum(m + n for m, n in size)
    up = 4.0 * sum(m * n for m, n in size) if setup.adapted.full else per_rank * member.rank
    fits, candidates, local = planned_fits(setup.settings[node.name])
    return Work(
        name=node.name,
        rounds=rounds,
        steps=member.steps,
        rank=member.rank,
        step_tokens=tokens,
        length=length,
        validation=pass_tokens(node.data.validation, node.task.batch_tokens),
        test=pass_tokens(node.data.test, node.task.batch_tokens),
        evaluations=looks,
        fits=fits,
        looks=candidates,
        tests=TESTS,
        bytes_up=up,
        bytes_down=up if setup.adapted.full else per_rank * setup.run_spec.broadcast_rank,
        uplink_mbit=file.hardware.uplink_mbit,
        full=setup.adapted.full,
        examples=len(node.data.train),
        local_fits=local,
    )


def planned_fits(settings: Settings) -> tuple[tuple[Fit, ...], int, int]:
    """(trainings of the personal model, evaluations beside theirs, how many are of the local
    one).
    """

    def runs(budget: FitBudget) -> list[Fit]:
        return [
            Fit(budget.steps, budget.rank, min(budget.checks, budget.steps)) for _ in budget.rates
        ]

    local, private = runs(settings.local), runs(settings.private)
    ditto = private * len(settings.ditto)
    looks = 2 + 2 * len(settings.ditto) + len(settings.alphas) + len(settings.mixes)
    return (*local, *private, *ditto), looks, len(local)


def centre_work(config: Federation, setup: RunSetup) -> Work:
    """The centre's: its steps in the rounds, and public slices in each."""
    node = setup.nodes[0]
    tokens, length = padded(node)
    member = setup.run_spec.centre
    size = node.task.batch_tokens
    withheld = sum(pass_tokens(items, size) for items in setup.report_slices.values() if items)
    trains = member is not None and setup.run_spec.federated_share < 1.0
    return Work(
        name=node.name,
        rounds=config.train.rounds if trains else 0,
        steps=member.steps if member else 0,
        rank=member.rank if member else 1,
        step_tokens=tokens,
        length=length,
        validation=sum(pass_tokens(items, size) for items in node.slices.values() if items),
        test=withheld,
        evaluations=config.train.rounds + 1,
        tests=2.0,
        full=setup.adapted.full,
        examples=len(node.data.train),
    )


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _row(config: Federation, shape: ModelShape, one: Placed) -> dict[str, Any]:
    spent = times(one.work, one.rates)
    return {
        "name": one.work.name,
        "machine": one.machine,
        "watts": one.rates.watts,
        "rank": one.work.rank,
        "steps": one.work.steps,
        "rounds": one.work.rounds,
        "examples": one.work.examples,
        "tokens": one.work.trained_tokens,
        "seconds": asdict(spent) | {"work": spent.work, "total": spent.total},
        "range": _range(one),
        **costs(one, spent.work),
        "bytes_up": one.work.bytes_up * one.work.rounds,
        "bytes_down": one.work.bytes_down * one.work.rounds,
        "memory": _memory(config, shape, one),
    }


def _range(one: Placed) -> list[float] | None:
    """Seconds at the highest and the lowest utilisation, of a device."""
    if not isinstance(one.rates, OnDevice):
        return None
    return [times(one.work, replace(one.rates, which=which)).work for which in (2, 0)]


def _memory(config: Federation, shape: ModelShape, one: Placed) -> list[dict[str, Any]]:
    """Bytes that each way of training needs there, and whether they fit: adapters of each rank, a
    quantised base, whole weights.
    """
    batch = BatchShape(config.train.batch_size, config.task.max_tokens)
    kinds: list[tuple[Reason, int, bool, float]] = [
        (Reason("plan-rank", {"rank": rank}), rank, False, shape.bytes_per_parameter)
        for rank in sorted(set(config.adapter.ranks))
    ]
    kinds += [
        (Reason("plan-quantised"), max(config.adapter.ranks), False, QUANTISED),
        (Reason("plan-full"), 1, True, shape.bytes_per_parameter),
    ]
    out = []
    for kind, rank, full, size in kinds:
        sizes = replace(shape, bytes_per_parameter=size)
        scores = stored_score_bytes(batch.tokens) if one.card and not full else 0
        need = estimate_memory(sizes, batch, rank, scores, full=full, look=look_tokens(config))
        need = on_card(need) if one.card else need
        total = need.total - (
            need.folded_weights if size == QUANTISED else 0
        )  # nothing can be folded into four bits
        out.append(
            {"kind": kind.as_record(), "need": total, "have": one.have, "fits": total <= one.have}
        )
    return out
