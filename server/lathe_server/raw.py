"""`python -m lathe_server.raw`: how fast a variant is without a server around it.

The server's own decode → letterbox → infer → detections, in a loop on one thread: the yardstick that every
figure of the server is a share of.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

from lathe.repository import Repository
from lathe_server.servable import load_servable
from lathe_server.settings import Settings
from lathe_server.vision import EncodedPicture
from lathe_server.vision.detector import Stages


def measure(repository: Repository, model: str, variant: str, frames: list[bytes], seconds: float) -> dict[str, float]:
    """Frames a second, CPU milliseconds a frame, and median milliseconds of a frame and of its network.

    Args:
        frames: JPEG files, taken in turn.
    """
    settings = Settings()
    servable = load_servable(
        repository,
        repository.newest(model, variant),
        max_pixels=settings.max_frame_pixels,
        max_model_bytes=settings.max_model_bytes,
    )
    pictures = [EncodedPicture(frame) for frame in frames]
    stages: list[Stages] = []
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        stages.append(servable.detector.detect(pictures[len(stages) % len(pictures)]).stages)
    elapsed = time.perf_counter() - began
    return {
        "frames_per_second": len(stages) / elapsed,
        "cpu_ms_per_frame": (time.process_time() - cpu) / len(stages) * 1e3,
        "frame_ms": median(one.total for one in stages) * 1e3,
        "infer_ms": median(one.infer for one in stages) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("variant")
    parser.add_argument("frames", type=Path, help="folder of JPEGs")
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    frames = [path.read_bytes() for path in sorted(options.frames.glob("*.jpg"))]
    if not frames:
        sys.exit(f"{options.frames} holds no JPEG")
    found = measure(Repository(options.repository), options.model, options.variant, frames, options.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
