"""The segments of a log that may be damaged anywhere, as `salvage` reads them: first where their frames are, then the
batches in them. Nothing is judged by the rules of opening; whatever carries a sound checksum is taken."""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from stepstore.errors import CorruptLog, RecoveryFailed, StepwellError
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.files import FileSystem
from stepstore.log.footer import HEAD_BYTES, TRAILER_BYTES, Trailer, parse_head, parse_trailer
from stepstore.log.frame import FLAG_TOMBSTONE, KIND_DATA, KIND_FLAGS, DirectoryEntry, FrameHeader
from stepstore.log.indexed_batch import CODED, fields_from_words
from stepstore.log.live_index import STREAM_DELETED
from stepstore.log.names import SegmentName
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.resync import Break, End, FoundFrame, guess_tag, walk
from stepstore.log.scan import SegmentScan, Window, scan_segment
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import open_index, read_trailer, sidecar_path
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.tail_verdict import judge_newest
from stepstore.log.tolerant_file import TolerantFile

OnProgress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


class FoundBatch(NamedTuple):
    """A batch whose checksum holds. `stored`: its bytes as they lie in the frame, of payloads with these `lengths`;
    `flags` as in a directory entry."""

    stream: bytes
    first_seq: int
    first_lsn: int
    flags: int
    lengths: tuple[int, ...]
    stored: bytes

    @property
    def last_seq(self) -> int:
        """The number of its last record."""
        return self.first_seq + len(self.lengths) - 1

    def payloads(self) -> list[bytes]:
        """The records, of a batch that is stored as it is."""
        found = fr.split_payloads(struct.pack(f">{len(self.lengths)}I", *self.lengths), self.stored)
        assert found is not None
        return found


LostPart = tuple[bytes, int, int]
"""Records of one stream that are lost: (stream, first seq, last seq)."""


class Lost(NamedTuple):
    """A place that is damaged. `last_lsn` as in `Break`. `parts`: what of which stream lay there, None if not known."""

    path: str
    offset: int
    end: int
    first_lsn: int
    last_lsn: int | None
    parts: tuple[LostPart, ...] | None
    what: str

    @property
    def concerns_records(self) -> bool:
        """Whether a record is lost, or may be."""
        if self.parts is not None:
            return bool(self.parts)
        return self.last_lsn is None or self.last_lsn >= self.first_lsn


class KnownEnd(NamedTuple):
    """Where the records of a segment end, as something else than its frames tells it."""

    end_offset: int
    end_lsn: int
    chain: int


