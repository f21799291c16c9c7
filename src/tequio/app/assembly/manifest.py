"""The header of a run: configuration, bases, participants, versions; and what makes two of them the same run."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import tequio
from tequio.app.assembly.profile import (
    ParticipantProfile,
)
from tequio.app.assembly.public_data import (
    CENTRE,
    Centre,
    PublicData,
    public_digests,
)
from tequio.config import Federation
from tequio.core.canonical import canonical_json, digest_json, digest_update
from tequio.participant.adapted_model import AdaptedModel
from tequio.planning.allocation import (
    Assignment,
)

BASE_KEYS = ("base", "spec", "head_digest", "centre")


def participant_indices(config: Federation) -> dict[str, int]:
    """Each participant's index: its place on the whole roster, from 1."""
    return {entry.name: i for i, entry in enumerate(config.participants, 1)}


def build_header(config: Federation, adapted: AdaptedModel, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How the run began: configuration, base, roster, versions."""
    base = adapted.base
    plain = config.model_dump(mode="json")
    versions = {"tequio": tequio.__version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "name": config.name,
        "seed": config.seed,
        "config": plain,
        "config_digest": digest_json(plain),
        "spec": adapted.spec,
        "base": {
            "model": config.base.model,
            "licence": config.base.licence,
            "digest": base.digest,
            "parameters": base.parameters,
            "dtype": str(base.dtype).removeprefix("torch."),
            "path": adapted.path.why,
            **({"notes": list(base.notes)} if base.notes else {}),
        },
        "head_digest": digest_update(adapted.head_update()),
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


def participant_row(profile: ParticipantProfile, assignment: Assignment, full: bool) -> dict[str, Any]:
    """Its row in the record of the run."""
    shown = {} if profile.name == CENTRE else profile.hardware.model_dump(exclude_none=True)
    row = {
        "name": profile.name,
        "tier": "full weights" if full else f"rank {assignment.rank}",
        "rank": assignment.rank,
        "steps": assignment.steps,
        "reason": assignment.reason,
        "hardware": shown,
        "data": dict(profile.data),
        "batches": dict(profile.batches),
    }
    return row if profile.name == CENTRE else row | {"measured_tokens_per_second": profile.speed}


def label_base(row: dict[str, Any], base: str, several: bool) -> dict[str, Any]:
    """The row; with several bases it says over which one, in its tier too."""
    return {**row, "base": base, "tier": f"{base}, {row['tier']}"} if several else row


def centre_header(rows: Sequence[Mapping[str, Any]], centre: Centre, public: PublicData) -> dict[str, Any]:
    """What the record of a run says of its public data."""
    return {
        "centre": next((row for row in rows if row["name"] == CENTRE), None),
        "slices": {name: len(items) for name, items in centre.held_out.items()},
        "public_data": public_digests(public.splits, public.slices, public.text),
    }
