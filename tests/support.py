"""What several test modules share: memories on an injected file layer, and file layers that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from stepstore.journal import Batch, SegmentLogJournal, Submission
from stepstore.log.files import File, FileStat, FileSystem
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.restarting import RestartPolicy
from stepwell import ExecutionStep, MemoryConfig, StepSuccess
from stepwell.memory.opening import OpenMemory

LOG = "/log"
SEGMENT_BYTES = 256 * 1024
"""Small segments: a file layer in memory holds two images of each."""

Hook = Callable[[str, str], None]
"""Called before each call of the file layer with its name and path; may raise `OSError`."""


def open_on(
    files: FileSystem,
    config: MemoryConfig | None = None,
    *,
    read_only: bool = False,
    restarts: RestartPolicy | None = None,
) -> OpenMemory:
    """`open_memory` on a file layer of the test's own."""
    return OpenMemory(LOG, config or MemoryConfig(segment_bytes=SEGMENT_BYTES), read_only, files, restarts)


def step(number: int, **fields: Any) -> ExecutionStep:
    """A small step that tells its number."""
    return ExecutionStep("tool", f"action {number}", {"n": number}, StepSuccess(f"output {number}"), **fields)


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, step: int, scope: trio.CancelScope):
        self._task, self._left, self._scope = trio.lowlevel.current_task(), step, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancelled_at_step(step: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Make a call and cancel it when its task has been woken `step` times (0: before it begins). False if it had
    returned before: then a sweep over all steps is over."""
    with trio.CancelScope() as scope:
        if step == 0:
            scope.cancel()
        instrument = _CancelAtStep(step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def force_into_log(files: FileSystem, *batches: Batch) -> None:
    """Write batches to the log at LOG without asking whether they fit: a writer that is not ours."""
    journal = SegmentLogJournal.open(LOG, files=files)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            writer = journal._writer
            assert writer is not None
            for batch in batches:
                submission = Submission([batch], 100, False, None)
                writer.queue._queue.append(submission)
                writer.queue._queued_bytes += submission.cost
                writer.queue.wake.unpark_all()
                await submission.wait()
                assert submission.error is None
            journal.finish()
    finally:
        journal.release()


class HookedFile:
    """A file that asks the hook before each call."""

    def __init__(self, file: File, path: str, hook: Hook):
        self._file, self._path, self._hook = file, path, hook

    def read(self, offset: int, size: int) -> bytes:
        self._hook("read", self._path)
        return self._file.read(offset, size)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        self._hook("write", self._path)
        return self._file.write(offset, data)

    def datasync(self) -> None:
        self._hook("datasync", self._path)
        self._file.datasync()

    def truncate(self, size: int) -> None:
        self._hook("truncate", self._path)
        self._file.truncate(size)

    def allocate(self, size: int) -> None:
        self._hook("allocate", self._path)
        self._file.allocate(size)

    def size(self) -> int:
        return self._file.size()

    def identity(self) -> tuple[int, int]:
        return self._file.identity()

    def lock(self) -> bool:
        return self._file.lock()

    def close(self) -> None:
        self._file.close()


class HookedFileSystem:
    """A file layer that asks a hook before each call that can fail."""

    def __init__(self, files: FileSystem, hook: Hook):
        self._files, self.hook = files, hook
        self.needs_thread = files.needs_thread

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        self.hook("create" if create else "open", path)
        return HookedFile(self._files.open(path, create=create, write=write), path, lambda *call: self.hook(*call))

    def stat(self, path: str) -> FileStat | None:
        return self._files.stat(path)

    def list_names(self, path: str) -> list[str]:
        return self._files.list_names(path)

    def make_directory(self, path: str) -> None:
        self.hook("make_directory", path)
        self._files.make_directory(path)

    def rename(self, source: str, target: str) -> None:
        self.hook("rename", source)
        self._files.rename(source, target)

    def link(self, source: str, target: str) -> None:
        self.hook("link", source)
        self._files.link(source, target)

    def unlink(self, path: str) -> None:
        self.hook("unlink", path)
        self._files.unlink(path)

    def sync_directory(self, path: str) -> None:
        self.hook("sync_directory", path)
        self._files.sync_directory(path)


def memory_files() -> MemoryFileSystem:
    """A fresh file layer in memory."""
    return MemoryFileSystem()
