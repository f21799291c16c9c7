"""What to give the weakest participant so that the group gains most: each lever is tried on the
allotment, and its effect is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tequio.app.assembly.allocation import build_workload, full_steps
from tequio.app.assembly.profile import ParticipantProfile
from tequio.app.assembly.setup import RunSetup
from tequio.app.forecast.placement import Placed
from tequio.config import Federation, HardwareSection
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.planning.allocation import Assignment, Hardware, allocate
from tequio.planning.devices import Device
from tequio.planning.memory import ModelShape
from tequio.planning.throughput import OnDevice
from tequio.planning.workload import Rates, Work, times

FEW = 0.5  # of the median: with fewer examples than this, texts help most


def help_for_the_weakest(
    config: Federation,
    setup: RunSetup,
    people: Sequence[Placed],
    devices: Mapping[str, Device],
    shape: ModelShape,
) -> dict[str, Any] | None:
    """Who is weakest (smallest rank, then fewest of its steps, then slowest) and what each lever
    changes;

    None with one participant.
    """
    if len(people) < 2:
        return None
    round_of = {one.work.name: _round(one.work, one.rates) for one in people}
    allotted = {m.name: m for m in setup.run_spec.members}

    def strength(one: Placed) -> tuple[float, float, float]:
        full = full_steps(config, one.work.examples)
        return (allotted[one.work.name].rank, one.work.steps / full, -round_of[one.work.name])

    weak = min(people, key=strength)
    name = weak.work.name
    others = max(seconds for who, seconds in round_of.items() if who != name)
    now = max(round_of.values())
    levers: list[dict[str, Any]] = []
    row = next(r for r in setup.header["participants"] if r["name"] == name)
    declared = Hardware(
        row["hardware"].get("tokens_per_second") or row.get("measured_tokens_per_second"),
        *(row["hardware"].get(key) for key in ("uplink_mbit", "memory_gib", "max_rank")),
    )
    for code, changed in (
        ("lever-faster", replace(declared, tokens_per_second=_twice(declared.tokens_per_second))),
        ("lever-uplink", replace(declared, uplink_mbit=_twice(declared.uplink_mbit))),
        ("lever-memory", replace(declared, memory_gib=None)),
        ("lever-rank", replace(declared, max_rank=None)),
    ):
        given, faster = _allotted(config, setup, name, changed), code == "lever-faster"
        if given is None or (
            changed == declared and not faster
        ):  # where no speed is declared it is faster all the same
            continue
        work = replace(_with(weak.work, given.rank, given.steps), uplink_mbit=changed.uplink_mbit)
        seconds = _round(work, weak.rates, 2.0 if faster else 1.0)
        levers.append(
            _lever(Reason(code), given.rank, given.steps, max(seconds, others), weak, now)
        )
    smallest = _smallest(weak, others, devices, shape)
    if smallest is not None:
        device, seconds = smallest
        work = _with(weak.work, max(config.adapter.ranks), full_steps(config, weak.work.examples))
        seconds = max(others, _round(work, OnDevice(device, shape)))
        levers.append(
            _lever(
                Reason("lever-hosted", {"device": device.name}),
                work.rank,
                work.steps,
                seconds,
                weak,
                now,
            )
        )
    texts = sorted(one.work.examples for one in people)
    if weak.work.examples < FEW * texts[len(texts) // 2]:
        levers.append(
            {
                "what": Reason("lever-texts").as_record(),
                "rank": weak.work.rank,
                "steps": weak.work.steps,
                "round_seconds": now,
                "saved": 0.0,
                "gain": True,
            }
        )
    useful = [lever for lever in levers if lever["gain"]]
    return {
        "name": name,
        "rank": weak.work.rank,
        "steps": weak.work.steps,
        "round_seconds": round_of[name],
        "group_round_seconds": now,
        "levers": sorted(
            useful, key=lambda lever: (-lever["rank"], -lever["steps"], lever["round_seconds"])
        ),
    }


def _lever(
    what: Reason, rank: int, steps: int, seconds: float, weak: Placed, now: float
) -> dict[str, Any]:
    return {
        "what": what.as_record(),
        "rank": rank,
        "steps": steps,
        "round_seconds": seconds,
        "saved": now - seconds,
    } | ({"gain": rank > weak.work.rank or steps > weak.work.steps or seconds < now})


def _allotted(
    config: Federation, setup: RunSetup, name: str, hardware: Hardware
) -> Assignment | None:
    row = next(r for r in setup.header["participants"] if r["name"] == name)
    node = next(n for n in setup.participants if n.name == name)
    mean = sum(len(item.ids) for item in node.data.train) / len(node.data.train)
    profile = ParticipantProfile(name, HardwareSection(), dict(row["batches"]), mean, {})
    try:
        return allocate(
            hardware, build_workload(setup, profile, full_steps(config, profile.batches["train"]))
        )
    except ConfigError:
        return None


def _with(work: Work, rank: int, steps: int) -> Work:
    """The same at another rank, whose updates are as much larger."""
    return replace(
        work,
        rank=rank,
        steps=steps,
        bytes_up=work.bytes_up * (1.0 if work.full else rank / work.rank),
    )


def _round(work: Work, rates: Rates, faster: float = 1.0) -> float:
    """Seconds of a round, on a machine so many times as fast."""
    spent = times(work, rates)
    return ((spent.train + spent.evaluate) / faster + spent.network) / max(1, work.rounds)


def _smallest(
    weak: Placed, others: float, devices: Mapping[str, Device], shape: ModelShape
) -> tuple[Device, float] | None:
    """The cheapest device on which it would not be the slowest any more."""
    priced = sorted((d for d in devices.values() if d.buy), key=lambda d: d.buy or (0.0, 0.0))
    timed = ((device, _round(weak.work, OnDevice(device, shape))) for device in priced)
    return next(((device, seconds) for device, seconds in timed if seconds <= others), None)


def _twice(value: float | None) -> float | None:
    return None if value is None else 2.0 * value
