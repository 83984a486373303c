"""Calls of every gRPC method as a fuzz makes them, how they end, and what is wrong with how they ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lathe.v1 import control_pb2, gallery_pb2, inference_pb2
from lathe_server.open_inference import open_inference_pb2
from tests.calls import DETECT_STREAM, INTERNALS, SECONDS
from tests.server.good_requests import Scene
from tests.server.messages import Messages, damaged, mixed, wire

Port = Literal["grpc", "control"]
EXPECTED = frozenset({"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"})
LEFT = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})
"""How a call ends that its caller leaves."""
SWAPPED = "another variant took over between the pictures"
"""The one reason for UNAVAILABLE: a call with several pictures met a swap."""
SHORT_SECONDS = (0.1, 0.02, 0.001)
MOST_MESSAGES = 12
NO_SCENE = 2
"""How many calls come as they are, for each that has others before it."""
HEADERS: Sequence[tuple[str, str | bytes]] = (
    ("x-site", "gate"),
    ("authorization", "Bearer nobody"),
    ("x-trace-bin", b"\0\xff"),
    ("x-empty", ""),
)


@dataclass(frozen=True)
class Method:
    """One method on one port."""

    port: Port
    path: str
    request: Descriptor = field(repr=False)
    response: Descriptor = field(repr=False)
    client_streams: bool = field(repr=False)
    server_streams: bool = field(repr=False)

    @property
    def is_watch(self) -> bool:
        """It goes on until its caller leaves."""
        return self.server_streams and not self.client_streams

    def __repr__(self) -> str:
        return f"{self.port}:{self.path}"


def _methods() -> Iterator[Method]:
    def service(file: Any, name: str) -> ServiceDescriptor:
        found: ServiceDescriptor = file.DESCRIPTOR.services_by_name[name]
        return found

    common = (service(health_pb2, "Health"), service(reflection_pb2, "ServerReflection"))
    inference = (
        service(inference_pb2, "InferenceService"),
        service(gallery_pb2, "GalleryService"),
        service(open_inference_pb2, "GRPCInferenceService"),
    )
    ports: tuple[tuple[Port, Sequence[ServiceDescriptor]], ...] = (
        ("grpc", (*inference, *common)),
        ("control", (service(control_pb2, "ControlService"), *common)),
    )
    for port, services in ports:
        for one in services:
            for method in one.methods:
                path = f"/{one.full_name}/{method.name}"
                streams = method.client_streaming, method.server_streaming
                yield Method(port, path, method.input_type, method.output_type, *streams)


METHODS = tuple(_methods())


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        status: its name.
        answers: as they came.
    """

    status: str
    details: str
    answers: Sequence[bytes]


@dataclass(frozen=True)
class Call:
    """Attributes:
    seconds: its deadline where the caller chose a short one; then a stream is left open, too.
    taken: responses after which the caller cancels it.
    before: good calls that are made first, one after the other.
    """

    method: Method
    messages: Sequence[bytes]
    seconds: float | None = None
    taken: int | None = None
    headers: Sequence[tuple[str, str | bytes]] = ()
    before: Sequence[Call] = ()

    @property
    def is_left(self) -> bool:
        return self.seconds is not None or self.taken is not None

    def begin(self, opened: grpc.Channel) -> Callable[[], Outcome]:
        """Sends it; what is returned waits for its end."""
        how: dict[str, Any] = {"timeout": self.seconds or SECONDS, "metadata": self.headers}
        plain: dict[str, Any] = {"request_serializer": None, "response_deserializer": None}
        over = threading.Event()
        if self.method.client_streams:
            stream = opened.stream_stream(self.method.path, **plain)(self._sent(over), **how)
        elif self.method.server_streams:
            stream = opened.unary_stream(self.method.path, **plain)(self.messages[0], **how)
        else:
            future = opened.unary_unary(self.method.path, **plain).future(self.messages[0], **how)
            return lambda: self._unary(future)
        return lambda: self._streamed(stream, over)

    def _sent(self, over: threading.Event) -> Iterator[bytes]:
        yield from self.messages
        if self.is_left:
            over.wait(SECONDS)

    def _unary(self, future: Any) -> Outcome:
        if self.taken is not None:
            future.cancel()
        code = future.code()
        return Outcome(code.name, future.details() or "", [future.result()] if code is grpc.StatusCode.OK else [])

    def _streamed(self, stream: Any, over: threading.Event) -> Outcome:
        answers: list[bytes] = []
        try:
            if self.taken != 0:
                for answer in stream:
                    answers.append(answer)
                    if len(answers) == self.taken:
                        break
            if self.taken is not None:
                stream.cancel()
            return Outcome(stream.code().name, stream.details() or "", answers)
        except grpc.RpcError:
            return Outcome(stream.code().name, stream.details() or "", answers)
        finally:
            over.set()


