"""What a reader looks for in a file: roles of columns, and the labels that are allowed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tequio.participant.reading.examples import Columns, Kind
from tequio.participant.reading.labels import Labels
from tequio.participant.reading.names import USUAL, is_known, usual


@dataclass(frozen=True)
class Wanted:
    """Hold the task's kind, the given names of columns and the allowed labels."""

    kind: Kind
    columns: Columns = field(default_factory=Columns)
    labels: Labels = field(default_factory=lambda: Labels(()))

    def given_in(self, names: Sequence[str]) -> int:
        """Return how many given names are among these."""
        return sum(name in names for name in self.columns.given().values())

    def known_in(self, names: Sequence[str]) -> int:
        """Return how many roles of this task find a usual name among these."""
        labelled, others = (
            ["text", "label"],
            [role for role in USUAL if role not in ("label", "input")],
        )
        roles = labelled if self.kind == "classification" else others
        return sum(usual(role, names) is not None for role in roles)

    def is_header(self, fields: Sequence[str]) -> bool:
        """Return whether a line of a table has the names of columns, by these names alone."""
        names = [name.strip() for name in fields]
        known = any(is_known(name) and not self.labels.is_exact(name) for name in names)
        return known or self.given_in(names) > 0

    def label_columns(self, rows: Sequence[Sequence[object]]) -> list[int]:
        """Return the positions where nearly all values of a sample are allowed labels."""
        if self.kind != "classification" or not rows or not self.labels:
            return []
        width = max(len(row) for row in rows)
        share = 0.9 * len(rows)
        return [i for i in range(width) if self._labels_at(rows, i) >= share]

    def _labels_at(self, rows: Sequence[Sequence[object]], i: int) -> int:
        return sum(i < len(row) and self.labels.find(row[i]) is not None for row in rows)
