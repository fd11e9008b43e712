"""Places of a file, read together where they are near each other: a call for each costs more than the bytes between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

_NEAR = 2 * 1024
_MOST = 1024 * 1024

Place = tuple[int, int]
"""(offset, size)"""


Span = tuple[int, int, int]
"""(offset, size, how many places): a piece of a file that holds the next places of some, and what little lies between
them."""


def spans_of(places: Sequence[Place]) -> list[Span]:
    """The spans that hold these places, in their order: at most a mebibyte each, unless one place is larger."""
    found: list[Span] = []
    begin = end = many = 0
    for offset, size in places:
        if many and end <= offset <= end + _NEAR and offset + size - begin <= _MOST:
            many += 1
        else:
            if many:
                found.append((begin, end - begin, many))
            begin, many = offset, 1
        end = offset + size
    if many:
        found.append((begin, end - begin, many))
    return found


def read_places(read: Callable[[int, int], bytes], places: Sequence[Place], spans: Sequence[Span]) -> Iterator[bytes]:
    """The bytes of each place, fewer where the file ends; `spans` are those of the same places.

    Raises: `OSError`, in the turn of the place that cannot be read: what is between two places does no harm to either.
    """
    at = 0
    for offset, size, many in spans:
        here = places[at : at + many]
        at += many
        try:
            data = read(offset, size)
        except OSError:
            if many == 1:
                raise
            for place in here:
                yield read(*place)
            continue
        if many == 1:
            yield data
            continue
        for begin, length in here:
            begin -= offset
            yield data[begin : begin + length]
