"""A picture as it arrives, and what its header says before anything is decoded."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from lathe.errors import BadPicture
from lathe_server.limits import MAX_PIXELS


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A whole JPEG or PNG file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RawPicture:
    """Uncompressed pixels, row by row from the top.

    Attributes:
        stride: bytes from one row to the next; 0 means tightly packed.
    """

    width: int
    height: int
    stride: int
    format: Literal["rgb8", "bgr8", "gray8"]
    pixels: bytes


Picture = EncodedPicture | RawPicture


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of a picture say of it.

    Attributes:
        width, height: as stored, before the orientation is applied.
        orientation: EXIF's number, 1 to 8; 1 is upright.
        channels: components a pixel as stored.
    """

    kind: Literal["jpeg", "png", "raw"]
    width: int
    height: int
    channels: int
    orientation: int = 1

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height as a viewer shows the picture."""
        if self.orientation >= 5:
            return self.height, self.width
        return self.width, self.height


def read_header(picture: Picture, max_pixels: int = MAX_PIXELS) -> Header:
    """Checks a picture without decoding it; some microseconds, whatever its size.

    Raises:
        BadPicture: not a JPEG, PNG or well-formed raw picture, or more than `max_pixels`.
    """
    if isinstance(picture, RawPicture):
        header = _raw_header(picture)
    elif picture.data.startswith(b"\xff\xd8\xff"):
        header = _jpeg_header(picture.data)
    elif picture.data.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _png_header(picture.data)
    elif not picture.data:
        raise BadPicture("the picture is empty")
    else:
        raise BadPicture("the picture is neither JPEG nor PNG; send one of these, or raw pixels")
    if header.width < 1 or header.height < 1:
        raise BadPicture(f"the picture is {header.width}×{header.height}; it needs at least 1×1")
    if header.width * header.height > max_pixels:
        raise BadPicture(f"the picture claims {header.width}×{header.height} pixels; at most {max_pixels} are decoded")
    return header


_CHANNELS = {"rgb8": 3, "bgr8": 3, "gray8": 1}


def _raw_header(raw: RawPicture) -> Header:
    channels = _CHANNELS[raw.format]
    row_bytes = raw.width * channels
    stride = raw.stride or row_bytes
    if stride < row_bytes:
        raise BadPicture(f"a stride of {stride} bytes is less than a row of {row_bytes}")
    needed = stride * (raw.height - 1) + row_bytes if raw.height else 0
    if not needed <= len(raw.pixels) <= max(needed, stride * raw.height):
        raise BadPicture(
            f"{raw.width}×{raw.height} {raw.format} with a stride of {stride} needs {needed} bytes; "
            f"{len(raw.pixels)} came"
        )
    return Header("raw", raw.width, raw.height, channels)


def _png_header(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise BadPicture("the PNG ends within its header")
    width, height, _depth, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour)
    if channels is None:
        raise BadPicture("the PNG's colour type does not exist")
    return Header("png", width, height, channels)


_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
MAX_CHUNKS = 100_000


def pixels_only(data: bytes) -> bytes:
    """A PNG without the chunks that do not change its pixels.

    Texts and profiles are compressed: a decoder would inflate 7 MB of them for 12 seconds, and print
    their names into the log.

    Raises:
        BadPicture: the file ends before its IEND chunk.
    """
    parts, at = [data[:8]], 8
    for _ in range(MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        following = at + 12 + length
        if not kind or following > len(data):
            raise BadPicture("the PNG is truncated")
        if kind in _PIXEL_CHUNKS:
            parts.append(data[at:following])
        if kind == b"IEND":
            return b"".join(parts)
        at = following
    raise BadPicture(f"the PNG has more than {MAX_CHUNKS} chunks")


MAX_SEGMENTS = 2000
"""JPEG segments that are walked: 10 MB of profiles are 160. A file of nothing else would hold the interpreter."""

MAX_SCANS = 64
"""Each scan costs a pass over the whole picture, however few bytes it has; encoders write about ten."""

_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_DECODABLE_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: all Huffman-coded
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}


def _jpeg_header(data: bytes) -> Header:
    """Walks the segments up to the frame header, skipping each by its length.

    Layout: ITU-T T.81, annex B.
    """
    orientation, at, end = 1, 2, len(data)
    for _ in range(MAX_SEGMENTS):
        if at + 4 > end:
            break
        if data[at] != 0xFF:
            raise BadPicture("the JPEG's segments do not follow each other")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        length = (data[at + 2] << 8) | data[at + 3]
        if length < 2:
            raise BadPicture("a JPEG segment is shorter than its own length field")
        if marker in _DECODABLE_FRAMES:
            if at + 10 > end:
                break
            depth, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            if depth != 8:
                raise BadPicture(f"the JPEG has {depth} bits a sample; only 8 are decoded")
            if components not in (1, 3, 4):
                raise BadPicture(f"the JPEG has {components} components; 1, 3 or 4 are decoded")
            if data.count(b"\xff\xda", at) > MAX_SCANS and _scans(data, at) > MAX_SCANS:
                raise BadPicture(f"the JPEG has more than {MAX_SCANS} scans")
            return Header("jpeg", width, height, components, orientation)
        if marker in _OTHER_FRAMES:
            raise BadPicture("the JPEG is lossless, hierarchical or arithmetic-coded; send Huffman-coded")
        if marker in (0xD9, 0xDA):
            raise BadPicture("the JPEG has no frame header")
        if marker == 0xE1 and orientation == 1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length
    raise BadPicture(f"the JPEG's frame header is missing, or behind more than {MAX_SEGMENTS} segments")


_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte nor a restart


def _scans(data: bytes, at: int) -> int:
    """Scans from the frame header to the end of the picture; what follows it (a phone's video, say) is not ours."""
    scans = 0
    for _ in range(MAX_SEGMENTS):
        found = _NEXT_MARKER.search(data, at)
        if not found or data[found.start() + 1] == 0xD9:
            return scans
        marker, at = data[found.start() + 1], found.end()
        scans += marker == 0xDA
        if marker not in _STANDALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    return MAX_SEGMENTS


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 where it is missing or makes no sense (EXIF 2.3, 4.6.4)."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return 1
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    if at + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, min(at + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", tiff, entry)
        if tag == 0x0112 and kind == 3:
            (value,) = struct.unpack_from(order + "H", tiff, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1
