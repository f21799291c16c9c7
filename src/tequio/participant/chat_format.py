"""Write turns of a chat as text: by the base's chat template, or plainly where it has none.

The plain format: a prompt and its response are the prompt, a line end, and the response. Several
turns (or a system turn) are `role:`, a line end, and the content, joined by line ends. An
end-of-text token follows each answer of the assistant.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tequio.core.errors import BaseModelError, ResourceError
from tequio.core.texts.words import refusal
from tequio.participant.base_files import TEMPLATE
from tequio.participant.reading.examples import Turn
from tequio.participant.template_renderer import (
    CHILD,
    HelperNotStarted,
    TemplateRefused,
    TemplateTooCostly,
    render,
)

DATE = "26 Jul 2024"
DATE_PARTS = {
    **{"%d": "26", "%-d": "26", "%e": "26", "%m": "07", "%-m": "7", "%b": "Jul", "%B": "July"},
    **{"%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday", "%j": "208", "%F": "2024-07-26"},
    **{
        "%H": "00",
        "%I": "12",
        "%M": "00",
        "%S": "00",
        "%p": "AM",
        "%T": "00:00:00",
        "%Z": "",
        "%z": "",
    },
}
FIXED_DATE = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f".replace('{part}', '{value}')" for part, value in DATE_PARTS.items())
    + " }}{% endmacro %}{{ '' }}"
)
"""Stands before a template that asks for today's date: it gets `DATE`, so that no encoding depends
on the day.
"""
FIX = "Take another base, or the template that its makers publish."
QUOTED = 12  # characters at the start of a content that no message may repeat


@dataclass(frozen=True)
class Written:
    """Hold a chat as text, and the spans of characters that the assistant wrote (its end of turn
    included).
    """

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatFormat:
    """Write chats for a tokenizer."""

    tokenizer: Any

    @cached_property
    def template(self) -> str | None:
        """Return the base's own template; None where it has none."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        own = str(self.tokenizer.get_chat_template())
        if len(own) > TEMPLATE:
            raise refusal(
                BaseModelError, "template-too-long", place=self._where, count=len(own), next=FIX
            )
        return FIXED_DATE + own if "strftime_now" in own else own

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return what the model reads before it answers.

        Raises BaseModelError where the template refuses.
        """
        return self._write(turns, True)

    def write(self, turns: Sequence[Turn]) -> list[Written]:
        """Return a chat, which ends with the assistant's turn, with what is to be learnt of it.

        That is one text. A template that writes earlier turns otherwise once more turns follow (it
        leaves out their reasoning, for instance) gives a text per answer: that which the model
        would have read at that point, and the answer. Raises BaseModelError where the template
        refuses.
        """
        parts = []
        for end, turn in enumerate(turns, 1):
            if turn[0] == "assistant":
                text = self._write(turns[:end], False)
                begin = _shared(self._write(turns[: end - 1], True), text)
                parts.append(Written(text, ((begin, len(text)),)))
        whole = parts[-1].text
        if all(whole.startswith(part.text) for part in parts):
            return [Written(whole, tuple(span for part in parts for span in part.spans))]
        return parts

    def _write(self, turns: Sequence[Turn], answer: bool) -> str:
        if self.template is None:
            return plain(turns, answer, self.tokenizer.eos_token or "")
        try:
            return self._applied(turns, answer)
        except TemplateRefused as error:
            joined = _joined(turns)
            if joined != list(turns):
                with suppress(TemplateRefused):  # the first message is about the turns as they are
                    return self._applied(joined, answer)
            raise _refused(error, turns) from None

    def _applied(self, turns: Sequence[Turn], answer: bool) -> str:
        chat = [{"role": role, "content": content} for role, content in turns]
        more = {
            **self.tokenizer.special_tokens_map,
            "add_generation_prompt": answer,
            "date_string": DATE,
        }
        try:
            return render(str(self.template), chat, more)
        except TemplateTooCostly as error:
            facts = {"place": self._where, "why": str(error), "next": FIX}
            raise refusal(BaseModelError, "template-stopped", **facts) from None
        except HelperNotStarted as error:
            command = f"{sys.executable} -P {CHILD}"
            raise refusal(
                ResourceError, "template-not-started", why=str(error), command=command
            ) from None

    @property
    def _where(self) -> str:
        """Say of which base the template is."""
        name = str(getattr(self.tokenizer, "name_or_path", ""))
        return (
            f"of {name} (chat_template.jinja or tokenizer_config.json)" if name else "of the base"
        )


def plain(turns: Sequence[Turn], answer: bool, end: str) -> str:
    """Return turns in the plain format. answer: the assistant's turn is to follow. end: the
    end-of-text token.
    """
    roles = [role for role, _ in turns]
    if roles == ["user"] and answer:
        return turns[0][1].rstrip() + "\n"
    if roles == ["user", "assistant"]:
        return f"{turns[0][1].rstrip()}\n{turns[1][1]}{end}"
    lines = [
        f"{role}:\n{content}" + (end if role == "assistant" else "") for role, content in turns
    ]
    return "\n".join([*lines, "assistant:\n"] if answer else lines)


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """Return turns for strict templates: the system's turn begins the first question, and no role
    speaks twice in a row.
    """
    out: list[Turn] = []
    system = "\n\n".join(content for role, content in turns if role == "system")
    for role, content in turns:
        if role == "system":
            continue
        if role == "user" and system:
            content, system = f"{system}\n\n{content}", ""
        if out and out[-1][0] == role:
            content = f"{out.pop()[1]}\n\n{content}"
        out.append((role, content))
    return out


def _refused(error: TemplateRefused, turns: Sequence[Turn]) -> BaseModelError:
    """Return the error of a template with its own message, unless that quotes a text."""
    said = (str(error).strip().splitlines() or [""])[0][:200].rstrip(".")
    if not said or any(content[:QUOTED] in said for _, content in turns if len(content) > 3):
        said = error.kind
    return refusal(
        BaseModelError, "template-refused", message=said, names=[role for role, _ in turns]
    )
