"""What is said of lock-step is what the tasks of a first round do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from builders import build_setup
from tequio.app.assembly.setup import RunSetup
from tequio.app.simulation.explain_speed import alone_for
from tequio.coordinator.round import open_state, training_tasks
from tequio.core.types import TrainRequest
from tequio.participant.lockstep import alike
from tequio.participant.text_tasks import Classification
from tequio.runtimes.embedded import Embedded


def go_together(setup: RunSetup) -> bool:
    """Whether two neighbours on the roster make their first training together."""
    state, _ = open_state(setup.run_spec, Embedded(setup.nodes))
    tasks = list(training_tasks(state, setup.run_spec, setup.run_spec.members))
    one, two = (task for task in tasks if isinstance(task, TrainRequest))
    return alike(setup.nodes[one.index], one, two) and alike(setup.nodes[two.index], two, one)


@pytest.mark.parametrize(
    ("keys", "own", "why"),
    [
        ({}, "", ""),
        ({"local": {"terms": {"fedprox": 0.1}}}, "", "[local] adds"),
        ({"adapter": {"kind": "full"}}, "", "whole weights"),
        ({}, "\n[budget]\nkwh = 1.0\n", "budgets are kept"),
        ({"task": {"max_tokens": 600}}, "", "over 512"),
        ({"train": {"max_steps": 7}}, "", "same number of steps"),
    ],
)
def test_why_participants_train_alone(
    make_federation: Any, keys: dict[str, Any], own: str, why: str
) -> None:
    longest = keys.get("task", {}).get("max_tokens")
    path = make_federation(centre=False, **({} if longest else keys))
    for file in path.parent.rglob("*.toml"):
        text = file.read_text() + (own if file.name == "site0.toml" else "")
        file.write_text(re.sub(r"max_rank = \d+\n", "", text) if "whole" in why else text)
    setup = build_setup(path)
    if longest:  # more than the test's base takes
        task = setup.config.task.model_copy(update={"max_tokens": longest})
        assert isinstance(setup.task, Classification)
        words = replace(setup.task, max_tokens=longest)
        nodes = {i: replace(node, task=words) for i, node in setup.nodes.items()}
        setup = replace(setup, config=setup.config.model_copy(update={"task": task}), nodes=nodes)
    if "steps" in why:
        first, *rest = setup.run_spec.members
        setup = replace(
            setup,
            run_spec=replace(
                setup.run_spec, members=(replace(first, steps=first.steps + 1), *rest)
            ),
        )
    said = alone_for(setup)
    assert why in said
    assert go_together(setup) == (said == "")
