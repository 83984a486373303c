"""What the protocol asks, whichever way it came: gRPC and REST are thin layers over this."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import monotonic
from typing import Any

from numpy.typing import NDArray

from lathe.errors import InvalidInput, LatheError, NotFound, Refused, Unavailable
from lathe.repository import Repository, VariantRef
from lathe.v1.variant_version_pb2 import VariantVersion
from lathe_server.access.audit import author, through
from lathe_server.calls import Calls
from lathe_server.frames import Frame, Result
from lathe_server.lifecycle import State
from lathe_server.manager import Manager
from lathe_server.metrics import Metrics, Totals
from lathe_server.open_inference.description import IMAGE, Description, as_tensors, describe
from lathe_server.open_inference.names import Target, target
from lathe_server.origin import current
from lathe_server.pipeline import LABEL, Pipeline
from lathe_server.router import Router
from lathe_server.routes import Routes
from lathe_server.tensors import TensorAnswer, Tensors
from lathe_server.vision import Answer, EncodedPicture

NAME = "lathe"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
MAX_PICTURES = 64
"""Of one call."""
AT_ONCE = 4
"""Of these, so that one caller does not fill the line."""


def durations(totals: Totals) -> dict[str, tuple[int, int]]:
    """By the protocol's names: how many, and nanoseconds in all."""
    judged = totals.judged
    return {
        "success": (totals.answered, round(totals.seconds * 1e9)),
        "fail": (totals.failed, 0),
        "queue": (judged, round(totals.queue_seconds * 1e9)),
        "compute_input": (judged, round(totals.input_seconds * 1e9)),
        "compute_infer": (judged, round(totals.infer_seconds * 1e9)),
        "compute_output": (judged, round(totals.output_seconds * 1e9)),
    }


_STATES: Mapping[State | None, str] = {
    "loading": "LOADING",
    "checking": "LOADING",
    "warming": "LOADING",
    "ready": "READY",
    "draining": "UNLOADING",
}


@dataclass(frozen=True, slots=True)
class Inferred:
    """Attributes:
    outputs: by name, in the order in which they were asked for.
    trace_id: of the first that is traced; empty where none is.
    """

    ref: VariantRef
    outputs: Mapping[str, NDArray[Any]]
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Indexed:
    """One line of the repository's index.

    Attributes:
        name: MODEL or MODEL/VARIANT.
        version: empty for a model, whose route may mix several.
        state: READY, LOADING, UNLOADING or UNAVAILABLE.
    """

    name: str
    version: str
    state: str
    reason: str = ""


