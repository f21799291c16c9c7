"""Nothing that an honest coordinator asks is refused: templates, demos, every piece, windows,
groups, budgets, restarts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from agreed_requests import Compared, agreements, compared, coordinate_all

from builders import sentences, write_jsonl
from tequio.algorithms.registry import REDUCE, SERVER, WEIGHTS
from tequio.app.assembly.budget import build_budget_tracker
from tequio.app.assembly.build import build
from tequio.app.demos.catalogue import RECIPES
from tequio.config import MAIN, load_federation
from tequio.config.starter import write_starter
from tequio.coordinator.buffered_network import Windows
from tequio.coordinator.federate import federate, star
from tequio.coordinator.limits import StarLimits
from tequio.coordinator.round import run_round
from tequio.core.types import EvaluateRequest, PersonaliseRequest, TrainRequest
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded

CODED = {"upload": "topk", "upload_settings": {"density": 0.5, "bits": 8.0}}
TERMS = {"fedprox": 0.1, "kl": 0.1, "replay": 0.2, "transfer": 0.1}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"reduce {name}": {"algorithm": {"reduce": name}} for name in sorted(REDUCE)},
    **{f"weights {name}": {"algorithm": {"weights": name}} for name in sorted(WEIGHTS)},
    **{f"server {name}": {"algorithm": {"server": name}} for name in sorted(SERVER)},
    **{f"start {name}": {"algorithm": {"start": name}} for name in ("fedex", "flexlora")},
    **{f"upload {name}": {"algorithm": {"upload": name}} for name in ("half", "quantise", "eden")},
    "upload bits": {"algorithm": {"upload": "quantise", "upload_settings": {"bits": 4}}},
    "feedback": {"algorithm": {"reduce": "rolora", "feedback": 0.9, **CODED}},
    "topk": {"algorithm": {"reduce": "fedit", **CODED}},
    "download": {"algorithm": {"download": "quantise", "server": "nesterov"}},
    "narrow": {"algorithm": {"broadcast_rank": 1}},
    "causal": {"kind": "causal", "algorithm": {"start": "fedex"}},
    "full": {"adapter": {"kind": "full"}, "participants": 2},
    "full coded": {"adapter": {"kind": "full"}, "participants": 2, "algorithm": CODED},
    "terms": {"local": {"terms": TERMS}},
    "fomaml": {
        "local": {"method": "fomaml", "terms": {"fedprox": 0.5}},
        "personal": {"ditto": [1.0]},
    },
    "no centre": {"centre": False, "gate": {}},
    "centre first": {"centre": {"first": 1}, "train": {"rounds": 4}},
    "cohort": {"train": {"cohort": 2, "rounds": 4}},
    "lockstep": {"train": {"lockstep": 3}},
    "deadline": {"train": {"round_seconds": 0.5, "min_steps": 1}},
    "screen": {
        "algorithm": {"weights": "examples"},
        "screen": {"norm_bound": 2.0, "loss": 0.5, "cosine": -0.5},
    },
    "credit": {"equity": {"credit": True, "leave_one_out": True}},
    "points": {"gate": {"interpolate": 4}},
    "budget": {"budget": {"kwh": 5.0, "hours": 50.0, "megabytes": 500.0}},
    "taught by participants": {
        "distil": {"teachers": "participants", "steps": 4, "items": 16, "rank": 12}
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_no_request_of_an_honest_coordinator_is_refused(
    make_federation: Any, tmp_path: Path, name: str
) -> None:
    changes = {"participants": 3, "rows": 40, **VARIANTS[name]}
    train = {"rounds": 3, "max_steps": 3, "patience": 9, **changes.pop("train", {})}
    path = make_federation(**changes, train=train)
    if name.startswith("full"):  # whole weights have no rank
        for file in (path.parent / "participants").glob("*.toml"):
            file.write_text(re.sub("max_rank = .*", "", file.read_text()))
    whole = load_federation(path)
    setup = build(whole)
    runtimes = compared(setup, whole)
    coordinate_all(setup, whole, runtimes, tmp_path / "ledger.sqlite")
    kinds = [type(request) for runtime in runtimes.values() for request in runtime.requests]
    assert kinds.count(TrainRequest) >= 4
    assert kinds.count(EvaluateRequest) >= 6
    assert kinds.count(PersonaliseRequest) == changes["participants"]


@pytest.mark.parametrize("demo", RECIPES)
def test_no_request_of_a_demo_is_refused(make_federation: Any, tmp_path: Path, demo: str) -> None:
    """With the demo's settings, over a tiny base and made texts."""
    settings = {key: dict(value) for key, value in RECIPES[demo].settings.items()}
    kind = settings.pop("task")["kind"]
    adapter = {**settings.pop("adapter"), "ranks": [2, 4, 8, 16]}
    centre, train = settings.pop("centre", False), settings.pop("train")
    train |= {"round_seconds": RECIPES[demo].round_seconds}
    path = make_federation(
        kind, 3, centre, adapter=adapter, train=train, equity={"credit": True}, **settings
    )
    whole = load_federation(path)
    setup = build(whole)
    coordinate_all(setup, whole, compared(setup, whole), tmp_path / "ledger.sqlite")


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_no_request_of_a_template_is_refused(
    tiny_bert: Path, tiny_llama: Path, tmp_path: Path, kind: Any
) -> None:
    labelled = kind == "classification"
    path, files = write_starter(tmp_path / "fed", kind, str(tiny_bert if labelled else tiny_llama))
    text = path.read_text()
    for long in ("max_tokens = 128", "max_tokens = 256"):
        text = text.replace(long, "max_tokens = 16")
    path.write_text(text)
    for number, file in enumerate(files[1:]):
        words = {"good": "positive", "bad": "negative"}
        rows = sentences(60, number)
        plain = [
            {"text": r["text"], **({"label": words[r["label"]]} if labelled else {})} for r in rows
        ]
        write_jsonl(file.parent / "../data" / f"{file.stem}.jsonl", plain)
        write_jsonl(path.parent / "data" / f"{file.stem}.jsonl", plain)
    whole = load_federation(path)
    setup = build(whole)
    coordinate_all(setup, whole, compared(setup, whole), tmp_path / "ledger.sqlite")


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_no_request_of_groups_that_teach_each_other_is_refused(
    make_two_bases: Any, tmp_path: Path, kind: str
) -> None:
    whole = load_federation(
        make_two_bases(kind=kind, participants=4, train={"rounds": 3, "patience": 9})
    )
    setup = build(whole)
    runtimes = compared(setup, whole)
    coordinate_all(setup, whole, runtimes, tmp_path / "ledger.sqlite")
    assert {request.index for runtime in runtimes.values() for request in runtime.requests} == {
        1,
        2,
        3,
        4,
    }


