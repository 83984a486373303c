"""ControlService: what there is, and who answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import aclosing, suppress
from typing import Any, TypeAlias

from grpc import aio

from lathe.card import check_name
from lathe.errors import LatheError, NotFound
from lathe.repository import Repository, VariantRef
from lathe.v1 import card_pb2, control_pb2, control_pb2_grpc
from lathe_server.access.audit import author, through
from lathe_server.events import Events
from lathe_server.experiments import Experiments
from lathe_server.manager import Manager
from lathe_server.route_message import Named, to_message, to_name
from lathe_server.router import Router
from lathe_server.routes import Routes

Context: TypeAlias = "aio.ServicerContext[Any, Any]"  # generic in the stubs only

_STATES = {
    None: control_pb2.SERVABLE_STATE_FOUND,
    "loading": control_pb2.SERVABLE_STATE_LOADING,
    "ready": control_pb2.SERVABLE_STATE_READY,
    "checking": control_pb2.SERVABLE_STATE_CHECKING,
    "warming": control_pb2.SERVABLE_STATE_WARMING,
    "draining": control_pb2.SERVABLE_STATE_DRAINING,
    "failed": control_pb2.SERVABLE_STATE_FAILED,
}


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """A thin layer over the routes."""

    def __init__(
        self,
        repository: Repository,
        router: Router,
        manager: Manager,
        routes: Routes,
        experiments: Experiments,
        events: Events,
    ) -> None:
        self._events = events
        self._experiments = experiments
        self._repository = repository
        self._router = router
        self._manager = manager
        self._routes = routes

    async def ListVariants(  # noqa: N802  the contract's name
        self, request: control_pb2.ListVariantsRequest, context: Context
    ) -> control_pb2.ListVariantsResponse:
        if request.model:
            check_name(request.model, "model")
        models = await asyncio.to_thread(self._repository.models)
        if request.model and request.model not in models:
            raise NotFound("no such model is published here")
        response = control_pb2.ListVariantsResponse()
        for model in [request.model] if request.model else models:
            route = self._router.route(model)
            states = {ref: state for ref, state in self._manager.states().items() if ref.model == model}
            abouts = {ref: self._manager.about(ref) for ref in states}
            held = {*states, *(ref for ref, _ in route.weights), *route.needs()} if route else {*states}
            for ref, card in sorted((await asyncio.to_thread(self._cards, model, held)).items()):
                state = states.get(ref)
                about = abouts.get(ref, "")
                response.variants.add(
                    card=card,
                    state=_STATES[state],
                    weight=route.weight_of(ref) if route else 0,
                    runtime="" if state == "failed" else about,
                    reason=about if state == "failed" else "",
                )
        return response

    def _cards(self, model: str, held: Set[VariantRef]) -> dict[VariantRef, card_pb2.Card]:
        """Cards of the newest version of each variant and of the versions that are held, whatever their age."""
        cards = {VariantRef(model, card.variant, card.version): card for card in self._repository.newest_cards(model)}
        for ref in held - cards.keys():
            try:
                cards[ref] = self._repository.card(ref)
            except NotFound:  # it serves on from memory, or is of no interest any more
                continue
            except LatheError:  # what cannot be read is told of, because it may be why the variant was refused
                cards[ref] = card_pb2.Card(model=model, variant=ref.variant, version=ref.version)
        return cards

    async def GetRoute(  # noqa: N802
        self, request: control_pb2.GetRouteRequest, context: Context
    ) -> control_pb2.GetRouteResponse:
        check_name(request.model, "model")
        held = self._routes.route(request.model)
        if held.revision:
            with suppress(LatheError):  # its file is gone or damaged: it serves on from memory
                stored = await asyncio.to_thread(self._repository.route, request.model, held.revision)
                assert stored
                del stored.weights[:]
                stored.weights.extend(to_message(held).weights)  # newer versions may have taken their place
                return control_pb2.GetRouteResponse(route=stored)
        return control_pb2.GetRouteResponse(route=to_message(held))

    async def SetRoute(  # noqa: N802
        self, request: control_pb2.SetRouteRequest, context: Context
    ) -> control_pb2.SetRouteResponse:
        check_name(request.model, "model")
        shadow = [request.shadow.variant] if request.HasField("shadow") else []
        ruled = [*(rule.variant for rule in request.rules), *(label.variant for label in request.labels)]
        everyone: list[Named] = [*request.weights, *request.degrade.variants, *shadow, *ruled]
        for named in everyone:
            check_name(named.variant, "variant")
        for label in request.labels:
            check_name(label.name, "label")
        # A caller that hangs up does not undo half a swap.
        request.author = author(request.author)
        route = await through("SetRoute", request.model, self._routes.set_route(request))
        return control_pb2.SetRouteResponse(route=route)

    async def Rollback(  # noqa: N802
        self, request: control_pb2.RollbackRequest, context: Context
    ) -> control_pb2.RollbackResponse:
        check_name(request.model, "model")
        request.author = author(request.author)
        route = await through("Rollback", request.model, self._routes.rollback(request))
        return control_pb2.RollbackResponse(route=route)

    async def StartExperiment(  # noqa: N802
        self, request: control_pb2.StartExperimentRequest, context: Context
    ) -> control_pb2.StartExperimentResponse:
        starting = self._experiments.start(request.spec, author(request.author))
        begun = await through("StartExperiment", request.spec.model, starting)
        return control_pb2.StartExperimentResponse(experiment=begun)

    async def GetExperiment(  # noqa: N802
        self, request: control_pb2.GetExperimentRequest, context: Context
    ) -> control_pb2.GetExperimentResponse:
        check_name(request.model, "model")
        found = await self._experiments.get(request.model, request.id)
        return control_pb2.GetExperimentResponse(experiment=found)

    async def StopExperiment(  # noqa: N802
        self, request: control_pb2.StopExperimentRequest, context: Context
    ) -> control_pb2.StopExperimentResponse:
        check_name(request.model, "model")
        stopping = self._experiments.stop(request.model, request.reason, promote=request.promote)
        ended = await through("StopExperiment", request.model, stopping)
        return control_pb2.StopExperimentResponse(experiment=ended)

    async def WatchEvents(  # noqa: N802
        self, request: control_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[control_pb2.WatchEventsResponse]:
        async with aclosing(self._events.watch(request.model)) as events:
            async for event in events:
                yield control_pb2.WatchEventsResponse(event=event)

    async def LoadVariant(  # noqa: N802
        self, request: control_pb2.LoadVariantRequest, context: Context
    ) -> control_pb2.LoadVariantResponse:
        check_name(request.model, "model")
        check_name(request.variant.variant, "variant")
        ref = await through("LoadVariant", request.model, self._routes.load(request.model, request.variant))
        return control_pb2.LoadVariantResponse(variant=to_name(ref))

    async def UnloadVariant(  # noqa: N802
        self, request: control_pb2.UnloadVariantRequest, context: Context
    ) -> control_pb2.UnloadVariantResponse:
        check_name(request.model, "model")
        check_name(request.variant.variant, "variant")
        by = author(request.author)
        unload = self._routes.unload(request.model, request.variant, force=request.force, author=by)
        ref = await through("UnloadVariant", request.model, unload)
        return control_pb2.UnloadVariantResponse(variant=to_name(ref))
