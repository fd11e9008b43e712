"""A process that forks while it has a log open: the child is refused, the log stays its parent's."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap
import weakref

import pytest
import trio
import trio.testing

from stepstore.errors import Closed, OutcomeUnknown
from stepstore.journal import SegmentLogJournal
from stepstore.log import forking
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.frame import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log
from stepstore.log.writer import LogWriter
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    WatchedFiles,
    clone,
    payload,
    records_of,
    reopen,
    store,
    submit,
    tree,
    writing,
)

# ---- really --------------------------------------------------------------------------------------------------------

PARENT = """
    import os, sys, trio
    from stepstore.errors import Closed, LogLocked, OutcomeUnknown
    from stepstore.journal import SegmentLogJournal
    from stepstore.journal.contract import Batch, append
    from stepstore.log.opening import LogOptions

    path, A = sys.argv[1], b"A" * 16
    OPTIONS = LogOptions(segment_bytes=16 * 1024)

    def everything():
        return {name: open(os.path.join(path, name), "rb").read() for name in sorted(os.listdir(path))}

    def fork(child):
        pid = os.fork()
        if not pid:
            try:
                child()
                os._exit(7)
            finally:
                os._exit(1)  # whatever happens, it must not go on as the parent
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, "the child failed"

    def refused(journal):
        for critical in (False, True):
            try:
                journal.submit([Batch(A, journal.last_seq(A) + 1, [b"of the child"], 0)], critical=critical)
            except Closed as error:
                assert "forked" in str(error), error
            else:
                raise AssertionError("the child may write")
        assert not journal.gate.is_open

    def locked():
        try:
            SegmentLogJournal.open(path, OPTIONS)
        except LogLocked:
            return
        raise AssertionError("the lock is gone")
