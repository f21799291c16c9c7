"""A coordinator whose participants answer in every hostile way: it ends none of its work, and its
records stay fit for use.

All of them take part in one run beside two honest ones. Requests and replies travel as bytes;
everything else of the coordinator is real.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from typer.testing import CliRunner

from benchmarks.common.hostile import MODES, Mode, stage_of
from benchmarks.common.replies import description, personal_outcome
from builders import bodies, build_setup, free_port
from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.public_data import read_public
from tequio.app.assembly.setup import RunSetup
from tequio.app.network.coordinator.personal_models import PersonalPhase
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.coordinator.rounds import build_seats, conduct
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.monitoring.status import read_status
from tequio.app.network.participant.processes import own_settings
from tequio.cli.main import app
from tequio.config import Federation, load_federation
from tequio.config.templates import write_federation
from tequio.core.canonical import digest_update
from tequio.core.messages import LIMIT, REQUESTS, pack_message, unpack_message
from tequio.core.replies import read_reply
from tequio.core.texts.words import ENGLISH
from tequio.core.types import DescribeRequest, Failure, PersonaliseRequest, Reply, Request
from tequio.ledger.record import verify
from tequio.participant.personal import personalise
from tequio.report.write import write_report
from tequio.runtimes.embedded import Embedded

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]
HONEST = ("site0", "site1")
FIRST = {f"site{i}": mode for i, mode in enumerate(MODES, 2)}
LATER = [mode for mode in MODES if mode.stage == "describe"]
AGAIN = {
    f"site{i}": mode for i, mode in enumerate(LATER, 2 + len(MODES))
}  # honest until the coordinator is started again
ROUNDS = 3
REASON = 2100  # bytes


class Stopped(Exception):
    """The coordinator's process ended after a round."""


@dataclass
class Carrier:
    """In place of the network: every request and every reply travels as bytes."""

    setup: RunSetup
    config: Federation
    modes: dict[str, Mode]
    here: Embedded = field(default_factory=lambda: Embedded({}))
    nodes: dict[int, int] = field(default_factory=dict)
    pending: dict[int, Any] = field(default_factory=dict)

    @property
    def traffic(self) -> Carrier:
        return self

    def take(self, node: int) -> dict[str, int]:
        return {"up": 0, "down": 0}

    def connections(self) -> dict[int, str]:
        return dict.fromkeys(self.nodes, "since noon")

    def settle(self) -> None:
        """Nothing is late."""

    def expect(self, names: Iterable[str]) -> None:
        """Nobody is waited for: all are here."""

    @property
    def long_poll(self) -> Carrier:
        return self

    def confirm(self, node: int, digest: str) -> None:
        """Nobody asks whether its model was recorded."""

    def carried(self) -> dict[str, Any]:
        return {"wire": {}}

    def exchange(
        self, tasks: Iterable[Request], within: float | None = None
    ) -> Iterator[Reply | Failure]:
        for task in tasks:
            if task.index in self.here.participants:
                yield from self.here.exchange([task])
                continue
            asked: Any = unpack_message(pack_message(task), "a task", REQUESTS)
            yield read_reply(self.answer(asked), task, LIMIT)

    def answer(self, asked: Request) -> bytes:
        reply, mode = self.honest(asked), self.modes.get(asked.name)
        hostile = mode is not None and isinstance(reply, Reply) and mode.stage == stage_of(asked)
        return mode.alter(reply) if hostile else pack_message(reply)  # type: ignore[union-attr, arg-type]

    def honest(self, asked: Request) -> Reply | Failure:
        node: Any = self.setup.nodes[asked.index]
        sizes = {split: len(getattr(node.data, split)) for split in ("train", "validation", "test")}
        if isinstance(asked, DescribeRequest):
            body: Any = description(self.setup.run_spec.spec, sizes)
        elif isinstance(asked, PersonaliseRequest) and asked.name not in HONEST:
            body = personal_outcome(asked.name, sizes["test"], sizes["validation"])
        elif isinstance(asked, PersonaliseRequest):
            made = personalise(node, asked.held, own_settings(self.config, node, asked))
            digests = {
                "digest": digest_update(made.delivered),
                "local_digest": digest_update(made.local),
            }
            body = {**made.body, **digests}
        else:
            (reply,) = Embedded({asked.index: node}).exchange([asked])
            return reply
        return Reply(asked.round, asked.index, asked.name, body=json.dumps(body))


