"""Quantiles of many values in little space: counts by the value's logarithm (after DDSketch, VLDB 2019). Pure.

A quantile is within `ACCURACY` of a value that was added; sketches of parts add up to that of the whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import msgspec

ACCURACY = 0.02
_GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
_LOG = math.log(_GAMMA)
_LEAST = 1e-6
"""What is smaller counts as nought."""
_ZERO = -(1 << 30)


class Sketch:
    """Values are not negative."""

    def __init__(self, counts: Mapping[int, int] = {}) -> None:
        self._counts = Counter(counts)

    @classmethod
    def decode(cls, data: bytes) -> Sketch:
        """What `encode` gave."""
        return cls(msgspec.msgpack.decode(data, type=dict[int, int]))

    def encode(self) -> bytes:
        """For a file."""
        return msgspec.msgpack.encode(dict(self._counts))

    def add(self, value: float) -> None:
        """One value."""
        self._counts[_ZERO if value < _LEAST else math.ceil(math.log(value) / _LOG)] += 1

    def merge(self, other: Sketch) -> None:
        """All that the other has."""
        self._counts.update(other._counts)

    def quantile(self, share: float) -> float | None:
        """The value that `share` (0..1) of all do not exceed; None where there is none."""
        rank = share * (self._counts.total() - 1)
        seen = 0
        for index in sorted(self._counts):
            seen += self._counts[index]
            if seen > rank:
                return 0.0 if index == _ZERO else 2 * _GAMMA**index / (_GAMMA + 1)
        return None
