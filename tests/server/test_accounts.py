"""Cost, energy and carbon: what nobody used has an owner, meters fail without lying, and all of it adds up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from lathe.errors import InvalidInput
from lathe.repository import Repository, VariantRef
from lathe_server.accounts.accountant import Accountant, NoJobs, Tariff
from lathe_server.accounts.carbon import intensity_of
from lathe_server.accounts.cpu import COMPONENTS, ThreadTimes
from lathe_server.accounts.gpu_power import GpuPower, Nvml
from lathe_server.accounts.power import Interval, Power, Rapl
from lathe_server.threads import beside
from tests.calls import channel, config, frame, metric, outcomes, stream, until
from tests.conftest import start_server

A, B = VariantRef("face", "a", 1), VariantRef("face", "b", 1)
WATTS = 7.0


def meter(folder: Path, name: str, microjoules: int, largest: int = 1_000_000_000) -> Path:
    zone = folder / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{largest}\n")
    return zone


def test_a_meter_tells_of_all_packages_and_of_this_process_by_its_part_of_the_work(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):  # the last is part of the first
        meter(tmp_path, name, 1_000_000)
    power = Power(WATTS, Rapl(tmp_path))
    meter(tmp_path, "intel-rapl:0", 5_000_000)
    meter(tmp_path, "intel-rapl:1", 3_000_000)
    meter(tmp_path, "intel-rapl:0:0", 9_000_000)
    assert power.used(Interval(process=1.0, machine=3.0)) == ("rapl", pytest.approx(2.0))
    assert power.used(Interval(process=1.0, machine=3.0)) == ("rapl", 0.0)


@pytest.mark.fault(85)
def test_a_meter_that_wraps_goes_on(tmp_path: Path) -> None:
    meter(tmp_path, "intel-rapl:0", 999_000_000)
    power = Power(WATTS, Rapl(tmp_path))
    meter(tmp_path, "intel-rapl:0", 2_000_000)
    assert power.used(Interval(1.0, 1.0)) == ("rapl", pytest.approx(3.0))


@pytest.mark.fault(85)
@pytest.mark.parametrize("broken", ["gone", "no number", "beyond its range"])
def test_a_meter_that_cannot_be_read_is_replaced_by_an_estimate_that_says_so(tmp_path: Path, broken: str) -> None:
    zone = meter(tmp_path, "intel-rapl:0", 900_000_000, largest=100)
    power = Power(WATTS, Rapl(tmp_path))
    if broken == "gone":
        (zone / "energy_uj").unlink()
    else:
        (zone / "energy_uj").write_text("unknown" if broken == "no number" else "5")
    assert power.used(Interval(2.0, 3.0)) == ("estimate", 2.0 * WATTS)
    meter(tmp_path, "intel-rapl:0", 901_000_000)
    power.used(Interval(2.0, 3.0))  # may be the first look again
    meter(tmp_path, "intel-rapl:0", 902_000_000)
    assert power.used(Interval(2.0, 2.0)) == ("rapl", pytest.approx(1.0))


@pytest.mark.fault(85)
def test_energy_is_never_negative(tmp_path: Path) -> None:
    assert Power(WATTS, Rapl(tmp_path)).used(Interval(-0.001, 0.0)) == ("estimate", 0.0)
    meter(tmp_path, "intel-rapl:0", 1)
    power = Power(WATTS, Rapl(tmp_path))
    meter(tmp_path, "intel-rapl:0", 2_000_000)
    assert power.used(Interval(-0.001, 1.0)) == ("rapl", 0.0)


def test_threads_that_end_are_not_forgotten_and_numbers_may_come_again() -> None:
    threads = {1: "MainThread", 2: "lathe-worker-0", 3: ""}
    seconds = {1: 1.0, 2: 2.0, 3: 0.5}
    times = ThreadTimes(lambda: dict(threads), seconds.__getitem__, lambda: ())
    times.look()
    del threads[2]
    seconds[1] = 1.5
    assert times.look()["workers"] == 2.0
    threads[2], seconds[2] = "lathe-worker-1", 0.25
    found = times.look()
    assert {name: found[name] for name in ("event_loop", "workers", "grpc")} == {
        "event_loop": 1.5,
        "workers": 2.25,
        "grpc": 0.5,
    }


def test_a_loader_is_counted_whole_however_briefly_it_lived_and_once() -> None:
    def read(thread: int) -> float:
        if thread == 4:
            raise ProcessLookupError  # it ended while it was looked at
        return {1: 1.0, 2: 0.5}[thread]

    threads = {1: "MainThread", 2: "lathe-loader"}
    ended: list[tuple[int, float]] = [(3, 0.25)]  # between two looks
    times = ThreadTimes(lambda: dict(threads), read, lambda: [ended.pop() for _ in list(ended)])
    assert times.look()["loader"] == 0.75
    ended.append((2, 0.75))
    assert times.look()["loader"] == 1.0
    threads[4] = "lathe-loader"
    assert times.look()["loader"] == 1.0
    ended.append((4, 2.0))
    del threads[2], threads[4]
    assert times.look()["loader"] == 3.0
    assert times.look()["loader"] == 3.0


def test_what_is_done_beside_the_loop_is_the_loaders_time() -> None:
    def spin() -> None:
        while time.thread_time() < 0.05:
            sum(range(1000))

    times = ThreadTimes()
    before = times.look()["loader"]
    asyncio.run(beside(spin))
    until(lambda: times.look()["loader"] - before > 0)
    assert times.look()["loader"] - before == pytest.approx(0.05, rel=0.2)


def test_the_threads_of_this_process_take_all_its_time() -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work, name="lathe-worker-7")
    times = ThreadTimes()
    thread.start()
    before, process = sum(times.look().values()), time.process_time()
    began = times.look()["workers"]
    until(lambda: times.look()["workers"] - began > 0.1)
    after, took = sum(times.look().values()), time.process_time() - process
    stop.set()
    thread.join()
    assert after - before == pytest.approx(took, rel=0.05, abs=0.02)
    assert set(times.look()) == set(COMPONENTS)


class NvmlError(Exception):
    pass


class Library:
    """A stand-in for NVIDIA's: there is no such processor where these tests run."""

    NVMLError = NvmlError

    def __init__(self) -> None:
        self.millijoules = 5_000_000
        self.percent = 50
        self.is_broken = False

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:  # noqa: N802
        if self.is_broken:
            raise NvmlError("lost")
        return self.millijoules

    def nvmlDeviceGetUtilizationRates(self, device: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=self.percent)


