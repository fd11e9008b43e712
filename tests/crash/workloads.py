"""What the crash suites do to a log: operations, each a small function, and the life of the log that they act on.

A `Life` is one log through several processes. It sends unique payloads, notes in a `Ledger` what it was told about
each, and opens the log again where an operation ends the process. `OPERATIONS` is the alphabet.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Any, NamedTuple
from unittest import mock
from uuid import UUID

import trio
from trio.testing import MockClock

from stepstore.errors import InvalidState, Rejected, StepwellError
from stepstore.journal.contract import (
    FLAG_CLOSES,
    FLAG_OPENS,
    FLAG_SNAPSHOT,
    FLAG_TOMBSTONE,
    Batch,
    Submission,
)
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash.checker import (
    LOG,
    Attempt,
    Broken,
    Expectation,
    Fate,
    Found,
    Violation,
    Wrong,
    declared,
    judge,
    read_streams,
)
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

    def settle(self, found: Found) -> None:
        """Note what an opening has shown."""
        self._attempts = list(self.now().settled(found).attempts)
        self.version += 1


def stream_id(name: str) -> bytes:
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
        self._written: set[str] = set()
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
        self.ledger.settle(found)
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
            with trio.CancelScope(shield=True):
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
            with_cause = Broken([Violation(Wrong.REFUSAL, f"{type(submission.error).__name__}: {submission.error}")])
            self.forgive(with_cause)

    async def call(self, name: str, *arguments: Any, **named: Any) -> bool:
        """Call an asynchronous method of the journal; False if it refused."""
        assert self.journal is not None
        try:
            with self._patience(name), declared(Wrong.REFUSAL, name):
                await getattr(self.journal, name)(*arguments, **named)
        except Broken as broken:
            self.forgive(broken)
            return False
        return True


def payload(tag: str, size: int) -> bytes:
    """A unique payload; a large one has long runs of NUL between a few other bytes, as real tool output has."""
    start = f"<{tag}>".encode()
    if size <= len(start):
        return start
    return (start + (bytes(1200) + b"some text behind the NULs" + start) * (size // 1200 + 1))[:size] + start


# ---- operations ------------------------------------------------------------------------------------------------------


async def append(life: Life) -> None:
    """One batch of one record."""
    await life.sent(life.send((life.stream("A"), 1, 0, 0)))


async def append_to_several(life: Life) -> None:
    """One submission to three streams; one of them begins and ends with it."""
    brief = stream_id(f"brief {len(life.ledger)}")
    await life.sent(life.send((life.stream("A"), 2, 0, 0), (life.stream("B"), 3, 0, 0), (brief, 1, 0, FLAG_CLOSES)))


async def append_large(life: Life) -> None:
    """A record of several sectors, some of them all zero."""
    await life.sent(life.send((life.stream("B"), 1, 3000, 0)))


async def burst(life: Life) -> None:
    """Submissions that queue behind one another and share a frame."""
    streams = (life.stream("A"), life.stream("C"), life.stream("A"))
    for submission in [life.send((stream, 1, 100, 0)) for stream in streams]:
        await life.sent(submission)


async def close(life: Life) -> None:
    """A clean stop, and open again."""
    await life.close()
    await life.open()


async def kill(life: Life) -> None:
    """The process dies with an append on its way: all of it is in the page cache, nothing is synced."""
    await _die_while_appending(life, lambda disk: disk.page_cache_copy())


async def cut_power(life: Life) -> None:
    """The power goes with an append on its way: of the last write every other sector makes it, of the rest all."""

    def torn(disk: MemoryFileSystem) -> MemoryFileSystem:
        items = disk.unsynced()
        kept = {item.number: (1 << item.pieces) - 1 for item in items}
        last = [item for item in items if item.kind == "write"][-1]
        # A medium that keeps the order of writing tears a write once, and has nothing behind the tear.
        kept[last.number] = 1 if life.setting.in_order else kept[last.number] & 0x55555555
        return disk.image(kept)

    await _die_while_appending(life, torn)


async def _die_while_appending(life: Life, left: Callable[[MemoryFileSystem], MemoryFileSystem]) -> None:
    written: set[str] = set()
    image: list[MemoryFileSystem] = []

    def die_at(call: Call) -> bool:
        if call.operation == "write" and call.path.endswith(".seg"):
            written.add(call.path)
        if not image and call.operation == "datasync" and call.path in written:
            image.append(left(life.disk))
        return bool(image)

    life.die_at = die_at
    await life.sent(life.send((life.stream("C"), 2, 1300, 0)))
    await life.die(*image)
    await life.open()


async def look(life: Life) -> None:
    """Read all that is there."""
    assert life.journal is not None
    try:
        found = await read_streams(life.journal, life.ledger.now())
    except Broken as broken:
        life.forgive(broken)
    else:
        life.judge(found)


async def idle(life: Life) -> None:
    """Nothing is sent for a while."""
    await trio.sleep(7)


async def rotate(life: Life) -> None:
    """Go on in another segment."""
    await life.call("rotate")


async def delete(life: Life) -> None:
    """Delete a stream; its role goes to another one. If there is none, one is made."""
    role = next((r for r in "BAC" if life.last_seq(life.stream(r))), "B")
    if not life.last_seq(life.stream(role)):
        await life.sent(life.send((life.stream(role), 1, 0, 0)))
    await life.sent(life.send((life.stream(role), 1, 0, FLAG_CLOSES | FLAG_TOMBSTONE)))
    life.replace(role)


async def compact(life: Life) -> None:
    """Rewrite what holds dead records."""
    await life.call("compact")


async def purge(life: Life) -> None:
    """Rewrite whatever holds a record of a deleted stream."""
    deleted = frozenset(s for s, fate in life.ledger.now().deletions.items() if fate is Fate.STORED)
    if await life.call("compact", purge=True):
        life.ledger.purged(deleted)


async def snapshot(life: Life) -> None:
    """A record with an LSN and no seq."""
    stream = life.stream("A")
    if not life.last_seq(stream):
        await life.sent(life.send((stream, 1, 0, 0)))
    await life.sent(life.send((stream, 1, 700, FLAG_SNAPSHOT)))


class Operation(NamedTuple):
    """One letter of the alphabet. It is used once the journal has the method `needs`."""

    name: str
    act: Callable[[Life], Awaitable[None]]
    needs: str = "submit"


ALPHABET = (
    Operation("append", append),
    Operation("several", append_to_several),
    Operation("large", append_large),
    Operation("burst", burst),
    Operation("close", close),
    Operation("kill", kill),
    Operation("cut", cut_power),
    Operation("idle", idle),
    Operation("rotate", rotate, "rotate"),
    # Of deletions and snapshots the format and the readers come before the writer, which comes with compaction.
    Operation("delete", delete, "compact"),
    Operation("snapshot", snapshot, "compact"),
    Operation("compact", compact, "compact"),
    Operation("purge", purge, "compact"),
)
LOOK = Operation("look", look)
"""No letter, since it changes nothing."""

OPERATIONS = tuple(operation for operation in ALPHABET if hasattr(SegmentLogJournal, operation.needs))
MISSING = tuple(operation.name for operation in ALPHABET if operation not in OPERATIONS)
"""Letters for which the journal has no method yet."""

Workload = tuple[Operation, ...]


# ---- the same every time ---------------------------------------------------------------------------------------------


class Dice:
    """Where ids, tags and times come from in a run that can be repeated."""

    def __init__(self) -> None:
        self._random = Random()

    def throw_anew(self, seed: int) -> None:
        self._random.seed(seed)
        trio._core._run._r.seed(seed)  # Trio shuffles runnable tasks on purpose

    def randbits(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def uuid4(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)


@contextmanager
def deterministic() -> Iterator[Dice]:
    """The same ids, times and order of tasks in every run, and a small reserve, since disks are copied by the hundred
    thousand."""
    dice = Dice()
    with ExitStack() as stack:
        for target, value in (
            ("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True),
            ("secrets.randbits", dice.randbits),
            ("uuid.uuid4", dice.uuid4),
            ("time.time_ns", lambda: 1_709_164_800_000_000_000),
            ("stepstore.log.reserve.RESERVE_BYTES", 2048),
        ):
            stack.enter_context(mock.patch(target, value))
        stack.enter_context(mock.patch.object(logging.getLogger("stepstore.log"), "disabled", True))
        yield dice


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run on a clock that jumps ahead when nothing else can happen.

    Raises: the `Broken` that came out of it, freed of the groups of its nurseries.
    """
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        broken, others = group.split(Broken)
        if broken is None or others is not None:
            raise
        raise _first(broken) from None


def _first(group: BaseExceptionGroup[Broken]) -> Broken:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
