"""Names of columns: the usual ones for each role, and which names of a file a message may show."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from tequio.core.reason import Reason

NAME = re.compile(r"[^\W\d][\w.-]{0,39}")
USUAL = {
    "text": [
        "text",
        "texts",
        "sentence",
        "review",
        "content",
        "tweet",
        "message",
        "body",
        "comment",
        "document",
        "utterance",
        "sms",
        "post",
        "article",
        "description",
        "review_text",
        "reviewtext",
        "review_body",
        "tweet_text",
        "full_text",
        "clean_text",
        "comment_text",
        "texto",
        "frase",
        "mensaje",
        "comentario",
        "contenido",
        "reseña",
        "resena",
        "headline",
        "title",
    ],
    "label": [
        "label",
        "labels",
        "sentiment",
        "category",
        "class",
        "target",
        "intent",
        "emotion",
        "topic",
        "classification",
        "airline_sentiment",
        "label_text",
        "class_name",
        "etiqueta",
        "clase",
        "categoria",
        "categoría",
        "sentimiento",
        "intencion",
        "kind",
        "stars",
        "rating",
    ],
    "prompt": [
        "prompt",
        "instruction",
        "question",
        "query",
        "instructions",
        "user",
        "pregunta",
        "input",
    ],
    "response": [
        "response",
        "output",
        "answer",
        "completion",
        "reply",
        "assistant",
        "target_text",
        "respuesta",
    ],
    "input": ["input", "context"],
    "messages": ["messages", "conversations", "conversation", "dialog", "dialogue", "chat"],
}
PREFERENCE = ("chosen", "rejected")
KNOWN = frozenset(name for names in USUAL.values() for name in names) | {*PREFERENCE}
MANY = 30


def usual(role: str, names: Sequence[str], taken: Collection[str] = ()) -> str | None:
    """Return the column for a role: the standard name, else the first usual one, in any case."""
    if role in names and role not in taken:
        return role
    folded = {name.strip().casefold(): name for name in reversed(names) if name not in taken}
    return next((folded[name] for name in USUAL[role] if name in folded), None)


def is_known(name: str) -> bool:
    """Return whether this is a usual name of a column."""
    return name.strip().casefold() in KNOWN


def looks_like_name(name: str) -> bool:
    """Return whether a name is one word, so that it can be shown."""
    return NAME.fullmatch(name) is not None


def found(
    names: Iterable[str], genuine: bool, shown: bool, wanted: Collection[str]
) -> tuple[Any, list[str]]:
    """Return the columns found, as a reason in its recorded form and as a list.

    The first line of a table may be data, so its fields are shown only where one is a wanted or
    usual name and the rows have as many fields (`shown`); otherwise only their number is.
    genuine: the format itself names its columns (Parquet).
    """
    names = [name for name in names if name.strip()]
    certain = genuine or (shown and any(name in wanted or is_known(name) for name in names))
    if not certain or len(names) > MANY:
        code = "columns-many" if certain else "columns-unsure"
        return Reason(code, {"count": len(names)}).as_record(), []
    plain = [name for name in names if looks_like_name(name)]
    hidden = len(names) - len(plain)
    facts: dict[str, Any] = {"names": plain or None} | ({"count": hidden} if hidden else {})
    return Reason("columns-part" if hidden else "columns-found", facts).as_record(), plain


def nearest(wanted: str, shown: Sequence[str]) -> str | None:
    """Return the name that looks most like the wanted one."""
    return next(iter(difflib.get_close_matches(wanted, shown, n=1, cutoff=0.5)), None)
