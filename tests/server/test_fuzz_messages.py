"""Every public message, of any content, to a running server: no crash, no hang, no leak, nothing told of its inside.

The short form sends the same messages each time. `make fuzz` sends others for as many seconds as FUZZ_SECONDS says; it
prints the number of each round, and FUZZ_SEED begins with that round again.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import median

import numpy as np
import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from lathe.errors import LatheError
from lathe_server.gallery.sealing import write_key
from lathe_server.open_inference import open_inference_pb2 as pb
from tests.calls import channel, send_bytes
from tests.conftest import RunningServer, start_server
from tests.models import bright_spots
from tests.server.conftest import publish_open_models, publish_tensors
from tests.server.faces import publish_faces
from tests.server.fuzz import SUBJECTS, Fuzz
from tests.server.good_requests import MODELS
from tests.server.http_calls import STRAY
from tests.server.vitals import Vitals

SHORT_EXAMPLES, LONG_EXAMPLES = 8, 100
MOST_GROWTH = 8 << 20
"""Bytes by which the second half of a run may hold more than the first: caches fill up for some thousands of messages.
In ten minutes a leak of a third of a kilobyte a message is more than that."""
MOST_THREADS = 16
"""The same of threads, of pools that grow with what comes at once."""
ERROR = re.compile(r"internal error|Traceback| ERROR ")


def rounds(fuzz: Fuzz) -> None:
    """One for each that can be asked, or as many as the time allows."""
    seconds = float(os.environ.get("FUZZ_SECONDS", 0))
    first = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(2**32) if seconds else 0))
    end = time.monotonic() + seconds
    for number in itertools.count(first):
        if time.monotonic() > end if seconds else number == first + len(SUBJECTS):
            break
        print(f"FUZZ_SEED={number}:", fuzz.messages.total(), "messages so far;", *fuzz.held[-1:], flush=True)
        fuzz.round(number, LONG_EXAMPLES if seconds else SHORT_EXAMPLES)


def answers(server: RunningServer, picture: bytes) -> tuple[list[float], bytes]:
    """Those of a picture and of a tensor, on routes that are set for it."""
    request = pb.ModelInferRequest(model_name="double", raw_input_contents=[np.arange(16, dtype=np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    with server.client() as client, channel(server.grpc) as opened:
        for model in MODELS:
            with suppress(LatheError):  # there may be none
                client.stop_experiment(model)
            client.set_route(model, {"a" if model == "spots" else "plain": 1})
        found = client.detect("spots", picture).detections
        answer = send_bytes(opened, "/inference.GRPCInferenceService/ModelInfer", request.SerializeToString())
    return found.xyxy.ravel().tolist(), answer


def growth(held: list[Vitals], what: str) -> float:
    """From the first half of a run to the second."""
    values: list[int] = [getattr(one, what) for one in held]
    half = len(values) // 2
    return median(values[half:]) - median(values[:half])


def excerpt(log: str) -> str:
    """The first error of a log and what follows; empty where it tells of none."""
    found = ERROR.search(log)
    return log[max(0, found.start() - 300) : found.start() + 3000] if found else ""


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    """Of a server that may be left with any route; its `spots` has a variant that takes tensors, too."""
    folder = tmp_path_factory.mktemp("fuzz")
    set_hypothesis_home_dir(folder / "hypothesis")
    root = publish_open_models(folder)
    publish_faces(root)
    publish_tensors(root, "spots/plain", bright_spots())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "MALLOC_ARENA_MAX", "1"
        )  # otherwise each thread keeps what it once needed, which looks like a leak
        write_key(folder / "key")
        kept = ("--gallery", str(folder / "people"), "--gallery-key", str(folder / "key"), "--gallery-keep-faces", "on")
        with start_server(root, folder / "log", *kept) as running:
            yield Fuzz(running)


@pytest.mark.fault(2, 3, 7, 8, 9, 10)
def test_any_message_is_answered_or_refused_and_the_server_is_as_before(fuzz: Fuzz, spot_jpeg: bytes) -> None:
    before = answers(fuzz.server, spot_jpeg)
    try:
        rounds(fuzz)
    finally:
        print("", *fuzz.table(), *fuzz.held[:: len(fuzz.held) // 10 or 1], sep="\n")
    assert answers(fuzz.server, spot_jpeg) == before
    assert fuzz.answered >= SUBJECTS.keys() - {f"http {STRAY}"}, "what was only refused was not looked into"
    assert growth(fuzz.held, "descriptors") == 0
    assert growth(fuzz.held, "threads") <= MOST_THREADS
    assert growth(fuzz.held, "resident") <= MOST_GROWTH


@pytest.mark.fault(2)
def test_no_message_makes_the_log_tell_of_an_error(fuzz: Fuzz) -> None:
    if not fuzz.held:
        rounds(fuzz)
    assert fuzz.server.stop() == 0
    assert not excerpt(fuzz.server.log.read_text("utf-8"))
