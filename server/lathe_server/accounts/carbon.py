"""How much carbon a kilowatt-hour stands for."""

from __future__ import annotations

import json

from lathe.config import nearest
from lathe.errors import InvalidInput, NotFound, Refused
from lathe.packaged import packaged_file

TABLE = "codecarbon:codecarbon/data/private_infra/global_energy_mix.json"
JOULES_PER_KWH = 3.6e6


def intensity_of(country: str) -> float:
    """Grams of CO2 equivalent a kWh of a country's mix of electricity, from codecarbon's table (Our World in Data).

    Args:
        country: three letters, as of ISO 3166-1.

    Raises:
        Refused: codecarbon is not installed.
        InvalidInput: it has no such country.
    """
    try:
        path = packaged_file(TABLE)
    except NotFound as error:
        raise Refused("countries are codecarbon's: install lathe[carbon], or set carbon_grams_per_kwh") from error
    table = json.loads(path.read_text("utf-8"))
    found = table.get(country)
    if found is None:
        near = nearest(country, table)
        raise InvalidInput(f"carbon_country is three letters, such as DEU; there is no {country[:64]}{near}")
    return float(found["carbon_intensity"])


def grams(joules: float, grams_per_kwh: float) -> float:
    """
    >>> grams(7.2e6, 400.0)
    800.0
    """
    return joules / JOULES_PER_KWH * grams_per_kwh
