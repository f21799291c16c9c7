"""Chats: messages (role, content) or ShareGPT conversations (from, value) as turns."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tequio.participant.reading.examples import Example, Turn
from tequio.participant.reading.labels import BadRow

ROLE = {
    "system": ("system", "developer", "context"),
    "user": ("user", "human", "prompter", "instruction", "question"),
    "assistant": (
        "assistant",
        "gpt",
        "chatgpt",
        "bot",
        "model",
        "ai",
        "bing",
        "bard",
        "function_call",
        "answer",
    ),
    "tool": ("tool", "function", "observation", "function_response", "tool_response", "ipython"),
}
ROLE_OF = {word: role for role, words in ROLE.items() for word in words}
WHO, WHAT = ("role", "from", "speaker", "author"), ("content", "value", "text", "message")


def turns_of(value: Any) -> list[Turn]:
    """Return the turns of a chat; none for an empty value. Raises BadRow."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRow("chat-not-turns") from None
    if isinstance(value, Mapping) and isinstance(value.get("messages"), Sequence):
        value = value["messages"]
    if value is None or value == "":
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadRow("chat-not-turns")
    return [_turn(turn, number) for number, turn in enumerate(value, 1)]


def _turn(turn: Any, number: int) -> Turn:
    who = (
        next((turn[key] for key in WHO if key in turn), None) if isinstance(turn, Mapping) else None
    )
    if who is None:
        raise BadRow("chat-turn-unfit", turn=number)
    what = next((turn[key] for key in WHAT if key in turn), None)
    role = ROLE_OF.get(str(who).strip().casefold())
    if role is None:
        raise BadRow("chat-role-unknown", turn=number, names=list(ROLE_OF))
    return role, _content(what, number)


def _content(what: Any, number: int) -> str:
    if what is None:
        return ""
    if isinstance(what, str):
        return what
    if isinstance(what, Sequence) and all(
        isinstance(p, Mapping) and isinstance(p.get("text"), str) for p in what
    ):
        return "\n".join(str(part["text"]) for part in what)
    raise BadRow("chat-turn-unfit", turn=number)


def example_of(turns: Sequence[Turn]) -> tuple[Example | None, str]:
    """Return a chat as an example, or None and why it is left out.

    The chat ends with the last answer of the assistant. Answers before the first question have no
    prompt, so they are left out, and so are turns without content.
    """
    turns = [turn for turn in turns if turn[1].strip()]
    if not turns:
        return None, "empty"
    while turns and turns[-1][0] != "assistant":
        turns.pop()
    if not turns:
        return None, "no_response"
    asked = next((i for i, turn in enumerate(turns) if turn[0] in ("user", "tool")), len(turns))
    turns = [turn for i, turn in enumerate(turns) if i >= asked or turn[0] == "system"]
    if not turns or turns[-1][0] != "assistant":
        return None, "no_prompt"
    response = turns[-1][1]
    if len(turns) == 2 and turns[0][0] == "user":
        return Example(turns[0][1], response=response), ""
    before = "\n".join(f"{role}: {content}" for role, content in turns[:-1])
    return Example(before, response=response, turns=tuple(turns)), ""
