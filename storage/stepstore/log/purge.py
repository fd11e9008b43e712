"""Prove that nothing of the deleted streams is left in a log directory but their tombstones. All calls block.

A purge rewrites every file that holds a record of a deleted stream (`compaction`), removes what quarantine has of them
and what a salvage has set aside of them, and then looks: every directory of every file is decoded, by following the
frames and not by the indexes; every index is asked; and bytes that were sampled from the records while they were left
out are searched for in every file, raw.
"""

from __future__ import annotations

import posixpath
from array import array
from bisect import bisect_right
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

from stepstore.errors import StepwellError
from stepstore.log import names
from stepstore.log import segment_header as sh
from stepstore.log.compaction_report import CompactionReport
from stepstore.log.files import File, FileSystem
from stepstore.log.frame import FLAG_TOMBSTONE, KIND_FLAGS, DirectoryEntry, FrameHeader
from stepstore.log.live_index import STREAM_DELETED
from stepstore.log.names import parse_manifest_name, parse_segment_name, parse_sidecar_name
from stepstore.log.opening import OpenLog
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.scan import Window, scan_segment
from stepstore.log.sealing import open_index, read_trailer
from stepstore.log.set_aside import SetAside

NEEDLE_BYTES, NEEDLES, NEEDLES_OF_ONE = 64, 32, 2
_SHORTEST = 16
"""Shorter samples would be found anywhere."""
_BLOCK = 4 * 1024 * 1024
FOUND_TOLD = 100
_STREAM_ID_BYTES = 16
OUT_OF_REACH = (
    "archives and other copies of the log, and other hard links to its old files",
    "processes that still have an old file open",
    "blocks that the file system or the medium has freed, and snapshots of the volume",
    "the 16-byte stream id, a digest, which stays in the tombstone and may stay in lists of streams that were open",
)
NOT_THE_LOGS = "what is not the log's: "
"""How the entry begins that names other files in the directory, the last one."""
OF_A_SALVAGE = "salvaged/REPORT.txt and REPORT.json, which may say what a stream that was not whole is called"


@dataclass(frozen=True, kw_only=True)
class DeletionReport(CompactionReport):
    """What a purge did, what it looked at behind that, and what it found.

    `streams_purged`: deleted streams, of this purge and of earlier ones, that were looked for. `files_checked`,
    `frames_checked`, `batches_checked`: what was decoded. `bytes_searched` for `samples` pieces of their records.
    `quarantine_removed`: what had bytes of them there. `salvaged_removed`: files in `salvaged/` with their records, set
    aside when this log was saved from a damaged one. `found`: what should not be there any more. `unreadable`: files
    that could not be looked through, because they are damaged. `shared`: samples that other streams hold as well.
    `out_of_reach`: what cannot be told from here.
    """

    streams_purged: int = 0
    files_checked: int = 0
    frames_checked: int = 0
    batches_checked: int = 0
    bytes_searched: int = 0
    samples: int = 0
    quarantine_removed: tuple[str, ...] = ()
    salvaged_removed: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    out_of_reach: tuple[str, ...] = OUT_OF_REACH

    @property
    def is_proven(self) -> bool:
        """Whether every file was looked through and nothing was found."""
        return not self.found and not self.unreadable


class Samples:
    """Pieces of the records of deleted streams, kept in memory only, as long as a purge runs."""

    def __init__(self, deleted: Collection[bytes]):
        self._deleted = deleted
        self._taken: dict[bytes, int] = {}
        self.pieces: list[bytes] = []

    def take(self, entry: DirectoryEntry, content: bytes) -> None:
        """Note a batch that is being left out."""
        stream = entry[0]
        taken = self._taken.get(stream, 0)
        if stream in self._deleted and len(self.pieces) < NEEDLES and taken < NEEDLES_OF_ONE:
            piece = content[:NEEDLE_BYTES]
            if len(piece) >= _SHORTEST and piece not in self.pieces:
                self.pieces.append(piece)
                self._taken[stream] = taken + 1