@dataclass(frozen=True)
class Ended:
    """What is left when all is over. said: events and their words."""

    hub: Path
    said: list[tuple[str, str]]

    @property
    def run(self) -> Path:
        return self.hub / "run"

    def words(self, event: str, name: str) -> list[str]:
        return [
            words for found, words in self.said if found == event and words.startswith(f"{name} ")
        ]


def federation(root: Path, base: Path) -> Path:
    """As many participants as there are modes, and two; all have the same 60 texts."""
    from builders import sentences, write_jsonl

    data = write_jsonl(root / "data.jsonl", sentences(60, 1))
    public = write_jsonl(root / "slice.jsonl", sentences(30, 200))
    centre = write_jsonl(root / "centre.jsonl", sentences(60, 100))
    names = [*HONEST, *FIRST, *AGAIN]
    table: dict[str, Any] = {
        "name": "small",
        "seed": 7,
        "base": {"model": str(base), "dtype": "float32", "licence": "test"},
        "task": {
            "kind": "classification",
            "max_tokens": 16,
            "labels": {"good": "great", "bad": "rude"},
        },
        "adapter": {"modules": ["query"], "ranks": [2]},
        "train": {
            "rounds": ROUNDS,
            "patience": 9,
            "batch_size": 8,
            "learning_rate": 5e-3,
            "max_steps": 2,
            "quorum": 2,
        },
        "personal": {
            "local_rates": [5e-3],
            "private_rates": [2e-3],
            "private_rank": 2,
            "private_epochs": 1.0,
        },
        "centre": {"data": str(centre), "federated_share": 0.7},
        "gate": {"slices": {"public": str(public)}, "margin": 0.9},
    }
    people = [
        {"name": name, "data": {"path": str(data)}, "hardware": {"max_rank": 2}} for name in names
    ]
    return write_federation(root / "fed", table, people, {})


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, small_bert: Path) -> Ended:
    """The whole run: stopped after its first round, started again, to its end."""
    root = tmp_path_factory.mktemp("modes")
    path = federation(root, small_bert)
    hub, said = root / "hub", list[tuple[str, str]]()
    init_coordinator_folder(hub, path, f"127.0.0.1:{free_port()}")
    config, setup = load_federation(path), build_setup(path)
    rows = {
        name: {"public_key": "", "node": str(i)}
        for i, name in enumerate((*HONEST, *FIRST, *AGAIN), 1)
    }
    (hub / "enrolled.json").write_text(json.dumps(rows))

    def start(modes: dict[str, Mode], stop: bool) -> None:
        net: Any = Carrier(setup, config, modes)

        def say(words: str, event: str = "note", level: str = "info", **fields: Any) -> None:
            said.append((event, words))
            if stop and event == "round":
                raise Stopped

        public = read_public(config)
        seats = build_seats(config, resolve_algorithm(config), public, hub / "run")
        roster = Roster(hub, config, {seat.name: seat.context for seat in seats}, net, 5.0, say)
        phase = PersonalPhase(hub, net, roster.here, 0.0, say)
        conduct(hub / "run", roster, seats, public, phase, lambda *_: None)

    with pytest.raises(Stopped):
        start(FIRST, True)
    start({**FIRST, **AGAIN}, False)
    return Ended(hub, said)


def recorded(ended: Ended, kind: str) -> list[Any]:
    return bodies(ended.run, kind)


