"""How the cores are shared out: by what does not change from run to run, recorded, and kept on
resume.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import refused
from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.memory import process_memory
from tequio.app.simulation.parallelism import choose_workers
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import ConfigError
from tequio.ledger.record import Ledger


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("cores", "asked", "recorded", "workers", "threads"),
    [
        (2, 0, None, 2, 1),  # a small base: side by side
        (1, 0, None, 1, 1),
        (8, 0, None, 4, 1),  # three participants and the centre
        (2, None, None, 1, 2),  # a caller who says nothing keeps the threads
        (2, 1, None, 1, 1),  # asked for: one thread each, so that 1 gives the bits of 2
        (1, 3, None, 3, 1),
        (2, 9, None, 4, 1),
        (2, 0, 2, 1, 2),  # begun with two threads: goes on with two
        (1, 0, 2, 1, 2),
        (2, 0, 1, 2, 1),
    ],
)
def test_who_works_beside_whom(
    make_federation: Any,
    cores: int,
    asked: int | None,
    recorded: int | None,
    workers: int,
    threads: int,
) -> None:
    config = load_federation(make_federation(participants=3))
    torch.set_num_threads(cores)
    assert choose_workers(config, resolve_algorithm(config), asked, recorded) == workers
    assert torch.get_num_threads() == threads


def test_workers_are_refused_where_the_run_began_with_several_threads(make_federation: Any) -> None:
    config = load_federation(make_federation())
    with refused(ConfigError, "workers-of-one", asked=2):
        choose_workers(config, resolve_algorithm(config), 2, 4)


def test_a_whole_run_is_the_same_to_the_bit_with_two_workers(
    make_federation: Any, tmp_path: Path
) -> None:
    config = load_federation(make_federation(participants=3))
    outcomes = [start(config, tmp_path / f"run{k}", True, workers=k).end["outcome"] for k in (1, 2)]
    assert outcomes[0] == outcomes[1]
    bodies = []
    for k in (1, 2):
        with Ledger.open(tmp_path / f"run{k}" / "ledger.sqlite") as ledger:
            assert [entry.kind for entry in ledger.entries()][-5:] == [
                "personal",
                "pooled",
                "everybody",
                "general",
                "end",
            ]
            found = ledger.last("everybody")
            bodies.append(json.dumps(dict(found.body) if found else None, sort_keys=True))
    assert bodies[0] == bodies[1]


def test_memory_counts_the_batches_of_a_lock_step(make_federation: Any) -> None:
    """Three participants in step hold three batches, however many more are asked for; alone each
    holds one.
    """
    one, three, many = (
        process_memory(config, resolve_algorithm(config), 3)
        for config in (
            load_federation(
                make_federation(
                    participants=3, folder=f"f{n}", kind="causal", train={"lockstep": n}
                )
            )
            for n in (1, 3, 9)
        )
    )
    assert three.activations == many.activations == 3 * one.activations
    assert three.logits == 3 * one.logits
    assert three.adapters_and_optimizer == 3 * one.adapters_and_optimizer
