"""Numbers, units and dates as each language writes them.

A missing number is a dash, never `nan`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Concatenate, ParamSpec

from tequio.core.durations import parts_of
from tequio.core.texts.words import Lang

NARROW = "\u202f"
NBSP = "\u00a0"
DASH = "–"
LARGEST = 1e60
Rest = ParamSpec("Rest")
MONTHS = {
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    "es": (
        *("enero", "febrero", "marzo", "abril", "mayo", "junio"),
        *("julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre"),
    ),
}


def finite(value: object) -> float | None:
    """The value as a float;

    None when it is missing, not a number, not finite, or larger than any measure.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) <= LARGEST else None


def perplexity(loss: float | None) -> float | None:
    """e^loss; None where that is larger than any number."""
    return None if loss is None or loss > 700 else math.exp(loss)


def _known(
    write: Callable[Concatenate[Numbers, float, Rest], str],
) -> Callable[Concatenate[Numbers, object, Rest], str]:
    """Writes a dash for whatever is no finite number."""

    @wraps(write)
    def written(self: Numbers, value: object, /, *args: Rest.args, **options: Rest.kwargs) -> str:
        number = finite(value)
        return DASH if number is None else write(self, number, *args, **options)

    return written


@dataclass(frozen=True)
class Numbers:
    """Formatting for one language. Spanish: decimal point, thin space between thousands (RAE)."""

    lang: Lang

    @_known
    def fixed(self, number: float, digits: int = 0) -> str:
        """1234.5 -> 1,234.5 (en), 1 234.5 (es)."""
        text = f"{abs(number):,.{digits}f}"
        if self.lang == "es":
            text = text.replace(",", NARROW if abs(number) >= 10_000 else "")
        return ("−" if number < 0 and float(f"{number:.{digits}f}") != 0 else "") + text

    @_known
    def signed(self, number: float, digits: int = 1) -> str:
        """With + or −, and nothing before a zero."""
        return ("+" if float(f"{number:.{digits}f}") > 0 else "") + self.fixed(number, digits)

    def bound(self, value: float) -> str:
        """One decimal; more where a bound close to zero would else lose its sign."""
        digits = next((d for d in (1, 2, 3) if value == 0 or abs(value) >= 0.5 * 10.0**-d), 4)
        return self.signed(value, digits)

    @_known
    def percent(self, number: float, digits: int = 1, sign: bool = False) -> str:
        """0.123 -> 12.3% (en), 12.3 % (es)."""
        text = self.signed(100 * number, digits) if sign else self.fixed(100 * number, digits)
        return text + ("%" if self.lang == "en" else f"{NARROW}%")

    @_known
    def plain(self, number: float) -> str:
        """A whole number as a name, such as a seed: no thousands, no sign for plus."""
        return f"{number:.0f}"

    @_known
    def brief(self, number: float) -> str:
        """A number with the decimals it has, three at most."""
        digits = next((d for d in (0, 1, 2) if abs(number - round(number, d)) < 1e-9), 3)
        return self.fixed(number, digits)

    @_known
    def perplexity(self, number: float) -> str:
        """Three figures or so: 8.42, 21.4, 1,234."""
        return self.fixed(number, 2 if number < 10 else 1 if number < 1000 else 0)

    def between(self, low: str, high: str) -> str:
        """A range in words: 'low to high'."""
        return f"{low}{NBSP}{'to' if self.lang == 'en' else 'a'}{NBSP}{high}"

    @_known
    def scaled(self, number: float, units: tuple[str, ...], step: float) -> str:
        """Three figures with the unit that fits."""
        index = 0
        while abs(number) >= step and index < len(units) - 1:
            number, index = number / step, index + 1
        digits = 0 if index == 0 or abs(number) >= 100 else 1 if abs(number) >= 10 else 2
        return f"{self.fixed(number, digits)}{NBSP}{units[index]}"

    def size(self, count: object) -> str:
        """Bytes in powers of 1000."""
        return self.scaled(count, ("B", "kB", "MB", "GB", "TB"), 1000)

    @_known
    def energy(self, number: float) -> str:
        """In mWh, Wh, kWh or MWh."""
        hours = number / 3600
        for unit, size in (("mWh", 1e-3), ("Wh", 1.0), ("kWh", 1e3), ("MWh", 1e6)):
            scaled = hours / size
            if abs(scaled) < 1000 or unit == "MWh":
                break
        return f"{self.fixed(scaled, 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0)}{NBSP}{unit}"

    @_known
    def mass(self, number: float) -> str:
        """Grams of CO2e: mg below a tenth of a gram, then g, kg, t."""
        if 0 < abs(number) < 0.1:
            return f"{self.fixed(1000 * number, 1 if abs(number) >= 1e-4 else 3)}{NBSP}mg"
        text = self.scaled(number, ("g", "kg", "t"), 1000)
        return (
            text
            if abs(number) >= 1000
            else f"{self.fixed(number, 0 if abs(number) >= 100 else 1)}{NBSP}g"
        )

    def money(self, amounts: Mapping[str, float]) -> str:
        """Amounts by currency, none converted; small ones with the digits that they need."""
        parts = []
        for currency, amount in sorted(amounts.items()):
            size = abs(amount)
            digits = 2 if size >= 1 or size == 0 else min(6, 1 - math.floor(math.log10(size)))
            parts.append(f"{self.fixed(amount, digits)}{NBSP}{currency}")
        return " + ".join(parts) or DASH

    @_known
    def duration(self, number: float) -> str:
        """The two largest units: 2 d 3 h, 1 h 12 min, 3 min 20 s, 45 s."""
        if number < 59.5:
            return f"{self.fixed(number, 1 if number < 10 else 0)}{NBSP}s"
        (count, name), (left, rest) = parts_of(number)
        text = f"{self.fixed(count)}{NBSP}{name}"
        return f"{text} {left}{NBSP}{rest}" if left else text

    def date(self, text: object) -> str:
        """An ISO time as a date in words; anything else unchanged."""
        try:
            moment = datetime.fromisoformat(str(text))
        except ValueError:
            return str(text) if text else DASH
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC)
        month = MONTHS[self.lang][moment.month - 1]
        day = (
            f"{moment.day} {month} {moment.year}"
            if self.lang == "en"
            else f"{moment.day} de {month} de {moment.year}"
        )
        return f"{day}, {moment:%H:%M}{NBSP}UTC"
