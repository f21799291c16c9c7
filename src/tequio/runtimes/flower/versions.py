"""The versions that both sides of a network need alike: of messages, and of the records that are
made from them.

A participant states its versions when it joins and whenever it connects, the coordinator in each of
its answers. Where they differ, the coordinator refuses, or the participant ends; no work is done.
"""

from typing import Literal

from tequio.core.bounds import one_line
from tequio.core.errors import NetworkError
from tequio.core.messages import FORMAT
from tequio.core.texts.words import refusal
from tequio.ledger.chain import RECORD_VERSION

SPEAKS = f"{FORMAT}, tequio-record-{RECORD_VERSION}"
SPOKEN = "tequio-speaks"  # the header in which each side states it
DIFFERS = 426  # the status that refuses another version


def same_version(theirs: str) -> bool:
    """Return whether the other side, which states `theirs`, has the versions of this one."""
    return theirs == SPEAKS


def difference(
    theirs: str, whose: Literal["coordinator", "participant"], ours: str = SPEAKS
) -> NetworkError:
    """Return the error that names both versions. whose: the side that has `theirs`;

    `ours` is of the one that reads it.
    """
    stated, own = (  # the earliest stated none
        one_line(versions[:100]) or "tequio-record-1" for versions in (theirs, ours)
    )
    return refusal(NetworkError, "versions-differ", side=whose, stated=stated, own=own)
