"""Latencies as HdrHistograms: whole microseconds from 1 µs to ten minutes, three significant digits.

In files they are HdrHistogram's own compressed base64 (V2), which its tools for other languages read.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lathe.errors import InvalidInput

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

LOWEST_US, HIGHEST_US, DIGITS = 1, 600_000_000, 3
_NO_HISTOGRAM = (binascii.Error, zlib.error, ValueError, IndexError, OverflowError, RuntimeError)
"""What the decoder raises beside its own errors."""


def histogram(values_us: NDArray[Any] | Iterable[float] = ()) -> HdrHistogram:
    """Of values in microseconds; what is outside of the range counts at its end."""
    from hdrh.histogram import HdrHistogram  # not loaded where no load is driven

    made = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
    values = np.asarray(values_us if isinstance(values_us, np.ndarray) else list(values_us), np.float64)
    distinct, counts = np.unique(np.clip(np.rint(values), LOWEST_US, HIGHEST_US).astype(np.int64), return_counts=True)
    for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        made.record_value(value, count)
    return made


def encoded(values_us: NDArray[Any] | Iterable[float] | HdrHistogram) -> str:
    """Base64 of a histogram, or of one of these values."""
    made = values_us if hasattr(values_us, "encode") else histogram(values_us)
    return str(made.encode(), "ascii")


def decoded(text: str) -> HdrHistogram:
    """
    Raises:
        InvalidInput: it is no histogram, or one of another range.
    """
    from hdrh.codec import HdrCookieException, HdrLengthException
    from hdrh.histogram import HdrHistogram

    try:
        made = HdrHistogram.decode(text)
    except (HdrCookieException, HdrLengthException, *_NO_HISTOGRAM) as error:
        raise InvalidInput("a histogram is not HdrHistogram's base64", detail=str(error)) from error
    found = (made.lowest_trackable_value, made.highest_trackable_value, made.significant_figures)
    if found != (LOWEST_US, HIGHEST_US, DIGITS):
        raise InvalidInput(f"a histogram is of {LOWEST_US} to {HIGHEST_US} µs with {DIGITS} digits")
    return made
