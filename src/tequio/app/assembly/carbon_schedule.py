"""[shift]: from configuration and participants' files of intensities to a simulated clock, and back
from a ledger to where it stood.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tequio.app.assembly.public_data import CENTRE
from tequio.config import Federation, ParticipantFile
from tequio.config.accounting import EnergySection
from tequio.coordinator.carbon_clock import (
    Clock,
    Terms,
    Worker,
    needed_slots,
    opening,
    slots_per_day,
    work_costs,
)
from tequio.coordinator.carbon_schedule import Shift
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import digest
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal, refuse_first
from tequio.ledger.record import Ledger
from tequio.measure.carbon_forecast import CarbonForecast, read_forecasts
from tequio.measure.intensity import Intensity, moment, read_intensity, stamp, window_end
from tequio.measure.site import Site
from tequio.participant.node import Node

Files = Mapping[str, ParticipantFile]


def build_terms(config: Federation) -> Terms | None:
    """What [shift] says; None without it."""
    given = config.shift
    if given is None:
        return None
    first = 0 if config.centre is None else config.centre.first
    return Terms(
        begin=moment(given.start, "[shift] start"),
        slot=60.0 * given.slot_minutes,
        deadline=3600.0 * given.deadline_hours,
        shifted=given.policy == "greedy",
        rounds=config.train.rounds - first,
        grams=None if given.kg_co2e is None else 1000.0 * given.kg_co2e,
        alpha=given.alpha,
        minimum=given.minimum,
        quorum=config.train.quorum or 1,
    )


def check_shift(config: Federation, files: Files) -> None:
    """Raise ConfigError where the simulated time cannot be counted: before anything is loaded."""
    terms, given = build_terms(config), config.shift
    if terms is None or given is None:
        return
    for who, energy in _places(config, files):
        unknown = energy.intensity is None and energy.country is None
        refuse_first(
            ConfigError, {"shift-place": unknown, "shift-private": not energy.tell}, who=who
        )
        if energy.intensity is not None:
            _covers(who, energy, terms, config.train.rounds)
    for who, file in files.items():
        speed = file.hardware.tokens_per_second is not None or file.hardware.probe
        found = {
            "shift-power": terms.grams is not None and file.hardware.tdp_watts is None,
            "shift-speed": given.work_hours is None and not speed,
        }
        key = "[hardware] tokens_per_second to its participant.toml"
        refuse_first(ConfigError, found, who=who, key=key)
    slow = (
        given.work_hours is None
        and config.centre is not None
        and config.centre.tokens_per_second is None
    )
    refuse_first(
        ConfigError, {"shift-speed": slow}, who="the centre", key="tokens_per_second to [centre]"
    )


def _places(config: Federation, files: Files) -> Iterator[tuple[str, EnergySection]]:
    for who, file in files.items():
        yield f"participant {who}", file.energy
    if config.centre is not None:
        yield "the centre (federation.toml)", config.energy.model_copy(update={"tell": True})


def _covers(who: str, energy: EnergySection, terms: Terms, rounds: int) -> None:
    series = read_intensity(energy.intensity or Path(), energy.zone)
    last = terms.begin + timedelta(seconds=rounds * terms.deadline + terms.slot)
    begin, end = series.windows[0].start, window_end(series.windows[-1])
    if begin > terms.begin or end < last:
        times = {
            "begin": stamp(begin),
            "end": stamp(end),
            "since": stamp(terms.begin),
            "until": stamp(last),
        }
        raise refusal(
            ConfigError,
            "shift-uncovered",
            file=str(energy.intensity),
            who=who,
            rounds=rounds,
            **times,
        )


def build_carbon_schedule(
    config: Federation, files: Files, run_spec: RunSpec, nodes: Mapping[int, Node], site: Site
) -> Shift | None:
    """The clock before the first round; None without [shift].

    Raises ConfigError where a deadline is shorter than the work, or the budget than what a minimum
    of rounds is expected to take.
    """
    terms = build_terms(config)
    if terms is None:
        return None
    workers = {
        m.name: _worker(config, files, m, nodes[m.index].meter.site, terms)
        for m in run_spec.members
    }
    names = list(workers)
    if run_spec.centre is not None:
        workers[CENTRE] = _worker(config, files, run_spec.centre, site, terms)
    clock = opening(terms, names)
    if terms.grams is not None:
        least = terms.least * sum(work_costs(clock, workers, names, terms).values())
        if least > terms.grams:
            facts = {"limit": terms.grams / 1000.0, "rounds": terms.least, "minimum": terms.minimum}
            raise refusal(ConfigError, "shift-unpaid", **facts, need=least / 1000.0)
    return Shift(terms, workers, site, clock)


def _worker(config: Federation, files: Files, member: Member, site: Site, terms: Terms) -> Worker:
    file = files.get(member.name)
    energy = config.energy if file is None else file.energy
    hours = None if config.shift is None else config.shift.work_hours
    seconds = member.seconds if hours is None else 3600.0 * hours
    if seconds is None:
        raise refusal(ConfigError, "shift-speed", who=member.name, key="tokens_per_second")
    if needed_slots(seconds, terms) > slots_per_day(terms):
        times = {"hours": terms.deadline / 3600.0, "seconds": seconds, "slot": terms.slot}
        raise refusal(ConfigError, "shift-too-short", name=member.name, **times)
    forecasts: tuple[Intensity, ...] = ()
    if energy.intensity is not None:
        forecasts = read_forecasts(energy.intensity, read_intensity(energy.intensity, energy.zone))
    watts = 0.0 if file is None else (file.hardware.tdp_watts or 0.0) * energy.pue
    return Worker(seconds, watts, CarbonForecast(site, forecasts))


def intensity_digests(config: Federation, files: Files) -> dict[str, str]:
    """Of the files by which it is decided: a run goes on with the same ones only."""
    paths = {who: energy.intensity for who, energy in _places(config, files)}
    return {who: digest(path.read_bytes()) for who, path in paths.items() if path is not None}


def gone_on(shift: Shift, ledger: Ledger) -> Shift:
    """Where the last committed round left the clock."""
    last = ledger.last("round")
    return shift if last is None else replace(shift, clock=Clock.of(last.body["shift"]["clock"]))
