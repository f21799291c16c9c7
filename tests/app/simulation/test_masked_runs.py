"""A run with masked rounds makes the model of the open run, within the field's rounding, and its
record tells sums alone."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup
from tequio.app.assembly.build import read_participants
from tequio.app.assembly.checks import check_pieces
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.participant.join import prepare
from tequio.app.simulation.run import resume, start
from tequio.app.stages import embedded_runtime
from tequio.config import load_federation
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import ConfigError
from tequio.core.texts.words import TEXTS
from tequio.core.update import Update, plain
from tequio.ledger.record import Ledger
from tequio.report.data.summary import summary
from tequio.report.html.report import render

MASKED: dict[str, Any] = {"privacy": {"mode": "masked"}}


def difference(one: Update, other: Update) -> float:
    """Return the largest difference of two shared models."""
    assert one.entries.keys() == other.entries.keys()
    return max(
        float((plain(one.entries[key]) - plain(other.entries[key])).abs().max())
        for key in one.entries
    )


@pytest.mark.parametrize("reduce", ["ffa", "rolora"])
@pytest.mark.parametrize("kind", ["classification", "causal"])
@pytest.mark.parametrize("centre", [True, False])
def test_masked_rounds_make_the_model_of_open_rounds(
    make_federation: Callable[..., Path], reduce: str, kind: str, centre: bool
) -> None:
    algorithm = {"reduce": reduce, "weights": "uniform"}
    sections: dict[str, Any] = {
        "participants": 5,
        "centre": centre,
        "kind": kind,
        "algorithm": algorithm,
    }
    w = build_setup(make_federation(**sections, folder="open"))
    hidden = build_setup(make_federation(**sections, folder="masked", **MASKED))
    runtime, masked = embedded_runtime((w,), "main"), embedded_runtime((hidden,), "main")
    assert isinstance(masked, SumRounds)
    clear, opening = open_state(w.run_spec, runtime)
    summed, body = open_state(hidden.run_spec, masked)
    assert body["mean_validation_loss"] == pytest.approx(opening["mean_validation_loss"], abs=1e-6)
    for _ in range(2):
        clear, seen = run_round(clear, w.run_spec, runtime)
        summed, body = run_round(summed, hidden.run_spec, masked, masked.gather)
        moved = max(float(plain(entry).abs().max()) for entry in clear.shared.entries.values())
        assert moved > 1e-3
        assert difference(clear.shared, summed.shared) < 1e-6
        assert body["mean_validation_loss"] == pytest.approx(seen["mean_validation_loss"], abs=1e-5)
        own = {row["name"]: row for row in body["train"] if row["name"] != "centre"}
        assert len(own) == 5
        first = [row["loss_first"] for row in seen["train"] if row["name"] != "centre"]
        assert body["sums"]["train"]["loss_first"] == pytest.approx(sum(first) / 5, abs=1e-5)
        assert body["sums"]["train"]["clipped"] == 0
        for row in own.values():
            assert [
                row[key] for key in ("tokens", "examples", "loss_first", "loss_last", "norm")
            ] == [None] * 5
        assert body["validation"] == {}


def test_rounds_of_the_centre_alone_need_no_sum(make_federation: Callable[..., Path]) -> None:
    sections: dict[str, Any] = {"participants": 3, "centre": {"first": 1}, "train": {"rounds": 2}}
    sections["algorithm"] = {"reduce": "rolora", "weights": "uniform"}
    w = build_setup(make_federation(**sections, folder="open"))
    hidden = build_setup(make_federation(**sections, folder="masked", **MASKED))
    assert {member.rank for member in hidden.run_spec.members} == {2}, "one of three has rank 2"
    members = tuple(replace(member, rank=2) for member in w.run_spec.members)
    run_spec = replace(w.run_spec, members=members)
    runtime, masked = embedded_runtime((w,), "main"), embedded_runtime((hidden,), "main")
    assert isinstance(masked, SumRounds)
    clear, summed = open_state(run_spec, runtime)[0], open_state(hidden.run_spec, masked)[0]
    for _ in range(2):
        clear, _ = run_round(clear, run_spec, runtime)
        summed, body = run_round(summed, hidden.run_spec, masked, masked.gather)
        assert difference(clear.shared, summed.shared) < 1e-6
    assert body["sums"]["train"]["members"] == 3


def masked_federation(make_federation: Callable[..., Path], **sections: Any) -> Path:
    """Write a federation of five with masked rounds."""
    given: dict[str, Any] = {
        "participants": 5,
        "algorithm": {"reduce": "ffa", "weights": "uniform"},
        **MASKED,
    }
    return make_federation(**(given | sections))


def test_a_whole_run_is_made_again_and_reported(
    make_federation: Callable[..., Path], tmp_path: Path
) -> None:
    config = load_federation(masked_federation(make_federation, gate={"interpolate": 3}))
    done = start(config, tmp_path / "run", counterfactuals=False)
    again = start(config, tmp_path / "again", counterfactuals=False, workers=2)
    assert again.end["outcome"] == done.end["outcome"], (
        "keys and masks are others, the sums are the same"
    )
    assert resume(tmp_path / "run").end["outcome"] == done.end["outcome"]
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    shared = next(e.body for e in entries if e.kind == "shared")
    assert all(point["loss"] is not None for point in shared["points"])
    found = summary(entries)
    assert found["masked"]
    assert found["rounds"]["start"]["loss"] is not None
    assert [r["participants"] for r in found["rounds"]["history"]] == [{}, {}]
    for lang in ("en", "es"):
        page = render(entries, lang)
        assert TEXTS[lang]["curve.masked"] in html.unescape(page)
        assert f"{TEXTS[lang]['legend.each']}</span>" not in html.unescape(page)


class Cut(Exception):
    """A run that is cut off."""


def test_a_run_that_was_cut_off_ends_the_same(
    make_federation: Callable[..., Path], tmp_path: Path
) -> None:
    """The new process has other keys and secrets, and the phase of the sum that was cut is made
    again from its start."""
    config = load_federation(masked_federation(make_federation))
    done = start(config, tmp_path / "whole", counterfactuals=False)

    def watch(stage: str, what: str, made: int, of: int) -> None:
        if stage == "rounds" and what.startswith("round 2 of 2: site3"):
            raise Cut

    with pytest.raises(Cut):
        start(config, tmp_path / "cut", counterfactuals=False, watch=watch)
    with Ledger.open(tmp_path / "cut" / "ledger.sqlite", read_only=True) as ledger:
        assert [e.body["round"] for e in ledger.entries("round")] == [1]
    assert resume(tmp_path / "cut").end["outcome"] == done.end["outcome"]


REFUSED: dict[str, dict[str, Any]] = {
    "masked-few": {"participants": 2},
    "masked-peers": {"topology": {"kind": "ring"}, "centre": False},
    "masked-buffered": {
        "train": {"pace": "buffered", "round_seconds": 10.0},
        "algorithm": {"reduce": "stack"},
    },
    "masked-cohort": {"train": {"cohort": 3}},
    "masked-lockstep": {"train": {"lockstep": 2}},
    "masked-reduce": {"algorithm": {"reduce": "fedit", "weights": "uniform"}},
    "masked-weights": {"algorithm": {"reduce": "ffa", "weights": "examples"}},
    "sum-piece": {"algorithm": {"reduce": "ffa"}},
    "sum-codec": {"algorithm": {"reduce": "ffa", "weights": "uniform", "upload": "quantise"}},
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_does_not_go_with_masked_rounds_is_refused(
    make_federation: Callable[..., Path], code: str
) -> None:
    config = load_federation(masked_federation(make_federation, **REFUSED[code]))
    assert refused(lambda: check_pieces(config)) == code


@pytest.mark.parametrize("watching", ["screen", "equity"])
def test_screens_and_credits_are_refused(
    make_federation: Callable[..., Path], watching: str
) -> None:
    section = (
        {"screen": {"norm_bound": 2.0}} if watching == "screen" else {"equity": {"credit": True}}
    )
    config = load_federation(masked_federation(make_federation, **section))
    assert refused(lambda: check_pieces(config)) == "sum-piece"


def test_several_bases_and_distilling_are_refused(make_two_bases: Callable[..., Path]) -> None:
    config = load_federation(make_two_bases(participants=6, **MASKED))
    assert refused(lambda: check_pieces(config)) == "masked-bases"


def test_a_participant_may_insist_on_masked_rounds(
    make_federation: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_federation(participants=3)
    own = path.parent / "participants" / "site1.toml"
    own.write_text(own.read_text() + '\n[privacy]\nleast_mode = "masked"\n')
    assert refused(lambda: read_participants(load_federation(path))) == "mode-below-least"
    hidden = masked_federation(make_federation, folder="masked")
    (hidden.parent / "participants" / "site1.toml").write_text(own.read_text())
    read_participants(load_federation(hidden))


def test_a_network_refuses_what_does_not_go_with_masked_rounds(
    make_federation: Callable[..., Path], tmp_path: Path
) -> None:
    path = masked_federation(make_federation, participants=2)
    folder = tmp_path / "hub"
    assert refused(lambda: init_coordinator_folder(folder, path, "127.0.0.1:9443")) == "masked-few"
    assert not folder.exists()


def test_nobody_joins_for_less_than_it_insists_on(
    make_federation: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_federation(participants=3)
    own = path.parent / "participants" / "site1.toml"
    _, invitations = init_coordinator_folder(tmp_path / "hub", path, "127.0.0.1:9443")
    mine = next(one for one in invitations if one.stem == "site1")
    own.write_text(own.read_text() + '\n[privacy]\nleast_mode = "masked"\n')
    assert refused(lambda: prepare(mine, own)) == "mode-below-least"


def refused(done: Callable[[], object]) -> str:
    """Return the code of the refusal."""
    with pytest.raises(ConfigError) as error:
        done()
    assert error.value.reason is not None
    return error.value.reason.code
