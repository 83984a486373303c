"""What the page is told, as JSON can hold it. Names in it are whatever clients made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lathe.errors import BadPicture
from lathe.repository import VariantRef
from lathe.v1 import control_pb2
from lathe_server.live.cameras import Camera, Shot
from lathe_server.vision.picture import read_header

MOST_BOXES = 100
"""Shown of one frame, the best ones."""
FRAMES_PATH = "/live/frames/"


def told_of(camera: Camera, frame: dict[str, Any] | None) -> dict[str, Any]:
    """One camera.

    Args:
        frame: as `told_of_frame`.
    """
    return {
        "id": camera.number,
        "kind": camera.kind,
        "stream": camera.stream,
        "model": camera.model,
        "fps": _rounded(camera.frames_per_second, 2),
        "dropped_share": _rounded(camera.dropped_share, 4),
        "failed_share": _rounded(camera.failed_share, 4),
        "silent_seconds": round(camera.silent_seconds, 1) if camera.is_silent else None,
        "frame": frame,
    }


def told_of_frame(shot: Shot, classes: Sequence[str], prefix: str, max_pixels: int) -> dict[str, Any]:
    """A camera's frame with its boxes: left, top, right, bottom in pixels of the upright picture, score, class.

    Args:
        prefix: of pictures' names, so that those of a server before are no others.
    """
    result, found = shot.result, shot.answer.detections[:MOST_BOXES]
    width, height = _upright_wh(shot, max_pixels)
    return {
        "picture": f"{FRAMES_PATH}{prefix}-{shot.number}" if shot.picture else None,
        "width": width,
        "height": height,
        "index": result.frame.index,
        "variant": result.ref.variant if result.ref else "",
        "version": result.ref.version if result.ref else 0,
        "degraded": result.degraded,
        "age_ms": round(result.age_seconds * 1e3, 2),
        "detections": len(shot.answer.detections),
        "boxes": [
            [*(round(side, 1) for side in box), round(score, 3), classes[kind] if 0 <= kind < len(classes) else ""]
            for box, score, kind in zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
        ],
    }


def _upright_wh(shot: Shot, max_pixels: int) -> tuple[int, int]:
    """Its picture has been judged, so it has a header."""
    try:
        return read_header(shot.picture, max_pixels).upright_wh if shot.picture else (4, 3)
    except BadPicture:  # judged with another limit
        return 4, 3


def classes_of(
    cameras: Iterable[Camera], ask: Callable[[VariantRef], Sequence[str]]
) -> dict[VariantRef, Sequence[str]]:
    """The classes of all variants whose boxes are shown."""
    refs = {camera.shot.result.ref for camera in cameras if camera.shot}
    return {ref: ask(ref) for ref in refs if ref}


def told_of_event(event: control_pb2.Event) -> dict[str, Any]:
    return {
        "at": event.at.ToMilliseconds(),
        "kind": control_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_").lower().replace("_", " "),
        "model": event.model,
        "text": event.text,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
