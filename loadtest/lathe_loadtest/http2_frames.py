"""The frames of HTTP/2, as far as gRPC needs them: their numbers, one as bytes, and the headers of a request."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from hpack import Encoder

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
WIDE_WINDOW = 1 << 24
LARGEST_FRAME = 1 << 14
"""That the other side may send: no other size is agreed on."""

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 1, 2, 4, 14
INTERNAL = 13
CONNECTION_LOST = -1
"""Beside gRPC's statuses: of a call that ended with its connection, and of which the server has said nothing."""
RESET_STATUSES = {7: UNAVAILABLE, 8: CANCELLED, 11: 8, 12: 7}
"""gRPC's mapping of the reasons for which a stream is reset; all others are INTERNAL."""
HTTP_STATUSES = {"400": INTERNAL, "401": 16, "403": 7, "404": 12, "429": 14, "502": 14, "503": 14, "504": 14}
"""gRPC's mapping of what proxies answer that know no gRPC; all others are UNKNOWN."""

HEADER = struct.Struct(">HBBBI")  # length (3 bytes), type, flags, stream
ITEM = struct.Struct(">HI")
WORD = struct.Struct(">I")


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """
    >>> frame(PING, ACK, 0, bytes(8)).hex()
    '0000080601000000000000000000000000'
    """
    return HEADER.pack(len(body) >> 8, len(body) & 0xFF, kind, flags, stream) + body


def request_headers(path: str, authority: str, metadata: Sequence[tuple[str, str]] = (), scheme: str = "http") -> bytes:
    """A block that says the same on every call: no part of it goes into the peer's table."""
    fields = [(":method", "POST"), (":scheme", scheme), (":path", path), (":authority", authority)]
    fields += [("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "lathe-load"), *metadata]
    encoder = Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode([(key, value, True) for key, value in fields], huffman=False))[1:]