def clean_quarantine(log: OpenLog, deleted: Collection[bytes], pieces: Sequence[bytes]) -> list[str]:
    """Remove what quarantine holds of deleted streams: bytes of writes that were never acknowledged. Gives the names.

    Raises: `OSError`.
    """
    files, folder = log.files, posixpath.join(log.path, names.QUARANTINE)
    if files.stat(folder) is None:
        return []
    removed: list[str] = []
    for name in files.list_names(folder):
        path = posixpath.join(folder, name)
        file = files.open(path, write=False)
        try:
            content = file.read(0, file.size())
        finally:
            file.close()
        if _names_any(content, deleted) or any(piece in content for piece in pieces):
            files.unlink(path)
            removed.append(name)
    if removed:
        files.sync_directory(folder)
    return removed


def clean_salvaged(log: OpenLog, deleted: Collection[bytes]) -> list[str]:
    """Remove what a salvage has set aside of deleted streams. Gives the names of the files.

    Raises: `OSError`.
    """
    files, folder = log.files, posixpath.join(log.path, names.SALVAGED)
    removed = _set_aside_of(files, folder, deleted)
    for name in removed:
        files.unlink(posixpath.join(folder, name))
    if removed:
        files.sync_directory(folder)
    return removed


def _set_aside_of(files: FileSystem, folder: str, streams: Collection[bytes]) -> list[str]:
    """The names of the files in `salvaged/` that hold records of these streams."""
    if files.stat(folder) is None:
        return []
    theirs = {SetAside.name(stream) for stream in streams}
    return [name for name in files.list_names(folder) if name in theirs]


def _names_any(content: bytes, streams: Collection[bytes]) -> bool:
    """Whether a stream id stands anywhere in these bytes."""
    if len(streams) <= 64:
        return any(stream in content for stream in streams)
    return any(content[at : at + _STREAM_ID_BYTES] in streams for at in range(len(content)))


