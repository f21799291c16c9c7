"""From data to personal models in one call, as `tequio start` does it without questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tequio.api.data import Kind, jsonl
from tequio.api.runs import Run
from tequio.ledger.folder import RunFolder


def start(
    data: str | Path | Sequence[str | Path] | Mapping[str, object],
    folder: str | Path | None = None,
    *,
    name: str = "my-federation",
    by: str | None = None,
    columns: Mapping[str, str] | None = None,
    task: Kind | None = None,
    base: str | None = None,
    rounds: int | None = None,
    wait: bool = True,
) -> Run:
    """Look at data, choose settings for this machine, write the files of a federation, and run it.

    Args:
        data: files, a folder or a pattern, each file a participant; or a mapping from participant
            to rows, as
            `Federation.with_participants` takes them.
        folder: a new folder for the files and the run. Default: NAME here.
        name: of the federation.
        by: a column of one table, each value of which becomes a participant.
        columns: role -> column, such as `{"text": "comment", "label": "mood"}`.
        task: what is learnt. None: as the data suggest.
        base: a base model: id, folder or .gguf file. None: a small one, fetched once.
        rounds: of training. None: few.
        wait: as for `tequio.run`.
    """
    from tequio.api.running import run
    from tequio.app.start.naming import plain_name
    from tequio.app.start.prepare import check, columns_of, look, new_folder, write
    from tequio.app.start.proposal import choose_base, propose

    out = new_folder(None if folder is None else Path(folder), plain_name(name, "my-federation"))
    if isinstance(data, Mapping):
        files = _written(data, out, task)
    else:
        files = [Path(data)] if isinstance(data, str | Path) else [Path(file) for file in data]
    named = columns_of([f"{role}={column}" for role, column in (columns or {}).items()])
    seen = look(files, by, named, None, task)
    proposal = propose(seen.found, name, choose_base(seen.found.kind, base), rounds)
    if not seen.groups:
        check(proposal, out)
    return run(write(proposal, seen, out), wait=wait)


def _written(data: Mapping[str, object], out: Path, kind: Kind | None) -> list[Path]:
    """Write one file per participant into the folder `data`, readable by its owner alone."""
    folder = RunFolder(out)
    rows = {name: jsonl(source, kind, name) for name, source in data.items()}
    return [
        folder.write_atomic(f"data/{name}.jsonl", content, private=True)
        for name, content in rows.items()
    ]
