"""A federation as Python has it: settings that are checked as federation.toml is, and data of
participants from files or from memory.

It is frozen: `with_settings` and `with_participants` return another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tequio.api.data import Kind, jsonl
from tequio.config import Federation as Settings
from tequio.config import ParticipantFile, federation_table, of_table, stored
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder

INPUTS = "inputs"  # folder in a run with the files of a federation that came from Python
FEDERATION = f"{INPUTS}/federation.toml"
SPLITS = {"train", "validation", "test"}
MADE_HERE = Path("the federation")  # what messages call one that came from no file


@dataclass(frozen=True)
class Inputs:
    """One participant's file as a table, and the data files that came from memory by name."""

    table: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Federation:
    """What all participants agree to, and the data of those that were given in Python.

    Make one with `tequio.load_federation`.

    Attributes:
        settings: every key of federation.toml, checked: `settings.train.rounds`.
        table: the keys as they were given.
        root: the folder from which relative paths count.
        file: federation.toml, where it came from one.
        edited: whether anything other than the seed differs from that file.
        reseeded: whether the seed was set from Python.
        inputs: participant -> its own file and data, where they were given in Python.
    """

    settings: Settings
    table: Mapping[str, Any]
    root: Path
    file: Path | None = None
    edited: bool = False
    reseeded: bool = False
    inputs: Mapping[str, Inputs] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the federation."""
        return self.settings.name

    @property
    def seed(self) -> int:
        """Return the number from which all random choices follow."""
        return self.settings.seed

    @property
    def participants(self) -> list[str]:
        """Return the names on the roster."""
        return [entry.name for entry in self.settings.participants]

    def __repr__(self) -> str:
        """Return name, seed and the number of participants."""
        count = len(self.settings.participants)
        return f"<tequio.Federation {self.name!r}, seed {self.seed}, {count} participants>"

    def _repr_html_(self) -> str:
        """Return an HTML table of the settings that differ from their default."""
        from tequio.api.rows import html_table
        from tequio.config.presets import leaves

        found = {
            key: value for key, value in stored(self.settings).items() if key != "participants"
        }
        rows: list[list[object]] = [[".".join(where), value] for where, value in leaves(found)]
        rows.append(["participants", ", ".join(self.participants)])
        return html_table(["setting", "value"], rows, self.name)

    def with_settings(
        self, changes: Mapping[str, object] | None = None, /, **tables: object
    ) -> Federation:
        """Return the federation with other settings, checked as the file is.

        Args:
            changes: `{"train.rounds": 3, "seed": 1}`. None takes a key back to its default.
            tables: the same by keyword: `seed=1`, or keys of one table, `train={"rounds": 3}`.

        Raises:
            ConfigError: a key is unknown or a value is illegal, in the words for federation.toml.
        """
        wanted = {**(changes or {}), **tables}
        table = _plain(self.table)
        for key, value in wanted.items():
            _set(table, key, value)
        edited = self.edited or bool(set(wanted) - {"seed"})
        changed = self._checked(table, self.inputs, edited)
        return replace(changed, reseeded=self.reseeded or "seed" in wanted)

    def with_participants(self, participants: Mapping[str, object]) -> Federation:
        """Return the federation with these participants' data; a name that is not on the roster is
        added.

        Args:
            participants: name -> data. Data are a path, rows (see `tequio.api.data.jsonl`), a
                mapping of
                train, validation and test to either, or the tables of participant.toml, such as
                `{"data": rows, "hardware": {"max_rank": 4}}`.
        """
        table = _plain(self.table)
        return self._checked(*_joined(table, self.inputs, participants, self.root), True)

    def _checked(
        self, table: dict[str, Any], inputs: Mapping[str, Inputs], edited: bool
    ) -> Federation:
        source = self.file or MADE_HERE
        settings = of_table(table, Settings, source, self.root)
        return replace(self, settings=settings, table=table, inputs=dict(inputs), edited=edited)

    def source(self) -> tuple[Path, int | None] | None:
        """Return federation.toml, and the seed that replaces its own;

        None unless a file says all else.
        """
        if self.file is None or self.edited:
            return None
        return self.file, self.seed if self.reseeded else None

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield (path inside the run, content) of each ordinary file that says what came from
        Python.
        """
        from tequio.config.templates import to_toml

        table = stored(self.settings)
        for entry in table["participants"]:
            if entry["name"] in self.inputs:
                entry["file"] = f"participants/{entry['name']}.toml"
        yield FEDERATION, to_toml(table, "federation").encode()
        for name, own in self.inputs.items():
            yield from _texts_of(name, own)

    def write(self, run: Path) -> Path:
        """Write those files into a run's folder, the participants' for their owner alone; return
        federation.toml.
        """
        folder = RunFolder(run)
        for relative, content in self.texts():
            folder.write_atomic(relative, content, private=relative != FEDERATION)
        return run / FEDERATION


