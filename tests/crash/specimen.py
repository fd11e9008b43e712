"""Logs made to order for the suites that spoil files: the same bytes for the same seed, and what is stored in them.

A specimen is written through the public journal on the in-memory file layer, so it holds whatever files the log makes
today; nobody here lists them by name. `LOCK` (who holds it, for people), `reserve` and `quarantine` hold nothing that
is read back and are exempt from spoiling.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from unittest.mock import patch

import trio
import trio.testing

from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, Record
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.batch_codec import Compression
from stepstore.log.frame import KIND_FLAGS, SECTOR
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.stepstore.log_lab import LOG, FoundFrame, content, frames_of, put, segments, stream_id, tree, with_nul_runs

Image = Mapping[str, bytes | None]
"""What a disk holds: the content of files by path, None for directories."""

KIBIBYTE = 1024
LOG_BYTES = 64 * KIBIBYTE
STREAMS = [stream_id(f"stream {n}") for n in range(16)]
_EXEMPT = frozenset({"LOCK", "reserve", "quarantine"})


@contextmanager
def fixed_randomness(seed: int) -> Iterator[None]:
    """Ids, tags and times of creation come from the seed; the reserve is small, since it is copied for every case."""
    dice = random.Random(seed)
    with ExitStack() as patches:
        patches.enter_context(patch.object(secrets, "randbits", dice.getrandbits))
        patches.enter_context(patch.object(secrets, "token_bytes", lambda size=32: dice.randbytes(size)))
        patches.enter_context(patch.object(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4)))
        patches.enter_context(patch.object(time, "time_ns", lambda: 1_709_164_800_000_000_000))
        patches.enter_context(patch("stepstore.log.reserve.RESERVE_BYTES", KIBIBYTE))
        # Trio shuffles runnable tasks on purpose; here the seed decides that as well.
        patches.enter_context(patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True))
        patches.enter_context(patch("trio._core._run._r", dice))
        yield


def disk_with(image: Image) -> MemoryFileSystem:
    """A file layer that holds these files. What a power cut would leave of them is of no interest here."""
    files = MemoryFileSystem()
    put_files(files, image)
    return files


def put_files(files: MemoryFileSystem, image: Image) -> None:
    """Put these files on an empty file layer."""
    for path in sorted(image):  # a directory before what is in it
        data = image[path]
        if data is None:
            files.make_directory(path)
            continue
        file = files.open(path, create=True)
        if data:
            file.write(0, data)
        file.close()


def is_exempt(path: str) -> bool:
    """Whether nothing in this file is ever read back, so that spoiling it means nothing."""
    return not _EXEMPT.isdisjoint(posixpath.relpath(path, LOG).split("/"))


class Stored(NamedTuple):
    """A record and, on the first one of a batch, the batch's FLAG_…. The `seq` of a snapshot is the last it covers."""

    record: Record
    flags: int

    @property
    def is_snapshot(self) -> bool:
        """Whether it takes no number of its stream."""
        return self.flags & KIND_FLAGS == FLAG_SNAPSHOT


@dataclass(frozen=True)
class Contents:
    """What readers are to find in a log: the events in log order (of a deleted stream its tombstone only), the streams
    that are not deleted, the open and the deleted ones, and the newest snapshots."""

    end_lsn: int
    events: Sequence[Record]
    streams: Mapping[bytes, Sequence[Record]]
    open_streams: frozenset[bytes]
    deleted: frozenset[bytes]
    snapshots: Mapping[bytes, Record]


