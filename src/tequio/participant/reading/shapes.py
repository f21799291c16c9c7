"""Shapes of text: which columns a row's text, label, prompt, response or chat stand in."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tequio.participant.reading.chats import example_of, turns_of
from tequio.participant.reading.examples import Example
from tequio.participant.reading.labels import BadRow
from tequio.participant.reading.names import PREFERENCE, USUAL, usual
from tequio.participant.reading.wanted import Wanted

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Plan:
    """Say which column has which role, and which of these were guessed."""

    columns: Mapping[str, str]
    guessed: tuple[str, ...] = ()


class Missing(Exception):
    """A column is not there: the wanted one, and what would do as well."""

    def __init__(self, column: str, or_else: str = "") -> None:
        self.column, self.or_else = column, or_else
        super().__init__("a column is missing")


def plan_for(
    names: Sequence[str], wanted: Wanted, sample: Sequence[Mapping[str, Any]] = ()
) -> Plan:
    """Return which columns to use. Given names win, then standard ones, then usual ones.

    sample: rows by whose values the label's column (and then the text's) is found where no name
    tells it. Raises Missing, or BadRow for a shape that is not supported.
    """
    given = wanted.columns.given()
    if wanted.kind == "classification":
        return _labelled(names, wanted, given, sample)
    return _causal(names, wanted, given)


def _labelled(
    names: Sequence[str],
    wanted: Wanted,
    given: Mapping[str, str],
    sample: Sequence[Mapping[str, Any]],
) -> Plan:
    for role in ("text", "label"):
        if role in given and given[role] not in names:
            raise Missing(given[role])
    taken = set(given.values())
    label = given.get("label") or usual("label", names, taken)
    text = given.get("text") or usual("text", names, taken | {label or ""})
    if label is None:
        rest = [name for name in names if name != text]
        rows = [[row.get(name) for name in rest] for row in sample]
        found = wanted.label_columns(rows)
        label = rest[found[0]] if len(found) == 1 else None
    if text is None and label is not None:
        text = _longest([name for name in names if name != label], sample)
    if text is None:
        raise Missing("text")
    if label is None:
        raise Missing("label")
    return _plan(names, {"text": text, "label": label}, given)


def _plan(names: Sequence[str], columns: dict[str, str], given: Mapping[str, str]) -> Plan:
    guessed = tuple(r for r, name in columns.items() if r not in given and name != r)
    return Plan(columns, guessed)


def _longest(names: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the only column of texts, or the one whose texts are at least twice as long."""
    lengths = {
        name: sum(len(v) for row in sample if isinstance(v := row.get(name), str)) for name in names
    }
    return twice_as_long(names, lengths)


def twice_as_long(names: Sequence[str], lengths: Mapping[str, int]) -> str | None:
    """Return the only name with a length above 0, or the one whose length is at least twice that of
    any other.
    """
    order = sorted((name for name in names if lengths[name]), key=lambda name: -lengths[name])
    leads = len(order) == 1 or (len(order) > 1 and lengths[order[0]] >= 2 * lengths[order[1]])
    return order[0] if leads else None


def _causal(names: Sequence[str], wanted: Wanted, given: Mapping[str, str]) -> Plan:
    if "messages" in given:
        return _given(names, given, ("messages",))
    if "prompt" in given or "response" in given:
        return _pair(names, wanted, given)
    if "text" in given:
        return _given(names, given, ("text",))
    if "text" in names:
        return Plan({"text": "text"})
    if "prompt" in names and "response" in names:
        return _pair(names, wanted, given)
    if (chat := usual("messages", names)) is not None:
        return _plan(names, {"messages": chat}, given)
    try:
        return _pair(names, wanted, given)
    except Missing:
        if all(name in names for name in PREFERENCE):
            raise BadRow("preference-pairs") from None
        if (text := usual("text", names)) is not None:
            return _plan(names, {"text": text}, given)
        if len(names) == 1 and names[0] == "1":  # a table without a header
            return _plan(names, {"text": "1"}, given)
        raise Missing("text", "'prompt' and 'response', or 'messages'") from None


def _given(names: Sequence[str], given: Mapping[str, str], roles: Sequence[str]) -> Plan:
    for role in roles:
        if given[role] not in names:
            raise Missing(given[role])
    return Plan({role: given[role] for role in roles})


def _pair(names: Sequence[str], wanted: Wanted, given: Mapping[str, str]) -> Plan:
    for role in ("prompt", "response", "input"):
        if role in given and given[role] not in names:
            raise Missing(given[role])
    taken = set(given.values())
    prompt = given.get("prompt") or usual("prompt", names, taken)
    response = given.get("response") or usual("response", names, taken | {prompt or ""})
    if prompt is None:
        raise Missing("prompt")
    if response is None:
        raise Missing("response")
    columns = {"prompt": prompt, "response": response}
    more = wanted.columns.input
    if more is None:
        used = {prompt, response, *taken}
        more = next((name for name in USUAL["input"] if name in names and name not in used), None)
    if more:
        columns["input"] = more
    return _plan(names, columns, given)


def example(
    row: Mapping[str, Any], plan: Plan, wanted: Wanted, classes: Mapping[str, Sequence[str]]
) -> tuple[Example | None, str]:
    """Return a row as an example, or None and why it is left out. Raises BadRow."""
    columns = plan.columns
    if "messages" in columns:
        return _chat(row, columns["messages"])
    if "prompt" in columns:
        return _answered(row, columns)
    text = text_at(row, columns["text"])
    if not text.strip():
        return None, "empty"
    if wanted.kind == "causal":
        return Example(text), ""
    column = columns["label"]
    try:
        label = wanted.labels.match(row.get(column), classes.get(column, ()))
    except BadRow as error:
        raise BadRow(error.code, column=column) from None
    return (None, "unlabelled") if label is None else (Example(text, label=label), "")


def _answered(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Example | None, str]:
    response = text_at(row, columns["response"])
    prompt = text_at(row, columns["prompt"])
    more = text_at(row, columns["input"]) if "input" in columns else ""
    if more.strip():
        prompt = f"{prompt}\n\n{more}" if prompt.strip() else more
    if not response.strip():
        return None, "no_response" if prompt.strip() else "empty"
    if not prompt.strip():
        return None, "no_prompt"
    return Example(prompt, response=response), ""


def _chat(row: Mapping[str, Any], column: str) -> tuple[Example | None, str]:
    try:
        turns = turns_of(row.get(column))
    except BadRow as error:
        raise BadRow(error.code, column=column, **error.facts) from None
    if any(map(has_flaw, (content for _, content in turns))):
        raise BadRow("text-with-flaw", column=column)
    return example_of(turns)


def text_at(row: Mapping[str, Any], column: str) -> str:
    """Return the text in a column; empty where there is none. Raises BadRow."""
    value = row.get(column)
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if not isinstance(value, str):
        raise BadRow("not-a-text", column=column, kind=type(value).__name__)
    if has_flaw(value):
        raise BadRow("text-with-flaw", column=column)
    return value


def has_flaw(text: str) -> bool:
    """Return whether a text holds a NUL or half of a surrogate pair, with which no tokenizer
    can work.
    """
    return "\0" in text or SURROGATE.search(text) is not None
