"""Everything that Prometheus sees. One process owns the metrics; children are looked up once a variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from lathe.experiment import word
from lathe.repository import VariantRef
from lathe.v1 import control_pb2, experiment_pb2
from lathe_server.frames import OUTCOMES, Outcome, Result
from lathe_server.objective import FULFILMENTS, Fulfilment, fulfilment
from lathe_server.shards import Count, Counters, Histograms
from lathe_server.stream_metrics import StreamLabels, StreamMetrics
from lathe_server.variant_metrics import VARIANT, VariantMetrics, labels_of

STAGES = ("decode", "queue", "preprocess", "infer", "postprocess")
_STAGE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
STATUSES = (
    "OK",
    "CANCELLED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "UNAVAILABLE",
    "INTERNAL",
)
"""In which calls that want a prediction end."""
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


TURNED_AWAY = ("UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED")
SWAP_RESULTS = ("done", "refused", "followed")
EVENTS = tuple(name.removeprefix("EVENT_KIND_").lower() for name in control_pb2.EventKind.keys()[1:])
VERDICTS = tuple(word(verdict) for verdict in experiment_pb2.Verdict.values() if verdict)


@dataclass(frozen=True, slots=True)
class Objective:
    """Attributes:
    seconds: from a frame's arrival to its answer.
    share: of the frames that shall be answered by then.
    """

    seconds: float = 0.1
    share: float = 0.99


@dataclass(frozen=True, slots=True)
class Totals:
    """One variant's frames, and the seconds of all that were answered, in all and by stage.

    Attributes:
        judged: those of its stages; of a pipeline's frames, too, which are answered by the pipeline.
    """

    answered: int
    judged: int
    failed: int
    seconds: float
    queue_seconds: float
    input_seconds: float
    infer_seconds: float
    output_seconds: float


class Metrics:
    """Counters, gauges and histograms of one server.

    Args:
        price_per_core_hour, price_per_gpu_hour: without either no cost is exported at all.
        on_gpu: a graphics processor serves.
        objective: share of the frames, and seconds from their arrival in which they shall be answered.
        streams: that have labels of their own.

    Attributes:
        variants: their states, and what they are.
    """

    def __init__(
        self,
        *,
        price_per_core_hour: float = 0.0,
        price_per_gpu_hour: float = 0.0,
        on_gpu: bool = False,
        currency: str = "USD",
        objective: Objective = Objective(),
        streams: StreamLabels | None = None,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the exposition for nothing
        self.registry = CollectorRegistry()
        self._price_per_second = price_per_core_hour / 3600
        self._price_per_gpu_second = price_per_gpu_hour / 3600
        self._on_gpu = on_gpu
        self._currency = currency
        registry = self.registry
        request_buckets = _with(_REQUEST_BUCKETS, objective.seconds)
        ProcessCollector(registry=registry)  # the process's own CPU time, memory and descriptors
        self._frames = Counters("lathe_frames_total", "Frames by what became of them", (*VARIANT, "outcome"), registry)
        self._requests = Counters(
            "lathe_requests_total", "Calls and streams that ended, by their status", ("method", "status"), registry
        )
        self._stage = Histograms(
            "lathe_stage_seconds",
            "Time of an answered frame in each stage",
            (*VARIANT, "stage"),
            _STAGE_BUCKETS,
            registry,
        )
        self._request = Histograms(
            "lathe_request_seconds",
            "Time from the arrival of an answered frame to its answer",
            VARIANT,
            request_buckets,
            registry,
        )
        self._age = Histograms(
            "lathe_age_seconds",
            "Time from the capture of an answered frame to its answer",
            VARIANT,
            request_buckets,
            registry,
        )
        self._degraded = Counters(
            "lathe_degraded_frames_total",
            "Answered frames by the cheaper variant that load made answer",
            VARIANT,
            registry,
        )
        self.degrade_level = Gauge(
            "lathe_degrade_level",
            "How many variants cheaper than its route says a model is served",
            ("model",),
            registry=registry,
        )
        self._cpu = Counters("lathe_cpu_seconds_total", "CPU time of predictions by variant", VARIANT, registry)
        self._gpu = (
            Counters("lathe_gpu_seconds_total", "Time of the graphics processor by variant", VARIANT, registry)
            if on_gpu
            else None
        )
        self._cost = (
            Counters(
                "lathe_cost_usage_total",
                "Price of the processors' time that predictions used",
                (*VARIANT, "currency"),
                registry,
            )
            if price_per_core_hour or price_per_gpu_hour
            else None
        )
        self.variants = VariantMetrics(registry)
        self._streams = StreamMetrics(streams or StreamLabels(), registry)
        self._objective_seconds = objective.seconds
        self._fulfilled = Counters(
            "lathe_objective_frames_total",
            "Frames by whether they were answered within lathe_objective_seconds",
            ("model", "result"),
            registry,
        )
        Gauge("lathe_objective_seconds", "From its arrival, in which a frame shall be answered", registry=registry).set(
            objective.seconds
        )
        Gauge("lathe_objective_share", "Of the frames that shall be", registry=registry).set(objective.share)
        self._weight = Gauge("lathe_route_weight", "Weight on the model's route", VARIANT, registry=registry)
        self.streams = Gauge("lathe_streams", "Streams that are open", registry=registry)
        self.waiting = Gauge("lathe_waiting_frames", "Frames that wait for a worker", registry=registry)
        self.queue_age = Gauge(
            "lathe_queue_age_seconds",
            "How long a stream or call has waited for its turn, of those that wait now",
            registry=registry,
        )
        self.workers = Gauge("lathe_workers", "Threads that judge frames", registry=registry)
        self.loop_lag = Histogram(
            "lathe_event_loop_lag_seconds",
            "How late the event loop comes to what is due",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.memory_short = Gauge(
            "lathe_memory_short", "1 while frames are refused for lack of memory", registry=registry
        )
        self.clamped = Counter(
            "lathe_clamped_capture_times_total", "Capture times that could not be true", registry=registry
        )
        self.turned_away = Counter(
            "lathe_turned_away_total", "Calls that were not let in", ("status",), registry=registry
        )
        for status in TURNED_AWAY:
            self.turned_away.labels(status)
        self._events = Counter("lathe_events_total", "What happened to models", ("model", "kind"), registry=registry)
        self._event_times = Gauge(
            "lathe_event_timestamp_seconds",
            "When it last happened, for annotations",
            ("model", "kind"),
            registry=registry,
        )
        self.route_revision = Gauge(
            "lathe_route_revision",
            "Revision of the route that serves; 0 where nobody has set one",
            ("model",),
            registry=registry,
        )
        self.experiment_running = Gauge(
            "lathe_experiment_running", "1 while an experiment runs here", ("model",), registry=registry
        )
        self.experiments = Counter(
            "lathe_experiments_total", "Experiments that ended here", ("model", "verdict"), registry=registry
        )
        self._estimate = Gauge(
            "lathe_experiment_estimate",
            "What the newest experiment says: candidate against baseline, with its bounds",
            ("model", "metric", "bound"),
            registry=registry,
        )
        self._estimated: dict[str, Mapping[tuple[str, ...], float]] = {}  # what is told, by model
        self._shadow_frames = Counter(
            "lathe_shadow_frames_total", "Frames judged in the shadow", (*VARIANT, "outcome"), registry=registry
        )
        self._shadow_boxes = Counter(
            "lathe_shadow_boxes_total",
            "Boxes that both variants found (matched), and boxes of both (found): agreement is 2 matched / found",
            (*VARIANT, "kind"),
            registry=registry,
        )
        self.swaps = Counter("lathe_swaps_total", "Changes of a route", ("model", "result"), registry=registry)
        self._children: dict[VariantRef | None, _Children] = {}
        self._models: set[str] = set()
        self._of(None)

    def know(self, ref: VariantRef) -> None:
        """A variant may take frames from now on: all that is counted of it and of its model exists, at 0."""
        self._of(ref)
        if ref.model not in self._models:
            self._models.add(ref.model)
            self.variants.know(ref.model)
            for result in SWAP_RESULTS:
                self.swaps.labels(ref.model, result)
            for kind in EVENTS:
                self._events.labels(ref.model, kind)
            for verdict in VERDICTS:
                self.experiments.labels(ref.model, verdict)
            for gauge in (self.experiment_running, self.degrade_level, self.route_revision):
                gauge.labels(ref.model)

    def know_pipeline(self, name: str) -> None:
        """The same for a pipeline, whose frames count under its name and no variant."""
        self._of(VariantRef(name, "", 0))

    def set_weight(self, ref: VariantRef, weight: int) -> None:
        self._weight.labels(*labels_of(ref)).set(weight)

    def observe(self, result: Result) -> None:
        """Counts a frame, once, whatever became of it, and what each of its variants spent on it."""
        whose = result.counted_as
        children = self._of(whose)
        children.frames[result.outcome].inc()
        self._streams.observe(result)
        since_arrival = result.age_seconds - (result.frame.arrived - result.frame.captured)
        if fulfilled := fulfilment(result.outcome, since_arrival, self._objective_seconds):
            children.fulfilled[fulfilled].inc()
        if result.answer:
            children.request.observe(since_arrival, result.trace_id)
            children.age.observe(result.age_seconds, result.trace_id)
        if result.ref is whose and not result.shares:
            self._spent(result, children)
            return
        for part in result.parts:
            self._spent(part, self._of(part.ref))

    def _spent(self, part: Result, children: _Children) -> None:
        if part.cpu_seconds:
            children.cpu.inc(part.cpu_seconds)
            if children.cost:
                children.cost.inc(part.cpu_seconds * self._price_per_second)
        if part.gpu_seconds:
            if children.gpu:
                children.gpu.inc(part.gpu_seconds)
            if children.cost:
                children.cost.inc(part.gpu_seconds * self._price_per_gpu_second)
        if part.degraded:
            children.degraded.inc()
        if part.answer:
            stages = part.answer.stages
            decode, queue, preprocess, infer, postprocess = children.stages
            decode.observe(stages.decode)
            queue.observe(part.queue_seconds)
            preprocess.observe(stages.preprocess)
            infer.observe(stages.infer)
            postprocess.observe(stages.postprocess)

    def expect(self, method: str) -> None:
        """Calls of it will end in one way or another; each is there from the start, at 0."""
        for status in STATUSES:
            self._requests.labels(method, status)

    def ended(self, method: str, status: str) -> None:
        """A call, or a stream, is over.

        Args:
            method: one that there is, because it becomes a label.
        """
        self._requests.labels(method, status).inc()

    def happened(self, model: str, kind: str, unix_seconds: float) -> None:
        """Something that `Events` tells of."""
        self._events.labels(model, kind).inc()
        self._event_times.labels(model, kind).set(unix_seconds)

    def set_estimates(self, model: str, estimates: Iterable[experiment_pb2.Estimate]) -> None:
        """Those of the model's newest experiment, and no others."""
        for labels in self._estimated.pop(model, ()):
            self._estimate.remove(*labels)
        told = self._estimated[model] = {
            (model, one.metric, bound): getattr(one, bound) for one in estimates for bound in ("value", "low", "high")
        }
        for labels, value in told.items():
            self._estimate.labels(*labels).set(value)

    def totals(self, ref: VariantRef) -> Totals:
        """What a variant's frames came to since the server began."""
        children = self._of(ref)
        decode, queue, preprocess, infer, postprocess = (stage.total for stage in children.stages)
        return Totals(
            answered=round(children.frames["answered"].value),
            judged=sum(children.stages[STAGES.index("infer")].counts),
            failed=round(children.frames["failed"].value + children.frames["rejected"].value),
            seconds=children.request.total,
            queue_seconds=queue,
            input_seconds=decode + preprocess,
            infer_seconds=infer,
            output_seconds=postprocess,
        )

    def compared(self, ref: VariantRef, matched: int, found: int, *, failed: bool) -> None:
        """A variant judged a frame in the shadow."""
        labels = labels_of(ref)
        self._shadow_frames.labels(*labels, "failed" if failed else "compared").inc()
        self._shadow_boxes.labels(*labels, "matched").inc(matched)
        self._shadow_boxes.labels(*labels, "found").inc(found)

    def _of(self, ref: VariantRef | None) -> _Children:
        children = self._children.get(ref)
        if children is None:
            labels = labels_of(ref)
            children = self._children[ref] = _Children(self, labels)
        return children


