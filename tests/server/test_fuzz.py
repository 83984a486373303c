"""Damaged pictures, thousands of them: refused or answered, never a crash."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
import simplejpeg

from lathe.errors import BadPicture
from lathe.v1 import inference_pb2
from lathe_server.vision import Detector, EncodedPicture
from tests.calls import channel, inference
from tests.conftest import RunningServer
from tests.pictures import jpeg, png, scene, with_orientation

SMALL = scene(48, 40)
WHOLE = {
    "baseline": with_orientation(jpeg(SMALL), 6),
    "progressive": jpeg(SMALL, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "grey": jpeg(SMALL[..., 0]),
    "CMYK": bytes(simplejpeg.encode_jpeg(np.dstack((SMALL, SMALL[..., 0])), 90, "CMYK", "444")),
    "PNG": png(SMALL),
    "16-bit PNG": png(SMALL.astype(np.uint16) * 257),
}


def damaged(whole: bytes, seed: int) -> bytes:
    """One to eight bits flipped, half of the time within the headers."""
    dice = random.Random(seed)
    content = bytearray(whole)
    end = min(len(content), 700) if dice.random() < 0.5 else len(content)
    for _ in range(dice.randint(1, 8)):
        content[dice.randrange(end)] ^= 1 << dice.randrange(8)
    return bytes(content)


@pytest.mark.fault(19)
@pytest.mark.parametrize("kind", WHOLE)
def test_flipped_bits_are_refused_or_answered(detector: Detector, kind: str) -> None:
    answered = 0
    for seed in range(350):
        try:
            found = detector.detect(EncodedPicture(damaged(WHOLE[kind], seed))).detections
        except BadPicture:
            continue
        answered += 1
        assert np.isfinite(found.xyxy).all()
    assert 0 < answered < 350 or kind.endswith("PNG")  # a PNG's checksums catch nearly every flip


@pytest.mark.fault(19)
def test_flipped_bits_over_the_wire_harm_nobody(shared_server: RunningServer, spot_jpeg: bytes) -> None:
    codes = set()
    with channel(shared_server.grpc) as opened:
        for seed in range(60):
            content = damaged(list(WHOLE.values())[seed % len(WHOLE)], 1000 + seed)
            request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=content))
            codes.add(inference(opened).Detect.future(request).code().name)
        whole = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=spot_jpeg))
        assert len(inference(opened).Detect(whole).result.detections.score) == 1
    assert codes <= {"OK", "INVALID_ARGUMENT"}
