"""A centre that trains before the others: they rest meanwhile, begin from its model, and a resumed
run is the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from builders import bodies, build_setup, recorded_rounds, rounds
from tequio.app.assembly.setup import RunSetup
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import run_round
from tequio.core.canonical import digest_update, pack
from tequio.core.errors import ConfigError
from tequio.core.update import Update
from tequio.report.write import write_report
from tequio.runtimes.embedded import Embedded

TWO_AND_TWO = {"train": {"rounds": 4}, "centre": {"first": 2}}


def setup(make: Any, **sections: Any) -> RunSetup:
    return build_setup(make(participants=2, **sections))


@pytest.mark.parametrize("reduce", ["stack", "fedit", "rolora"])
def test_the_centre_trains_alone_and_the_others_begin_from_its_model(
    make_federation: Any, reduce: str
) -> None:
    w = setup(make_federation, algorithm={"reduce": reduce}, **TWO_AND_TWO)
    state, bodies = recorded_rounds(w.run_spec, Embedded(w.nodes), 4)
    assert [[row["name"] for row in body["train"]] for body in bodies] == [
        ["centre"],
        ["centre"],
        ["centre", "site0", "site1"],
        ["centre", "site0", "site1"],
    ]
    assert [sorted(body["validation"]) for body in bodies] == [
        [],
        [],
        ["site0", "site1"],
        ["site0", "site1"],
    ]
    assert [body["mean_validation_loss"] is None for body in bodies] == [True, True, False, False]
    assert all(body["gate"] for body in bodies)  # it judges the centre's rounds too
    after = rounds(w.run_spec, Embedded(w.nodes), 2)
    asked: list[Update] = []

    class Asking(Embedded):
        def exchange(self, tasks: Any) -> Any:
            for task in tasks:
                if getattr(task, "steps", 0) and task.index == 1:
                    asked.append(task.held if task.start is None else task.start)
                yield from super().exchange([task])

    run_round(after, w.run_spec, Asking(w.nodes))
    assert asked[0].entries
    assert asked[0].norm() > 0.0
    down = {row["name"]: row["bytes_down"] for row in bodies[2]["train"]}
    assert down["site0"] == bodies[2]["bytes_broadcast"] + len(
        pack(after.shared)
    )  # what it had not been sent before
    assert state.round == 4


def test_alone_it_makes_the_steps_of_a_federation_of_one(make_federation: Any) -> None:
    """The centre's first rounds are those of a run in which the participants count nothing, at
    plain weights.
    """
    w = setup(make_federation, algorithm={"weights": "uniform"}, **TWO_AND_TWO)
    first = rounds(w.run_spec, Embedded(w.nodes), 2)
    beside = replace(w.run_spec, centre_first=0, federated_share=0.0, rounds=2)
    assert (
        first.shared.minus(rounds(beside, Embedded(w.nodes), 2).shared).norm()
        <= 1e-5 * first.shared.norm()
    )


def test_each_phase_has_its_own_fall_of_the_rate(make_federation: Any) -> None:
    run_spec = setup(make_federation, train={"rounds": 5}, centre={"first": 2}).run_spec
    top, low = run_spec.learning_rate, run_spec.learning_rate * run_spec.final_rate
    assert [run_spec.rate(r) for r in range(1, 6)] == pytest.approx(
        [top, low, top, (top + low) / 2, low]
    )


def test_a_resumed_run_is_the_same(make_federation: Any) -> None:
    w = setup(make_federation, algorithm={"server": "nesterov"}, **TWO_AND_TWO)
    unbroken = rounds(w.run_spec, Embedded(w.nodes), 3)
    broken = rounds(w.run_spec, Embedded(w.nodes), 2)
    resumed, _ = run_round(unpack_state(pack_state(broken), "test"), w.run_spec, Embedded(w.nodes))
    assert pack_state(resumed) == pack_state(unbroken)


def test_patience_waits_until_participants_are_asked(make_federation: Any, tmp_path: Path) -> None:
    toml = make_federation(participants=2, train={"rounds": 4, "patience": 1}, centre={"first": 3})
    out = start(load_federation(toml), tmp_path / "run", False).folder
    assert verify_run(out)["ok"]
    rounds = bodies(out, "round")
    assert len(rounds) == 4
    languages: tuple[Literal["en", "es"], ...] = ("en", "es")
    for lang in languages:
        path, summary = write_report(out, lang, None)
        assert path.is_file()
        assert [row["loss"] is None for row in summary["rounds"]["history"]] == [
            True,
            True,
            True,
            False,
        ]


def test_a_centre_that_does_not_count_does_not_train(make_federation: Any) -> None:
    w = setup(make_federation, centre={"federated_share": 1.0})
    state, (body,) = recorded_rounds(w.run_spec, Embedded(w.nodes), 1)
    assert [row["name"] for row in body["train"]] == ["site0", "site1"]
    assert body["gate"]
    without = setup(make_federation, centre=False, folder="without")
    assert digest_update(state.shared) == digest_update(
        rounds(without.run_spec, Embedded(without.nodes), 1).shared
    )
    compared = setup(
        make_federation,
        folder="compared",
        centre={"federated_share": 1.0},
        screen={"cosine": 0.0, "cosine_to": "centre"},
    )
    assert [m.name for m in compared.run_spec.roster(1)] == ["centre", "site0", "site1"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"centre": {"first": 2}}, "of 2 rounds none is left for the participants"),
        (
            {"centre": {"first": 1}, "train": {"pace": "buffered", "round_seconds": 1.0}},
            "centre.first",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    make_federation: Any, sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_federation(make_federation(**sections))
