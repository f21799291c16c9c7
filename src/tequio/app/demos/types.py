"""What a demo is made of (`DemoData`), and how it is written once into the cache and read back.

A prepared folder holds JSONL files and `provenance.json`, which lists licences, digests and counts.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tequio.app.demos.text import Sample
from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import DataError
from tequio.core.texts.words import refusal

MANIFEST = "provenance.json"


@dataclass(frozen=True)
class Provenance:
    """Where a piece of the demo comes from. `sha256` is of the fetched file ("" if it is no file).

    upstream, used_for: reasons in their recorded form; words in demos that an earlier version
        prepared.
    """

    name: str
    version: str
    licence: str
    upstream: dict[str, Any] | str
    sha256: str
    used_for: dict[str, Any] | str


@dataclass(frozen=True)
class Tier:
    """One class of hardware. Rates in tokens/s, Mbit/s, GiB."""

    tokens_per_second: float
    uplink_mbit: float
    memory_gib: float
    max_rank: int


@dataclass(frozen=True)
class DemoParticipant(Tier):
    """One participant: its data file and its (simulated) hardware."""

    name: str
    data: Path


@dataclass(frozen=True)
class DemoData:
    """A prepared demo. JSONL rows have `text` and, for classification, `label`;

    `labels` is {} for causal.
    """

    folder: Path
    participants: tuple[DemoParticipant, ...]
    centre: Path | None
    slices: dict[str, Path]
    labels: dict[str, str]
    provenance: tuple[Provenance, ...]


@dataclass(frozen=True)
class Plan:
    """Everything `save` writes: samples by place, tier by participant, and what to record.

    `removed`: duplicates dropped, by place. `centre` is None where no public data fit."""

    participants: Mapping[str, Sequence[Sample]]
    tiers: Mapping[str, Tier]
    centre: Sequence[Sample] | None
    slices: Mapping[str, Sequence[Sample]]
    labels: Mapping[str, str]
    provenance: tuple[Provenance, ...]
    removed: Mapping[str, int] = field(default_factory=dict)


def four_tiers(fastest: float) -> dict[int, Tier]:
    """Unequal hardware by its largest rank, 2, 4, 8, 16; speeds are 1/8, 1/4, 1/2 and all of
    `fastest`.
    """
    return {
        2: Tier(fastest / 8, 5.0, 4.0, 2),
        4: Tier(fastest / 4, 20.0, 8.0, 4),
        8: Tier(fastest / 2, 50.0, 16.0, 8),
        16: Tier(fastest, 200.0, 32.0, 16),
    }


def describe(samples: Sequence[Sample]) -> dict[str, Any]:
    """Counts that may be shown: rows, rows of each label, and the median length in characters."""
    labels = Counter(sample.label for sample in samples if sample.label is not None)
    return {
        "rows": len(samples),
        "labels": dict(sorted(labels.items())),
        "median_characters": median(len(sample.text) for sample in samples) if samples else 0,
    }


def save(target: Path, plan: Plan) -> DemoData:
    """Write the demo below `target` in one step (temporary folder, then rename) and read it back.

    Raises DataError if a participant or the centre would have no row."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    try:
        places = {
            **{f"participants/{name}.jsonl": rows for name, rows in plan.participants.items()},
            **{f"slices/{name}.jsonl": rows for name, rows in plan.slices.items()},
            **({} if plan.centre is None else {"centre.jsonl": plan.centre}),
        }
        manifest = _manifest(
            plan, {name: _write_rows(work / name, rows) for name, rows in places.items()}
        )
        manifest["counts"] = {name: describe(rows) for name, rows in places.items()}
        (work / MANIFEST).write_text(
            json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        if not target.exists():
            os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return load(target)


def load(target: Path) -> DemoData:
    """Read a prepared demo.

    Raises DataError if a file is missing or is not the one that was written.
    """
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        for name, sha256 in manifest["files"].items():
            if digest((target / name).read_bytes()) != sha256:
                raise ValueError
    except (OSError, ValueError, KeyError):
        raise refusal(DataError, "demo-changed", folder=target) from None
    participants = tuple(
        DemoParticipant(name=name, data=target / f"participants/{name}.jsonl", **tier)
        for name, tier in manifest["participants"].items()
    )
    return DemoData(
        folder=target,
        participants=participants,
        centre=target / "centre.jsonl" if manifest["centre"] else None,
        slices={name: target / f"slices/{name}.jsonl" for name in manifest["slices"]},
        labels=manifest["labels"],
        provenance=tuple(Provenance(**entry) for entry in manifest["provenance"]),
    )


def _manifest(plan: Plan, files: dict[str, str]) -> dict[str, Any]:
    return {
        "participants": {name: asdict(plan.tiers[name]) for name in plan.participants},
        "centre": plan.centre is not None,
        "slices": list(plan.slices),
        "labels": dict(plan.labels),
        "provenance": [asdict(entry) for entry in plan.provenance],
        "files": files,
        "removed_duplicates": dict(plan.removed),
    }


def _write_rows(path: Path, rows: Sequence[Sample]) -> str:
    """Write the JSONL file and return its sha256."""
    if not rows:
        raise refusal(DataError, "demo-file-empty", file=path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(canonical_json(row.as_row()) + b"\n" for row in rows)
    path.write_bytes(data)
    return digest(data)
