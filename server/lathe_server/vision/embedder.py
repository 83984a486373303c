"""Faces to embeddings with one loaded network: what the server and evaluation run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput
from lathe_server.limits import MAX_PIXELS
from lathe_server.vision.align import align
from lathe_server.vision.decode import decode
from lathe_server.vision.detector import Network
from lathe_server.vision.picture import Picture, read_header

EMBEDDING = "embedding"
"""The output's name."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """An embedding network with all that surrounds it.

    Attributes:
        alignment: name of one of the `TEMPLATES`.
        size_wh: of the network's input.
        max_pixels: larger pictures are refused by their header.
    """

    network: Network
    alignment: str
    size_wh: tuple[int, int]
    max_pixels: int = MAX_PIXELS

    def embed(self, pixels: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """The embeddings of some of a picture's faces.

        Args:
            pixels: height × width × 3, RGB, of the whole picture.
            landmarks: N × 5 × 2 in these pixels; N may be 0.

        Returns:
            N × D, unit vectors; 0 × 0 where there is no face.

        Raises:
            InvalidInput: the landmarks of a face cannot be aligned by.
        """
        return self.embed_aligned(self.align(pixels, landmarks))

    def align(self, pixels: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """The network's input, N × H × W × 3, of these faces; arguments and errors as of `embed`."""
        faces = [align(pixels, one, self.alignment, self.size_wh) for one in landmarks]
        return np.stack(faces) if faces else np.empty((0, *self._shape), np.uint8)

    def embed_aligned(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The embeddings of faces that are aligned already, N × H × W × 3; one run of the network each, since more at
        a time are no faster on a processor."""
        found = [self.network.run(np.ascontiguousarray(one[None]))[EMBEDDING] for one in faces]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    def decode_aligned(self, picture: Picture) -> NDArray[np.uint8]:
        """A picture that is an aligned face, as 1 × H × W × 3.

        Raises:
            InvalidInput: it has another size than the network's input.
            BadPicture: it cannot be decoded.
        """
        header = read_header(picture, self.max_pixels)
        if header.upright_wh != self.size_wh:
            width, height = header.upright_wh
            raise InvalidInput(
                f"an aligned face must be {self.size_wh[0]} x {self.size_wh[1]} pixels, and this picture is "
                f"{width} x {height}; with its landmarks any picture is taken"
            )
        return np.ascontiguousarray(decode(picture, header, self.size_wh)[None])

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.size_wh[1], self.size_wh[0], 3)
