"""Tasks and replies as bytes, for a network: safetensors with a JSON header for all that are no
tensors.

Reading fails closed: it accepts only the kinds that the reader allows, only the fields of that
kind, each of its own type and within the bounds of `core.bounds`, and no more bytes than `limit`.
Numbers come back bit-for-bit identical. Nothing is ever unpickled. `core.replies` checks replies
further.
"""

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from tequio.core.bounds import BODY, LARGEST, TEXT, check_plain, check_text, cut_text
from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.errors import MessageError, UpdateError
from tequio.core.texts.words import refusal
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    GradientRequest,
    PersonaliseRequest,
    Reply,
    SumRequest,
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
    "add_up": SumRequest,
    "reply": Reply,
    "failure": Failure,
}
REPLIES = ("reply", "failure")
REQUESTS = tuple(kind for kind in KINDS if kind not in REPLIES)
BYTES_IN_PARTS = ("parts",)  # fields that are a sequence of bytes
WORDS = ("error", "message", "note")  # fields in words, which are cut where they are too long
LIMIT = 4 << 30  # bytes
HEADER = 4 << 20  # bytes of a message's header
LARGEST_ASKED = 2**64  # of a number in a request: seeds have 63 bits

WITHIN = ("train", "evaluate")  # kinds of request that a step of a secure sum may hold

Message = (
    TrainRequest
    | EvaluateRequest
    | GradientRequest
    | DescribeRequest
    | PersonaliseRequest
    | SumRequest
    | Reply
    | Failure
)


def kind_of(message: Message) -> str:
    """Return the name of a message's kind."""
    return next(name for name, cls in KINDS.items() if isinstance(message, cls))


def answer(who: object, request: Message) -> Reply:
    """Have `who` do a request by its method of that kind's name:

    `train`, `evaluate`… Raises UpdateError if it has none.
    """
    method = getattr(who, kind_of(request), None)
    if method is None:
        raise refusal(
            UpdateError, "request-not-answered", name=request.name, request=kind_of(request)
        )
    reply: Reply = method(request)
    return reply


def pack_message(message: Message) -> bytes:
    """Equal messages give equal bytes; notes and errors are cut to 2 kB.

    Raises ValueError if a plain number is NaN or infinite.
    """
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for field in fields(message):
        value = getattr(message, field.name)
        if isinstance(value, Update):
            plain[field.name] = {"spec": value.spec}
            tensors |= {
                f"{field.name}/{name}": tensor for name, tensor in to_tensors(value).items()
            }
        elif isinstance(value, bytes):
            plain[field.name] = {"bytes": len(value)}
            tensors[field.name] = _octets(value)
        elif isinstance(value, TrainRequest | EvaluateRequest):
            plain[field.name] = {"message": kind_of(value)}
            tensors[field.name] = _octets(pack_message(value))
        elif field.name in BYTES_IN_PARTS and value is not None:
            plain[field.name] = {"parts": len(value)}
            tensors |= {f"{field.name}/{i:08d}": _octets(part) for i, part in enumerate(value)}
        else:
            plain[field.name] = cut_text(value) if field.name in WORDS else _plain(value)
    return pack_tensors(tensors, {"format": FORMAT, "kind": kind_of(message), "fields": plain})


def unpack_message(
    data: bytes, source: str, allowed: Collection[str], limit: int = LIMIT
) -> Message:
    """The message in `data`.

    Raises MessageError naming `source` for anything but a well-formed message of an allowed kind.

    Its bytes in parts lie in `data` itself where that could be written to (see `unpack_tensors`).
    """
    try:
        return _unpacked(data, source, allowed, limit)
    except MessageError:
        raise
    except UpdateError as error:
        raise MessageError(error.what, error.why, error.fix, error.reason) from None


def _unpacked(data: bytes, source: str, allowed: Collection[str], limit: int) -> Message:
    if len(data) > limit:
        raise refusal(MessageError, "message-too-long", source=source, bytes=len(data), most=limit)
    tensors, header = unpack_tensors(data, source, HEADER)
    kind, given, form = header.get("kind"), header.get("fields"), header.get("format")
    try:
        for name in tensors:
            check_text(name)
    except ValueError as error:
        raise refusal(MessageError, "message-malformed", source=source, why=str(error)) from None
    if form != FORMAT or not isinstance(given, dict):
        named = isinstance(form, str) and re.fullmatch(r"[a-z0-9-]{1,32}", form)
        found = form if named else "–"
        raise refusal(
            MessageError, "message-of-other-version", source=source, found=found, format=FORMAT
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise refusal(MessageError, "message-of-unknown-kind", source=source)
    if kind not in allowed:
        raise refusal(
            MessageError,
            "message-of-other-kind",
            source=source,
            request=kind,
            allowed=sorted(allowed),
        )
    cls = KINDS[kind]
    hints, known = get_type_hints(cls), {f.name: f for f in fields(cls)}
    required = {
        n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING
    }
    if given.keys() - known.keys():
        raise refusal(MessageError, "fields-unknown", source=source)
    if missing := sorted(required - given.keys()):
        raise refusal(MessageError, "field-missing", source=source, field=missing[0])
    for name, value in given.items():
        try:
            check_plain(
                value,
                LARGEST if kind in REPLIES else LARGEST_ASKED,
                BODY if name == "body" else TEXT,
            )
        except ValueError as error:
            raise refusal(
                MessageError, "field-refused", source=source, field=name, why=str(error)
            ) from None
    if strange := [n for n in tensors if n.partition("/")[0] not in given]:
        raise refusal(MessageError, "tensors-of-no-field", source=source, count=len(strange))
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
        mine = {
            n.removeprefix(f"{name}/"): t for n, t in tensors.items() if n.startswith(f"{name}/")
        }
        try:
            return from_tensors(mine, spec, source)
        except UpdateError:
            raise refusal(MessageError, "field-unfit", source=source, field=name) from None
    if hint is bytes:
        return bytes(_octets_of(tensors, name, source).tobytes())
    if set(options) >= {TrainRequest, EvaluateRequest}:
        return unpack_message(bytes(_octets_of(tensors, name, source).tobytes()), source, WITHIN)
    if name in BYTES_IN_PARTS:
        names = sorted(n for n in tensors if n.startswith(f"{name}/"))
        if value != {"parts": len(names)}:
            raise refusal(MessageError, "field-unfit", source=source, field=name)
        return [_octets_of(tensors, n, source).data for n in names]
    return _value(value, hint, name, source)


def _octets(data: bytes) -> Tensor:
    return (
        torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if data
        else torch.empty(0, dtype=torch.uint8)
    )


def _octets_of(tensors: Mapping[str, Tensor], name: str, source: str) -> Any:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != torch.uint8 or tensor.ndim != 1:
        raise refusal(MessageError, "field-unfit", source=source, field=name)
    return tensor.numpy()


def _value(value: Any, hint: Any, name: str, source: str) -> Any:
    """`value` if it is of the type `hint`: a number, text, a literal, a mapping of names, a tuple
    or a dataclass of these.
    """
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
            return hint(
                **{key: _read(value[key], inner[key], f"{name}.{key}", {}, source) for key in inner}
            )
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise refusal(MessageError, "field-unfit", source=source, field=name)
