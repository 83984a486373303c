"""What Prometheus sees: every frame counted once, cost only where there is a price, and few labels."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from lathe.detections import Detections
from lathe.repository import Repository, VariantRef
from lathe.v1 import inference_pb2
from lathe_server.frames import Frame, Result
from lathe_server.metrics import Metrics
from lathe_server.vision import Answer, EncodedPicture
from lathe_server.vision.detector import Stages
from tests.calls import (
    DETECT,
    channel,
    config,
    exposition,
    frame,
    inference,
    metric,
    outcomes,
    refusal,
    send_bytes,
    stream,
    until,
)
from tests.conftest import RunningServer, start_server


@pytest.mark.fault(86)
def test_without_a_price_there_is_no_cost(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    with shared_server.client() as client:
        client.detect("spots", spot_jpeg)
    assert metric(shared_server, "lathe_cpu_seconds_total", variant="a") > 0
    assert "cost" not in exposition(shared_server)


@pytest.mark.fault(84, 86, 89)
def test_with_a_price_the_cost_is_that_of_the_cpu_time_and_the_variants_sum_to_the_total(
    repository: Repository, tmp_path: Path, spot_jpeg: bytes
) -> None:
    flags = ("--price-per-core-hour", "36", "--currency", "EUR")
    with start_server(repository.root, tmp_path / "log", *flags) as server, server.client() as client:
        client.set_route("spots", {"a": 1, "b": 1})
        for variant in "abab":
            client.detect("spots", spot_jpeg, variant=variant)
        client.set_route("spots", {"b": 1})
        client.set_route("spots", {"a": 1})  # loaded anew, and its counters go on
        client.detect("spots", spot_jpeg)
        assert metric(server, "lathe_frames_total", variant="a", outcome="answered") == 3
        cost = [metric(server, "lathe_cost_usage_total", variant=v, currency="EUR") for v in "ab"]
        cpu = metric(server, "lathe_cpu_seconds_total")
        assert min(cost) > 0
        assert sum(cost) == pytest.approx(cpu * 36 / 3600)


def test_every_frame_is_counted_once_with_what_became_of_it(server: RunningServer, spot_jpeg: bytes) -> None:
    pictures = [spot_jpeg, b"no picture", spot_jpeg[:500], spot_jpeg] * 10
    with channel(server.grpc) as opened:
        messages = [config(), *(frame(index, picture) for index, picture in enumerate(pictures))]
        seen = outcomes(stream(opened, messages))
    assert len(seen) == len(pictures)
    for outcome in set(seen):
        assert metric(server, "lathe_frames_total", outcome=outcome) == seen.count(outcome)
    assert metric(server, "lathe_frames_total") == len(pictures)


@pytest.mark.fault(82)
def test_names_that_clients_make_up_are_no_labels(server: RunningServer, spot_jpeg: bytes) -> None:
    def samples() -> set[str]:
        return {line.rsplit(" ", 1)[0] for line in exposition(server).splitlines()}

    with channel(server.grpc) as opened:
        list(stream(opened, [config(stream_id="first"), frame(0, spot_jpeg)]))
        before = samples()
        for number in range(50):
            list(stream(opened, [config(stream_id=f"made-up-{number}"), frame(0, spot_jpeg)]))
    assert samples() == before


@pytest.mark.fault(83)
def test_many_scrapes_at_once_are_all_answered(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    with ThreadPoolExecutor(20) as pool, shared_server.client() as client:
        scrapes = [pool.submit(exposition, shared_server) for _ in range(100)]
        assert client.detect("spots", spot_jpeg).answered
        assert all("lathe_frames_total" in scrape.result() for scrape in scrapes)


@pytest.mark.fault(83)
def test_scrapers_that_read_nothing_hold_nobody_up(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    host, _, port = shared_server.http.rpartition(":")
    with ExitStack() as scrapers, shared_server.client() as client:
        for _ in range(50):
            scraper = scrapers.enter_context(socket.socket())
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)  # or the system reads for them
            scraper.connect((host, int(port)))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: lathe\r\n\r\n" * 20)  # more than the server's side holds
        assert client.detect("spots", spot_jpeg).answered
        assert metric(shared_server, "lathe_frames_total", outcome="answered") > 0


def test_every_sample_is_well_formed_and_has_help(shared_server: RunningServer) -> None:
    text = exposition(shared_server)
    names = set(re.findall(r"^(lathe_\w+?)(?:_bucket|_sum|_count)?[{ ]", text, re.MULTILINE))
    assert names
    assert all(f"# HELP {name} " in text for name in names)


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_a_server_that_serves_says_that_it_lives_and_is_ready(shared_server: RunningServer, path: str) -> None:
    with urllib.request.urlopen(f"http://{shared_server.http}/{path}", timeout=5) as response:
        assert response.read() == b"ok\n"


def test_the_time_of_a_request_is_all_of_it_and_not_the_sum_of_its_stages() -> None:
    metrics = Metrics()
    frame_ = Frame("face", "camera", "", 0, EncodedPicture(b""), captured=10.0, arrived=10.5)
    answer = Answer(Detections.none(), Stages(0.01, 0.01, 0.01, 0.01))
    metrics.observe(Result(frame_, "answered", VariantRef("face", "a", 1), answer, age_seconds=0.8))
    labels = {"model": "face", "variant": "a", "version": "1"}
    assert metrics.registry.get_sample_value("lathe_request_seconds_sum", labels) == pytest.approx(0.3)
    assert metrics.registry.get_sample_value("lathe_age_seconds_sum", labels) == pytest.approx(0.8)


def test_calls_and_streams_are_counted_by_how_they_end(server: RunningServer, spot_jpeg: bytes) -> None:
    detect, streamed = "lathe.v1.InferenceService/Detect", "lathe.v1.InferenceService/DetectStream"

    def requests(method: str, status: str) -> float:
        return metric(server, "lathe_requests_total", method=method, status=status)

    assert f'lathe_requests_total{{method="{detect}",status="UNAVAILABLE"}} 0.0' in exposition(server)
    with channel(server.grpc) as opened, server.client() as client:
        client.detect("spots", spot_jpeg)
        refusal(lambda: inference(opened).Detect(inference_pb2.DetectRequest(model="nobody")))
        refusal(lambda: send_bytes(opened, DETECT, b"\xff"))
        assert outcomes(stream(opened, [config(), frame(0, spot_jpeg)])) == ["answered"]
        left = inference(opened).DetectStream(iter([config(), frame(0, spot_jpeg)]))
        next(left)
        refusal(lambda: list(stream(opened, [frame(0, spot_jpeg)])))
        with urllib.request.urlopen(f"http://{server.http}/v2/models/spots") as response:
            assert response.status == 200
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{server.http}/v2/models/made-up-{'x' * 20}")
    assert (requests(detect, "OK"), requests(detect, "NOT_FOUND"), requests(detect, "INVALID_ARGUMENT")) == (1, 1, 1)
    until(lambda: requests(streamed, "OK") + requests(streamed, "CANCELLED") == 2)
    assert requests(streamed, "INVALID_ARGUMENT") == 1
    assert (requests("/v2 metadata", "OK"), requests("/v2 metadata", "NOT_FOUND")) == (1, 1)
    assert "made-up" not in exposition(server)


def test_a_variants_state_and_what_it_is_are_told(server: RunningServer) -> None:
    with server.client() as client:
        client.set_route("spots", {"b": 1})
    until(lambda: metric(server, "lathe_variant_state", variant="a") == 0)
    assert metric(server, "lathe_variant_state", variant="b", state="ready") == 1
    assert metric(server, "lathe_variant_state", variant="b") == 1
    assert metric(server, "lathe_variant_info", variant="b", precision="fp32") == 1
    assert metric(server, "lathe_variant_info", variant="a") == 0
    assert 'engine="onnxruntime' in exposition(server)
