"""The header of a run: configuration, bases, participants, versions; and what makes two of them the
same run.
"""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import tequio
from tequio.app.assembly.context import ModelContext
from tequio.app.assembly.profile import ParticipantProfile
from tequio.app.assembly.public_data import CENTRE, Centre, PublicData, public_digests
from tequio.app.run_files import HEAD_FILE, base_file, config_from_header, save
from tequio.config import MAIN, Federation, changes, stored
from tequio.core.canonical import canonical_json, digest_json, digest_update
from tequio.core.errors import RunError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.ledger.folder import LEDGER, RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.choice import CHOICE_RULE
from tequio.participant.encoding import VERSION
from tequio.planning.allocation import Assignment


def participant_indices(config: Federation) -> dict[str, int]:
    """Each participant's index: its place on the whole roster, from 1."""
    return {entry.name: i for i, entry in enumerate(config.participants, 1)}


def build_header(
    config: Federation, adapted: AdaptedModel, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """How the run began: configuration, base, roster, versions."""
    plain = stored(config)
    versions = {
        "tequio": tequio.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    causal = config.task.kind == "causal"
    return {
        "name": config.name,
        "seed": config.seed,
        "config": plain,
        "config_digest": digest_json(plain),
        **base_header(config, adapted),
        "task": {"kind": config.task.kind, "labels": list(config.task.label_names())},
        "participants": rows,
        "simulation": True,
        "versions": versions,
        "choice_rule": CHOICE_RULE,
        **({"encoding": VERSION} if causal else {}),
    }


def base_header(config: Federation, adapted: AdaptedModel) -> dict[str, Any]:
    """One base: what it is, the layout of its adapter, and its head."""
    base = adapted.base
    return {
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
    }


def run_header(
    config: Federation,
    groups: Sequence[tuple[str, ModelContext, Sequence[dict[str, Any]]]],
    centre: Centre,
    public: PublicData,
) -> dict[str, Any]:
    """How a run of all groups began, whether on one machine or across a network.

    Args:
        config: the whole federation.
        groups: each base's name, what is loaded of it and its rows, the centre's among them; that
            of [base] first.
        centre, public: over the base of [base].
    """
    places, rows = (
        participant_indices(config),
        [row for _, _, own in groups for row in own if row["name"] != CENTRE],
    )
    header = build_header(
        config, groups[0][1].adapted, sorted(rows, key=lambda row: places[row["name"]])
    )
    centres = [next((row for row in own if row["name"] == CENTRE), None) for _, _, own in groups]
    header |= {
        "centre": centres[0],
        "slices": {name: len(items) for name, items in centre.held_out.items()},
        "public_data": public_digests(public.splits, public.slices, public.text),
    }
    if len(groups) > 1:
        header["bases"] = {
            name: {**base_header(context.config, context.adapted), "centre": row}
            for (name, context, _), row in zip(groups[1:], centres[1:], strict=True)
        }
    return header


def begin_record(
    folder: RunFolder, header: Mapping[str, Any], bases: Mapping[str, AdaptedModel]
) -> Ledger:
    """Write the head of each base, then the header as the first record. Return the ledger, open."""
    for name, adapted in bases.items():
        save(folder, base_file(name, HEAD_FILE), adapted.head_update())
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Ledger.create(folder.ledger_path, {**header, "created": created})


def same_run(header: Mapping[str, Any], recorded: Mapping[str, Any], ledger: Path) -> list[str]:
    """Return what differs, in words; nothing where nothing does. ledger: where `recorded` comes
    from.

    Configurations are compared key by key, as today's version reads them, so that a record of an
    earlier version with more keys or fewer is the same where the others stand at their default.
    """
    config = stored(config_from_header(recorded, ledger))
    differences = changes(header["config"], config)
    further, before = header.get("bases", {}), recorded.get("bases", {})
    for name, now in {MAIN: header, **further}.items():
        then = recorded if name == MAIN else before.get(name)
        if then is not None:  # where it is missing, the configuration differs
            differences += _of_base(now, then, "base" if name == MAIN else f"base {name}")
    now, then = header["public_data"], recorded.get("public_data", {})
    files = {
        CENTRE: config.get("centre", {}).get("data"),
        "[local] data": config.get("local", {}).get("data"),
    }
    files |= {
        f"slice {name}": file for name, file in config.get("gate", {}).get("slices", {}).items()
    }
    differences += _digests("public data of", now, then, files)
    differences += _digests(
        "intensities of", header.get("intensities", {}), recorded.get("intensities", {}), {}
    )
    if changed := encoding_changed(header["task"]["kind"], recorded):
        return [*differences, *changed]  # which changes rows of participants, too
    rows = {row["name"]: row for row in recorded["participants"]}
    for row in header["participants"]:
        before = rows.get(row["name"], {})
        if canonical_json(comparable(row)) != canonical_json(comparable(before)):
            differences.append(_of_participant(row, before))
    return differences


def encoding_changed(kind: str, recorded: Mapping[str, Any]) -> list[str]:
    """Return what differs where a causal run began with another encoding of its texts; a record
    without one has version 1.

    Such a run cannot be resumed: its models would be fed otherwise from one round to the next.
    """
    before = recorded.get("encoding", 1)
    if kind != "causal" or before == VERSION:
        return []
    versions = f"encoding {before} in the record, {VERSION} in this version of Tequio"
    return [f"how texts become tokens ({versions}; finish that run with the version that began it)"]


def participant_row(
    profile: ParticipantProfile, assignment: Assignment, full: bool, base: str | None = None
) -> dict[str, Any]:
    """Its row in the record of the run; with several bases it says over which one, in its tier
    too.
    """
    tier = Reason("tier-full") if full else Reason("tier-rank", {"rank": assignment.rank})
    shown = {} if profile.name == CENTRE else profile.hardware.model_dump(exclude_none=True)
    row = {
        "name": profile.name,
        "tier": tier.as_record(),
        "rank": assignment.rank,
        "steps": assignment.steps,
        "reason": assignment.reason.as_record(),
        "hardware": shown,
        "data": dict(profile.data),
        "batches": dict(profile.batches),
    }
    if profile.name == CENTRE:
        return row
    if base is not None:
        row |= {
            "base": base,
            "tier": Reason("tier-base", {"base": base, "tier": row["tier"]}).as_record(),
        }
    return row | {"measured_tokens_per_second": profile.speed}


def comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a participant, or what it says of itself, without what only says why: earlier
    versions wrote it in sentences.
    """
    return {key: value for key, value in row.items() if key not in ("reason", "tier")} | {
        "data": {key: value for key, value in (row.get("data") or {}).items() if key != "warnings"}
    }


def check_same_run(
    path: Path, header: Mapping[str, Any], recorded: Mapping[str, Any], more: Sequence[str] = ()
) -> None:
    """Raise RunError where a run that is to be resumed is not the one that its record says began,
    naming each difference.

    Args:
        path: the run's folder.
        header: how the run would begin now; of participants those rows that are known already.
        recorded: how it began, of any version.
        more: differences that the header does not show.
    """
    differences = [*same_run(header, recorded, path / LEDGER), *more]
    if differences:
        raise refusal(RunError, "run-changed", path=str(path), differences="; ".join(differences))


def _of_base(now: Mapping[str, Any], then: Mapping[str, Any], whose: str) -> list[str]:
    """What differs of one base: its weights or tokenizer, else the layout of the adapter; and its
    precision.
    """
    out, own, old = [], now["base"], then["base"]
    if own["digest"] != old["digest"]:
        out.append(
            f"the weights of [{whose}] {own['model']}, or its tokenizer "
            f"({_expected(old['digest'], own['digest'])})"
        )
    elif now["spec"] != then["spec"]:
        out.append(f"the adapter layout of [{whose}] ({_expected(then['spec'], now['spec'])})")
    if own["dtype"] != old["dtype"]:
        words = f'the precision that [{whose}] dtype = "auto" gives on this machine'
        out.append(f"{words} (expected {old['dtype']}, found {own['dtype']})")
    return out


def _of_participant(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """What differs of a participant: the keys of its participant.toml where these do, else its
    data.
    """
    keys = []
    for table, names in (("hardware", None), ("data", ("licence", "consent"))):
        here, there = now.get(table) or {}, then.get(table) or {}
        wanted = sorted({*here, *there} if names is None else names)
        keys += [f"{table}.{key}" for key in wanted if here.get(key) != there.get(key)]
    if keys:
        return f"the key {', '.join(keys)} in participant.toml of participant {now['name']}"
    return f"the data or hardware of participant {now['name']}"


def _digests(
    what: str, now: Mapping[str, str], then: Mapping[str, str], files: Mapping[str, Any]
) -> list[str]:
    """What differs of files that are recorded by digest. files: where they are, as far as that is
    known.
    """
    out = []
    for name in [*now, *(name for name in then if name not in now)]:
        if now.get(name) != then.get(name):
            where = f" in {files[name]}" if files.get(name) else ""
            out.append(f"the {what} {name}{where} ({_expected(then.get(name), now.get(name))})")
    return out


def _expected(then: str | None, now: str | None) -> str:
    old, new = (f"digest {digest[:16]}…" if digest else "none" for digest in (then, now))
    return f"expected {old}, found {new}"
