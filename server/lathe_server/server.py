"""A server's life, top to bottom: startup, serve, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lathe.connection import is_loopback
from lathe.errors import AlreadyExists
from lathe.machine import allowed_cores, available_cores, memory_limit
from lathe.mirror import open_repository
from lathe.repository import Repository, VariantRef
from lathe.v1 import control_pb2, control_pb2_grpc, gallery_pb2, inference_pb2, inference_pb2_grpc
from lathe_server import logs
from lathe_server.access.gate import Gate
from lathe_server.access.tls import renew, tls_of
from lathe_server.access.tokens import Tokens
from lathe_server.accounts.books import on_gpu, open_books, price_per_core_hour
from lathe_server.batch_metrics import BatchMetrics
from lathe_server.calls import Calls
from lathe_server.control_service import ControlService
from lathe_server.events import Events
from lathe_server.experiments import Experiments
from lathe_server.exposition import Exposition
from lathe_server.extras import gallery_of, tracing_of
from lathe_server.facts import facts_of_frame
from lathe_server.follow import Follower
from lathe_server.frames import Result
from lathe_server.grpc_port import bind, new_grpc_port
from lathe_server.health import Health
from lathe_server.heartbeat import Heartbeat, MemoryGuard, resident_memory
from lathe_server.http import HttpServer, pages
from lathe_server.inference_service import InferenceService
from lathe_server.journal import Journal
from lathe_server.lifecycle import State
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics, Objective
from lathe_server.open_inference.data_plane import DataPlane
from lathe_server.open_inference.grpc_service import OPEN_INFERENCE_NAME, OpenInferenceService
from lathe_server.open_inference.rest import PREFIX as REST_PREFIX
from lathe_server.open_inference.rest import Rest
from lathe_server.origin import current
from lathe_server.pipeline import Pipeline
from lathe_server.places import Places
from lathe_server.router import Route, Router
from lathe_server.routes import Routes
from lathe_server.scheduler import Scheduler
from lathe_server.servable import Servable
from lathe_server.served_pipelines import Pipelines
from lathe_server.settings import NO_PAGE, ON, OWN_CORES, Settings
from lathe_server.shadow import Comparison, Shadows
from lathe_server.stream_metrics import StreamLabels
from lathe_server.threads import LOADER_THREAD
from lathe_server.trial import Trials, loader

if TYPE_CHECKING:
    from lathe_server.live.page import Live

log = logging.getLogger(__name__)
frames_log = logging.getLogger("lathe.frames")
streams_log = logging.getLogger("lathe.streams")

INFERENCE_NAME = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
GALLERY_NAME = gallery_pb2.DESCRIPTOR.services_by_name["GalleryService"].full_name
CONTROL_NAME = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
PREDICTING = (
    *(f"{INFERENCE_NAME}/{method}" for method in ("Detect", "DetectStream", "Embed")),
    *(f"{OPEN_INFERENCE_NAME}/{method}" for method in ("ModelInfer", "ModelStreamInfer")),
    f"{REST_PREFIX} infer",
)
WAITING_FRAMES_PER_STREAM = 1
_TOLD: Mapping[State | None, control_pb2.EventKind.ValueType] = {
    "loading": control_pb2.EVENT_KIND_LOADING,
    "ready": control_pb2.EVENT_KIND_LOADED,
    "failed": control_pb2.EVENT_KIND_FAILED,
    None: control_pb2.EVENT_KIND_UNLOADED,
}
LINGER_SECONDS = 0.2
"""In which calls are answered by UNAVAILABLE: those that come while gRPC closes its port would get CANCELLED, which
tells nobody to try elsewhere."""
FAREWELL_SECONDS = 1.0
"""What streams get to be told of their end, however long their last frames took."""


class Server:
    """Everything that one process serves.

    Args:
        repository: where the variants lie.

    Raises:
        Refused: this machine has not the engine that is asked for.
    """

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._settings = settings
        self._is_cautious = False  # something serves that a load must not harm
        self.metrics = Metrics(
            price_per_core_hour=price_per_core_hour(settings),
            price_per_gpu_hour=settings.price_per_gpu_hour,
            on_gpu=on_gpu(settings),
            currency=settings.currency,
            objective=Objective(settings.objective_seconds, settings.objective_share),
            streams=StreamLabels(settings.stream_labels),
        )
        name = settings.server_name or f"{socket.gethostname()}:{settings.control.rpartition(':')[2]}"
        self._journal = Journal(repository.root, name)
        self._events = Events(self.metrics, self._journal.write)
        guard = MemoryGuard(settings.max_memory_bytes or memory_limit())
        resident = resident_memory()
        self._load = loader(repository, settings)
        self._try = Trials(repository, settings, lambda: guard.room(resident()))
        self._manager = Manager(
            self._load_carefully,
            load_seconds=settings.load_seconds,
            fetch=lambda ref: repository.fetch(ref, settings.max_model_bytes),
            on_change=self._on_change,
        )
        workers = settings.workers or available_cores()
        self.metrics.workers.set(workers)
        self._router = Router(workers)
        self._scheduler = Scheduler(
            workers,
            max_waiting=settings.max_streams * WAITING_FRAMES_PER_STREAM,
            brake_above=settings.brake_above,
            cores=allowed_cores() if settings.worker_cores == OWN_CORES else (),
            on_turn=lambda frame, waited, now: self._router.turn(frame.model, waited, now, embeds=frame.embeddings),
        )
        self._heartbeat = Heartbeat(guard, self.metrics, resident)
        self._routes = Routes(repository, self._router, self._manager, self.metrics, self._events, name)
        self._follower = Follower(repository, self._router, self._routes, self.metrics)
        self._pipelines = Pipelines(repository, self._router, self._manager, self._on_pipeline)
        self._routes.wishes.append(self._pipelines.guard)
        self._accountant = open_books(settings, self.metrics.registry, self._router.routed, self._scheduler)
        self._batches = BatchMetrics(self.metrics.registry) if settings.max_batch > 1 else None
        self._experiments = Experiments(
            repository,
            self._router,
            self._routes,
            self.metrics,
            self._events,
            name,
            is_short_of_memory=lambda: guard.is_short,
            streams=lambda: self._places.open,
        )
        self._routes.on_route = self._on_route
        self._shadows = Shadows(self._router, self._manager, self._scheduler, self._compared)
        self._routes.guards.append(self._shadows.guard)
        self._tracing = tracing_of(settings, name)
        self._pipeline = Pipeline(
            self._router,
            self._manager,
            self._scheduler,
            self._observe,
            lambda: guard.is_short,
            self._tracing.trace if self._tracing else None,
        )
        tokens = Tokens(Path(settings.tokens)) if settings.tokens else None
        self._gate = Gate(tokens, lambda status: self.metrics.turned_away.labels(status).inc())
        self._tls = tls_of(settings)
        if tokens and not self._tls and not all(map(is_loopback, (settings.grpc, settings.http, settings.control))):
            log.warning("tokens cross the network in plain text; set tls_certificate and tls_key")
        calls = Calls(self._pipeline, repository.variants)
        self._gallery = gallery_of(settings, calls, self._router, self._manager, self._routes, self._gate)
        if self._gallery:
            self._routes.guards.append(self._gallery.guard)
        self._gallery_name = (GALLERY_NAME,) if self._gallery else ()
        self._places = Places(settings.max_streams, lambda: self._pipeline.draining)
        self._inference = InferenceService(self._pipeline, calls, self.metrics, self._places)
        plane = DataPlane(repository, self._router, self._manager, self._routes, self._pipeline, calls, self.metrics)
        self._open_inference = OpenInferenceService(plane, self._places, self._gate)
        self._control = ControlService(
            repository, self._router, self._manager, self._routes, self._experiments, self._events
        )
        self._health = Health()
        self._ready = False
        for method in PREDICTING:
            self.metrics.expect(method)
        self._grpc = new_grpc_port(settings, self._gate, "infer", self._ended)
        self._control_grpc = new_grpc_port(settings, self._gate, "control", self._ended)
        exposition = Exposition(self.metrics.registry, self._refresh, self._accountant.scraped)
        self._live = self._live_page(name)
        self._http = HttpServer(
            pages(exposition, lambda: self._ready) | (self._live.pages() if self._live else {}),
            Rest(plane, self._gate, settings.max_message_bytes, self.metrics.ended),
            REST_PREFIX,
            settings.max_message_bytes,
            self._tls,
        )
        self.addresses: dict[str, str] = {}

    def _live_page(self, name: str) -> Live | None:
        if self._settings.live == NO_PAGE:
            return None
        from lathe_server.live.page import Live, Sources

        told, refresh, scraped = self.metrics.registry, self._refresh, self._accountant.scraped
        sources = Sources(told, refresh, scraped, self._manager, self._experiments, self._events, name)
        return Live(self._settings, self._gate, sources)

    def _load_carefully(self, ref: VariantRef, reached: Callable[[State], None]) -> Servable:
        """Loads a variant, on a thread of its own, and first in a process of its own where it could do harm: beside
        others that serve, or where an earlier run may have died of it."""
        self._journal.flush()  # that this load has begun
        if self._is_cautious or ref in self._journal.suspects:
            self._try(ref)
        return self._load(ref, reached)

    def _on_change(self, ref: VariantRef, state: State | None, text: str) -> None:
        self.metrics.know(ref)
        self.metrics.variants.set_state(ref, state)
        self._accountant.know(ref)
        if state == "ready":
            with self._manager.lease(ref) as servable:
                self.metrics.variants.set_info(ref, servable.card, servable.runtime, servable.opset)
                if self._batches and servable.engine.meter:
                    self._batches.watch(ref, servable.engine.meter)
        if kind := _TOLD.get(state):
            told = text if text.startswith(str(ref)) else f"{ref} {text}".strip()
            self._events.tell(kind, ref.model, told, variant=ref)

    def _ended(self, method: str, status: str) -> None:
        """A call, or a stream, which the log is told of."""
        self.metrics.ended(method, status)
        if about := {name: fact for name, fact in current.get().about.items() if fact != ""}:
            streams_log.info("a stream has ended", extra={"method": method, "status": status, **about})

    def _observe(self, result: Result) -> None:
        if frames_log.isEnabledFor(logging.DEBUG):
            told = {**facts_of_frame(result.frame, result.ref), "age_ms": round(result.age_seconds * 1e3, 3)}
            frames_log.debug("frame %s", result.outcome, extra=told)
        self.metrics.observe(result)
        for part in result.parts:
            if part.ref and part.cpu_seconds:
                self._accountant.used(part.ref, part.cpu_seconds, part.gpu_seconds)
            self._experiments.observe(part)
            self._shadows.answered(part)
        if self._live:
            self._live.observe(result)

    def _compared(self, comparison: Comparison) -> None:
        self.metrics.compared(comparison.ref, comparison.matched, comparison.found, failed=comparison.failed)
        self._experiments.compared(comparison)

    async def startup(self) -> None:
        """Loads what the routes want, then opens the ports.

        Raises:
            Refused: nothing can be served.
            AlreadyExists: an address is in use.
        """
        if self._gallery:
            await self._gallery.open(self._grpc)
        await self._pipelines.look()
        await self._follower.start()
        if self._gallery:
            self._gallery.check_start()
        self._is_cautious = True
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self._inference, self._grpc)
        self._grpc.add_generic_rpc_handlers([self._open_inference.handlers()])
        control_pb2_grpc.add_ControlServiceServicer_to_server(self._control, self._control_grpc)
        inference = (INFERENCE_NAME, OPEN_INFERENCE_NAME, *self._gallery_name)
        for server, own in ((self._grpc, inference), (self._control_grpc, (CONTROL_NAME,))):
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            if self._settings.reflection == ON:
                names = (*own, health.SERVICE_NAME, reflection.SERVICE_NAME)
                reflection.enable_server_reflection(names, server)
        self.addresses["grpc"] = bind(self._grpc, self._settings.grpc, self._tls)
        self.addresses["control"] = bind(self._control_grpc, self._settings.control, self._tls)
        self.addresses["http"] = await self._bind_http()
        await self._grpc.start()
        await self._control_grpc.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._accounting = asyncio.create_task(self._accountant.run())
        self._beating = asyncio.create_task(self._heartbeat.run())
        self._following = [asyncio.create_task(one.follow()) for one in (self._follower, self._pipelines)]
        self._renewing = asyncio.create_task(renew(self._tls)) if self._tls else None
        self._ready = True

    async def drain(self) -> None:
        """Says that it is going, answers the frames in hand, and closes."""
        self._ready = False
        for following in self._following:
            following.cancel()
        self._experiments.close()
        self._events.close()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._routes.close()
        allowed = self._settings.drain_seconds
        end = asyncio.get_running_loop().time() + allowed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._pipeline.drain()
        self._places.end()
        self._health.close()
        await asyncio.sleep(min(allowed, LINGER_SECONDS))
        grace = max(end - asyncio.get_running_loop().time(), min(allowed, FAREWELL_SECONDS))
        await asyncio.gather(self._grpc.stop(grace), self._control_grpc.stop(grace), self._http.close(grace))
        if self._gallery:
            await self._gallery.close()
        self._beating.cancel()
        self._accounting.cancel()
        if self._renewing:
            self._renewing.cancel()
        self._scheduler.close()
        if self._tracing:
            await asyncio.to_thread(self._tracing.close)
        await asyncio.to_thread(self._journal.flush)

    async def _on_route(self, route: Route) -> None:
        if self._ready:
            self._health.set(route.model, health_pb2.HealthCheckResponse.SERVING)
        await self._experiments.on_route(route)

    def _on_pipeline(self, name: str, *, is_served: bool) -> None:
        self.metrics.know_pipeline(name)
        if self._ready:
            state = health_pb2.HealthCheckResponse
            self._health.set(name, state.SERVING if is_served else state.SERVICE_UNKNOWN)

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        services = ("", INFERENCE_NAME, OPEN_INFERENCE_NAME, CONTROL_NAME, *self._gallery_name)
        for name in (*services, *self._router.models(), *self._router.pipelines):
            self._health.set(name, status)

    async def _bind_http(self) -> str:
        host, _, port = self._settings.http.rpartition(":")
        try:
            number = await self._http.start(host.strip("[]"), int(port))
        except OSError as error:
            raise AlreadyExists(f"the address {self._settings.http} cannot be opened; is it in use?") from error
        return f"{host}:{number}"

    def _refresh(self) -> None:
        self._accountant.look()
        self.metrics.streams.set(self._places.open)
        self.metrics.waiting.set(self._scheduler.waiting)
        self.metrics.queue_age.set(self._scheduler.queue_age_seconds)
        for model in self._router.models():
            self.metrics.degrade_level.labels(model).set(self._router.level(model))


async def serve(repository: Repository, settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains; a second signal ends at once.

    Args:
        announce: told once, when frames are taken, with all addresses in one line.
    """
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    server = Server(repository, settings)
    startup, stopped = asyncio.create_task(server.startup()), asyncio.create_task(stop.wait())
    await asyncio.wait((startup, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not startup.done():
        log.info("ended before it was ready")
        return
    await startup
    gc.freeze()  # what start-up made stays: a full collection need not look at it, and takes no frame's time
    announce("ready " + " ".join(f"{name}={address}" for name, address in server.addresses.items()))
    await stopped
    log.info("draining")
    await server.drain()


def run(location: str, settings: Settings) -> None:
    """Blocks until the server has drained.

    Raises:
        LatheError: it could not start.
    """
    logs.set_up(settings.log_format, settings.log_level)
    repository = open_repository(location, settings.cache)
    uvloop.run(serve(repository, settings, lambda line: print(line, flush=True)))
    if any(thread.name == LOADER_THREAD for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(0)  # a load that hangs is still inside the runtime, which aborts when it is torn down under it
