"""Bounds of what a stranger may write: numbers, texts and nesting of JSON, checked before anything
is built of them.
"""

import json
from typing import Any, NoReturn

TEXT = 2048  # bytes of a text, in UTF-8: a name, a note, the message of a failure
BODY = 1 << 20  # characters of a body that is JSON itself
LARGEST = 2**53  # of a number: beyond it a float does not hold every integer
DEPTH = 32  # levels of nested JSON
CUT = "…"


def cut_text(text: str, limit: int = TEXT) -> str:
    """Return `text` in at most `limit` bytes of UTF-8; characters that UTF-8 cannot write become
    question marks.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def one_line(text: str) -> str:
    """Return `text` in one line, with question marks for what a terminal obeys or cannot show."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))


def check_text(text: str, limit: int = TEXT) -> str:
    """Return the text as it is.

    Raises ValueError if it is too long, or holds half a character (a lone surrogate).
    """
    if len(text) > limit:
        raise ValueError(f"a text has more than {limit} bytes")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError("a text holds a character that UTF-8 cannot write") from None
    if size > limit:
        raise ValueError(f"a text has more than {limit} bytes")
    return text


def check_plain(value: Any, largest: int = LARGEST, text: int = TEXT, depth: int = DEPTH) -> None:
    """Check a JSON value: finite numbers up to `largest`, texts up to `text` bytes, at most `depth`
    levels.

    Raises ValueError.
    """
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        check_text(value, text)
    elif isinstance(value, int | float):
        if not -largest <= value <= largest:  # never true of NaN
            raise ValueError("a number is not finite, or too large")
    elif depth <= 0:
        raise ValueError(f"its JSON has more than {DEPTH} levels")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_plain(item, largest, text, depth - 1)
    elif isinstance(value, list):
        for item in value:
            check_plain(item, largest, text, depth - 1)
    else:
        raise ValueError("it is no JSON value")


def read_json(text: str, limit: int = BODY) -> dict[str, Any]:
    """Read a table that is JSON, within all bounds.

    Raises ValueError, with words that quote nothing of it.
    """
    if len(text) > limit:
        raise ValueError(f"it has more than {limit} characters")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"its JSON has more than {DEPTH} levels") from None
    except json.JSONDecodeError:
        raise ValueError("it is not JSON") from None
    check_plain(value)
    if not isinstance(value, dict):
        raise ValueError("it is no table")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("a number is not finite, or too large")