def load_federation(
    source: str | Path | Mapping[str, object], participants: Mapping[str, object] | None = None
) -> Federation:
    """Read a federation from federation.toml or from a dict with the same keys.

    Args:
        source: path of a federation.toml, or its tables as a dict; relative paths in a dict start
            at the
            working folder.
        participants: name -> data, as `Federation.with_participants` takes them. With a dict, they
            are the
            roster.

    Raises:
        ConfigError: naming each key that is unknown or illegal.
    """
    given = participants or {}
    if isinstance(source, Mapping):
        root, file, shown = Path.cwd(), None, MADE_HERE
        table = _plain(source)
    else:
        file = shown = Path(source)
        root = file.resolve().parent
        table = federation_table(file)
    inputs: Mapping[str, Inputs] = {}
    if given:
        table, inputs = _joined(table, inputs, given, root)
    settings = of_table(table, Settings, shown, root)
    return Federation(settings, table, root, file, edited=bool(given), inputs=inputs)


def as_federation(source: Federation | str | Path | Mapping[str, object]) -> Federation:
    """Return a federation as it is, or the one that a path or a dict says."""
    return source if isinstance(source, Federation) else load_federation(source)


def newcomer_files(name: str, data: object, kind: Kind) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside a folder, content) of one participant's file and data."""
    yield from _texts_of(name, _inputs(name, data, kind, Path.cwd()))


def _texts_of(name: str, own: Inputs) -> Iterator[tuple[str, bytes]]:
    from tequio.config.templates import to_toml

    root = f"{INPUTS}/participants"
    yield f"{root}/{name}.toml", to_toml(_located(own, name), "participant").encode()
    for file, content in own.files.items():
        yield f"{root}/data/{name}/{file}", content


def _joined(
    table: dict[str, Any], inputs: Mapping[str, Inputs], given: Mapping[str, object], root: Path
) -> tuple[dict[str, Any], Mapping[str, Inputs]]:
    """Return the table with these participants on its roster, and all inputs."""
    task = table.get("task")
    kind: Kind = (
        "causal" if isinstance(task, Mapping) and task.get("kind") == "causal" else "classification"
    )
    roster = table.get("participants", [])
    listed = [entry.get("name") for entry in roster] if isinstance(roster, list) else []
    own = {name: _inputs(name, data, kind, root) for name, data in given.items()}
    added = [{"name": name} for name in given if name not in listed]
    return {**table, "participants": [*roster, *added]}, {**inputs, **own}


def _inputs(name: str, given: object, kind: Kind, root: Path) -> Inputs:
    """Return one participant's file, checked; its paths are absolute."""
    tables: dict[str, Any] = {}
    data = given
    if isinstance(given, Mapping) and "data" in given:
        data = given["data"]
        tables = {key: _plain(value) for key, value in given.items() if key != "data"}
    files: dict[str, bytes] = {}
    section: dict[str, Any] = {}
    if isinstance(data, Mapping):
        for key, value in data.items():
            part = key in SPLITS or key == "path"
            section[str(key)] = (
                _file(f"{key}.jsonl", value, kind, name, files) if part else _plain(value)
            )
    else:
        section["path"] = _file("data.jsonl", data, kind, name, files)
    source = Path(f"participant {name}")
    checked = of_table({"name": name, **tables, "data": section}, ParticipantFile, source, root)
    table = stored(checked)
    held = {
        key: value for key, value in section.items() if isinstance(value, str) and value in files
    }
    table["data"] |= held
    return Inputs(table, files)


def _file(called: str, value: object, kind: Kind, name: str, files: dict[str, bytes]) -> Any:
    """Return a path, or the name of the file that rows in memory become, which is added to
    `files`.
    """
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, list) and value and all(isinstance(item, Path) for item in value):
        return [str(item) for item in value]
    files[called] = jsonl(value, kind, name)
    return called


def _located(own: Inputs, name: str) -> dict[str, Any]:
    """Return the table of a participant's file with its data files where `Federation.texts`
    puts them.
    """
    data = dict(own.table["data"])
    for key in (*SPLITS, "path"):
        if isinstance(file := data.get(key), str) and file in own.files:
            data[key] = f"data/{name}/{file}"
    return {**own.table, "data": data}


def _plain(value: Any) -> Any:
    """Return nested values as TOML would give them: dicts, lists, text and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)  # a number or an array of numpy
    return to_list() if callable(to_list) else value


def _set(table: dict[str, Any], key: str, value: object) -> None:
    """Set `a.b` in nested tables; a mapping for a whole table changes the keys that it names.

    Raises ConfigError where a part of the key is no table.
    """
    *above, last = key.split(".")
    place = table
    for part in above:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise refusal(ConfigError, "setting-is-no-table", key=key, part=part)
    new = _plain(value)
    if new is None:
        place.pop(last, None)
    elif not above and isinstance(new, dict):
        before = place.get(last)
        whole = {**(before if isinstance(before, dict) else {}), **new}
        place[last] = {name: item for name, item in whole.items() if item is not None}
    else:
        place[last] = new
