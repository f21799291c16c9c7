"""From [energy] and [money] to a place: where a machine stands, whose electricity it draws, and
what it costs.
"""

from dataclasses import replace

from tequio.config.accounting import EnergySection, MoneySection
from tequio.core.errors import ConfigError
from tequio.measure.countries import country_intensity
from tequio.measure.intensity import Intensity, read_intensity
from tequio.measure.money import Price, owned_per_hour
from tequio.measure.site import Site


def build_site(energy: EnergySection, money: MoneySection | None) -> Site:
    """The place.

    Raises ConfigError for a file of intensities that cannot be used, naming its line.
    """
    known: list[Intensity] = []
    if energy.intensity is not None:
        known.append(read_intensity(energy.intensity, energy.zone))
    if energy.country is not None:
        known.append(country_intensity(energy.country))
    embodied = None if energy.embodied_kg is None else 1000.0 * energy.embodied_kg
    price = None if money is None else build_price(money, energy.life_years)
    return Site(tuple(known), energy.pue, embodied, energy.life_years, price)


def disclosed_site(energy: EnergySection, money: MoneySection | None) -> Site:
    """The place without what its owner keeps private: prices, and what tells where it is."""
    site = build_site(energy, money if money is not None and money.tell else None)
    return site if energy.tell else replace(site, intensities=(), pue=1.0, embodied=None)


def private_fields(energy: EnergySection, money: MoneySection | None) -> list[str]:
    """What a place would say, and its owner keeps to itself: carbon, money."""
    placed = energy.country is not None or energy.intensity is not None
    withheld = {"carbon": placed and not energy.tell, "money": money is not None and not money.tell}
    return [what for what, hidden in withheld.items() if hidden]


def read_carbon_forecast(energy: EnergySection) -> Intensity | None:
    """What is expected of the electricity in the hours to come: the forecast made last, else the
    values themselves;

    None without a file.
    """
    if energy.intensity is None:
        return None
    try:
        return read_intensity(energy.intensity, energy.zone, "forecast")
    except ConfigError:
        return read_intensity(energy.intensity, energy.zone)


def build_price(money: MoneySection, life_years: float) -> Price:
    """By the kWh and by the hour."""
    per_hour = money.rent_per_hour or 0.0
    if money.capital is not None:
        per_hour = owned_per_hour(
            money.capital, life_years, money.residual, money.maintenance_per_hour, money.utilisation
        )
    return Price(money.currency, money.per_kwh or 0.0, per_hour)
