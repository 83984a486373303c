"""Goes over the books once a second: what did the machine cost since, whose is it, and where did its time go?"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry

from lathe.machine import busy_seconds
from lathe.repository import VariantRef
from lathe_server.accounts.carbon import grams
from lathe_server.accounts.cpu import COMPONENTS, ThreadTimes
from lathe_server.accounts.gpu_power import GpuPower
from lathe_server.accounts.power import Interval, Power, Source
from lathe_server.accounts.shares import shares
from lathe_server.shards import Counters

SECONDS = 1.0
"""Between two looks."""
LEAST_SECONDS = 0.2
"""That are shared out: meters tick, and scrapes come as they like."""
MOST_SECONDS = 60.0
"""For which a job in hand is waited for."""
OVERHEAD = (*COMPONENTS, "shadows")


@dataclass(frozen=True)
class Tariff:
    """Attributes:
    per_hour: price of the whole machine; 0 where there is none.
    per_gpu_hour: of its graphics processor, where that has a price of its own.
    currency: of both.
    grams_per_kwh: carbon; 0 where it is not known.
    """

    per_hour: float = 0.0
    per_gpu_hour: float = 0.0
    currency: str = "USD"
    grams_per_kwh: float = 0.0


class Jobs(Protocol):
    """What workers do.

    Attributes:
        worker_seconds, loop_seconds: CPU time of all jobs so far, by workers and by the event loop.
        in_hand: jobs that are not done.
    """

    worker_seconds: float
    loop_seconds: float

    @property
    def in_hand(self) -> int: ...


@dataclass
class NoJobs:
    """Of workers that do nothing."""

    worker_seconds: float = 0.0
    loop_seconds: float = 0.0
    in_hand: int = 0


class Accountant:
    """On the event loop only.

    What a job used is known when it is done. So an interval in which none was done, and one is in hand, is not idle: it
    is shared out with the next.

    Args:
        routed: variants that take frames now.
        machine_seconds: CPU time of all on the machine so far that worked; 0 where it is not known.
        gpu: the energy of the graphics processor; None where none serves.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        tariff: Tariff,
        power: Power,
        routed: Callable[[], Iterable[VariantRef]],
        jobs: Jobs,
        times: ThreadTimes | None = None,
        machine_seconds: Callable[[], float] = busy_seconds,
        gpu: GpuPower | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        variant = ("model", "variant", "version")
        self._tariff = tariff
        self._power = power
        self._routed = routed
        self._jobs = jobs
        self._clock = clock
        self._times = times or ThreadTimes()
        self._machine_seconds = machine_seconds
        self._gpu = gpu
        self._sources = dict.fromkeys((*power.sources, *(gpu.sources if gpu else ())))
        self._allocation = (
            Counters(
                "lathe_cost_allocation_total",
                "Price of the machine, idle or not, by what used it",
                (*variant, "currency"),
                registry,
            )
            if tariff.per_hour or tariff.per_gpu_hour
            else None
        )
        self._energy = Counters(
            "lathe_energy_joules_total", "Energy that the server used, by what used it", (*variant, "source"), registry
        )
        self._carbon = (
            Counters("lathe_carbon_grams_total", "Carbon that stands for that energy", variant, registry)
            if tariff.grams_per_kwh
            else None
        )
        self._overhead = Counters(
            "lathe_cpu_overhead_seconds_total", "CPU time beside the predictions", ("component",), registry
        )
        for component in OVERHEAD:
            self._overhead.labels(component)
        self._used: defaultdict[VariantRef, float] = defaultdict(float)  # since the last look
        self._used_in_all = 0.0
        self._used_gpu: defaultdict[VariantRef, float] = defaultdict(float)  # since the last look
        self._scrapes = 0.0
        self._at = self._gpu_at = clock()
        self._of(None)  # what is nobody's is there from the start too
        self._process, self._machine = time.process_time(), machine_seconds()

    def know(self, ref: VariantRef) -> None:
        """A variant may be used from now on: its figures exist, at 0."""
        self._of(ref)

    def used(self, ref: VariantRef, cpu_seconds: float, gpu_seconds: float = 0.0) -> None:
        """A prediction took so much."""
        self._used[ref] += cpu_seconds
        self._used_in_all += cpu_seconds
        if gpu_seconds:
            self._used_gpu[ref] += gpu_seconds

    def scraped(self, cpu_seconds: float) -> None:
        """Telling all this took so much."""
        self._scrapes += cpu_seconds

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            self.look()

    def look(self) -> None:
        """Brings all figures up to now."""
        now = self._clock()
        if self._is_due(now - self._at, self._used):
            self._share_out_machine(now)
        if self._gpu and self._is_due(now - self._gpu_at, self._used_gpu):
            self._share_out_gpu(now, self._gpu)
        self._look_at_overhead()

    def _is_due(self, seconds: float, used: Mapping[VariantRef, float]) -> bool:
        return seconds >= LEAST_SECONDS and bool(used or not self._jobs.in_hand or seconds >= MOST_SECONDS)

    def _share_out_machine(self, now: float) -> None:
        process, machine = time.process_time(), self._machine_seconds()
        interval = Interval(process - self._process, machine - self._machine)
        price = (now - self._at) * self._tariff.per_hour / 3600
        self._at, self._process, self._machine = now, process, machine
        used, self._used = self._used, defaultdict(float)
        self._share_out(used, price, *self._power.used(interval))

    def _share_out_gpu(self, now: float, power: GpuPower) -> None:
        seconds, self._gpu_at = now - self._gpu_at, now
        used, self._used_gpu = self._used_gpu, defaultdict(float)
        energy = power.used(sum(used.values()), seconds)
        self._share_out(used, seconds * self._tariff.per_gpu_hour / 3600, *energy)

    def _share_out(self, used: Mapping[VariantRef, float], price: float, source: Source, joules: float) -> None:
        for ref, part in shares(used, self._routed()).items():
            labels = self._of(ref)
            if self._allocation:
                self._allocation.labels(*labels, self._tariff.currency).inc(price * part)
            self._energy.labels(*labels, source).inc(joules * part)
            if self._carbon:
                self._carbon.labels(*labels).inc(grams(joules * part, self._tariff.grams_per_kwh))

    def _look_at_overhead(self) -> None:
        by_workers, by_loop = self._jobs.worker_seconds, self._jobs.loop_seconds
        seconds = dict(self._times.look())
        seconds["workers"] -= by_workers
        seconds["event_loop"] -= by_loop
        seconds["other"] -= self._scrapes
        seconds["scrapes"] = self._scrapes
        seconds["shadows"] = by_workers + by_loop - self._used_in_all
        for component, value in seconds.items():
            counter = self._overhead.labels(component)
            counter.inc(max(0.0, value - counter.value))  # a job in hand is not known to be one before it is done

    def _of(self, ref: VariantRef | None) -> tuple[str, str, str]:
        labels = (ref.model, ref.variant, str(ref.version)) if ref else ("", "", "")
        if self._allocation:
            self._allocation.labels(*labels, self._tariff.currency)
        for source in self._sources:
            self._energy.labels(*labels, source)
        if self._carbon:
            self._carbon.labels(*labels)
        return labels
