"""Reading a source (files, folders, patterns) as a stream of examples, with a report of what it
is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.core.errors import DataError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.participant.reading.examples import (
    LEFT_OUT,
    Columns,
    Example,
    FileReport,
    Kind,
    Options,
    ReadReport,
)
from tequio.participant.reading.labels import BadRow, Labels
from tequio.participant.reading.names import found, looks_like_name, nearest
from tequio.participant.reading.opened import Opened, open_file
from tequio.participant.reading.shapes import Missing, Plan, example, plan_for
from tequio.participant.reading.sources import Paths, files_of
from tequio.participant.reading.streams import Source
from tequio.participant.reading.wanted import Wanted

INSPECTED_ROWS = 1000  # rows in which unused columns are searched for data
SHAPES = 1000  # sets of columns that are remembered


def reader_name(reader: str) -> str:
    """Return whose file it is, in words: a participant's, or that of a section of
    federation.toml.
    """
    return f"{reader}:" if reader.startswith("[") else f"Participant {reader}:"


class Reading:
    """Iterate over the examples of a source; it can be done again. `report` tells of the last time.

    Rows that cannot be learnt (empty, unlabelled, without prompt or response) are left out and
    counted. Iterating raises DataError naming reader, file and line, and never quotes a field.
    """

    def __init__(
        self,
        paths: Paths,
        columns: Columns,
        kind: Kind,
        labels: Sequence[str],
        reader: str,
        options: Options | None = None,
    ) -> None:
        self._paths, self._who = paths, reader_name(reader)
        self._wanted = Wanted(kind, columns, Labels(labels))
        self._options = options or Options()
        self.report = ReadReport()

    def __iter__(self) -> Iterator[Example]:
        reports: list[FileReport] = []
        for path in files_of(self._paths, self._who):
            file = _File(
                open_file(Source(path, self._who), self._wanted, self._options), self._wanted
            )
            yield from file.examples()
            reports.append(file.report())
            self.report = ReadReport(tuple(reports))


@dataclass
class _File:
    """Read one file: the plan of its columns, the counts."""

    opened: Opened
    wanted: Wanted
    plans: dict[tuple[str, ...], Plan] = field(default_factory=dict)
    usual: Plan | None = None
    good: set[str] = field(default_factory=set)
    names: dict[str, None] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def examples(self) -> Iterator[Example]:
        """Yield the usable rows as examples."""
        for line, row in self.opened.read(self._prepare()):
            plan = self._plan(line, row)
            self.rows += 1
            if self.rows <= INSPECTED_ROWS:
                self._look(row)
            try:
                made, why = example(row, plan, self.wanted, self.opened.classes)
            except BadRow as error:
                raise error.at(self._place(line)) from None
            if made is None:
                self.left_out[why] += 1
            else:
                yield made

    def _prepare(self) -> set[str] | None:
        """Find the plan by the names of columns and the first rows; return the columns to read."""
        names, sample = self.opened.names, list[Mapping[str, Any]]()
        if not self.opened.fixed:
            sample = self.opened.sample()
            self._from_rows(sample)
            return None
        try:
            self.usual = self._try(names, sample)
        except Missing:
            sample = self.opened.sample()
            try:
                self.usual = self._try(names, sample)
            except Missing as error:
                raise self._missing(None, names, error) from None
        used = set(self.usual.columns.values())
        if any(names.count(name) > 1 for name in used):
            place = "line 1" if self.opened.unit == "line" else ""
            raise refusal(DataError, "columns-alike", file=self.opened.source.at(place))
        self.names = dict.fromkeys(names)
        if self.opened.form.format == "Parquet":
            self.filled = set(names)
        return used

    def _from_rows(self, sample: Sequence[Mapping[str, Any]]) -> None:
        """Take the plan of the first row that has one, and what columns such rows have."""
        for row in sample:
            try:
                plan = self._try(tuple(row), sample)
            except (Missing, DataError):
                continue
            self.usual = self.usual or plan
            self.good |= row.keys()

    def _try(self, names: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> Plan:
        try:
            return plan_for(names, self.wanted, sample)
        except BadRow as error:
            raise error.at(self._place(None)) from None

    def _plan(self, line: int, row: Mapping[str, Any]) -> Plan:
        if self.opened.fixed and self.usual is not None:
            return self.usual
        keys = tuple(row)
        if keys in self.plans:
            return self.plans[keys]
        try:
            plan = self._try(keys, ())
        except Missing as error:
            # A row whose columns are all known from others lacks one: that value is not given.
            if self.usual is None or not row.keys() <= self.good:
                raise self._missing(line, keys, error) from None
            plan = self.usual
        if len(self.plans) < SHAPES:
            self.plans[keys] = plan
        return plan

    def _look(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if value is not None and value != "":
                self.filled.add(name)
                self.names.setdefault(name)

    def _missing(self, line: int | None, names: Sequence[str], error: Missing) -> DataError:
        given = set(self.wanted.columns.given().values())
        why, shown = found(names, self.opened.genuine, self.opened.shown, given)
        if self.opened.form.header is False:
            why, shown = Reason("columns-numbered", {"count": len(names)}).as_record(), []
        code = (
            "data-column-or-header"
            if self.opened.form.header and not shown
            else "data-column-missing"
        )
        names = [error.column, *([error.or_else] if error.or_else else [])]
        near = nearest(error.column, shown)
        return refusal(DataError, code, file=self._place(line), names=names, why=why, nearest=near)

    def _place(self, line: int | None) -> str:
        return self.opened.source.at("" if line is None else f"{self.opened.unit} {line}")

    def report(self) -> FileReport:
        """Return what was found."""
        plans = [p for p in (self.usual, *self.plans.values()) if p is not None]
        used = {name for plan in plans for name in plan.columns.values()}
        unused = [name for name in self.names if name in self.filled and name not in used]
        sure = self.opened.genuine or self.opened.shown
        shown = tuple(name for name in unused if sure and looks_like_name(name))[:20]
        plan = plans[0] if plans else Plan({})
        return FileReport(
            file=str(self.opened.source.path),
            form=self.opened.form,
            columns=dict(plan.columns),
            guessed=plan.guessed,
            unused=shown,
            unused_hidden=len(unused) - len(shown),
            rows=self.rows,
            left_out={why: self.left_out[why] for why in LEFT_OUT if self.left_out[why]},
        )
