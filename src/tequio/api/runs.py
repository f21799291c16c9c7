"""A run as a mapping of its participants: gains and verdicts as the report computes them,
predictions, exports, rows.

Nothing is computed before it is asked for, and an unfinished run gives what it has recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tequio.api.rows import Rows, html_table
from tequio.core.errors import RunError
from tequio.core.texts.words import ENGLISH, refusal
from tequio.ledger.folder import RunFolder

if TYPE_CHECKING:
    from tequio.api.background import Background
    from tequio.api.measures import Metric
    from tequio.ledger.chain import Entry

SHARED = "shared"


class NoSuchParticipant(RunError, KeyError):
    """A name that is not on the roster of a run; also a KeyError, as mappings raise it."""

    __str__ = Exception.__str__


@dataclass(frozen=True)
class Round:
    """One committed round.

    Attributes:
        number: from 1.
        accepted: False where the gate rolled the round back.
        loss: mean validation loss of the shared model in nats; None where it is not known.
        losses: the same of each participant.
        seconds: how long it took.
        reason: why it was rolled back, in a sentence; empty where it was not.
    """

    number: int
    accepted: bool
    loss: float | None
    losses: Mapping[str, float | None]
    seconds: float | None
    reason: str


@dataclass(frozen=True, repr=False)
class Participant:
    """One participant of a run.

    Attributes:
        name: as the roster has it.
        run: the run of which it is a part.
        row: all figures that the report has of it.
    """

    name: str
    run: Run
    row: Mapping[str, Any]

    @property
    def gain(self) -> float | None:
        """Return how much better its personal model is than its local one, on its own test data.

        Classification: the share of texts more that are answered right, so that 0.03 are 3 points.
        A
        language model: by which share the loss is lower. None before its personal model is made.
        """
        return None if (effect := self.row["outcome"]["effect"]) is None else float(effect["mean"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the bounds of the 95 % interval of the gain."""
        effect = self.row["outcome"]["effect"]
        return None if effect is None else (float(effect["low"]), float(effect["high"]))

    @property
    def verdict(self) -> str | None:
        """Return `gains`, `loses`, `no_difference`, `too_few` (test texts) or `kept_local`;

        None before.
        """
        found = self.row["verdict"]
        return None if found is None else str(found)

    def predict(
        self, texts: Sequence[str], *, general: bool = False, max_new_tokens: int = 60
    ) -> Rows:
        """Return one row per text by its personal model: see `Run.predict`."""
        return self.run.predict(texts, self.name, general=general, max_new_tokens=max_new_tokens)

    def export(
        self,
        folder: str | Path | None = None,
        *,
        merged: bool = False,
        rank: int | None = 16,
        dtype: str | None = None,
    ) -> dict[str, Any]:
        """Write its personal model in PEFT's format and return paths and facts: see
        `tequio.export`.
        """
        return export(self.run, folder, self.name, merged=merged, rank=rank, dtype=dtype)[0]

    def __repr__(self) -> str:
        """Return name, gain and verdict."""
        gain = "not known yet" if self.gain is None else f"{self.gain:+.4f}"
        return f"<tequio.Participant {self.name!r}, gain {gain}, verdict {self.verdict}>"

    def _repr_html_(self) -> str:
        """Return its row as an HTML table of two columns."""
        rows: list[list[object]] = [[key, value] for key, value in row_of(self).items()]
        return html_table(["figure", "value"], rows, self.name)


