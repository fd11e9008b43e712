"""Open a log: lock it, recover it, repair it; or look at it without touching anything."""

from __future__ import annotations

import contextlib
import errno
import itertools
import posixpath
import time
from collections import deque
from dataclasses import dataclass, field

from stepstore.errors import RecoveryFailed
from stepstore.log.batch_codec import BatchCodec, Compression
from stepstore.log.directory import Identity, LogLock, must_exist, prepare
from stepstore.log.files import FileSystem
from stepstore.log.forking import watch_forks
from stepstore.log.frame import SECTOR
from stepstore.log.index import LogIndex
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.key_provider import KeyProvider
from stepstore.log.key_ring import KeyRing
from stepstore.log.keys_file import KEYS_DIRECTORY
from stepstore.log.listing import again_if_replaced
from stepstore.log.live_index import LiveIndex
from stepstore.log.manifest import Manifest, epochs_of
from stepstore.log.open_files import OpenFiles
from stepstore.log.recovered import Recovered
from stepstore.log.recovery import recover
from stepstore.log.refreshing import look_again
from stepstore.log.repair import Repair, make_durable
from stepstore.log.reserve import Reserve
from stepstore.log.segment import NO_ROOM, SEGMENT_BYTES, START, Cut, Segment, SegmentSequence
from stepstore.log.tail_verdict import TailPolicy

COMPACTION_BYTES_PER_SECOND = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """`tail`: what to do with suspected rot in the last group. `segment_bytes`: size of one file. `align`: 0, 512 or
    4096, the unit in which the medium may change bytes it was not asked to change. `compression`: of what is written.
    `key_provider`: wraps the key that each stream is encrypted with; None writes in clear. `scrub_bytes_per_second`,
    `scrub_every_seconds`: how fast old segments are read again in the background, and how often; 0 is never.
    `compaction_bytes_per_second`: how fast the log is compacted in the background, 0 for not at all."""

    tail: TailPolicy = "strict"
    segment_bytes: int = SEGMENT_BYTES
    align: int = 0
    compression: Compression = field(default_factory=Compression)
    key_provider: KeyProvider | None = None
    scrub_bytes_per_second: int = 4 * 1024 * 1024
    scrub_every_seconds: float = 86_400
    compaction_bytes_per_second: int = COMPACTION_BYTES_PER_SECOND

    def __post_init__(self) -> None:
        assert self.align in (0, SECTOR, 4096)
        assert self.compaction_bytes_per_second >= 0


@dataclass(frozen=True, kw_only=True)
class RecoveryReport:
    """What opening a log found and did.

    `segments`, `records`, `open_streams`: what is there. `bytes_cut`: bytes of torn writes that were cut off, after a
    copy of them went to the files named in `quarantined`. `notes`: one sentence for each thing out of the ordinary.
    """

    segments: int = 0
    records: int = 0
    open_streams: int = 0
    bytes_cut: int = 0
    quarantined: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(kw_only=True, eq=False)
