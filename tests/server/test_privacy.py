"""What is in a frame stays in it: no log, metric or error ever repeats it; and no name forges a line of the log."""

from __future__ import annotations

import re
import zlib

import numpy as np
import onnx
import pytest

from lathe.errors import LatheError
from lathe.repository import Repository
from lathe.v1 import control_pb2, inference_pb2
from tests.calls import DETECT, channel, control, exposition, inference, refusal, send_bytes, stream
from tests.calls import config as stream_config
from tests.conftest import RunningServer
from tests.models import bright_spots, card_for
from tests.pictures import chunk, jpeg, png, scene, segment, with_segments

MARKER = "planted-marker-8f3c"
PLANTED = MARKER.encode()
FORGED = "\n2026-01-01 00:00:00,000 INFO lathe all is well"


def pictures() -> list[bytes]:
    """Every way to put words into a picture, whole and broken."""
    photo = jpeg(scene())
    planted = [
        PLANTED,
        with_segments(photo, segment(0xFE, PLANTED)),
        with_segments(photo, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + PLANTED)),
        with_segments(photo, segment(0xE2, b"ICC_PROFILE\0\1\1" + PLANTED)),
        png(scene(), extra=chunk(b"tEXt", b"Comment\0" + PLANTED)),
        png(scene(), extra=chunk(b"iCCP", PLANTED + b"\0\0" + zlib.compress(b"no profile"))),
        png(scene(), extra=chunk(b"zTXt", PLANTED + b"\0\0" + b"not compressed")),
        png(scene(), extra=chunk(PLANTED[:4], PLANTED)),
    ]
    return planted + [whole[:-20] for whole in planted] + [whole[:40] + PLANTED + whole[40:] for whole in planted]


@pytest.mark.fault(87)
def test_a_marker_in_a_frame_appears_nowhere(server: RunningServer) -> None:
    said: list[str] = []
    with channel(server.grpc) as opened:
        for content in pictures():
            request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=content))
            call = inference(opened).Detect.future(request)
            said.append(f"{call.code()} {call.details()}")
        raw = inference_pb2.RawPicture(width=9, height=9, format=inference_pb2.PIXEL_FORMAT_RGB8, pixels=PLANTED)
        frames = [inference_pb2.Frame(encoded=PLANTED), inference_pb2.Frame(index=1, raw=raw)]
        messages = [stream_config(), *(inference_pb2.DetectStreamRequest(frame=frame) for frame in frames)]
        said += [result.error.message for result in stream(opened, messages)]
        said.append(refusal(lambda: send_bytes(opened, DETECT, b"\x0a\xff" + PLANTED)).details() or "")
    said += [exposition(server), server.log.read_text()]
    assert all(said)
    assert not any(MARKER in words or MARKER[:8] in words for words in said)


@pytest.mark.fault(88)
def test_no_name_forges_a_line_of_the_log(server: RunningServer, repository: Repository) -> None:
    model = onnx.load_from_string(bright_spots())
    model.graph.node[4].op_type = f"Divine{FORGED}"
    model.graph.node[4].name = FORGED
    repository.publish(card_for("spots", "forger"), model.SerializeToString())
    weights = [control_pb2.RouteWeight(variant="forger", weight=1)]
    requests = [
        control_pb2.SetRouteRequest(model="spots", weights=weights, author=FORGED, reason=FORGED),
        control_pb2.SetRouteRequest(model=f"spots{FORGED}", weights=weights),
        control_pb2.SetRouteRequest(model="spots", weights=[control_pb2.RouteWeight(variant=FORGED, weight=1)]),
    ]
    with channel(server.control) as opened, channel(server.grpc) as frames:
        for request in requests:
            assert "\n" not in refusal(lambda r=request: control(opened).SetRoute(r)).details()
        refusal(lambda: list(stream(frames, [stream_config(stream_id=FORGED)])))
        refusal(lambda: list(stream(frames, [stream_config(f"spots{FORGED}")])))
    assert not re.search(r"^2026-01-01 00:00:00", server.log.read_text(), re.MULTILINE)
    assert "Divine" in server.log.read_text()  # said, within its own line


def test_an_errors_detail_is_one_line() -> None:
    assert LatheError("it failed", detail=f"first\n\tsecond{FORGED}").detail.count("\n") == 0


@pytest.mark.fault(19, 87)
def test_an_error_of_ours_reaches_the_caller_as_an_id_only(server: RunningServer, repository: Repository) -> None:
    """A network whose outputs the decoder cannot digest, though its warm-up went well."""
    model = onnx.load_from_string(bright_spots())
    cells = onnx.numpy_helper.from_array(np.array([1, 1, 32, 40], np.int64), "cells_of_the_serving_size")
    model.graph.initializer.append(cells)
    model.graph.node[4].CopyFrom(onnx.helper.make_node("Reshape", ["cells", cells.name], ["heatmap"]))
    repository.publish(card_for("spots", "stiff"), model.SerializeToString())
    with server.client() as client:
        client.set_route("spots", {"stiff": 1})
        flat = jpeg(scene(640, 100))  # another canvas than the serving size
        request = inference_pb2.DetectRequest(model="spots", frame=inference_pb2.Frame(encoded=flat))
        with channel(server.grpc) as opened:
            error = refusal(lambda: inference(opened).Detect(request))
        assert error.code().name == "INTERNAL"
        name = re.fullmatch(r"internal error ([0-9a-f]{12})", error.details())
        assert name
        assert name[1] in server.log.read_text()
        assert client.detect("spots", jpeg(scene(640, 512))).answered