def test_no_reply_ends_the_run_and_the_honest_results_are_recorded(ended: Ended) -> None:
    assert len({mode.name for mode in MODES}) == len(MODES) >= 60
    found = recorded(ended, "round")
    assert [body["round"] for body in found] == list(range(1, ROUNDS + 1))
    for body in found:
        assert {row["name"] for row in body["train"]} >= set(HONEST)
        assert body["validation"].keys() >= set(HONEST)
        assert body["accepted"], body[
            "reason"
        ]  # a reply that cannot be used is no vote against a model
    able = {
        name for name, mode in FIRST.items() if mode.stage in ("train", "evaluate")
    }  # hostile in the rounds alone
    assert {body["name"] for body in recorded(ended, "personal")} == able | set(HONEST)
    assert len(recorded(ended, "end")) == 1
    assert verify(ended.run / "ledger.sqlite").ok


@pytest.mark.parametrize("name", FIRST, ids=lambda name: FIRST[name].name)
def test_a_hostile_reply_is_the_failure_of_its_sender_alone(ended: Ended, name: str) -> None:
    mode, reasons = FIRST[name], list[str]()
    began = {row["name"] for row in recorded(ended, "run")[0]["participants"]}
    if mode.stage == "describe":
        assert name not in began
        assert (ended.hub / "run").exists()
        reasons = ended.words("barred", name)
        assert len(reasons) == 2  # at both starts
    elif mode.stage == "train":
        for body in recorded(ended, "round"):
            (row,) = [row for row in body["admissions"] if row["name"] == name]
            assert row["status"] in ("failed", "rejected")
            assert name not in {row["name"] for row in body["train"]}
            reasons.append(ENGLISH.reason(row["reason"]))
    elif mode.stage == "evaluate":
        for body in (*recorded(ended, "start"), *recorded(ended, "round")):
            assert name not in body["validation"]
            assert name not in {row["name"] for row in body["evaluation"]}
            reasons.append(ENGLISH.reason(body["not_evaluated"][name]))
    else:
        assert name in began
        (missing,) = recorded(ended, "missing")
        reasons = [
            ENGLISH.reason(row["reason"]) for row in missing["participants"] if row["name"] == name
        ]
    assert reasons
    for reason in reasons:
        assert 10 < len(reason.encode()) <= REASON
        for word in ("words words", "<script>", "passwd", "colour", "cooling"):
            assert word not in reason, "a reason quotes nothing that came"


@pytest.mark.parametrize("name", AGAIN, ids=lambda name: AGAIN[name].name)
def test_who_turns_hostile_while_the_coordinator_is_away_is_left_out(
    ended: Ended, name: str
) -> None:
    assert name in {row["name"] for row in recorded(ended, "run")[0]["participants"]}
    first, *later = recorded(ended, "round")
    assert name in {row["name"] for row in first["train"]}
    for body in later:
        assert name not in {row["name"] for row in (*body["train"], *body["admissions"])}
        codes = {row["name"]: row["reason"]["code"] for row in body["barred"]}
        assert codes[name] in ("foreign-profile", "unreadable-profile")
    (missing,) = recorded(ended, "missing")
    codes = {row["name"]: row["reason"]["code"] for row in missing["participants"]}
    assert codes[name] in ("foreign-profile", "unreadable-profile")


def test_report_status_and_accounts_work_on_its_record(ended: Ended) -> None:
    for lang in ("en", "es"):
        page, numbers = write_report(ended.run, lang, None)
        text = page.read_text(encoding="utf-8")
        assert all(name in text for name in HONEST)
    assert numbers["mean"]["loss"]["personal"] < 2.0
    found = read_status(ended.hub)
    assert (found["state"], found["ended"]["code"]) == ("finished", "rounds-made")
    assert 0.0 < found["joules"] < 1e6
    people = {row["name"]: row for row in found["participants"]}
    for name, mode in {**FIRST, **AGAIN}.items():
        failed = people[name]["last"] in ("failed", "rejected", "barred")
        assert failed is (mode.stage == "train" or name in AGAIN), mode.name
        assert (name in found["missing"]) is (mode.stage == "personal" or name in AGAIN), mode.name
    for command in (
        ["status", str(ended.hub)],
        ["accounts", str(ended.run)],
        ["report", str(ended.run)],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output[-2000:], done.exception)
        assert len(done.output) < 200_000
    assert (ended.run / "ledger.sqlite").stat().st_size < 20e6
