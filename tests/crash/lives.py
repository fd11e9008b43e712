"""One log through the lives of several processes: what it is sent, and what the sender was told.

A `Life` sends unique payloads, notes in its `Ledger` what it was told about each, and opens the log again behind the
end of a process. Whatever an opening shows is judged, and promised from then on.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import trio

from stepstore.errors import InvalidState, LogFull, Rejected, StepwellError
from stepstore.journal.contract import FLAG_OPENS, FLAG_SNAPSHOT, Batch, Submission
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash.checker import Broken, Violation, Wrong, judge
from tests.crash.examining import LOG, declared, read_streams
from tests.crash.promises import Attempt, Expectation, Fate, Found
from tests.crash.watching import Call, Stopped, WatchedFiles

PATIENCE = 3600.0
"""Seconds of the simulated clock, which jumps when nothing else can happen, until a wait counts as endless."""


class Setting(NamedTuple):
    """How a log is laid out, and what the medium under it does.

    `in_order`: the medium cannot set space aside, and keeps what is written in the order of writing.
    """

    name: str
    options: LogOptions
    in_order: bool = False

    def answer(self, call: Call) -> None:
        """Raises what the medium of this setting answers to a call."""
        if self.in_order and call.operation == "allocate":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), call.path)


SETTINGS = (
    Setting("roomy", LogOptions(segment_bytes=8192)),
    Setting("tiny", LogOptions(segment_bytes=1024)),
    Setting("sectors", LogOptions(segment_bytes=3072, align=512)),
    Setting("pages", LogOptions(segment_bytes=16384, align=4096)),
    Setting("appending", LogOptions(segment_bytes=3072), in_order=True),
)


class Ledger:
    """What was sent, and what the sender was told. `version` grows with every change of it."""

    def __init__(self, promised: Expectation) -> None:
        self._attempts, self._purged = list(promised.attempts), promised.purged
        self.version = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def now(self) -> Expectation:
        """What is promised at this moment."""
        return Expectation(list(self._attempts), self._purged)

    def add(self, batches: Sequence[Batch]) -> int:
        """Note what is about to be sent; gives its number."""
        number = len(self._attempts)
        self._attempts.append((Attempt(number, batches), Fate.UNDER_WAY, 0))
        self.version += 1
        return number

    def learn(self, number: int, fate: Fate, first_lsn: int = 0) -> None:
        """Note what the sender was told."""
        self._attempts[number] = (self._attempts[number][0], fate, first_lsn)
        self.version += 1

    def purged(self, streams: frozenset[bytes]) -> None:
        """Note that of these streams nothing is left."""
        self._purged |= streams
        self.version += 1

    def settle(self, found: Found, *, for_good: bool) -> None:
        """Note what an opening has shown."""
        self._attempts = list(self.now().settled(found, for_good=for_good).attempts)
        self.version += 1


def stream_id(name: str) -> bytes:
    """The id of a stream with this name."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


