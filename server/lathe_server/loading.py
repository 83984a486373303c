"""A variant on its way into memory: read, checked, built, warmed. Runs off the serving path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from time import thread_time
from typing import NamedTuple

import numpy as np

from lathe.card import enum_word
from lathe.errors import BadVariant
from lathe.machine import cpu_name
from lathe.repository import Repository, VariantRef
from lathe.signatures import Verifier
from lathe.v1 import card_pb2
from lathe_server.brevity import Brevity
from lathe_server.detection_checks import check_detection_card, check_detection_contract, check_detections
from lathe_server.embedding_checks import check_embedding_card, check_embedding_contract, check_embeddings
from lathe_server.engines import Build, Engine, default_engine
from lathe_server.engines.golden import check_golden, golden_picture, golden_tensors
from lathe_server.lifecycle import State
from lathe_server.onnx_file import ModelFacts, check_file
from lathe_server.servable import Servable
from lathe_server.tensors import check_types
from lathe_server.vision import Detector, Embedder, RawPicture
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.detections import Thresholds
from lathe_server.vision.faces import embed_faces

WARM_UP_RUNS, TIMED_RUNS = 3, 5
_NO_SIZES = frozenset({"float16", "float32", "float64", "bool"})
"""Types whose values cannot say how large something is to be."""
MAX_OTHER_BYTES = 256 << 20
"""Of a signed version's files beside its network."""


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
        task = _TASKS.get(card.task, _DETECTION)
        task.check_card(card, max_pixels)
        content = checked.model_bytes(ref)
    reached("checking")
    facts = check_file(content)
    engine = build(content, (card.serving_size.width, card.serving_size.height))
    servable = task.make(_Built(ref, card, engine, facts, max_pixels), lambda: reached("warming"))
    if card.task != card_pb2.TASK_TENSORS:
        _check_speed(engine, card, max_slowdown)
    return servable


class _Built(NamedTuple):
    """What is known of a variant whose network could be built."""

    ref: VariantRef
    card: card_pb2.Card
    engine: Engine
    facts: ModelFacts
    max_pixels: int

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.card.serving_size.width, self.card.serving_size.height


class _Task(NamedTuple):
    """Attributes:
    check_card: with the most pixels that are served.
    make: checks what was built, says that it warms it up, and does.
    """

    check_card: Callable[[card_pb2.Card, int], None]
    make: Callable[[_Built, Callable[[], None]], Servable]


def _of_tensors(built: _Built, warming: Callable[[], None]) -> Servable:
    ref, card, engine, facts, _ = built
    _check_tensors(engine, card)
    warming()
    depends_on_values = facts.has_subgraphs or any(spec.dtype not in _NO_SIZES for spec in engine.inputs)
    brevity = Brevity() if engine.runs_alone and not depends_on_values else None
    return Servable(ref, card, engine, brevity=brevity, opset=facts.opset)


def _of_faces(built: _Built, warming: Callable[[], None]) -> Servable:
    ref, card, engine, facts, max_pixels = built
    check_embedding_contract(engine, card)
    embedder = Embedder(engine, enum_word("Alignment", card.embedding.alignment), built.size_wh, max_pixels)
    with _blamed_on_the_model():
        check_embeddings(embedder, engine, card)
        warming()
        _warm_up_embedder(embedder)
    return Servable(ref, card, engine, embedder=embedder, opset=facts.opset)


def _of_pictures(built: _Built, warming: Callable[[], None]) -> Servable:
    ref, card, engine, facts, max_pixels = built
    decoder = enum_word("Decoder", card.decoder)
    check_detection_contract(engine, decoder)
    thresholds = Thresholds(card.thresholds.min_score, card.thresholds.nms, card.thresholds.max_detections)
    detector = Detector(engine, decoder, thresholds, built.size_wh, card.size_multiple, max_pixels)
    with _blamed_on_the_model():
        check_detections(detector, engine, card)
        warming()
        landmarks = _warm_up(detector)
    return Servable(ref, card, engine, detector, landmarks, opset=facts.opset)


_DETECTION = _Task(check_detection_card, _of_pictures)
_TASKS = {
    card_pb2.TASK_TENSORS: _Task(lambda card, max_pixels: None, _of_tensors),
    card_pb2.TASK_EMBEDDING: _Task(check_embedding_card, _of_faces),
}


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


def _warm_up(detector: Detector) -> int:
    """Judges a few whole frames, so that the first that somebody waits for is no slower than others.

    Returns:
        how many landmarks it gives for each detection, if there are any.
    """
    picture = _ramp(detector.limit_wh)
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
