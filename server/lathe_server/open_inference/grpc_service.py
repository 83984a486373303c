"""inference.GRPCInferenceService: the protocol's messages to the data plane and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc

from lathe.errors import InvalidInput, Unavailable
from lathe_server.access.gate import Gate
from lathe_server.boundary import for_caller
from lathe_server.calls import Context, deadline_of
from lathe_server.open_inference import open_inference_pb2 as pb
from lathe_server.open_inference.data_plane import EXTENSIONS, NAME, DataPlane, durations
from lathe_server.open_inference.description import Description, Tensor
from lathe_server.open_inference.encoding import FIELDS, from_elements, from_raw, to_elements, to_raw
from lathe_server.open_inference.infer_request import InferRequest
from lathe_server.open_inference.names import target
from lathe_server.origin import current
from lathe_server.peer import is_here
from lathe_server.places import Places
from lathe_server.tensors import datatype_of

OPEN_INFERENCE_NAME: str = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
MAX_IN_STREAM = 16
"""Requests of one stream that are judged at the same time; while there are so many, no more are read."""


class OpenInferenceService:
    """A thin layer over the data plane.

    Args:
        places: that streams take.
    """

    def __init__(self, plane: DataPlane, places: Places, gate: Gate) -> None:
        self._plane = plane
        self._gate = gate
        self._places = places

    def handlers(self) -> Any:
        """For a server to add."""
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        methods = {
            method.name: (
                grpc.stream_stream_rpc_method_handler
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler
            )(
                getattr(self, method.name),
                request_deserializer=_parser(method.input_type.name),
                response_serializer=getattr(pb, method.output_type.name).SerializeToString,
            )
            for method in service.methods
        }
        return grpc.method_handlers_generic_handler(service.full_name, methods)

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(  # noqa: N802
        self, request: pb.ServerReadyRequest, context: Context
    ) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._plane.is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        return pb.ModelReadyResponse(ready=self._plane.is_model_ready(target(request.name, request.version)))

    async def ServerMetadata(  # noqa: N802
        self, request: pb.ServerMetadataRequest, context: Context
    ) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=NAME, version=self._plane.version, extensions=EXTENSIONS)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        found = await self._plane.describe(target(request.name, request.version))
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=[str(found.ref.version)],
            platform=found.platform,
            inputs=[_metadata(one) for one in found.inputs],
            outputs=[_metadata(one) for one in found.outputs],
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:  # noqa: N802
        found = await self._plane.describe(target(request.name, request.version))
        return pb.ModelConfigResponse(config=_config(request.name, found))

    async def ModelInfer(self, asking: InferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        request = asking.message
        asked = target(request.model_name, request.model_version)
        inputs = await asyncio.to_thread(_inputs, asking) if asking.takes_time else _inputs(asking)
        inferred = await self._plane.infer(
            asked,
            inputs,
            [one.name for one in request.outputs],
            deadline=deadline_of(context),
        )
        response = pb.ModelInferResponse(
            model_name=request.model_name, model_version=str(inferred.ref.version), id=request.id
        )
        response.parameters["variant"].string_param = inferred.ref.variant
        if inferred.trace_id:
            response.parameters["trace_id"].string_param = inferred.trace_id
        # Raw contents go by place, so that either all outputs are raw, or none.
        is_raw = not request.inputs or bool(asking.raw)
        is_raw |= any(datatype_of(value) not in FIELDS for value in inferred.outputs.values())
        for name, value in inferred.outputs.items():
            output = response.outputs.add(name=name, datatype=datatype_of(value), shape=value.shape)
            if is_raw:
                response.raw_output_contents.append(to_raw(value))
            else:
                getattr(output.contents, FIELDS[output.datatype]).extend(to_elements(value))
        return response

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[InferRequest], context: Context
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        told: asyncio.Queue[asyncio.Future[pb.ModelStreamInferResponse] | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_IN_STREAM)

        broken: list[Exception] = []
        about = current.get().about

        async def read() -> None:
            try:
                async for request in requests:
                    about["requests"] = int(about.get("requests", 0)) + 1
                    await room.acquire()
                    told.put_nowait(asyncio.ensure_future(self._told(request, context)))
            except Exception as error:  # noqa: BLE001  raised once what came before is answered
                broken.append(error)
            finally:
                told.put_nowait(None)

        with self._places.taken() as place:
            reader = asyncio.create_task(read())
            place.on_end = reader.cancel
            try:
                while response := await told.get():
                    yield await response
                    room.release()
            finally:
                reader.cancel()
                while not told.empty():
                    if left := told.get_nowait():
                        left.cancel()
            if broken:
                raise broken[0]
            if place.ended:
                raise Unavailable("the server is shutting down")

    async def _told(self, request: InferRequest, context: Context) -> pb.ModelStreamInferResponse:
        try:
            return pb.ModelStreamInferResponse(infer_response=await self.ModelInfer(request, context))
        except Exception as error:  # noqa: BLE001  one request's trouble is not the stream's
            response = pb.ModelStreamInferResponse(error_message=for_caller(error).message)
            response.infer_response.id = request.message.id
            return response

    async def ModelStatistics(  # noqa: N802
        self, request: pb.ModelStatisticsRequest, context: Context
    ) -> pb.ModelStatisticsResponse:
        response = pb.ModelStatisticsResponse()
        for name, version, totals in self._plane.statistics(request.name, request.version):
            one = response.model_stats.add(name=name, version=version)
            one.inference_count = one.execution_count = totals.answered
            for kind, (count, nanoseconds) in durations(totals).items():
                duration = getattr(one.inference_stats, kind)
                duration.count, duration.ns = count, nanoseconds
        return response

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, context: Context
    ) -> pb.RepositoryIndexResponse:
        lines = await self._plane.index(only_ready=request.ready)
        models = [
            pb.RepositoryIndexResponse.ModelIndex(
                name=line.name, version=line.version, state=line.state, reason=line.reason
            )
            for line in lines
        ]
        return pb.RepositoryIndexResponse(models=models)

    async def RepositoryModelLoad(  # noqa: N802
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        self._gate.check_here("control", is_here=is_here(context))
        if request.parameters:
            raise InvalidInput("a load takes no parameters: files and settings come from the repository")
        await self._plane.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        self._gate.check_here("control", is_here=is_here(context))
        await self._plane.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _parser(message: str) -> Callable[[bytes], Any]:
    if message == pb.ModelInferRequest.DESCRIPTOR.name:
        return InferRequest.parse
    parse: Callable[[bytes], Any] = getattr(pb, message).FromString
    return parse


def _inputs(asking: InferRequest) -> dict[str, Any]:
    """The tensors of a request by name.

    Raises:
        InvalidInput: they are not as they are said to be.
    """
    request, raw = asking.message, asking.raw
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"the request has {len(request.inputs)} inputs and {len(raw)} raw contents")
    inputs = {}
    for place, one in enumerate(request.inputs):
        if one.name in inputs:
            raise InvalidInput("each input is named once")
        if "shared_memory_region" in one.parameters:
            raise InvalidInput("tensors come with their request; shared memory is not served")
        if raw:
            inputs[one.name] = from_raw(one.name, one.datatype, one.shape, raw[place])
            continue
        field = FIELDS.get(one.datatype, "")
        filled = {descriptor.name for descriptor, _ in one.contents.ListFields()}
        if filled - {field}:
            raise InvalidInput(f"the contents of {one.name[:64]} are not in the field of its datatype")
        elements = getattr(one.contents, field) if field else ()
        inputs[one.name] = from_elements(one.name, one.datatype, one.shape, elements)
    return inputs


def _metadata(one: Tensor) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=one.name, datatype=one.datatype, shape=one.shape)


def _config(name: str, found: Description) -> pb.ModelConfig:
    inner = slice(1 if found.max_batch else 0, None)
    return pb.ModelConfig(
        name=name,
        platform=found.platform,
        backend=found.platform.partition("_")[0],
        max_batch_size=found.max_batch,
        input=[
            pb.ModelInput(
                name=one.name, data_type=_data_type(one.datatype), dims=one.shape[inner], optional=one.optional
            )
            for one in found.inputs
        ],
        output=[
            pb.ModelOutput(name=one.name, data_type=_data_type(one.datatype), dims=one.shape[inner])
            for one in found.outputs
        ],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def _data_type(datatype: str) -> pb.DataType.ValueType:
    return pb.DataType.Value(f"TYPE_{'STRING' if datatype == 'BYTES' else datatype}")
