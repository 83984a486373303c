"""lathe stream: a video through the server, to JSON lines or an annotated video."""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from lathe.exchange import Result
    from lathe.video import VideoFrame


def add_command(commands: Any) -> None:
    parser = commands.add_parser("stream", help="send a video to the server", description="Prints a JSON line a frame.")
    parser.add_argument("source", help="video file, camera (0 or /dev/video0), or URL (rtsp://…)")
    parser.add_argument("--model", default="face", help="(default %(default)s)")
    parser.add_argument("--variant", default="", help="pin a variant; default: follow the route")
    parser.add_argument("--server", default="127.0.0.1:8500", metavar="HOST:PORT", help="(default %(default)s)")
    parser.add_argument("--stream-id", default="", help="name of the camera (default: the source)")
    parser.add_argument("--max-age", type=float, default=0.0, metavar="SECONDS", help="drop frames older than this")
    parser.add_argument("--live", action="store_true", help="play files at their own pace, and drop what comes late")
    parser.add_argument("--high-priority", action="store_true", help="its frames' turns come before other streams'")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="stop after so many frames")
    parser.add_argument(
        "--reconnect",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="look for the server so long after the connection was lost; 0 never (default %(default)g)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write a video with the boxes drawn instead of JSON lines"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    if options.frames < 0:
        raise InvalidInput("--frames must not be negative")
    if not options.reconnect >= 0:
        raise InvalidInput("--reconnect must not be negative")
    from lathe.annotate import AnnotatedVideo
    from lathe.client import Client
    from lathe.source_name import describe
    from lathe.video import VideoSource, is_video

    is_file = is_video(Path(options.source)) and Path(options.source).exists()
    live = options.live or not is_file
    waiting: deque[VideoFrame] = deque()

    def frames(source: VideoSource) -> Iterator[tuple[bytes, float]]:
        start = time.monotonic()
        for frame in source:
            if options.frames and frame.index >= options.frames:
                return
            if live and is_file:
                time.sleep(max(0.0, start + frame.seconds - time.monotonic()))
            waiting.append(frame)
            yield frame.jpeg, time.time() if is_file else frame.captured_at

    stream_id = options.stream_id or describe(options.source)
    with (
        VideoSource(options.source) as source,
        Client(options.server) as client,
        AnnotatedVideo(options.output) as video,
    ):
        for result in client.detect_stream(
            options.model,
            frames(source),
            stream_id=stream_id,
            variant=options.variant,
            max_age_seconds=options.max_age,
            high_priority=options.high_priority,
            live=live,
            reconnect_seconds=options.reconnect,
        ):
            frame = waiting.popleft()
            if options.output:
                video.add(frame, result)
            else:
                print(json.dumps(as_line(frame, result)), flush=True)


def as_line(frame: VideoFrame, result: Result) -> dict[str, Any]:
    """One frame's result as a JSON object."""
    found = result.detections
    return {
        "frame": frame.index,
        "seconds": round(frame.seconds, 4),
        "outcome": result.outcome,
        "variant": result.variant,
        "version": result.version,
        "age_ms": round(result.age_seconds * 1e3, 2),
        "stage_ms": {stage: round(seconds * 1e3, 3) for stage, seconds in result.stage_seconds.items()},
        "detections": [
            {
                "xyxy": [round(float(side), 1) for side in box],
                "score": round(float(score), 4),
                "class_id": int(class_id),
                "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in points],
            }
            for box, score, class_id, points in zip(
                found.xyxy, found.score, found.class_id, found.landmarks, strict=True
            )
        ],
        **({"degraded": True} if result.degraded else {}),
        **({"trace_id": result.trace_id} if result.trace_id else {}),
        **({"error": result.error} if result.error else {}),
    }
