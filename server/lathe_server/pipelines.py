"""Which pipelines are served: those of the repository, looked for every second as routes are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from lathe.errors import BadVariant, LatheError, NotFound, Refused
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

    async def follow(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._repository.look_seconds)
            try:
                await self.look()
            except Exception:
                log.exception("looking for pipelines failed; the next look comes")

    async def look(self) -> None:
        """Serves what the repository has; one whose file cannot be read any more is served as it was."""
        held, found = self._router.pipelines, await asyncio.to_thread(self._read)
        specs: dict[str, PipelineSpec] = {}
        wrong: dict[str, str] = {}
        for name, read in found.items():
            problem = self._problem(name, read)
            if problem is None:
                assert isinstance(read, PipelineSpec)
                specs[name] = read
                continue
            wrong[name] = problem.message
            if self._told.get(name) != problem.message:
                log.error("pipeline %s cannot be served: %s", name, problem.message, extra=detail_of(problem))
            if name in held:
                specs[name] = held[name]
        self._told = wrong
        self._router.pipelines = specs
        for name in specs.keys() | held.keys():
            if specs.get(name) != held.get(name):
                spec = specs.get(name)
                log.info("pipeline %s: %s", name, str(spec) if spec else "served no more")
                self._on_change(name, is_served=spec is not None)

    def _read(self) -> dict[str, PipelineSpec | LatheError]:
        found: dict[str, PipelineSpec | LatheError] = {}
        for name in self._repository.pipelines():
            try:
                found[name] = self._repository.pipeline(name)
            except NotFound:  # it has just gone
                continue
            except LatheError as error:
                found[name] = error
        return found

    def _problem(self, name: str, read: PipelineSpec | LatheError) -> LatheError | None:
        if isinstance(read, LatheError):
            return read
        if self._router.route(name):
            return BadVariant(f"a model has the name {name}, and is served by it")
        return None

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
