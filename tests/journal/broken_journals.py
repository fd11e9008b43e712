"""Journals with one fault each, and the contract for all of them: what `test_journal_contract_objects.py` runs.

Not collected by itself. It is a plugin as well: once a test of a class has failed, the others of it are skipped.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
import trio

from stepstore.journal import Batch, Gap, InMemoryJournal, InMemoryStreams, Record, Submission
from stepstore.journal.in_memory import InMemoryFollower, InMemorySlices
from stepstore.log.submission import listed
from stepwell.testing.journal_contract import JournalContract, JournalPlace

_caught: set[str] = set()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.nodeid.split("::")[1] in _caught:
        pytest.skip("caught")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _caught.add(report.nodeid.split("::")[1])


class BrokenJournalContract(JournalContract):
    """The contract for a kind of journal in memory; what it holds outlives it."""

    kind: type[InMemoryJournal]

    def new_place(self, path: pathlib.Path) -> JournalPlace:
        kept = InMemoryStreams()
        return JournalPlace(lambda: self.kind(kept), after_power_cut=lambda: self.kind(kept.copy()))


class TestSound(BrokenJournalContract):
    kind = InMemoryJournal


class DropsARecord(InMemoryJournal):
    """Of three records or more in one batch, the last is lost."""

    def _store(self, submission: Submission, batches: Sequence[Batch]) -> int:
        return super()._store(submission, [msgspec.structs.replace(b, payloads=b.payloads[:2]) for b in batches])


class TestDropsARecord(BrokenJournalContract):
    kind = DropsARecord


class AcknowledgesTooEarly(InMemoryJournal):
    """A submission is done before it is stored."""

    async def _commit_queued(self) -> None:
        while self._queue:
            submission = self._queue.popleft()
            submission.resolve(len(self._kept.order) + 1)
            self._store(submission, submission.batches)
        self._advanced.unpark_all()


class TestAcknowledgesTooEarly(BrokenJournalContract):
    kind = AcknowledgesTooEarly


class Reorders(InMemoryJournal):
    """What waits is stored stream by stream instead of in the order of submission."""

    async def _commit_queued(self) -> None:
        in_order = sorted(self._queue, key=lambda submission: submission.batches[0].stream)
        self._queue.clear()
        self._queue.extend(in_order)
        await super()._commit_queued()


class TestReorders(BrokenJournalContract):
    kind = Reorders


class ResurrectsDeleted(InMemoryJournal):
    """A deleted stream can be begun anew."""

    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        for batch in listed(batches):
            self._kept.deleted.discard(batch.stream)
        return super().submit(batches, critical=critical, on_done=on_done)


class TestResurrectsDeleted(BrokenJournalContract):
    kind = ResurrectsDeleted


class ImpatientFollower(InMemoryFollower):
    async def next_slice(self) -> list[Record | Gap] | None:
        if self._journal._ended:
            await trio.lowlevel.checkpoint()
            return None
        return await super().next_slice()


class FollowerLosesTheLastSlice(InMemoryJournal):
    """Following ends as soon as the journal does, with records still to come."""

    def follow(self, after_lsn: int = 0) -> InMemoryFollower:
        return ImpatientFollower(self, after_lsn)


class TestFollowerLosesTheLastSlice(BrokenJournalContract):
    kind = FollowerLosesTheLastSlice


class SkippingFollower(InMemoryFollower):
    async def next_slice(self) -> list[Record | Gap] | None:
        found = await super().next_slice()
        await trio.lowlevel.checkpoint()  # cancelled here, the slice is gone
        return found


class CancelledFollowerSkips(InMemoryJournal):
    """A follower that is cancelled in `receive` loses what it had taken."""

    def follow(self, after_lsn: int = 0) -> InMemoryFollower:
        return SkippingFollower(self, after_lsn)


class TestCancelledFollowerSkips(BrokenJournalContract):
    kind = CancelledFollowerSkips


class ForgetfulSlices(InMemorySlices):
    async def next_slice(self) -> list[Record]:
        found = await super().next_slice()
        await trio.lowlevel.checkpoint()
        return found


class CancelledReaderSkips(InMemoryJournal):
    """As above, for a reader of one stream."""

    def read(self, stream: bytes, after: int = 0, *, catch_up: bool = False) -> InMemorySlices:
        return ForgetfulSlices(self, stream, after)


class TestCancelledReaderSkips(BrokenJournalContract):
    kind = CancelledReaderSkips


class EndlessSlices(InMemorySlices):
    async def next_slice(self) -> list[Record]:
        self._end = len(self._records)
        return await super().next_slice()


class ReaderRunsOn(InMemoryJournal):
    """A reader sees what was stored after it was asked for."""

    def read(self, stream: bytes, after: int = 0, *, catch_up: bool = False) -> InMemorySlices:
        return EndlessSlices(self, stream, after)


class TestReaderRunsOn(BrokenJournalContract):
    kind = ReaderRunsOn


class TearsSubmissions(InMemoryJournal):
    """The batches of a submission are stored one by one, so those before a refused one are there."""

    def submit(
        self,
        batches: Batch | Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        for batch in listed(batches)[:-1]:
            super().submit(batch, critical=critical)
        return super().submit(listed(batches)[-1], critical=critical, on_done=on_done)


class TestTearsSubmissions(BrokenJournalContract):
    kind = TearsSubmissions


class LeavesStreamsOpen(InMemoryJournal):
    """A stream that was closed still counts as open."""

    def open_streams(self) -> Iterator[bytes]:
        return iter([stream for stream in self._kept.records if stream not in self._kept.deleted])


class TestLeavesStreamsOpen(BrokenJournalContract):
    kind = LeavesStreamsOpen


class LosesWhatComesWithFinish(InMemoryJournal):
    """Finishing throws away what is queued."""

    def finish(self) -> None:
        super().finish()
        self._queue.clear()


class TestLosesWhatComesWithFinish(BrokenJournalContract):
    kind = LosesWhatComesWithFinish


class NoCheckpoint(InMemoryJournal):
    """An async function that is none."""

    async def wait_room(self) -> None:
        pass


class TestNoCheckpoint(BrokenJournalContract):
    kind = NoCheckpoint


class LosesTheEndOnReopening(InMemoryJournal):
    """The last record of each stream is not there after reopening."""

    def release(self) -> None:
        super().release()
        for records in self._kept.records.values():
            records.pop()


class TestLosesTheEndOnReopening(BrokenJournalContract):
    kind = LosesTheEndOnReopening


class CursorOfAnyLog(InMemoryJournal):
    """A cursor is a number, and says nothing of the log it is of."""

    def cursor(self, lsn: int) -> str:
        return str(lsn)

    def check_cursor(self, text: str) -> int:
        return int(text)


class TestCursorOfAnyLog(BrokenJournalContract):
    kind = CursorOfAnyLog


class NumbersSnapshots(InMemoryJournal):
    """A snapshot is found, and a follower is shown it as well."""

    def follow(self, after_lsn: int = 0) -> InMemoryFollower:
        return SnapshotShowingFollower(self, after_lsn)


class SnapshotShowingFollower(InMemoryFollower):
    async def next_slice(self) -> list[Record | Gap] | None:
        start = self._after
        found = await super().next_slice()
        for snapshot in self._journal._kept.snapshots.values():
            if found is not None and start < snapshot.lsn <= self._after:
                found.append(snapshot)
        return found


class TestNumbersSnapshots(BrokenJournalContract):
    kind = NumbersSnapshots


class LeavesWaitersBehind(InMemoryJournal):
    """When its task is cancelled nobody learns what became of what was queued."""

    def _refuse(self, submissions: Sequence[Submission], error: Exception) -> None:
        pass


class TestLeavesWaitersBehind(BrokenJournalContract):
    kind = LeavesWaitersBehind
