"""Traces by OpenTelemetry: one for each frame of a sample, with a span for each of its stages.

A stream is no span: it lasts for days. A frame of a stream begins a trace of its own, which is linked to the stream's
caller; a single call's frame belongs to its caller's trace, where `traceparent` names one, and is sampled as that is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from lathe_server.facts import facts_of_frame
from lathe_server.frames import Result
from lathe_server.origin import Origin

FAREWELL_SECONDS = 1.0
_MAX_INT = (1 << 63) - 1
_FAULTS = ("failed", "rejected")


class Tracing:
    """
    Args:
        exporter: takes the spans, on a thread of its own.
        share: of the frames that are traced, where no caller decides.
        server_name: by which traces know this server.
        draw: uniform in [0, 1).
    """

    def __init__(
        self, exporter: SpanExporter, share: float, server_name: str, draw: Callable[[], float] = random.random
    ) -> None:
        told = {"service.name": "lathe", "service.version": version("lathe"), "service.instance.id": server_name}
        resource = Resource.create(told).merge(OTELResourceDetector().detect())  # what the environment says wins
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lathe")
        self._share = share
        self._draw = draw

    def trace(self, result: Result) -> str:
        """Records a frame if it is one of the sample.

        Returns:
            The trace's id, 32 hex digits; empty where there is none.
        """
        frame = result.frame
        parent = _caller(frame.origin) if frame.is_call else None
        if not (parent.trace_flags.sampled if parent else self._draw() < self._share):
            return ""
        caller = None if frame.is_call else _caller(frame.origin)
        ended = time.time_ns()
        arrived = ended - _ns(time.monotonic() - frame.arrived)
        attributes = {f"lathe.{name}": _attribute(fact) for name, fact in facts_of_frame(frame, result.ref).items()}
        span = self._tracer.start_span(
            "frame",
            context=set_span_in_context(NonRecordingSpan(parent)) if parent else None,
            kind=SpanKind.SERVER,
            links=[Link(caller)] if caller else None,
            attributes={**attributes, "lathe.outcome": result.outcome, "lathe.age_seconds": result.age_seconds},
            start_time=arrived,
        )
        if not span.is_recording():  # the environment says that nothing is
            return ""
        if result.outcome in _FAULTS:
            span.set_status(Status(StatusCode.ERROR, result.error.message if result.error else None))
        self._stages(result, span, arrived)
        span.end(ended)
        return format(span.get_span_context().trace_id, "032x")

    def _stages(self, result: Result, span: Span, arrived: int) -> None:
        """One after the other, as they were; what lies between two of them counts to neither."""
        if not result.answer:
            return
        stages, context = result.answer.stages, set_span_in_context(span)
        at = arrived
        for name, seconds in (
            ("queue", result.queue_seconds),
            ("decode", stages.decode),
            ("preprocess", stages.preprocess),
            ("infer", stages.infer),
            ("postprocess", stages.postprocess),
        ):
            stage = self._tracer.start_span(name, context=context, start_time=at)
            at += _ns(seconds)
            stage.end(at)

    def close(self) -> None:
        """Sends what is left, if the collector takes it at once."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(FAREWELL_SECONDS)


def tracing_to(endpoint: str, share: float, server_name: str) -> Tracing:
    """
    Args:
        endpoint: URL of an OTLP collector that speaks HTTP, without the path of its traces.
    """
    return Tracing(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"), share, server_name)


def _caller(origin: Origin) -> SpanContext | None:
    """The span that a call belongs to, by W3C trace context."""
    told = origin.header("traceparent")
    if not told:
        return None
    found = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": told})).get_span_context()
    return found if found.is_valid else None


def _attribute(fact: str | int) -> str | int:
    """Numbers have 63 bits there."""
    return str(fact) if isinstance(fact, int) and fact > _MAX_INT else fact


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
