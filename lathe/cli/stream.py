"""lathe stream: a video through the server, to JSON lines or an annotated video."""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from lathe.exchange import Result
    from lathe.playlist import Playlist
    from lathe.video import VideoFrame, VideoSource


def add_command(commands: Any) -> None:
    parser = commands.add_parser("stream", help="send a video to the server", description="Prints a JSON line a frame.")
    parser.add_argument("source", help="video file, folder of videos, camera (0 or /dev/video0), or URL (rtsp://…)")
    parser.add_argument("--model", default="face", help="(default %(default)s)")
    parser.add_argument("--variant", default="", help="pin a variant; default: follow the route")
    parser.add_argument("--server", default="127.0.0.1:8500", metavar="HOST:PORT", help="(default %(default)s)")
    parser.add_argument("--stream-id", default="", help="name of the camera (default: the source)")
    parser.add_argument("--max-age", type=float, default=0.0, metavar="SECONDS", help="drop frames older than this")
    parser.add_argument("--live", action="store_true", help="play files at their own pace, and drop what comes late")
    parser.add_argument("--loop", action="store_true", help="begin files again at their end, until interrupted")
    parser.add_argument(
        "--cameras",
        type=int,
        default=1,
        metavar="N",
        help="play files as so many cameras at once, named NAME-1 and on; of a folder each begins with another video",
    )
    parser.add_argument("--high-priority", action="store_true", help="its frames' turns come before other streams'")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="stop after so many frames of a camera")
    parser.add_argument(
        "--reconnect",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="look for the server so long after the connection was lost; 0 never, inf always (default %(default)g)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write a video with the boxes drawn instead of JSON lines"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """
    Raises:
        LatheError: of the camera that fails first.
    """
    if options.frames < 0:
        raise InvalidInput("--frames must not be negative")
    if not options.reconnect >= 0:
        raise InvalidInput("--reconnect must not be negative")
    if options.cameras < 1:
        raise InvalidInput("--cameras must be at least 1")
    if options.cameras > 1 and options.output:
        raise InvalidInput("--output takes one camera")
    if not is_recording(options.source) and (options.loop or options.cameras > 1):
        raise InvalidInput("--loop and --cameras are for video files and folders of them")
    if options.cameras == 1:
        play(options, 0)
        return
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def camera(number: int) -> None:
        try:
            play(options, number)
        except Exception as error:  # noqa: BLE001  the main thread raises it
            ended.put(error)
        else:
            ended.put(None)

    for number in range(options.cameras):
        # Daemons: whoever interrupts the command waits for no camera.
        threading.Thread(target=camera, args=(number,), daemon=True).start()
    for _ in range(options.cameras):
        if error := ended.get():
            raise error


def is_recording(source: str) -> bool:
    """Whether it can be played again: a file or a folder, no camera or network stream."""
    from lathe.video import is_video

    path = Path(source)
    return path.is_dir() or (is_video(path) and path.exists())


def play(options: argparse.Namespace, number: int) -> None:
    """One camera, from its first frame to its last.

    Args:
        number: of the camera, from 0.
    """
    from lathe.annotate import AnnotatedVideo
    from lathe.client import Client
    from lathe.playlist import Playlist, rotated, videos_of
    from lathe.source_name import describe
    from lathe.video import VideoSource

    recorded = is_recording(options.source)
    live = options.live or not recorded
    waiting: deque[VideoFrame] = deque()

    def frames(source: VideoSource | Playlist) -> Iterator[tuple[bytes, float]]:
        start = time.monotonic()
        for frame in source:
            if options.frames and frame.index >= options.frames:
                return
            if live and recorded:
                start, pause = pace(start, frame.seconds, time.monotonic())
                time.sleep(pause)
            waiting.append(frame)
            yield frame.jpeg, time.time() if recorded else frame.captured_at

    name = options.stream_id or describe(options.source)
    stream_id = f"{name}-{number + 1}" if options.cameras > 1 else name
    opened: VideoSource | Playlist = (
        Playlist(rotated(videos_of(Path(options.source)), number), loop=options.loop)
        if recorded
        else VideoSource(options.source)
    )
    with opened as source, Client(options.server) as client, AnnotatedVideo(options.output) as video:
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
                told = {"stream": stream_id} if options.cameras > 1 else {}
                sys.stdout.write(json.dumps(told | as_line(frame, result)) + "\n")  # one write: cameras share it
                sys.stdout.flush()


def pace(start: float, seconds: float, now: float) -> tuple[float, float]:
    """When the film began, and how long to wait for a frame that is due `seconds` later.

    A player that is late, because the next file had to be opened, goes on from now: a camera does not hurry.

    >>> pace(start=10.0, seconds=2.0, now=11.5)
    (10.0, 0.5)
    >>> pace(start=10.0, seconds=2.0, now=15.0)
    (13.0, 0.0)
    """
    start = max(start, now - seconds)
    return start, max(0.0, start + seconds - now)  # of sums in floating point, 0 may come out below 0


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
