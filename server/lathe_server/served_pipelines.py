"""Which pipelines are served: those of the repository, looked for every second as routes are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from lathe.errors import InvalidInput, LatheError, NotFound, Refused
from lathe.pipeline_file import PipelineSpec
from lathe.repository import Repository
from lathe_server.boundary import detail_of
from lathe_server.manager import Manager
from lathe_server.passage import check_detector, check_embedder
from lathe_server.router import Route, Router
from lathe_server.servable import Servable

log = logging.getLogger(__name__)


class OnPipeline(Protocol):
    """Told of each that begins or ends to be served."""

    def __call__(self, name: str, *, is_served: bool) -> None: ...


class Pipelines:
    """Keeps the router's pipelines in step with the repository. On the event loop."""

    def __init__(self, repository: Repository, router: Router, manager: Manager, on_change: OnPipeline) -> None:
        self._repository = repository
        self._router = router
        self._manager = manager
        self._on_change = on_change
        self._told: dict[str, str] = {}  # by name: what is wrong with its file, as the log has been told
        self._is_away = False  # the repository is gone

    async def follow(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._repository.look_seconds)
            try:
                await self.look()
            except Exception:
                log.exception("looking for pipelines failed; the next look comes")

    async def look(self) -> None:
        """Serves what the repository has; one whose file cannot be read any more, or whose name a model has taken, is
        served as it was, and so are all while the repository is gone. One that can be read and has a pipeline among its
        stages is served no more."""
        held, found = self._router.pipelines, await asyncio.to_thread(self._read)
        if held and not found and not await asyncio.to_thread(self._repository.models):
            if not self._is_away:
                log.error("the repository holds nothing any more; the pipelines that are known of serve on")
            self._is_away = True
            return
        self._is_away = False
        specs = {name: read for name, read in found.items() if isinstance(read, PipelineSpec)}
        wrong = {name: read for name, read in found.items() if isinstance(read, LatheError)}
        for name, problem in wrong.items():
            if self._told.get(name) != problem.message:
                log.error("pipeline %s cannot be served: %s", name, problem.message, extra=detail_of(problem))
            if name in held and isinstance(problem, Refused):  # of its file or its name
                specs[name] = held[name]
        self._told = {name: problem.message for name, problem in wrong.items()}
        self._router.pipelines = specs
        for name in specs.keys() | held.keys():
            if specs.get(name) != held.get(name):
                log.info("pipeline %s: %s", name, specs.get(name, "served no more"))
                self._on_change(name, is_served=name in specs)

    def _read(self) -> dict[str, PipelineSpec | LatheError]:
        """What the repository has, or what is wrong with it, by name."""
        found: dict[str, PipelineSpec | LatheError] = {}
        names = self._repository.pipelines()
        for name in names:
            try:
                spec = self._repository.pipeline(self._repository.check_pipeline_name(name))
                if stages := {spec.detector, spec.embedder}.intersection(names):
                    raise InvalidInput(f"{min(stages)} is a pipeline itself")
                found[name] = spec
            except NotFound:  # it has just gone
                continue
            except LatheError as error:
                found[name] = error
        return found

    def guard(self, route: Route) -> None:
        """Asked about a route whose variants are in memory.

        Raises:
            Refused: a pipeline could not go on with one of them.
        """
        for name, check in self._checks(route.model):
            for ref in route.needs():
                with self._manager.lease(ref) as servable:
                    try:
                        check(servable)
                    except Refused as error:
                        raise Refused(f"pipeline {name} depends on {route.model}: {error.message}") from None

    def _checks(self, model: str) -> Iterator[tuple[str, Callable[[Servable], None]]]:
        for name, spec in self._router.pipelines.items():
            if model == spec.detector:
                yield name, check_detector
            elif model == spec.embedder:
                yield name, check_embedder
