"""A variant on its way into memory: read, checked, built, warmed. Runs off the serving path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from time import thread_time
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lathe.card import enum_word
from lathe.detections import Detections
from lathe.embeddings import Embeddings
from lathe.errors import BadVariant, InvalidInput
from lathe.machine import cpu_name
from lathe.repository import Repository, VariantRef
from lathe.signatures import Verifier
from lathe.v1 import card_pb2
from lathe_server.brevity import Brevity, shape_of
from lathe_server.embedding_checks import check_embedding_card, check_embedding_contract, check_embeddings
from lathe_server.engines import FREE, Build, Engine, default_engine
from lathe_server.engines.golden import check_golden, golden_picture, golden_tensors
from lathe_server.lifecycle import State
from lathe_server.onnx_file import check_file
from lathe_server.tensors import NetworkFails, TensorAnswer, Tensors, check_types, infer
from lathe_server.vision import Answer, Detector, Embedder, Picture, Portrait, RawPicture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.decoders import OUTPUT_NAMES, Outputs, Shape, needed_shapes
from lathe_server.vision.detections import Thresholds
from lathe_server.vision.faces import check_portrait, embed_faces

WARM_UP_RUNS, TIMED_RUNS = 3, 5
_NO_SIZES = frozenset({"float16", "float32", "float64", "bool"})
"""Types whose values cannot say how large something is to be."""
MAX_OTHER_BYTES = 256 << 20
"""Of a signed version's files beside its network."""


Asked: TypeAlias = Picture | Portrait | Tensors
"""What a frame wants judged."""


@dataclass(frozen=True, slots=True)
class Servable:
    """A variant in memory, checked and warmed.

    Attributes:
        engine: its network; what takes tensors.
        detector: what takes pictures; None for a network of tensors, or of faces.
        landmarks: that it gives for each detection.
        embedder: what takes faces; None for other networks.
        brevity: how long its runs are; None where that is no matter.
        opset: version of the standard operators that its network uses.
    """

    ref: VariantRef
    card: card_pb2.Card
    engine: Engine
    detector: Detector | None = None
    landmarks: int = 0
    embedder: Embedder | None = None
    brevity: Brevity | None = None
    opset: int = 0

    @property
    def runtime(self) -> str:
        """What executes its network."""
        return self.engine.runtime

    def is_brief(self, asked: Asked) -> bool:
        """It will answer sooner than a worker would wake."""
        return bool(self.brevity and isinstance(asked, Tensors) and self.brevity.is_brief(shape_of(asked.inputs)))

    def ran(self, asked: Asked, cpu_seconds: float) -> None:
        """It has answered."""
        if self.brevity and isinstance(asked, Tensors):
            self.brevity.ran(shape_of(asked.inputs), cpu_seconds)

    def judge(self, asked: Asked, before_infer: Callable[[], None] = lambda: None) -> Answer | TensorAnswer:
        """Args:
            before_infer: called when the network could run; what it raises ends the work there.

        Raises:
            InvalidInput: the picture, the face or the tensors are not what it takes.
        """
        if isinstance(asked, Tensors):
            return infer(self.engine, asked, before_infer)
        if isinstance(asked, Portrait):
            if self.embedder:
                check_portrait(asked, self.embedder.max_pixels)
            return self.embed(asked.picture, asked.landmarks, np.empty(0, np.int64), before_infer)
        if self.embedder:
            raise InvalidInput(f"model {self.ref.model} detects nothing; Embed asks it for the embedding of a face")
        if self.detector is None:
            raise InvalidInput(f"model {self.ref.model} takes tensors, by the Open Inference Protocol")
        return self.detector.detect(asked, before_infer)

    def embed(
        self,
        picture: Picture,
        landmarks: NDArray[np.float32] | None,
        detection: NDArray[np.int64],
        before_infer: Callable[[], None] = lambda: None,
        decoded: NDArray[np.uint8] | None = None,
    ) -> Answer:
        """Embeddings of some faces of a picture, and no detections.

        Args:
            landmarks, before_infer, decoded: as of `embed_faces`.
            detection: the faces' places among the picture's detections.

        Raises:
            InvalidInput: it is no embedding network; or as `embed_faces`.
            NetworkFails: what it gives is no vector.
        """
        if self.embedder is None:
            raise InvalidInput(f"model {self.ref.model} embeds nothing; an embedding network or a pipeline does")
        vectors, stages = embed_faces(self.embedder, picture, landmarks, before_infer, decoded)
        if not np.isfinite(vectors).all():
            raise NetworkFails("the network gives NaN or infinity for this face")
        return Answer(Detections.none(), stages, Embeddings(vectors, self.card.embedding.space, detection))


