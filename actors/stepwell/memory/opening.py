"""Opening and closing a memory."""

from __future__ import annotations

import dataclasses
import os
from types import TracebackType
from typing import TYPE_CHECKING

import sniffio
import trio

from stepwell.errors import InvalidInput, InvalidState, StepwellError, WrongLoop
from stepwell.runtime.config import MemoryConfig

if TYPE_CHECKING:  # loaded when a memory is opened, and not by `import stepwell`
    from stepstore.journal import Journal
    from stepstore.log.files import FileSystem
    from stepstore.restarting import RestartPolicy
    from stepwell.memory.memory import Memory


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
        from stepwell.memory import assembling  # loaded by now

        # On a file layer of a test's own, what is kept beside the log is in memory.
        directory = path if path != ":memory:" and self._files is None else None
        try:
            projections = assembling.projections_of(
                self._journal,
                directory,
                config,
                read_only=self._read_only,
                in_threads=self._in_threads(path),
                restarts=self._restarts,
            )
            if directory is not None:
                await trio.to_thread.run_sync(projections.prepare, self._fresh_catalogs)
            self._runtime, self._memory = assembling.assembled(self._journal, config, projections, self._restarts)
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

    def _in_threads(self, path: str) -> bool:
        """What keeps nothing has little to do, and its tests have clocks that must not run while a thread works."""
        return path != ":memory:" and (self._files is None or self._files.needs_thread)

    async def _open_journal(self, path: str, config: MemoryConfig) -> Journal:
        def opening() -> Journal:
            # The first time in a process this loads what only an open memory needs, for some 50 ms.
            from stepwell.memory.assembling import open_journal

            return open_journal(path, config, self._read_only, self._files, self._restarts)

        if self._in_threads(path):
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
            raising = _failure_to_raise(self._runtime.failure, body)
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


def _failure_to_raise(cause: BaseException, body: BaseException | None) -> BaseException:
    """When the runtime failed: the cause alone, or in a group with the body's error."""
    cause.add_note("the memory failed with this while it was open; what was acknowledged as durable is on disk")
    if body is None or isinstance(body, trio.Cancelled):
        return cause
    if isinstance(body, StepwellError) and _is_same(body.__cause__, cause):
        return body
    return BaseExceptionGroup("the memory failed, and so did the code that used it", [cause, body])


def _is_same(told: BaseException | None, cause: BaseException) -> bool:
    """Whether this is the failure that a caller was told of: perhaps `afresh`, so another object."""
    return told is not None and type(told) is type(cause) and told.args == cause.args


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
