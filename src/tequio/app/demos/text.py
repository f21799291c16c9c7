"""Pure text functions for the demos: mask what identifies people, and keep each text in one place
only.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EMAIL = re.compile(r"<?[^\s@<>,;:()\"'\[\]{}|/=]+@[\w-]+(?:\.[\w-]+)+>?")
URL = re.compile(r"(?:https?:/+|www\.|\bt\.co/)\S*", re.IGNORECASE)
PHONE = re.compile(
    r"(?<!\w)(?:\+\d{1,3}[\s.-]?|\d{1,3}[\s.-]|1)?(?:\(\d{3}\)\s?|\d{3}[\s.-]?)\d{3}[\s.-]?\d{4}(?!\w)"
)
NUMBER = re.compile(r"(?<!\w)#?\d{7,}(?!\w)")
# A booking reference: six capitals and digits mixed, but not a flight number such as UA1234.
REFERENCE = re.compile(r"(?<!\w)(?![A-Z]{2}\d{4})(?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{6}(?!\w)")
HANDLE = re.compile(r"@(\w+)")
MASK = re.compile(r"<(?:email|url|phone|number|code)>")


@dataclass(frozen=True)
class Sample:
    """One text, with its label in a classification demo."""

    text: str
    label: str | None = None

    def as_row(self) -> dict[str, str]:
        """The JSONL row."""
        return (
            {"text": self.text} if self.label is None else {"text": self.text, "label": self.label}
        )


def mask_email(text: str) -> str:
    """E-mail addresses become `<email>`."""
    return EMAIL.sub("<email>", text)


def mask_people(text: str, keep: Sequence[str] = ()) -> str:
    """Mask e-mail, URL, phone, long number, booking reference and each @handle not in `keep` (lower
    case).
    """
    text = URL.sub("<url>", mask_email(text))
    text = NUMBER.sub("<number>", PHONE.sub("<phone>", text))
    text = REFERENCE.sub("<code>", text)
    return HANDLE.sub(lambda hit: hit[0] if hit[1].lower() in keep else "@user", text)


def normalise(text: str) -> str:
    """The form in which two texts count as the same: words only; no case, mask, @handle or
    leading RT.
    """
    bare = HANDLE.sub(" ", MASK.sub(" ", text)).casefold()
    words = re.findall(r"[^\W_]+", bare)
    return " ".join(words[1:] if words[:1] == ["rt"] else words)


def shuffled(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """Order by sha256 of seed and normalised text: the same on every machine, whatever order
    came in.
    """

    def key(sample: Sample) -> tuple[bytes, str, str]:
        sha = hashlib.sha256(f"{seed}\n{normalise(sample.text)}".encode()).digest()
        return sha, sample.text, sample.label or ""

    return sorted(samples, key=key)


def unique(
    places: Mapping[str, Iterable[Sample]],
) -> tuple[dict[str, list[Sample]], dict[str, int]]:
    """Keep each normalised text once over all places, the first one; also how many each place lost.

    A text without two words left after normalising says nothing and is dropped too (not counted).
    """
    seen: set[str] = set()
    unique_samples: dict[str, list[Sample]] = {}
    removed: dict[str, int] = {}
    for place, samples in places.items():
        unique_samples[place], removed[place] = [], 0
        for sample in samples:
            key = normalise(sample.text)
            if key in seen:
                removed[place] += 1
            elif " " in key:
                seen.add(key)
                unique_samples[place].append(sample)
    return unique_samples, removed


def balanced(samples: Sequence[Sample], total: int) -> list[Sample]:
    """The first `total // classes` samples of each class, in the given order; fewer if a class is
    short.
    """
    quota = total // max(1, len({sample.label for sample in samples}))
    taken: dict[str | None, int] = {}
    chosen: list[Sample] = []
    for sample in samples:
        if taken.get(sample.label, 0) < quota:
            taken[sample.label] = taken.get(sample.label, 0) + 1
            chosen.append(sample)
    return chosen