class OpenLog:
    """An opened log. `sequence`, `lock` and `reserve` are None when it was opened for reading only.

    `segment`: the one being written, None before the first append. `unsealed`: those that were written to before it in
    this incarnation and still lack a footer, with what they hold. `unindexed`: those that an earlier incarnation left
    without a footer, which lack a sidecar. `pending_repair`: what the opening could not do because the medium is full;
    until it is done nothing may be written. `manifest`: the newest, None if the log was never compacted.
    """

    files: FileSystem
    path: str
    identity: Identity
    index: LogIndex
    reading: OpenFiles
    end_lsn: int
    report: RecoveryReport
    lock: LogLock | None = None
    sequence: SegmentSequence | None = None
    reserve: Reserve | None = None
    codec: BatchCodec
    keys: KeyRing | None = None
    segment: Segment | None = None
    pending_repair: Repair | None = None
    is_forked: bool = False
    unsealed: deque[tuple[Segment, IndexedSegment, list[bytes]]] = field(default_factory=deque)
    unindexed: deque[IndexedSegment] = field(default_factory=deque)
    options: LogOptions = field(default_factory=LogOptions)
    manifest: Manifest | None = None

    @property
    def paths(self) -> list[str]:
        """The files of the segments, oldest first."""
        return [segment.path for segment in self.index.segments]

    def ended_segments(self) -> list[IndexedSegment]:
        """The segments that nothing is added to any more and that have whatever footer they will get, oldest first."""
        behind = {id(indexed) for _segment, indexed, _open in self.unsealed}
        if self.segment is not None:
            behind.add(id(self.index.segments[-1]))
        return list(itertools.takewhile(lambda segment: id(segment) not in behind, self.index.segments))

    def epoch_ends(self) -> list[tuple[int, int]]:
        """(epoch, its last LSN) from the first epoch on; the last one may still grow. A cursor of an epoch is valid up
        to that LSN: behind it the log was cut."""
        return epochs_of(self.manifest, self.index.segments)

    def forked(self) -> None:
        """This is a child of the process that opened the log: nothing may be written here, and the lock stays the
        parent's. Closing the copy of its descriptor does not release it; unlocking would."""
        self.is_forked = True
        for with_locks in (self.reading, self.sequence, self.keys):
            if with_locks is not None:
                with_locks.forked()
        if self.lock is not None:
            self.lock.release()

    def check_process(self) -> None:
        """Raises: `OSError` in a child that was forked from the process that opened the log."""
        if self.is_forked:
            raise OSError(errno.EPERM, "this process was forked from the one that opened the log", self.path)

    def begin_segment(self, segment: Segment) -> None:
        """Take note of a segment that was begun: what is written from now on goes there."""
        self.segment = segment
        cut = segment.cut
        self.index.begin_segment(
            IndexedSegment(
                segment.path,
                segment.header,
                segment.header_crc,
                LiveIndex(),
                cut.end_offset,
                cut.end_lsn,
                cut.chain,
            )
        )

    def release(self) -> None:
        """Give the lock and the files back. A forked child only closes its copies."""
        if self.sequence is not None:
            self.sequence.drop_spare(unlink=not self.is_forked)
        if self.segment is not None:
            self.segment.release()
            self.segment = None
        if self.pending_repair is not None:
            self.pending_repair.release()
        while self.unsealed:
            self.unsealed.popleft()[0].release()
        self.reading.close()
        if self.keys is not None:
            self.keys.close()
        if self.lock is not None:
            self.lock.release()


def open_log(files: FileSystem, path: str, options: LogOptions | None = None) -> OpenLog:
    """Open the log at `path` for writing, making it if there is none. Blocks.

    What was recovered is on the medium when this returns. A new log gets its first segment; another one gets a segment
    now only if a torn tail was cut, otherwise at its first append.
    Raises: `LogLocked`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
    """
    options = options or LogOptions()
    began = time.perf_counter()
    identity, lock = prepare(files, path)
    with contextlib.ExitStack() as undo:
        undo.callback(lock.release)
        recovered = recover(files, path, identity, tail=options.tail)
        undo.callback(recovered.reading.close)
        newest = recovered.newest
        cut = START if newest is None else Cut(newest.header.seq_last, *newest.named_end)
        sequence = SegmentSequence(
            files,
            path,
            identity,
            lock,
            cut=cut,
            epoch=0 if newest is None else newest.header.epoch,
            segment_bytes=options.segment_bytes,
            align=options.align,
        )
        reserve = Reserve(files, path)
        repair = Repair(files, path, recovered, sequence)
        undo.callback(repair.release)
        segment, quarantined, pending = _repair_if_there_is_room(repair, files, path, recovered, reserve)
        if segment is not None:
            undo.callback(segment.release)
        keys = _open_keys(files, path, identity, options)
        if keys is not None:
            undo.callback(keys.close)
            keys.finish_destroying(recovered.index.deleted_streams())
        try:
            if newest is None:
                segment = sequence.begin()
                undo.callback(segment.release)
            if pending is None:
                reserve.set_aside()
        except OSError as error:
            raise RecoveryFailed.from_os_error("begin a segment in", error, file=path) from error
        codec = BatchCodec(options.compression, keys)
        undo.pop_all()
    log = OpenLog(
        files=files,
        path=path,
        identity=identity,
        index=recovered.index,
        reading=recovered.reading,
        end_lsn=recovered.end_lsn,
        report=_report(recovered, quarantined, began),
        options=options,
        lock=lock,
        sequence=sequence,
        reserve=reserve,
        codec=codec,
        keys=keys,
        pending_repair=pending,
        manifest=recovered.manifest,
    )
    log.unindexed.extend(state.segment for state in recovered.segments if not state.segment.index_path)
    if segment is not None:
        log.begin_segment(segment)
    watch_forks(log)
    return log


