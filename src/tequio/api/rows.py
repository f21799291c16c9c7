"""Results as rows: a list of dicts, which pandas reads as it is and a notebook shows as a table."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

SHOWN = 200  # rows of a table in a notebook


class Rows(list[dict[str, Any]]):
    """A list of dicts with one key per column. `pandas.DataFrame(rows)` makes a frame of it.

    Attributes:
        facts: what the rows were made from, where there is more than they show.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]] = (),
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(dict(row) for row in rows)
        self.facts = facts

    @property
    def columns(self) -> list[str]:
        """Return the keys of all rows, in the order of their first use."""
        return list(dict.fromkeys(key for row in self for key in row))

    def _repr_html_(self) -> str:
        """Return an HTML table, every cell of it escaped."""
        return html_table(self.columns, [[row.get(c) for c in self.columns] for row in self])


def html_table(columns: Iterable[str], rows: list[list[object]], title: str = "") -> str:
    """Return rows as an HTML table; names and cells are escaped."""
    from tequio.report.html.markup import el, join

    head = el("thead", el("tr", *[el("th", column) for column in columns]))
    body = el("tbody", *[el("tr", *[el("td", shown(v)) for v in row]) for row in rows[:SHOWN]])
    parts = [el("p", el("strong", title)) if title else None, el("table", head, body)]
    if len(rows) > SHOWN:
        parts.append(el("p", f"{len(rows) - SHOWN} more rows are not shown."))
    return str(join(*parts))


def shown(value: object) -> str:
    """Return a value as a cell shows it: four digits of a number, a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
