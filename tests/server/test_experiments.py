"""Experiments on a real server: every way in which they end, and what becomes of the route."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from onnx import helper

from lathe.client import AsyncClient, Client, ServerError
from lathe.experiment import judge, word
from lathe.repository import Repository
from lathe.v1 import control_pb2, experiment_pb2
from lathe.v1.experiment_pb2 import EXPERIMENT_STATE_ENDED, EXPERIMENT_UNIT_STREAM
from tests.calls import eventually, metric, until
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots, card_for, model_bytes, spots

T = TypeVar("T")

CAMERAS = 4
NAME = ("--server-name", "one")


def fails_on_dark_pictures() -> bytes:
    """Passes every check, on pictures that are grey on average, and raises on one that is mostly black."""
    nodes, constants = spots(12.0)
    nodes += [
        helper.make_node("ReduceMean", ["cells"], ["brightness"], keepdims=0),
        helper.make_node("Sub", ["limit", "brightness"], ["missing"]),
        helper.make_node("Relu", ["missing"], ["darkness"]),
        helper.make_node("Mul", ["darkness", "ten"], ["darker"]),
        helper.make_node("Cast", ["darker"], ["place"], to=7),
        helper.make_node("Gather", ["only", "place"], ["there_is_one"]),
        helper.make_node("Add", ["cells", "there_is_one"], ["heatmap"]),
    ]
    nodes = [node for node in nodes if node.output != ["heatmap"] or node.op_type == "Add"]
    constants |= {name: np.array(value, np.float32) for name, value in {"limit": 0.2, "ten": 10.0}.items()}
    constants["only"] = np.zeros(1, np.float32)
    return model_bytes(nodes, constants)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The variant `slow` serves; each of the others differs from it in one way."""
    root = tmp_path / "models"
    root.mkdir()
    repository = Repository(root)
    slow = bright_spots(work=3)
    repository.publish(card_for("spots", "slow", recommended=True), slow)
    repository.publish(card_for("spots", "fast"), bright_spots())
    repository.publish(card_for("spots", "same"), slow)
    repository.publish(card_for("spots", "slower"), bright_spots(work=6))
    repository.publish(card_for("spots", "blind"), bright_spots(box_pixels=60.0))
    repository.publish(card_for("spots", "failing"), fails_on_dark_pictures())
    return repository


def spec(candidate: str, **how: Any) -> experiment_pb2.ExperimentSpec:
    """Short blocks, so that a round is half a second; each with frames enough for a mean."""
    asked = experiment_pb2.ExperimentSpec(model="spots", **{"block_seconds": 0.25, "max_seconds": 60.0, **how})
    asked.baseline.variant, asked.candidate.variant = "slow", candidate
    asked.minimum_effect = asked.minimum_effect or 0.1
    for name in ("latency_p50_seconds", "latency_p99_seconds", "age_p99_seconds"):
        if asked.unit != EXPERIMENT_UNIT_STREAM:
            asked.margins.add(metric=name, margin=50.0)  # one core's hiccups are not what these tests are about
    asked.max_latency_ratio = asked.max_latency_ratio or 1e6
    return asked


class Traffic:
    """Cameras that send a frame after each answer."""

    def __init__(self, client: AsyncClient, picture: bytes, pause: float) -> None:
        self._on = True
        self._pause = pause
        self._picture = picture
        self.outcomes: set[str] = set()
        self.variants: list[str] = []
        self._tasks = [asyncio.create_task(self._film(client, number)) for number in range(CAMERAS)]

    async def _film(self, client: AsyncClient, number: int) -> None:
        async for result in client.detect_stream("spots", self._frames(), stream_id=f"camera-{number}"):
            self.outcomes.add(result.outcome)
            self.variants.append(result.variant)

    async def _frames(self) -> AsyncIterator[tuple[bytes, float]]:
        while self._on:
            yield self._picture, 0.0
            await asyncio.sleep(self._pause)

    async def off(self) -> None:
        self._on = False
        await asyncio.gather(*self._tasks)