class DataPlane:
    """The server as the protocol sees it."""

    def __init__(
        self,
        repository: Repository,
        router: Router,
        manager: Manager,
        routes: Routes,
        pipeline: Pipeline,
        calls: Calls,
        metrics: Metrics,
    ) -> None:
        self._repository = repository
        self._router = router
        self._manager = manager
        self._routes = routes
        self._pipeline = pipeline
        self._calls = calls
        self._metrics = metrics
        self.version = version("lathe")

    def is_ready(self) -> bool:
        return not self._pipeline.draining

    def is_model_ready(self, asked: Target) -> bool:
        """A call would be judged now."""
        try:
            return self.is_ready() and self._manager.states().get(self._ref(asked)) == "ready"
        except LatheError:
            return False

    async def describe(self, asked: Target) -> Description:
        """
        Raises:
            NotFound: no such model or variant.
            Refused: the variant is not in memory.
        """
        await self._calls.check(asked.model, "", asked.pinned, ())
        with self._manager.lease(self._ref(asked)) as servable:
            return describe(servable)

    async def infer(
        self,
        asked: Target,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str] = (),
        *,
        deadline: float,
    ) -> Inferred:
        """Files of pictures to detections, or tensors to tensors.

        Args:
            outputs: names of those that are wanted; none asks for all.
            deadline: on the monotonic clock.

        Raises:
            InvalidInput: the inputs are not what the model takes.
            LatheError: it was not answered.
        """
        stream_id = self._calls.new_stream_id()
        origin = current.get()
        await self._calls.check(asked.model, stream_id, asked.pinned, origin.headers)

        def frame(what: EncodedPicture | Tensors, index: int = 0) -> Frame:
            now = monotonic()
            return Frame(
                asked.model,
                stream_id,
                asked.pinned,
                index,
                what,
                captured=now,
                arrived=now,
                deadline=deadline,
                is_call=True,
                origin=origin,
            )

        if not self._brings_pictures(asked, inputs):
            result = await self._calls.answer(frame(Tensors(inputs, tuple(outputs))))
            assert result.ref, "who answers has a name"
            assert isinstance(result.answer, TensorAnswer), "tensors are answered by tensors"
            return Inferred(result.ref, result.answer.outputs, result.trace_id)
        results = await self._all([frame(one, index) for index, one in enumerate(_files(inputs))])
        refs = {one.ref for one in results}
        if len(refs) > 1:  # whose detections may not even have the same number of landmarks
            raise Unavailable("another variant took over between the pictures; ask again")
        answers = [one.answer.detections for one in results if isinstance(one.answer, Answer)]
        found = as_tensors(answers)
        if unknown := set(outputs) - found.keys():
            raise InvalidInput(f"pictures have no output {min(unknown)[:64]}; they have {', '.join(found)}")
        ref = refs.pop()
        assert ref, "who answers has a name"
        trace_id = next((one.trace_id for one in results if one.trace_id), "")
        return Inferred(ref, {name: found[name] for name in outputs or found}, trace_id)

    def _brings_pictures(self, asked: Target, inputs: Mapping[str, NDArray[Any]]) -> bool:
        images = inputs.get(IMAGE)
        if images is None or images.dtype != object:
            return False
        with self._manager.lease(self._ref(asked)) as servable:
            return servable.detector is not None

    async def _all(self, frames: Sequence[Frame]) -> list[Result]:
        """The results of all, a few at the same time; the first error where there is one, once all are through."""
        room = asyncio.Semaphore(AT_ONCE)

        async def answer(frame: Frame) -> Result:
            async with room:
                return await self._calls.answer(frame)

        done = await asyncio.gather(*(answer(one) for one in frames), return_exceptions=True)
        results = []
        for one in done:
            if isinstance(one, BaseException):
                raise one
            results.append(one)
        return results

    def statistics(self, name: str = "", version: str = "") -> list[tuple[str, str, Totals]]:
        """Name, version and totals of the variants in memory that are meant; of all where none is named. Those of a
        model go by its name.

        Raises:
            NotFound: no such model is served.
        """
        asked = target(name, version) if name else None
        ready = [ref for ref, state in self._manager.states().items() if state == "ready"]
        if asked and asked.pinned.startswith(LABEL):
            ready = [self._ref(asked)]
        elif asked:
            self._route_of(asked.model)
            ready = [
                ref
                for ref in ready
                if ref.model == asked.model and asked.variant in ("", ref.variant) and asked.version in (0, ref.version)
            ]
        by_route = asked is not None and not asked.pinned
        return [
            (name if by_route else f"{ref.model}/{ref.variant}", str(ref.version), self._metrics.totals(ref))
            for ref in ready
        ]

    async def index(self, *, only_ready: bool) -> list[Indexed]:
        """Every model, and every variant's newest version and those in memory."""
        published = await asyncio.to_thread(self._published)
        states = self._manager.states()
        lines = []
        for model in sorted({ref.model for ref in (*published, *states)}):
            is_served = self._router.route(model) is not None
            lines.append(Indexed(model, "", "READY" if is_served else "UNAVAILABLE"))
            for ref in sorted(ref for ref in {*published, *states} if ref.model == model):
                state = states.get(ref)
                reason = self._manager.about(ref) if state == "failed" else "" if state else "not loaded"
                name = f"{model}/{ref.variant}"
                lines.append(Indexed(name, str(ref.version), _STATES.get(state, "UNAVAILABLE"), reason))
        return [line for line in lines if not only_ready or line.state == "READY"]

    def _published(self) -> set[VariantRef]:
        found = set()
        for model in self._repository.models():
            for variant in self._repository.variants(model):
                try:
                    found.add(self._repository.newest(model, variant))
                except NotFound:  # it has just gone
                    continue
        return found

    async def load(self, name: str) -> None:
        """Brings a variant into memory and keeps it there. A model alone is what its route needs, which is there.

        Raises:
            LatheError: it is not published, or fails a check.
        """
        asked = target(name)
        if not asked.pinned:
            self._route_of(asked.model)
            return
        loading = self._routes.load(asked.model, VariantVersion(variant=asked.variant))
        await through("RepositoryModelLoad", name, loading)

    async def unload(self, name: str) -> None:
        """Takes a variant out of memory.

        Raises:
            Refused: a route needs it, or it is not in memory; or it is a whole model, which has a route.
        """
        asked = target(name)
        if not asked.pinned:
            self._route_of(asked.model)
            raise Refused(f"model {asked.model} has a route; unload its variants by {asked.model}/VARIANT")
        named = VariantVersion(variant=asked.variant)
        by = author("open inference protocol")
        unloading = self._routes.unload(asked.model, named, force=False, author=by)
        await through("RepositoryModelUnload", name, unloading)

    def _ref(self, asked: Target) -> VariantRef:
        return self._pipeline.choose(asked.model, "", asked.pinned, ())

    def _route_of(self, model: str) -> None:
        if self._router.route(model) is None:
            raise NotFound("no such model is served here")


def _files(inputs: Mapping[str, NDArray[Any]]) -> list[EncodedPicture]:
    """
    Raises:
        InvalidInput: other inputs beside, another type, or too many.
    """
    images = inputs[IMAGE]
    if len(inputs) > 1:
        raise InvalidInput(f"the input {IMAGE} comes alone")
    if not 1 <= images.size <= MAX_PICTURES:
        raise InvalidInput(f"a call brings 1 to {MAX_PICTURES} pictures")
    return [EncodedPicture(one) for one in images.ravel()]
