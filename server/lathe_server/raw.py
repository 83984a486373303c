"""`python -m lathe_server.raw`: how fast a variant is without a server around it.

The server's own decode → letterbox → infer → detections, in a loop: the yardstick that every
figure of the server is a share of.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from lathe.repository import Repository
from lathe_server.engine_names import DEFAULT, ENGINES
from lathe_server.engines import engine_builder
from lathe_server.engines.golden import golden_tensors
from lathe_server.loading import load_servable
from lathe_server.open_inference.encoding import from_raw, to_raw
from lathe_server.servable import Servable
from lathe_server.settings import Settings
from lathe_server.tensors import TensorAnswer, Tensors, datatype_of
from lathe_server.vision import EncodedPicture
from lathe_server.vision.detector import Stages


def measure(
    repository: Repository,
    model: str,
    variant: str,
    frames: list[bytes],
    seconds: float,
    *,
    threads: int = 1,
    engine: str = DEFAULT,
) -> dict[str, float]:
    """Frames a second, CPU milliseconds a frame, and median milliseconds of a frame and of its network.

    Args:
        frames: JPEG files, taken in turn; none for a network of tensors, which gets the ones that it was tried with, as
            the bytes of a request.
        threads: that do so, with the network shared between them as the server's workers share it.
    """
    settings = Settings()
    servable = load_servable(
        repository,
        repository.newest(model, variant),
        max_pixels=settings.max_frame_pixels,
        max_model_bytes=settings.max_model_bytes,
        build=engine_builder(engine, or_default=False),
    )
    pictures = [EncodedPicture(frame) for frame in frames]
    shapes = {one.input: one.dims for one in servable.card.golden_shapes}
    tensors = [
        (name, datatype_of(value), value.shape, to_raw(value))
        for name, value in golden_tensors(servable.engine.inputs, shapes).items()
    ]

    def one(number: int) -> Stages:
        if servable.detector:
            return servable.judge(pictures[number % len(pictures)]).stages
        return _tensors(servable, tensors)

    def loop(_: int) -> list[Stages]:
        stages: list[Stages] = []
        while time.perf_counter() - began < seconds:
            stages.append(one(len(stages)))
        return stages

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        stages = [one for found in pool.map(loop, range(threads)) for one in found]
    elapsed = time.perf_counter() - began
    return {
        "frames_per_second": len(stages) / elapsed,
        "cpu_ms_per_frame": (time.process_time() - cpu) / len(stages) * 1e3,
        "frame_ms": median(one.total for one in stages) * 1e3,
        "infer_ms": median(one.infer for one in stages) * 1e3,
    }


def _tensors(servable: Servable, tensors: Sequence[tuple[str, str, Sequence[int], bytes]]) -> Stages:
    """Bytes to arrays, the network, arrays to bytes."""
    began = time.perf_counter()
    inputs = {name: from_raw(name, datatype, shape, content) for name, datatype, shape, content in tensors}
    answer = servable.judge(Tensors(inputs))
    assert isinstance(answer, TensorAnswer), "tensors are answered by tensors"
    for value in answer.outputs.values():
        to_raw(value)
    around = time.perf_counter() - began - answer.stages.infer
    return Stages(around, 0.0, answer.stages.infer, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", type=Path)
    parser.add_argument("model")
    parser.add_argument("variant")
    parser.add_argument("frames", type=Path, nargs="?", help="folder of JPEGs; none for a network of tensors")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, default=DEFAULT)
    parser.add_argument("--pictures", type=int, help="take only the first ones (default: all)")
    options = parser.parse_args()
    files = sorted(options.frames.glob("*.jpg"))[: options.pictures] if options.frames else []
    frames = [path.read_bytes() for path in files]
    if options.frames and not frames:
        sys.exit(f"{options.frames} holds no JPEG")
    repository = Repository(options.repository)
    found = measure(
        repository,
        options.model,
        options.variant,
        frames,
        options.seconds,
        threads=options.threads,
        engine=options.engine,
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
