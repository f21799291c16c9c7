"""A real participant, its loop over a real SuperLink: a coordinator that departs is refused, and
the next legal request is done.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from builders import refused

pytest.importorskip("flwr")

from live_server import Live
from network_processes import tequio, until
from open_gateway import asked, opened

from tequio.app.network.monitoring.health import Health, read_health
from tequio.app.network.monitoring.status import read_status
from tequio.app.network.participant.join import join_federation, read_agreed, read_identity
from tequio.app.network.participant.serve import ParticipantService, open_participant
from tequio.config import load_participant
from tequio.core.canonical import digest
from tequio.core.errors import ConfigError
from tequio.core.events import ignore_events
from tequio.core.messages import REPLIES, pack_message, unpack_message
from tequio.core.seeds import derive
from tequio.core.types import EvaluateRequest, Failure, PersonaliseRequest, Reply, TrainRequest
from tequio.core.update import Dense, Factored, Update, zero
from tequio.participant.accounts import read_account_books
from tequio.runtimes.flower.client import Identity, serve

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]
HUGE = 10**10


@pytest.fixture
def folder(make_federation: Any, tmp_path: Path) -> Iterator[Path]:
    """A participant's folder that joined."""
    with opened(make_federation, tmp_path) as (hub, people):
        yield join_federation(asked(hub, people), tmp_path / "site0")


@pytest.fixture
def service(folder: Path) -> Iterator[ParticipantService]:
    file = load_participant(Path(read_identity(folder)["participant"]))
    with open_participant(folder, file, ignore_events) as found:
        yield found


def first_task(spec: str) -> TrainRequest:
    """The first round's, as the federation has it."""
    return TrainRequest(1, 1, "site0", "product", 4, 4, 5e-3, derive(7, "train", 1, 1), zero(spec))


def absurd(task: TrainRequest) -> list[tuple[str, Any]]:
    """What is asked and the key that the refusal names."""
    name, spec = "encoder.layer.0.attention.self.query", task.held.spec
    empty = Update({name: Factored(torch.zeros(HUGE, 0), torch.zeros(0, HUGE))}, spec)
    return [
        ("train.steps: 10000000000 asked, at most 4 agreed.", replace(task, steps=HUGE)),
        ("train.steps: 200000000 asked, at most 4 agreed.", replace(task, steps=2 * 10**8)),
        ("train.rank: 2000 asked, one of 2, 4 agreed.", replace(task, rank=2000)),
        ("train.rank: 10000000000 asked, one of 2, 4 agreed.", replace(task, rank=HUGE)),
        ("train.upload: ../x asked, plain agreed.", replace(task, upload="../x")),
        (
            "train.terms.zzz: 1 asked, none agreed.",
            replace(task, method="nope", terms={"zzz": 1.0}),
        ),
        ("train.round: 6 asked, at most 2 agreed.", replace(task, round=6)),
        ("train.learning_rate: 1 asked, 0.005 agreed.", replace(task, learning_rate=1.0)),
        (
            f"train.held {name}: 10000000000 × 10000000000 asked, 32 × 32 agreed.",
            replace(task, held=empty),
        ),
        (f"evaluate.held {name}: 10000000000 × 1", EvaluateRequest(1, 1, "site0", empty)),
        (
            "personalise.steps: 10000000000 asked",
            PersonaliseRequest(1, 1, "site0", zero(spec), 4, HUGE),
        ),
    ]


