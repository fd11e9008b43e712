"""List the streams of a log, each where it begins, while segments may be replaced by rewritten ones."""

from __future__ import annotations

from collections.abc import Iterator

from stepstore.errors import RecoveryFailed
from stepstore.log.index import LogIndex
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.live_index import STREAM_DELETED, StreamEntry


def streams_of(index: LogIndex) -> Iterator[bytes]:
    """Every stream that is not deleted, in the order of first appearance, as of this call. May read from the
    medium."""
    return _streams(index, index.segments[-1].end_lsn if index.segments else 0)


def _streams(index: LogIndex, upto: int) -> Iterator[bytes]:
    after = 0
    while after < upto:  # by LSN, since segments may be replaced while the caller does something else
        version, segments = index.version, index.segments
        number = index.segment_of_lsn(after + 1, segments)
        try:
            found = _beginning_in(index, segments, number, after, upto)
        except RecoveryFailed as error:
            if not index.was_replaced(version, error):
                raise
            continue
        yield from [stream for _lsn, stream in sorted(found)]
        if number == len(segments) - 1:
            return
        after = segments[number].end_lsn


def _beginning_in(
    index: LogIndex, segments: tuple[IndexedSegment, ...], number: int, after: int, upto: int
) -> list[tuple[int, bytes]]:
    segment = segments[number]
    index.ask(segment, lambda its: its.check_streams())
    return [
        (entry.first_lsn, entry.stream)
        for entry in index.ask(segment, lambda its: list(its.streams()))
        if after < entry.first_lsn <= upto
        and not entry.flags & STREAM_DELETED
        and _begins_here(index, segments, number, entry)
    ]


def _begins_here(index: LogIndex, segments: tuple[IndexedSegment, ...], number: int, entry: StreamEntry) -> bool:
    """Whether no earlier segment has the stream, and no later one deletes it."""

    def found_in(segment: IndexedSegment) -> StreamEntry | None:
        if not segment.index.might_hold(entry.stream):
            return None
        return index.ask(segment, lambda its: its.find(entry.stream))

    if any(found_in(segment) for segment in segments[:number]):
        return False
    return not any(
        (later := found_in(segment)) and later.flags & STREAM_DELETED
        for segment in segments[number + 1 :]
        if segment.index.tombstones
    )
