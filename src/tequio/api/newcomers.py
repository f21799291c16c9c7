"""A newcomer starts from a finished federation."""

from pathlib import Path

from tequio.api.federation import newcomer_files
from tequio.api.runs import Run, open_run
from tequio.ledger.folder import RunFolder


def adapt(
    run: Run | str | Path,
    participant: str | Path,
    folder: str | Path | None = None,
    *,
    data: object = None,
    base: str = "main",
) -> Run:
    """Make a newcomer's personal model from few examples, and measure whether that beats starting
    alone.

    Nothing is written into the run.

    Args:
        run: a finished run or its folder.
        participant: the newcomer's participant.toml; with `data`, its name.
        folder: a new folder for its models and its record. Default: `adapted/NAME` here.
        data: the newcomer's data, as `Federation.with_participants` takes them.
        base: which base of the run, where it has several.

    Returns:
        The newcomer's own record as a run of one participant: `adapt(...)["name"].gain`.
    """
    from tequio.app.models.adapt import adapt as make

    home = run.folder if isinstance(run, Run) else Path(run)
    file = Path(participant)
    out = Path("adapted") / file.stem if folder is None else Path(folder)
    if data is not None:
        made = RunFolder.create(out, private=True)
        kind = open_run(home).summary["task"]
        for relative, content in newcomer_files(str(participant), data, kind):
            made.write_atomic(relative, content, private=True)
        file = out / f"inputs/participants/{participant}.toml"
    make(home, file, out, base)
    return open_run(out)
