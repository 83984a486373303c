"""The accountant that a server's settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry

from lathe.machine import available_cores
from lathe.repository import VariantRef
from lathe_server.accounts.accountant import Accountant, Jobs, Tariff
from lathe_server.accounts.carbon import intensity_of
from lathe_server.accounts.gpu_power import GpuPower, nvml
from lathe_server.accounts.power import Power, Rapl
from lathe_server.engine_names import PROVIDERS
from lathe_server.settings import Settings


def price_per_core_hour(settings: Settings) -> float:
    """A core's own price, or its part of the machine's; 0 where there is none."""
    return settings.price_per_core_hour or settings.price_per_instance_hour / available_cores()


def on_gpu(settings: Settings) -> bool:
    return settings.engine in PROVIDERS


def open_books(
    settings: Settings,
    registry: CollectorRegistry,
    routed: Callable[[], Iterable[VariantRef]],
    jobs: Jobs,
) -> Accountant:
    """
    Args:
        routed, jobs: as of `Accountant`.

    Raises:
        LatheError: the country is not known, or its table is not installed.
    """
    grams = intensity_of(settings.carbon_country) if settings.carbon_country else settings.carbon_grams_per_kwh
    tariff = Tariff(
        price_per_core_hour(settings) * available_cores(), settings.price_per_gpu_hour, settings.currency, grams
    )
    return Accountant(
        registry,
        tariff,
        Power(settings.watts_per_core, Rapl()),
        routed,
        jobs,
        gpu=GpuPower(settings.watts_per_gpu, nvml()) if on_gpu(settings) else None,
    )
