"""A frame's way through a pipeline: who bears what, and where it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lathe.detections import Detections
from lathe.errors import Refused
from lathe.repository import VariantRef
from lathe_server.frames import Frame, Result
from lathe_server.judgement import Judgement
from lathe_server.passage import Passage
from lathe_server.servable import Servable
from lathe_server.vision import Answer, EncodedPicture, detector, faces
from lathe_server.vision.align import TEMPLATES
from lathe_server.vision.decode import decode
from lathe_server.vision.decoders import Outputs
from lathe_server.vision.faces import largest
from lathe_server.vision.picture import read_header
from tests.pictures import jpeg, png
from tests.server.faces import EMBED, FACE, SPEC, crowd, crowd_jpeg, faces_in_memory, frame


@pytest.fixture(scope="module")
def servables(tmp_path_factory: pytest.TempPathFactory) -> dict[VariantRef, Servable]:
    return faces_in_memory(tmp_path_factory.mktemp("faces"))


def judged(passage: Passage, one: Frame, cpu_seconds: float = 1.0) -> Result:
    results: list[Result] = []
    judgement = Judgement(
        one, passage, lambda: None, lambda result, seconds: results.append(result), degraded=[False, True]
    )
    judgement.run()
    judgement.done(0.0, cpu_seconds, cpu_seconds)
    return results[0]


class Network:
    """Stands in for an engine, and does something before it runs."""

    def __init__(self, engine: object, before: Callable[[], object]) -> None:
        self._engine = engine
        self._before = before

    def run(self, tensor: np.ndarray) -> Outputs:
        self._before()
        outputs: Outputs = self._engine.run(tensor)  # type: ignore[attr-defined]
        return outputs


def changed(servable: Servable, before: Callable[[], object]) -> Servable:
    """Of an embedding network."""
    assert servable.embedder
    network = Network(servable.embedder.network, before)
    return replace(servable, embedder=replace(servable.embedder, network=network))


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_each_variant_bears_its_part_of_the_processors_time(servables: dict[VariantRef, Servable]) -> None:
    def work() -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass

    passage = Passage(SPEC, servables[FACE], changed(servables[EMBED], work))
    result = judged(passage, frame(), cpu_seconds=1.0)
    detection, embedding = result.parts
    assert (result.outcome, result.ref, result.counted_as) == ("answered", FACE, VariantRef("face-id", "", 0))
    assert [part.ref for part in result.parts] == [FACE, EMBED]
    assert 0.02 <= embedding.cpu_seconds < 0.2
    assert detection.cpu_seconds + embedding.cpu_seconds == pytest.approx(1.0)
    assert [part.degraded for part in result.parts] == [False, True]
    assert result.answer
    assert detection.answer
    assert embedding.answer
    stages = [one.answer.stages for one in (detection, embedding) if one.answer]
    assert result.answer.stages.infer == pytest.approx(sum(one.infer for one in stages))


def test_a_frame_without_faces_is_the_detectors_alone(servables: dict[VariantRef, Servable]) -> None:
    passage = Passage(SPEC, servables[FACE], changed(servables[EMBED], raising(AssertionError("it is not asked"))))
    result = judged(passage, frame(crowd_jpeg()))
    assert (result.outcome, result.parts, result.degraded) == ("answered", (result,), False)


@pytest.mark.fault(74)
def test_what_breaks_while_a_face_is_embedded_is_the_embedders_failure(
    servables: dict[VariantRef, Servable], caplog: pytest.LogCaptureFixture
) -> None:
    result = judged(Passage(SPEC, servables[FACE], changed(servables[EMBED], raising(MemoryError()))), frame())
    assert (result.outcome, result.error and result.error.status) == ("failed", "INTERNAL")
    detection, embedding = result.parts
    assert (detection.outcome, detection.error, bool(detection.answer)) == ("answered", None, True)
    assert (embedding.outcome, embedding.answer, embedding.degraded) == ("failed", None, False)
    assert getattr(caplog.records[-1], "variant", None) == "face-embed/a"


def test_a_frame_that_becomes_late_while_its_faces_are_found_is_not_embedded(
    servables: dict[VariantRef, Servable],
) -> None:
    detects = servables[FACE]
    assert detects.detector
    one = frame(deadline=time.monotonic() + 60)
    late = Network(detects.detector.network, lambda: object.__setattr__(one, "deadline", 0.0))
    slow = replace(detects, detector=replace(detects.detector, network=late))
    result = judged(Passage(SPEC, slow, changed(servables[EMBED], raising(AssertionError("too late")))), one)
    assert (result.outcome, result.answer) == ("dropped_deadline", None)
    assert [part.outcome for part in result.parts] == ["answered", "dropped_deadline"]


def test_variants_that_make_no_pipeline_are_refused(servables: dict[VariantRef, Servable]) -> None:
    spots = servables[VariantRef("spots", "a", 1)]
    for detects, embeds, reason in (
        (spots, servables[EMBED], "gives 0 landmarks"),
        (servables[EMBED], servables[EMBED], "detects nothing"),
        (servables[FACE], spots, "embeds nothing"),
    ):
        with pytest.raises(Refused, match=reason):
            Passage(SPEC, detects, embeds)


def test_the_largest_faces_that_can_be_aligned_are_embedded() -> None:
    """Sides of the boxes; the face of 90 has its landmarks on one spot, that of 80 has them outside the picture."""
    sides = np.array([20, 60, 90, 50, 70, 70, 80], np.float32)
    xyxy = np.stack((0 * sides, 0 * sides, sides, sides), axis=1)
    landmarks = (TEMPLATES["dlib"] * sides[:, None, None]).astype(np.float32)
    landmarks[2] = 5
    landmarks[6] -= (80, 0)
    found = Detections(xyxy, np.ones(7, np.float32), np.zeros(7, np.int64), landmarks)
    assert largest(found, 3, 32).tolist() == [4, 5, 1]
    assert largest(found, 9, 0).tolist() == [4, 5, 1, 3, 0]
    assert largest(found, 9, 60.5).tolist() == [4, 5]
    assert largest(Detections.none(5), 4, 32).tolist() == []


def test_a_frame_has_waited_once(servables: dict[VariantRef, Servable]) -> None:
    results: list[Result] = []
    passage = Passage(SPEC, servables[FACE], servables[EMBED])
    judgement = Judgement(
        frame(), passage, lambda: None, lambda result, _: results.append(result), degraded=[False, False]
    )
    judgement.run()
    judgement.done(3.0, 1.0, 1.0)
    (result,) = results
    assert [result.queue_seconds, *(part.queue_seconds for part in result.parts)] == [3.0, 3.0, 0.0]


def test_a_frame_that_becomes_late_between_two_faces_ends_there(servables: dict[VariantRef, Servable]) -> None:
    one = frame(crowd_jpeg((160, 160), (480, 320)), deadline=time.monotonic() + 60)
    runs: list[int] = []

    def hold_up() -> None:
        runs.append(1)
        object.__setattr__(one, "deadline", 0.0)

    result = judged(Passage(SPEC, servables[FACE], changed(servables[EMBED], hold_up)), one)
    assert (result.outcome, len(runs)) == ("dropped_deadline", 1)


@pytest.mark.parametrize(("encode", "decodings"), [(png, 1), (jpeg, 2)])
def test_a_picture_that_was_decoded_whole_is_not_decoded_again(
    servables: dict[VariantRef, Servable],
    monkeypatch: pytest.MonkeyPatch,
    encode: Callable[[np.ndarray], bytes],
    decodings: int,
) -> None:
    one, other = (frame(encode(crowd((320, 240)))) for _ in range(2))
    seen: list[object] = []

    def counted(*asked: Any) -> Any:
        seen.append(asked)
        return decode(*asked)

    for module in (detector, faces):
        monkeypatch.setattr(module, "decode", counted)
    result = judged(Passage(SPEC, servables[FACE], servables[EMBED]), one)
    assert len(seen) == decodings
    assert isinstance(result.answer, Answer)
    assert result.answer.embeddings
    assert isinstance(other.asked, EncodedPicture)
    header = read_header(other.asked)
    whole = decode(other.asked, header, header.upright_wh)
    embedder = servables[EMBED].embedder
    assert embedder
    expected = embedder.embed(whole, result.answer.detections.landmarks[:1])
    np.testing.assert_array_equal(result.answer.embeddings.vectors, expected)