def load_servable(
    repository: Repository,
    ref: VariantRef,
    *,
    max_pixels: int,
    max_model_bytes: int,
    max_slowdown: float = 0.0,
    build: Build = default_engine,
    verifier: Verifier | None = None,
    reached: Callable[[State], None] = lambda state: None,
) -> Servable:
    """Loads a published variant.

    Args:
        verifier: looks at its signature; None loads what nobody vouches for, too.
        reached: told of each state on the way.
        max_slowdown: CPU time of a run against what the card says of this very processor; 0 does not look.
        build: makes the engine.

    Raises:
        NotFound: it is not published.
        BadVariant: it fails a check; the message names which.
        Refused: this machine lacks what the engine needs.
    """
    room = max_model_bytes + MAX_OTHER_BYTES
    with verifier.checked(repository, ref, room) if verifier else nullcontext(repository) as checked:
        card = checked.card(ref)
        if card.size_bytes > max_model_bytes:
            raise BadVariant(f"the model has {card.size_bytes} bytes; at most {max_model_bytes} are loaded")
        if card.task == card_pb2.TASK_EMBEDDING:
            check_embedding_card(card, max_pixels)
        elif card.task != card_pb2.TASK_TENSORS:
            _check_card(card, max_pixels)
        content = checked.model_bytes(ref)
    reached("checking")
    facts = check_file(content)
    limit_wh = card.serving_size.width, card.serving_size.height
    engine = build(content, limit_wh)
    if card.task == card_pb2.TASK_TENSORS:
        _check_tensors(engine, card)
        reached("warming")
        depends_on_values = facts.has_subgraphs or any(spec.dtype not in _NO_SIZES for spec in engine.inputs)
        brevity = Brevity() if engine.runs_alone and not depends_on_values else None
        return Servable(ref, card, engine, brevity=brevity, opset=facts.opset)
    if card.task == card_pb2.TASK_EMBEDDING:
        check_embedding_contract(engine, card)
        embedder = Embedder(engine, enum_word("Alignment", card.embedding.alignment), limit_wh, max_pixels)
        with _blamed_on_the_model():
            check_embeddings(embedder, engine, card)
            reached("warming")
            _warm_up_embedder(embedder)
        _check_speed(engine, card, max_slowdown)
        return Servable(ref, card, engine, embedder=embedder, opset=facts.opset)
    decoder = enum_word("Decoder", card.decoder)
    _check_contract(engine, decoder)
    detector = Detector(
        engine,
        decoder,
        Thresholds(card.thresholds.min_score, card.thresholds.nms, card.thresholds.max_detections),
        limit_wh,
        card.size_multiple,
        max_pixels,
    )
    _check_answers(detector, engine, card)
    reached("warming")
    landmarks = _warm_up(detector)
    _check_speed(engine, card, max_slowdown)
    return Servable(ref, card, engine, detector, landmarks, opset=facts.opset)


def _check_card(card: card_pb2.Card, max_pixels: int) -> None:
    size, multiple, thresholds = card.serving_size, card.size_multiple, card.thresholds
    if size.width % multiple or size.height % multiple or size.width * size.height > max_pixels:
        raise BadVariant(f"the card's serving size must be in multiples of {multiple}, and at most {max_pixels} pixels")
    if not (0 <= thresholds.min_score <= 1 and 0 <= thresholds.nms <= 1 and thresholds.max_detections):
        raise BadVariant("the card's thresholds must be from 0 to 1, and max_detections above 0")
    if not card.classes or (card.decoder == card_pb2.DECODER_HEATMAP and len(card.classes) > 1):
        raise BadVariant(f"the card names {len(card.classes)} classes, which its decoder cannot have")


