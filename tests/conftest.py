"""Tiny real models, made at test time: a BERT and a Llama of a few thousand parameters, with a word
tokenizer; and a small federation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # numbers are those of a CPU, everywhere
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from hypothesis import HealthCheck, settings

from builders import sentences, write_jsonl, write_model

if TYPE_CHECKING:
    from live_server import Live

settings.register_profile("tequio", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tequio")
torch.set_num_threads(1)


def pytest_runtest_setup() -> None:
    """Let each test, its fixtures too, begin with one thread, whatever ran before it."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT, 32 wide, random weights."""
    return write_model(tmp_path_factory.mktemp("bert"), "bert", seed=1, width=32, layers=2)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama, 32 wide, random weights."""
    return write_model(tmp_path_factory.mktemp("llama"), "llama", seed=2, width=32, layers=2)


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT, 16 wide, random weights: a second base, for the smaller machines."""
    return write_model(tmp_path_factory.mktemp("small-bert"), "bert", seed=3, width=16, layers=1)


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer Llama, 16 wide, random weights, with the tokenizer of the larger one and more
    room for words.
    """
    return write_model(
        tmp_path_factory.mktemp("small-llama"), "llama", seed=4, width=16, layers=1, vocabulary=48
    )


Maker = Callable[..., Path]


@pytest.fixture
def make_federation(tmp_path: Path, tiny_bert: Path, tiny_llama: Path) -> Maker:
    """make(kind=..., participants=..., centre=..., **sections) writes a small federation and
    returns federation.toml.
    """
    from tequio.config.templates import write_federation

    def make(
        kind: str = "classification",
        participants: int = 2,
        centre: bool | dict[str, Any] = True,
        rows: int = 80,
        folder: str = "fed",
        holds: dict[str, str] | None = None,
        **sections: dict[str, Any],
    ) -> Path:
        root = tmp_path / folder
        labelled = kind == "classification"
        federation: dict[str, Any] = {
            "name": "small",
            "seed": 7,
            "base": {
                "model": str(tiny_bert if labelled else tiny_llama),
                "dtype": "float32",
                "licence": "test",
            },
            "task": {"kind": kind, "max_tokens": 16},
            "adapter": {
                "modules": ["query", "value"] if labelled else ["q_proj", "v_proj"],
                "ranks": [2, 4],
            },
            "train": {
                "rounds": 2,
                "batch_size": 8,
                "learning_rate": 5e-3,
                "final_rate": 0.3,
                "max_steps": 4,
            },
            "personal": {
                "local_rates": [5e-3],
                "private_rates": [2e-3],
                "private_rank": 2,
                "private_epochs": 1.0,
            },
        }
        if labelled:
            federation["task"]["labels"] = {
                "good": "great kind helpful",
                "bad": "rude broken dirty",
            }
        if centre:
            data = write_jsonl(
                root / "public" / "centre.jsonl", _shape(sentences(rows, 100), labelled)
            )
            public = write_jsonl(
                root / "public" / "slice.jsonl", _shape(sentences(30, 200), labelled)
            )
            keys = centre if isinstance(centre, dict) else {}
            federation["centre"] = {"data": str(data), "federated_share": 0.7, **keys}
            federation["gate"] = {"slices": {"public": str(public)}, "margin": 0.5}
        for name, values in sections.items():
            federation[name] = (
                {**federation.get(name, {}), **values} if isinstance(values, dict) else values
            )
        people = []
        for i in range(participants):
            data = write_jsonl(
                root / "data" / f"site{i}.jsonl", _shape(sentences(rows, i), labelled)
            )
            people.append(
                {
                    "name": f"site{i}",
                    "data": {"path": str(data)},
                    "hardware": {"max_rank": 2 if i % 2 else 4},
                }
            )
        return write_federation(root, federation, people, holds or {})

    return make


def _shape(rows: list[dict[str, str]], labelled: bool) -> list[dict[str, str]]:
    return rows if labelled else [{"text": row["text"]} for row in rows]


@pytest.fixture
def make_two_bases(make_federation: Maker, small_bert: Path, small_llama: Path) -> Maker:
    """make(kind=..., distil={...}, ...): such a federation, in which participants of odd number
    hold a smaller base, with [distil].
    """

    def make(
        kind: str = "classification",
        participants: int = 4,
        small: Path | None = None,
        **sections: Any,
    ) -> Path:
        labelled = kind == "classification"
        model = small or (small_bert if labelled else small_llama)
        modules = ["query", "value"] if labelled else ["q_proj", "v_proj", "up_proj"]
        bases = [{"name": "small", "model": str(model), "dtype": "float32", "modules": modules}]
        holds = {f"site{i}": "small" for i in range(1, participants, 2)}
        distil = {"steps": 6, "items": 32, "learning_rate": 5e-3} | sections.pop("distil", {})
        return make_federation(
            kind=kind,
            participants=participants,
            rows=60,
            holds=holds,
            bases=bases,
            distil=distil,
            **sections,
        )

    return make


SUNNY = [400.0] * 9 + [100.0] * 6 + [400.0] * 9  # g/kWh by the hour of a day
WINDY = [200.0] * 6 + [500.0] * 18


def write_intensities(path: Path, day: list[float]) -> None:
    """A file with the same day again and again, 2 to 9 March 2026."""
    from tequio.measure.intensity import Window, write_windows

    hours = (datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=h) for h in range(8 * 24))
    rows = [
        Window("X", t, 3600.0, day[t.hour], "actual", None, "average", "made up", "CC0")
        for t in hours
    ]
    path.write_text(write_windows(rows))


@pytest.fixture
def make_shifted(make_federation: Maker) -> Maker:
    """make(folder=..., tail=..., **shift): two participants and a centre in simulated time, two
    hours of work in a day for each round.
    """

    def make(folder: str = "fed", tail: str = "tdp_watts = 100.0\n", **shift: Any) -> Path:
        shift = {
            "start": "2026-03-03T00:00:00Z",
            "deadline_hours": 24.0,
            "work_hours": 2.0,
            **shift,
        }
        train = {"rounds": 3, "patience": 9}
        path = make_federation(
            folder=folder, rows=40, shift=shift, energy={"intensity": "centre.csv"}, train=train
        )
        write_intensities(path.parent / "centre.csv", SUNNY)
        for name, day in (("site0", SUNNY), ("site1", WINDY)):
            file = path.parent / "participants" / f"{name}.toml"
            text = file.read_text().replace("[hardware]\n", f"[hardware]\n{tail}")
            file.write_text(f'{text}\n[energy]\nintensity = "../{name}.csv"\n')
            write_intensities(path.parent / f"{name}.csv", day)
        return path

    return make


def text_pairs(seed: int, count: int = 60) -> list[tuple[str, str]]:
    """Made texts with their labels, as Python gives them."""
    return [(row["text"], row["label"]) for row in sentences(count, seed)]


@pytest.fixture
def api_settings(tiny_bert: Path) -> dict[str, Any]:
    """The keys of federation.toml as a dict, for a run of seconds."""
    return {
        "name": "small",
        "base": {"model": str(tiny_bert), "dtype": "float32"},
        "task": {
            "kind": "classification",
            "max_tokens": 16,
            "labels": {"good": "great kind", "bad": "rude broken"},
        },
        "adapter": {"modules": ["query", "value"], "ranks": [2]},
        "train": {"rounds": 2, "batch_size": 8, "learning_rate": 5e-3, "max_steps": 4},
        "personal": {
            "local_rates": [5e-3],
            "private_rates": [2e-3],
            "private_rank": 2,
            "private_epochs": 1.0,
        },
    }


@pytest.fixture
def api_people() -> dict[str, list[tuple[str, str]]]:
    """Two participants' texts as pairs."""
    return {"north": text_pairs(1), "south": text_pairs(2)}


@pytest.fixture
def marked(make_federation: Maker) -> Maker:
    """make_federation, with a marker in every text of the participants, for tests of bad input."""
    from marked_runs import MARKER, put, rows_of

    def make(**options: Any) -> Path:
        path = make_federation(**options)
        for file in (path.parent / "data").glob("*.jsonl"):
            put(file, [{**row, "text": f"{row['text']} {MARKER}"} for row in rows_of(file)])
        return path

    return make


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A coordinator's server and gateway for tests across a network, up until the file's last test
    ends.
    """
    from live_server import live  # needs Flower: a file that asks for it is skipped without

    with live(tmp_path_factory.mktemp("live") / "hub") as found:
        yield found
