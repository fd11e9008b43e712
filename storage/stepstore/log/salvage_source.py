"""A segment of a log that may be damaged anywhere, as `salvage` takes it: what its header, its seal and the header
behind it say. Nothing is judged by the rules of opening; whatever carries a sound checksum is taken."""

from __future__ import annotations

from array import array
from typing import NamedTuple

from stepstore.errors import RecoveryFailed, StepwellError
from stepstore.log import segment_header as sh
from stepstore.log.files import FileSystem
from stepstore.log.footer import HEAD_BYTES, Trailer, parse_head
from stepstore.log.names import SegmentName
from stepstore.log.open_files import OpenFiles
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.resync import Break, guess_tag
from stepstore.log.scan import Window
from stepstore.log.sealed_index import SealedIndex
from stepstore.log.sealing import open_index, read_trailer, sidecar_path
from stepstore.log.segment_header import SegmentHeader
from stepstore.log.tolerant_file import TolerantFile


class KnownEnd(NamedTuple):
    """Where the records of a segment end, as something else than its frames tells it."""

    end_offset: int
    end_lsn: int
    chain: int


class Source:
    """One segment file. `tag`: that of its frames, None if nothing tells it. `end`: where its records end, as far as
    `find_end` could look that up. `frames`: where those lie that `frame_search` has found, `breaks`: what is damaged
    beside them, `last_lsn`: the last LSN they reach to."""

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
        self.tag: int | None = None
        self._seal: tuple[str, Trailer] | None = None
        self._find_header()

    def open(self) -> TolerantFile:
        """The file, to be read around what the medium does not give back. Raises: `OSError`."""
        return TolerantFile(self._files.open(self.path, write=False))

    @property
    def first_lsn(self) -> int:
        """The first LSN that belongs here."""
        return self.name.first_lsn if self.header is None else self.header.first_lsn

    @property
    def seqs(self) -> tuple[int, int]:
        """The segment numbers it stands for."""
        return (self.name.seq, self.name.seq) if self.header is None else (self.header.seq, self.header.seq_last)

    def _find_header(self) -> None:
        file = self.open()
        try:
            parsed = sh.parse_segment_header(file.read(0, sh.HEADER_BYTES))
            tag = None if parsed is None else parsed[0].segment_tag
            for where in (self.path, sidecar_path(self.path)):
                seal = self._read_seal(where, tag)
                if seal is None:
                    continue
                trailer, head_copy = seal
                self._seal = self._seal or (where, trailer)
                self.tag = tag = trailer.segment_tag
                parsed = parsed or sh.parse_segment_header(head_copy)
                self.sealed = self.sealed or where == self.path
            if parsed is not None:
                self.header, self.header_crc = parsed
                self.tag = self.header.segment_tag
            elif self.tag is None:
                self.tag = guess_tag(Window(file, self.path))
            if sh.parse_segment_header(file.read(0, sh.HEADER_BYTES)) is None:
                self.note_break(
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

    def note_break(self, found: Break, what: str) -> None:
        """A place of it is damaged."""
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

    def index(self) -> SealedIndex | None:
        """The index in its footer or its sidecar, None if there is none that can be opened."""
        if self._seal is None:
            return None
        try:
            return open_index(self._reading, *self._seal)
        except (UnsoundIndex, OSError, StepwellError):
            return None