class _Children:
    """The label children of one variant; looking them up anew costs more than observing."""

    __slots__ = ("age", "cost", "cpu", "degraded", "frames", "fulfilled", "gpu", "request", "stages")

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self.frames: dict[Outcome, Count] = {outcome: metrics._frames.labels(*labels, outcome) for outcome in OUTCOMES}
        self.fulfilled: dict[Fulfilment, Count] = {
            one: metrics._fulfilled.labels(labels[0], one) for one in FULFILMENTS
        }
        self.stages = tuple(metrics._stage.labels(*labels, stage) for stage in STAGES)
        self.request = metrics._request.labels(*labels)
        self.age = metrics._age.labels(*labels)
        self.degraded = metrics._degraded.labels(*labels)
        self.cpu = metrics._cpu.labels(*labels)
        self.gpu = metrics._gpu.labels(*labels) if metrics._gpu else None
        self.cost = metrics._cost.labels(*labels, metrics._currency) if metrics._cost else None


def _with(bounds: tuple[float, ...], bound: float) -> tuple[float, ...]:
    """Buckets that end at a bound, too, so that the share below it is exact.

    >>> _with((0.1, 0.5), 0.2), _with((0.1, 0.5), 0.1)
    ((0.1, 0.2, 0.5), (0.1, 0.5))
    """
    return tuple(sorted({*bounds, bound}))