class Run(Mapping[str, Participant]):
    """A run in a folder: a mapping from name to `Participant`.

    `tequio.run` and `tequio.open_run` return one.

    Attributes:
        folder: where its ledger and its models lie.
    """

    def __init__(self, folder: Path, background: Background | None = None) -> None:
        self.folder = folder
        self._background = background

    def __getitem__(self, name: str) -> Participant:
        """Return a participant. Raises NoSuchParticipant, a RunError and a KeyError."""
        found = {row["name"]: row for row in self.summary["participants"]}
        if name not in found:
            raise refusal(
                NoSuchParticipant,
                "no-such-participant",
                run=str(self.folder),
                name=name,
                names=[*found],
            )
        return Participant(name, self, found[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of participants."""
        return (str(row["name"]) for row in self.summary["participants"])

    def __len__(self) -> int:
        """Return the number of participants."""
        return len(self.summary["participants"])

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same folder."""
        return isinstance(other, Run) and self.folder.resolve() == other.folder.resolve()

    def __hash__(self) -> int:
        """Return a hash of the folder."""
        return hash(self.folder.resolve())

    def __repr__(self) -> str:
        """Return folder and state."""
        state = "finished" if self.finished else "not finished"
        return f"<tequio.Run {str(self.folder)!r}, {len(self)} participants, {state}>"

    def _repr_html_(self) -> str:
        """Return the rows of its participants as an HTML table."""
        rows, state = self.rows(), "finished" if self.finished else "not finished"
        cells = [[row.get(column) for column in rows.columns] for row in rows]
        return html_table(rows.columns, cells, f"{self.summary['name']}, {state}")

    @property
    def summary(self) -> Mapping[str, Any]:
        """Return all figures of the report, as `tequio report --json` prints them."""
        return self._final if self._ended() else _summary(self.folder)

    @cached_property
    def _final(self) -> Mapping[str, Any]:
        return _summary(self.folder)

    def _ended(self) -> bool:
        return bool(_entries(self.folder, "end"))

    @property
    def finished(self) -> bool:
        """Return whether the run has come to its end."""
        return bool(self.summary["finished"])

    def rows(self) -> Rows:
        """Return one row per participant: sizes, accuracy or loss of each model, gain, interval,
        verdict, energy.
        """
        return Rows((row_of(self[name]) for name in self), self.summary)

    def rounds(self) -> Iterator[Round]:
        """Yield each committed round, and where the run is going on, each further one as it is
        committed.

        Raises what the run raised. Ctrl-C stops the run.
        """
        after = -1
        while True:
            going = self._background is not None and self._background.going
            for entry in _entries(self.folder, "round", after):
                after = entry.seq
                yield _round(entry.body)
            if self._background is None or not going:
                break
            self._background.pause()
        if self._background is not None:
            self._background.join()

    def wait(self) -> Run:
        """Wait until a run that was begun with `wait=False` has ended, and return it.

        Raises what it raised.
        """
        if self._background is not None:
            self._background.join()
        return self

    def stop(self) -> Run:
        """End a run that is going on between two pieces of work. What is committed stays.

        `tequio.run(run)` continues it.
        """
        if self._background is not None:
            self._background.stop()
        return self

    def predict(
        self,
        texts: Sequence[str],
        model: str = SHARED,
        *,
        general: bool = False,
        max_new_tokens: int = 60,
    ) -> Rows:
        """Return one row per text:

        `label` and `probabilities`, or the `completion` of a language model.

        Args:
            texts: texts, or prompts.
            model: a participant's name, "shared", or "shared-BASE" for a further base.
            general: a participant's model for everybody's texts.
            max_new_tokens: of a completion, at most.
        """
        from tequio.app.models.predict import predict_texts

        if isinstance(texts, str):
            texts = [texts]
        return Rows(predict_texts(self.folder, model, texts, max_new_tokens, general))

    def evaluate(self, *metrics: Metric) -> Rows:
        """Return one row per participant and model with your own metrics on the participant's own
        test data.

        Args:
            metrics: functions, or objects with a `name`, called as `metric(answers, labels)`.
                `answers` are rows
                as `predict` returns them, and `labels` the right ones, one per text.

        Raises:
            RunError: the task is no classification, or data are not on this machine or have
            changed.
        """
        from tequio.api.measures import evaluate

        return evaluate(self.folder, metrics)

    def report(self, lang: Literal["en", "es"] = "en", file: str | Path | None = None) -> Path:
        """Write the report as one HTML file, in the run unless `file` names another place; return
        its path.
        """
        from tequio.report.write import write_report

        return write_report(self.folder, lang, None if file is None else Path(file))[0]


def open_run(folder: str | Path) -> Run:
    """Open a run that is in this folder, finished or not, also a participant's own.

    Raises RunError.
    """
    return Run(RunFolder.open(Path(folder)).path)


def verify(run: Run | str | Path) -> dict[str, Any]:
    """Check the chain of records and every model file against it.

    Returns:
        `ok`, `problems` in words, `entries`, `models`, and the hashes `head` and `outcome`.
    """
    from tequio.app.models.verify import verify_run

    return verify_run(_folder(run))


def export(
    run: Run | str | Path,
    folder: str | Path | None = None,
    model: str | None = None,
    *,
    merged: bool = False,
    rank: int | None = 16,
    dtype: str | None = None,
) -> Rows:
    """Write adapters in PEFT's format with a model card, and merged models if asked.

    Args:
        run: a run or its folder.
        folder: where to write, one folder per model. Default: `export` in the run.
        model: a participant's name or "shared"; None: all models.
        merged: also write whole models.
        rank: the largest rank of an adapter; None keeps the exact one.
        dtype: of a merged model: "float32", "bfloat16" or "float16". None: as the base's files.

    Returns:
        One row per model: paths, rank, bytes, and how far it agrees with the original.
    """
    from tequio.api.emissions import run_emissions
    from tequio.app.models.export import export_models

    home = _folder(run)
    out = home / "export" if folder is None else Path(folder)
    return Rows(export_models(home, model, out, merged, run_emissions(home), rank, dtype))


def row_of(participant: Participant) -> dict[str, Any]:
    """Return the most important figures of one participant, flat."""
    row, bounds = participant.row, participant.interval
    scores = {name: found or {} for name, found in row["test"].items()}
    measure = "loss" if row["outcome"]["measure"] == "loss" else "accuracy"
    out = {"participant": participant.name, "rank": row["rank"], "train": row["data"]["train"]}
    out |= {f"{name}_{measure}": found.get(measure) for name, found in scores.items()}
    out |= {
        "gain": participant.gain,
        "gain_low": bounds and bounds[0],
        "gain_high": bounds and bounds[1],
    }
    out |= {"verdict": participant.verdict, "chosen": row["chosen"]}
    return out | {key: row[key] for key in ("joules", "seconds", "bytes_up", "bytes_down")}


def _folder(run: Run | str | Path) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _summary(folder: Path) -> Mapping[str, Any]:
    from tequio.report.data.summary import summary

    return summary(_entries(folder))


def _entries(folder: Path, kind: str | None = None, after: int = -1) -> list[Entry]:
    from tequio.ledger.record import Ledger  # it imports torch

    with Ledger.open(RunFolder.open(folder).ledger_path, read_only=True) as ledger:
        return list(ledger.entries(kind, after))


def _round(body: Mapping[str, Any]) -> Round:
    from tequio.report.data.rounds import round_rows

    row = round_rows([body], {}, {})["history"][0]
    reason = "" if row["accepted"] else ENGLISH.reason(row["reason"])
    return Round(
        row["round"], row["accepted"], row["loss"], row["participants"], row["seconds"], reason
    )