@dataclass(frozen=True)
class Specimen:
    """A log: its files, and its records group by group. `clean`: whether it was closed in order."""

    name: str
    image: Image
    groups: Sequence[Sequence[Stored]]
    options: LogOptions
    clean: bool
    _prefixes: dict[int, Contents] = field(default_factory=dict, compare=False, repr=False)

    @functools.cached_property
    def group_ends(self) -> Mapping[int, int]:
        """LSN → how many whole groups end with it."""
        ends = {0: 0}
        ends.update((group[-1].record.lsn, number) for number, group in enumerate(self.groups, 1))
        return ends

    def contents(self, groups: int) -> Contents:
        """What the first `groups` groups hold."""
        known = self._prefixes.get(groups)
        if known is None:
            known = self._prefixes[groups] = _contents_of([s for group in self.groups[:groups] for s in group])
        return known

    @functools.cached_property
    def files(self) -> Mapping[str, bytes]:
        """The files that may be spoiled: all but those that hold nothing."""
        return {path: data for path, data in sorted(self.image.items()) if data is not None and not is_exempt(path)}

    @functools.cached_property
    def segments(self) -> Sequence[str]:
        """The paths of the segments, in order."""
        return [path for path in self.files if path.endswith(".seg")]

    @property
    def newest(self) -> str:
        """The path of the newest segment."""
        return self.segments[-1]

    @functools.cached_property
    def frames(self) -> Mapping[str, Sequence[FoundFrame]]:
        """The frames of each segment that hold records."""
        disk = disk_with(self.image)
        return {path: [f for f in frames_of(disk, path) if f.head.record_count] for path in self.segments}

    @functools.cached_property
    def last_group(self) -> tuple[int, int]:
        """Where the last group lies in the newest segment: the offset of its frame, and the one behind it."""
        frame = self.frames[self.newest][-1]
        return frame.at, frame.end


def _contents_of(stored: Sequence[Stored]) -> Contents:
    events: list[Stored] = []
    streams: dict[bytes, list[Record]] = {}
    open_streams: set[bytes] = set()
    deleted: set[bytes] = set()
    snapshots: dict[bytes, Record] = {}
    for item in stored:
        record, flags = item
        if item.is_snapshot:
            snapshots[record.stream] = record
            continue
        events.append(item)
        streams.setdefault(record.stream, []).append(record)
        if flags & FLAG_CLOSES:
            open_streams.discard(record.stream)
        elif flags & FLAG_OPENS:
            open_streams.add(record.stream)
        if flags & KIND_FLAGS == FLAG_TOMBSTONE:
            deleted.add(record.stream)
    for stream in deleted:
        del streams[stream]
        snapshots.pop(stream, None)
    end_lsn = stored[-1].record.lsn if stored else 0
    seen = [record for record, flags in events if record.stream not in deleted or flags & KIND_FLAGS == FLAG_TOMBSTONE]
    return Contents(end_lsn, seen, streams, frozenset(open_streams), frozenset(deleted), snapshots)


# ---- writing ---------------------------------------------------------------------------------------------------------

Group = Sequence[tuple[bytes, Sequence[bytes], int]]
"""What goes into one commit group: (stream, payloads, flags) per batch."""
Workload = Callable[[random.Random], Iterator[Group]]
SETTLE, IDLE = 0.5, 2.0
"""Seconds, of a clock that jumps: enough for the caretaker to write footers and sidecars; enough for a mark, too."""


async def store_groups(
    files: MemoryFileSystem,
    groups: Sequence[Group],
    options: LogOptions,
    *,
    close: bool,
    pause: float = 0,
    compact: bool = False,
) -> list[list[Stored]]:
    """Open the log, perhaps compact it, store each group as one frame with a pause before it, then crash, or `close` in
    order."""
    stored: list[list[Stored]] = []
    journal = SegmentLogJournal.open(LOG, options, files)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            if compact:
                await journal.compact()
            for group in groups:
                await trio.sleep(pause)
                stored.append(await _store(journal, group))
            if close:
                journal.finish()
            else:
                nursery.cancel_scope.cancel()
    finally:
        journal.release()
    return stored


async def _store(journal: SegmentLogJournal, group: Group) -> list[Stored]:
    batches: list[Batch] = []
    last: dict[bytes, int] = {}
    for stream, payloads, flags in group:
        before = last.get(stream, journal.last_seq(stream))
        if flags & KIND_FLAGS == FLAG_SNAPSHOT:
            batches.append(Batch(stream, before, payloads, flags))
        else:
            batches.append(Batch(stream, before + 1, payloads, flags))
            last[stream] = before + len(payloads)
    submission = journal.submit(batches)
    await submission.wait()
    if submission.error is not None:
        raise submission.error
    stored: list[Stored] = []
    for batch in batches:
        for n, payload in enumerate(batch.payloads):
            record = Record(batch.stream, batch.first_seq + n, submission.first_lsn + len(stored), payload)
            stored.append(Stored(record, batch.flags if n == 0 else 0))
    return stored