async def seen(look: Callable[[], Awaitable[T | None]], seconds: float = 60.0) -> T:
    """What it gives once it gives something."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.05)


async def ended(client: AsyncClient) -> experiment_pb2.Experiment:
    """The newest experiment, once the route knows that it has ended."""

    async def look() -> experiment_pb2.Experiment | None:
        now = await client.experiment("spots")
        return now if now.state == EXPERIMENT_STATE_ENDED and now.route_revision else None

    return await seen(look)


def run(
    server: RunningServer, picture: bytes, asked: experiment_pb2.ExperimentSpec, pause: float = 0.01
) -> tuple[experiment_pb2.Experiment, Traffic, control_pb2.Route]:
    """An experiment under traffic, to its end."""

    async def act() -> tuple[experiment_pb2.Experiment, Traffic, control_pb2.Route]:
        async with AsyncClient(server.grpc, server.control) as client:
            traffic = Traffic(client, picture, pause)
            await client.start_experiment(asked, author="a test")
            experiment = await ended(client)
            await traffic.off()
            return experiment, traffic, await client.route("spots")

    return asyncio.run(act())


@pytest.fixture
def one(repository: Repository, tmp_path: Path) -> Iterator[RunningServer]:
    with start_server(repository.root, tmp_path / "server.log", *NAME) as running:
        yield running


def serves(route: control_pb2.Route) -> list[str]:
    assert not route.HasField("experiment")
    return [weight.variant for weight in route.weights if weight.weight]


def test_a_faster_candidate_is_promoted_and_the_record_says_why(
    repository: Repository, one: RunningServer, spot_jpeg: bytes
) -> None:
    experiment, traffic, route = run(one, spot_jpeg, spec("fast", promote=True))
    assert word(experiment.verdict) == "promote", experiment.reason
    assert serves(route) == ["fast"]
    assert route.revision == experiment.route_revision == 2
    assert re.fullmatch(rf"experiment {experiment.id}", route.author)
    assert traffic.outcomes == {"answered"}
    kept = repository.experiment("spots", experiment.id)
    assert kept == experiment
    again = judge(kept.spec, kept.rounds)
    assert (again.verdict, again.reason) == (kept.verdict, kept.reason)
    assert {estimate.metric for estimate in kept.estimates} >= {"cpu_seconds", "agreement", "streams"}
    assert sum(one.compared_frames for one in kept.rounds) > 20
    assert metric(one, "lathe_experiments_total", verdict="promote") == 1
    assert metric(one, "lathe_experiment_running") == 0
    assert metric(one, "lathe_experiment_estimate", metric="cpu_seconds", bound="high") < 0
    assert metric(one, "lathe_variant_state", variant="slow", state="ready") == 0


def test_without_being_asked_for_a_promotion_changes_nothing(one: RunningServer, spot_jpeg: bytes) -> None:
    experiment, _, route = run(one, spot_jpeg, spec("fast"))
    assert (word(experiment.verdict), serves(route)) == ("promote", ["slow"])


@pytest.mark.parametrize(
    ("candidate", "how", "why"),
    [
        ("slower", {}, "CPU time of a prediction: +"),
        ("blind", {}, "agreement on the same frames: 0.0 %"),
        # So sure that no figure is enough: the guardrail alone may end it.
        ("slower", {"max_latency_ratio": 1.05, "block_seconds": 0.8, "alpha": 1e-6}, "99th percentile of latency"),
    ],
    ids=["dearer", "sees something else", "late"],
)
def test_a_worse_candidate_is_rolled_back(
    one: RunningServer, spot_jpeg: bytes, candidate: str, how: dict[str, float], why: str
) -> None:
    asked = spec(candidate, promote=True)
    for name, value in how.items():
        setattr(asked, name, value)
    experiment, traffic, route = run(one, spot_jpeg, asked)
    assert word(experiment.verdict) == "rollback"
    assert why in experiment.reason
    assert serves(route) == ["slow"]
    assert traffic.outcomes == {"answered"}


def test_a_candidate_that_fails_loses_the_frames_at_once(one: RunningServer, spot_jpeg: bytes) -> None:
    asked = spec("failing", promote=True)
    asked.block_seconds = 5.0
    experiment, traffic, route = run(one, spot_jpeg, asked)
    assert (word(experiment.verdict), serves(route)) == ("rollback", ["slow"])
    assert re.search(r"of the candidate's last \d+ frames failed", experiment.reason)
    assert not experiment.rounds, "nobody waited for the end of a round"
    assert traffic.outcomes <= {"answered", "failed"}


def test_in_the_shadow_a_candidate_that_fails_costs_nobody_a_frame(one: RunningServer, spot_jpeg: bytes) -> None:
    # Workers that are busy compare nothing, so these cameras are slow.
    experiment, traffic, route = run(one, spot_jpeg, spec("failing", shadow_rounds=100, shadow_share=1.0), pause=0.08)
    assert (word(experiment.verdict), serves(route)) == ("rollback", ["slow"])
    assert traffic.outcomes == {"answered"}
    assert set(traffic.variants) == {"slow"}
    assert metric(one, "lathe_shadow_frames_total", variant="failing", outcome="failed") >= 5


def test_the_same_file_under_two_names_wins_nothing(one: RunningServer, spot_jpeg: bytes) -> None:
    experiment, _, route = run(one, spot_jpeg, spec("same", promote=True, max_seconds=6.0))
    assert word(experiment.verdict) in ("undecided", "no difference"), experiment.reason
    assert serves(route) == ["slow"]


def test_streams_as_units_stand_beside_each_other(one: RunningServer, spot_jpeg: bytes) -> None:
    experiment, traffic, _ = run(one, spot_jpeg, spec("fast", unit=EXPERIMENT_UNIT_STREAM, blocks_per_round=4))
    assert word(experiment.verdict) == "promote", experiment.reason
    share = traffic.variants.count("fast") / len(traffic.variants)
    assert 0.1 < share < 0.45
    assert "latency_p99_seconds" not in {estimate.metric for estimate in experiment.estimates}


@pytest.mark.fault(90)
def test_without_frames_it_is_invalid(one: RunningServer) -> None:
    async def act() -> tuple[experiment_pb2.Experiment, control_pb2.Route]:
        async with AsyncClient(one.grpc, one.control) as client:
            await client.start_experiment(spec("fast", promote=True))
            return await ended(client), await client.route("spots")

    experiment, route = asyncio.run(act())
    assert (word(experiment.verdict), serves(route)) == ("invalid", ["slow"])
    assert "was given no frames" in experiment.reason


def refusal(call: Any) -> str:
    with pytest.raises(ServerError) as caught:
        call()
    return f"{caught.value.code.name}: {caught.value.message}"


@pytest.mark.fault(57)
def test_what_cannot_be_compared_is_refused(repository: Repository, one: RunningServer, tmp_path: Path) -> None:
    repository.publish(card_for("spots", "broken"), b"no network")
    with one.client() as client:

        def start(candidate: str, **how: Any) -> str:
            return refusal(lambda: client.start_experiment(spec(candidate, **how)))

        assert "NOT_FOUND: model spots has no variant lost" in start("lost")
        assert "FAILED_PRECONDITION: the model file is not a whole ONNX file" in start("broken")
        assert "INVALID_ARGUMENT: an experiment needs two variants" in start("slow")
        assert "INVALID_ARGUMENT: alpha" in start("fast", alpha=2.0)
        assert not repository.experiments("spots"), "what never began leaves nothing"
        assert "NOT_FOUND" in refusal(lambda: client.experiment("spots"))
        client.set_route("spots", {"slow": 1})
        assert "FAILED_PRECONDITION: no experiment runs" in refusal(lambda: client.stop_experiment("spots"))
        other = spec("fast")
        other.baseline.variant = "same"
        why = "the baseline has to serve spots alone; its route is slow/1"
        assert why in refusal(lambda: client.start_experiment(other))
        client.start_experiment(spec("fast"))
        assert "FAILED_PRECONDITION: experiment" in start("same"), "two on one model"
        assert "stop it first" in refusal(lambda: client.set_route("spots", {"fast": 1}))
        assert "stop it first" in refusal(lambda: client.rollback("spots"))
        stopped = client.stop_experiment("spots", "seen\nenough")
        assert (word(stopped.verdict), stopped.reason) == ("undecided", "seen enough")
        assert serves(client.route("spots")) == ["slow"]
        client.start_experiment(spec("fast"))
        client.stop_experiment("spots", promote=True)
        assert serves(client.route("spots")) == ["fast"]
        client.set_route("spots", {"slow": 1})


@contextmanager
def two_servers(repository: Repository, tmp_path: Path) -> Iterator[tuple[Client, Client]]:
    with ExitStack() as stack:
        running = [
            stack.enter_context(start_server(repository.root, tmp_path / f"{name}.log", "--server-name", name))
            for name in ("one", "two")
        ]
        first, second = (stack.enter_context(server.client()) for server in running)
        yield first, second


def test_an_experiment_belongs_to_the_server_that_started_it(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    with two_servers(repository, tmp_path) as (first, second):
        begun = first.start_experiment(spec("fast", block_seconds=30.0, max_seconds=600.0))
        until(lambda: second.route("spots").revision == 1)
        assert second.experiment("spots").id == begun.id
        answered = {second.detect("spots", spot_jpeg).variant for _ in range(20)}
        assert answered == {"slow"}, "elsewhere the baseline answers alone"
        assert "belongs to server one" in refusal(lambda: second.stop_experiment("spots"))
        assert "on server one; stop it first" in refusal(lambda: second.set_route("spots", {"fast": 1}))
        assert not [status for status in second.variants() if status.card.variant == "fast" and status.state != 1]


@pytest.mark.fault(60)
def test_a_server_that_is_killed_goes_on_with_its_experiment(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    async def some_rounds(server: RunningServer) -> experiment_pb2.Experiment:
        async with AsyncClient(server.grpc, server.control) as client:
            traffic = Traffic(client, spot_jpeg, 0.01)
            begun = await client.start_experiment(spec("same", minimum_effect=0.001, max_seconds=100.0))

            await eventually(lambda: len(repository.experiment("spots").rounds) >= 3)
            server.process.send_signal(signal.SIGKILL)
            await asyncio.gather(traffic.off(), return_exceptions=True)
            return begun

    with start_server(repository.root, tmp_path / "first.log", *NAME) as first:
        begun = asyncio.run(some_rounds(first))
        first.process.wait()
    kept = repository.experiment("spots")
    assert len(kept.rounds) >= 3
    with start_server(repository.root, tmp_path / "again.log", *NAME) as again, again.client() as client:
        now = client.experiment("spots")
        assert (now.id, now.state) == (begun.id, experiment_pb2.EXPERIMENT_STATE_RUNNING)
        assert list(now.rounds)[: len(kept.rounds)] == list(kept.rounds)
        assert client.route("spots").experiment.candidate.variant == "same"
        client.stop_experiment("spots")
    with start_server(repository.root, tmp_path / "third.log", *NAME) as third, third.client() as client:
        assert serves(client.route("spots")) == ["slow"]


def test_an_experiment_whose_record_is_gone_ends_and_the_baseline_serves(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    with start_server(repository.root, tmp_path / "first.log", *NAME) as first:
        with first.client() as client:
            begun = client.start_experiment(spec("fast", block_seconds=30.0, max_seconds=600.0))
        first.process.kill()
        first.process.wait()
    (repository.root / "spots/experiments" / f"{begun.id}.json").unlink()
    with start_server(repository.root, tmp_path / "again.log", *NAME) as again:

        async def route() -> control_pb2.Route:
            async with AsyncClient(again.grpc, again.control) as client:

                async def without() -> control_pb2.Route | None:
                    found = await client.route("spots")
                    return None if found.HasField("experiment") else found

                return await seen(without)

        assert serves(asyncio.run(route())) == ["slow"]


def test_a_route_from_elsewhere_ends_it(repository: Repository, one: RunningServer) -> None:
    async def act() -> experiment_pb2.Experiment:
        async with AsyncClient(one.grpc, one.control) as client:
            await client.start_experiment(spec("fast", block_seconds=30.0, max_seconds=600.0))
            weights = [{"variant": "same", "version": 1, "weight": 1}]
            repository.add_route(control_pb2.Route(model="spots", revision=2, weights=weights))

            async def is_over() -> experiment_pb2.Experiment | None:
                now = await client.experiment("spots")
                return now if now.state == EXPERIMENT_STATE_ENDED else None

            now = await seen(is_over)
            await eventually(lambda: bool(repository.experiment("spots").verdict))
            assert serves(await client.route("spots")) == ["same"]
            return now

    experiment = asyncio.run(act())
    assert word(experiment.verdict) == "invalid"
    assert "revision 2 of the route took its place" in experiment.reason
