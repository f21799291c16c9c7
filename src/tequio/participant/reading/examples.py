"""The values that reading gives (examples), takes (columns, options) and reports (what it
found).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["classification", "causal"]
Turn = tuple[str, str]
LEFT_OUT = ("empty", "no_prompt", "no_response", "unlabelled")
ROLES = ("text", "label", "prompt", "response", "input", "messages")


@dataclass(frozen=True)
class Example:
    """Hold one row: a text (or a prompt), with its label or its response.

    turns: a chat of several turns as (role, content), roles being system, user, assistant and tool;
    it ends with an assistant's turn, which is `response`, and `text` holds the turns before it in
    plain writing. None where the chat is one prompt and one response.
    """

    text: str
    label: str | None = None
    response: str | None = None
    turns: tuple[Turn, ...] | None = None

    def chat(self) -> tuple[Turn, ...]:
        """Return the turns; a prompt and its response are two. Empty for a plain text."""
        if self.turns is not None:
            return self.turns
        if self.response is None:
            return ()
        return (("user", self.text), ("assistant", self.response))


@dataclass(frozen=True)
class Columns:
    """Hold the names of columns that the configuration gives; None where it gives none.

    A given name always wins. Otherwise the standard name counts (`text`, `label`, ...), and only
    where that is absent a common one. `input = ""` leaves the input out.
    """

    text: str | None = None
    label: str | None = None
    prompt: str | None = None
    response: str | None = None
    input: str | None = None
    messages: str | None = None

    def given(self) -> dict[str, str]:
        """Return role -> name for each name that was given."""
        return {role: name for role in ROLES if (name := getattr(self, role))}


@dataclass(frozen=True)
class Options:
    """Hold what the configuration says about a file's form; None where the reader detects it."""

    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None


@dataclass(frozen=True)
class Form:
    """Say how a file is written."""

    format: str
    compression: str = ""
    encoding: str = ""
    separator: str = ""
    quoting: str = ""
    header: bool | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileReport:
    """Say what the reader found in one file: its form, the columns used, and counts of rows.

    columns: role -> column. guessed: the roles whose column was guessed. unused: columns that hold
    data and are not used, without those whose name may be data, which `unused_hidden` counts.
    left_out: reason -> rows. `rows` = usable rows + the sum of `left_out`.
    """

    file: str
    form: Form
    columns: Mapping[str, str] = field(default_factory=dict)
    guessed: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    unused_hidden: int = 0
    rows: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON. For the participant's own machine only."""
        form = {name: value for name, value in vars(self.form).items() if name != "notes"}
        return {
            "file": self.file,
            **form,
            "columns": dict(self.columns),
            "guessed": list(self.guessed),
            "unused": list(self.unused),
            "unused_hidden": self.unused_hidden,
            "rows": self.rows,
            "left_out": dict(self.left_out),
            "notes": self.sentences(),
        }

    def sentences(self) -> list[str]:
        """Return what a person should know of this file, one sentence each, without any value."""
        out = [*self.form.notes, *self.notes]
        if self.guessed:
            pairs = ", ".join(f"{role} = {self.columns[role]!r}" for role in self.guessed)
            out.append(f"Columns were guessed: {pairs}. Name them under [data] to be sure.")
        if self.unused or self.unused_hidden:
            names = ", ".join(self.unused)
            more = f"{self.unused_hidden} without a plain name" if self.unused_hidden else ""
            out.append(
                "Columns that hold data and are not used: "
                f"{names}{' and ' * bool(names and more)}{more}."
            )
        return out


@dataclass(frozen=True)
class ReadReport:
    """Say what the reader found in all files of one source."""

    files: tuple[FileReport, ...] = ()

    @property
    def rows(self) -> int:
        """Return the rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def left_out(self) -> dict[str, int]:
        """Return reason -> rows left out, over all files."""
        return {why: sum(file.left_out.get(why, 0) for file in self.files) for why in LEFT_OUT}

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON. For the participant's own machine only."""
        return {
            "rows": self.rows,
            "left_out": self.left_out,
            "files": [file.facts() for file in self.files],
        }
