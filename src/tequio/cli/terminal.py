"""Print on terminals and into logs that cannot show every character: none is worth a traceback."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from types import MappingProxyType

PLAIN = MappingProxyType(
    {
        "…": "...", "–": "-", "—": "-", "−": "-", "‑": "-", "·": "*", "•": "*", "×": "x", "±": "+/-", "→": "->",
        "←": "<-", "≤": "<=", "≥": ">=", "≈": "~", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'",
        "’": "'", "€": "EUR", "£": "GBP", "α": "alpha", "λ": "lambda", "ε": "epsilon", "δ": "delta", "µ": "u",
        "σ": "sigma", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ł": "l", "Ł": "L", "ı": "i",
        "\u00a0": " ", "\u202f": " ", "✓": "ok", "✗": "x", "█": "#", "▏": "|", "━": "-", "╸": "-", "╺": "-",
    }
)  # fmt: skip
NAME = "tequio-plain"


def plain(error: UnicodeError) -> tuple[str, int]:
    """Return what stands in for characters that an encoding lacks: a near one, else a question mark (a codec's error handler)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_near, error.object[error.start : error.end])), error.end


def _near(letter: str) -> str:
    if letter in PLAIN:
        return PLAIN[letter]
    if "\u2500" <= letter <= "\u257f":  # lines of tables
        return "-" if letter in "─━═" else "|" if letter in "│┃║" else "+"
    parts = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return parts or "?"


def prepare_streams() -> None:
    """Let standard output and error replace what they cannot show, whatever the locale is; other settings stay."""
    codecs.register_error(NAME, plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != NAME:
            stream.reconfigure(errors=NAME)


def shows_all() -> bool:
    """Whether standard output can show every character."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("_", "-").startswith("utf")
