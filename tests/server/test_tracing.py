"""Traces, as a collector of OpenTelemetry gets them."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from lathe.repository import Repository
from lathe.v1 import inference_pb2
from tests.calls import channel, config, frame, inference, outcomes, stream
from tests.conftest import RunningServer, start_server
from tests.server.faces import crowd_jpeg, publish_faces

STAGES = ["queue", "decode", "preprocess", "infer", "postprocess"]
TRACE = "0af7651916cd43dd8448eb211c80319c"
CAMERA = "rtsp://admin:hunter2@gate-3/live"


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.spans: list[trace_pb2.Span] = []
        self.resources: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def frames(self) -> list[trace_pb2.Span]:
        return [span for span in self.spans if span.name == "frame"]

    def stages_of(self, span: trace_pb2.Span) -> list[trace_pb2.Span]:
        return [one for one in self.spans if one.parent_span_id == span.span_id]


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        for of_one in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append({one.key: one.value.string_value for one in of_one.resource.attributes})
            self.server.spans += [span for scope in of_one.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the library's name
        """Says nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@contextmanager
def traced(repository: Repository, log: Path, collector: Collector, share: str = "1") -> Iterator[RunningServer]:
    """What is left is sent when the server goes."""
    flags = ("--trace-to", collector.url, "--trace-share", share, "--server-name", "edge-1")
    with start_server(repository.root, log, *flags) as server:
        yield server
        assert server.stop() == 0


def attributes(span: trace_pb2.Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def detect(server: RunningServer, jpeg: bytes, traceparent: str) -> inference_pb2.Result:
    request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=jpeg))
    with channel(server.grpc) as opened:
        result: inference_pb2.Result = (
            inference(opened).Detect(request, metadata=(("traceparent", traceparent),)).result
        )
    return result


def test_the_environment_may_name_the_service(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate-vision")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=airport")
    with traced(repository, tmp_path / "log", collector) as server:
        detect(server, spot_jpeg, "")
    assert collector.resources[0]["service.name"] == "gate-vision"
    assert collector.resources[0]["deployment.environment.name"] == "airport"


@pytest.mark.fault(87)
def test_a_pipelines_frame_is_one_trace_that_says_nothing_of_its_embeddings(
    tmp_path: Path, collector: Collector
) -> None:
    repository = publish_faces(tmp_path / "models")
    with traced(repository, tmp_path / "log", collector) as server, server.client() as client:
        found = client.embed("face-id", crowd_jpeg((320, 240)))
        assert (len(found.embeddings or ()), bool(found.trace_id)) == (1, True)
    (span,) = collector.frames()
    told = attributes(span)
    assert told.pop("lathe.age_seconds") > 0
    assert told.pop("lathe.request_id")
    assert told == {
        "lathe.model": "face-id",
        "lathe.variant": "face/a",
        "lathe.version": 1,
        "lathe.frame": 0,
        "lathe.outcome": "answered",
    }
    assert [(one.name, attributes(one)) for one in collector.stages_of(span)] == [(stage, {}) for stage in STAGES]


