"""What a log says to `logging`: one line for each thing out of the ordinary, nothing per record."""

from __future__ import annotations

import errno
import logging
import os

import pytest
import trio

from stepstore.errors import OutcomeUnknown
from stepstore.journal import SegmentLogJournal
from stepstore.journal.contract import append
from stepstore.log.files import FileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import open_log
from tests.stepstore.log_lab import LOG, SMALL, A, segments, store, writing
from tests.support import HookedFileSystem


async def write(files: FileSystem, times: int, before_the_last: trio.Event | None = None) -> None:
    journal = SegmentLogJournal.open(LOG, SMALL, files)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for number in range(times):
            if number == times - 1 and before_the_last is not None:
                before_the_last.set()
                with pytest.raises(OutcomeUnknown):
                    await append(journal, A, [b"x"], expected_seq=journal.last_seq(A))
            await append(journal, A, [b"x"], expected_seq=journal.last_seq(A))
        journal.finish()
    journal.release()


async def test_a_log_in_which_nothing_goes_wrong_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    files = MemoryFileSystem()
    with caplog.at_level(logging.INFO):
        await write(files, 50)
        await write(files, 50)
    assert caplog.records == []


async def test_a_torn_tail_that_an_opening_cuts_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    files = MemoryFileSystem()
    async with writing(open_log(files, LOG, SMALL)) as writer:
        await store(writer, (A, [b"1"]))
        torn_at = writer._log.index.segments[-1].end_offset
        await store(writer, (A, [b"2" * 1_000]))
        end = writer._log.index.segments[-1].end_offset
    file = files.open(segments(files)[-1])
    file.write(end - 600, bytes(600))
    file.close()
    await write(files, 1)
    told = [record for record in caplog.records if record.name == "stepstore.log"]
    assert [record.levelname for record in told] == ["WARNING"]
    assert told[0].getMessage().startswith(f"opening the log in {LOG}: ")
    assert str(torn_at) in told[0].getMessage().replace(",", "")


async def test_a_write_that_fails_and_goes_on_in_a_new_file_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    failing = trio.Event()
    failed = 0

    def hook(operation: str, path: str) -> None:
        nonlocal failed
        if failing.is_set() and operation == "datasync" and not failed:
            failed += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    await write(HookedFileSystem(MemoryFileSystem(), hook), 3, failing)
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert len(told) == 1
    assert told[0][:2] == ("stepstore.log", "WARNING")
    assert "Input/output error" in told[0][2]
    assert "goes on in a new file" in told[0][2]
