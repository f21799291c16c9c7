"""Tasks and replies as bytes: what crosses a network. One safetensors message: a JSON header with the plain fields, tensors for updates.

Reading fails closed: only the kinds that the reader allows, only the fields of that kind, each of its own type, no more bytes than
`limit`. Numbers come back to the bit. Nothing is ever unpickled.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    GradientRequest,
    PersonaliseRequest,
    Reply,
    TrainRequest,
)
from tequio.core.update import Update

FORMAT = "tequio-message-1"
KINDS: Mapping[str, type] = {
    "train": TrainRequest,
    "evaluate": EvaluateRequest,
    "gradient": GradientRequest,
    "describe": DescribeRequest,
    "personalise": PersonaliseRequest,
    "reply": Reply,
    "failure": Failure,
}
REPLIES = ("reply", "failure")
REQUESTS = tuple(kind for kind in KINDS if kind not in REPLIES)
BYTES_IN_PARTS = ("parts",)  # fields that are a sequence of bytes
LIMIT = 4 << 30  # bytes

Message = TrainRequest | EvaluateRequest | GradientRequest | DescribeRequest | PersonaliseRequest | Reply | Failure


def pack_message(message: Message) -> bytes:
    """Equal messages give equal bytes. Raises ValueError if a plain number is NaN or infinite."""
    kind = next(name for name, cls in KINDS.items() if isinstance(message, cls))
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Update):
            plain[field.name] = {"spec": value.spec}
            tensors |= {f"{field.name}/{name}": tensor for name, tensor in to_tensors(value).items()}
        elif isinstance(value, bytes):
            plain[field.name] = {"bytes": len(value)}
            tensors[field.name] = _octets(value)
        elif field.name in BYTES_IN_PARTS and value is not None:
            plain[field.name] = {"parts": len(value)}
            tensors |= {f"{field.name}/{i:08d}": _octets(part) for i, part in enumerate(value)}
        else:
            plain[field.name] = _plain(value)
    return pack_tensors(tensors, {"format": FORMAT, "kind": kind, "fields": plain})


def unpack_message(data: bytes, source: str, allowed: Collection[str], limit: int = LIMIT) -> Message:
    """The message in `data`. Raises UpdateError naming `source` for anything but a well-formed message of an allowed kind.

    Its bytes in parts lie in `data` itself where that could be written to (see `unpack_tensors`).
    """
    if len(data) > limit:
        raise UpdateError(f"{source} has {len(data)} bytes,", f"at most {limit} are allowed.")
    tensors, header = unpack_tensors(data, source)
    kind, given = str(header.get("kind")), header.get("fields")
    if header.get("format") != FORMAT or not isinstance(given, dict):
        found = f"It has format {str(header['format'])[:64]!r}" if header.get("format") else "It states no format"
        fix = "Both sides need the same version of Tequio: update the older one."
        raise UpdateError(f"{source} is not a Tequio message of this version.", f"{found}, expected {FORMAT!r}.", fix)
    if kind not in allowed or kind not in KINDS:
        raise UpdateError(f"{source} is of kind {kind!r},", f"allowed here: {', '.join(sorted(allowed))}.")
    cls = KINDS[kind]
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls)}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if given.keys() - known.keys() or required - given.keys():
        odd = sorted((given.keys() - known.keys()) | (required - given.keys()))
        raise UpdateError(f"{source}: field {odd[0]!r} is unknown or missing.", "Both sides need the same version.")
    return cls(**{n: _read(v, hints[n], n, tensors, source) for n, v in given.items()})  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _read(value: Any, hint: Any, name: str, tensors: Mapping[str, Tensor], source: str) -> Any:
    """`value` as what `hint` says, tensors filled in."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    hint = next(option for option in options if option is not type(None))
    if hint is Update:
        spec = _value(value.get("spec") if isinstance(value, dict) else None, str, name, source)
        mine = {n.removeprefix(f"{name}/"): t for n, t in tensors.items() if n.startswith(f"{name}/")}
        return from_tensors(mine, spec, source)
    if hint is bytes:
        return _bytes(tensors, name, source)
    if name in BYTES_IN_PARTS:
        names = sorted(n for n in tensors if n.startswith(f"{name}/"))
        return [_octets_of(tensors, n, source).data for n in names]
    return _value(value, hint, name, source)


def _octets(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _bytes(tensors: Mapping[str, Tensor], name: str, source: str) -> bytes:
    return bytes(_octets_of(tensors, name, source).tobytes())


def _octets_of(tensors: Mapping[str, Tensor], name: str, source: str) -> Any:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise UpdateError(f"{source}: field {name!r} lacks its bytes.")
    return tensor.numpy()


def _value(value: Any, hint: Any, name: str, source: str) -> Any:
    """`value` if it is of the type `hint`: a number, text, a literal, a mapping of names, a tuple or a dataclass of these."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal and value in parts:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_value(item, parts[0], name, source) for item in value)
    if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        if isinstance(value, dict):
            return {key: _value(item, parts[1], name, source) for key, item in value.items()}
    elif is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        inner = get_type_hints(hint)
        if value.keys() == inner.keys():
            return hint(**{key: _read(value[key], inner[key], f"{name}.{key}", {}, source) for key in inner})
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise UpdateError(f"{source}: field {name!r} is not of its type.", "Both sides need the same version.")
