"""Canonical bytes: the one way a value or an update is written down, hashed and read back.

JSON: sorted keys, no spaces, UTF-8, no NaN (the part of RFC 8785 that our records use).
Updates: safetensors, float32, names `module#a`, `module#b` (Factored) or `module` (Dense); never
pickle.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Entry, Factored, Update

FORMAT = "tequio-update-1"
META_KEY = "tequio"
DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
    torch.int8: "I8",
}
DTYPES |= {
    torch.float64: "F64",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.bool: "BOOL",
}
TYPES = {name: dtype for dtype, name in DTYPES.items()}
MOST_DIMENSIONS, LONGEST_DIMENSION = 8, 1 << 48
Shape = tuple[torch.dtype, tuple[int, ...]]


def canonical_json(value: Any) -> bytes:
    """The bytes of `value` as canonical JSON. Raises ValueError on NaN or infinity."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def digest(data: bytes) -> str:
    """SHA-256 of `data`, 64 hexadecimal characters."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return digest(canonical_json(value))


def to_tensors(update: Update) -> dict[str, Tensor]:
    """Flat named tensors of an update, float32 and contiguous."""
    flat: dict[str, Tensor] = {}
    for name, entry in update.entries.items():
        if isinstance(entry, Factored):
            flat[f"{name}#a"] = entry.a.contiguous()
            flat[f"{name}#b"] = entry.b.contiguous()
        else:
            flat[name] = entry.value.contiguous()
    return flat


def from_tensors(flat: Mapping[str, Tensor], spec: str, source: str = "update") -> Update:
    """The inverse of `to_tensors`.

    Raises UpdateError naming `source` and the tensor that does not fit.
    """
    entries: dict[str, Entry] = {}
    for key in sorted(flat):
        if flat[key].dtype != torch.float32:
            found = str(flat[key].dtype).removeprefix("torch.")
            raise refusal(UpdateError, "tensor-not-float32", source=source, tensor=key, found=found)
        partner = key[:-1] + ("b" if key.endswith("a") else "a")
        if not key.endswith(("#a", "#b")):
            entries[key] = Dense(flat[key])
        elif partner not in flat:
            raise refusal(UpdateError, "factor-missing", source=source, tensor=key, partner=partner)
        elif key.endswith("#a"):
            entries[key[:-2]] = Factored(b=flat[partner], a=flat[key])
    return Update(entries, spec)


def pack(update: Update) -> bytes:
    """An update as safetensors bytes; equal updates give equal bytes."""
    return pack_tensors(to_tensors(update), {"format": FORMAT, "spec": update.spec})


def packed_update_size(update: Update) -> int:
    """len(pack(update)), without packing it."""
    shapes: dict[str, Shape] = {}
    for name, entry in update.entries.items():
        parts = (
            {f"{name}#a": entry.a, f"{name}#b": entry.b}
            if isinstance(entry, Factored)
            else {name: entry.value}
        )
        shapes |= {key: (part.dtype, tuple(part.shape)) for key, part in parts.items()}
    return packed_size(shapes, {"format": FORMAT, "spec": update.spec})


def unpack(data: bytes, source: str = "update") -> Update:
    """Read `pack`'s bytes.

    Raises UpdateError, naming `source`, on anything that is not such an update.
    """
    flat, meta = unpack_tensors(data, source)
    if meta.get("format") != FORMAT:
        raise refusal(UpdateError, "not-an-update", source=source, format=FORMAT)
    return from_tensors(flat, str(meta.get("spec", "")), source)


def pack_tensors(flat: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Tensors and one JSON value as safetensors bytes, in one copy: the library's own writer makes
    three, and refuses aliases.

    All metadata go under one key: safetensors keeps several in a hash map, whose order differs from
    process to process.
    """
    names, text, _ = _header(
        {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in flat.items()}, meta
    )
    tensors = (flat[name].detach().cpu().contiguous() for name in names)
    parts: list[Any] = [tensor.reshape(-1).view(torch.uint8).numpy() for tensor in tensors]
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def packed_size(shapes: Mapping[str, Shape], meta: Mapping[str, Any]) -> int:
    """How many bytes `pack_tensors` writes for tensors of these types and shapes."""
    _, text, end = _header(shapes, meta)
    return 8 + len(text) + end


def _header(shapes: Mapping[str, Shape], meta: Mapping[str, Any]) -> tuple[list[str], bytes, int]:
    """(names in the order of the tensors, the header, bytes of all tensors)."""
    names = sorted(
        shapes, key=lambda name: (-shapes[name][0].itemsize, name)
    )  # the widest first, so that all are aligned
    header: dict[str, Any] = {"__metadata__": {META_KEY: canonical_json(meta).decode()}}
    end = 0
    for name in names:
        dtype, shape = shapes[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return names, text + b" " * (-len(text) % 8), end


def unpack_tensors(
    data: bytes, source: str, header_limit: int = 1 << 40
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The inverse of `pack_tensors`. Raises UpdateError naming `source`.

    header_limit: bytes of its header, which is JSON and takes up to 30 times as many when it is
        read.
    Octets lie in `data` itself if it is a buffer that could be written to (which nobody may do
    then); all else is copied once.
    """
    try:
        header_length = int.from_bytes(data[:8], "little")
        if header_length > min(len(data) - 8, header_limit):
            raise ValueError("header longer than the file")
        header = json.loads(bytes(data[8 : 8 + header_length]))
        meta = json.loads(header.pop("__metadata__", {}).get(META_KEY, "{}"))
        return _laid_out(data, 8 + header_length, header), dict(meta)
    except Exception as error:  # whatever is wrong with it
        raise refusal(
            UpdateError, "not-safetensors", source=source, error=type(error).__name__
        ) from None


def _laid_out(data: bytes, first: int, header: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors by name: one after another from byte `first` to the end, without holes.

    Raises ValueError, KeyError or TypeError.
    """
    whole, fixed = np.frombuffer(data, np.uint8), memoryview(data).readonly
    found: dict[str, Tensor] = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        start, dtype, shape = end, TYPES[entry["dtype"]], list(entry["shape"])
        if len(shape) > MOST_DIMENSIONS or any(
            type(n) is not int or not 0 <= n <= LONGEST_DIMENSION for n in shape
        ):
            raise ValueError(f"{name} has no such shape")
        count = math.prod(shape)
        end = start + count * dtype.itemsize
        if entry["data_offsets"] != [start, end]:
            raise ValueError(f"{name} does not lie where it should")
        if (first + start) % dtype.itemsize:
            raise ValueError(f"{name} is not aligned")
        octets = whole[first + start : first + end]
        if dtype == torch.uint8 and not fixed:
            found[name] = torch.from_numpy(octets).reshape(shape)
            continue
        # copied once, to where kernels expect numbers: at another alignment sums are rounded
        # otherwise
        found[name] = torch.empty(count, dtype=dtype)
        found[name].view(torch.uint8).numpy()[:] = octets
        found[name] = found[name].reshape(shape)
    if first + end != len(data):
        raise ValueError("it is longer or shorter than its tensors")
    return found


def digest_update(update: Update) -> str:
    """SHA-256 over names, shapes and float32 bytes in name order; independent of the file
    format.
    """
    sha = hashlib.sha256(update.spec.encode())
    flat = to_tensors(update)
    for name in sorted(flat):
        tensor = flat[name]
        sha.update(canonical_json([name, list(tensor.shape)]))
        sha.update(tensor.cpu().numpy().tobytes())
    return sha.hexdigest()