@pytest.mark.fault(85)
def test_a_graphics_processors_energy_is_this_processs_part_of_its_work_or_an_estimate() -> None:
    library = Library()
    power = GpuPower(100.0, Nvml(library, "device"))
    assert list(power.sources) == ["nvml", "estimate"]
    library.millijoules += 40_000
    assert power.used(busy_seconds=0.25, seconds=1.0) == ("nvml", pytest.approx(20.0))  # half of what it worked
    library.millijoules += 40_000
    assert power.used(busy_seconds=0.8, seconds=1.0) == ("nvml", pytest.approx(40.0))  # its gauge is slow
    library.millijoules += 40_000
    assert power.used(busy_seconds=0.0, seconds=1.0) == ("nvml", 0.0)
    library.is_broken = True
    assert power.used(busy_seconds=0.5, seconds=1.0) == ("estimate", 50.0)
    library.is_broken = False
    assert power.used(busy_seconds=0.5, seconds=1.0) == ("estimate", 50.0)  # what came between is not known
    library.millijoules = 0  # the driver was loaded anew
    assert power.used(busy_seconds=0.5, seconds=1.0) == ("estimate", 50.0)
    library.millijoules += 10_000
    assert power.used(busy_seconds=0.5, seconds=1.0) == ("nvml", pytest.approx(10.0))
    assert GpuPower(100.0, None).used(0.5, 1.0) == ("estimate", 50.0)


