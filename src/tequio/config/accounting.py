"""The tables of a configuration file that are for accounts: where a machine stands, and what it costs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tequio.config.fields import Amount, File, Positive, Section, Share
from tequio.core.errors import ConfigError
from tequio.measure.countries import country_intensity
from tequio.measure.currencies import checked_currency
from tequio.measure.intensity import moment
from tequio.measure.money import LIFE_YEARS


class EnergySection(Section):
    """[energy]: where a machine stands, for its carbon. `intensity` wins over `country` at the times that it covers."""

    country: str | None = None
    intensity: File | None = None
    zone: str | None = None
    pue: Annotated[float, Field(ge=1, le=10)] = 1.0
    embodied_kg: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    life_years: Positive = LIFE_YEARS
    tell: bool = True

    @field_validator("country")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                country_intensity(name)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _zone_of_a_file(self) -> EnergySection:
        if self.zone is not None and self.intensity is None:
            raise ValueError("zone names one of several in the file of intensity, and there is none")
        return self


class EquitySection(Section):
    """[equity]. What each participant gave and got: contributions to the fall of the validation loss, and its verdict."""

    credit: bool = False
    leave_one_out: bool = False
    smallest_effect: Annotated[float, Field(gt=0, le=0.5)] = 0.01

    @model_validator(mode="after")
    def _both(self) -> EquitySection:
        if self.leave_one_out and not self.credit:
            raise ValueError("leave_one_out goes with credit = true")
        return self


class BudgetSection(Section):
    """[budget]. What may be spent, of what is told (federation) or of one's own (participant); unset: no limit."""

    kwh: Positive | None = None
    kg_co2e: Positive | None = None
    money: Positive | None = None
    hours: Positive | None = None
    megabytes: Positive | None = None

    def limits(self) -> dict[str, float]:
        """Those that are set."""
        return {key: float(value) for key, value in self.model_dump(exclude_none=True).items()}


class ShiftSection(Section):
    """[shift]. Rounds in simulated time, in `tequio run`: each works in the greenest hours before a deadline, by its own intensities.

    With `kg_co2e` participants sit out rounds that their α-fair share of it does not allow.
    """

    start: str
    policy: Literal["greedy", "none"] = "greedy"
    slot_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    deadline_hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    work_hours: Positive | None = None
    kg_co2e: Positive | None = None
    alpha: Annotated[float, Field(ge=0, le=100)] = 1.0
    minimum: Share = 0.2

    @field_validator("start")
    @classmethod
    def _a_time(cls, text: str) -> str:
        try:
            moment(text, "start")
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return text

    @field_validator("slot_minutes")
    @classmethod
    def _of_a_day(cls, minutes: int) -> int:
        if 1440 % minutes:
            raise ValueError("a day must be a whole number of slots: 5, 15, 30, 60 …")
        return minutes


class MoneySection(Section):
    """[money]: what the machine costs, in its owner's currency. Rent, or capital (TCO), and electricity.

    A participant's is private unless `tell`; the coordinator's is told, as federation.toml is.
    """

    currency: str
    per_kwh: Amount | None = None
    rent_per_hour: Amount | None = None
    capital: Amount | None = None
    residual: Share = 0.0
    maintenance_per_hour: Amount = 0.0
    utilisation: Annotated[float, Field(gt=0, le=1)] = 1.0
    tell: bool = False

    @field_validator("currency")
    @classmethod
    def _in_use(cls, code: str) -> str:
        try:
            return checked_currency(code)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _one_way(self) -> MoneySection:
        if self.per_kwh is None and self.rent_per_hour is None and self.capital is None:
            raise ValueError("give per_kwh, rent_per_hour or capital (0 where it costs nothing), or leave [money] out")
        if self.rent_per_hour is not None and self.capital is not None:
            raise ValueError("a machine is rented (rent_per_hour) or owned (capital), not both")
        return self