@pytest.mark.fault(87)
def test_each_frame_of_a_stream_is_a_trace_of_its_own(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    messages = [config(stream_id=CAMERA, keep_all=True), *(frame(index, spot_jpeg) for index in range(3))]
    messages.append(frame(3, b"no picture"))
    with traced(repository, tmp_path / "log", collector) as server, channel(server.grpc) as opened:
        results = list(stream(opened, messages))
    assert outcomes(results) == ["answered"] * 3 + ["rejected"]
    spans = {attributes(span)["lathe.frame"]: span for span in collector.frames()}
    assert [spans[index].trace_id.hex() for index in range(4)] == [result.trace_id for result in results]
    assert len({result.trace_id for result in results}) == 4
    for index, result in enumerate(results[:3]):
        told = attributes(spans[index])
        assert told["lathe.model"] == "spots"
        assert told["lathe.variant"] == "a"
        assert told["lathe.outcome"] == "answered"
        assert told["lathe.stream"] == "rtsp://gate-3/live"
        stages = collector.stages_of(spans[index])
        assert [one.name for one in stages] == STAGES
        infer = stages[3]
        took = (infer.end_time_unix_nano - infer.start_time_unix_nano) / 1e9
        assert took == pytest.approx(result.stage_seconds.infer, abs=1e-6)
        assert spans[index].start_time_unix_nano <= stages[0].start_time_unix_nano
        assert stages[-1].end_time_unix_nano <= spans[index].end_time_unix_nano
    assert spans[3].status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert not collector.stages_of(spans[3])
    assert {span.name for span in collector.spans} == {"frame", *STAGES}
    assert "hunter2" not in str(collector.spans)
    assert collector.resources[0]["service.name"] == "lathe"
    assert collector.resources[0]["service.instance.id"] == "edge-1"


def test_a_call_belongs_to_its_callers_trace_and_is_sampled_as_that_is(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    parent = "b7ad6b7169203331"
    with traced(repository, tmp_path / "log", collector, "0") as server:
        assert detect(server, spot_jpeg, f"00-{TRACE}-{parent}-01").trace_id == TRACE
        assert detect(server, spot_jpeg, f"00-{TRACE}-{parent}-00").trace_id == ""
        assert detect(server, spot_jpeg, "no such thing").trace_id == ""
    assert [(span.trace_id.hex(), span.parent_span_id.hex()) for span in collector.frames()] == [(TRACE, parent)]


def test_what_a_caller_does_not_want_is_not_sampled(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    with traced(repository, tmp_path / "log", collector) as server:
        assert detect(server, spot_jpeg, f"00-{TRACE}-b7ad6b7169203331-00").trace_id == ""
        assert detect(server, spot_jpeg, "").trace_id
    assert len(collector.frames()) == 1


def test_a_streams_frames_are_linked_to_its_caller(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    messages = iter([config(), frame(0, spot_jpeg)])
    with traced(repository, tmp_path / "log", collector) as server, channel(server.grpc) as opened:
        told = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        (response,) = inference(opened).DetectStream(messages, metadata=told)
    (span,) = collector.frames()
    assert span.trace_id.hex() == response.result.trace_id != TRACE
    assert [link.trace_id.hex() for link in span.links] == [TRACE]


def test_a_histogram_names_a_trace_to_those_who_take_openmetrics(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    with traced(repository, tmp_path / "log", collector) as server:
        trace_id = detect(server, spot_jpeg, "").trace_id
        request = urllib.request.Request(f"http://{server.http}/metrics")
        plain = urllib.request.urlopen(request).read().decode()
        request.add_header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        with urllib.request.urlopen(request) as response:
            assert response.headers["content-type"].startswith("application/openmetrics-text")
            rich = response.read().decode()
    assert trace_id not in plain
    lines = [line for line in rich.splitlines() if f'# {{trace_id="{trace_id}"}}' in line]
    assert {line.partition("{")[0] for line in lines} == {"lathe_request_seconds_bucket", "lathe_age_seconds_bucket"}
    assert rich.endswith("# EOF\n")


def test_a_collector_that_is_away_holds_nothing_up(repository: Repository, tmp_path: Path, spot_jpeg: bytes) -> None:
    flags = ("--trace-to", "http://127.0.0.1:1", "--trace-share", "1")
    with start_server(repository.root, tmp_path / "log", *flags) as server:
        assert detect(server, spot_jpeg, "").trace_id
        assert server.stop() == 0


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "always_off")])
def test_a_trace_that_is_not_recorded_has_no_id(
    repository: Repository,
    tmp_path: Path,
    collector: Collector,
    spot_jpeg: bytes,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    with traced(repository, tmp_path / "log", collector) as server:
        found = detect(server, spot_jpeg, "").trace_id
    assert bool(found) == bool(collector.frames())
    assert found in ("", *(span.trace_id.hex() for span in collector.frames()))


def test_what_clients_send_fills_no_log(
    repository: Repository, tmp_path: Path, collector: Collector, spot_jpeg: bytes
) -> None:
    """Headers that make no sense, and an index that has more bits than numbers in a trace."""
    messages = [config(keep_all=True), *(frame(index, spot_jpeg) for index in (1, 2**64 - 1))]
    told = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("tracestate", "=,=" * 1000))
    with traced(repository, tmp_path / "log", collector) as server, channel(server.grpc) as opened:
        assert len(list(inference(opened).DetectStream(iter(messages), metadata=told))) == 2
    assert {attributes(span)["lathe.frame"] for span in collector.frames()} == {1, str(2**64 - 1)}
    assert not re.search("warning|error|tracestate", server.log.read_text("utf-8"))
