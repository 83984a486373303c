"""Good requests for each method of both ports, to a server on `publish_open_models` and `publish_faces`, and the words
in them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from lathe.v1 import control_pb2, experiment_pb2, inference_pb2
from lathe.v1.variant_version_pb2 import VariantVersion
from lathe_server.open_inference import open_inference_pb2 as pb
from tests.pictures import jpeg, png, scene, with_orientation
from tests.server.gallery_requests import SERVICE as GALLERY
from tests.server.gallery_requests import SPACE, SUBJECTS, gallery_requests, gallery_scenes
from tests.server.messages import Words

TENSOR_MODELS = ("echo", "double", "halves", "named")
MODELS = ("spots", *TENSOR_MODELS)
OF_FACES = ("face", "face-embed", "face-id")
VARIANTS = ("a", "b", "plain")
PINNED = ("spots/a", "spots/b", "spots/plain", "spots/@stable", "double/plain", "double/@stable", "echo/plain")
DATATYPES = ("FP32", "BOOL", "UINT8", "INT8", "UINT64", "INT64", "FP16", "FP64", "BYTES")
ONES = np.ones((2, 16), np.float32)
Scene: TypeAlias = "Sequence[tuple[str, Message]]"
"""Requests, each with its method's path."""
SERVICES = (
    "lathe.v1.InferenceService",
    "lathe.v1.ControlService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
    GALLERY,
)


def element(content: bytes) -> bytes:
    """One element of BYTES as raw contents have it."""
    return struct.pack("<I", len(content)) + content


def pictures() -> list[bytes]:
    """Small ones of several kinds; the last is an aligned face."""
    small = scene(48, 40)
    return [jpeg(small), with_orientation(jpeg(small), 6), jpeg(small[..., 0]), png(small), png(scene(32, 32))]


def words() -> Words:
    names = {
        "model": (*MODELS, *OF_FACES),
        "variant": (*VARIANTS, "@stable"),
        "name": (*MODELS, *PINNED, "x", "y", "image", "in_BYTES", "xyxy", "stable"),
        "model_name": (*MODELS, *PINNED),
        "version": ("1", "2", "0"),
        "model_version": ("1", "2", ""),
        "datatype": DATATYPES,
        "service": ("", *SERVICES, *MODELS),
        "file_containing_symbol": SERVICES,
        "file_by_filename": ("lathe/v1/control.proto", "google/protobuf/timestamp.proto", "open_inference.proto"),
        "containing_type": ("google.protobuf.FieldOptions", "lathe.v1.Card"),
        "all_extension_numbers_of_type": ("google.protobuf.FieldOptions", "lathe.v1.Card"),
        "stream_id": ("lobby", "gate"),
        "prefix": ("lob", "gate", ""),
        "header": ("x-site", ""),
        "value": ("gate", ""),
        "metric": ("failed_share", "dropped_share", "cpu_seconds"),
        "objective": ("cpu_seconds", "service_seconds", "latency_p99_seconds"),
        "subject": SUBJECTS,
        "space": (SPACE, ""),
        "record": ("", "0" * 32),
        "key": ("binary_data", "shared_memory_region", "content_type"),
    }
    contents = [*pictures(), ONES.tobytes(), b"", b"\0\1\0", element(pictures()[0]), bytes(48 * 40 * 3)]
    return Words(names, contents)


def requests() -> Mapping[str, Sequence[Sequence[Message]]]:
    """By the method's path, sequences of requests; those of unary methods have one each."""
    unary = {
        f"/{service}/{method}": [[one] for one in found]
        for service, methods in (
            (SERVICES[0], {"Detect": _detects(), "Embed": _embeds()}),
            (SERVICES[1], _control()),
            (SERVICES[2], _open_inference()),
            (SERVICES[3], _health()),
            (GALLERY, gallery_requests()),
        )
        for method, found in methods.items()
    }
    return unary | {
        f"/{SERVICES[0]}/DetectStream": _streams(),
        f"/{SERVICES[2]}/ModelStreamInfer": [_infers(), _infers()[:2] * 6],
        f"/{SERVICES[4]}/ServerReflectionInfo": [_reflections()],
    }


