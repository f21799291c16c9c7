"""participant.toml, which never leaves its machine: its tables, and what must hold between them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from tequio.config.accounting import BudgetSection, EnergySection, MoneySection
from tequio.config.fields import (
    Count,
    File,
    Files,
    Name,
    Positive,
    Section,
    Unfit,
    Words,
    checked,
    refuse,
)
from tequio.config.privacy import LeastPrivacySection
from tequio.core.reason import Reason
from tequio.planning.schedule import DAYS, Day, parse_window


class DataSection(Section):
    """[data] Private data, which never leave: `path` is split by content, or give `train`,
    `validation` and `test`. Form and columns are detected; what is given here wins.
    """

    path: Annotated[
        Files | None,
        Field(
            description="Data to be split by content into train, validation and test: a file, a "
            "folder, a pattern (`data/*.csv`) or a list of these; either this or `train`. "
            "JSON lines, a JSON array, CSV, TSV, Parquet or `.xlsx` (first sheet; "
            "`tequio[xlsx]`), also compressed with gzip, Zstandard, bzip2 or xz."
        ),
    ] = None
    train: Annotated[
        Files | None,
        Field(
            description="Training files. What `validation` and `test` do not give is split off "
            "from them."
        ),
    ] = None
    validation: Annotated[Files | None, Field(description="Validation files, with `train`.")] = None
    test: Annotated[Files | None, Field(description="Test files, with `train`.")] = None
    delimiter: Annotated[
        str | None,
        Field(
            description="The sign between two columns of a table: one character, or `tab`. Unset: "
            "detected (comma, semicolon, tab, vertical bar)."
        ),
    ] = None
    encoding: Annotated[
        str | None,
        Field(
            description="Encoding of the files, such as `cp1252`. Unset: detected (UTF-8, UTF-16, "
            "Windows-1252)."
        ),
    ] = None
    header: Annotated[
        bool | None,
        Field(
            description="Whether the first line of a table has the names of its columns. Unset: "
            "detected. `false`: the columns are called `1`, `2`, …"
        ),
    ] = None
    text: Annotated[
        str | None,
        Field(
            description="Name of the column with the text. Unset, here and below: the standard "
            "name (`text`), else a usual one (`sentence`, `review`, …)."
        ),
    ] = None
    label: Annotated[
        str | None,
        Field(
            description="Name of the column with the label (classification). A row without a label "
            "is left out and counted."
        ),
    ] = None
    prompt: Annotated[
        str | None,
        Field(
            description="Name of the column with the prompt (causal). A row with a response and no "
            "prompt is left out and counted."
        ),
    ] = None
    response: Annotated[
        str | None,
        Field(description="Name of the column with the response (causal); only this is learnt."),
    ] = None
    input: Annotated[
        str | None,
        Field(
            description="Name of a column that is joined to the prompt after a blank line. Unset: "
            "`input` or `context`, where there is one. Empty: none."
        ),
    ] = None
    messages: Annotated[
        str | None,
        Field(
            description="Name of the column with chats of several turns (causal): `role` and "
            "`content`, or `from` and `value`. The assistant's turns are learnt."
        ),
    ] = None
    validation_share: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of the texts for validation, where there is no validation file.",
        ),
    ] = 0.2
    test_share: Annotated[
        float,
        Field(
            gt=0, lt=1, description="Share of the texts for the test, where there is no test file."
        ),
    ] = 0.2
    max_train: Annotated[
        Count | None,
        Field(
            description="Most training examples: those whose content hash comes first, a random "
            "sample that neither the order of the rows nor other rows change. The files are "
            "then read twice, and only these examples are held in memory (and about 230 bytes "
            "per different text). Unset: all."
        ),
    ] = None
    max_validation: Annotated[
        Count | None, Field(description="Most validation examples. Unset: all.")
    ] = None
    max_test: Annotated[Count | None, Field(description="Most test examples. Unset: all.")] = None
    licence: Annotated[
        Words,
        Field(
            description="Licence of the data, written to the ledger as declared (at most 2,048 "
            "bytes)."
        ),
    ] = "not stated"
    consent: Annotated[
        Words,
        Field(
            description="On what ground these data may be used, in your words (at most 2,048 "
            "bytes). This leaves the machine, so name no person in it: the coordinator writes "
            "it into the run's ledger, where everybody who has that reads it."
        ),
    ] = "not stated"

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        plain = "\t" if delimiter in ("tab", "\\t") else delimiter
        if plain is not None and (len(plain) != 1 or plain in '\r\n"\0'):
            raise Unfit(Reason("delimiter-unfit"))
        return plain

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                "".encode(encoding).decode(encoding)
        except (LookupError, ValueError):
            raise Unfit(Reason("encoding-unknown")) from None
        return encoding

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        shares = (0.0 if self.validation else self.validation_share) + (
            0.0 if self.test else self.test_share
        )
        refuse(
            (
                (self.path is None) == (self.train is None),
                Reason("data-source-unclear"),
            ),
            (
                self.path is not None and (self.validation or self.test),
                Reason("path-with-splits"),
            ),
            (shares >= 1, Reason("shares-take-all")),
        )
        return self


class HardwareSection(Section):
    """[hardware] What this machine can do, as declared; what is missing does not limit anything."""

    tokens_per_second: Annotated[
        Positive | None, Field(description="Training speed in tokens/s, where you know it.")
    ] = None
    probe: Annotated[
        bool,
        Field(
            description="Measure that speed on this machine with a few real steps, if it is not "
            "declared. Noisy on a busy machine."
        ),
    ] = False
    uplink_mbit: Annotated[
        Positive | None,
        Field(description="Upload speed in Mbit/s. Unset: sending counts as no time."),
    ] = None
    memory_gib: Annotated[
        Positive | None,
        Field(
            description="Memory for training, in GiB. A run that cannot fit is refused before it "
            "starts."
        ),
    ] = None
    max_rank: Annotated[
        Count | None, Field(description="Largest rank that this participant will train.")
    ] = None
    tdp_watts: Annotated[
        Positive | None,
        Field(
            description="Rated power of the processor in watts, for the energy model where no "
            "sensor can be read. Unset: 6.25 W per core."
        ),
    ] = None
    device: Annotated[
        Words | None,
        Field(
            description="A device of the catalogue of `tequio plan`, such as `H100 SXM` or `L4`, "
            "where this participant will train on one. For plans only."
        ),
    ] = None


class TeamSection(Section):
    """[team] How the processes of this participant share the work, where torchrun starts several:
    docs/network.md.
    """

    shard_base: Annotated[
        bool,
        Field(
            description="`true`: each process holds its share of the frozen base, and a whole "
            "layer only while that computes. For a base that is too large for one card; "
            "slower. docs/network.md says what it needs."
        ),
    ] = False


class ScheduleSection(Section):
    """[schedule] When this machine takes part across a network, in its local time. Outside it is
    disconnected and counts as away; a window over midnight belongs to the day on which it begins,
    and a request that was begun is finished.
    """

    hours: Annotated[
        str,
        checked(parse_window),
        Field(description='Begin and end of the window, `"20:00-07:00"`.'),
    ] = "00:00-24:00"
    greenest_hours: Annotated[
        Annotated[float, Field(gt=0, le=24)] | None,
        Field(
            description="Hours of each day, the greenest within `hours` by the file in `[energy] "
            "intensity` (its latest forecast, else its values). A day that the file does not "
            "cover is not judged. Unset: all."
        ),
    ] = None
    days: Annotated[
        list[Day],
        Field(min_length=1, description="Days of the week on which such a window begins."),
    ] = Field(default=list(DAYS))

    @field_validator("days")
    @classmethod
    def _each_once(cls, days: list[Any]) -> list[Any]:
        if len(set(days)) < len(days):
            raise Unfit(Reason("day-twice"))
        return days


class ParticipantFile(Section):
    """One participant's own file. It is private: it stays on its machine and is never sent."""

    name: Annotated[
        Name,
        Field(description="Name of the participant, as the roster in `federation.toml` has it."),
    ]
    base: Annotated[
        File | None,
        Field(
            description="Folder or `.gguf` file of the base on this machine, across a network; it "
            "must be the same base. Unset: `[base] model`."
        ),
    ] = None
    data: DataSection
    hardware: HardwareSection = HardwareSection()
    team: TeamSection = TeamSection()
    energy: EnergySection = EnergySection()
    money: MoneySection | None = None
    budget: BudgetSection = BudgetSection()
    schedule: ScheduleSection | None = None
    privacy: LeastPrivacySection = LeastPrivacySection()

    @model_validator(mode="after")
    def _can_be_counted(self) -> ParticipantFile:
        placed = self.energy.country is not None or self.energy.intensity is not None
        refuse(
            (
                self.schedule
                and self.schedule.greenest_hours is not None
                and self.energy.intensity is None,
                Reason("greenest-without-file"),
            ),
            (
                self.budget.kg_co2e is not None and not placed,
                Reason("own-budget-without-place"),
            ),
            (
                self.budget.money is not None and self.money is None,
                Reason("own-budget-without-money"),
            ),
        )
        return self
