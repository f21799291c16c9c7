"""Whole runs with local terms, FOMAML, Reptile and Ditto: they end, resume to the same bits, and
are refused where they cannot work.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, refused, sentences, write_jsonl
from tequio.app.assembly.build import build
from tequio.app.models.adapt import adapt
from tequio.app.simulation.run import resume, start
from tequio.config import HardwareSection, load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError, DataError, RunError
from tequio.core.types import Failure, GradientRequest, TrainRequest
from tequio.core.update import zero
from tequio.ledger.record import Ledger
from tequio.participant.fit import fit
from tequio.participant.personal import personalise
from tequio.runtimes.embedded import Embedded

STRENGTHS = {"fedprox": 0.1, "kl": 0.5, "replay": 0.2, "transfer": 1.0}
ALL: dict[str, Any] = {"terms": STRENGTHS, "method": "fomaml"}
SMALL = {"rounds": 2, "max_steps": 2}


def outcome(run: Path) -> str:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        end = ledger.last("end")
    assert end is not None
    return str(end.body["outcome"])


class Stop(Exception):
    """The machine goes off here."""


def cut_off(at: int) -> Any:
    seen = 0

    def watch(stage: str, what: str, done: int, of: int) -> None:
        nonlocal seen
        seen += stage == "rounds"
        if seen == at:
            raise Stop

    return watch


@pytest.mark.parametrize("kind", ["classification", "causal"])
@pytest.mark.parametrize("name", sorted(STRENGTHS))
def test_a_run_with_a_term_ends_and_resumes_to_the_same_bits(
    make_federation: Any, tmp_path: Path, kind: str, name: str
) -> None:
    local = {"terms": {name: STRENGTHS[name]}}
    config = load_federation(make_federation(kind=kind, rows=60, train=SMALL, local=local))
    start(config, tmp_path / "whole", False)
    with pytest.raises(Stop):
        start(config, tmp_path / "cut", False, watch=cut_off(6))  # in the second round
    resume(tmp_path / "cut")
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    without = load_federation(make_federation(kind=kind, rows=60, train=SMALL, folder="without"))
    start(without, tmp_path / "plain", False)
    shared = {x: (tmp_path / x / "shared.safetensors").read_bytes() for x in ("whole", "plain")}
    assert shared["whole"] != shared["plain"]


@pytest.mark.parametrize("reduce", ["stack", "fedit", "rolora"])
def test_all_terms_and_fomaml_together_in_every_layout(
    make_federation: Any, tmp_path: Path, reduce: str
) -> None:
    config = load_federation(
        make_federation(rows=60, train=SMALL, local=ALL, algorithm={"reduce": reduce})
    )
    start(config, tmp_path / "run", False)
    assert outcome(tmp_path / "run")


def test_what_each_task_carries(make_federation: Any) -> None:
    """The centre has neither replay nor transfer: its texts are the public ones.

    The gradient travels once a participant.
    """
    w = build_setup(make_federation(train=SMALL, local=ALL))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    seen: list[Any] = []
    _, body = run_round(state, w.run_spec, Embedded(w.nodes, seen.append))
    asked = [t for t in seen if isinstance(t, GradientRequest)]
    tasks = [t for t in seen if isinstance(t, TrainRequest)]
    assert [(t.index, t.rank, t.batches) for t in asked] == [(0, 8, w.run_spec.centre.steps)]  # type: ignore[union-attr]
    assert isinstance(seen[0], type(asked[0]))
    assert [sorted(t.terms) for t in tasks] == [
        ["fedprox", "kl"],
        sorted(STRENGTHS),
        sorted(STRENGTHS),
    ]
    assert [t.gradient is None for t in tasks] == [True, False, False]
    assert {t.method for t in tasks} == {"fomaml"}
    gradient = tasks[1].gradient
    assert gradient is not None
    plain, _ = open_state(w.run_spec, Embedded(w.nodes))
    assert plain.shared.spec == gradient.spec
    assert all(row["bytes_down"] > len(pack(gradient)) for row in body["train"])


def test_a_round_without_the_centres_gradient_is_an_error(make_federation: Any) -> None:
    class Deaf(Embedded):
        def exchange(self, tasks: Any) -> Any:
            for task in tasks:
                if isinstance(task, GradientRequest):
                    yield Failure(task.round, 0, task.name, "TrainingError", "no power")
                else:
                    yield from super().exchange([task])

    w = build_setup(make_federation(train=SMALL, local={"terms": {"transfer": 1.0}}))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    with refused(RunError, "no-centre-gradient", round=1):
        run_round(state, w.run_spec, Deaf(w.nodes))


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"terms": {"klx": 0.1}}, r"Did you mean 'kl'"),
        ({"method": "maml"}, r"Did you mean 'fomaml'"),
        (
            {"terms": {"kl": 0.1}},
            r"kl cannot be computed. It needs public text, and there is none. Give \[local\] data",
        ),
        ({"terms": {"replay": 0.1}}, r"replay cannot be computed. It needs public text"),
        (
            {"terms": {"transfer": 1.0}},
            r"transfer cannot be computed. It needs the gradient of a centre",
        ),
        ({"term": {}}, r"did you mean 'local.terms'|did you mean 'terms'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    make_federation: Any, local: Mapping[str, Any], message: str
) -> None:
    path = make_federation(centre=False)
    text = (
        path.read_text() + "\n[local]\n" + "\n".join(f"{k} = {_toml(v)}" for k, v in local.items())
    )
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        build_setup(path)


def test_a_base_without_a_head_is_nothing_to_keep_to(make_federation: Any) -> None:
    path = make_federation(task={"labels": ["good", "bad"]}, local={"terms": {"kl": 0.1}})
    with refused(ConfigError, "term-without-head", term="kl"):
        build_setup(path)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {v}" for k, v in value.items()) + " }"
    return f'"{value}"'


def test_public_text_of_ones_own(make_federation: Any, tmp_path: Path) -> None:
    """It is read and digested, changed text stops a resume, and the gate's slices do not share
    it.
    """
    rows = sentences(20, 321)
    data = write_jsonl(tmp_path / "public.jsonl", rows)
    local = {"terms": {"kl": 0.1, "replay": 0.1}, "data": str(data)}
    config = load_federation(make_federation(train=SMALL, local=local))
    with pytest.raises(Stop):
        start(config, tmp_path / "run", False, watch=cut_off(4))
    write_jsonl(data, rows[1:])
    with pytest.raises(RunError, match=r"the public data of \[local\] data"):
        resume(tmp_path / "run")
    write_jsonl(data, [{"text": " ", "label": "good"}])
    with refused(DataError, "public-text-empty"):
        build(config)


def test_ditto_is_another_candidate_and_a_stronger_pull_keeps_nearer(make_federation: Any) -> None:
    w = build_setup(make_federation(train=SMALL, personal={"ditto": [0.1, 1.0]}))
    node = w.participants[0]
    made = personalise(node, zero(w.run_spec.spec), w.settings["site0"])
    names = set(made.body["candidates"])
    assert {"ditto 0.1", "ditto 1"} & names
    assert {"ditto 0.1", "ditto 1"} <= set(made.body["fits"])
    losses = {name: scores["loss"] for name, scores in made.body["candidates"].items()}
    assert losses[made.body["chosen"]] <= losses["shared"]
    data, budget = (node.data.train, node.data.train), w.settings["site0"].private
    lengths = [
        fit(node, zero(w.run_spec.spec), data, budget, 1, pull).tail.norm()
        for pull in (0.0, 10.0, 1000.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


def test_without_ditto_nothing_is_added(make_federation: Any) -> None:
    w = build_setup(make_federation(train=SMALL))
    made = personalise(w.participants[0], zero(w.run_spec.spec), w.settings["site0"])
    assert set(made.body["fits"]) == {"local", "private"}
    assert not [name for name in made.body["candidates"] if "ditto" in name]


def test_a_newcomer_starts_from_a_federation_of_fomaml_and_reptile(
    make_federation: Any, tmp_path: Path
) -> None:
    local = {"method": "fomaml", "method_settings": {"inner_rate": 0.1}, "terms": {"kl": 0.1}}
    config = load_federation(
        make_federation(
            train=SMALL, local=local, algorithm={"server": "reptile"}, personal={"ditto": [1.0]}
        )
    )
    start(config, tmp_path / "run", False)
    data = write_jsonl(tmp_path / "late.jsonl", sentences(60, 900))
    file = tmp_path / "late.toml"
    file.write_text(f'name = "late"\n[data]\npath = "{data}"\n', encoding="utf-8")
    result = adapt(tmp_path / "run", file, tmp_path / "out")
    assert result["chosen"] in result["candidates"]
    assert {"base", "local", "shared"} <= set(result["candidates"])


def test_two_batches_a_step_count_as_twice_the_work(make_federation: Any) -> None:
    """Hardware that makes 4 plain steps in a round's time makes 2 of FOMAML."""
    from tequio.app.assembly.allocation import build_workload
    from tequio.app.assembly.profile import build_node_profile

    sizes: list[int] = []
    for local in (
        {},
        {"method": "fomaml"},
        {"terms": {"replay": 0.1}},
        {"method": "fomaml", "terms": {"kl": 0.1}},
    ):
        config = load_federation(make_federation(local=local, folder=f"fed{len(sizes)}"))
        setup = build(config)
        profile = build_node_profile(setup.participants[0], HardwareSection(), {})
        sizes.append(build_workload(setup, profile, 4).tokens_per_step)
    assert [size / sizes[0] for size in sizes] == pytest.approx([1.0, 2.0, 2.0, 3.0], rel=0.02)