def scenes() -> Mapping[str, Sequence[Scene]]:
    """By the method's path, what may be asked for before, so that its requests meet the state that they are for."""
    inference, control, open_inference = (f"/{service}" for service in SERVICES[:3])
    found = _control()
    alone, b_alone, whole, tensors = (found["SetRoute"][place] for place in range(4))

    def steps(*some: tuple[str, Message]) -> Scene:
        return [
            (f"{control}/{method}", message)
            for method, message in (("StopExperiment", found["StopExperiment"][0]), *some)
        ]

    route, start = ("SetRoute", alone), ("StartExperiment", found["StartExperiment"][2])
    load = ("LoadVariant", found["LoadVariant"][1])
    frames = [steps(("SetRoute", whole)), steps(route, start), steps(("SetRoute", tensors))]
    return {
        f"{control}/SetRoute": [steps()],
        f"{control}/Rollback": [steps(route, ("SetRoute", b_alone))],
        f"{control}/UnloadVariant": [steps(route, load)],
        f"{control}/StartExperiment": [steps(route)],
        f"{control}/GetExperiment": [steps(route, start)],
        f"{control}/StopExperiment": [steps(route, start)],
        f"{inference}/Detect": [steps(route), *frames],
        f"{inference}/DetectStream": [steps(route), *frames],
        f"{open_inference}/ModelInfer": [steps(route), *frames],
        f"{open_inference}/RepositoryModelUnload": [steps(route, load)],
        **gallery_scenes(),
    }


def _frames() -> list[inference_pb2.Frame]:
    raw = [
        inference_pb2.RawPicture(width=16, height=8, format=inference_pb2.PIXEL_FORMAT_RGB8, pixels=bytes(384)),
        inference_pb2.RawPicture(width=16, height=8, format=inference_pb2.PIXEL_FORMAT_BGR8, pixels=bytes(384)),
        inference_pb2.RawPicture(
            width=15, height=8, stride=16, format=inference_pb2.PIXEL_FORMAT_GRAY8, pixels=bytes(128)
        ),
    ]
    encoded = [inference_pb2.Frame(encoded=picture) for picture in pictures()]
    return encoded + [inference_pb2.Frame(raw=one) for one in raw]


def _detects() -> list[Message]:
    return [
        inference_pb2.DetectRequest(model="spots", variant=variant, frame=frame, priority=priority)
        for variant, priority in (("", inference_pb2.PRIORITY_HIGH), ("a", inference_pb2.PRIORITY_NORMAL))
        for frame in _frames()
    ]


def _embeds() -> list[Message]:
    frames = _frames()
    landmarks = [10.0, 10.0, 30.0, 10.0, 20.0, 20.0, 12.0, 30.0, 28.0, 30.0]
    return [
        inference_pb2.EmbedRequest(model=model, variant=variant, frame=frame, landmarks=given)
        for frame in frames
        for model, variant, given in (
            ("face-id", "", []),
            ("face-embed", "", landmarks),
            ("face-embed", "a", []),
            ("spots", "a", landmarks),
        )
    ]


def _streams() -> list[list[Message]]:
    configs = [
        inference_pb2.StreamConfig(model="spots"),
        inference_pb2.StreamConfig(model="spots", stream_id="lobby", keep_all=True),
        inference_pb2.StreamConfig(
            model="spots", stream_id="gate", max_age_seconds=1, priority=inference_pb2.PRIORITY_HIGH
        ),
        inference_pb2.StreamConfig(model="spots", variant="a", keep_all=True),
        inference_pb2.StreamConfig(model="face-id", embeddings=True, keep_all=True),
    ]
    streams: list[list[Message]] = []
    for config in configs:
        stream: list[Message] = [inference_pb2.DetectStreamRequest(config=config)]
        for index, frame in enumerate(_frames()):
            frame.index = index
            stream.append(inference_pb2.DetectStreamRequest(frame=frame))
        streams += [stream, stream[:3]]
    return streams


A, B, PLAIN = (VariantVersion(variant=name) for name in VARIANTS)


def _control() -> dict[str, list[Message]]:
    return {
        "ListVariants": [control_pb2.ListVariantsRequest(), control_pb2.ListVariantsRequest(model="spots")],
        "GetRoute": [control_pb2.GetRouteRequest(model=model) for model in MODELS],
        "SetRoute": _routes(),
        "Rollback": [control_pb2.RollbackRequest(model="spots")],
        "LoadVariant": [control_pb2.LoadVariantRequest(model="spots", variant=one) for one in (A, B, PLAIN)],
        "UnloadVariant": [
            control_pb2.UnloadVariantRequest(model="spots", variant=one, force=force)
            for one in (B, PLAIN, A)
            for force in (False, True)
        ],
        "StartExperiment": _experiments(),
        "GetExperiment": [control_pb2.GetExperimentRequest(model="spots")],
        "StopExperiment": [
            control_pb2.StopExperimentRequest(model="spots", reason="seen", promote=promote)
            for promote in (False, True)
        ],
        "WatchEvents": [control_pb2.WatchEventsRequest(), control_pb2.WatchEventsRequest(model="spots")],
    }


