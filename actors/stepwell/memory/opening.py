"""Opening and closing a memory."""

from __future__ import annotations

import dataclasses
import os
from types import TracebackType

import sniffio
import trio

from stepstore.catalog import CatalogOptions
from stepstore.journal import InMemoryJournal, Journal, SegmentLogJournal
from stepstore.log.batch_codec import Compression
from stepstore.log.files import FileSystem
from stepstore.log.opening import LogOptions
from stepstore.restarting import RestartPolicy
from stepwell.errors import InvalidInput, InvalidState, WrongLoop
from stepwell.memory.memory import Memory
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.projections import Projections
from stepwell.runtime.runtime import Runtime, failure_to_raise


def open_memory(
    path: str | os.PathLike[str], *, config: MemoryConfig | None = None, read_only: bool = False
) -> OpenMemory:
    """Open the memory in directory `path`, creating it if it is absent: `async with open_memory(path) as memory:`.

    `":memory:"` keeps nothing. `read_only=True` opens beside a living writer and changes nothing; each reading call
    shows what that has written by then, which may be not yet durable. Leaving the block stores everything that was
    accepted and resolves every receipt; what the body raises leaves unchanged. What could not be stored, and nobody was
    told of, is counted in a line to `logging` and in `stats()`, and raises nothing.
    Raises on entering: `InvalidInput` (not a directory, or one of something else), `LogLocked`, `CorruptLog`,
    `RecoveryFailed`, `NotFound` (only with `read_only`), `WrongLoop` (not inside Trio). On leaving: the cause, if the
    log was lost while open.
    """
    return OpenMemory(path, config, read_only, None)


class OpenMemory:
    """The async context manager that `open_memory` returns."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: MemoryConfig | None,
        read_only: bool,
        files: FileSystem | None,
        restarts: RestartPolicy | None = None,
        *,
        fresh_catalogs: bool = False,
    ):
        self._fresh_catalogs = fresh_catalogs
        self._path, self._config, self._read_only, self._files = path, config, read_only, files
        self._restarts = restarts
        self._entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Memory:
        if _current_library() != "trio":
            raise WrongLoop(
                "stepwell.open_memory is for Trio; in asyncio use stepwell.aio, in plain code stepwell.sync"
            )
        if self._entered:
            await trio.lowlevel.checkpoint()
            raise InvalidState("this open_memory(...) was entered before; call open_memory again")
        self._entered = True
        config = self._config if self._config is not None else MemoryConfig()
        try:
            if not isinstance(config, MemoryConfig):
                raise InvalidInput(f"config: must be a MemoryConfig, not {type(config).__name__}")
            if self._read_only:
                config = dataclasses.replace(config, audit=None)  # the writer keeps the audit file
            path = _checked_path(self._path)
        except InvalidInput:
            await trio.lowlevel.checkpoint()
            raise
        await trio.lowlevel.checkpoint()
        self._journal = await self._open_journal(path, config)
        try:
            projections = await self._projections(path, config)
            self._runtime = Runtime(self._journal, config, projections, self._restarts)
            self._memory = Memory(self._journal, config, self._runtime)
        except BaseException:
            self._journal.release()
            raise
        # Scopes are entered by hand so that what the body raises leaves as it is, not inside a group.
        self._host_scope = trio.CancelScope()
        self._host_scope.__enter__()
        self._host = trio.open_nursery()
        nursery = await self._host.__aenter__()
        nursery.start_soon(self._runtime.run, name="stepwell runtime")
        self._host_scope.shield = True  # a cancel meanwhile reaches the body's first checkpoint
        try:
            await self._runtime.running.wait()
        except KeyboardInterrupt:
            await self._close(in_a_hurry=True)
            raise
        self._host_scope.shield = False
        self._body_scope = trio.CancelScope()
        if config.on_failure == "cancel":
            self._runtime.cancel_on_failure(self._body_scope)
        self._body_scope.__enter__()
        return self._memory

    async def _projections(self, path: str, config: MemoryConfig) -> Projections:
        """What is kept beside the log. On a file layer of a test's own it is in memory.

        Raises: `CorruptLog` (a catalog has seen records that the log has not)."""
        on_disk = path != ":memory:" and self._files is None
        options = CatalogOptions(
            directory=path if on_disk else None,
            encrypted=config.key_provider is not None,
            read_only=self._read_only,
            # What keeps nothing has little to fold, and its tests have clocks that must not run while a thread works.
            in_threads=self._in_threads and path != ":memory:",
            believe_the_log=config.tail == "cut",
            restarts=self._restarts,
        )
        projections = Projections(self._journal, options)
        if on_disk:
            await trio.to_thread.run_sync(projections.prepare, self._fresh_catalogs)
        return projections

    @property
    def _in_threads(self) -> bool:
        return self._files is None or self._files.needs_thread

    async def _open_journal(self, path: str, config: MemoryConfig) -> Journal:
        if path == ":memory:":
            return InMemoryJournal()
        options = LogOptions(
            tail=config.tail,
            segment_bytes=config.segment_bytes,
            align=config.align,
            compression=Compression(config.compression),
            key_provider=config.key_provider,
            scrub_bytes_per_second=config.scrub_bytes_per_second,
            scrub_every_seconds=config.scrub_every_seconds,
        )

        def opening() -> Journal:
            if self._read_only:
                return SegmentLogJournal.open_read_only(path, options, self._files)
            return SegmentLogJournal.open(path, options, self._files, self._restarts)

        if self._in_threads:
            return await trio.to_thread.run_sync(opening)
        return opening()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        absorbed = bool(self._body_scope.__exit__(kind, error, traceback))
        body = None if absorbed else error
        self._memory._end_scopes()
        interrupted = await self._close(in_a_hurry=body is not None)
        left = self._runtime.left_behind
        for error_leaving in filter(None, (body, interrupted) if left else ()):
            error_leaving.add_note(f"stepwell: closing was cut short; {left} accepted records had not reached the log")
        if body is not None and self._runtime.untold:
            body.add_note(f"stepwell: the write of {self._runtime.untold} accepted records failed, and nobody was told")
        if self._runtime.failure is not None:
            raising = failure_to_raise(self._runtime.failure, body)
            if raising is not body:
                raise raising
        if interrupted is not None and (body is None or _outranks(interrupted, body)):
            raise interrupted
        return absorbed

    async def _close(self, *, in_a_hurry: bool) -> BaseException | None:
        """End the tasks, give back the log, leave the scopes. Gives the exception that came in meanwhile."""
        interrupted = await self._runtime.close(in_a_hurry=in_a_hurry)
        self._journal.release()
        # The tasks have ended; nothing of an outer cancellation may replace what the body raised.
        self._host_scope.shield = True
        try:
            await self._host.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # the runtime task never raises; a Ctrl-C can still come in
            interrupted = group.exceptions[0]
        self._host_scope.__exit__(None, None, None)
        return interrupted


def _current_library() -> str:
    try:
        return sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return ""


def _outranks(interrupted: BaseException, body: BaseException) -> bool:
    """A Ctrl-C during closing must not be swallowed, even if the body had failed with something else."""
    return isinstance(interrupted, KeyboardInterrupt) and not isinstance(body, KeyboardInterrupt | trio.Cancelled)


def _checked_path(path: object) -> str:
    if not isinstance(path, str | os.PathLike):
        raise InvalidInput(f"path: must be text or a path, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInput("path: must name a directory as text")
    return text if text == ":memory:" else os.path.abspath(text)
