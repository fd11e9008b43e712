"""Open a spoiled log, read all of it in every way there is, and say how that compares with what is stored in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from stepstore.errors import StepwellError
from stepstore.journal.contract import Record
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log import verify
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from stepstore.log.records import Gap
from tests.crash.specimen import STREAMS, Contents, Specimen
from tests.stepstore.log_lab import LOG


def verify_outcome(files: MemoryFileSystem) -> str:
    """What `verify` says of the log: "problem", "note", "nothing", or the name of the declared error it raises."""
    try:
        report = verify.verify_log(LOG, files=files)
    except StepwellError as error:
        return type(error).__name__
    return "problem" if report.problems else "note" if report.notes else "nothing"


@dataclass
class Reading:
    """What a log gave: `refused` and nothing else, or the records of each stream up to the error that ended it.

    A log that opens, but cannot even say which streams it has, counts as refused.

    `in_order`: the records in log order, up to `in_order_error`; None if nobody read them so. `gaps`: the LSNs that
    the follower was told are damaged.
    """

    refused: StepwellError | None = None
    end_lsn: int = 0
    bytes_cut: int = 0
    streams: dict[bytes, list[Record]] = field(default_factory=dict)
    last_seqs: dict[bytes, int] = field(default_factory=dict)
    damaged: dict[bytes, StepwellError] = field(default_factory=dict)
    open_streams: frozenset[bytes] = frozenset()
    deleted: frozenset[bytes] = frozenset()
    has_streams: bool = False
    snapshots: dict[bytes, Record | StepwellError] = field(default_factory=dict)
    in_order: list[Record] | None = None
    in_order_error: StepwellError | None = None
    gaps: list[range] = field(default_factory=list)


async def read_writable(files: MemoryFileSystem, options: LogOptions) -> Reading:
    """Open the log for writing and read every stream. Raises undeclared errors only."""
    try:
        journal = SegmentLogJournal.open(LOG, options, files)
    except StepwellError as error:
        return Reading(refused=error)
    try:
        return await _read_streams(journal)
    finally:
        journal.release()


async def read_read_only(files: MemoryFileSystem, options: LogOptions, *, streams: bool = True) -> Reading:
    """Look at the log and read everything in log order; every stream by itself before that, unless `streams` is False.
    Raises undeclared errors only."""
    try:
        journal = SegmentLogJournal.open_read_only(LOG, options, files)
    except StepwellError as error:
        return Reading(refused=error)
    try:
        reading = await _read_streams(journal, bodies=streams)
        if reading.refused is not None:
            return reading
        reading.in_order = []
        try:
            async with journal.follow() as slices:
                async for part in slices:
                    for item in part:
                        if isinstance(item, Gap):
                            reading.gaps.append(range(item.first_lsn, item.last_lsn + 1))
                        else:
                            reading.in_order.append(item)
        except StepwellError as error:
            reading.in_order_error = error
        return reading
    finally:
        journal.release()


async def _read_streams(journal: SegmentLogJournal, *, bodies: bool = True) -> Reading:
    reading = Reading(end_lsn=journal.durable_lsn, bytes_cut=journal.report.bytes_cut)
    if not bodies:
        return reading
    try:
        reading.open_streams = frozenset(journal.open_streams())
        reading.deleted = frozenset(filter(journal.is_deleted, STREAMS))
        reading.last_seqs = {stream: journal.durable_seq(stream) for stream in journal.streams()}
    except StepwellError as error:
        return Reading(refused=error)
    reading.has_streams = True
    for stream in reading.last_seqs:
        found = reading.streams[stream] = []
        try:
            slices = journal.read(stream)
            while part := await slices.next_slice():
                found += part
        except StepwellError as error:
            reading.damaged[stream] = error
        try:
            snapshot = await journal.read_snapshot(stream)
        except StepwellError as error:
            reading.snapshots[stream] = error
        else:
            if snapshot is not None:
                reading.snapshots[stream] = snapshot
    return reading


class Verdict(NamedTuple):
    """How a reading compares with the specimen.

    "refused": opening raised a declared error. "identical": all of it. "damaged": some streams raise a declared error
    behind a prefix of theirs, or a follower is told of a gap, and all else is identical. "prefix": what the first
    `groups` groups hold, and no error. "wrong": anything else; `why` says what.
    """

    kind: Literal["refused", "identical", "damaged", "prefix", "wrong"]
    groups: int = 0
    why: str = ""


def compare(specimen: Specimen, reading: Reading) -> Verdict:
    """Judge a reading of a spoiled specimen."""
    if reading.refused is not None:
        return Verdict("refused", why=type(reading.refused).__name__)
    groups = specimen.group_ends.get(reading.end_lsn)
    if groups is None:
        return Verdict("wrong", why=f"it ends with LSN {reading.end_lsn}, in the middle of a group or behind the end")
    truth = specimen.contents(groups)
    if why := _differs(truth, reading):
        return Verdict("wrong", groups, why)
    unread = any(isinstance(snapshot, StepwellError) for snapshot in reading.snapshots.values())
    if reading.damaged or unread or reading.gaps or reading.in_order_error is not None:
        if groups < len(specimen.groups):
            return Verdict("wrong", groups, "it is damaged, and shorter on top of that")
        return Verdict("damaged", groups)
    return Verdict("identical" if groups == len(specimen.groups) else "prefix", groups)


def _differs(truth: Contents, reading: Reading) -> str:
    """Where the reading is anything but the truth or a declared error."""
    if reading.has_streams and (why := _streams_differ(truth, reading)):
        return why
    if reading.in_order is not None:
        expected = [record for record in truth.events if not any(record.lsn in gap for gap in reading.gaps)]
        if reading.in_order_error is not None:
            expected = expected[: len(reading.in_order)]
        if reading.in_order != expected:
            return f"in log order {len(reading.in_order)} records are read that are not those stored"
    return ""


def _streams_differ(truth: Contents, reading: Reading) -> str:
    for stream, stored in truth.streams.items():
        name = stream.hex()[:8]
        found = reading.streams.get(stream)
        if found is None:
            return f"stream {name} is not there"
        if stream in reading.damaged:
            if found != stored[: len(found)]:
                return f"stream {name} is damaged, and what came before the error is not what was stored"
            continue
        if found != stored:
            return f"stream {name} reads {len(found)} records that are not the {len(stored)} stored"
        if reading.last_seqs[stream] != len(stored):
            return f"stream {name} is said to end with seq {reading.last_seqs[stream]}"
        if (stream in reading.open_streams) != (stream in truth.open_streams):
            return f"stream {name} is open or not, contrary to what was stored"
    for stream in truth.snapshots.keys() | reading.snapshots.keys():
        snapshot = reading.snapshots.get(stream)
        if not isinstance(snapshot, StepwellError) and snapshot != truth.snapshots.get(stream):
            return f"the snapshot of stream {stream.hex()[:8]} is not the newest that was stored"
    if reading.deleted != truth.deleted:
        return "streams are deleted or not, contrary to what was stored"
    if extra := reading.streams.keys() - truth.streams.keys():
        return f"stream {min(extra).hex()[:8]} was never stored"
    return ""
