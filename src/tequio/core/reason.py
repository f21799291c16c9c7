"""Why something is as it is, as a code with facts: records, events and plans hold these, and
`tequio.core.texts` has the sentences.

A failure crosses the network as words with its reason at their end, so that versions before codes
show the words.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tequio.core.bounds import TEXT, read_json

CODE = "[a-z0-9]+(?:-[a-z0-9]+)*"
MARKED = re.compile(rf"(?P<words>.*) \[(?P<code>{CODE}) (?P<facts>\{{.*\}})\]", re.DOTALL)


@dataclass(frozen=True)
class Reason:
    """A code in short words with hyphens, and facts:

    JSON values such as numbers, names and further reasons in their recorded form.

    Never a text or a label of a sample. Codes and the names of facts are those of the group
    `reason` in the files of `tequio.core.texts`.
    """

    code: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Return it as records, plans and `--json` hold it."""
        return {"code": self.code, "facts": dict(self.facts)}

    def after(self, words: str) -> str:
        """Return the words with this reason at their end, for `split_words`; the words alone where
        both are longer than a message holds, and the reason would be cut off.
        """
        whole = f"{words} [{self.code} {json.dumps(dict(self.facts), ensure_ascii=False)}]"
        return whole if len(whole.encode()) <= TEXT else words


def split_words(words: str) -> tuple[str, Reason | None]:
    """Return words without the reason at their end, and that reason;

    None where they have none, as of an earlier version.
    """
    found = MARKED.fullmatch(words)
    try:
        return (
            (words, None)
            if found is None
            else (found["words"], Reason(found["code"], read_json(found["facts"])))
        )
    except ValueError:
        return words, None
