"""Run a federation in this process: begin, or continue what was cut off, at once or in a thread.

The commands `tequio run` and `tequio start` come here too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tequio.api.federation import FEDERATION, Federation, as_federation
from tequio.api.losses import LOSSES, check_losses, with_losses, write_losses
from tequio.api.runs import Run
from tequio.config import changes, load_federation, stored
from tequio.core.errors import RunError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import LEDGER, RunFolder

if TYPE_CHECKING:
    from tequio.app.stages import Outcome, Watch
    from tequio.core.protocols import LocalTerm


def run(
    federation: Federation | Run | str | Path | Mapping[str, object],
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    counterfactuals: bool = False,
    workers: int = 0,
    wait: bool = True,
    losses: Sequence[LocalTerm] = (),
) -> Run:
    """Run a federation on this machine, and return the run.

    Args:
        federation: as `tequio.load_federation` returns it, or what that takes; or a run that was
            cut off,
            which is continued by its record.
        folder: of the run, new or empty. Default: `runs/NAME-SEED` beside federation.toml, or here.
        resume: continue the run where the folder holds one of the same federation already; a
            finished one is
            returned as it is.
        counterfactuals: also train the baselines that the report compares with. A run that is
            continued does
            as it began.
        workers: participants side by side; 0: as cores and memory allow. The result does not depend
            on it.
        wait: False returns as soon as the rounds can begin; `Run.rounds` then yields each as it is
            committed.
        losses: your own terms of the training loss, as objects: see
            `tequio.core.protocols.LocalTerm`.

    Raises:
        TequioError: whatever is wrong in settings, data or base, before anything is trained.
    """
    if isinstance(federation, Run):
        return _resumed(federation.folder, workers, wait, losses)
    found = with_losses(as_federation(federation), losses)
    target = Path(folder) if folder is not None else default_folder(found)
    if resume and (target / LEDGER).is_file():
        _check_same(found, target)
        return _resumed(target, workers, wait, losses)
    work = partial(begin, found, target, counterfactuals, workers, losses)
    return _driven(work, target, wait)


def default_folder(federation: Federation) -> Path:
    """Return where a run goes that is given no folder: below that of federation.toml, else below
    the working folder.
    """
    home = Path() if federation.file is None else federation.file.resolve().parent
    return home / "runs" / f"{federation.name}-{federation.seed}"


def begin(
    federation: Federation,
    folder: Path,
    counterfactuals: bool,
    workers: int,
    losses: Sequence[LocalTerm],
    watch: Watch,
) -> Outcome:
    """Begin the run in a new folder and bring it to its end.

    What came from Python is written there as ordinary files first.
    """
    from tequio.algorithms.registry import known_terms
    from tequio.app.simulation.run import start

    source = federation.source()
    settings = federation.settings
    with ExitStack() as stack:
        if losses:
            stack.enter_context(known_terms(losses))
        if source is None:
            made = RunFolder.create(folder)
            source = federation.write(made.path), None
            write_losses(made, losses)
            settings = load_federation(source[0])
        return start(settings, folder, counterfactuals, watch=watch, workers=workers, source=source)


def go_on(
    folder: Path, workers: int, losses: Sequence[LocalTerm], as_recorded: bool, watch: Watch
) -> Outcome:
    """Continue a run that was cut off, once it is known that its own terms of the loss are the
    same.

    Raises RunError where a term of the record is missing or is another one.
    """
    from tequio.algorithms.registry import known_terms
    from tequio.app.simulation.run import resume as resume_run

    with ExitStack() as stack:
        if (RunFolder.open(folder).path / LOSSES).is_file() or losses:
            check_losses(folder, losses)
            stack.enter_context(known_terms(losses))
        return resume_run(folder, watch, workers, as_recorded)


def _resumed(folder: Path, workers: int, wait: bool, losses: Sequence[LocalTerm]) -> Run:
    return _driven(partial(go_on, folder, workers, losses, False), folder, wait)


def _driven(work: Callable[[Watch], Outcome], folder: Path, wait: bool) -> Run:
    """Do the work here, or in a thread once its ledger is there."""
    if wait:
        from tequio.app.stages import silent

        work(silent)
        return Run(folder)
    from tequio.api.background import Background

    background = Background(work)
    background.until((folder / LEDGER).is_file)
    return Run(folder, background)


def _check_same(federation: Federation, folder: Path) -> None:
    """Raise RunError unless the run in this folder is of this federation, with the same data from
    Python.
    """
    from tequio.app.run_files import config_from_header, recorded_header
    from tequio.ledger.record import Ledger

    run = RunFolder.open(folder)
    with Ledger.open(run.ledger_path, read_only=True) as ledger:
        then = config_from_header(recorded_header(ledger, run), run.ledger_path)
    now = federation.settings
    if federation.inputs:
        roster = [
            entry.model_copy(
                update={"file": folder.resolve() / f"inputs/participants/{entry.name}.toml"}
            )
            if entry.name in federation.inputs
            else entry
            for entry in now.participants
        ]
        now = now.model_copy(update={"participants": roster})
    differ = changes(stored(now), stored(then))
    for relative, content in federation.texts() if federation.inputs else ():
        file = folder / relative
        if relative != FEDERATION and (not file.is_file() or file.read_bytes() != content):
            differ.append(f"the file {relative}")
    if differ:
        raise refusal(
            RunError, "run-of-another-federation", run=str(folder), differences="; ".join(differ)
        )
