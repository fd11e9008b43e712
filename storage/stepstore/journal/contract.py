"""What every journal promises.

- A stream is named by 16 bytes. Its records are numbered 1, 2, 3 … without gaps (`seq`), and all records of the
  journal are numbered in one order (`lsn`).
- `submit` stores its batches together or not at all. Each batch must continue its stream. When a submission is `done`
  without an error its records are durable, and not earlier.
- A reader sees durable records only, in order, in bounded memory; a follower sees all of them in log order, may lag,
  and never holds anybody up.
- A stream is *open* from a batch flagged FLAG_OPENS to one flagged FLAG_CLOSES; it may be opened again.
- A batch flagged FLAG_TOMBSTONE deletes its stream: behind it the stream has no record for a reader that comes later, a
  follower sees of it the tombstone only, and it takes nothing any more, not even while the tombstone is queued.
- A batch flagged FLAG_SNAPSHOT takes no number of its stream, and no follower sees it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from stepstore.journal.following import FollowedSlices as FollowedSlices
from stepstore.log.archive_report import ArchiveReport as ArchiveReport
from stepstore.log.compaction_report import CompactionReport as CompactionReport
from stepstore.log.frame import FLAG_CLOSES as FLAG_CLOSES
from stepstore.log.frame import FLAG_OPENS as FLAG_OPENS
from stepstore.log.frame import FLAG_SNAPSHOT as FLAG_SNAPSHOT
from stepstore.log.frame import FLAG_TOMBSTONE as FLAG_TOMBSTONE
from stepstore.log.frame import Batch as Batch
from stepstore.log.opening import RecoveryReport
from stepstore.log.purge import DeletionReport as DeletionReport
from stepstore.log.records import Gap as Gap
from stepstore.log.records import Record as Record
from stepstore.log.records import RecordBatch as RecordBatch
from stepstore.log.records import Stored as Stored
from stepstore.log.records import StoredBatch as StoredBatch
from stepstore.log.records import between as between
from stepstore.log.records import last_lsn_of as last_lsn_of
from stepstore.log.submission import Gate as Gate
from stepstore.log.submission import Submission as Submission
from stepstore.log.writer_stats import WriterStats
from stepstore.notices import Notices
from stepstore.restarting import Service

SLICE_RECORDS = 256
SLICE_BYTES = 1024 * 1024

JournalStats = WriterStats
JournalReport = RecoveryReport
"""What opening the journal found and did."""


class Appended(NamedTuple):
    """Where an append went: sequence numbers in its stream, and the LSN of its first record."""

    first_seq: int
    last_seq: int
    first_lsn: int


class RecordSlices(Protocol):
    """Gives the records of a stream slice by slice; an empty slice is the end. Holds nothing that must be closed."""

    async def next_slice(self) -> list[Record]:
        """The next records, at most SLICE_RECORDS of them unless one batch is larger. A checkpoint."""
        ...


class Journal(Protocol):
    """See the module."""

    report: JournalReport
    gate: Gate
    """Closed whenever `check_open` would raise."""
    notices: Notices
    """Set its `listener` to hear what happens to the journal."""

    @property
    def services(self) -> Sequence[Service]:
        """What runs in the background beside the task that stores, and cannot end it. Part of `run`."""
        ...

    @property
    def durable_lsn(self) -> int:
        """Up to where everything is stored."""
        ...

    @property
    def stats(self) -> JournalStats:
        """Counts since opening."""
        ...

    async def run(self) -> None:
        """The task that stores what is submitted; returns after `finish`, when everything is stored."""

    def finish(self) -> None:
        """Take no more submissions."""

    def release(self) -> None:
        """Give back files and locks; reading raises `Closed` from now on. After `run` has ended."""

    @property
    def failed(self) -> BaseException | None:
        """Why nothing can be stored any more, None while it can."""
        ...

    def check_open(self, *, critical: bool = False) -> None:
        """Raises: `Closed`, `LogFull`, as `submit` would now."""

    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        """Queue a batch, or several to be stored together; `on_done` runs synchronously once the result is known.

        Raises: `Closed`, `LogFull`, `TooLarge`, `InvalidInput`, `InvalidState` (a batch does not continue its stream,
        or that is deleted, or is forked and the batch is no tombstone).
        """
        ...

    @property
    def has_room(self) -> bool:
        """Whether the queue has room for another submission."""
        ...

    async def wait_room(self) -> None:
        """Return once the queue has room for another submission."""

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number of a stream, what is queued included; 0 if it has no record."""
        ...

    def durable_seq(self, stream: bytes) -> int:
        """The last durable sequence number of a stream; 0 if it has no record."""
        ...

    def is_deleted(self, stream: bytes) -> bool:
        """Whether the stream was deleted; its records are gone for readers, and it takes none any more."""
        ...

    async def catch_up(self) -> None:
        """Beside another process that writes (a read-only opening): take up what it has written since. Otherwise there
        is nothing to catch up with. A checkpoint. Raises: `RecoveryFailed`, `Closed`."""

    async def look_up(self, stream: bytes) -> int:
        """As `durable_seq`, but what has to be read from the medium is read without holding up the event loop; behind
        it the synchronous calls about the stream need not read. A checkpoint."""
        ...

    async def forget(self, stream: bytes) -> None:
        """Destroy the key of a deleted stream, if it has one: then no copy of its records can be read, wherever it is.
        A checkpoint. Repeating it is safe.

        Raises: `OSError`, `Closed` (also where nothing can be written), `InvalidState` (it is not deleted)."""

    async def read_snapshot(self, stream: bytes) -> Record | None:
        """The newest durable snapshot of a stream; its `seq` is the last number that it covers. None if it has none, or
        is deleted. A checkpoint.

        Raises: `Damaged`, `RecoveryFailed`, `Closed` (after `release`).
        """
        ...

    async def rotate(self) -> None:
        """Return once everything stored so far lies in files that are complete and stay as they are. A checkpoint.

        Raises: `Closed`, `OSError`, `Fenced`."""

    async def compact(self, *, purge: bool = False) -> CompactionReport:
        """Give back the space of deleted streams and superseded snapshots, and merge small files, now; by itself it
        happens in the background. With `purge` every file that holds something dead is rewritten, whatever it costs,
        and everything is searched for what may be left: the report is a `DeletionReport`. A checkpoint. Cancelled, what
        is under way is thrown away; nothing is lost.

        Raises: `Closed`, `OSError`.
        """
        ...

    async def archive(self, target: str) -> ArchiveReport:
        """Copy everything that is durable when this is called into a new directory, checked, while everything else goes
        on. A checkpoint. If it is cancelled or fails, what is left at the target is no archive, and archiving to it
        again begins anew.

        Raises: `Closed`, `InvalidInput` (the target is not absent or empty; a journal that keeps nothing on disk),
        `CorruptLog` (a file of the log is damaged), `Unavailable` (an I/O error).
        """
        ...

    def cursor(self, lsn: int) -> str:
        """A text that stands for the place behind a durable record, and is noticed if that record is lost."""
        ...

    def check_cursor(self, text: str) -> int:
        """The LSN behind which a cursor stands.

        Raises: `InvalidInput` (no cursor, or one of another log), `InvalidState` (its record was lost after a crash, or
        it is of another branch of a restored log: begin anew), `CorruptLog` (records that were durable have vanished).
        """
        ...

    def streams(self) -> Iterator[bytes]:
        """Every stream with a durable record, in the order of first appearance."""
        ...

    def open_streams(self) -> Iterator[bytes]:
        """The streams that are open, in the order in which they were opened."""
        ...

    def read(self, stream: bytes, after: int = 0, *, catch_up: bool = False) -> RecordSlices:
        """The durable records of a stream behind seq `after`, as of this call. With `catch_up`: as of the first slice,
        which does `catch_up` on its way.

        The slices raise `Damaged`, `Forked`, `RecoveryFailed`, `Closed` (after `release`).
        """
        ...

    def follow(self, after_lsn: int = 0) -> FollowedSlices:
        """Slices of durable records behind `after_lsn`, in log order, then those to come, until the journal ends or is
        released. A `Gap` stands for records whose bytes are damaged. One task receives at a time.

        `receive` raises `RecoveryFailed`, and `Unavailable` or `InvalidInput` if the next record is encrypted and its
        key cannot be had; it may be called again then, and gives the same records."""
        ...