class Life:
    """One log through the lives of several processes, in a nursery that outlives them.

    `before` sees every call of the file layer in front of it. `on_stored` is called at each acknowledgement. It begins
    on an empty disk, or on one of which something is `promised`.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        setting: Setting,
        before: Callable[[Call], int | None],
        *,
        on_stored: Callable[[], None] = lambda: None,
        disk: MemoryFileSystem | None = None,
        promised: Expectation | None = None,
    ):
        self._nursery, self.setting, self._before, self._on_stored = nursery, setting, before, on_stored
        self.ledger = Ledger(promised or Expectation())
        self.disk = disk or MemoryFileSystem()
        self.processes = 0
        self.files = self._begin()
        self.journal: SegmentLogJournal | None = None
        self.die_at: Callable[[Call], bool] | None = None
        self.left: MemoryFileSystem | None = None  # the disk that the death of the process left
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._replaced: dict[str, int] = {}

    # ---- processes ---------------------------------------------------------------------------------------------------

    def _begin(self) -> WatchedFiles:
        self.processes += 1
        return WatchedFiles(self.disk, self._watch)

    def _watch(self, call: Call) -> int | None:
        if self.left is not None:
            raise Stopped
        self.setting.answer(call)
        limit = self._before(call)
        if self.die_at is not None and self.die_at(call):
            raise Stopped
        return limit

    async def open(self) -> bool:
        """Open the log if it is not open; read it, judge what it holds, and note what became of what was open.

        False where it cannot be opened, which a healthy medium gives no reason for.
        """
        if self.journal is not None:
            return True
        try:
            with declared(Wrong.NOT_OPENED, "opening"):
                journal = SegmentLogJournal.open(LOG, self.setting.options, self.files)
        except Broken as broken:
            self.forgive(broken)
            return False
        try:
            found = await read_streams(journal, self.ledger.now())
        except Broken as broken:
            journal.release()
            self.forgive(broken)
            return False
        self.judge(found)
        self.ledger.settle(found, for_good=not _is_full(journal))
        self.journal, self._scope, self._ended = journal, trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._run, journal, self._scope, self._ended)
        return True

    async def _run(self, journal: SegmentLogJournal, scope: trio.CancelScope, ended: trio.Event) -> None:
        try:
            with declared(Wrong.UNDECLARED, "running"), scope:
                try:
                    await journal.run()
                except* Stopped:
                    pass
        finally:
            ended.set()

    async def close(self) -> None:
        """Stop in order."""
        if self.journal is not None:
            self.journal.finish()
            with self._patience("closing"):
                await self._ended.wait()
            with declared(Wrong.UNDECLARED, "giving back what is open"):
                self.journal.release()
            self.journal = None

    async def die(self, left: MemoryFileSystem | None = None) -> None:
        """End the process at once; the next one finds the disk `left`, by default with its page cache."""
        self.die_at = None
        self.left = self.disk.page_cache_copy() if left is None else left
        if self.journal is not None:
            self._scope.cancel()
            with self._patience("dying"):
                await self._ended.wait()
            with suppress(Stopped):
                self.journal.release()
            self.journal = None
        self.disk, self.left = self.left, None
        self.files = self._begin()

    def judge(self, found: Found) -> None:
        """Raises: `Broken` if what was found breaks a promise."""
        if wrong := judge(self.ledger.now(), found):
            raise Broken(wrong)

    @contextmanager
    def _patience(self, doing: str) -> Iterator[None]:
        with trio.move_on_after(PATIENCE) as scope:
            yield
        if scope.cancelled_caught:
            raise Broken([Violation(Wrong.STUCK, doing)])

    def forgive(self, broken: Broken) -> None:
        """Called when the log does not open, cannot be read, or refuses. On a healthy medium there is no excuse."""
        raise broken

    # ---- sending -----------------------------------------------------------------------------------------------------

    def stream(self, role: str) -> bytes:
        """The stream that plays a role now; once deleted, its successor does."""
        return stream_id(f"{role}{self._replaced.get(role, 0)}")

    def replace(self, role: str) -> None:
        """Give a role to a new stream."""
        self._replaced[role] = self._replaced.get(role, 0) + 1

    def last_seq(self, stream: bytes) -> int | None:
        """The last sequence number of a stream, None if the journal cannot tell."""
        assert self.journal is not None
        try:
            with declared(Wrong.NOT_READ, "finding the end of a stream"):
                return self.journal.last_seq(stream)
        except Broken as broken:
            self.forgive(broken)
            return None

    def send(self, *parts: tuple[bytes, int, int, int]) -> Submission | None:
        """Submit batches, each (stream, records, bytes of each record, flags). None if that is refused at the door."""
        assert self.journal is not None
        last: dict[bytes, int] = {}
        batches: list[Batch] = []
        number = len(self.ledger)
        for stream, records, size, flags in parts:
            before = last[stream] if stream in last else self.last_seq(stream)
            if before is None:
                return None
            payloads = [payload(f"{number}.{len(batches)}.{n}", size) for n in range(records)]
            first_seq = before if flags & FLAG_SNAPSHOT else before + 1
            batches.append(Batch(stream, first_seq, payloads, flags if before else flags | FLAG_OPENS))
            last[stream] = before + records
        self.ledger.add(batches)

        def on_done(submission: Submission) -> None:
            with declared(Wrong.REFUSAL, "storing"):
                if submission.error is not None and not isinstance(submission.error, StepwellError):
                    raise submission.error
            if submission.error is None:
                self.ledger.learn(number, Fate.STORED, submission.first_lsn)
                self._on_stored()
            else:
                refused = isinstance(submission.error, (Rejected, InvalidState))
                self.ledger.learn(number, Fate.REFUSED if refused else Fate.UNKNOWN)

        try:
            with declared(Wrong.REFUSAL, "submitting"):
                return self.journal.submit(batches, on_done=on_done)
        except Broken as broken:
            self.ledger.learn(number, Fate.REFUSED)  # what raises has queued nothing
            self.forgive(broken)
            return None

    async def sent(self, submission: Submission | None) -> None:
        """Wait until the fate of a submission is known."""
        if submission is None:
            return
        with self._patience("waiting for a submission"):
            await submission.wait()
        if submission.error is not None and self.die_at is None:
            refusal = Broken([Violation(Wrong.REFUSAL, f"{type(submission.error).__name__}: {submission.error}")])
            refusal.__cause__ = submission.error
            self.forgive(refusal)

    async def call(self, method: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> bool:
        """Call an asynchronous method of the journal; False if it refused."""
        try:
            with self._patience(method.__name__), declared(Wrong.REFUSAL, method.__name__):
                await method(*arguments, **named)
        except Broken as broken:
            self.forgive(broken)
            return False
        return True


def _is_full(journal: SegmentLogJournal) -> bool:
    """Whether the medium had no room for what the opening had to mend; it will be mended once there is room."""
    try:
        journal.check_open()
    except LogFull:
        return True
    except StepwellError:
        pass
    return False


def payload(tag: str, size: int) -> bytes:
    """A unique payload; a large one has long runs of NUL between a few other bytes, as real tool output has."""
    start = f"<{tag}>".encode()
    if size <= len(start):
        return start
    return (start + (bytes(1200) + b"some text behind the NULs" + start) * (size // 1200 + 1))[:size] + start
