"""Matching labels: a label as a file writes it, to one that the federation allows."""

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from tequio.core.errors import DataError
from tequio.core.grouping import grouped
from tequio.core.texts.words import refusal

MISSING = frozenset({"", "nan", "null", "<na>", "\\n", "#n/a"})
WHOLE = re.compile(r"(0|-?[1-9]\d*)(\.0+)?")
PAIRS = ({"true", "false"}, {"0", "1"})
ACROSS = {"true": "1", "false": "0", "1": "true", "0": "false"}
BETWEEN = re.compile(r"[,;|/]")


class BadRow(Exception):
    """A row cannot be used: a code of `core.texts` with facts, which never quote a text or a
    label.
    """

    def __init__(self, code: str, /, **facts: Any) -> None:
        self.code, self.facts = code, facts
        super().__init__(code)

    def at(self, place: str) -> DataError:
        """Return the error that names the row's place."""
        return refusal(DataError, self.code, file=place, **self.facts)


class Labels:
    """Match values to the allowed labels: exactly first, then by type, case and Unicode form.

    Two allowed labels that differ only in case or form are matched exactly only.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._exact = {label.strip(): label for label in labels}
        forms = grouped((form_of(label), label) for label in labels)
        self._by_form = {form: of[0] for form, of in forms.items() if len(of) == 1}
        self._two_values = set(self._by_form) in PAIRS

    def __bool__(self) -> bool:
        return bool(self._exact)

    def find(self, value: Any, names: Sequence[str] = ()) -> str | None:
        """Return the allowed label that a value means, None if none. names: of a class number."""
        if not isinstance(value, str | int | float):
            return None
        exact = str(value).strip() if not isinstance(value, bool | float) else ""
        if exact in self._exact:
            return self._exact[exact]
        if isinstance(value, int) and 0 <= value < len(names) and not isinstance(value, bool):
            return self.find(names[value])
        form = form_of(value)
        if form in self._by_form:
            return self._by_form[form]
        return self._by_form.get(ACROSS.get(form, "")) if self._two_values else None

    def is_exact(self, value: str) -> bool:
        """Return whether a field is an allowed label as it stands."""
        return value.strip() in self._exact

    def match(self, value: Any, names: Sequence[str] = ()) -> str | None:
        """Return the allowed label, or None for a row that has no label. Raises BadRow."""
        found = self._exact.get(value) if type(value) is str else None
        found = self.find(value, names) if found is None else found
        if found is not None:
            return found
        if is_missing(value) or (names and value == -1):  # -1: a class label that is not given
            return None
        raise self._unknown(value, names)

    def _unknown(self, value: Any, names: Sequence[str]) -> BadRow:
        plain = value if isinstance(value, str) else ""
        parts = [part.strip(" []\"'") for part in BETWEEN.split(plain)]
        if isinstance(value, list | tuple | set) or (
            len(parts) > 1 and any(self.find(p) is not None for p in parts)
        ):
            return BadRow("several-labels")
        if _letters(plain) and any(_letters(label) == _letters(plain) for label in self._exact):
            return BadRow("label-nearly")
        return BadRow("label-of-a-class" if names else "label-unknown")


def is_missing(value: Any) -> bool:
    """Return whether a value stands for no label."""
    if isinstance(value, str):
        return value.strip().casefold() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def form_of(value: str | float) -> str:
    """Return one spelling for values that mean the same: true, 1 for 1.0, folded text in NFC."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    text = " ".join(unicodedata.normalize("NFC", str(value)).casefold().split())
    text = unicodedata.normalize("NFC", text)
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if c.isalnum())
