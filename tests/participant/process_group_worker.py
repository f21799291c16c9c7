"""One process of a team, as torchrun starts it: a participant's two rounds and its personal model;
the first one writes what came out.

Each writes how many frozen numbers it keeps.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from tequio.algorithms.local._products import still
from tequio.algorithms.registry import terms_by_name
from tequio.app.assembly.allocation import personal_settings
from tequio.app.assembly.context import build_model_context, build_node, read_splits
from tequio.config import load_federation, load_participant
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError, TequioError, UpdateError
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.reason import Reason
from tequio.core.types import EvaluateRequest, TrainRequest
from tequio.core.update import zero
from tequio.participant.loop import train
from tequio.participant.node import Node
from tequio.participant.objective import Objective
from tequio.participant.personal import personalise
from tequio.participant.process_group import ALONE, ProcessGroup, join_process_group
from tequio.participant.sharding import local
from tequio.participant.text_tasks import batches
from tequio.planning.allocation import Assignment


def main(toml: str, batch_size: str, out: str, shards: str) -> None:
    torch.set_num_threads(1)
    with join_process_group() as together:
        made(Path(toml), int(batch_size), Path(out), together, shards == "shards")
    together.end()


def made(toml: Path, batch_size: int, out: Path, together: ProcessGroup, shards: bool) -> None:
    config = load_federation(toml)
    entry = config.participants[0]
    file = load_participant(entry.file, entry.name)
    context = build_model_context(config, {entry.name: file}, together if shards else ALONE)
    node = build_node(context, file, read_splits(config, file), None)
    few = replace(context.task, batch_tokens=64)  # type: ignore[type-var]  # validation data in more batches than processes
    node = replace(node, batch_size=batch_size, together=together, task=few)
    task = TrainRequest(
        1, 1, node.name, "product", 4, 5, 5e-3, 11, zero(context.adapted.spec), None
    )
    data = pack_message(task) if together.rank == 0 else b""
    got = unpack_message(together.hand_on(data), "a task handed on", REQUESTS)
    assert isinstance(got, TrainRequest)
    first = node.train(got)
    assert first.update is not None
    reply = node.train(replace(got, round=2, held=first.update, seed=12))
    assert reply.update is not None
    assert reply.energy is not None
    shared = first.update.plus(reply.update)
    evaluated = node.evaluate(EvaluateRequest(2, 1, node.name, shared))
    personal = personalise(
        node,
        shared,
        personal_settings(
            config, len(node.data.train), node.name, Assignment(4, 5, None, Reason("as-asked"))
        ),
    )
    tag = f"{together.size}-{'shards' if shards else 'whole'}"
    retained = {id(p): local(p).numel() for p in context.adapted.model.parameters()}
    frozen = sum(retained.values()) + sum(
        0 if shards else layer.original.numel() for layer in context.adapted.layers.values()
    )
    numbers = {
        "frozen": frozen,
        "whole": context.adapted.base.parameters,
        "path": context.adapted.path.why,
    }
    (out / f"{tag}.{together.rank}.json").write_text(json.dumps(numbers))
    refused = [_refused(node, together), shards and _refused_whole(node)]
    assert together.hand_on() == b""
    if together.rank == 0:
        (out / f"{tag}.update").write_bytes(pack(shared))
        (out / f"{tag}.personal").write_bytes(pack(personal.delivered))
        facts: dict[str, object] = {
            "tokens": reply.tokens,
            "first": reply.metrics["loss_first"],
            "last": reply.metrics["loss_last"],
        }
        facts |= {
            "chosen": personal.body["chosen"],
            "test": personal.body["test"]["personal"]["loss"],
        }
        facts |= {
            "joules": reply.energy.joules,
            "refused": refused,
            "looked": evaluated.metrics["loss"],
        }
        (out / f"{tag}.json").write_text(json.dumps(facts))


def _refused(node: Node, together: ProcessGroup) -> bool:
    """Whether a local term is, which several processes cannot share."""
    parameters, stream = node.adapted.attach(2, 0), batches(node.data.train, node.batch_size, 1)
    objective = Objective(terms_by_name({"fedprox": 0.1}), start=still(node.adapted.moving()))
    return _raises(
        ConfigError,
        lambda: train(
            node.adapted,
            node.task,
            parameters,
            stream,
            [1e-3],
            node.name,
            None,
            objective,
            together,
        ),
    )


def _refused_whole(node: Node) -> bool:
    return _raises(UpdateError, node.adapted.attach_full)


def _raises(kind: type[TequioError], work: object) -> bool:
    assert callable(work)
    try:
        work()
    except kind:
        return True
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
