"""Hostile replies: ways in which one enrolled participant may answer a request, as bytes.

For tests and for `soak_messages`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tequio.core.canonical import META_KEY
from tequio.core.messages import pack_message
from tequio.core.types import DescribeRequest, Failure, Reply, Request
from tequio.core.update import Dense, Factored, Update

Stage = Literal["describe", "train", "evaluate", "personal"]
Alter = Callable[[Reply], bytes]
HUGE = 10**400
HALF = "half \ud800"  # half a character
LONG = "words " * 200_000
NAN, INFINITE = float("nan"), float("inf")


@dataclass(frozen=True)
class Raw:
    """JSON as it is written, in place of a value."""

    text: str


DEEP, DEEPER = Raw("[" * 200 + "]" * 200), Raw("[" * 100_000 + "]" * 100_000)


@dataclass(frozen=True)
class Mode:
    """One way: which request is answered so, and how; the participant is honest otherwise."""

    name: str
    stage: Stage
    alter: Alter


def written(value: Any) -> str:
    """JSON with everything that JSON does not allow: NaN, halves of characters, `Raw` texts."""
    raws: list[str] = []

    def plain(item: Any) -> Any:
        if isinstance(item, Raw):
            raws.append(item.text)
            return f"@raw{len(raws) - 1}@"
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        return [plain(inner) for inner in item] if isinstance(item, list) else item

    text = json.dumps(plain(value))
    for number, raw in enumerate(raws):
        text = text.replace(f'"@raw{number}@"', raw)
    return text


def rewrite(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A message whose header is another; `change` gets its fields, kind and format."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    meta = json.loads(header["__metadata__"][META_KEY])
    change(meta)
    header["__metadata__"] = {META_KEY: written(meta)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def put(table: dict[str, Any], path: str, value: Any) -> None:
    """Set what lies at `a.b.c`; tables that are missing are made.

    A dash before the path takes it away.
    """
    *way, last = path.lstrip("-").split(".")
    for step in way:
        table = table.setdefault(step, {}) if isinstance(table.get(step, {}), dict) else {}
    if path.startswith("-"):
        table.pop(last, None)
    else:
        table[last] = value


def field(path: str, value: Any = None) -> Alter:
    """A field of the reply is another."""
    return lambda reply: rewrite(pack_message(reply), lambda meta: put(meta["fields"], path, value))


def head(path: str, value: Any = None) -> Alter:
    """The header is another beside its fields."""
    return lambda reply: rewrite(pack_message(reply), lambda meta: put(meta, path, value))


def body(path: str, value: Any = None) -> Alter:
    """A key of the body, which is JSON itself, is another."""

    def alter(reply: Reply) -> bytes:
        table = json.loads(reply.body)
        put(table, path, value)
        return field("body", written(table))(reply)

    return alter


def whole_body(text: str) -> Alter:
    """The body is another."""
    return field("body", text)


def failure(**changes: Any) -> Alter:
    """A failure in place of the reply, with fields of its own."""

    def alter(reply: Reply) -> bytes:
        data = pack_message(
            Failure(reply.round, reply.index, reply.name, "TrainingError", "it cannot")
        )
        return rewrite(data, lambda meta: meta["fields"].update(changes))

    return alter


def update(change: Callable[[Update], Update]) -> Alter:
    """The update is another."""

    def alter(reply: Reply) -> bytes:
        assert reply.update is not None
        return pack_message(replace(reply, update=change(reply.update)))

    return alter


def entry(change: Callable[[Any], Any]) -> Alter:
    """Each entry of the update is another."""
    return update(lambda u: Update({name: change(one) for name, one in u.entries.items()}, u.spec))


def filled(value: float) -> Alter:
    """Each number of the update is this one."""

    def change(one: Any) -> Any:
        if isinstance(one, Factored):
            return Factored(torch.full_like(one.b, value), torch.full_like(one.a, value))
        return Dense(torch.full_like(one.value, value))

    return entry(change)


def renamed(name: str) -> Alter:
    """A tensor of the update has this name."""

    def alter(reply: Reply) -> bytes:
        data = pack_message(reply)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        first = next(key for key in header if key.startswith("update/"))
        header[f"update/{name}"] = header.pop(first)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return alter


def bytes_of(change: Callable[[bytes], bytes]) -> Alter:
    """The bytes of the reply are others."""
    return lambda reply: change(pack_message(reply))


def widened(one: Any) -> Any:
    """An entry of ten times the rank."""
    if isinstance(one, Factored):
        return Factored(one.b.repeat(1, 10), one.a.repeat(10, 1))
    return one


def noise(count: int) -> bytes:
    """Random bytes, always the same."""
    return random.Random(count).randbytes(count)


def _modes() -> dict[Stage, dict[str, Alter]]:
    figures: dict[str, Alter] = {
        "joules-negative": field("energy.joules", -1e15),
        "joules-nan": field("energy.joules", NAN),
        "joules-overflow": field("energy.joules", HUGE),
        "joules-too-many-watts": field("energy.joules", 1e11),
        "seconds-negative": field("energy.seconds", -1.0),
        "seconds-a-year": field("energy.seconds", 3.2e7),
        "energy-a-list": field("energy", [1, 2]),
        "energy-without-joules": field("-energy.joules"),
        "energy-unknown-key": field("energy.watts", 3.0),
        "intensity-negative": field("energy.intensity", -5.0),
        "pue-zero": field("energy.pue", 0.0),
        "began-half": field("energy.began", HALF),
        "method-long": field("energy.method", LONG),
        "money-odd": field("money", {"amount": -1e9, "currency": "EUR"}),
        "money-infinite": field("money", {"amount": INFINITE, "currency": "EUR"}),
        "money-markup": field("money", {"amount": 1.0, "currency": "<b>"}),
        "note-half": field("note", HALF),
        "note-long": field("note", LONG),
        "unknown-field": field("colour", "red"),
        "missing-field": field("-round"),
    }
    shape: dict[str, Alter] = {
        "nothing": bytes_of(lambda data: b""),
        "noise": bytes_of(lambda data: noise(4096)),
        "cut-off": bytes_of(lambda data: data[: len(data) // 2]),
        "longer": bytes_of(lambda data: data + b"more"),
        "header-too-long": bytes_of(lambda data: (2**62).to_bytes(8, "little") + data[8:]),
        "header-deep": head("fields", DEEPER),
        "fields-a-list": head("fields", [1]),
        "other-format": head("format", HALF),
        "other-kind": head("kind", "describe"),
        "other-round": field("round", 99),
        "other-name": field("name", "site0"),
        "name-half": field("name", HALF),
        "round-huge": field("round", HUGE),
        "steps-text": field("steps", "7"),
        "steps-truth": field("steps", True),
    }
    return {
        "evaluate": {
            "noloss": field("metrics", {}),
            "loss-nan": field("metrics.loss", NAN),
            "loss-infinite": field("metrics.loss", Raw("1e999")),
            "loss-minus-infinite": field("metrics.loss", Raw("-1e999")),
            "loss-negative": field("metrics.loss", -1e300),
            "loss-below-zero": field("metrics.loss", -0.5),
            "loss-enormous": field("metrics.loss", 1e7),
            "loss-huge-integer": field("metrics.loss", HUGE),
            "loss-text": field("metrics.loss", "low"),
            "loss-truth": field("metrics.loss", True),
            "loss-null": field("metrics.loss", None),
            "loss-deep": field("metrics.loss", DEEP),
            "metrics-a-list": field("metrics", [0.5]),
            "metrics-unknown": field("metrics.colour", 1.0),
            "accuracy-above-one": field("metrics.accuracy", 2.0),
            "accuracy-text": field("metrics.accuracy", "all"),
            "examples-huge": field("examples", HUGE),
            "examples-negative": field("examples", -1),
            "examples-beyond": field("examples", 10_000),
            "slices": field("slices", {"public": [0.0, 0.0]}),
            "body": field("body", "{}"),
            **figures,
        },
        "train": {
            "examples-beyond": field("examples", 10_000),
            "examples-none": field("examples", 0),
            "examples-huge": field("examples", HUGE),
            "steps-beyond": field("steps", 400),
            "steps-none": field("steps", 0),
            "tokens-negative": field("tokens", -5),
            "tokens-beyond": field("tokens", 2**60),
            "metrics-missing": field("metrics", {}),
            "metrics-nan": field("metrics.loss_last", NAN),
            "no-update": lambda reply: pack_message(replace(reply, update=None)),
            "two-updates": lambda reply: pack_message(replace(reply, payload=b"other")),
            "payload-noise": lambda reply: pack_message(
                replace(reply, update=None, payload=noise(999))
            ),
            "parts-noise": lambda reply: pack_message(
                replace(reply, update=None, parts=[noise(99), b""])
            ),
            "parts-lost": lambda reply: rewrite(
                pack_message(replace(reply, update=None, parts=[noise(99)])),
                lambda meta: put(meta["fields"], "parts", {"parts": 7}),
            ),
            "update-nan": filled(NAN),
            "update-infinite": filled(INFINITE),
            "update-zero": filled(0.0),
            "update-wide": entry(widened),
            "update-empty": update(lambda u: Update({}, u.spec)),
            "update-other-spec": update(lambda u: Update(u.entries, "another")),
            "update-other-name": renamed("another#a"),
            "update-half-name": renamed(HALF),
            "update-long-name": renamed("n" * 100_000),
            "update-other-shape": entry(lambda one: Dense(torch.ones(3, 3))),
            "update-a-text": field("update", "none"),
            "failure-long": failure(message=LONG),
            "failure-half": failure(message=HALF),
            "failure-odd-name": failure(error="<script>"),
            "failure-long-name": failure(error=LONG),
            "failure-number": failure(message=7),
            "failure-unknown-field": failure(colour="red"),
            **shape,
        },
        "describe": {
            "nan": body("told.mean_tokens", NAN),
            "infinite": body("told.mean_tokens", Raw("1e999")),
            "deep": whole_body("[" * 100_000 + "]" * 100_000),
            "empty": whole_body(""),
            "table": whole_body("{}"),
            "list": whole_body("[1]"),
            "long": whole_body(json.dumps({"spec": LONG})),
            "batches-none": body("told.batches.train", 0),
            "batches-negative": body("told.batches.test", -4),
            "batches-huge": body("told.batches.train", HUGE),
            "batches-text": body("told.batches.train", "40"),
            "hardware-unknown": body("told.hardware.cooling", "water"),
            "hardware-half": body("told.hardware.device", HALF),
            "data-a-text": body("told.data", "none"),
            "data-unknown": body("told.data.colour", "red"),
            "rows-nan": body("told.data.rows", NAN),
            "speed-negative": body("told.speed", -1.0),
            "spec-number": body("spec", 7),
            "commitment-half": body("commitment", HALF),
            "unknown-key": body("colour", "red"),
            "failure": failure(),
            "failure-long": failure(message=LONG),
        },
        "personal": {
            "empty": whole_body("{}"),
            "nothing": whole_body(""),
            "list": whole_body("[1]"),
            "cut-off": whole_body("[1"),
            "deep": whole_body("[" * 100_000 + "]" * 100_000),
            "nan": body("benefit", NAN),
            "huge-integer": body("test.base.examples", HUGE),
            "chosen-missing": body("-chosen"),
            "chosen-number": body("chosen", 3),
            "chosen-none-of-them": body("chosen", "another"),
            "candidates-none": body("candidates", {}),
            "candidates-negative": body("candidates.base.loss", -7.0),
            "candidates-many": body(
                "candidates", {str(i): {"loss": 1.0, "examples": 3} for i in range(999)}
            ),
            "test-beyond": body("test.personal.examples", 10_000),
            "test-missing": body("-test.local"),
            "test-general-null": body("test.general", None),
            "general-null": body("general", None),
            "general-beyond": body("general", {"share": 2.0}),
            "accuracy-above-one": body("test.personal.accuracy", 1.5),
            "benefit-above-one": body("benefit", 5.0),
            "gains-missing": body("-gains"),
            "gains-a-text": body("gains", "many"),
            "gains-interval": body("gains.personal_over_local.loss", {"mean": 1.0}),
            "energy-null": body("energy", None),
            "joules-negative": body("energy.joules", -1e15),
            "money-negative": body("money", {"amount": -1e9, "currency": "EUR"}),
            "money-without-currency": body("money", {"amount": 1.0}),
            "seconds-negative": body("seconds", -1.0),
            "fits-a-list": body("fits", [1, 2]),
            "local-cost": body("local_cost", {"energy": 3}),
            "classes-wrong": body("classes", {"support": "all"}),
            "cut-long": body("cut", LONG),
            "cut-half": body("cut", HALF),
            "digest-path": body("digest", "../../../etc/passwd"),
            "alone": body("alone", True),
            "file": body("file", "../../elsewhere"),
            "version-newer": body("record_version", 99_999),
            "unknown-key": body("colour", "red"),
            "failure-half": failure(message=HALF),
        },
    }


MODES = tuple(
    Mode(f"{stage}-{name}", stage, alter)
    for stage, found in _modes().items()
    for name, alter in found.items()
)


def stage_of(task: Request) -> Stage:
    """Which stage a request belongs to."""
    names: dict[str, Stage] = {
        "TrainRequest": "train",
        "EvaluateRequest": "evaluate",
        "PersonaliseRequest": "personal",
    }
    return "describe" if isinstance(task, DescribeRequest) else names[type(task).__name__]
