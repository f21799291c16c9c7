"""The run of rounds of several groups, each over its own base, in lock-step; and of one group whose
rounds end in distillation.

A round is one record and one checkpoint, of all groups: after a crash the whole round is made
again, to the same bits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tequio.coordinator.buffered import run_window
from tequio.coordinator.checkpoint import pack_states, unpack_states
from tequio.coordinator.distillation import (
    Distillation,
    Group,
    Listening,
    distil,
    models_heard,
    models_shared,
)
from tequio.coordinator.federate import Replan, Rounds
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import digest_json
from tequio.core.errors import RunError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.core.types import State

States = dict[str, State]


def group_rounds(groups: Sequence[Group], how: Distillation | None) -> Rounds[States]:
    """Return the rounds of several groups in lock-step, for `federate`."""

    def replanned(change: Replan) -> Rounds[States]:
        return group_rounds([replace(g, run_spec=change(g.run_spec, g.name)) for g in groups], how)

    def ended(states: States) -> bool:
        """Rounds of any group, or no group has made progress for `patience` rounds."""
        done = [states[g.name].round >= g.run_spec.rounds for g in groups]
        stale = [states[g.name].stale_rounds >= g.run_spec.patience for g in groups]
        return any(done) or all(stale)

    def unpack(data: bytes, source: str) -> States:
        states = unpack_states(data, source)
        if list(states) != [group.name for group in groups]:
            names = [group.name for group in groups]
            raise refusal(RunError, "checkpoint-of-other-bases", found=[*states], expected=names)
        return states

    return Rounds(
        run_specs=tuple(group.run_spec for group in groups),
        replanned=replanned,
        begin=lambda: open_groups(groups),
        advance=lambda states: run_groups(states, groups, how),
        ended=ended,
        made=lambda states: states[groups[0].name].round,
        pack=pack_states,
        unpack=unpack,
    )


def open_groups(groups: Sequence[Group]) -> tuple[States, dict[str, Any]]:
    """The states before any training, and the record of every base's scores."""
    states: States = {}
    bodies: dict[str, dict[str, Any]] = {}
    for group in groups:
        states[group.name], bodies[group.name] = open_state(group.run_spec, group.runtime)
    return states, _joined(bodies)


def run_groups(
    states: Mapping[str, State], groups: Sequence[Group], how: Distillation | None
) -> tuple[States, dict[str, Any]]:
    """One round of every group, then, where it is due, distillation.

    Raises RunError, naming the base, if a group has no update.
    """
    after: States = {}
    bodies: dict[str, dict[str, Any]] = {}
    heard = []
    for group in groups:
        before, listening = states[group.name], Listening(group.runtime)
        own = how is not None and how.teachers == "participants" and _due(before.round + 1, how)
        try:
            advance = run_round if group.run_spec.window_seconds is None else run_window
            made = advance(before, group.run_spec, listening if own else group.runtime)
        except RunError as error:
            raise (error if len(groups) == 1 else error.within(f"Base {group.name}")) from None
        after[group.name], bodies[group.name] = made
        admitted = {row["name"] for row in made[1]["admissions"] if row["status"] == "admitted"}
        heard += models_heard(group, before, listening.heard, admitted)
    body: dict[str, Any] = {}
    if how is not None and _due(after[groups[0].name].round, how):
        teachers = heard if how.teachers == "participants" else models_shared(groups, after)
        after, body = distil(after, groups, teachers, how)
        bodies = {name: _retold(one, body["groups"][name]) for name, one in bodies.items()}
        plain = {
            n: {k: v for k, v in row.items() if k != "validation"}
            for n, row in body["groups"].items()
        }
        body = {"distil": body | {"groups": plain}}
    return after, _joined(bodies) | body


def _due(round_: int, how: Distillation) -> bool:
    return round_ % how.every == 0


def _retold(body: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a round after what was taught: bytes of the way down, scores, digest."""
    train = [{**r, "bytes_down": r["bytes_down"] + row.get("bytes_down", 0)} for r in body["train"]]
    body = {**body, "train": train}
    if not row["accepted"]:
        return body
    record = {
        "validation": row["validation"],
        "mean_validation_loss": row["after"],
        "digest": row["digest"],
    }
    return body | {"not_evaluated": {}} | record


def _joined(bodies: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The records of the groups as one of the same form; what belongs to a base stands again under
    `bases`.

    One group: as it is.
    """
    parts = list(bodies.values())
    if len(parts) == 1:
        return parts[0]
    first = next(iter(bodies))
    losses = [scores["loss"] for body in parts for scores in body["validation"].values()]
    out: dict[str, Any] = {}
    for key, value in parts[0].items():
        if isinstance(value, list):
            out[key] = [row for body in parts for row in body[key]]
        elif key in ("validation", "not_evaluated"):
            out[key] = {name: row for body in parts for name, row in body[key].items()}
        elif isinstance(value, dict):
            out[key] = {
                x if group == first else f"{x} ({group})": row
                for group, body in bodies.items()
                for x, row in body[key].items()
            }
        else:
            out[key] = value
    out["mean_validation_loss"] = math.fsum(losses) / len(losses) if losses else None
    own = ("accepted", "reason", "mean_validation_loss", "step_scale", "digest")
    out["bases"] = {
        group: {key: body[key] for key in own if key in body} for group, body in bodies.items()
    }
    if "step" in out:
        out["step"] = any(body["step"] for body in parts)
    if "accepted" in out:
        out["bytes_broadcast"] = sum(body["bytes_broadcast"] for body in parts)
        out["accepted"] = all(body["accepted"] for body in parts)
        out["reason"] = Reason(
            "each-base",
            {
                "bases": [
                    {"name": group, "reason": body["reason"]} for group, body in bodies.items()
                ]
            },
        ).as_record()
        out["digest"] = digest_json([body["digest"] for body in parts])
        out["step_scale"] = min(body["step_scale"] for body in parts)
    return out
