"""Vectors of facts, and how alike a query is to them."""

from __future__ import annotations

import base64
import binascii
import importlib
import math
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from operator import mul
from typing import Any

COMPARED_WITHOUT_NUMPY = 2_000
"""Facts that a query is compared with where NumPy is not installed; beyond it only those that words have found."""


@cache
def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def packed(vector: Sequence[float]) -> str:
    """A vector as it is stored: of length 1, as 32-bit floats, least significant byte first, in base64."""
    length = math.sqrt(sum(number * number for number in vector))
    scaled = array("f", [number / length if length else 0.0 for number in vector])
    if _BIG_ENDIAN:
        scaled.byteswap()
    return base64.b64encode(scaled.tobytes()).decode()


_BIG_ENDIAN = array("H", [1]).tobytes()[0] == 0


class Vectors:
    """Facts are numbers. What was removed leaves a row of zeros."""

    def __init__(self) -> None:
        self.dimensions: int | None = None
        self._values = array("f")
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def add(self, number: int, stored: str) -> None:
        """Add the vector of a fact. What cannot be compared with those before (it has another length) is left out."""
        try:
            numbers = base64.b64decode(stored, validate=True)
        except binascii.Error:
            return
        vector = array("f")
        vector.frombytes(numbers[: len(numbers) // 4 * 4])
        if _BIG_ENDIAN:
            vector.byteswap()
        if self.dimensions is None:
            self.dimensions = len(vector)
        if len(vector) == self.dimensions and vector:
            self._rows[number] = len(self._values) // self.dimensions
            self._values.extend(vector)

    def remove(self, number: int) -> None:
        """Take the vector of a fact out again, if there is one."""
        row = self._rows.pop(number, None)
        if row is not None and self.dimensions is not None:
            begin = row * self.dimensions
            self._values[begin : begin + self.dimensions] = array("f", bytes(4 * self.dimensions))

    def similarities(self, query: Sequence[float], found: Iterable[int]) -> dict[int, float]:
        """The cosines of facts, those that `found` names at least; below 0 counts as 0."""
        length = math.sqrt(sum(number * number for number in query))
        if not self._rows or not length:
            return {}
        wanted = array("f", [number / length for number in query])
        numpy = _numpy()
        if numpy is not None:
            matrix = numpy.frombuffer(self._values, dtype=numpy.float32).reshape(-1, self.dimensions)
            cosines = numpy.maximum(matrix @ numpy.frombuffer(wanted, dtype=numpy.float32), 0).tolist()
            return {number: cosines[row] for number, row in self._rows.items()}
        compared: Iterable[int] = self._rows
        if len(self._rows) > COMPARED_WITHOUT_NUMPY:
            compared = [number for number in found if number in self._rows]
        return {number: max(self._cosine(number, wanted), 0.0) for number in compared}

    def _cosine(self, number: int, wanted: array[float]) -> float:
        size = len(wanted)
        begin = self._rows[number] * size
        return math.fsum(map(mul, self._values[begin : begin + size], wanted))
