"""The tables of a configuration file that are for accounts: where a machine stands, and what it
costs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tequio.config.fields import Amount, File, Positive, Section, Share, Unfit, checked, refuse
from tequio.core.reason import Reason
from tequio.measure.countries import country_intensity
from tequio.measure.currencies import checked_currency
from tequio.measure.intensity import moment
from tequio.measure.money import LIFE_YEARS


class EnergySection(Section):
    """[energy] Where the electricity of this machine comes from, for its carbon:
    docs/accounts.md.
    """

    country: Annotated[
        Annotated[str, checked(country_intensity)] | None,
        Field(
            description="Where the electricity comes from: ISO code or name (also in its own "
            "languages); that country's annual average counts (`tequio carbon countries`). "
            "Unset, and without `intensity`: carbon is not known."
        ),
    ] = None
    intensity: Annotated[
        File | None,
        Field(
            description="File of carbon intensities by time (canonical CSV, `tequio carbon "
            "import`); it wins over `country` at the times that it covers."
        ),
    ] = None
    zone: Annotated[str | None, Field(description="Zone of that file, where it has several.")] = (
        None
    )
    pue: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            description="Electricity of the building over that of the machine (power usage "
            "effectiveness); it multiplies carbon and money.",
        ),
    ] = 1.0
    embodied_kg: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
        Field(
            description="Emissions of making the machine, in kg CO₂e, as its maker states. A share "
            "of it counts, by time."
        ),
    ] = None
    life_years: Annotated[
        Positive,
        Field(
            description="Years for which the machine is used, for `embodied_kg` and "
            "`money.capital`. The default is an assumption."
        ),
    ] = LIFE_YEARS
    tell: Annotated[
        bool,
        Field(
            description="`false`: carbon stays in your own book, and the coordinator receives only "
            "joules and seconds. No effect in federation.toml, which is public."
        ),
    ] = True

    @model_validator(mode="after")
    def _zone_of_a_file(self) -> EnergySection:
        alone = self.zone is not None and self.intensity is None
        refuse((alone, Reason("zone-without-file")))
        return self


class EquitySection(Section):
    """[equity] What each participant gave and received: contributions to the fall of the validation
    loss, and its verdict.
    """

    credit: Annotated[
        bool,
        Field(
            description="Report what each participant contributed to the fall of the validation "
            "loss, to first order. All updates of a round are in memory until it ends. With a "
            "star and adapters."
        ),
    ] = False
    leave_one_out: Annotated[
        bool,
        Field(
            description="Also measure contributions by leaving each participant out in turn: one "
            "more evaluation by everybody for each participant in each round."
        ),
    ] = False
    smallest_effect: Annotated[
        float,
        Field(
            gt=0,
            le=0.5,
            description="The smallest difference that matters to you, as a share: 0.01 is 1 point "
            "of accuracy, or 1 % of the loss. A verdict says *no difference that matters* "
            "where the whole interval lies within ± this.",
        ),
    ] = 0.01

    @model_validator(mode="after")
    def _both(self) -> EquitySection:
        refuse((self.leave_one_out and not self.credit, Reason("leave-one-out-alone")))
        return self


class BudgetSection(Section):
    """[budget] What may be spent; unset: no limit."""

    kwh: Annotated[
        Positive | None,
        Field(
            description="Most electricity for rounds and personal models, in kWh, PUE included. "
            "Steps that do not fit are not made. In federation.toml: of all participants, as "
            "they report it, spread over the rounds that remain; in participant.toml: your "
            "own, as in your book, and no request is taken once it is spent."
        ),
    ] = None
    kg_co2e: Annotated[
        Positive | None,
        Field(
            description="Most emissions, in kg CO₂e, as `kwh`. Needs `[energy]`; in "
            "federation.toml everybody must report its carbon."
        ),
    ] = None
    money: Annotated[
        Positive | None,
        Field(
            description="Most costs, as `kwh`, in the currency of `[money]`; costs reported in "
            "other currencies are not counted."
        ),
    ] = None
    hours: Annotated[
        Positive | None,
        Field(
            description="Most hours at work, as `kwh`; in federation.toml of all machines together."
        ),
    ] = None
    megabytes: Annotated[
        Positive | None,
        Field(
            description="Most traffic of updates, in MB. A round begins only where the most that "
            "it can take fits. In federation.toml: of all participants, up and down; in "
            "participant.toml: of your own, up."
        ),
    ] = None

    def limits(self) -> dict[str, float]:
        """Those that are set."""
        return {key: float(value) for key, value in self.model_dump(exclude_none=True).items()}


class ShiftSection(Section):
    """[shift] Rounds in simulated time, in `tequio run`: each participant works in the greenest
    hours
    before a deadline.
    """

    start: Annotated[
        str,
        checked(lambda text: moment(text, "start")),
        Field(
            description="When the first round begins in simulated time, with its zone: "
            '`"2020-06-01T00:00:00Z"`. Files of intensities must cover all rounds from then on, '
            "were each to take its whole deadline."
        ),
    ]
    policy: Annotated[
        Literal["greedy", "none"],
        Field(
            description="`greedy` works in the greenest slots before the deadline, chosen one by "
            "one by forecasts (and beyond them by the last fourteen days at that time of "
            "day). `none` works at once, for comparison."
        ),
    ] = "greedy"
    slot_minutes: Annotated[
        int,
        Field(
            ge=1,
            le=1440,
            description="Length of the slots in which work is placed, in minutes; a day has a "
            "whole number of them.",
        ),
    ] = 60
    deadline_hours: Annotated[
        float,
        Field(
            gt=0,
            le=8760,
            description="Hours within which each participant finishes its work of a round. The "
            "round ends when the last is done.",
        ),
    ] = 24.0
    work_hours: Annotated[
        Positive | None,
        Field(
            description="Hours that each participant works per round in simulated time. Unset: by "
            "its `tokens_per_second`, declared or measured."
        ),
    ] = None
    kg_co2e: Annotated[
        Positive | None,
        Field(
            description="Most emissions of the participants' training in all rounds, in kg CO₂e, "
            "at rated power (`[hardware] tdp_watts` × hours × PUE × intensity). A participant "
            "with no share left for a round sits it out. Unset: all take part."
        ),
    ] = None
    alpha: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="How shares of `kg_co2e` are divided: 0 gives most work for the carbon, 1 "
            "is proportionally fair, a large number gives all the same.",
        ),
    ] = 1.0
    minimum: Annotated[
        Share,
        Field(
            description="Share of the rounds in which each takes part whatever the budget says; "
            "their cost is set aside first."
        ),
    ] = 0.2

    @field_validator("slot_minutes")
    @classmethod
    def _of_a_day(cls, minutes: int) -> int:
        if 1440 % minutes:
            raise Unfit(Reason("slots-of-a-day"))
        return minutes


class MoneySection(Section):
    """[money] What this machine costs in its owner's currency: rent, or capital (TCO), and
    electricity. Private in participant.toml unless `tell`.
    """

    currency: Annotated[
        str,
        checked(checked_currency),
        Field(
            description="ISO 4217 code of a currency in use, such as `EUR`. Nothing is converted."
        ),
    ]
    per_kwh: Annotated[
        Amount | None,
        Field(description="Tariff, in currency per kWh; 0 is a price (your own sun)."),
    ] = None
    rent_per_hour: Annotated[
        Amount | None,
        Field(
            description="Rent of the machine, in currency per hour at work. Electricity is "
            "included unless `per_kwh` is given too."
        ),
    ] = None
    capital: Annotated[
        Amount | None,
        Field(
            description="Price of an owned machine, in currency: (capital · (1 − residual) / life "
            "+ maintenance) / utilisation counts per hour."
        ),
    ] = None
    residual: Annotated[
        Share,
        Field(description="Share of the capital that the machine is worth at the end of its life."),
    ] = 0.0
    maintenance_per_hour: Annotated[
        Amount,
        Field(description="Maintenance of an owned machine, in currency per hour of its life."),
    ] = 0.0
    utilisation: Annotated[
        float, Field(gt=0, le=1, description="Share of its life in which the machine is used.")
    ] = 1.0
    tell: Annotated[
        bool,
        Field(
            description="`true`: coordinator and report receive what each round cost you; else it "
            "stays in your own book (`tequio accounts --own`). No effect in federation.toml, "
            "which is public."
        ),
    ] = False

    @model_validator(mode="after")
    def _one_way(self) -> MoneySection:
        refuse(
            (
                self.per_kwh is None and self.rent_per_hour is None and self.capital is None,
                Reason("money-without-price"),
            ),
            (
                self.rent_per_hour is not None and self.capital is not None,
                Reason("rented-and-owned"),
            ),
        )
        return self