def _check_contract(engine: Engine, decoder: str) -> None:
    if len(engine.inputs) != 1:
        raise BadVariant(f"the model has {len(engine.inputs)} inputs; one is served")
    pixels = engine.inputs[0]
    if pixels.dtype != "uint8" or len(pixels.shape) != 4 or pixels.shape[3] != 3:
        raise BadVariant("the model's input must be uint8, batch × height × width × 3")
    if pixels.shape[1] != FREE or pixels.shape[2] != FREE:
        raise BadVariant("height and width of the model's input must be free")
    needed = OUTPUT_NAMES.get(decoder)
    if needed is None:
        raise BadVariant("the card names no decoder that this server has")
    missing = needed - {spec.name for spec in engine.outputs}
    if missing:
        raise BadVariant(f"the model lacks the output {min(missing)}, which its decoder needs")


def _check_tensors(engine: Engine, card: card_pb2.Card) -> None:
    """Asks a network of tensors for its golden answer; one without a golden answer is asked nothing.

    Raises:
        BadVariant: a type is not served, the network fails, or its answer is another one than the card says.
    """
    check_types(engine)
    if card.golden:
        with _blamed_on_the_model():
            shapes = {one.input: one.dims for one in card.golden_shapes}
            check_golden(engine.infer(golden_tensors(engine.inputs, shapes)), card.golden)


def _check_answers(detector: Detector, engine: Engine, card: card_pb2.Card) -> None:
    """Looks at what comes out for pictures of the serving size.

    Raises:
        BadVariant: the network fails, gives NaN or infinity, outputs that its decoder cannot read, or other ones than
            its card says.
    """
    width, height = detector.limit_wh
    with _blamed_on_the_model():
        outputs = engine.run(np.full((1, height, width, 3), 127, np.uint8))
        _check_outputs(outputs, needed_shapes(detector.decoder, outputs, detector.limit_wh, len(card.classes)))
        if card.golden:
            check_golden(engine.run(golden_picture(detector.limit_wh)), card.golden)


def _warm_up(detector: Detector) -> int:
    """Judges a few whole frames, so that the first that somebody waits for is no slower than others.

    Returns:
        how many landmarks it gives for each detection, if there are any.

    Raises:
        BadVariant: the network fails.
    """
    picture = _ramp(detector.limit_wh)
    with _blamed_on_the_model():
        for _ in range(WARM_UP_RUNS):
            found = detector.detect(picture)
    return int(found.detections.landmarks.shape[1])


def _warm_up_embedder(embedder: Embedder) -> None:
    picture = _ramp(embedder.size_wh)
    face = (TEMPLATES[embedder.alignment] * embedder.size_wh).astype(np.float32)
    for _ in range(WARM_UP_RUNS):
        embed_faces(embedder, picture, face[None])


def _ramp(size_wh: tuple[int, int]) -> RawPicture:
    width, height = size_wh
    ramp = bytes(range(256)) * (width * height // 256 + 1)
    return RawPicture(width, height, 0, "gray8", ramp[: width * height])


@contextmanager
def _blamed_on_the_model() -> Iterator[None]:
    """Runtimes raise what they like; the variant is refused either way."""
    try:
        yield
    except BadVariant:
        raise
    except Exception as error:
        raise BadVariant("the model fails on what it is tried with", detail=str(error)) from error


def _check_speed(engine: Engine, card: card_pb2.Card, max_slowdown: float) -> None:
    """CPU time of the calling thread, because a server that loads a variant has other things to do as well.

    Raises:
        BadVariant: the network takes much longer than when it was made.
    """
    told = [one.stages.infer for one in card.latency if one.cpu == cpu_name() and one.size == card.serving_size]
    if not (told and told[0] and max_slowdown):
        return
    picture = golden_picture((card.serving_size.width, card.serving_size.height))
    taken = []
    for _ in range(TIMED_RUNS):
        began = thread_time()
        engine.run(picture)
        taken.append(thread_time() - began)
    if min(taken) > max_slowdown * told[0]:
        raise BadVariant(
            f"the network takes {min(taken) * 1e3:.1f} ms of CPU time; its card says {told[0] * 1e3:.1f} ms on this "
            "processor"
        )


def _check_outputs(outputs: Outputs, needed: Mapping[str, Shape]) -> None:
    for name, shape in needed.items():
        if outputs[name].shape != shape:
            raise BadVariant(f"the model's output {name} has the shape {outputs[name].shape}; {shape} is needed")
    if any(value.dtype != np.float32 for value in outputs.values()):
        raise BadVariant("the model's outputs must be float32")
    if not all(np.isfinite(value).all() for value in outputs.values()):
        raise BadVariant("the model gives NaN or infinity on a grey picture")