def _routes() -> list[Message]:
    """To one variant, to the other, to both with all that a route may have, and with a shadow that takes tensors."""
    half = [control_pb2.RouteWeight(variant=name, weight=1) for name in "ab"]
    route = control_pb2.SetRouteRequest
    rules = [
        control_pb2.StreamRule(prefix="lob", variant=B),
        control_pb2.StreamRule(header="x-site", value="gate", variant=B),
    ]
    whole = route(
        model="spots",
        weights=half,
        author="a test",
        reason="to see",
        degrade=control_pb2.Degrade(variants=[B], after_seconds=0.1),
        shadow=control_pb2.Shadow(variant=B, share=0.5),
        rules=rules,
        labels=[control_pb2.Label(name="stable", variant=A)],
    )
    of_tensors = [control_pb2.RouteWeight(variant="plain", weight=1)]
    return [
        route(model="spots", weights=[control_pb2.RouteWeight(variant="a", weight=1, latest=True)]),
        route(model="spots", weights=half[1:]),
        whole,
        route(model="spots", weights=half, shadow=control_pb2.Shadow(variant=PLAIN, share=1)),
        route(model="double", weights=of_tensors, labels=[control_pb2.Label(name="stable", variant=PLAIN)]),
    ]


def _experiments() -> list[Message]:
    """Short ones, and one that runs until somebody ends it."""
    spec = experiment_pb2.ExperimentSpec
    short = spec(model="spots", baseline=A, candidate=B, block_seconds=0.1, max_seconds=0.3)
    back = spec(model="spots", baseline=B, candidate=A, block_seconds=0.1, max_seconds=1, shadow_rounds=1, promote=True)
    lasting = spec(model="spots", baseline=A, candidate=B, shadow_share=1)
    return [control_pb2.StartExperimentRequest(spec=one, author="a test") for one in (short, back, lasting)]


def _open_inference() -> dict[str, list[Message]]:
    named: Any = {
        "ModelReady": pb.ModelReadyRequest,
        "ModelMetadata": pb.ModelMetadataRequest,
        "ModelConfig": pb.ModelConfigRequest,
        "ModelStatistics": pb.ModelStatisticsRequest,
    }
    return {
        "ServerLive": [pb.ServerLiveRequest()],
        "ServerReady": [pb.ServerReadyRequest()],
        "ServerMetadata": [pb.ServerMetadataRequest()],
        "ModelInfer": _infers(),
        "RepositoryIndex": [pb.RepositoryIndexRequest(), pb.RepositoryIndexRequest(ready=True)],
        "RepositoryModelLoad": [pb.RepositoryModelLoadRequest(model_name=name) for name in (*MODELS, *PINNED)],
        "RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name=name) for name in ("spots/b", *PINNED)],
        **{
            method: [kind(name=name) for name in (*MODELS, *PINNED)] + [kind(name="spots/a", version="1")]
            for method, kind in named.items()
        },
    }


def _infers() -> list[Message]:
    return [_doubled(raw=True), _doubled(raw=False), _pictured(), _echoed(), _halved()]


def _doubled(*, raw: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="double", id="a call")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=ONES.shape)
    if raw:
        request.raw_input_contents.append(ONES.tobytes())
    else:
        tensor.contents.fp32_contents.extend(ONES.ravel().tolist())
    return request


def _halved() -> pb.ModelInferRequest:
    request = _doubled(raw=True)
    request.model_name = "halves/plain"
    request.outputs.add(name="z")
    return request


def _pictured() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="spots", raw_input_contents=[b"".join(map(element, pictures()))])
    request.inputs.add(name="image", datatype="BYTES", shape=[len(pictures())])
    request.outputs.add(name="xyxy")
    return request


def _echoed() -> pb.ModelInferRequest:
    """Elements of every datatype that has a field of its own; FP16 has none, so all of them come raw."""
    request = pb.ModelInferRequest(model_name="echo")
    bytes_of = {"BOOL": 1, "FP16": 2, "FP32": 4, "FP64": 8}
    for kind in ("UINT", "INT"):
        bytes_of |= {f"{kind}{bits}": bits // 8 for bits in (8, 16, 32, 64)}
    for datatype, size in bytes_of.items():
        request.inputs.add(name=f"in_{datatype}", datatype=datatype, shape=[1, 3])
        request.raw_input_contents.append(bytes(3 * size))
    request.inputs.add(name="in_BYTES", datatype="BYTES", shape=[1, 3])
    request.raw_input_contents.append(element(b"gate") + element(b"") + element(b"Tor\0"))
    return request


def _health() -> dict[str, list[Message]]:
    named = ("", SERVICES[0], "spots")
    return {
        "Check": [health_pb2.HealthCheckRequest(service=name) for name in named],
        "List": [health_pb2.HealthListRequest()],
        "Watch": [health_pb2.HealthCheckRequest(service=name) for name in named],
    }


def _reflections() -> list[Message]:
    kind = reflection_pb2.ServerReflectionRequest
    extension = {"containing_type": "google.protobuf.FieldOptions", "extension_number": 1}
    return [
        kind(list_services=""),
        *(kind(file_containing_symbol=name) for name in SERVICES),
        kind(file_by_filename="lathe/v1/control.proto"),
        kind(all_extension_numbers_of_type="google.protobuf.FieldOptions"),
        kind(file_containing_extension=extension),
    ]