"""


def run_parent(tmp_path: pathlib.Path, body: str) -> None:
    script = textwrap.dedent(PARENT) + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log")], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_child_forked_between_opening_and_running_is_refused_and_changes_nothing(tmp_path: pathlib.Path) -> None:
    """As a server does that opens its memory before it forks its workers; one of them ends by closing everything."""
    run_parent(
        tmp_path,
        """
        journal = SegmentLogJournal.open(path, OPTIONS)
        queued = journal.submit([Batch(A, 1, [b"of the parent"], 0)])
        before = everything()

        def child():
            refused(journal)
            assert not queued.done
            journal.finish()
            trio.run(journal.run)
            assert isinstance(queued.error, OutcomeUnknown), queued.error
            journal.release()
            assert everything() == before
            locked()

        fork(child)
        assert everything() == before
        locked()

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                await queued.wait()
                assert queued.error is None
                await append(journal, A, [b"and more"], expected_seq=1)
                journal.finish()

        trio.run(main)
        journal.release()
        again = SegmentLogJournal.open(path, OPTIONS)
        assert again.last_seq(A) == 2
        again.release()
        """,
    )


def test_a_child_forked_while_the_log_is_written_is_refused_and_the_parent_goes_on(tmp_path: pathlib.Path) -> None:
    run_parent(
        tmp_path,
        """
        async def main():
            journal = SegmentLogJournal.open(path, OPTIONS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.run)
                for seq in range(40):
                    await append(journal, A, [b"%d" % seq * 400], expected_seq=seq)
                await trio.to_thread.run_sync(lambda: None)
                while not os.path.exists(os.path.join(path, "spare.tmp")):  # the next segment lies ready
                    await append(journal, A, [b"x" * 200], expected_seq=journal.last_seq(A))
                before = everything()

                def child():
                    refused(journal)
                    journal.release()
                    assert everything() == before
                    locked()

                fork(child)
                assert everything() == before
                locked()
                for _ in range(40):
                    await append(journal, A, [b"y" * 700], expected_seq=journal.last_seq(A))
                last = journal.last_seq(A)
                journal.finish()
            assert journal.failed is None
            journal.release()
            return last

        last = trio.run(main)
        again = SegmentLogJournal.open(path, OPTIONS)
        assert again.last_seq(A) == last
        assert again.report.notes == ()
        again.release()
        """,
    )


# ---- the same in this process ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_child_forked_while_other_threads_hold_the_locks_reads_and_closes(
    tmp_path: pathlib.Path, read_only: bool
) -> None:
    """Those threads do not exist in it, and would never let go."""
    run_parent(
        tmp_path,
        f"""
    import contextlib, signal, threading, warnings
    from stepstore.log.key_provider import LocalKeyProvider

    warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads, which is the point
    OPTIONS = LogOptions(segment_bytes=16 * 1024, key_provider=LocalKeyProvider(b"k" * 32))

    async def write(journal):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await append(journal, A, [b"of the parent"], expected_seq=0)
            journal.finish()

    async def read(journal):
        return [record.payload for record in await journal.read(A).next_slice()]

    first = SegmentLogJournal.open(path, OPTIONS)
    trio.run(write, first)
    first.release()
    journal = SegmentLogJournal.open{"_read_only" if read_only else ""}(path, OPTIONS)
    held, done = threading.Event(), threading.Event()

    def hold():
        log = journal._log
        with contextlib.ExitStack() as locks:
            locks.enter_context(log.reading.held(log.paths[0]))
            for lock in (log.keys._changing, log.keys._lock, log.sequence and log.sequence._spare_lock):
                locks.enter_context(lock or contextlib.nullcontext())
            held.set()
            done.wait()

    def child():
        signal.alarm(120)  # should it hang
        assert trio.run(read, journal) == [b"of the parent"]
        journal.release()
        os._exit(7)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        fork(child)
    finally:
        done.set()
        thread.join()
    assert trio.run(read, journal) == [b"of the parent"]
    journal.release()
        """,
    )


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> weakref.WeakSet[forking._Watched]:
    """The logs opened in this test, and no other, are told of the forks of this test."""
    watched: weakref.WeakSet[forking._Watched] = weakref.WeakSet()
    monkeypatch.setattr(forking, "_watched", watched)
    return watched


async def test_a_writer_that_is_told_of_a_fork_takes_nothing(forked: weakref.WeakSet[forking._Watched]) -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        stored = records_of(await store(writer, (A, [b"1"])))
        queued = submit(writer, (A, [b"2"]))
        before = tree(disk)
        forking._tell_all()
        for critical in (False, True):
            with pytest.raises(Closed, match="forked"):
                writer.admission.check_open(critical=critical)
        with pytest.raises(Closed, match="forked"):
            submit(writer, (B, [b"x"]))
        assert not writer.admission.gate.is_open
        await queued.wait()
        assert isinstance(queued.error, OutcomeUnknown)
    assert tree(disk) == before
    assert reopen(clone(disk))[0] == stored


async def test_a_forked_child_that_closes_its_journal_writes_no_footer(
    forked: weakref.WeakSet[forking._Watched],
) -> None:
    disk = MemoryFileSystem()
    files = WatchedFiles(disk)
    journal = SegmentLogJournal.open(LOG, SMALL, files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        submission = journal.submit([Batch(A, 1, [payload(9000)], 0)])
        await submission.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert disk.stat(f"{LOG}/spare.tmp") is not None
        before = tree(disk)
        forking._tell_all()
        journal.finish()
    journal.release()
    assert tree(disk) == before, "the space that the parent has set aside is left, too"
    assert files.open_files == []


async def test_a_forked_child_seals_nothing_that_was_left(
    forked: weakref.WeakSet[forking._Watched], caplog: pytest.LogCaptureFixture
) -> None:
    disk = MemoryFileSystem()
    log = open_log(disk, LOG, SMALL)
    async with writing(log) as writer:
        await store(writer, (A, [b"1"]))
        await writer.rotate()
        before = tree(disk)
        forking._tell_all()
        caretaker = LogCaretaker(log, writer)
        await caretaker.finish()
    assert tree(disk) == before
    assert not log.unsealed
    assert caretaker.errors == 1
    assert "forked" in caplog.text


async def test_the_reader_of_a_log_is_told_of_a_fork_as_well(forked: weakref.WeakSet[forking._Watched]) -> None:
    """It has no lock to keep."""
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        await store(writer, (A, [b"1"]))
    journal = SegmentLogJournal.open_read_only(LOG, files=disk)
    forking.watch_forks(journal._log)
    forking._tell_all()
    assert (await journal.read(A).next_slice())[0].payload == b"1"


def test_a_log_that_is_gone_is_not_watched(forked: weakref.WeakSet[forking._Watched]) -> None:
    log = open_log(MemoryFileSystem(), LOG, SMALL)
    writer: LogWriter | None = LogWriter(log)
    assert set(forked) == {log, writer}
    writer = None
    assert writer is None
    log.release()
    forking._tell_all()
    assert log.is_forked
