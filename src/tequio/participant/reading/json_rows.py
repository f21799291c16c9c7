"""Rows of JSON: one object a line, objects over several lines, or one array; streamed."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.reading.streams import Source, Text

MARKS = re.compile(r'["{}\[\]]')
STRING = re.compile(r'["\\]')
WRAPPERS = ("data", "rows", "train", "examples", "records", "instances", "items")
LONGEST = 1 << 26  # characters of one object
Row = tuple[int, Mapping[str, Any]]


class _Depth:
    """Follow how deep a text is nested, piece by piece; what is inside strings does not count."""

    def __init__(self) -> None:
        self.depth = 0
        self.in_string = False
        self._skip = 0  # characters of the next piece that a backslash before it escapes

    def ends(self, piece: str, start: int = 0) -> Iterator[int]:
        """Yield each place, one after its character, where a value that was opened is closed.

        Only values at depth 0 count: those whose opening bracket was the first.
        """
        place = max(start, self._skip)
        self._skip = 0
        while place < len(piece):
            if self.in_string:
                match = STRING.search(piece, place)
                if match is None:
                    return
                place = match.end()
                if match[0] == '"':
                    self.in_string = False
                elif place < len(piece):
                    place += 1
                else:
                    self._skip = 1
                continue
            match = MARKS.search(piece, place)
            if match is None:
                return
            place = match.end()
            if match[0] == '"':
                self.in_string = True
            elif match[0] in "{[":
                self.depth += 1
            else:
                self.depth -= 1
                if self.depth <= 0:
                    yield place


def json_lines(text: Text) -> Iterator[Row]:
    """Yield (line, object) of JSON lines; an object may go on over several lines."""
    begun, parts, depth, size = 1, list[str](), _Depth(), 0
    for number, line in enumerate(text.lines(), 1):
        if not parts:
            if not line.strip():
                continue
            begun = number
            done, row = _whole(line)
            if done:
                yield begun, _object(row, text.source, f"line {begun}")
                continue
            depth, size = _Depth(), 0
        parts.append(line)
        size += len(line)
        if list(depth.ends(line)) and depth.depth == 0:
            yield begun, _parsed("".join(parts), text.source, "line", begun)
            parts = []
        elif depth.in_string or depth.depth <= 0 or size > LONGEST:
            _parsed("".join(parts), text.source, "line", begun)
            raise refusal(DataError, "json-malformed", file=text.source.at(f"line {begun}"))
    if parts:
        raise refusal(DataError, "json-open", file=text.source.at(f"line {begun}"))


def _whole(line: str) -> tuple[bool, Any]:
    try:
        return True, json.loads(line)
    except (ValueError, RecursionError):
        return False, None


def json_array(text: Text) -> Iterator[Row]:
    """Yield (row, object) of one JSON array, whose elements may stand on any lines."""
    source, number = text.source, 0
    parts, depth, state, size = list[str](), _Depth(), "start", 0
    for piece in text.chunks():
        place = 0
        while place < len(piece):
            if state != "inside":
                place, state = _between(piece, place, state, source, number)
                continue
            end = next(depth.ends(piece, place), None)
            parts.append(piece[place:end])
            size += len(parts[-1])
            if size > LONGEST:
                raise refusal(
                    DataError, "json-too-long", file=source.at(f"row {number + 1}"), most=LONGEST
                )
            if end is None:
                break
            number += 1
            yield number, _parsed("".join(parts), source, "row", number)
            place, state, parts, depth, size = end, "after", [], _Depth(), 0
    if state != "end":
        raise refusal(DataError, "json-array-open", file=source.at(f"row {number + 1}"))


EXPECTED = {
    "start": {"[": "first"},
    "first": {"{": "inside", "]": "end"},
    "after": {",": "next", "]": "end"},
    "next": {"{": "inside"},
    "end": {},
}
SPACE = re.compile(r"[ \t\r\n]*")


def _between(piece: str, place: int, state: str, source: Source, number: int) -> tuple[int, str]:
    """Return the place and state after the next sign between two elements of the array."""
    match = SPACE.match(piece, place)
    place = match.end() if match else place
    if place == len(piece):
        return place, state
    after = EXPECTED[state].get(piece[place])
    if after is None:
        code = {
            "first": "json-not-an-object",
            "next": "json-not-an-object",
            "end": "json-several-arrays",
        }
        raise refusal(
            DataError, code.get(state, "json-malformed"), file=source.at(f"row {number + 1}")
        )
    return (place if after == "inside" else place + 1), after


def _parsed(text: str, source: Source, unit: str, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1 if unit == "line" else number
        code = "json-two-in-a-line" if error.msg == "Extra data" else "json-invalid"
        raise refusal(
            DataError, code, file=source.at(f"{unit} {line}"), column=error.colno
        ) from None
    except (ValueError, RecursionError):
        raise refusal(DataError, "json-malformed", file=source.at(f"{unit} {number}")) from None
    return _object(row, source, f"{unit} {number}")


def _object(row: Any, source: Source, where: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise refusal(DataError, "json-not-an-object", file=source.at(where))
    if row and all(isinstance(value, dict) and _numbered(value) for value in row.values()):
        raise refusal(DataError, "json-by-columns", file=source.at(where))
    inside = [key for key in WRAPPERS if isinstance(row.get(key), list) and row[key]]
    if inside and all(isinstance(value, dict) for value in row[inside[0]]):
        raise refusal(DataError, "json-wrapped", file=source.at(where), key=inside[0])
    return row


def _numbered(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(key.isdigit() for key in value)
