"""`tequio start`: from data files to personal models in one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tequio.cli import output
from tequio.cli.data import Column, Files, Header, Task, print_found
from tequio.cli.options import Json, Lang, Threads, finish, go_on_with, set_threads, stoppable

if TYPE_CHECKING:
    from tequio.app.start.proposal import Proposal

TRIED = 3  # participants whose command to try the model is shown


def start(
    files: Files,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="New folder for the files and the run. Default: NAME."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the federation.")] = "my-federation",
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="Split one table: each value of this column becomes a participant."
        ),
    ] = None,
    column: Column = None,
    task: Task = None,
    header: Header = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Base model: id, folder or .gguf file. Default: a small one."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="Rounds. Default: few.", min=1)
    ] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only write the files.")] = False,
    threads: Threads = 0,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Look at data files, propose a federation with one participant per file, ask once, run it, and
    show how to use the models.
    """
    from tequio.app.start.naming import plain_name
    from tequio.app.start.prepare import check, columns_of, look, new_folder, write
    from tequio.participant.data import Options

    folder = new_folder(out, plain_name(name, "my-federation"))
    if out is None and folder.name != plain_name(name, "my-federation") and not json:
        output.err.print(
            f"{plain_name(name, 'my-federation')} is there already: this one goes to {folder}."
        )
    seen = look(files, by, columns_of(column or ()), Options(header=header), task)
    if not json:
        print_found(seen.found, starting=True)
        if seen.without_group:
            output.out.print(
                f"- {seen.without_group} rows have no value in the column of --by and are left out."
            )
    from tequio.app.start.proposal import choose_base, propose

    if not json:
        output.err.print("Loading the libraries and the base model…")
    proposal = propose(seen.found, name, choose_base(seen.found.kind, base), rounds)
    counts = {} if seen.groups else check(proposal, folder)
    said: dict[str, Any] = {
        "found": seen.found.facts(starting=True),
        "proposal": proposal.facts(),
        "splits": counts,
    }
    if not json:
        _print_proposal(proposal, counts, folder)
    if not yes:
        if json:
            output.emit(
                {**said, "started": False, "next": "Add --yes to write the files and run."},
                True,
                lambda: None,
            )
            return
        typer.confirm(
            "Write these files and run?" if not prepare else "Write these files?",
            default=True,
            abort=True,
        )
    path = write(proposal, seen, folder)
    if prepare:
        output.emit(
            {**said, "started": False, "federation": str(path)},
            json,
            lambda: output.out.print(f"Wrote {path}. Run it with: tequio run {path}", markup=False),
        )
        return
    _run(path, threads, lang, json, said)


def _run(path: Path, threads: int, lang: Any, json: bool, said: dict[str, Any]) -> None:
    from tequio.api.federation import load_federation
    from tequio.api.running import begin

    set_threads(threads)
    federation = load_federation(path)
    target = path.parent / "runs" / f"{federation.name}-{federation.seed}"
    with output.progress(json) as watch, stoppable(lambda: _resume(path, target)):
        outcome = begin(federation, target, False, 0, (), watch)
    names = federation.participants
    try_it = f'tequio predict {target} {names[0]} "a text"'
    if json:
        finish(
            outcome.folder,
            lang,
            True,
            more={**said, "started": True, "federation": str(path), "next": try_it},
        )
        return
    finish(outcome.folder, lang, False)
    output.say(
        f"The files can be changed and run again: {path}",
        "Try the models, with a text or with --file FILE:",
        *(f'  tequio predict {target} {name} "a text"' for name in names[:TRIED]),
    )


def _resume(path: Path, target: Path) -> str:
    if (target / "ledger.sqlite").exists():
        return go_on_with(f"tequio run --resume {target}")
    return f"Stopped before the run began. The files are written; run them with: tequio run {path}"


def _print_proposal(proposal: Proposal, counts: dict[str, dict[str, int]], folder: Path) -> None:
    facts = proposal.facts()
    kind = "texts to labels" if facts["task"] == "classification" else "a language model"
    sizes = f"{_many(len(facts['participants']), 'participant')}, {_many(facts['rounds'], 'round')}"
    memory = (
        f"{facts['memory_gib']:.1f} GiB of memory, of which {facts['available_gib']:.1f} GiB "
        "are free"
    )
    capped = ", ".join(f"{name} {used} of {of}" for name, (used, of) in proposal.caps.items())
    cap = (
        f"  Training texts are capped, so that the run stays short: {capped}.",
        "  To use all, delete max_train, max_validation and max_test in participants/*.toml and "
        "run again.",
    )
    output.say(
        "",
        f"Proposed: {kind}, {sizes}.",
        f"  Base model: {facts['base']}",
        f"  Texts of at most {facts['max_tokens']} tokens; needs about {memory}.",
        *(f"  {name}: {_split(parts)}." for name, parts in counts.items()),
        *(
            f"  {name}: about {100 * share:.0f} % of its texts are longer and will be cut."
            for name, share in proposal.cut.items()
            if share > 0
        ),
        *(cap if proposal.caps else ()),
        *(f"  {note}" for note in proposal.notes),
        f"  Files: {folder / 'federation.toml'} and {folder / 'participants'}",
    )


def _split(parts: Mapping[str, int]) -> str:
    return (
        f"{parts['train']} texts to train, {parts['validation']} to choose, {parts['test']} to test"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
