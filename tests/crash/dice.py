"""Where the decisions of a random program come from: a seed, or the bytes that a fuzzer makes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Dice(Protocol):
    """See the module."""

    def below(self, bound: int) -> int:
        """A number in range(bound); bound is at least 1."""
        ...

    def blob(self, size: int) -> bytes:
        """At most `size` bytes."""
        ...


class RandomDice:
    """Dice from a seed."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)

    def blob(self, size: int) -> bytes:
        return self._random.randbytes(self._random.randrange(size + 1))


class BytesDice:
    """Dice from given bytes; zeros once they are used up."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found + bytes(size - len(found))

    def below(self, bound: int) -> int:
        return int.from_bytes(self._take(-(-(bound - 1).bit_length() // 8))) % bound

    def blob(self, size: int) -> bytes:
        return self._take(self.below(size + 1))


def pick(dice: Dice, items: Sequence[T]) -> T:
    """One of several."""
    return items[dice.below(len(items))]


def hostile_number(dice: Dice, near: int, bits: int) -> int:
    """A number of so many bits, likely to be at an edge of something or beside `near`."""
    top = (1 << bits) - 1
    kind = dice.below(5)
    if kind == 0:
        return (near + dice.below(17) - 8) & top
    if kind == 1:
        return ((1 << dice.below(bits)) + dice.below(3) - 1) & top
    if kind == 2:
        return (top - dice.below(300)) & top
    if kind == 3:
        return dice.below(300) & top
    return dice.below(top + 1)