def _repair_if_there_is_room(
    repair: Repair, files: FileSystem, path: str, recovered: Recovered, reserve: Reserve
) -> tuple[Segment | None, list[str], Repair | None]:
    """Repair the log, with the reserve if the medium is full. Where even that is not enough, the log can be read, and
    is repaired and written to once there is room."""
    for last in (False, True):
        try:
            return *repair.carry_out(), None
        except RecoveryFailed as error:
            if error.errno not in NO_ROOM:
                raise
            if not last:
                with contextlib.suppress(OSError):
                    reserve.spend()
    make_durable(files, path, recovered)  # what is shown must be on the medium, with or without a repair
    recovered.notes.append(
        f"the medium of {path} is full: what a crash left is not cleaned up yet, and nothing can be written until "
        "there is room"
    )
    return None, [], repair


def _open_keys(
    files: FileSystem, path: str, identity: Identity, options: LogOptions, *, read_only: bool = False
) -> KeyRing | None:
    """The keys of a log that has or is to have any."""
    try:
        if options.key_provider is None and files.stat(posixpath.join(path, KEYS_DIRECTORY)) is None:
            return None
    except OSError as error:
        raise RecoveryFailed.from_os_error("look for the keys of", error, file=path) from error
    return KeyRing.open(files, path, identity.log_uuid, options.key_provider, read_only=read_only, align=options.align)


def open_log_read_only(files: FileSystem, path: str, options: LogOptions | None = None) -> OpenLog:
    """Look at the log at `path`, beside a living writer if there is one. Takes no lock and changes nothing; what it
    shows may be not yet durable. Blocks.

    Raises: `NotFound`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
    """
    began = time.perf_counter()
    identity = must_exist(files, path)
    with contextlib.ExitStack() as undo:
        recovered = again_if_replaced(files, path, lambda: recover(files, path, identity, live=True))
        undo.callback(recovered.reading.close)
        keys = _open_keys(files, path, identity, options or LogOptions(), read_only=True)
        if keys is not None:
            undo.callback(keys.close)
        codec = BatchCodec(Compression(), keys)
        undo.pop_all()
    log = OpenLog(
        files=files,
        path=path,
        identity=identity,
        index=recovered.index,
        reading=recovered.reading,
        end_lsn=recovered.end_lsn,
        report=_report(recovered, [], began),
        codec=codec,
        keys=keys,
        manifest=recovered.manifest,
    )
    log.index.reload = lambda: look_again(log)
    watch_forks(log)
    return log


def _report(recovered: Recovered, quarantined: list[str], began: float) -> RecoveryReport:
    cut = sum(s.leftover_end - s.segment.end_offset for s in recovered.segments if s.leftover_end is not None)
    return RecoveryReport(
        segments=len(recovered.segments),
        records=recovered.index.records,
        open_streams=len(recovered.index.open_streams),
        bytes_cut=cut,
        quarantined=tuple(quarantined),
        notes=tuple(recovered.notes),
        seconds=time.perf_counter() - began,
    )
