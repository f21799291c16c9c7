"""`tequio data look`: what is in files, before anything is written or trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from tequio.cli import output
from tequio.cli.options import Json

if TYPE_CHECKING:
    from tequio.app.start.survey import Participant, Survey

SHOWN = 20  # labels in the table
REASONS = {
    "empty": "without a text",
    "no_prompt": "without a prompt",
    "no_response": "without a response",
    "unlabelled": "without a label",
}
data = typer.Typer(help="Look at data files. Nothing leaves the machine.", no_args_is_help=True)
FILES = typer.Argument(help="Data files: CSV, TSV, JSON, Parquet or Excel, also compressed.")
Files = Annotated[list[Path], FILES]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="ROLE=NAME: a column's role (text, label, prompt, response, input, messages).",
    ),
]
Task = Annotated[
    Literal["classification", "causal"] | None,
    typer.Option(
        "--task", help="Texts with labels, or texts to continue. Default: as the columns suggest."
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether the first line has names. Default: detected."
    ),
]


@data.command("look")
def look(
    files: Files,
    column: Column = None,
    task: Task = None,
    header: Header = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", help="Also count tokens as this base model does: id, folder or .gguf file."
        ),
    ] = None,
    show: Annotated[
        int,
        typer.Option(
            "--show", help="Also print the first rows of each file, on this screen only.", min=0
        ),
    ] = 0,
    json: Json = False,
) -> None:
    """Show what the reader finds in files: format, columns, rows, labels, lengths, duplicates.

    Prints no text unless --show asks.
    """
    from tequio.app.start.look_rows import first_rows
    from tequio.app.start.prepare import columns_of
    from tequio.app.start.prepare import look as look_at
    from tequio.participant.data import Options

    found = look_at(files, None, columns_of(column or ()), Options(header=header), task).found
    lengths = {} if base is None else _tokens(found, base)
    facts = found.facts()
    for row in facts["participants"]:
        if row["name"] in lengths:
            row["tokens"] = lengths[row["name"]]
    shown = {p.name: list(first_rows(p, show)) for p in found.participants} if show else {}
    if shown:
        facts["rows_shown"] = shown

    def words() -> None:
        print_found(found)
        for name, row in lengths.items():
            most = f"{row['longest']} at most (of the first {row['texts']} texts)"
            output.say(f"{name}: {row['median']} tokens in the middle, {most}.")
        for name, rows in shown.items():
            output.say(f"{name}, first rows:", *(f"  {line}" for line in rows))

    output.emit(facts, json, words)


def _tokens(found: Survey, base: str) -> dict[str, dict[str, int]]:
    from tequio.app.start.proposal import choose_base
    from tequio.config.cache import cache_folder
    from tequio.participant.lengths import token_lengths

    rows = (
        (
            person.name,
            sorted(token_lengths(choose_base(found.kind, base)[0], person.sample, cache_folder())),
        )
        for person in found.participants
    )
    return {
        name: {"texts": len(row), "median": row[len(row) // 2], "longest": row[-1]}
        for name, row in rows
        if row
    }


def print_found(found: Survey, starting: bool = False) -> None:
    """Print what was found: a line per file, a table of participants, one of labels, remarks."""
    for person in found.participants:
        output.say(*_of_file(person))
    heads = (
        "participant",
        "rows",
        "usable",
        "repeated",
        "characters (middle)",
        "(longest)",
        "language",
    )
    sizes = [
        (p, (p.rows, p.usable, p.repeated, p.quantile(0.5), p.quantile(1.0)))
        for p in found.participants
    ]
    lines = [
        [p.name, *(f"{n:,}" for n in counts), p.language or "not recognised"] for p, counts in sizes
    ]
    output.table(output.tabular(heads, lines, left=(0, 6), wrapped=range(len(heads))))
    if found.labels:
        output.table(_labels(found))
    output.say(*(f"- {remark}" for remark in found.remarks(starting)))


def _of_file(person: Participant) -> Iterator[str]:
    for file in person.report.files:
        form = file.form
        header = {True: "with a header", False: "without a header"}.get(form.header, "")  # type: ignore[arg-type]
        separated = f"separated by {form.separator}" if form.separator else ""
        parts = [form.format, form.compression, form.encoding, separated, header]
        yield f"{person.name}: {Path(file.file).name}: {', '.join(part for part in parts if part)}."
        used = ", ".join(
            f"{role} = column {person.shape.shown(name)}" for role, name in file.columns.items()
        )
        if used:
            yield f"  Used: {used}."
        for sentence in file.sentences():
            yield f"  {sentence}"
        left = [f"{n} {REASONS[why]}" for why, n in file.left_out.items()]
        if left:
            yield f"  Rows left out: {', '.join(left)}."


def _labels(found: Survey) -> Table:
    """Return labels by participant; of many labels the commonest."""
    total = {label: sum(p.labels[label] for p in found.participants) for label in found.named}
    order = list(found.named)
    if len(order) > SHOWN:
        order = sorted(order, key=lambda label: (-total[label], label))[: SHOWN - 1]
    heads = ["label", *(person.name for person in found.participants), "all"]
    lines = [
        [label, *(str(p.labels[label]) for p in found.participants), str(total[label])]
        for label in order
    ]
    if rest := [label for label in found.labels if label not in order]:
        counts = [sum(p.labels[label] for label in rest) for p in found.participants]
        lines.append([f"({len(rest)} more)", *map(str, counts), str(sum(counts))])
    return output.tabular(heads, lines, wrapped=range(len(heads)))
