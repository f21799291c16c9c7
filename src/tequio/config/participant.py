"""participant.toml, which never leaves its machine: its tables, and what must hold between them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from tequio.config.accounting import BudgetSection, EnergySection, MoneySection
from tequio.config.fields import Count, File, Files, Name, Positive, Section, Words
from tequio.planning.schedule import DAYS, Day, parse_window


class DataSection(Section):
    """[data]: files to be split by content, or files for train (and validation, test).

    Each is a file, a folder, a pattern such as `data/*.csv`, or a list of these. Their form and the names of their
    columns are detected; what is given here wins.
    """

    path: Files | None = None
    train: Files | None = None
    validation: Files | None = None
    test: Files | None = None
    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None
    text: str | None = None
    label: str | None = None
    prompt: str | None = None
    response: str | None = None
    input: str | None = None
    messages: str | None = None
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    max_train: Count | None = None
    max_validation: Count | None = None
    max_test: Count | None = None
    licence: Words = "not stated"
    consent: Words = "not stated"

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        plain = "\t" if delimiter in ("tab", "\\t") else delimiter
        if plain is not None and (len(plain) != 1 or plain in '\r\n"\0'):
            raise ValueError('one character, such as ";", or "tab"')
        return plain

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                "".encode(encoding).decode(encoding)
        except (LookupError, ValueError):
            raise ValueError('no such encoding; for example "utf-8", "cp1252" or "utf-16"') from None
        return encoding

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either path (to be split) or train (and validation, test)")
        if self.path is not None and (self.validation or self.test):
            raise ValueError("path is split into train, validation and test; name it train to give these files")
        shares = (0.0 if self.validation else self.validation_share) + (0.0 if self.test else self.test_share)
        if shares >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        return self


class HardwareSection(Section):
    """[hardware]: what is declared; what is missing is not a limit. `probe` measures tokens_per_second on this machine."""

    tokens_per_second: Positive | None = None
    probe: bool = False
    uplink_mbit: Positive | None = None
    memory_gib: Positive | None = None
    max_rank: Count | None = None
    tdp_watts: Positive | None = None
    device: Words | None = None


class TeamSection(Section):
    """[team]: how the processes of this participant share the work, where torchrun starts several. One process is not concerned."""

    shard_base: bool = False


class ScheduleSection(Section):
    """[schedule]: when this machine takes part across a network, in its local time. Outside it is disconnected, and counts as away.

    A window over midnight belongs to the day on which it begins. A task that was begun is finished.
    """

    hours: str = "00:00-24:00"
    greenest_hours: Annotated[float, Field(gt=0, le=24)] | None = None
    days: Annotated[list[Day], Field(min_length=1)] = Field(default=list(DAYS))

    @field_validator("hours")
    @classmethod
    def _a_window(cls, hours: str) -> str:
        parse_window(hours)
        return hours

    @field_validator("days")
    @classmethod
    def _each_once(cls, days: list[Any]) -> list[Any]:
        if len(set(days)) < len(days):
            raise ValueError("a day stands there twice")
        return days


class ParticipantFile(Section):
    """participant.toml. `base`: where the base model is on this machine, if it is not to be had by the name in federation.toml."""

    name: Name
    base: File | None = None
    data: DataSection
    hardware: HardwareSection = HardwareSection()
    team: TeamSection = TeamSection()
    energy: EnergySection = EnergySection()
    money: MoneySection | None = None
    budget: BudgetSection = BudgetSection()
    schedule: ScheduleSection | None = None

    @model_validator(mode="after")
    def _can_be_counted(self) -> ParticipantFile:
        if self.schedule and self.schedule.greenest_hours is not None and self.energy.intensity is None:
            raise ValueError("schedule.greenest_hours: which they are says a file; give [energy] intensity")
        placed = self.energy.country is not None or self.energy.intensity is not None
        if self.budget.kg_co2e is not None and not placed:
            raise ValueError("budget.kg_co2e: carbon is not known; say [energy] country or intensity")
        if self.budget.money is not None and self.money is None:
            raise ValueError("budget.money: costs are not known; add [money]")
        return self
