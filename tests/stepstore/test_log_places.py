"""Places of a file that are near each other are read together, and what is read is what reading each gives."""

from __future__ import annotations

import errno
import random

import pytest

from stepstore.log.places import Place, read_places, spans_of
from tests.stepstore.log_lab import payload

CONTENT = payload(300_000)


def read(offset: int, size: int) -> bytes:
    return CONTENT[offset : offset + size]


def places_by_chance(dice: random.Random) -> list[Place]:
    """As an index names them: mostly one behind the other, some far, some empty, and some where the index lies."""
    at, found = 0, list[Place]()
    for _ in range(dice.randint(0, 40)):
        at += dice.choice([-500, 0, 0, 9, 400, 2_048, 2_049, 30_000])
        size = dice.choice([0, 1, 300, 300, 5_000])
        found.append((max(at, 0), size))
        at = max(at, 0) + size
    return found


@pytest.mark.parametrize("seed", range(200))
def test_each_place_has_the_bytes_that_reading_it_alone_gives(seed: int) -> None:
    places = places_by_chance(random.Random(seed))
    spans = spans_of(places)
    assert list(read_places(read, places, spans)) == [read(*place) for place in places]
    assert sum(many for _offset, _size, many in spans) == len(places)
    assert sum(size for _offset, size, _many in spans) <= sum(size for _offset, size in places) + 2_048 * len(places)


def test_a_span_ends_where_more_lies_between_than_a_call_costs() -> None:
    assert spans_of([]) == []
    assert spans_of([(100, 50), (150, 5), (2_203, 7), (4_259, 1)]) == [(100, 2_110, 3), (4_259, 1, 1)]
    assert spans_of([(100, 50), (140, 20), (90, 5)]) == [(100, 50, 1), (140, 20, 1), (90, 5, 1)]


def test_a_span_is_a_mebibyte_at_most_unless_one_place_is_larger() -> None:
    half, whole = 512 * 1024, 1024 * 1024
    assert spans_of([(0, half), (half, half), (whole, 1)]) == [(0, whole, 2), (whole, 1, 1)]
    assert spans_of([(0, 5 * whole), (5 * whole, 1)]) == [(0, 5 * whole, 1), (5 * whole, 1, 1)]


def test_a_place_that_cannot_be_read_says_so_in_its_turn_and_what_lies_between_two_says_nothing() -> None:
    places = [(0, 10), (20, 10), (40, 10)]

    def bad_from_15_to(end: int, offset: int, size: int) -> bytes:
        if offset < end and offset + size > 15:
            raise OSError(errno.EIO, "Input/output error")
        return read(offset, size)

    def attempt(end: int) -> list[bytes]:
        found: list[bytes] = []
        with pytest.raises(OSError, match="Input/output error"):
            for piece in read_places(lambda *place: bad_from_15_to(end, *place), places, spans_of(places)):
                found.append(piece)
        return found

    pieces = read_places(lambda *place: bad_from_15_to(20, *place), places, spans_of(places))
    assert list(pieces) == [read(*place) for place in places]
    assert attempt(21) == [read(0, 10)]
    assert attempt(41) == [read(0, 10)]
    assert list(read_places(read, [(299_990, 20), (300_020, 9)], [(299_990, 39, 2)])) == [CONTENT[-10:], b""]
