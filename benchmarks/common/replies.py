"""Well-formed replies and bodies of participants, made up: what tests of messages and of the
network begin with, and `soak_messages`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tequio.core.types import (
    DescribeRequest,
    Energy,
    EvaluateRequest,
    Money,
    PersonaliseRequest,
    Reply,
    Request,
    TrainRequest,
)

ENERGY = Energy(
    36.0,
    2.0,
    "model",
    "cpu package",
    0.4,
    began="2026-03-01T10:00:00+00:00",
    intensity=120.0,
    embodied=0.1,
)
MONEY = Money(0.02, "EUR")
SIZES = {"train": 48, "validation": 16, "test": 16}


def description(spec: str, sizes: dict[str, int] | None = None) -> dict[str, Any]:
    """What a participant says of itself."""
    sizes = sizes or SIZES
    data = {
        "rows": sum(sizes.values()),
        "counts": sizes,
        "licence": "CC0",
        "consent": "given",
        "warnings": [],
        "cut": 0,
    }
    facts = {
        "name": "site0",
        "hardware": {"max_rank": 4},
        "batches": sizes,
        "mean_tokens": 6.0,
        "data": data,
    }
    return {"spec": spec, "commitment": "c" * 64, "told": {**facts, "speed": None}}


def personal_outcome(name: str, tests: int = 16, validation: int = 16) -> dict[str, Any]:
    """What a participant says of its personal model."""
    interval = {"mean": 0.1, "low": -0.1, "high": 0.3}
    pairs = {"both": tests - 2, "better": 1, "worse": 1, "neither": 0}
    gain = {"loss": interval, "accuracy": interval, "log_ratio": interval, "pairs": pairs}
    scores = {"loss": 0.5, "examples": tests, "accuracy": 0.75}
    seen = {"loss": 0.6, "examples": validation, "accuracy": 0.5}
    models = ("base", "local", "shared", "personal")
    return {
        "name": name,
        "chosen": "shared",
        "choice": {"rule": "within_one_error", "best": "local", "lead": 0.01, "error": 0.02},
        "candidates": {
            key: dict(seen) for key in ("base", "local", "shared", "shared + 1 private")
        },
        "test": {key: dict(scores) for key in models},
        "gains": dict.fromkeys(
            ("personal_over_local", "personal_over_base", "shared_over_local"), gain
        ),
        "benefit": 0.1,
        "fits": {"local": {"learning_rate": 0.003, "step": 7, "diverged": [0.1]}},
        "local_cost": {"steps": 9, "tokens": 99, "energy": asdict(ENERGY), "money": asdict(MONEY)},
        "energy": asdict(ENERGY),
        "money": asdict(MONEY),
        "seconds": 2.0,
        "classes": {
            "balanced_accuracy": dict.fromkeys(models, 0.75),
            "macro_f1": dict.fromkeys(models, 0.7),
            "baseline": {"label": 0, "accuracy": 0.5, "balanced_accuracy": 0.5},
            "support": [tests // 2, None],
            "right": {"local": [[5, 5], None], "personal": [[6, 6], None]},
            "confusion": [[0, 0, 6]],
        },
        "digest": "a" * 64,
        "local_digest": "b" * 64,
        "record_version": 2,
    }


def answered(task: Request) -> Reply:
    """A well-formed reply to any request (that to a training request with bytes that no codec
    reads).
    """
    cost: dict[str, Any] = {"energy": ENERGY, "money": MONEY}
    if isinstance(task, TrainRequest):
        metrics = {"loss_first": 0.7, "loss_last": 0.6}
        work: dict[str, Any] = {
            "payload": b"update",
            "examples": 48,
            "steps": task.steps,
            "tokens": 300,
            "metrics": metrics,
        }
        return Reply(task.round, task.index, task.name, **work, **cost, note="")
    if isinstance(task, EvaluateRequest):
        metrics = {"loss": 0.65, "accuracy": 0.5}
        return Reply(task.round, task.index, task.name, examples=16, metrics=metrics, **cost)
    if isinstance(task, PersonaliseRequest):
        return Reply(
            task.round, task.index, task.name, body=json.dumps(personal_outcome(task.name))
        )
    assert isinstance(task, DescribeRequest)
    return Reply(task.round, task.index, task.name, body=json.dumps(description("spec")))
