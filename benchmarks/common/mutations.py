"""Messages, damaged in every way that a seed gives: bytes, fields, values, bodies."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.common.hostile import DEEP, DEEPER, HALF, HUGE, LONG, Raw, put, rewrite, written

VALUES: Sequence[Any] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**53,
        2**53 + 1,
        -(2**63),
        HUGE,
        -HUGE,
        0.5,
        -1e300,
        1e308,
        5e-324,
    ),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        Raw("1e999"),
        Raw("-0"),
        DEEP,
        DEEPER,
        HALF,
        LONG,
        "",
        "7",
    ),
    *("\0", "‮", [], {}, [[]], {"": {}}, {"spec": 3}, {"bytes": 2**62}, {"parts": -1}, [None] * 999),
)


def places(value: Any, way: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted path of each key of nested tables."""
    if isinstance(value, dict):
        for key, item in value.items():
            if "." not in key:
                yield ".".join((*way, key))
                yield from places(item, (*way, key))


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The message with one to three things about it changed."""
    for _ in range(rng.randint(1, 3)):
        data = _once(data, rng)
    return data


def _once(data: bytes, rng: random.Random) -> bytes:
    try:
        return rng.choice((_bytes, _bytes, _field, _field, _field, _body, _body))(data, rng)
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        OverflowError,
    ):  # an earlier change left no message
        return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes are flipped, cut, repeated or put in, most of them in the header."""
    out = bytearray(data or b"\0")
    at = rng.randrange(min(len(out), 2000) if rng.random() < 0.8 else len(out))
    kind = rng.randrange(5)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del out[at : at + rng.randrange(1, 64)]
    elif kind == 2:
        out[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif kind == 3:
        out[at:at] = out[at : at + 32] * rng.randrange(1, 9)
    else:
        out[:8] = rng.choice((0, 1, 2**31, 2**62, 2**64 - 1)).to_bytes(8, "little")
    return bytes(out)


def _field(data: bytes, rng: random.Random) -> bytes:
    """A value of the header is another, is gone, or is added."""

    def change(meta: Any) -> None:
        where = rng.choice([*places(meta), "fields.colour", "colour"])
        put(meta, f"-{where}" if rng.random() < 0.15 else where, rng.choice(VALUES))

    return rewrite(data, change)


def _body(data: bytes, rng: random.Random) -> bytes:
    """A value of the body, which is JSON itself, is another, is gone, or is added."""

    def change(meta: Any) -> None:
        table = json.loads(meta["fields"]["body"])
        where = rng.choice([*places(table), "colour"])
        put(table, f"-{where}" if rng.random() < 0.15 else where, rng.choice(VALUES))
        meta["fields"]["body"] = written(table)

    return rewrite(data, change)
