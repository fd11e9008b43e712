"""Look closer at a damaged segment: every damaged place, what lay there, and what the streams there are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from stepstore.errors import StepwellError
from stepstore.log.batch_search import batches_of, first_records
from stepstore.log.frame import KIND_FLAGS
from stepstore.log.frame_search import find_frames
from stepstore.log.problems import NO_RECORD, Problem, StreamName, TouchedStream, advice_for
from stepstore.log.salvage_findings import FoundBatch, Lost
from stepstore.log.salvage_source import KnownEnd, Source
from stepstore.log.segment_header import SegmentHeader


class Examined(NamedTuple):
    """What a closer look found in one segment."""

    problems: list[Problem]
    frames: int
    records: int
    streams: set[bytes]


def examine(source: Source, successor: SegmentHeader | None, row: int) -> Examined:
    """Every damaged place of a segment as a problem (of `row`, as far as records are concerned); and what is left.

    Raises: `RecoveryFailed`.
    """
    if source.end is None:
        named: dict[int, KnownEnd] = {}
        if successor is not None:
            cut = KnownEnd(successor.prev_end_offset, successor.prev_end_lsn, successor.prev_chain)
            named[successor.prev_seq] = cut
        source.find_end(named)
    find_frames(source, set(), _ignore)
    problems: list[Problem] = []
    ends: dict[bytes, tuple[int, int]] = {}
    records = 0
    for item in batches_of(source, _ignore):
        if isinstance(item, Lost):
            problems.append(problem_of(item, row))
            continue
        if not item.flags & KIND_FLAGS:
            last_seq, last_lsn = ends.get(item.stream, (0, 0))
            if last_seq and item.first_seq > last_seq + 1:
                _attribute(problems, item, last_seq, last_lsn)
            ends[item.stream] = item.last_seq, item.first_lsn
        records += len(item.lengths)
    return Examined(problems, len(source.frames), records, set(ends))


def _attribute(problems: list[Problem], later: FoundBatch, last_seq: int, last_lsn: int) -> None:
    """Records of a stream are missing between two of its batches: they lay in what is damaged between them."""
    for problem in problems:
        if problem.streams_known or problem.first_lsn is None or problem.first_lsn > later.first_lsn:
            continue
        if problem.last_lsn is None or problem.last_lsn > last_lsn:
            touched = TouchedStream(stream=later.stream.hex(), first_seq=last_seq + 1, last_seq=later.first_seq - 1)
            problem.streams.append(touched)


def _ignore(_count: int) -> None:
    """Nobody wants to know how far it is."""


def problem_of(lost: Lost, row: int) -> Problem:
    """A damaged place as a problem."""
    concerns = lost.concerns_records
    parts = [TouchedStream(stream=stream.hex(), first_seq=a, last_seq=b) for stream, a, b in lost.parts or ()]
    return Problem(
        file=lost.path,
        text=f"{lost.what} is not what was written",
        advice=advice_for(row) if concerns else NO_RECORD,
        offset=lost.offset,
        first_lsn=lost.first_lsn if concerns else None,
        last_lsn=lost.last_lsn if concerns else None,
        streams=parts,
        streams_known=lost.parts is not None,
        row=row if concerns else 0,
    )


def name_streams(problems: Iterable[Problem], sources: Iterable[Callable[[], Source]], name: StreamName) -> None:
    """Say what the streams in the problems are called, as far as their first records can be read."""
    touched = [stream for problem in problems for stream in problem.streams]
    wanted = {bytes.fromhex(stream.stream) for stream in touched}
    names: dict[str, str] = {}
    for open_source in sources:
        if not wanted:
            break
        try:
            for stream, payload in first_records(open_source(), wanted):
                names[stream.hex()] = name(payload) or ""
                wanted.discard(stream)
        except (StepwellError, OSError):
            continue  # a name is worth no error
    for one in touched:
        one.name = names.get(one.stream, "")
