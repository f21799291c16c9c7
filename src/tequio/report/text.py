"""The report's text in English and Spanish, read from `text.toml`: one table a key, with `en` and `es`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from tequio.report.format import Lang

WORDS: dict[str, dict[str, str]] = tomllib.loads(
    files("tequio.report").joinpath("text.toml").read_text(encoding="utf-8")
)
CONTRACTED = re.compile(r"\b(a|de) el ")  # al, del


@dataclass(frozen=True)
class Words:
    """The text in one language."""

    lang: Lang

    def __call__(self, key: str, **values: object) -> str:
        """The text of `key` with its placeholders filled in. Raises KeyError for an unknown key."""
        text = WORDS[key][self.lang].format(**values)
        return CONTRACTED.sub(lambda found: "al " if found[1] == "a" else "del ", text) if self.lang == "es" else text

    def plural(self, key: str, count: int, shown: str) -> str:
        """`key.one` for 1, `key.zero` for 0 where there is one, else `key.many`, with `{n}` = `shown`."""
        form = "one" if count == 1 else "zero" if count == 0 and f"{key}.zero" in WORDS else "many"
        return self(f"{key}.{form}", n=shown)

    def name(self, group: str, value: object) -> str:
        """The word for a known value of a group (`verdict`, `method`…); an unknown value as it is written."""
        key = f"{group}.{value}"
        return self(key) if key in WORDS else str(value)
