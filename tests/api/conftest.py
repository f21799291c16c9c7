"""A small federation for the tests of the Python API: settings as a dict, texts as pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import sentences


def pairs(seed: int, count: int = 60) -> list[tuple[str, str]]:
    """Made texts with their labels."""
    return [(row["text"], row["label"]) for row in sentences(count, seed)]


@pytest.fixture
def settings(tiny_bert: Path) -> dict[str, Any]:
    """The keys of federation.toml for a run of seconds."""
    return {
        "name": "small",
        "base": {"model": str(tiny_bert), "dtype": "float32"},
        "task": {"kind": "classification", "max_tokens": 16, "labels": {"good": "great kind", "bad": "rude broken"}},
        "adapter": {"modules": ["query", "value"], "ranks": [2]},
        "train": {"rounds": 2, "batch_size": 8, "learning_rate": 5e-3, "max_steps": 4},
        "personal": {"local_rates": [5e-3], "private_rates": [2e-3], "private_rank": 2, "private_epochs": 1.0},
    }


@pytest.fixture
def people() -> dict[str, list[tuple[str, str]]]:
    """Two participants' texts."""
    return {"north": pairs(1), "south": pairs(2)}
