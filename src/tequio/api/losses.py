"""Terms of the training loss that are objects of this process: known by name while a run goes on,
and the same when it resumes.

The run records name and strength like those of any other term, and `inputs/losses.json` a digest of
what computes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

from tequio.api.federation import Federation
from tequio.core.errors import ConfigError, RunError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder

if TYPE_CHECKING:
    from tequio.core.protocols import LocalTerm

LOSSES = "inputs/losses.json"


def with_losses(federation: Federation, losses: Sequence[LocalTerm]) -> Federation:
    """Return the federation with these terms in `[local] terms`.

    Raises ConfigError for a name that is taken.
    """
    if not losses:
        return federation
    from tequio.algorithms.registry import LOCAL

    terms = dict(federation.settings.local.terms)
    for loss in losses:
        if loss.name in LOCAL or loss.name in terms:
            raise refusal(ConfigError, "loss-name-taken", name=loss.name)
        terms[loss.name] = float(loss.strength)
    return federation.with_settings({"local.terms": terms})


def write_losses(folder: RunFolder, losses: Sequence[LocalTerm]) -> None:
    """Record the digests of these terms in a run's folder."""
    if losses:
        folder.write_atomic(LOSSES, json.dumps(_digests(losses), indent=1).encode())


def check_losses(folder: Path, losses: Sequence[LocalTerm]) -> None:
    """Raise RunError unless these are the terms with which the run began."""
    from tequio.app.run_files import json_table

    file = folder / LOSSES
    then = json_table(file) if file.is_file() else {}
    now = _digests(losses)
    if differ := sorted(
        name for name in then.keys() | now.keys() if then.get(name) != now.get(name)
    ):
        raise refusal(RunError, "losses-differ", run=str(folder), names=differ)


def _digests(losses: Sequence[LocalTerm]) -> dict[str, str]:
    return {loss.name: _digest(loss) for loss in losses}


def _digest(loss: LocalTerm) -> str:
    """Return the SHA-256 of the code of `added`, and of the numbers and words that the object
    holds.
    """
    code: CodeType = type(loss).added.__code__
    held = {
        k: v for k, v in getattr(loss, "__dict__", {}).items() if isinstance(v, str | int | float)
    }
    parts = [type(loss).__qualname__, loss.name, repr(loss.strength), repr(sorted(held.items()))]
    return hashlib.sha256("\0".join([*parts, *_code(code)]).encode()).hexdigest()


def _code(code: CodeType) -> Iterator[str]:
    """Yield what a function does, without where it was written."""
    yield from (code.co_code.hex(), repr(code.co_names), repr(code.co_varnames))
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _code(value)
        else:
            yield repr(value)