def test_no_request_of_real_windows_is_refused(make_federation: Any, tmp_path: Path) -> None:
    """One participant needs two windows, and the coordinator is started again between."""
    train = {"rounds": 5, "pace": "buffered", "round_seconds": 60.0, "buffer": 1, "patience": 9}
    whole = load_federation(make_federation(participants=3, train=train))
    setup = build(whole)
    runtimes = compared(setup, whole, takes={2: 2})
    spec, net = setup.run_spec, runtimes[MAIN]
    with Ledger.create(tmp_path / "ledger.sqlite", setup.header) as record:
        list(islice(federate(star(spec, net, Windows(net)), record, setup.meter), 3))
    net.held.clear()  # what was at work is asked again
    coordinate_all(setup, whole, runtimes, tmp_path / "ledger.sqlite", Windows(net))
    assert {request.round for request in net.requests if isinstance(request, TrainRequest)} == {
        1,
        2,
        3,
        4,
        5,
    }


@pytest.mark.parametrize(
    "algorithm",
    [{}, {"start": "fedex"}, {"reduce": "rolora", **CODED}, {"download": "quantise"}],
    ids=["plain", "fedex", "rolora", "download"],
)
def test_a_coordinator_that_was_started_again_is_not_refused(
    make_federation: Any, tmp_path: Path, algorithm: dict[str, Any]
) -> None:
    """It was killed within a round, before and after its evaluation; that round is asked again,
    from the checkpoint.
    """
    whole = load_federation(
        make_federation(
            participants=2,
            train={"rounds": 4, "patience": 9},
            algorithm=algorithm,
            budget={"kwh": 5.0},
            local={"terms": {"transfer": 0.1}},
        )
    )
    setup = build(whole)
    runtimes = compared(setup, whole)
    ledger = tmp_path / "ledger.sqlite"
    with Ledger.create(ledger, setup.header) as record:
        tracker = build_budget_tracker(whole, record, one_process=False)
        made = federate(
            star(setup.run_spec, runtimes[MAIN]), record, setup.meter, limits=StarLimits(tracker)
        )
        *_, (state, _) = islice(made, 3)
    share = {member.index: {"kwh": 0.001} for member in setup.run_spec.members}
    run_round(state, replace(setup.run_spec, budgets=share), runtimes[MAIN])  # never committed
    coordinate_all(build(whole), whole, runtimes, ledger)
    asked = [
        r.round for r in runtimes[MAIN].requests if isinstance(r, TrainRequest) and r.index == 1
    ]
    assert asked == [1, 2, 3, 3, 4]


def test_keys_that_no_request_depends_on_may_differ(make_federation: Any, tmp_path: Path) -> None:
    """The coordinator's patience, quorum, gate and grace of screening are its own matter."""
    path = make_federation(participants=2, train={"rounds": 2})
    agreed = agreements(build(load_federation(path)), load_federation(path))
    own = {
        "train": {"rounds": 2, "patience": 1, "quorum": 1},
        "gate": {"margin": 0.9, "max_examples": 5},
    }
    whole = load_federation(
        make_federation(participants=2, folder="own", screen={"loss": 9.0}, **own)
    )
    setup = build(whole)
    runtime = Compared(Embedded(setup.nodes), agreed)
    coordinate_all(setup, whole, {MAIN: runtime}, tmp_path / "ledger.sqlite")
    assert len(runtime.requests) > 6