def _write(
    files: MemoryFileSystem,
    groups: Sequence[Group],
    options: LogOptions,
    *,
    close: bool,
    pause: float = SETTLE,
    compact: bool = False,
) -> list[list[Stored]]:
    store = functools.partial(store_groups, files, groups, options, close=close, pause=pause, compact=compact)
    return trio.run(store, clock=trio.testing.MockClock(autojump_threshold=0))


def _payload(dice: random.Random) -> bytes:
    kind = dice.randrange(10)
    if kind < 5:
        return dice.randbytes(dice.randrange(1, 120))
    if kind == 5:
        return b""
    if kind == 6:
        return with_nul_runs(dice.randrange(600, 2500), dice.randrange(100))
    if kind == 7:
        return dice.randbytes(dice.randrange(200, 1200))
    return b"text of a tool, again and again. " * dice.randrange(1, 20)


class _Lives:
    """Gives batches the flags that open their stream, close it now and then, or open it again."""

    def __init__(self, dice: random.Random):
        self._dice, self._open, self._seen = dice, set[bytes](), set[bytes]()

    def flags(self, stream: bytes) -> int:
        """Of the next batch of a stream."""
        if stream not in self._seen or (stream not in self._open and self._dice.random() < 0.3):
            self._seen.add(stream)
            self._open.add(stream)
            return FLAG_OPENS
        if stream not in self._open or self._dice.random() < 0.8:
            return 0
        self._open.discard(stream)
        return FLAG_CLOSES

    @property
    def seen(self) -> list[bytes]:
        """Streams that have a record."""
        return sorted(self._seen)


def mixed(dice: random.Random, *, deletions: int = 3) -> Iterator[Group]:
    """Many streams, batches big and small, runs of NULs; snapshots; a few streams are deleted."""
    lives = _Lives(dice)
    streams = list(STREAMS)
    for number in itertools.count(1):
        group: list[tuple[bytes, list[bytes], int]] = []
        for _ in range(dice.choice([1, 1, 2, 4])):
            stream = dice.choice(streams)
            payloads = [_payload(dice) for _ in range(dice.choice([1, 1, 1, 3, 8]))]
            group.append((stream, payloads, lives.flags(stream)))
            if dice.random() < 0.15:
                group.append((stream, [b"a snapshot " * dice.randrange(1, 20)], FLAG_SNAPSHOT))
        if number % 4 == 0 and len(streams) > len(STREAMS) - deletions:
            stream = dice.choice([stream for stream in lives.seen if stream in streams])
            streams.remove(stream)
            group.append((stream, [b"deleted"], FLAG_CLOSES | FLAG_TOMBSTONE))
        yield group


def small(dice: random.Random) -> Iterator[Group]:
    """One short record of one of three streams at a time."""
    lives = _Lives(dice)
    while True:
        stream = dice.choice(STREAMS[:3])
        yield [(stream, [dice.randbytes(dice.randrange(0, 400))], lives.flags(stream))]


