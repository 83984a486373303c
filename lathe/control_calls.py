"""The calls of the control port: what there is, who answers, and what is tried out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from grpc import aio

from lathe.errors import InvalidInput
from lathe.server_error import server_error, translated
from lathe.v1 import control_pb2, experiment_pb2

LATEST = "@latest"


class Header(NamedTuple):
    """What a rule of a route may look at in a call's metadata.

    Attributes:
        name: in lower case.
        value: the whole of it.
    """

    name: str
    value: str


class ControlCalls:
    """Of a client that has a channel to the control port."""

    _control: Any

    async def variants(self, model: str = "") -> list[control_pb2.VariantStatus]:
        """The newest version of every variant and any older one in use, with card and state."""
        request = control_pb2.ListVariantsRequest(model=model)
        return list((await translated(self._control.ListVariants(request))).variants)

    async def route(self, model: str) -> control_pb2.Route:
        """The route that holds."""
        response = await translated(self._control.GetRoute(control_pb2.GetRouteRequest(model=model)))
        route: control_pb2.Route = response.route
        return route

    async def set_route(
        self,
        model: str,
        weights: dict[str, int],
        *,
        expected_revision: int = 0,
        author: str = "",
        reason: str = "",
        degrade: Sequence[str] = (),
        degrade_after_seconds: float = 0.1,
        shadow: str = "",
        shadow_share: float = 0.1,
        rules: Mapping[str | Header, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> control_pb2.Route:
        """Replaces the route, all of it; returns when the new one serves.

        Args:
            weights: relative whole numbers by variant, by `variant/version`, or by `variant@latest`, whose newer
                versions take its place when they are published.
            expected_revision: fail if another one holds; 0 replaces any.
            degrade: variants that streams move to under too much load, the dearest first.
            degrade_after_seconds: they do when they wait longer for their turn.
            shadow: variant that also judges some of the answered frames, to be compared.
            shadow_share: of the frames, above 0 to 1.
            rules: variants by the beginning of the names of streams that they answer, whatever the weights say, or by
                a header of the streams and calls; the first that fits decides.
            labels: variants by other names, such as `stable`; a request that pins `@stable` means it.
        """
        request = control_pb2.SetRouteRequest(
            model=model, expected_revision=expected_revision, author=author, reason=reason
        )
        for name, weight in weights.items():
            if weight < 0:
                raise InvalidInput(f"the weight of {name} must not be negative")
            plain = name.removesuffix(LATEST)
            variant, version = variant_and_version(plain)
            request.weights.add(variant=variant, version=version, weight=weight, latest=plain != name)
        for name in degrade:
            variant, version = variant_and_version(name)
            request.degrade.variants.add(variant=variant, version=version)
            request.degrade.after_seconds = degrade_after_seconds
        if shadow:
            request.shadow.variant.variant, request.shadow.variant.version = variant_and_version(shadow)
            request.shadow.share = shadow_share
        for fits, name in (rules or {}).items():
            variant, version = variant_and_version(name)
            rule = request.rules.add(variant={"variant": variant, "version": version})
            if isinstance(fits, Header):
                rule.header, rule.value = fits
            else:
                rule.prefix = fits
        for label, name in (labels or {}).items():
            variant, version = variant_and_version(name)
            request.labels.add(name=label, variant={"variant": variant, "version": version})
        route: control_pb2.Route = (await translated(self._control.SetRoute(request))).route
        return route

    async def rollback(
        self, model: str, *, expected_revision: int = 0, author: str = "", reason: str = ""
    ) -> control_pb2.Route:
        """Goes back to the route before the present one, as a new revision; returns when it serves.

        Args:
            expected_revision: fail if another one holds; 0 goes back from any.
        """
        request = control_pb2.RollbackRequest(
            model=model, expected_revision=expected_revision, author=author, reason=reason
        )
        route: control_pb2.Route = (await translated(self._control.Rollback(request))).route
        return route

    async def load(self, model: str, variant: str) -> str:
        """Brings a variant into memory without giving it frames, and keeps it there; returns `variant/version`."""
        request = control_pb2.LoadVariantRequest(model=model)
        request.variant.variant, request.variant.version = variant_and_version(variant)
        loaded = (await translated(self._control.LoadVariant(request))).variant
        return f"{loaded.variant}/{loaded.version}"

    async def unload(self, model: str, variant: str, *, force: bool = False, author: str = "") -> str:
        """Takes a variant out of memory after its last frame; returns `variant/version`.

        Args:
            force: off the route, too, where something else is left there.
        """
        request = control_pb2.UnloadVariantRequest(model=model, force=force, author=author)
        request.variant.variant, request.variant.version = variant_and_version(variant)
        gone = (await translated(self._control.UnloadVariant(request))).variant
        return f"{gone.variant}/{gone.version}"

    async def events(self, model: str = "") -> AsyncIterator[control_pb2.Event]:
        """The newest things that happened to a model, or to all, then each as it comes, until the server goes.

        Raises:
            ServerError: with the server's status.
        """
        call = self._control.WatchEvents(control_pb2.WatchEventsRequest(model=model))
        try:
            async for response in call:
                yield response.event
        except aio.AioRpcError as error:
            raise server_error(error.code(), error.details() or "") from None
        finally:
            call.cancel()

    async def start_experiment(
        self, spec: experiment_pb2.ExperimentSpec, *, author: str = ""
    ) -> experiment_pb2.Experiment:
        """Puts a candidate beside the variant that serves; returns when it is in memory.

        Args:
            spec: what is 0 or empty in it takes its default.
        """
        request = control_pb2.StartExperimentRequest(spec=spec, author=author)
        begun: experiment_pb2.Experiment = (await translated(self._control.StartExperiment(request))).experiment
        return begun

    async def experiment(self, model: str, name: str = "") -> experiment_pb2.Experiment:
        """An experiment as far as it has come.

        Args:
            name: its id; empty takes the newest.
        """
        request = control_pb2.GetExperimentRequest(model=model, id=name)
        found: experiment_pb2.Experiment = (await translated(self._control.GetExperiment(request))).experiment
        return found

    async def stop_experiment(
        self, model: str, reason: str = "", *, promote: bool = False
    ) -> experiment_pb2.Experiment:
        """Ends the one that runs; returns when one side serves alone.

        Args:
            promote: the candidate; otherwise the baseline.
        """
        request = control_pb2.StopExperimentRequest(model=model, reason=reason, promote=promote)
        ended: experiment_pb2.Experiment = (await translated(self._control.StopExperiment(request))).experiment
        return ended


def variant_and_version(name: str) -> tuple[str, int]:
    """Of `variant` or `variant/version`; 0 for the newest."""
    variant, _, version = name.partition("/")
    if version and not version.isdecimal():
        raise InvalidInput(f"{name} is neither VARIANT nor VARIANT/VERSION")
    return variant, int(version or 0)