def test_a_graphics_processor_is_paid_and_shared_by_its_own_time(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    books, look_after = accountant([A, B], Tariff(per_gpu_hour=3600.0), registry, tmp_path, GpuPower(100.0, None))
    books.used(A, 1.0, 0.3)
    books.used(B, 0.0, 0.1)
    look_after(1.0)
    a, b = (total(registry, "lathe_cost_allocation_total", variant=name) for name in "ab")
    assert a == pytest.approx(3 * b)
    joules = [total(registry, "lathe_energy_joules_total", variant=name, source="estimate") for name in "ab"]
    assert joules[0] >= 30.0
    assert joules[1] == pytest.approx(10.0)


def accountant(
    routed: list[VariantRef],
    tariff: Tariff,
    registry: CollectorRegistry,
    folder: Path,
    gpu: GpuPower | None = None,
    jobs: NoJobs | None = None,
) -> tuple[Accountant, Callable[[float], None]]:
    """And what lets so many seconds pass before it looks."""
    power, now = Power(WATTS, Rapl(folder)), [100.0]
    books = Accountant(
        registry,
        tariff,
        power,
        lambda: routed,
        jobs or NoJobs(),
        machine_seconds=lambda: 0.0,
        gpu=gpu,
        clock=lambda: now[0],
    )

    def look_after(seconds: float) -> None:
        now[0] += seconds
        books.look()

    return books, look_after


def total(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.fault(89)
def test_what_the_machine_costs_is_shared_out_whole(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    books, look_after = accountant([A], Tariff(per_hour=3600.0, grams_per_kwh=400.0), registry, tmp_path)
    books.used(A, 0.03)
    books.used(B, 0.01)
    look_after(1.0)
    of_b = total(registry, "lathe_cost_allocation_total", variant="b")
    assert of_b == pytest.approx(total(registry, "lathe_cost_allocation_total") / 4)
    for _ in range(3):  # idle: whoever is on the route
        look_after(1.0)
    assert total(registry, "lathe_cost_allocation_total", variant="b") == of_b
    assert total(registry, "lathe_cost_allocation_total") == pytest.approx(4.0)
    joules = total(registry, "lathe_energy_joules_total", source="estimate")
    assert total(registry, "lathe_energy_joules_total") == joules > 0
    assert total(registry, "lathe_carbon_grams_total") == pytest.approx(joules / 3.6e6 * 400)


@pytest.mark.parametrize("every", [0.02, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("job", [0.1, 1.0, 3.0])
def test_while_a_job_is_in_hand_nothing_is_idle_however_often_somebody_looks(
    tmp_path: Path, every: float, job: float
) -> None:
    registry, jobs = CollectorRegistry(), NoJobs()
    gpu = GpuPower(100.0, None)
    tariff = Tariff(per_hour=2 * 3600.0, per_gpu_hour=3600.0)
    books, look_after = accountant([A, B], tariff, registry, tmp_path, gpu, jobs)
    jobs.in_hand = 2
    ends = job
    for number in range(1, round(60 / every) + 1):
        while ends <= number * every:
            for _ in range(2):
                books.used(A, job, job / 2)
            ends += job
        look_after(every)
    whole = total(registry, "lathe_cost_allocation_total", variant="a")
    assert whole == pytest.approx(3 * 60, rel=0.12)  # what is in hand at the end is not booked yet
    assert total(registry, "lathe_cost_allocation_total", variant="b") == 0
    assert total(registry, "lathe_energy_joules_total", variant="b") == 0
    jobs.in_hand = 0
    look_after(1.0)
    look_after(1.0)
    assert total(registry, "lathe_cost_allocation_total", variant="b") > 0


@pytest.mark.fault(86)
def test_without_price_or_intensity_there_are_no_figures_of_them(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    books, look_after = accountant([A], Tariff(), registry, tmp_path)
    books.know(A)
    look_after(1.0)
    names = {family.name for family in registry.collect()}
    assert names == {"lathe_energy_joules", "lathe_cpu_overhead_seconds"}


def test_a_countrys_intensity_is_that_of_the_table() -> None:
    try:
        distribution("codecarbon")
    except PackageNotFoundError:
        pytest.skip("codecarbon, whose table it is, is not installed")
    assert 0 < intensity_of("NOR") < 100 < intensity_of("POL") < 1000
    with pytest.raises(InvalidInput, match="three letters"):
        intensity_of("Germany")


@pytest.mark.fault(89)
def test_on_a_server_usage_and_overhead_are_the_processs_own_time(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    flags = ("--price-per-instance-hour", "72", "--carbon-grams-per-kwh", "380")
    with start_server(repository.root, tmp_path / "log", *flags) as server, server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1})
        with channel(server.grpc) as opened:
            for number in range(6):
                messages = [config(variant="ab"[number % 2], keep_all=True)]
                messages += [frame(index, spot_jpeg) for index in range(400)]
                assert set(outcomes(stream(opened, messages, 60))) == {"answered"}
        before = metric(server, "process_cpu_seconds_total")
        used = metric(server, "lathe_cpu_seconds_total")
        overhead = metric(server, "lathe_cpu_overhead_seconds_total")
        after = metric(server, "process_cpu_seconds_total")
        assert before * 0.98 <= used + overhead <= after * 1.02
        for variant in "ab":
            usage = metric(server, "lathe_cost_usage_total", variant=variant)
            assert 0 < usage <= metric(server, "lathe_cost_allocation_total", variant=variant)
        joules = metric(server, "lathe_energy_joules_total")
        assert joules > 0
        assert metric(server, "lathe_carbon_grams_total") == pytest.approx(joules / 3.6e6 * 380, rel=0.1)