class Proof:
    """One look through a log directory. `run` gives control back every few MiB."""

    def __init__(self, log: OpenLog, deleted: Collection[bytes], pieces: Sequence[bytes]):
        self._log, self._files, self._deleted, self._pieces = log, log.files, deleted, pieces
        self._ends = {segment.path: segment.end_lsn for segment in log.index.segments}
        self.files_checked = self.frames_checked = self.batches_checked = self.bytes_searched = 0
        self.found: list[str] = []
        self.unreadable: list[str] = []
        self.shared: list[str] = []
        self.others: list[str] = []
        self.segments_found: list[str] = []
        self.has_salvaged = False

    def run(self) -> Generator[None, None, None]:
        """Look at every file. Raises: `OSError`."""
        for name in self._files.list_names(self._log.path):
            path = posixpath.join(self._log.path, name)
            at = self._files.stat(path)
            if at is None:
                continue
            if at.is_directory:
                if name == names.QUARANTINE:
                    yield from self._quarantine(path)
                elif name == names.SALVAGED:
                    self.has_salvaged = True
                    for left in _set_aside_of(self._files, path, self._deleted):
                        self._note(f"{path}/{left}: records of a deleted stream, set aside by a salvage")
                else:
                    self.others.append(name)
                continue
            is_segment = parse_segment_name(name) is not None
            has_index = is_segment or parse_sidecar_name(name) is not None
            if not has_index and not _is_ours(name):
                self.others.append(name)
                continue
            try:
                file = self._files.open(path, write=False)
            except FileNotFoundError:
                continue  # a temporary file that has got its name meanwhile
            self.files_checked += 1
            try:
                if is_segment:
                    self._follow(file, path)
                    yield
                if has_index:
                    self._ask_index(file, path)
                    yield
                yield from self._search(file, path, is_segment=is_segment)
            finally:
                file.close()

    def _quarantine(self, folder: str) -> Iterator[None]:
        for name in self._files.list_names(folder):
            path = posixpath.join(folder, name)
            self.files_checked += 1
            file = self._files.open(path, write=False)
            try:
                if _names_any(file.read(0, file.size()), self._deleted):
                    self._note(f"{path}: it names a deleted stream")
                yield
                yield from self._search(file, path, is_segment=False)
            finally:
                file.close()

    def _follow(self, file: File, path: str) -> None:
        """Decode every directory of a segment."""
        parsed = sh.parse_segment_header(file.read(0, sh.HEADER_BYTES))
        if parsed is None:
            self.unreadable.append(f"{path}: its header is damaged")
            return

        def on_frame(_head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
            self.frames_checked += 1
            self.batches_checked += len(entries)
            for stream, first_seq, _lsn, count, _size, _crc, flags, _payload_at, _lengths_at in entries:
                if stream in self._deleted and flags & KIND_FLAGS != FLAG_TOMBSTONE:
                    last = first_seq + count - 1
                    self._note(f"{path}: records {first_seq} to {last} of {stream.hex()} in the frame at {at}")
                    if path not in self.segments_found:
                        self.segments_found.append(path)

        try:
            scan = scan_segment(Window(file, path), *parsed, examine=False, on_frame=on_frame)
        except StepwellError as error:
            self.unreadable.append(f"{path}: {error}")
            return
        if scan.end_lsn < self._ends.get(path, 0):
            self.unreadable.append(f"{path}: it is damaged at offset {scan.after}")

    def _ask_index(self, file: File, path: str) -> None:
        """Ask the index in a footer, or in a sidecar."""
        trailer = read_trailer(file, file.size(), None)
        if trailer is None:
            return
        try:
            index = open_index(self._log.reading, path, trailer)
            for stream in self._deleted:
                entry = index.find(stream) if index.might_hold(stream) else None
                if entry is not None and (entry.batches > 1 or not entry.flags & STREAM_DELETED):
                    self._note(f"{path}: its index has records of {stream.hex()}")
                if index.snapshot_count and index.snapshot(stream) is not None:
                    self._note(f"{path}: its index has a snapshot of {stream.hex()}")
        except UnsoundIndex as error:
            self.unreadable.append(f"{path}: its index is damaged ({error})")
        finally:
            if path not in self._ends:
                self._log.reading.forget(path)

    # ---- raw ---------------------------------------------------------------------------------------------------------

    def _search(self, file: File, path: str, *, is_segment: bool) -> Iterator[None]:
        if not self._pieces:
            return
        size = file.size()
        alive: _Alive | None = None
        for start in range(0, size, _BLOCK):
            # Neighbouring blocks overlap, so that a piece is found where they meet.
            block = file.read(start, min(_BLOCK + NEEDLE_BYTES, size - start))
            for piece in self._pieces:
                at = block.find(piece)
                while 0 <= at < _BLOCK:
                    if is_segment and alive is None:
                        alive = _Alive(file, path, self._deleted)
                    self._hit(path, start + at, alive)
                    at = block.find(piece, at + 1)
            self.bytes_searched += min(_BLOCK, size - start)
            yield

    def _hit(self, path: str, offset: int, alive: _Alive | None) -> None:
        owner = None if alive is None else alive.owner(offset)
        if owner is None:
            self._note(f"{path}: bytes of a deleted stream at offset {offset}")
        elif (text := f"{path}: stream {owner.hex()}") not in self.shared:
            self.shared.append(text)

    def _note(self, what: str) -> None:
        if len(self.found) < FOUND_TOLD:
            self.found.append(what)


class _Alive:
    """The bytes of one segment that belong to streams which are not deleted, or to tombstones."""

    def __init__(self, file: File, path: str, deleted: Collection[bytes]):
        self._starts, self._sizes = array("Q"), array("Q")
        self._streams: list[bytes] = []

        def on_frame(_head: FrameHeader, _at: int, entries: list[DirectoryEntry]) -> None:
            for stream, _seq, _lsn, _count, size, _crc, flags, payload_at, _lengths_at in entries:
                if stream not in deleted or flags & KIND_FLAGS == FLAG_TOMBSTONE:
                    self._starts.append(payload_at)
                    self._sizes.append(size)
                    self._streams.append(stream)

        parsed = sh.parse_segment_header(file.read(0, sh.HEADER_BYTES))
        if parsed is not None:
            scan_segment(Window(file, path), *parsed, examine=False, on_frame=on_frame)

    def owner(self, offset: int) -> bytes | None:
        """The stream whose stored bytes lie at an offset."""
        n = bisect_right(self._starts, offset) - 1
        return self._streams[n] if n >= 0 and offset < self._starts[n] + self._sizes[n] else None


def _is_ours(name: str) -> bool:
    known = (names.FORMAT, names.LOCK, names.RESERVE)
    return name in known or name.endswith(".tmp") or parse_manifest_name(name) is not None
