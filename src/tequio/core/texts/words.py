"""The texts in English and Spanish, read from en.toml and es.toml: key = "text with
{placeholders}".
"""

import json
import re
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from tequio.core.bounds import check_plain
from tequio.core.durations import duration
from tequio.core.errors import TequioError
from tequio.core.reason import Reason, split_words
from tequio.core.texts.earlier import QUOTED, read_reason

Refusal = TypeVar("Refusal", bound=TequioError)
Lang = Literal["en", "es"]
TEXTS: dict[Lang, dict[str, str]] = {
    lang: tomllib.loads(
        files("tequio.core.texts").joinpath(f"{lang}.toml").read_text(encoding="utf-8")
    )
    for lang in get_args(Lang)
}
CONTRACTED = re.compile(r"\b(a|de) el ")  # al, del
AS_WRITTEN = (
    QUOTED,
    "failed",
    "undecodable",
    "foreign-profile",
)  # reasons that quote words of an error or a participant


@dataclass(frozen=True)
class Words:
    """The text in one language."""

    lang: Lang

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of `key` with its placeholders filled in. Raises KeyError for an unknown key."""
        text = TEXTS[self.lang][key].format(**values)
        return (
            CONTRACTED.sub(lambda found: "al " if found[1] == "a" else "del ", text)
            if self.lang == "es"
            else text
        )

    def plural(self, key: str, count: int, shown: str) -> str:
        """`key.one` for 1, `key.zero` for 0 where there is one, else `key.many`, with `{n}` =
        `shown`.
        """
        form = (
            "one"
            if count == 1
            else "zero"
            if count == 0 and f"{key}.zero" in TEXTS["en"]
            else "many"
        )
        return self(f"{key}.{form}", n=shown)

    def name(self, group: str, value: object) -> str:
        """The word for a known value of a group (`verdict`, `method`…); an unknown value as it is
        written.
        """
        key = f"{group}.{value}"
        return self(key) if key in TEXTS["en"] else str(value)

    def reason(self, value: object) -> str:
        """The sentence of a reason in any form that `read_reason` takes; code and facts where a
        later version wrote it.
        """
        found = read_reason(value)
        if found is None:
            return ""
        try:
            said = (
                self.filled(f"reason.{found.code}", found.facts)
                .replace("\n\n", " ")
                .replace("\n", " ")
                .strip()
            )
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError, IndexError):
            said = f"{found.code} {json.dumps(dict(found.facts), ensure_ascii=False, default=str)}"
        return (
            said
            if said.isprintable()
            else "".join(char if char.isprintable() else " " for char in said)
        )

    def each(self, reasons: Mapping[str, object]) -> str:
        """Sentences of reasons by name: 'north: no reply. south: …'."""
        return " ".join(
            f"{name}: {self.reason(reason).rstrip('.')}." for name, reason in reasons.items()
        )

    def filled(self, key: str, facts: Mapping[str, Any]) -> str:
        """The text of `key` with facts, each shown as its placeholder says (see `Shown`)."""
        return self(key, **{name: Shown(self, fact) for name, fact in facts.items()})

    def with_texts(self, value: Any) -> Any:
        """A JSON value in which each reason also has its `text`."""
        if isinstance(value, Mapping):
            filled = {key: self.with_texts(item) for key, item in value.items()}
            return (
                filled | {"text": self.reason(value)}
                if value.keys() == {"code", "facts"}
                else filled
            )
        return (
            [self.with_texts(item) for item in value] if isinstance(value, list | tuple) else value
        )


ENGLISH = Words("en")
"""For logs, errors and the terminal, where no language is chosen."""


@dataclass(frozen=True)
class Shown:
    """A fact in a text. {fact:.3g} is a number, {fact:duration} a length of time, {fact:group} the
    word for a name of that group.

    Lists are shown one by one, mappings that are reasons as their sentence, other ones by the text
    that is named like the group.
    """

    words: Words
    value: Any

    def __format__(self, form: str) -> str:
        value = self.value
        if isinstance(value, list | tuple):
            nested = any(
                isinstance(part, Mapping)
                for item in value
                if isinstance(item, Mapping)
                for part in item.values()
            )
            return ("; " if nested else ", ").join(
                format(Shown(self.words, item), form) for item in value
            )
        if isinstance(value, Mapping):
            return self.words.reason(value) if "code" in value else self.words.filled(form, value)
        if value is None:
            return "–"
        if isinstance(value, int | float) and not isinstance(value, bool):
            return duration(value) if form == "duration" else format(value, form)
        return self.words.name(form, value).replace(
            "\n", " "
        )  # a line of a text is a part of an error


def refusal(kind: type[Refusal], code: str, /, **facts: Any) -> Refusal:
    """Build an error of this kind whose words are the lines of the text of `code`: what is wrong,
    why, and what to do.

    facts: those that the text does not show are left out, so that one call may serve several codes.
        A path becomes text.
    """
    shown = {name: facts[name] for name in sorted(needed_facts(code))}
    facts = {name: str(fact) if isinstance(fact, Path) else fact for name, fact in shown.items()}
    what, why, fix = ENGLISH.filled(f"reason.{code}", facts).split("\n")
    return kind(what, why, fix, Reason(code, facts))


def refuse_first(kind: type[TequioError], found: Mapping[str, bool], /, **facts: Any) -> None:
    """Raise the refusal of the first code that is found to hold, if any; see `refusal`."""
    if code := next((code for code, holds in found.items() if holds), None):
        raise refusal(kind, code, **facts)


def needed_facts(code: str) -> set[str]:
    """Return the names of the facts that the text of a reason shows.

    Raises KeyError for an unknown code.
    """
    return {
        name for _, name, _, _ in string.Formatter().parse(TEXTS["en"][f"reason.{code}"]) if name
    }


OURS = re.compile(r"(in-words|fault|hint|got|renew|found|key|short-round|cannot-take)(-|$)")
"""Codes of words that only this side says: a participant could say anything through them."""


def sent_reason(words: str, error: str = "") -> Reason:
    """Return the reason of words that a participant sent: the one at their end, else what the words
    say.

    error: the kind of error that they are of, if any. A reason counts if it is one of this version,
        with just the facts of its text,
    each in one printable line.
    """
    said, reason = split_words(words)
    if reason is not None and not OURS.match(reason.code) and _fits(reason.code, reason.facts):
        return reason
    return read_reason(f"{error}: {said}" if error else said) or Reason(QUOTED, {"words": said})


def _fits(code: str, facts: Mapping[str, Any]) -> bool:
    parts = [
        part for fact in facts.values() for part in (fact if isinstance(fact, list) else [fact])
    ]
    try:
        plain = (
            needed_facts(code) == facts.keys()
            and not facts.keys() & {"command", "next"}
            and all(isinstance(part, str | int | float) for part in parts)
        )
        check_plain(parts)
        shown = plain and ENGLISH.filled(f"reason.{code}", facts)
        return bool(shown) and all(str(part).isprintable() for part in parts)
    except (KeyError, ValueError, OverflowError):
        return False
