"""People whom a server can enrol: their pictures, and what the networks of `faces` make of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from lathe.embeddings import Embeddings
from lathe_server.vision import EncodedPicture, Picture
from lathe_server.vision.decode import decode
from lathe_server.vision.picture import read_header
from tests.conftest import RunningServer, start_server
from tests.models import embedding_card
from tests.pictures import jpeg
from tests.server.faces import DETECTOR, EMBEDDER, NETWORK, OTHER, publish_faces

SPACE, OTHER_SPACE = (embedding_card("face-embed", "", network).embedding.space for network in (NETWORK, OTHER))
KEY = bytes(range(32))


def person(number: int, moment: int = 0, *, also: tuple[int, int] | None = None) -> bytes:
    """640 × 480, a face of random colours around a white spot, with a little noise of its moment.

    Args:
        also: left and top of another face's spot.
    """
    tiles = np.random.default_rng(number).choice([0, 110], (6, 8, 3))
    pixels = np.kron(tiles, np.ones((80, 80, 1), np.int64))
    pixels += np.random.default_rng([number, moment]).integers(0, 12, pixels.shape)
    for left, top in filter(None, ((320, 240), also)):
        pixels[top : top + 16, left : left + 16] = 255
    return jpeg(pixels.astype(np.uint8))


ANN, BOB, CAT = (person(number) for number in (0, 4, 6))
ANN_LATER, BOB_LATER, CAT_LATER = (person(number, 1) for number in (0, 4, 6))
"""Their similarities are at most 0.62, and 0.99 of the same person; the cards' thresholds are 0.8 and 0.9."""
NOBODY = jpeg(np.zeros((480, 640, 3), np.uint8))


def embedded(picture: bytes) -> Embeddings:
    """What the variant `a` makes of the face, in this process."""
    encoded: Picture = EncodedPicture(picture)
    header = read_header(encoded)
    landmarks = DETECTOR.detect(encoded).detections.landmarks[:1]
    vectors = EMBEDDER.embed(decode(encoded, header, header.upright_wh), landmarks)
    return Embeddings(vectors, SPACE, np.zeros(1, np.int64))


def publish_people(folder: Path) -> Path:
    """The folder of a repository with a pipeline, beside a gallery's key."""
    publish_faces(folder / "models")
    (folder / "key").write_bytes(KEY)
    (folder / "key").chmod(0o600)
    return folder / "models"


def serving(root: Path, *flags: str) -> AbstractContextManager[RunningServer]:
    """A server with a gallery, beside the repository."""
    folder = root.parent
    own = ("--gallery", str(folder / "people"), "--gallery-key", str(folder / "key"), *flags)
    return start_server(root, folder / "log", *own)
