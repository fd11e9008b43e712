"""Which records of which stream lie where, for the whole log, in packed arrays.

A run is one batch of one stream: contiguous payloads in one frame. The runs of a stream form a chain from the newest
back. Nothing here is a Python object per run, so a million runs cost no garbage-collector time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, DirectoryEntry

STREAM_OPENED, STREAM_CLOSED = FLAG_OPENS, FLAG_CLOSES
STREAM_GAP, STREAM_FORKED = 4, 8
_NONE = 2**64 - 1
_RUN_FIELDS = 7
_SEGMENT_SHIFT = 48


class Run(NamedTuple):
    """One batch of a stream: `records` of them from `first_seq` and `first_lsn` on, in segment number `segment`."""

    segment: int
    first_seq: int
    first_lsn: int
    records: int
    size: int
    crc: int
    payload_at: int
    lengths_at: int


class LogIndex:
    """Streams and frames of a log. Everything in it is durable."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._last_seq = array("Q")
        self._last_run = array("Q")
        self._flags = array("B")
        self._runs = array("Q")
        self._frame_lsns = array("Q")
        self._frames = array("Q")
        self.records = 0
        self.open_streams = 0

    def add_frame(self, segment: int, offset: int, first_lsn: int, entries: Iterable[DirectoryEntry]) -> None:
        """Take up one durable frame. A sequence number that does not continue its stream marks the stream unsound."""
        self._frame_lsns.append(first_lsn)
        self._frames.append(segment << _SEGMENT_SHIFT | offset)
        numbers, last_seq, last_run, flags = self._numbers, self._last_seq, self._last_run, self._flags
        runs = self._runs
        next_run = len(runs) // _RUN_FIELDS
        for stream, first_seq, entry_lsn, count, size, crc, entry_flags, payload_at, lengths_at in entries:
            number = numbers.get(stream)
            if number is None:
                number = numbers[stream] = len(numbers)
                last_seq.append(0)
                last_run.append(_NONE)
                flags.append(0)
            expected = last_seq[number] + 1
            self.records += count
            if first_seq != expected:
                flags[number] |= STREAM_FORKED if first_seq < expected else STREAM_GAP
                continue
            runs.extend(
                (
                    last_run[number],
                    segment << 32 | count,
                    first_seq,
                    entry_lsn,
                    size << 32 | crc,
                    payload_at,
                    lengths_at,
                )
            )
            last_run[number] = next_run
            next_run += 1
            last_seq[number] = first_seq + count - 1
            if entry_flags:
                self._count_open(flags[number], flags[number] | entry_flags)
                flags[number] |= entry_flags

    def _count_open(self, before: int, after: int) -> None:
        def is_open(flags: int) -> bool:
            return bool(flags & STREAM_OPENED) and not flags & STREAM_CLOSED

        self.open_streams += is_open(after) - is_open(before)

    def __contains__(self, stream: bytes) -> bool:
        return stream in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def streams(self) -> Iterator[bytes]:
        """Every stream, in the order of first appearance, as of this call."""
        return iter(list(self._numbers))

    def streams_still_open(self) -> Iterator[bytes]:
        """Streams whose opening record is stored and whose closing record is not, in the order of first appearance."""
        flags = self._flags
        mask = STREAM_OPENED | STREAM_CLOSED
        return iter([s for s, number in self._numbers.items() if flags[number] & mask == STREAM_OPENED])

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number stored for a stream, 0 if there is none."""
        number = self._numbers.get(stream)
        return 0 if number is None else self._last_seq[number]

    def flags(self, stream: bytes) -> int:
        """STREAM_… bits of a stream."""
        number = self._numbers.get(stream)
        return 0 if number is None else self._flags[number]

    def run_numbers_after(self, stream: bytes, seq: int) -> array[int]:
        """The numbers of the runs that hold records of the stream behind `seq`, oldest first; 8 bytes each."""
        found = array("Q")
        number = self._numbers.get(stream)
        if number is None:
            return found
        runs = self._runs
        at = self._last_run[number]
        while at != _NONE:
            base = at * _RUN_FIELDS
            if runs[base + 2] + (runs[base + 1] & 0xFFFFFFFF) <= seq + 1:
                break
            found.append(at)
            at = runs[base]
        found.reverse()
        return found

    def run(self, number: int) -> Run:
        """One run by its number."""
        _previous, where, first_seq, first_lsn, size_crc, payload_at, lengths_at = self._runs[
            number * _RUN_FIELDS : (number + 1) * _RUN_FIELDS
        ]
        return Run(
            where >> 32,
            first_seq,
            first_lsn,
            where & 0xFFFFFFFF,
            size_crc >> 32,
            size_crc & 0xFFFFFFFF,
            payload_at,
            lengths_at,
        )

    def runs_after(self, stream: bytes, seq: int) -> list[Run]:
        """The runs that hold records of the stream behind `seq`, oldest first."""
        return [self.run(number) for number in self.run_numbers_after(stream, seq)]

    @property
    def frame_count(self) -> int:
        """How many data frames the log holds."""
        return len(self._frames)

    def frame_at_lsn(self, lsn: int) -> int:
        """The number of the first frame that can hold records behind `lsn`."""
        return max(bisect_right(self._frame_lsns, lsn) - 1, 0)

    def frame_place(self, number: int) -> tuple[int, int]:
        """(segment number, offset of the header) of a frame."""
        place = self._frames[number]
        return place >> _SEGMENT_SHIFT, place & ((1 << _SEGMENT_SHIFT) - 1)