def is_hanging(call: Call, outcome: Outcome) -> bool:
    return outcome.status == "DEADLINE_EXCEEDED" and not call.is_left


def complaint(call: Call, outcome: Outcome) -> str:
    """What is wrong with how a call ended; empty where nothing is."""
    is_swapped = outcome.status == "UNAVAILABLE" and SWAPPED in outcome.details
    if not (outcome.status in EXPECTED or is_swapped or (call.is_left and outcome.status in LEFT)):
        return "its status"
    if call.method.client_streams and outcome.status == "OK" and not call.is_left:
        asked = len(call.messages) - (call.method.path == DETECT_STREAM)  # its first message asks for nothing
        if len(outcome.answers) != asked:
            return f"{asked} answers are due"
    sent = b"".join(call.messages)
    told = [outcome.details] if outcome.status not in LEFT else []
    answer = GetMessageClass(call.method.response)
    for content in outcome.answers:
        told += _errors_of(answer.FromString(content))
    return next((word for text in told for word in leaks(text, sent)), "")


def leaks(text: str, sent: bytes) -> list[str]:
    """Words of the server's inside that a text holds, but for those that the caller has sent itself."""
    return [word for word in ("internal error", *INTERNALS) if word in text and word.encode() not in sent]


def _errors_of(answer: Any) -> list[str]:
    """What single answers of a stream say that went wrong."""
    if isinstance(answer, inference_pb2.DetectStreamResponse):
        return [answer.result.error.message]
    if isinstance(answer, open_inference_pb2.ModelStreamInferResponse):
        return [answer.error_message]
    return []


class Calls:
    """Strategies of calls, most of them near to good ones.

    Args:
        good: sequences of requests by the method's path.
        scenes: requests that may come before.
    """

    def __init__(
        self, messages: Messages, good: Mapping[str, Sequence[Sequence[Message]]], scenes: Mapping[str, Sequence[Scene]]
    ) -> None:
        self._messages = messages
        self._good = good
        self._scenes = {path: [_calls_of(scene) for scene in some] for path, some in scenes.items()}

    def of(self, method: Method) -> SearchStrategy[Call]:
        """Of one method; the simplest of them is good."""

        @st.composite
        def build(draw: DrawFn) -> Call:
            scenes = self._scenes.get(method.path, [[]])
            before = draw(st.sampled_from([*scenes, *[[]] * NO_SCENE * len(scenes)]))
            sequence = draw(st.sampled_from(self._good[method.path]))
            sent = self._stream(draw, sequence) if method.client_streams else [draw(self._one(sequence[0]))]
            seconds, taken = _leaving(draw, method)
            headers = draw(st.lists(st.sampled_from(HEADERS), max_size=2))
            return Call(method, sent, seconds, taken, headers, before)

        return build()

    def _one(self, example: Message) -> SearchStrategy[bytes]:
        whole = st.just(bytes_of(example))
        near, other = self._messages.near(example), self._messages.of(example.DESCRIPTOR)
        return mixed({whole: 1, wire(near): 2, wire(other): 1, damaged(whole): 1})

    def _stream(self, draw: DrawFn, sequence: Sequence[Message]) -> list[bytes]:
        """A stream ends with the first message that breaks the protocol, so every other one has one such at most."""
        sequence = _rearranged(draw, sequence)
        odd = draw(
            st.integers(0, len(sequence)).map(lambda place: {len(sequence) - place}) | st.just(range(len(sequence)))
        )
        return [draw(self._one(one)) if place in odd else bytes_of(one) for place, one in enumerate(sequence)]


def _calls_of(scene: Scene) -> list[Call]:
    methods = {method.path: method for method in METHODS}
    return [Call(methods[path], [bytes_of(message)]) for path, message in scene]


def bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _rearranged(draw: DrawFn, sequence: Sequence[Message]) -> list[Message]:
    """The sequence, or a part of it, or its messages in any order and number."""
    some = st.lists(st.sampled_from(sequence), max_size=MOST_MESSAGES)
    begin = st.integers(0, len(sequence)).map(lambda count: list(sequence[:count]))
    return draw(st.just(list(sequence)) | begin | some)


def _leaving(draw: DrawFn, method: Method) -> tuple[float | None, int | None]:
    """A deadline of the caller's own, and the responses that it takes before it cancels."""
    how = draw(st.sampled_from(("stay", "stay", "stay", "deadline", "cancel")))
    if how == "stay" and not method.is_watch:
        return None, None
    seconds = draw(st.sampled_from(SHORT_SECONDS))
    return seconds, draw(st.integers(0, 3)) if how == "cancel" else None
