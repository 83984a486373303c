"""A gallery whose process is killed at random moments, over and over: `make gallery-kills`.

    python -m tests.gallery_kills [ROUNDS [SEED]]

In each round a child opens the gallery, enrols and deletes, and says of each change that it begins and that it is
acknowledged; after so many words and some milliseconds it is killed. Then the gallery is opened and held against what
was said.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lathe.v1 import card_pb2
from lathe_server.gallery.gallery import Gallery
from lathe_server.gallery.probe import Probe
from lathe_server.gallery.store import Store

KEY = bytes(range(32))
DIMENSIONS = 128
MADE_BY = card_pb2.Embedding(space="face-embed/0123456789abcdef", dimensions=DIMENSIONS)
ROUNDS_OF_A_FILE = 40
MOST_WORDS, LONGEST_SECONDS = 80, 0.02
PATIENCE_SECONDS = 20.0
DELETED_SHARE = 0.3


def vector_of(number: int) -> NDArray[np.float32]:
    """What the person of a number looks like."""
    vector = np.random.default_rng(number).standard_normal(DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class Truth:
    """What must be in a file, and what may be either way: the change that was on its way when the process died."""

    there: set[int] = field(default_factory=set)
    perhaps: set[int] = field(default_factory=set)

    def hear(self, said: str, tally: Counter[str]) -> None:
        for line in said.splitlines():
            kind, number = line[0], int(line[1:])
            if kind in "?!":  # begins to enrol, begins to delete
                self.there.discard(number)
                self.perhaps.add(number)
            else:
                self.perhaps.discard(number)
                tally["enrolled" if kind == "+" else "deleted"] += 1
                if kind == "+":
                    self.there.add(number)


def change_until_killed(path: Path, first: int, there: list[int], say: int) -> None:
    gallery = Gallery(Store(path, KEY))
    dice, there = random.Random(first), list(there)
    for number in range(first, first + 1_000_000):
        os.write(say, b"?%d\n" % number)
        gallery.enroll(str(number), Probe(vector_of(number), MADE_BY))
        os.write(say, b"+%d\n" % number)
        there.append(number)
        if dice.random() < DELETED_SHARE:
            gone = there.pop(dice.randrange(len(there)))
            os.write(say, b"!%d\n" % gone)
            gallery.delete(str(gone))
            os.write(say, b"-%d\n" % gone)


def killed_child(path: Path, first: int, there: list[int], words: int, seconds: float) -> str:
    """What a child has said before it was killed, so many seconds after so many words of it."""
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change_until_killed(path, first, there, say)
        finally:
            os._exit(3)
    os.close(say)
    said, end = b"", time.monotonic() + PATIENCE_SECONDS
    while said.count(b"\n") < words and time.monotonic() < end:
        if select.select([hear], [], [], PATIENCE_SECONDS)[0]:
            said += os.read(hear, 65536)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(hear, 65536):
        said += more
    os.close(hear)
    assert os.WIFSIGNALED(status), "the child ended by itself"
    return said.decode()


def check(path: Path, truth: Truth) -> None:
    """Opens the gallery, as a server does, and holds it against what was said."""
    gallery = Gallery(Store(path, KEY))
    found = {int(record.subject): record.vector for record in gallery.export()}
    assert truth.there <= found.keys(), f"acknowledged, and lost: {truth.there - found.keys()}"
    assert found.keys() <= truth.there | truth.perhaps, f"deleted, and back: {found.keys() - truth.there}"
    for number, vector in found.items():
        np.testing.assert_array_almost_equal_nulp(vector, vector_of(number), nulp=4)
    truth.there, truth.perhaps = set(found), set()
    gallery.close()


def kill_rounds(folder: Path, rounds: int, seed: int) -> Counter[str]:
    """Fails where anything acknowledged is lost, or anything deleted comes back."""
    dice = random.Random(seed)
    tally: Counter[str] = Counter()
    truth, path = Truth(), folder
    for number in range(rounds):
        if number % ROUNDS_OF_A_FILE == 0:  # so that making a file is interrupted, too
            path, truth = folder / f"{number}.gallery", Truth()
        before = tally.total()
        words = dice.choice((0, 1, dice.randrange(MOST_WORDS)))
        seconds = dice.uniform(0, LONGEST_SECONDS)
        said = killed_child(path, number * 1_000_000, sorted(truth.there), words, seconds)
        truth.hear(said, tally)
        tally["cut short"] += bool(truth.perhaps)
        tally["before any change"] += tally.total() == before
        tally["kills"] += 1
        check(path, truth)
    return tally


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    rounds, seed = words[0] if words else 1000, words[1] if len(words) > 1 else 0
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill_rounds(Path(folder), rounds, seed)))
