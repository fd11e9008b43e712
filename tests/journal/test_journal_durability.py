"""Nobody is shown a record before it is on the medium: after a power cut its number may be another record's."""

from __future__ import annotations

import threading

import trio
import trio.testing

from stepstore.journal import SegmentLogJournal
from stepstore.journal.contract import FLAG_OPENS, Batch, Gap, Record
from stepstore.log.memory_files import MemoryFileSystem
from stepwell.testing.journal_contract.place import A, B, everything
from tests.journal.places import SMALL
from tests.stepstore.log_lab import Call, WatchedFiles


class BlockedSync:
    """A `before` hook: the next sync of a segment waits until it is let go."""

    def __init__(self) -> None:
        self.entered, self.go_on, self.armed = threading.Event(), threading.Event(), False

    def __call__(self, call: Call) -> None:
        if self.armed and call.operation == "datasync" and call.path.endswith(".seg"):
            self.armed = False
            self.entered.set()
            assert self.go_on.wait(10)


async def test_while_a_group_is_on_its_way_to_the_medium_nobody_is_shown_it() -> None:
    """It is written and not synced: a reader of the file would see it."""
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    files.needs_thread = True
    blocked = BlockedSync()
    files.before = blocked
    followed: list[Record | Gap] = []

    async def follow() -> None:
        async with journal.follow() as slices:
            async for part in slices:
                followed.extend(part)

    journal = SegmentLogJournal.open("/log", SMALL, files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        nursery.start_soon(follow)
        await journal.submit([Batch(A, 1, [b"durable"], FLAG_OPENS)]).wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert [item.payload for item in followed if isinstance(item, Record)] == [b"durable"]
        blocked.armed = True
        submission = journal.submit([Batch(A, 2, [b"on its way"], 0), Batch(B, 1, [b"as well"], FLAG_OPENS)])
        await trio.to_thread.run_sync(blocked.entered.wait)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not submission.done
        assert journal.durable_lsn == 1
        assert len(followed) == 1
        assert [record.payload for record in await everything(journal, A)] == [b"durable"]
        assert await everything(journal, B) == []
        assert (journal.durable_seq(A), journal.durable_seq(B)) == (1, 0)
        assert list(journal.streams()) == list(journal.open_streams()) == [A]
        blocked.go_on.set()
        await submission.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(followed) == 3
        assert list(journal.open_streams()) == [A, B]
        journal.finish()
    journal.release()
