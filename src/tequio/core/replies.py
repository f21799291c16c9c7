"""What each kind of reply must be, by the schemas of `reply_schemas`.

It is checked before anything is done with it.

`read_reply` is the only way in for bytes of a participant. What it refuses, and what does not fit
what the participant said it has, is that participant's failure in that round: the reason names our
own fields, and quotes nothing that came.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import BaseModel, ValidationError

from tequio.core.bounds import one_line, read_json
from tequio.core.errors import MessageError, ResourceError
from tequio.core.messages import REPLIES, unpack_message
from tequio.core.reason import Reason
from tequio.core.reply_schemas import (
    SPLITS,
    BodySchema,
    DescribedSchema,
    EvaluateSchema,
    PersonalSchema,
    ReplySchema,
    Schema,
    SumSchema,
    TrainSchema,
)
from tequio.core.texts.words import refusal
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    GradientRequest,
    PersonaliseRequest,
    Reply,
    Request,
    SumRequest,
    TrainRequest,
)

MOST_TOKENS = 10**7  # of one step
SMALL_REPLY = 4 << 20  # bytes of a reply that carries no update
UNREAD = (
    0,
    0,
    "",
)  # round, index and name in the failure of a participant that could not read what was asked
UNREAD_ERRORS = (MessageError.__name__, ResourceError.__name__)
REPLY_SCHEMAS: Mapping[type, type[ReplySchema]] = {
    TrainRequest: TrainSchema,
    EvaluateRequest: EvaluateSchema,
    # asked of the centre alone, which is in the coordinator's process
    GradientRequest: ReplySchema,
    DescribeRequest: BodySchema,
    PersonaliseRequest: BodySchema,
    SumRequest: SumSchema,
}


def reply_limit(task: Request, limit: int) -> int:
    """Bytes that the reply to this request may have; `limit` for one that carries an update."""
    large = isinstance(task, TrainRequest | GradientRequest) or (
        isinstance(task, SumRequest) and task.step == "mask"
    )
    return limit if large else min(limit, SMALL_REPLY)


def read_reply(data: bytes, task: Request, limit: int) -> Reply | Failure:
    """What a participant answered to `task`; a `Failure` in its name where that is no well-formed,
    plausible reply to it.

    Its words are printed for people, so they hold nothing that a terminal obeys.
    """
    try:
        found = unpack_message(data, f"the reply of {task.name}", REPLIES, limit)
        if not isinstance(found, Reply | Failure):
            return refused_reply(task, "it sent no reply")
        unread = isinstance(found, Failure) and found.error in UNREAD_ERRORS
        if (
            unread and (found.round, found.index, found.name) == UNREAD
        ):  # to whichever request: none has the index 0
            found = replace(found, round=task.round, index=task.index, name=task.name)
        if (found.round, found.index, found.name) != (task.round, task.index, task.name):
            return refused_reply(task, "its reply is of another round or participant")
        check_reply(found, task)
    except MessageError as error:
        return refused_reply(task, error.as_reason().after(str(error)))
    if isinstance(
        found, Failure
    ):  # a reason at the end of its words is read by `texts`, which refuses what cannot be printed
        return replace(found, message=one_line(found.message))
    return replace(found, note=one_line(found.note))


def refused_reply(task: Request, why: str) -> Failure:
    """The failure of a participant whose reply cannot be used."""
    return Failure(task.round, task.index, task.name, MessageError.__name__, why)


def unread_request(why: str, error: str = MessageError.__name__) -> Failure:
    """Build the answer of a participant to a request that it cannot read, so that it does not know
    the round either.

    why: fixed words, with nothing of what came.
    """
    return Failure(*UNREAD, error, why)


def check_reply(found: Reply | Failure, task: Request) -> None:
    """Raise MessageError, naming the field, where a reply is not what its kind of request asks
    for.
    """
    source = f"the reply of {task.name}"
    if isinstance(found, Failure):
        if not (found.error.isascii() and found.error.isalpha() and len(found.error) <= 64):
            raise refusal(MessageError, "field-unfit", source=source, field="error")
        return
    _validate(
        REPLY_SCHEMAS[type(task)],
        {
            "forms": sum(form is not None for form in (found.update, found.payload, found.parts)),
            "energy": None if found.energy is None else asdict(found.energy),
            "money": None if found.money is None else asdict(found.money),
            "metrics": dict(found.metrics),
            "slices": dict(found.slices),
            **{key: getattr(found, key) for key in ("steps", "tokens", "examples", "note", "body")},
        },
        source,
    )
    if isinstance(task, TrainRequest) and found.tokens > MOST_TOKENS * found.steps:
        raise refusal(MessageError, "too-many-tokens", source=source, most=MOST_TOKENS)
    if isinstance(task, TrainRequest) and found.steps > task.steps:
        raise refusal(
            MessageError, "too-many-steps", source=source, steps=found.steps, asked=task.steps
        )


def read_description(reply: Reply) -> dict[str, Any]:
    """What a participant says it has.

    Raises MessageError naming the field that is not as it must be.
    """
    return _body(DescribedSchema, reply)


def read_personal_outcome(reply: Reply, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What a participant says of its personal model.

    Raises MessageError naming the field that is not as it must be.

    sizes: its items by split, as it joined with them; a split that is missing is not compared.
    """
    body = _body(PersonalSchema, reply)
    for split, rows in (("validation", body["candidates"]), ("test", body["test"])):
        for scores in rows.values():
            if why := too_many(scores["examples"], sizes, split):
                raise refusal(MessageError, why.code, **why.facts).within(reply.name)
    return body


def too_many(examples: int, sizes: Mapping[str, int], split: str) -> Reason | None:
    """Return why the count of examples is refused where it is more than the participant joined
    with;

    None where that is not known.
    """
    most = sizes.get(split)
    if most is None or examples <= most:
        return None
    return Reason("too-many-examples", {"examples": examples, "split": split, "joined": most})


def _body(schema: type[Schema], reply: Reply) -> dict[str, Any]:
    source = f"the reply of {reply.name}"
    try:
        body = read_json(reply.body)
    except ValueError as error:
        raise refusal(
            MessageError, "field-refused", source=source, field="body", why=str(error)
        ) from None
    _validate(schema, body, f"{source}, its body")
    return body


def _validate(schema: type[Schema], value: Any, source: str) -> None:
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise refusal(
            MessageError,
            "field-refused",
            source=source,
            field=".".join(_own(part) for part in first["loc"]) or "…",
            why=first["type"],
        ) from None


def _own(part: str | int) -> str:
    """A part of the place of an error, unless it is a key that a stranger chose."""
    return part if isinstance(part, str) and part in _FIELDS else "…"


def _names(schema: type[BaseModel]) -> set[str]:
    """Every key of this schema, and of those that are built on it."""
    return {field.alias or name for name, field in schema.model_fields.items()}.union(
        *(_names(further) for further in schema.__subclasses__())
    )


_FIELDS = _names(Schema) | set(SPLITS)