async def append(
    journal: Journal,
    stream: bytes,
    payloads: Sequence[bytes],
    *,
    expected_seq: int,
    flags: int = 0,
    critical: bool = False,
) -> Appended:
    """Append one batch behind `expected_seq` and return once it is durable. `critical`: may use a full disk's reserve.

    If cancelled, the write goes on; whether it is stored can be read afterwards.
    Raises: `InvalidState` (the stream does not end with `expected_seq`), `Closed`, `LogFull`, `TooLarge`,
    `OutcomeUnknown`.
    """
    await journal.wait_room()
    submission = journal.submit([Batch(stream, expected_seq + 1, payloads, flags)], critical=critical)
    await submission.wait()
    submission.check()
    return Appended(expected_seq + 1, expected_seq + len(payloads), submission.first_lsn)


async def delete(journal: Journal, stream: bytes, payload: bytes) -> None:
    """Delete a stream: append its last record, after which it has none for any reader and takes none; durable on
    return. `payload` is for followers. Compaction gives the space back.

    If cancelled, the tombstone is written all the same once it is queued, but the key may outlive it: call `forget`.
    Raises: as `append`, and `OSError` as `forget`; `InvalidState` if the stream is deleted.
    """
    await journal.wait_room()
    await journal.look_up(stream)
    # No checkpoint from here to the submission: compaction may tell the last number of an unsound stream otherwise.
    tombstone = Batch(stream, journal.last_seq(stream) + 1, [payload], FLAG_CLOSES | FLAG_TOMBSTONE)
    submission = journal.submit([tombstone], critical=True)
    await submission.wait()
    submission.check()
    await journal.forget(stream)


async def store_snapshot(journal: Journal, stream: bytes, payload: bytes, *, through_seq: int) -> int:
    """Store a snapshot of a stream as of record `through_seq` and return its LSN once it is durable.

    It takes no number of the stream. Raises: as `append`.
    """
    await journal.wait_room()
    submission = journal.submit([Batch(stream, through_seq, [payload], FLAG_SNAPSHOT)])
    await submission.wait()
    submission.check()
    return submission.first_lsn


async def records(journal: Journal, stream: bytes, after: int = 0) -> AsyncIterator[Record]:
    """The durable records of a stream one by one. Checkpoints once per slice."""
    slices = journal.read(stream, after)
    while found := await slices.next_slice():
        for record in found:
            yield record
