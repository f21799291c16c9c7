"""What the tables of both configuration files share: how they are read, and the types of their
keys.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tequio.core.bounds import TEXT
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.words import ENGLISH

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[
    float, Field(gt=0, le=1000, allow_inf_nan=False)
]  # above, no step means anything, and float32 overflows
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # of money; zero is a price
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

# values of one list of [personal]; each is a candidate or a fit, and messages bound the number of
# both
MOST_TRIED = 64
MOST_PULLED = 32  # values of personal.ditto, each of which is a fit and a candidate


class Unfit(ValueError):
    """A value that cannot be used, with the reason that `explain` shows beside its key."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(ENGLISH.reason(reason))


def short_enough(text: str) -> str:
    """Return words that travel in messages as they are.

    Raises ValueError where they are longer than a message may hold.
    """
    if (size := len(text.encode("utf-8", "replace"))) > TEXT:
        raise Unfit(Reason("text-too-long", {"size": size, "most": TEXT}))
    return text


Words = Annotated[str, AfterValidator(short_enough)]


def printable(text: str) -> str:
    """Return a path or a name as it is.

    Raises ValueError where it holds a tab or a line end, as a Windows path in double quotes does.
    """
    if set(text) & set("\t\n\r\b\f"):
        raise Unfit(Reason("path-with-tab"))
    return text


def _printable_path(path: Path) -> Path:
    printable(str(path))
    return path


def _printable_paths(paths: Path | list[Path]) -> Path | list[Path]:
    for path in paths if isinstance(paths, list) else [paths]:
        printable(str(path))
    return paths


_Written = Annotated[Path, Field(strict=False)]  # a path is written as text
File = Annotated[_Written, AfterValidator(_printable_path)]
Files = Annotated[
    _Written | Annotated[list[_Written], Field(min_length=1)], AfterValidator(_printable_paths)
]  # one, or several


class Section(BaseModel):
    """A table of a file: unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def checked(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that refuses each text which `check` refuses, in the words of its
    ConfigError or ValueError.
    """

    def run(text: str) -> str:
        try:
            check(text)
        except ConfigError as error:
            raise Unfit(error.as_reason()) from None
        return text

    return AfterValidator(run)


def refuse(*faults: tuple[object, Reason]) -> None:
    """Raise Unfit with the reason of the first fault that holds. faults:

    (whether it holds, reason).
    """
    for holds, reason in faults:
        if holds:
            raise Unfit(reason)
