"""Look closer at a damaged segment: every damaged place, what lay there, and what the streams there are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from stepstore.errors import StepwellError
from stepstore.log.problems import NO_RECORD, Problem, StreamName, TouchedStream, advice_for
from stepstore.log.salvage_source import KnownEnd, Lost, Source
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
    source.find_frames(set(), _ignore)
    problems: list[Problem] = []
    streams: set[bytes] = set()
    records = 0
    for item in source.batches(_ignore):
        if isinstance(item, Lost):
            problems.append(problem_of(item, row))
        else:
            streams.add(item.stream)
            records += len(item.lengths)
    return Examined(problems, len(source.frames), records, streams)


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


def name_streams(problems: Iterable[Problem], sources: Iterable[Source], name: StreamName) -> None:
    """Say what the streams in the problems are called, as far as their first records can be read."""
    touched = [stream for problem in problems for stream in problem.streams]
    wanted = {bytes.fromhex(stream.stream) for stream in touched}
    names: dict[str, str] = {}
    for source in sources:
        if not wanted:
            break
        try:
            for stream, payload in source.first_records(wanted):
                names[stream.hex()] = name(payload) or ""
                wanted.discard(stream)
        except StepwellError:
            continue  # a name is worth no error
    for one in touched:
        one.name = names.get(one.stream, "")
