"""One process of a team, as torchrun starts it: trains a participant's round and its personal model; the first one writes what came out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tequio.algorithms.catalogue import terms_by_name
from tequio.algorithms.local.products import still
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError
from tequio.core.types import TrainTask
from tequio.core.update import zero
from tequio.core.wire import TASKS, pack_message, unpack_message
from tequio.participant.loop import train
from tequio.participant.objective import Objective
from tequio.participant.personal import personalise
from tequio.participant.tasks import batches
from tequio.participant.team import Team, team
from tequio.recipes.config import load_federation
from tequio.recipes.wire import wire


def main(toml: str, batch_size: str, out: str) -> None:
    torch.set_num_threads(1)
    with team() as together:
        made(Path(toml), int(batch_size), Path(out), together)


def made(toml: Path, batch_size: int, out: Path, together: Team) -> None:
    w = wire(load_federation(toml))
    node = replace(w.nodes[1], batch_size=batch_size, together=together)
    task = TrainTask(1, 1, node.name, "product", 4, 5, 5e-3, 11, zero(w.plan.spec), None)
    data = pack_message(task) if together.rank == 0 else b""
    got = unpack_message(together.hand_on(data), "a task handed on", TASKS)
    assert isinstance(got, TrainTask)
    reply = node.train(got)
    assert reply.update is not None
    assert reply.energy is not None
    personal = personalise(node, reply.update, w.settings[node.name])
    refused = False
    parameters = w.bench.attach(2, 0)
    stream = batches(node.data.train, batch_size, 1)
    objective = Objective(terms_by_name({"fedprox": 0.1}), start=still(w.bench.moving()))
    try:
        train(w.bench, w.task, parameters, stream, [1e-3], node.name, None, objective, together)
    except ConfigError:
        refused = True
    assert together.hand_on() == b""
    if together.rank == 0:
        (out / f"{together.size}.update").write_bytes(pack(reply.update))
        (out / f"{together.size}.personal").write_bytes(pack(personal.delivered))
        facts = {"tokens": reply.tokens, "first": reply.metrics["loss_first"], "last": reply.metrics["loss_last"]}
        facts |= {"chosen": personal.body["chosen"], "test": personal.body["test"]["personal"]["loss"]}
        facts |= {"joules": reply.energy.joules, "refused": refused}
        (out / f"{together.size}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