class Source:
    """One segment file."""

    def __init__(self, files: FileSystem, reading: OpenFiles, path: str, name: SegmentName):
        self._files, self._reading = files, reading
        self.path, self.name = path, name
        found = files.stat(path)
        self.size = 0 if found is None else found.size
        sh.check_segment_size(path, self.size)
        self.header: SegmentHeader | None = None
        self.header_crc: int | None = None
        self.sealed = False
        self.end: KnownEnd | None = None
        self.frames = array("Q")
        self.breaks: list[tuple[Break, str]] = []
        self.notes: list[str] = []
        self.last_lsn = 0
        self._tag: int | None = None
        self._seal: tuple[str, Trailer] | None = None
        self._batches: list[tuple[int, bytes, DirectoryEntry]] | None = None
        self._find_header()

    @property
    def first_lsn(self) -> int:
        """The first LSN that belongs here."""
        return self.name.first_lsn if self.header is None else self.header.first_lsn

    @property
    def seqs(self) -> tuple[int, int]:
        """The segment numbers it stands for."""
        return (self.name.seq, self.name.seq) if self.header is None else (self.header.seq, self.header.seq_last)

    def _find_header(self) -> None:
        file = TolerantFile(self._files.open(self.path, write=False))
        try:
            parsed = sh.parse_segment_header(file.read(0, sh.HEADER_BYTES))
            tag = None if parsed is None else parsed[0].segment_tag
            for where in (self.path, sidecar_path(self.path)):
                seal = self._read_seal(where, tag)
                if seal is None:
                    continue
                trailer, head_copy = seal
                self._seal = self._seal or (where, trailer)
                self._tag = tag = trailer.segment_tag
                parsed = parsed or sh.parse_segment_header(head_copy)
                self.sealed = self.sealed or where == self.path
            if parsed is not None:
                self.header, self.header_crc = parsed
                self._tag = self.header.segment_tag
            elif self._tag is None:
                self._tag = guess_tag(Window(file, self.path))
            if sh.parse_segment_header(file.read(0, sh.HEADER_BYTES)) is None:
                self._note_break(
                    Break(0, sh.HEADER_BYTES, self.first_lsn, self.first_lsn - 1), "the header of the segment"
                )
        finally:
            file.close()

    def _read_seal(self, where: str, tag: int | None) -> tuple[Trailer, bytes] | None:
        """The trailer of a segment or a sidecar, and the copy of the header in the index that it names."""
        try:
            if self._files.stat(where) is None:
                return None
            file = TolerantFile(self._files.open(where, write=False))
            try:
                trailer = read_trailer(file, file.size(), tag)
                if trailer is None:
                    return None
                try:
                    return trailer, parse_head(file.read(trailer.index_at, HEAD_BYTES)).header_copy
                except UnsoundIndex:
                    return trailer, b""
            finally:
                file.close()
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=where) from error

    def _note_break(self, found: Break, what: str) -> None:
        self.breaks.append((found, what))

    def find_end(self, named: dict[int, KnownEnd]) -> None:
        """Look up where the segment ends: by its own trailer, by what the `named` header behind it says, or by its
        sidecar. A rewritten one does not end where the next header says."""
        rewritten = self.header is not None and self.header.generation > 0
        if not self.sealed and not rewritten:
            self.end = named.get(self.seqs[1])
        if self.end is None and self._seal is not None:
            trailer = self._seal[1]
            self.end = KnownEnd(trailer.end_offset, trailer.end_lsn, trailer.chain)

    # ---- where the frames are ----------------------------------------------------------------------------------------

    def find_frames(self, deleted: set[bytes], progress: OnProgress) -> None:
        """Find every frame, and add the streams to `deleted` whose tombstone lies here. Raises: `RecoveryFailed`."""
        file = TolerantFile(self._files.open(self.path, write=False))
        told = 0

        def reached(offset: int) -> None:
            nonlocal told
            progress(offset - told)
            told = offset

        try:
            window = Window(file, self.path)
            if not self._follow(window, deleted, reached):
                self.frames = array("Q")
                self._walk(window, deleted, reached)
                self._deleted_by_index(deleted)
            self._check_rewritten()
            if file.unreadable:
                self.notes.append(
                    f"{self.path}: the medium gave an error for {sum(file.unreadable.values()):,} bytes, the first at "
                    f"offset {min(file.unreadable)}; they count as damaged"
                )
        finally:
            file.close()
        reached(self.size)

    def _check_rewritten(self) -> None:
        """The header of a rewritten file says up to which LSN it stands for the log."""
        header = self.header
        if header is not None and header.generation and self.last_lsn < header.orig_end_lsn:
            self._note_break(
                Break(self.size, self.size, self.last_lsn + 1, header.orig_end_lsn), "the end of the segment"
            )
            self.last_lsn = header.orig_end_lsn

    def _follow(self, window: Window, deleted: set[bytes], reached: OnProgress) -> bool:
        """Read the segment as an opening would; False if it is not sound to its end."""
        if self.header is None or self.header_crc is None:
            return False

        def on_frame(_head: FrameHeader, at: int, entries: list[DirectoryEntry]) -> None:
            self.frames.append(at)
            _note_deleted(entries, deleted)
            reached(at)

        until = None if self.end is None or self.sealed else self.end.end_offset
        scan = scan_segment(window, self.header, self.header_crc, until=until, on_frame=on_frame)
        self.last_lsn = scan.end_lsn
        if self.end is not None:
            if (scan.end_offset, scan.end_lsn, scan.chain) != self.end:
                return False
            if until is None and (not scan.closed or scan.after + TRAILER_BYTES != self.size):
                self._note_break(Break(scan.after, self.size, scan.end_lsn + 1, scan.end_lsn), "what ends the segment")
            return True
        try:
            row = judge_newest(scan, self.header, self.path, "strict")
        except CorruptLog:
            return False
        if row:
            torn = "a write that a crash tore, never acknowledged"
            self.notes.append(f"{self.path}: behind offset {scan.after} {torn}")
        elif scan.index_bytes and scan.tail.last_nonzero is not None and not self._ends_well(window, scan):
            end = scan.tail.last_nonzero + 1
            self._note_break(Break(scan.after, end, scan.end_lsn + 1, scan.end_lsn), "what ends the segment")
        return True

    @staticmethod
    def _ends_well(window: Window, scan: SegmentScan) -> bool:
        """Whether a close frame and a trailer follow the footer; what a crash kept from being cut off may too."""
        return scan.closed and parse_trailer(bytes(window.at(scan.after, TRAILER_BYTES))) is not None

    def _walk(self, window: Window, deleted: set[bytes], reached: OnProgress) -> None:
        if self._tag is None:
            if window.last_nonzero(sh.HEADER_BYTES, window.size) is not None:
                self._note_break(Break(sh.HEADER_BYTES, self.size, self.first_lsn, None), "everything in the segment")
            return
        for found in walk(
            window,
            self._tag,
            first_lsn=self.first_lsn,
            chain=self.header_crc,
            align=0 if self.header is None else self.header.align,
            last_lsn=None if self.end is None else self.end.end_lsn,
        ):
            if isinstance(found, FoundFrame):
                self.last_lsn = found.head.last_lsn
                if found.head.kind == KIND_DATA:
                    self.frames.append(found.at)
                    directory = window.at(found.at + fr.HEADER_BYTES, fr.BODY_OVERHEAD + found.head.dir_len)
                    _note_deleted(_entries(found, directory) or [], deleted)
                    reached(found.at)
            elif isinstance(found, Break):
                self._note_break(found, "a part of the segment")
            else:
                self._walked_to(found, window)

    def _walked_to(self, end: End, window: Window) -> None:
        known = self.end
        if known is not None:
            self._compare_end(known, end)
            return
        last = window.last_nonzero(end.offset, window.size)
        if last is not None:
            lsn = end.next_lsn
            if end.sealed:
                self._note_break(Break(end.offset, last + 1, lsn, lsn - 1), "what ends the segment")
            else:
                self._note_break(
                    Break(end.offset, last + 1, lsn, None), "the last thing written, which a crash may have torn,"
                )

    def _compare_end(self, known: KnownEnd, end: End) -> None:
        self.last_lsn = known.end_lsn
        lsn = end.next_lsn
        if (end.end_offset, end.chain) == (known.end_offset, known.chain) or lsn > known.end_lsn:
            if self.sealed and not end.closed:
                self._note_break(Break(end.offset, self.size, lsn, lsn - 1), "what ends the segment")
            elif end.offset < known.end_offset:
                self._note_break(Break(end.offset, known.end_offset, lsn, lsn - 1), "a mark")
        else:
            behind = max(known.end_offset, min(end.offset, self.size))
            self._note_break(Break(end.end_offset, behind, lsn, known.end_lsn), "the end of the segment")

    # ---- what is in them ---------------------------------------------------------------------------------------------

    def batches(self, progress: OnProgress) -> Iterator[FoundBatch | Lost]:
        """Every batch that can be read, in log order, and every damaged place. Raises: `RecoveryFailed`."""
        file = TolerantFile(self._files.open(self.path, write=False))
        try:
            window = Window(file, self.path)
            breaks = sorted(self.breaks, key=lambda item: item[0].offset)
            at_break = told = 0
            for at in self.frames:
                while at_break < len(breaks) and breaks[at_break][0].offset <= at:
                    yield from self._at_break(window, *breaks[at_break])
                    at_break += 1
                yield from self._of_frame(window, at)
                progress(at - told)
                told = at
            for found in breaks[at_break:]:
                yield from self._at_break(window, *found)
            progress(self.size - told)
        finally:
            file.close()
            self._batches = None

    def _of_frame(self, window: Window, at: int) -> Iterator[FoundBatch | Lost]:
        head = fr.parse_header(window.at(at, fr.HEADER_BYTES))
        assert head is not None
        body = window.at(at + fr.HEADER_BYTES, head.body_len)
        entries = _entries(FoundFrame(at, head), body)
        base = at + fr.HEADER_BYTES
        if entries is None:
            yield from self._by_index(
                window, Break(at, at + head.frame_len, head.first_lsn, head.last_lsn), "the directory of a frame"
            )
            return
        for stream, first_seq, lsn, count, size, crc, flags, payload_at, lengths_at in entries:
            lengths = struct.unpack(f">{count}I", body[lengths_at - base : lengths_at - base + 4 * count])
            data = bytes(body[payload_at - base : payload_at - base + size])
            if len(data) == size and zlib.crc32(data) == crc and (flags & CODED or sum(lengths) == size):
                yield FoundBatch(stream, first_seq, lsn, flags, lengths, data)
            else:
                numbers = (stream, first_seq, first_seq + count - 1)
                parts = () if flags & KIND_FLAGS == fr.FLAG_SNAPSHOT else (numbers,)
                yield Lost(self.path, payload_at, payload_at + size, lsn, lsn + count - 1, parts, "a batch of records")

    def _at_break(self, window: Window, found: Break, what: str) -> Iterator[FoundBatch | Lost]:
        if found.last_lsn is not None and found.last_lsn < found.first_lsn:
            yield Lost(self.path, found.offset, found.end, found.first_lsn, found.last_lsn, (), what)
        else:
            yield from self._by_index(window, found, what)

    def _by_index(self, window: Window, found: Break, what: str) -> Iterator[FoundBatch | Lost]:
        """What the index of the segment knows to lie in a broken place, as far as it can be read there."""
        batches = self._index_batches()
        if batches is None:
            yield Lost(*self._place(found), None, what)
            return
        parts: list[LostPart] = []
        saved: list[FoundBatch] = []
        first = bisect_left(batches, (found.first_lsn,))
        for lsn, stream, entry in batches[first:]:
            if found.last_lsn is not None and lsn > found.last_lsn:
                break
            _stream, first_seq, _lsn, count, size, crc, flags, payload_at, lengths_at = entry
            if not lengths_at < lengths_at + 4 * count <= payload_at <= payload_at + size <= window.size:  # it lies
                parts.append((stream, first_seq, first_seq + count - 1))
                continue
            data = bytes(window.at(payload_at, size))
            lengths = struct.unpack(f">{count}I", bytes(window.at(lengths_at, 4 * count)))
            if count == 1 and not flags & CODED:
                lengths = (size,)
            # Of several records only their lengths say where one ends; with the checksum of the directory gone, it is
            # taken for good that they add up. Of a coded batch not even that can be told.
            sound = len(data) == size and zlib.crc32(data) == crc and sum(lengths) == size and not flags & CODED
            if sound:
                saved.append(FoundBatch(stream, first_seq, lsn, flags, lengths, data))
            else:
                parts.append((stream, first_seq, first_seq + count - 1))
        yield Lost(*self._place(found), tuple(parts), what)
        yield from saved

    def _place(self, found: Break) -> tuple[str, int, int, int, int | None]:
        return self.path, found.offset, found.end, found.first_lsn, found.last_lsn

    def first_records(self, wanted: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The first record of each of these streams that lies here and can be read: (stream, payload).

        Raises: `RecoveryFailed`.
        """
        index = self._index()
        if index is None:
            if not self.frames:
                self.find_frames(set(), lambda _count: None)
            for item in self.batches(lambda _count: None):
                if isinstance(item, Lost) or item.first_seq != 1 or item.stream not in wanted or item.flags & CODED:
                    continue
                yield item.stream, item.payloads()[0]
            return
        file = TolerantFile(self._files.open(self.path, write=False))
        try:
            for stream in sorted(wanted):
                entry = index.find(stream) if index.might_hold(stream) else None
                if entry is None or entry.first_seq != 1:
                    continue
                _seq, _lsn, count, size, crc, flags, at, lengths_at = fields_from_words(index.batch_words(entry, 0, 1))
                if size > fr.MAX_BATCH_BYTES:  # it lies
                    continue
                data = file.read(at, size)
                first = size if count == 1 else int.from_bytes(file.read(lengths_at, 4), "big")
                if zlib.crc32(data) == crc and not flags & CODED:
                    yield stream, data[:first]
        except UnsoundIndex:
            return
        finally:
            file.close()

    def _index(self) -> SealedIndex | None:
        if self._seal is None:
            return None
        try:
            return open_index(self._reading, *self._seal)
        except (UnsoundIndex, OSError, StepwellError):
            return None

    def _index_batches(self) -> list[tuple[int, bytes, DirectoryEntry]] | None:
        """Every batch that the index names, by LSN: (LSN, stream, entry). None if there is no sound index."""
        if self._batches is not None:
            return self._batches
        index = self._index()
        if index is None:
            return None
        found: list[tuple[int, bytes, DirectoryEntry]] = []
        try:
            for entry in index.streams():
                words = index.batch_words(entry, 0, entry.batches)
                for at in range(0, len(words), 5):
                    first_seq, lsn, count, size, crc, flags, *places = fields_from_words(words, at)
                    if entry.flags & STREAM_DELETED and at + 5 == len(words):
                        flags |= FLAG_TOMBSTONE
                    packed = (entry.stream, first_seq, lsn, count, size, crc, flags, places[0], places[1])
                    found.append((lsn, entry.stream, packed))
        except (UnsoundIndex, OSError, StepwellError):
            return None
        found.sort()
        self._batches = found
        return found

    def _deleted_by_index(self, deleted: set[bytes]) -> None:
        index = self._index()
        if index is None:
            return
        try:
            deleted.update([entry.stream for entry in index.streams() if entry.flags & STREAM_DELETED])
        except (UnsoundIndex, OSError, StepwellError):
            return


def _entries(found: FoundFrame, body: memoryview) -> list[DirectoryEntry] | None:
    """The directory of a frame, from its body or the beginning of it; None unless it is what was written."""
    if len(body) < fr.BODY_OVERHEAD // 2 + found.head.dir_len or not fr.directory_is_sound(found.head, body):
        return None
    return fr.parse_directory(found.head, body, found.at)


def _note_deleted(entries: list[DirectoryEntry], deleted: set[bytes]) -> None:
    for entry in entries:
        if entry[6] & KIND_FLAGS == FLAG_TOMBSTONE:
            deleted.add(entry[0])
