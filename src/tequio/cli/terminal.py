"""Print on terminals and into logs that cannot show every character: none is worth a traceback."""

import codecs
import io
import os
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
    """Return what stands in for characters that an encoding lacks: a near one, else a question mark
    (a codec's error handler).
    """
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


def read_names_as_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where names of files would be read in another
    encoding, with the streams as they are.

    Names in configuration files are UTF-8, so in a POSIX or Latin-1 locale a path with other
    letters than ASCII would not be found.
    """
    if sys.getfilesystemencoding().lower() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    environment = {
        "PYTHONIOENCODING": getattr(sys.stdout, "encoding", None) or "ascii",
        **os.environ,
        "PYTHONUTF8": "1",
    }
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def prepare_streams() -> None:
    """Let standard output and error replace what they cannot show, whatever the locale is; other
    settings stay.
    """
    codecs.register_error(NAME, plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != NAME:
            stream.reconfigure(errors=NAME)


def shows_all() -> bool:
    """Whether standard output can show every character."""
    return (
        (getattr(sys.stdout, "encoding", None) or "ascii")
        .lower()
        .replace("_", "-")
        .startswith("utf")
    )