def sealed(
    seed: int, workload: Workload = mixed, *, size: int = LOG_BYTES, options: LogOptions | None = None
) -> Specimen:
    """A log closed in order, with just as many groups as make its segments together `size` bytes long, or longer; six
    at least."""
    options = replace(options or LogOptions(), segment_bytes=max(size // 4, 2 * KIBIBYTE))
    supply = workload(random.Random(seed))
    groups: list[Group] = []
    while True:
        groups.append(next(supply))
        disk = MemoryFileSystem()
        with fixed_randomness(seed):
            stored = _write(disk, groups, options, close=True)
        if len(groups) >= 6 and _segment_bytes(disk) >= size:
            return Specimen(f"sealed, {workload.__name__}", tree(disk), stored, options, clean=True)


class PlainKeys:
    """A key provider that hides nothing, and needs no library."""

    def wrap(self, key: bytes) -> bytes:
        return key[::-1]

    def unwrap(self, wrapped: bytes) -> bytes:
        return wrapped[::-1]


def encrypted(seed: int) -> Specimen:
    """A short log closed in order, compressed and encrypted."""
    options = LogOptions(compression=Compression("zstd"), key_provider=PlainKeys())
    return replace(sealed(seed, size=8 * KIBIBYTE, options=options), name="sealed, encrypted", _prefixes={})


def compacted(seed: int) -> Specimen:
    """A log of small segments that were merged without their superseded snapshots; then it was written on, compacted
    once more, and closed. Nothing was deleted: when a tombstone goes is compaction's own affair."""
    options = LogOptions(segment_bytes=LOG_BYTES)
    supply = mixed(random.Random(seed), deletions=0)
    disk = MemoryFileSystem()
    stored: list[list[Stored]] = []
    with fixed_randomness(seed):
        for life in range(6):
            groups = [next(supply), [(STREAMS[0], [b"a record"], 0)], [_snapshot(life)]]
            stored += _write(disk, groups, options, close=True, compact=life in (3, 5))
    return Specimen("compacted", tree(disk), stored, options, clean=True)


def _snapshot(life: int) -> tuple[bytes, Sequence[bytes], int]:
    return STREAMS[0], [b"as of life %d " % life * 20], FLAG_SNAPSHOT


def several_lives(seed: int, *, size: int = LOG_BYTES // 2) -> Specimen:
    """A log with 512-byte groups that was closed, killed while idle, and torn by a crash in turn until it had `size`
    bytes, and then once more, and closed. Segments that were not closed have sidecars."""
    options = LogOptions(segment_bytes=max(size // 4, 2 * KIBIBYTE), align=512)
    supply = mixed(random.Random(seed))
    disk = MemoryFileSystem()
    stored: list[list[Stored]] = []
    with fixed_randomness(seed):
        for life in itertools.count():
            last = _segment_bytes(disk) >= size
            groups = [next(supply) for _ in range(2)]
            pause = IDLE if life % 3 == 1 else SETTLE
            stored += _write(disk, groups, options, close=last or life % 3 == 0, pause=pause)
            if last:
                break
            if life % 3 == 2:
                _tear(disk)
    return Specimen("several lives", tree(disk), stored, options, clean=True)


def _segment_bytes(disk: MemoryFileSystem) -> int:
    """Bytes in segments, without space set aside."""
    return sum(len(data.rstrip(b"\0")) for path, data in tree(disk).items() if data and path.endswith(".seg"))


def _tear(disk: MemoryFileSystem) -> None:
    """Leave what a crash leaves of a frame whose first sector did not reach the medium."""
    newest = segments(disk)[-1]
    end = frames_of(disk, newest)[-1].end
    if end + 3 * SECTOR < len(content(disk, newest)):
        put(disk, newest, b"the rest of a torn frame", at=(end // SECTOR + 2) * SECTOR)


def unclean(seed: int, name: str, last: Group, *, pause: float = SETTLE) -> Specimen:
    """A short log, killed, opened again, and killed behind a last group made to order, which nothing proves durable."""
    options = LogOptions(segment_bytes=8 * KIBIBYTE)
    disk = MemoryFileSystem()
    with fixed_randomness(seed):
        supply = mixed(random.Random(seed))
        stored = _write(disk, [next(supply) for _ in range(2)], options, close=False)
        first = next(small(random.Random(seed)))
        stored += _write(disk, [first, last], options, close=False, pause=pause)
    return Specimen(f"unclean, {name}", tree(disk), stored, options, clean=False)


def unclean_logs(seed: int) -> list[Specimen]:
    """Last groups that a rotten bit could make look torn: runs of NULs, alone and beside text; one lone bit."""
    text, runs = b"what a tool printed " * 20, with_nul_runs(3000, 7)
    lone = bytes(1200) + b"\x10" + bytes(1200)
    return [
        unclean(seed, "NUL runs", [(STREAMS[0], [text, b"", runs], 0), (STREAMS[1], [runs[:700], text], 0)]),
        unclean(seed, "NULs behind a mark", [(STREAMS[2], [bytes(2600)], FLAG_CLOSES)], pause=IDLE),
        unclean(seed, "a lone bit", [(STREAMS[2], [text, lone, b"end"], 0)]),
    ]
