"""No bytes, however hostile, get past a decoder as anything but a finite update."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from codec_rows import EVERY, ROWS, SOURCE, small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from builders import refused
from tequio.algorithms.compress._bits import as_tensor, rice_encode
from tequio.algorithms.compress._halves import from_planes, to_planes
from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.registry import COMPRESS
from tequio.core.canonical import pack_tensors, unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.update import zero

LIMIT = 1 << 16  # small() is 5 kB


def opened(codec: Codec) -> tuple[dict[str, Tensor], dict[str, Any]]:
    data = codec.encode(small(), 0)
    return unpack_tensors(data if codec.name == "plain" else zstandard.decompress(data), "own")


def closed(codec: Codec, tensors: dict[str, Tensor], meta: Any) -> bytes:
    raw = pack_tensors(tensors, meta)
    return raw if codec.name == "plain" else zstandard.compress(raw)


def finite_or_refused(codec: Codec, data: bytes) -> None:
    """Anything else (another exception, NaN, more memory than the limit) fails the test."""
    caught = ""
    update = zero("")
    try:
        update = codec.decode(data, SOURCE, LIMIT)
    except UpdateError as error:
        caught = str(error)
    assert not caught or SOURCE in caught
    assert update.is_finite()
    assert update.nbytes() <= LIMIT


FUZZ = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@EVERY
@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(row: str, data: bytes) -> None:
    with pytest.raises(UpdateError, match=SOURCE):
        ROWS[row].make().decode(data, SOURCE)


@EVERY
@FUZZ
@given(
    spots=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    inside=st.booleans(),
)
def test_changed_bytes_decode_to_something_finite_or_are_refused(
    row: str, spots: list[tuple[float, int]], inside: bool
) -> None:
    codec = ROWS[row].make()
    data = codec.encode(small(), 0)
    inside = inside and codec.name != "plain"
    changed = bytearray(zstandard.decompress(data) if inside else data)
    for place, byte in spots:
        changed[int(place * (len(changed) - 1))] = byte
    finite_or_refused(codec, zstandard.compress(bytes(changed)) if inside else bytes(changed))


@EVERY
@FUZZ
@given(share=st.floats(0, 0.999), inside=st.booleans())
def test_cut_bytes_are_refused(row: str, share: float, inside: bool) -> None:
    codec = ROWS[row].make()
    data = codec.encode(small(), 0)
    if inside and codec.name != "plain":
        raw = zstandard.decompress(data)
        data = zstandard.compress(raw[: int(share * len(raw))])
    else:
        data = data[: int(share * len(data))]
    with pytest.raises(UpdateError, match=SOURCE):
        codec.decode(data, SOURCE)


@EVERY
@FUZZ
@given(pick=st.floats(0, 0.999), value=JSON)
def test_strange_numbers_in_the_manifest(row: str, pick: float, value: Any) -> None:
    codec = ROWS[row].make()
    tensors, meta = opened(codec)
    spots: list[tuple[Any, Any]] = [(meta, key) for key in meta]
    for entry in meta.get("entries", []):
        spots += [(entry, index) for index in range(len(entry))]
    place, key = spots[int(pick * len(spots))]
    place[key] = value
    finite_or_refused(codec, closed(codec, tensors, meta))


@EVERY
@FUZZ
@given(
    pick=st.floats(0, 0.999),
    size=st.integers(0, 300),
    fill=st.integers(0, 255),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float16, torch.int64]),
)
def test_strange_tensors(row: str, pick: float, size: int, fill: int, dtype: torch.dtype) -> None:
    codec = ROWS[row].make()
    tensors, meta = opened(codec)
    name = sorted(tensors)[int(pick * len(tensors))]
    same = tensors[name].numel() if size % 2 else size
    tensors[name] = torch.full((same,), fill, dtype=dtype)
    finite_or_refused(codec, closed(codec, tensors, meta))


def tampered(name: str, **change: Any) -> tuple[Codec, bytes]:
    codec = COMPRESS[name]()
    tensors, meta = opened(codec)
    for key, value in change.items():
        (tensors if isinstance(value, Tensor) else meta)[key] = value
    return codec, closed(codec, tensors, meta)


NAN, MINUS = torch.tensor([math.nan]).half(), torch.tensor([-1.0]).half()


@pytest.mark.parametrize("bad", [NAN, MINUS], ids=["nan", "negative"])
@pytest.mark.parametrize("name", ["quantise", "eden", "topk"])
def test_a_scale_that_is_none_is_refused(name: str, bad: Tensor) -> None:
    tensors, _ = opened(COMPRESS[name]())
    scales = from_planes(tensors["scales"]).clone()
    scales[0] = bad[0]
    codec, data = tampered(name, scales=to_planes(scales))
    with refused(UpdateError, "coded-update-damaged", source=SOURCE, part="scales"):
        codec.decode(data, SOURCE)


@pytest.mark.parametrize("name", ["half", "quantise", "eden", "topk"])
def test_absurd_shapes_are_refused_before_they_are_made(name: str) -> None:
    """10^6 × 10^6 numbers would be 4 TB."""
    codec, data = tampered(name, entries=[["m", "d", 10**6, 10**6]])
    with refused(UpdateError, "coded-update-damaged", source=SOURCE, part="size"):
        codec.decode(data, SOURCE)


def test_positions_behind_the_end_are_refused() -> None:
    """small() shrunk to one entry of 16 × 16; the positions of the 11 that were kept go to over
    1,000.
    """
    _, meta = opened(COMPRESS["topk"]())
    assert meta["count"] == 13
    codec, data = tampered("topk", entries=[["m", "d", 16, 16]])
    with pytest.raises(UpdateError, match=SOURCE):
        codec.decode(data, SOURCE)
    positions = np.array([255, 256])  # the second one is just outside
    unary, low, width = rice_encode(positions)
    tensors = {
        "unary": as_tensor(unary),
        "low": as_tensor(low),
        "values": torch.zeros(1, dtype=torch.uint8),
        "scales": torch.zeros(4, dtype=torch.uint8),
    }
    numbers = {"exponent": 0, "count": 2, "width": width}
    for size, fits in ((16, False), (17, True)):
        head = {
            "format": "tequio-code-1",
            "codec": "topk/2",
            "spec": "",
            "entries": [["m", "d", size, 16]],
            **numbers,
        }
        data = closed(codec, tensors, head)
        if fits:
            assert codec.decode(data, SOURCE).entries["m"].shape == (17, 16)
        else:
            with refused(UpdateError, "coded-update-damaged", part="positions"):
                codec.decode(data, SOURCE)


def test_a_bomb_does_not_go_off() -> None:
    """64 MB of zeros in 6 kB: the frame says its size, and the decoder its limit.

    A frame that does not say it is refused.
    """
    codec = COMPRESS["quantise"]()
    bomb = zstandard.compress(bytes(1 << 26))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 50)
    for data in (bomb, silent):
        with refused(UpdateError, "coded-update-damaged", source=SOURCE, part="size"):
            codec.decode(data, SOURCE, limit=1 << 20)


def test_a_huge_list_of_tensors_is_not_read() -> None:
    """9 MB of header: JSON would need many times that."""
    raw = (9 << 20).to_bytes(8, "little") + b"[" * (9 << 20)
    with refused(UpdateError, "coded-update-damaged", source=SOURCE, part="size"):
        COMPRESS["plain"]().decode(raw, SOURCE)
    with refused(UpdateError, "coded-update-damaged", source=SOURCE, part="size"):
        COMPRESS["half"]().decode(zstandard.compress(raw), SOURCE)


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ([["m", "d", 16, 16], ["m", "d", 16, 16]], "order"),
        ([["n", "d", 16, 16], ["m", "d", 16, 16]], "order"),
        ([["m", "d", True, 16]], "shape"),
        ([["m", "d", -1, 16]], "shape"),
        ([["m", "d", *[1] * 9]], "shape"),
        ([["m", "f", 16, 16]], "shape"),
        ([["m", "z", 16, 16]], "name"),
        ([["m\ud800", "d", 16, 16]], "name"),
        ([["m" * 513, "d", 16, 16]], "name"),
        ([[]], "manifest"),
        ([["m", "d", 16, 17]], "tensors"),
    ],
)
def test_each_lie_of_a_manifest_is_named(entries: list[Any], part: str) -> None:
    codec = COMPRESS["half"]()
    meta = {
        "format": "tequio-code-1",
        "codec": "half/fp16",
        "spec": "",
        "exponent": 0,
        "entries": entries,
    }
    own = {"values": {"dtype": "U8", "shape": [512], "data_offsets": [0, 512]}}
    header = json.dumps(
        {"__metadata__": {"tequio": json.dumps(meta)}, **own}
    ).encode()  # ASCII: any name can be written
    data = zstandard.compress(len(header).to_bytes(8, "little") + header + bytes(512))
    with refused(UpdateError, "coded-update-damaged", source=SOURCE, part=part):
        codec.decode(data, SOURCE)


@EVERY
def test_the_wrong_codec_or_trailing_bytes_are_refused(row: str) -> None:
    codec = ROWS[row].make()
    data = codec.encode(small(), 0)
    other: Codec = COMPRESS["topk" if codec.name == "eden" else "eden"]()
    with pytest.raises(UpdateError, match=SOURCE):
        other.decode(data, SOURCE)
    with pytest.raises(UpdateError, match=SOURCE):
        codec.decode(data + b"\0", SOURCE)
