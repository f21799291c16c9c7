"""The general model of a classification task: two answers, weighed by how familiar a text is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import build_setup
from tequio.app.models.open import open_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.saved_models import FAMILIAR, read_familiarity, recorded_models, save_alone
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import UpdateError
from tequio.core.update import Dense, Update, zero
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.choice import EARLIER_RULE
from tequio.participant.encoding import Item
from tequio.participant.general import (
    LEAST,
    MOST,
    Familiarity,
    answers,
    blended,
    embeddings,
    learn,
    losses_of,
)
from tequio.participant.node import Encoded
from tequio.participant.personal import personalise, score

SQUARE = torch.eye(4)


def unit(*numbers: float) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor([numbers], dtype=torch.float32), dim=1)


def test_a_text_like_the_own_ones_is_answered_by_the_own_model() -> None:
    texts = torch.cat([unit(1, 0.1 * k, 0, 0) for k in range(8)])
    familiar = Familiarity(texts)
    assert familiar.weights(texts[3:4]).item() == pytest.approx(MOST)
    assert familiar.weights(unit(0, 0, 0, 1)).item() == pytest.approx(LEAST)
    between = familiar.weights(unit(1, -0.05, 0, 0)).item()
    assert LEAST <= between <= MOST


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_training_texts_still_weigh(count: int) -> None:
    weights = Familiarity(SQUARE[:count]).weights(SQUARE)
    assert weights.shape == (4,)
    assert ((weights >= LEAST) & (weights <= MOST)).all()


def test_only_so_many_training_texts_are_remembered(
    make_federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    monkeypatch.setattr("tequio.participant.general.MOST_TEXTS", 4)
    found = learn(w.adapted, node.data.train)
    step = -(-len(node.data.train) // 4)
    assert torch.equal(
        found.texts, embeddings(w.adapted, [item.ids for item in node.data.train[::step]])
    )
    assert 1 < len(found.texts) <= 4


def test_blended_answers_are_averages_of_probabilities() -> None:
    own, shared = torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([[0.2, 0.8], [0.1, 0.9]])
    found = blended(own.log(), shared.log(), torch.tensor([0.5, 0.9])).exp()
    assert torch.allclose(found, torch.tensor([[0.55, 0.45], [0.46, 0.54]]), atol=1e-6)


def test_losses_of_answers_are_nats_and_rights() -> None:
    found = losses_of(
        torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log(), [Item((1,), (0,)), Item((2,), (0,))]
    )
    assert found.total.tolist() == pytest.approx([0.2231, 0.9163], abs=1e-4)
    assert found.right.tolist() == [1.0, 0.0]
    assert found.scores().accuracy == 0.5


def test_answers_are_those_of_the_task_and_embeddings_those_of_the_base(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    model = Update(
        {"head.bias": Dense(w.adapted.head["head.bias"].new_tensor([1.0, -1.0]))}, w.run_spec.spec
    )
    rows = [item.ids for item in node.data.test]
    before = embeddings(w.adapted, rows)
    assert torch.allclose(before.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
    found = losses_of(answers(w.adapted, model, rows), node.data.test)
    assert found.total.tolist() == score(node, model, node.data.test).total.tolist()
    assert torch.equal(embeddings(w.adapted, rows), before)  # whatever the model holds


def test_a_class_that_training_texts_lack_is_hardly_given(make_federation: Any) -> None:
    """The shared model gives it more often than not; the participant has texts of the other class
    alone.
    """
    w = build_setup(make_federation(participants=1, rows=80))
    node = w.participants[0]
    train, validation, test = (
        [item for item in split if item.target == (0,)]
        for split in (node.data.train, node.data.validation, node.data.test)
    )
    node = replace(node, data=Encoded(train, validation, test))
    shared = Update({"head.bias": Dense(torch.tensor([-0.5, 0.5]))}, w.run_spec.spec)
    settings = w.settings[node.name]
    made = personalise(
        node, shared, replace(settings, mixes=(), local=replace(settings.local, steps=1))
    )
    name = next(name for name in made.body["candidates"] if name.endswith(", own classes"))
    own, plain = (
        made.body["candidates"][each]["loss"] for each in (name, name.removesuffix(", own classes"))
    )
    texts, fall = (
        len(node.data.train) + len(node.data.validation),
        math.log(2.0 * (len(node.data.train) + 1)),
    )
    assert own + fall / (texts + 2) < plain
    assert made.body["chosen"] == name


def test_a_class_that_training_texts_lack_but_others_have_is_still_given(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=1, rows=80))
    node = w.participants[0]
    train = [item for item in node.data.train if item.target == (0,)]
    node = replace(node, data=replace(node.data, train=train))
    made = personalise(node, zero(w.run_spec.spec), w.settings[node.name])
    assert not made.body["chosen"].endswith("own classes")


def test_no_candidate_of_own_classes_where_every_class_is_there(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    made = personalise(node, zero(w.run_spec.spec), w.settings[node.name])
    assert not any(name.endswith("own classes") for name in made.body["candidates"])


def test_a_model_made_alone_keeps_what_its_general_one_needs(
    make_federation: Any, tmp_path: Path
) -> None:
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    made = personalise(node, zero(w.run_spec.spec), w.settings[node.name])
    made = replace(
        made,
        familiarity=learn(w.adapted, node.data.train),
        body={**made.body, "general": {"way": "answers"}},
    )
    folder = RunFolder.create(tmp_path / "alone")
    with Ledger.create(folder.ledger_path, {"name": "alone"}) as ledger:
        body = save_alone(folder, ledger, made, {"round": 1})
    files = recorded_models("personal", body)
    assert len(files) == 3
    assert all((folder.path / file).is_file() for file in files)
    found = read_familiarity(folder, body)
    assert found is not None
    assert made.familiarity is not None
    assert torch.equal(found.texts, made.familiarity.texts)


def test_an_earlier_rule_names_a_point_in_weights(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    node = w.participants[0]
    made = personalise(
        node, zero(w.run_spec.spec), replace(w.settings[node.name], rule=EARLIER_RULE)
    )
    assert made.body["general"]["way"] == "weights"
    assert made.familiarity is None


def test_a_run_keeps_what_its_general_models_need_and_predicts_with_it(
    make_federation: Any, tmp_path: Path
) -> None:
    folder = start(load_federation(make_federation(rows=60)), tmp_path / "run", True).folder
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        bodies = {entry.body["name"]: entry.body for entry in ledger.entries("personal")}
        everybody = ledger.last("everybody")
    assert everybody is not None
    name = next(name for name, body in bodies.items() if body["general"]["way"] == "answers")
    assert set(bodies[name]["general"]) == {"way", "digest", "file"}
    assert verify_run(folder)["ok"]
    own, both = open_models(folder, name)[0], open_models(folder, name, general=True)[0]
    assert own.beside is None
    assert both.beside is not None
    texts = ["a good trip", "the bag was lost"]
    shares = [
        [row["probabilities"] for row in predict_texts(folder, who, texts, 1, general)]
        for who, general in ((name, False), (name, True), ("shared", False))
    ]
    for own_share, general, shared in zip(*shares, strict=True):
        for label, share in general.items():
            low, high = sorted((own_share[label], shared[label]))
            assert low - 1e-6 <= share <= high + 1e-6
    (folder / "participants" / name / FAMILIAR).write_bytes(b"x")
    with pytest.raises(UpdateError):
        open_models(folder, name, general=True)
    assert not verify_run(folder)["ok"]
