"""The versions that both sides of a network need alike: of messages, and of the records that are made from them.

A participant states its versions when it joins and whenever it connects, the coordinator in each of its answers. Where they differ, the
coordinator refuses, or the participant ends; no work is done.
"""

from __future__ import annotations

from tequio.core.errors import NetworkError
from tequio.core.messages import FORMAT
from tequio.ledger.chain import RECORD_VERSION

SPEAKS = f"{FORMAT}, tequio-record-{RECORD_VERSION}"
SPOKEN = "tequio-speaks"  # the header in which each side states it
DIFFERS = 426  # the status that refuses another version


def same_version(theirs: str) -> bool:
    """Return whether the other side, which states `theirs`, has the versions of this one."""
    return theirs == SPEAKS


def difference(theirs: str, whose: str, ours: str = SPEAKS) -> NetworkError:
    """Return the error that names both versions. whose: "The coordinator at …", which has `theirs`; `ours` is of the one who reads it."""
    what = f"{whose} and this machine have different versions of Tequio."
    why = f"{whose} has {_stated(theirs)}, this machine has {_stated(ours)}."
    fix = "Install the same version of Tequio on both; runs that have begun can be continued with the newer one."
    return NetworkError(what, why, fix)


def _stated(versions: str) -> str:
    earlier = "an earlier version, which does not state itself (tequio-record-1)"
    return f"version {versions[:100]!r}" if versions else earlier