def test_a_participant_stays_up_and_does_the_next_legal_request(
    hub: Live, folder: Path, service: ParticipantService
) -> None:
    """Each refusal comes back as its failure; nothing is done, recorded or allocated for it.

    Log and status say so.
    """
    events: list[tuple[str, str]] = []
    health = Health(
        "participant", lambda words, event="note", *_, **__: events.append((event, words))
    )
    node, stop = hub.enrol(), Event()
    net, spec = hub.net(node, deadline=60.0), service.node.adapted.spec
    task, peak = first_task(spec), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = absurd(task)
    moved = replace(task, held=Update({"head.bias": Dense(torch.ones(2))}, spec))
    rows.append(
        ("train.held: a trained model before the first round asked, the base agreed.", moved)
    )

    def coordinate() -> tuple[list[Reply | Failure], list[Reply | Failure]]:
        try:
            until(lambda: 1 in net.connections(), 60)
            departing = [found for _, request in rows for found in net.exchange([request])]
            return departing, [
                *net.exchange([task]),
                *net.exchange([EvaluateRequest(1, 1, "site0", zero(spec))]),
            ]
        finally:
            stop.set()

    with health.written_to(folder), ThreadPoolExecutor(1) as pool:
        job = pool.submit(coordinate)
        serve(
            Identity(hub.address, hub.authority, hub.keys[node], node),
            lambda data: service.answer(data, health.tell),
            stop,
            health.tell,
        )
        departing, legal = job.result()
        until(
            lambda: ((read_health(folder) or {}).get("departed") or {}).get("times") == len(rows),
            60,
        )
        found_status = read_status(folder)
        said = tequio("status", folder)
    assert len(departing) == len(rows)
    for (key, _), found in zip(rows, departing, strict=True):
        assert isinstance(found, Failure)
        assert (found.error, found.name) == ("AgreementError", "site0")
        assert found.message.startswith(key)
    trained, scored = legal
    assert isinstance(trained, Reply)
    assert isinstance(scored, Reply)
    assert trained.update is not None
    assert (trained.steps, trained.update.max_rank(), scored.metrics["loss"] > 0.0) == (4, 4, True)
    assert [line["work"] for line in read_account_books(folder / "run")["site0"]] == [
        "train",
        "evaluate",
    ]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 512 << 10, "KiB of memory more"
    refused = [words for event, words in events if event == "departed"]
    assert len(refused) == len(rows)
    assert refused[0].startswith(
        "Refused: train.steps: 10000000000 asked, at most 4 agreed. The coordinator departs from"
    )
    assert found_status["failures"] == {"AgreementError": len(rows)}
    assert f"The coordinator departed from what was agreed ({len(rows)})" in " ".join(said.split())


def test_a_round_is_not_trained_again_with_another_model(
    folder: Path, service: ParticipantService
) -> None:
    """Not after a restart of the participant either: its own record has the model of each round."""

    def answered(by: ParticipantService, round_: int, held: Update) -> Reply | Failure:
        rate = 5e-3 if round_ == 1 else 1.5e-3
        task = replace(first_task(held.spec), round=round_, held=held, learning_rate=rate)
        task = replace(task, seed=derive(7, "train", round_, 1))
        found = unpack_message(by.answer(pack_message(task)), "a reply", REPLIES)
        assert isinstance(found, Reply | Failure)
        return found

    first = answered(service, 1, zero(service.node.adapted.spec))
    assert isinstance(first, Reply)
    assert first.update is not None
    other = first.update.scaled(0.5)
    assert isinstance(answered(service, 2, first.update), Reply)
    assert isinstance(answered(service, 2, first.update), Reply)
    refusal = answered(service, 2, other)
    assert isinstance(refusal, Failure)
    assert refusal.message.startswith(
        "train.round: round 2 again with other content asked, once agreed."
    )
    assert [entry.body["round"] for entry in service.ledger.entries("received")] == [1]


def test_the_record_of_a_participant_remembers_over_a_restart(folder: Path) -> None:
    file = load_participant(Path(read_identity(folder)["participant"]))
    with open_participant(folder, file, ignore_events) as one:
        spec = one.node.adapted.spec
        task = replace(
            first_task(spec), round=2, learning_rate=1.5e-3, seed=derive(7, "train", 2, 1)
        )
        moved = Update({"head.bias": Dense(torch.ones(2))}, spec)
        one.answer(pack_message(replace(task, held=moved)))
    with open_participant(folder, file, ignore_events) as two:
        found = unpack_message(
            two.answer(pack_message(replace(task, held=moved.scaled(2.0)))), "a reply", REPLIES
        )
        assert isinstance(found, Failure)
        assert "round 2 again with other content" in found.message
        assert isinstance(
            unpack_message(two.answer(pack_message(replace(task, held=moved))), "a reply", REPLIES),
            Reply,
        )


def test_a_federation_file_that_was_changed_since_joining_is_not_compared_with(
    folder: Path,
) -> None:
    """The folder has its digest; one that joined before that was kept is read as it is."""
    path, file = (
        folder / "federation.toml",
        load_participant(Path(read_identity(folder)["participant"])),
    )
    assert read_identity(folder)["federation"] == digest(path.read_bytes())
    before = path.read_text()
    path.write_text(before.replace("max_steps = 4", "max_steps = 400"))
    with (
        refused(ConfigError, "agreed-text-changed", path=str(path)),
        open_participant(folder, file, ignore_events),
    ):
        pass
    identity = json.loads((folder / "identity.json").read_text())
    del identity["federation"]
    (folder / "identity.json").write_text(json.dumps(identity))
    assert read_agreed(folder).train.max_steps == 400
