"""Read what a log holds through its journal, and examine the image that a crash left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stepstore.errors import InvalidState, Rejected, StepwellError
from stepstore.journal.contract import Batch, Gap, Record
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, RecoveryReport
from tests.crash.checker import Broken, Violation, Wrong, judge, judge_followed, name_of
from tests.crash.promises import Expectation, Fate, Found

LOG = "/log"


@contextmanager
def declared(wrong: Wrong, doing: str) -> Iterator[None]:
    """Object if this raises: as `wrong` to an error of Stepwell's own, as UNDECLARED to any other exception."""
    try:
        yield
    except Broken:
        raise
    except StepwellError as error:
        raise Broken([Violation(wrong, f"{doing}: {type(error).__name__}: {error}")]) from error
    except Exception as error:
        raise Broken([Violation(Wrong.UNDECLARED, f"{doing}: {error!r}")]) from error


async def read_streams(journal: SegmentLogJournal, expected: Expectation) -> Found:
    """Every stream the journal names, and those it does not name but was sent, record by record.

    Raises: `Broken`.
    """
    with declared(Wrong.NOT_READ, "naming the streams"):
        named = list(journal.streams())
        found = Found(open_streams=set(journal.open_streams()))
    if len(set(named)) != len(named):
        raise Broken([Violation(Wrong.DOUBLED, "the journal names a stream twice")])
    for stream in named:
        with declared(Wrong.NOT_READ, f"reading stream {name_of(stream)}"):
            found.streams[stream] = await _read(journal, stream)
    for stream in expected.with_snapshots:
        with declared(Wrong.NOT_READ, f"reading the snapshot of {name_of(stream)}"):
            found.snapshots[stream] = await journal.read_snapshot(stream)
    for stream in {a.batches[0].stream for a, _fate, _lsn in expected.attempts if a.is_tombstone}:
        with declared(Wrong.NOT_READ, f"asking whether {name_of(stream)} is deleted"):
            if journal.is_deleted(stream):
                found.deleted.add(stream)
            if stream not in found.streams and (hidden := await _read(journal, stream)):
                found.streams[stream] = hidden
    return found


async def _read(journal: SegmentLogJournal, stream: bytes) -> list[Record]:
    slices, found = journal.read(stream), []
    while records := await slices.next_slice():
        found += records
    return found


async def _follow(journal: SegmentLogJournal) -> list[Record]:
    followed: list[Record] = []
    async with journal.follow(0) as slices:
        async for items in slices:
            for item in items:
                if isinstance(item, Gap):
                    raise Broken([Violation(Wrong.NOT_READ, f"a follower meets damage: {item}")])
                followed.append(item)
    return followed


def must_stay_deleted(journal: SegmentLogJournal, expected: Expectation) -> None:
    """Object if the id of a deleted stream can be used again. Raises: `Broken`."""
    for stream, fate in expected.deletions.items():
        if fate is Fate.STORED:
            try:
                journal.submit([Batch(stream, journal.last_seq(stream) + 1, [b"to a deleted stream"], 0)])
            except (InvalidState, Rejected):
                continue
            raise Broken([Violation(Wrong.RESURRECTED, f"{name_of(stream)} takes records again")])


@dataclass(frozen=True)
class Examined:
    """What an image that breaks no promise holds."""

    found: Found
    report: RecoveryReport


async def examine(disk: MemoryFileSystem, expected: Expectation, options: LogOptions) -> Examined:
    """Open what a crash left, judge what it holds; then cut the power at once, open again and find the same.

    The second opening is on what of the first one is durable, ends in a clean stop, and is read in log order as well.
    `disk` is changed by it. Raises: `Broken`.
    """
    with declared(Wrong.NOT_OPENED, "opening"):
        journal = SegmentLogJournal.open(LOG, options, disk)
    try:
        found = await read_streams(journal, expected)
        report = journal.report
        must_stay_deleted(journal, expected)
    finally:
        journal.release()
    if wrong := judge(expected, found):
        raise Broken(wrong)
    with declared(Wrong.NOT_OPENED, "opening again after a power cut"):
        journal = SegmentLogJournal.open(LOG, options, disk.durable_copy())
    try:
        journal.finish()
        with declared(Wrong.UNDECLARED, "a clean stop after the second opening"):
            await journal.run()
        try:
            with declared(Wrong.NOT_READ, "following"):
                wrong = judge_followed(expected, await _follow(journal), found.records())
        except Broken as broken:
            # Behind a purge there may be no way to follow from the beginning; anywhere else there must be.
            if not expected.deletions or broken.violations[0].wrong is Wrong.UNDECLARED:
                raise
            again = await read_streams(journal, expected)
            wrong = judge_followed(expected, again.records(), found.records())
        if set(journal.streams()) != found.streams.keys() or set(journal.open_streams()) != found.open_streams:
            wrong.append(Violation(Wrong.ANOTHER_ANSWER, "other streams are there, or open"))
    finally:
        journal.release()
    if wrong:
        raise Broken(wrong, "after a power cut behind the opening")
    return Examined(found, report)
