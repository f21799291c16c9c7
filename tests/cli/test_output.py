"""A table loses nothing: in a pipe it is as wide as it is, on a narrow terminal it comes in
parts.
"""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tequio.cli import output

ROWS = [
    ("northern-clinic", "yes, 0.11 of 125.0 GiB", "1.2e+05 VND + 0.3 EUR", ""),
    (
        "south",
        "NO, 99.99 of 1.0 GiB",
        "–",
        "a machine with a very long name that goes on and on and on, and on, and on",
    ),
]


def wide() -> Table:
    table = Table(title="Plan of everything")
    for column in ("who", "fits", "money", "machine"):
        table.add_column(column, no_wrap=True)
    for row in ROWS:
        table.add_row(*row[:-1], Text(row[-1]))
    return table


@pytest.mark.parametrize(
    ("terminal", "width"), [(False, 40), (False, 140), (True, 40), (True, 80), (True, 200)]
)
def test_no_cell_is_cut(terminal: bool, width: int) -> None:
    stream = StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=width, soft_wrap=True, color_system=None
    )
    output.table(wide(), console)
    said = stream.getvalue()
    assert "…" not in said
    words = re.sub(r"[\s┃│]", "", said)  # a cell that is too wide alone goes over several lines
    assert all(re.sub(r"\s", "", cell) in words for row in ROWS for cell in row)
    assert console.width == width
    if terminal:
        assert max(map(len, said.splitlines())) <= width
    parts = said.count("┏")
    assert parts == (3 if terminal and width == 40 else 2 if terminal and width == 80 else 1)
    assert said.count("┃ who") == parts == said.count("│ northern-clinic")
    assert said.count("Plan of everything") == 1


def test_parts_repeat_what_tells_the_rows_separate() -> None:
    stream = StringIO()
    rows = Table()
    for column in ("whose", "of", "forecast", "budget"):
        rows.add_column(column)
    for of in ("energy", "time"):
        rows.add_row("all together", of, "a long forecast", f"a long budget of {of}")
    output.table(rows, Console(file=stream, force_terminal=True, width=50, color_system=None))
    (line,) = [line for line in stream.getvalue().splitlines() if "a long budget of time" in line]
    assert [cell.strip() for cell in line.split("│")] == [
        "",
        "all together",
        "time",
        "a long budget of time",
        "",
    ]
