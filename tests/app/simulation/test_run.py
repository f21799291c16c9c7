"""A whole run: what its ledger promises, which model each participant is delivered, when it stops,
and the probe.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import build_setup, records, refused, rounds
from tequio.app.simulation.run import resume, start
from tequio.config import load_federation
from tequio.coordinator.round import shared_model
from tequio.core.canonical import digest_update, unpack
from tequio.core.errors import RunError
from tequio.core.update import Dense, Update, plain, zero
from tequio.ledger.chain import RECORD_VERSION
from tequio.ledger.folder import COORDINATOR_FILE, RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.choice import EARLIER_RULE, towards
from tequio.participant.fit import fit
from tequio.participant.personal import personalise, score
from tequio.runtimes.embedded import Embedded

DOCUMENT = Path(__file__).parents[3] / "docs" / "record.md"
SCORES = {"loss", "accuracy", "examples"}
INTERVAL = {"mean", "low", "high"}
ENERGY = {
    "joules",
    "seconds",
    "method",
    "boundary",
    "uncertainty",
    "coverage",
    "began",
    "intensity",
    "pue",
    "embodied",
}
ENERGY |= {"hosted"}


NETWORK = {
    "budget",
    "joined",
    "left",
    "missing",
    "wait",
}  # entries that only a federation across a network has, and keys
NETWORK_KEYS = {"invitations", "sums"}  # of a network, of masked rounds


def promised() -> dict[str, set[str]]:
    """kind -> keys of its body that docs/record.md names: the words in backquotes outside braces
    and brackets.
    """
    out: dict[str, set[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[0].splitlines():
        row = re.match(r"\| `(\w+)` \|[^|]*\| (.*) \|$", line)
        if row:
            plain = row[2]
            for _ in range(3):
                plain = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)", "", plain)
            out[row[1]] = set(re.findall(r"`(\w+)`", plain))
    return out


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_the_ledger_has_what_its_document_promises(
    make_federation: Any, tmp_path: Path, kind: str
) -> None:
    run = tmp_path / "run"
    start(
        load_federation(make_federation(kind=kind, rows=60)),
        run,
        True,
        ({"name": "x", "licence": "y"},),
    )
    found, documented = records(run)[1], promised()
    assert set(found) == set(documented) - NETWORK
    for name, entries in found.items():
        for body in entries:
            keys = set(body)
            assert body["record_version"] == RECORD_VERSION
            keys -= {"record_version"}  # of every body
            if name == "general":
                keys = {"slice"} if keys == {"public"} else keys
            only_causal = {"encoding"} if name == "run" and kind == "classification" else set()
            assert keys == documented[name] - NETWORK_KEYS - only_causal, name
    header, end = found["run"][0], found["end"][0]
    names = ["site0", "site1"]
    assert [p["name"] for p in header["participants"]] == names
    row = {
        "name",
        "tier",
        "rank",
        "steps",
        "reason",
        "hardware",
        "data",
        "batches",
        "measured_tokens_per_second",
    }
    assert all(set(p) == row for p in header["participants"])
    assert set(header["centre"]) == row - {"measured_tokens_per_second"}
    assert header["provenance"] == [{"name": "x", "licence": "y"}]
    assert set(header["commitment"]) == set(names)
    opening = found["start"][0]
    assert set(opening["validation"]) == set(names)
    assert all(set(s) == SCORES for s in opening["validation"].values())
    assert set(opening["slices"]["public"]) == {"loss", "examples"}
    for number, body in enumerate(found["round"], 1):
        assert body["round"] == number
        assert [(a["name"], a["status"]) for a in body["admissions"]] == [
            (n, "admitted") for n in ("centre", *names)
        ]
        trained = {
            *("name", "rank", "steps", "tokens", "examples", "loss_first", "loss_last", "norm"),
            *("weight", "bytes_up", "bytes_down", "seconds", "joules", "energy", "money"),
        }
        assert all(set(t) == trained for t in body["train"])
        assert sum(t["weight"] for t in body["train"] if t["weight"] is not None) == pytest.approx(
            1.0
        )
        assert set(body["gate"]["public"]) == {"base", "candidate", "low", "high", "limit"}
        assert set(body["energy"]) == ENERGY
        mean = sum(v["loss"] for v in body["validation"].values()) / 2
        assert body["mean_validation_loss"] == pytest.approx(mean)
    classes = kind == "classification"
    for body in found["personal"]:
        assert set(body["test"]) == {"base", "local", "shared", "personal", "general"}
        for gain in body["gains"].values():
            assert set(gain["loss"]) == INTERVAL
            assert (gain["accuracy"] is not None) == classes
        assert set(body["fits"]["local"]) == {"learning_rate", "step", "diverged"}
        local, own = body["test"]["local"]["loss"], body["test"]["personal"]["loss"]
        assert body["benefit"] == pytest.approx((local - own) / local)
    assert set(found["pooled"][0]["test"]) == set(names)
    assert set(found["everybody"][0]["participants"]["site0"]) == {"local", "personal", "general"}
    general = found["general"][0]["public"]
    assert set(general) == {"base", "shared", "gain"}
    assert set(general["gain"]) == {"loss", "accuracy", "log_ratio", "pairs"}
    assert end["rounds"] == 2
    assert end["reason"]["code"] == "rounds-made"
    # the files are those of the record
    shared = unpack((run / "shared.safetensors").read_bytes())
    assert digest_update(shared) == found["shared"][0]["digest"]
    assert found["shared"][0]["round"] == end["best_round"]


def test_what_is_delivered_is_the_candidate_that_was_chosen(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    node = w.participants[0]
    made = personalise(node, zero(w.run_spec.spec), w.settings[node.name])
    losses = {name: s["loss"] for name, s in made.body["candidates"].items()}
    assert losses["local"] <= losses["base"]
    delivered = score(node, made.delivered, node.data.validation).scores().loss
    assert delivered == pytest.approx(losses[made.body["chosen"]], rel=1e-6)
    tested = score(node, made.delivered, node.data.test).scores()
    assert made.body["test"]["personal"]["loss"] == pytest.approx(tested.loss, rel=1e-6)


def test_of_an_earlier_record_the_best_validated_model_is_used(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    node = w.participants[0]
    made = personalise(
        node, zero(w.run_spec.spec), replace(w.settings[node.name], rule=EARLIER_RULE)
    )
    losses = {name: s["loss"] for name, s in made.body["candidates"].items()}
    assert losses[made.body["chosen"]] == min(losses.values())
    delivered = score(node, made.delivered, node.data.validation).scores().loss
    assert delivered == pytest.approx(min(losses.values()), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_general_model_lies_between_shared_and_own(make_federation: Any, share: float) -> None:
    w = build_setup(make_federation(kind="causal", participants=1))
    node = w.participants[0]
    shared = shared_model(rounds(w.run_spec, Embedded(w.nodes)).shared, w.run_spec)
    made = personalise(node, shared, w.settings[node.name])
    assert made.body["general"]["way"] == "weights"
    expected = score(
        node, towards(shared, made.delivered, made.body["general"]["share"]), node.data.test
    ).scores()
    assert made.body["test"]["general"]["loss"] == pytest.approx(expected.loss, rel=1e-5)
    halves = towards(shared, made.delivered, share)
    for name, entry in made.delivered.entries.items():
        start = shared.entries.get(name)
        whole = plain(entry) * share + (0.0 if start is None else plain(start) * (1 - share))
        if name in halves.entries:
            assert torch.allclose(plain(halves.entries[name]), whole, atol=1e-6)


def test_with_a_useless_shared_model_a_participant_uses_its_own(make_federation: Any) -> None:
    """A shared head that always says the same class, loudly: no private adapter of a few steps
    undoes it.
    """
    w = build_setup(make_federation(participants=1, personal={"mixes": [0.5], "alphas": [0.5]}))
    node = w.participants[0]
    wrong = Update(
        {"head.bias": Dense(w.adapted.head["head.bias"].new_tensor([50.0, -50.0]))}, w.run_spec.spec
    )
    made = personalise(node, wrong, w.settings[node.name])
    assert made.body["chosen"] == "local"
    assert digest_update(made.delivered) == digest_update(made.local)
    assert made.body["candidates"]["shared"]["loss"] > 10 * made.body["candidates"]["local"]["loss"]
    assert made.body["gains"]["personal_over_local"]["loss"]["mean"] == 0.0
    assert made.body["benefit"] == 0.0


def test_a_fit_never_ends_worse_than_it_began(make_federation: Any) -> None:
    """With a rate that only harms, the start itself is what is kept."""
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    budget = replace(w.settings[node.name].local, rates=(900.0,), steps=4)
    fitted = fit(node, zero(w.run_spec.spec), (node.data.train, node.data.validation), budget, 1)
    assert (fitted.step, fitted.rate) == (0, 0.0)
    assert not fitted.tail.entries
    base = score(node, zero(w.run_spec.spec), node.data.validation).scores().loss
    assert fitted.after.scores().loss == pytest.approx(base)


def test_a_run_stops_when_validation_does_not_get_better(
    make_federation: Any, tmp_path: Path
) -> None:
    """A rate so small that nothing moves: after `patience` = 2 rounds it ends, and the base is what
    was best.
    """
    path = make_federation(train={"rounds": 9, "patience": 2, "learning_rate": 1e-12})
    start(load_federation(path), tmp_path / "run", False)
    found = records(tmp_path / "run")[1]
    opening, end = found["start"][0], found["end"][0]
    start_loss = opening["mean_validation_loss"]
    assert [r["mean_validation_loss"] for r in found["round"]] == pytest.approx(
        [start_loss] * 2, rel=1e-5
    )
    assert len(found["round"]) == 2
    assert (end["rounds"], end["best_round"]) == (2, 0)
    assert end["reason"]["code"] == "no-progress"
    assert not unpack((tmp_path / "run" / "shared.safetensors").read_bytes()).entries


@pytest.mark.slow
def test_a_probe_gives_a_speed_that_a_resumed_run_keeps(
    make_federation: Any, tmp_path: Path
) -> None:
    """A resumed run that probed again would find another speed, and so another reason, and refuse
    itself.
    """
    path = make_federation(participants=1, centre=False, train={"round_seconds": 1000.0})
    own = path.parent / "participants" / "site0.toml"
    own.write_text(own.read_text().replace("[hardware]\n", "[hardware]\nprobe = true\n"))

    def stop(stage: str, what: str, done: int, of: int) -> None:
        if stage == "rounds":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(load_federation(path), tmp_path / "run", False, watch=stop)
    row = records(tmp_path / "run")[1]["run"][0]["participants"][0]
    speed = row["measured_tokens_per_second"]
    assert math.isfinite(speed)
    assert speed > 10
    assert (row["reason"]["code"], row["reason"]["facts"]["deadline"]) == ("allotted", 1000.0)
    assert resume(tmp_path / "run").end["rounds"] == 2


def test_a_coordinators_run_is_sent_to_its_own_command(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "hub" / "run")
    Ledger.create(run.ledger_path, {"simulation": False, "participants": []}).close()
    with refused(RunError, "record-of-network", command="tequio coordinator start FOLDER"):
        resume(run.path)
    (tmp_path / "hub" / COORDINATOR_FILE).touch()
    with refused(
        RunError, "record-of-network", command=f"tequio coordinator start {tmp_path / 'hub'}"
    ):
        resume(run.path)
