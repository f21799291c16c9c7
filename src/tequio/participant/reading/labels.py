"""Matching labels: a label as a file writes it, to one that the federation allows."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from tequio.core.grouping import grouped

MISSING = frozenset({"", "nan", "null", "<na>", "\\n", "#n/a"})
WHOLE = re.compile(r"(0|-?[1-9]\d*)(\.0+)?")
PAIRS = ({"true", "false"}, {"0", "1"})
ACROSS = {"true": "1", "false": "0", "1": "true", "0": "false"}
BETWEEN = re.compile(r"[,;|/]")


class UnknownLabel(Exception):
    """A label is not an allowed one. `why` and `fix` explain it without quoting it."""

    def __init__(self, what: str, why: str, fix: str) -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what)


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
        """Return the allowed label, or None for a row that has no label. Raises UnknownLabel."""
        found = self._exact.get(value) if type(value) is str else None
        found = self.find(value, names) if found is None else found
        if found is not None:
            return found
        if is_missing(value) or (names and value == -1):  # -1: a class label that is not given
            return None
        raise self._unknown(value, names)

    def _unknown(self, value: Any, names: Sequence[str]) -> UnknownLabel:
        allowed = f"[task] labels allows: {', '.join(self._exact)}."
        fix = "Correct the row, or add the label to federation.toml."
        if isinstance(value, list | tuple | set):
            return _several(allowed)
        if isinstance(value, dict):
            return UnknownLabel("the label is an object.", f"Expected a text or a number. {allowed}", fix)
        if isinstance(value, str):
            parts = [part.strip(" []\"'") for part in BETWEEN.split(value)]
            if len(parts) > 1 and any(self.find(part) is not None for part in parts):
                return _several(allowed)
            near = [label for label in self._exact if _letters(label) == _letters(value)]
            if near and _letters(value):
                why = f"It differs from one of them only in case or spaces or signs: {near[0]}. {allowed}"
                return UnknownLabel("the label is unknown.", why, fix)
        if names:
            why = f"It is a number of a class, and the file calls the classes: {', '.join(names)}. {allowed}"
            return UnknownLabel("the label is unknown.", why, "Use these names in [task] labels.")
        if isinstance(value, bool | int | float):
            kind = "true or false" if isinstance(value, bool) else "a number"
            return UnknownLabel("the label is unknown.", f"It is {kind}. {allowed}", fix)
        return UnknownLabel("the label is unknown.", allowed, fix)


def _several(allowed: str) -> UnknownLabel:
    why = f"Several labels per text are not supported. {allowed}"
    fix = "Give each text one label, or run one federation per label with yes and no."
    return UnknownLabel("the label holds several labels.", why, fix)


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
