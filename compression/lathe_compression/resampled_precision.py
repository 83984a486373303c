"""Average precision under a bootstrap whose resamples several variants share."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from lathe.evidence import Interval, bootstrap
from lathe_compression.average_precision import PrecisionSamples


class ResampledPrecision:
    """Average precision of one variant, remembered for every resample of the pictures.

    The resamples are the same for all variants, so that any two can be paired without counting anew.
    """

    def __init__(self, samples: PrecisionSamples) -> None:
        self._samples = samples
        self._known: dict[bytes, float] = {}
        self.value = samples.ap50()

    def less(self, other: ResampledPrecision) -> Interval:
        """The paired difference of this and another one on the same pictures."""
        units = len(self._samples.picture_ids)
        return bootstrap(lambda counts: self._ap50(counts) - other._ap50(counts), units)

    def _ap50(self, counts: NDArray[np.int64]) -> float:
        key = hashlib.blake2b(counts.tobytes(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._samples.ap50(counts)
        return self._known[key]
