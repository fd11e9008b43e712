"""Fetch records by the index: one stream's batches, or whole frames in log order. Every CRC is checked."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from stepstore.errors import Damaged, RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log.files import File, FileSystem
from stepstore.log.index import Run

_OPEN_FILES = 32


class Record(NamedTuple):
    """One record: its stream, its number in it, its number in the log, and its opaque payload."""

    stream: bytes
    seq: int
    lsn: int
    payload: bytes


class SegmentReader:
    """Reads the segments of a log. All calls block; `paths[n]` is segment n and may grow."""

    def __init__(self, files: FileSystem, paths: Sequence[str]):
        self._files, self._paths = files, paths
        self._open: OrderedDict[int, File] = OrderedDict()

    def _file(self, segment: int) -> File:
        file = self._open.get(segment)
        if file is None:
            file = self._open[segment] = self._files.open(self._paths[segment], write=False)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(segment)
        return file

    def read_run(self, stream: bytes, run: Run) -> list[Record]:
        """The records of one batch.

        Raises: `Damaged` if the bytes are not those that were written, `RecoveryFailed` on an I/O error.
        """
        path = self._paths[run.segment]
        try:
            file = self._file(run.segment)
            lengths = file.read(run.lengths_at, run.records * 4)
            data = file.read(run.payload_at, run.size)
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=path, offset=run.payload_at) from error
        payloads = None
        if len(lengths) == run.records * 4 and len(data) == run.size and zlib.crc32(data) == run.crc:
            payloads = fr.split_payloads(lengths, data)
        if payloads is None:
            raise Damaged(
                f"records {run.first_seq} to {run.first_seq + run.records - 1} of a stream are damaged in {path!r} at "
                f"offset {run.payload_at}; every other stream is fine. Run `stepwell verify`.",
                file=path,
                offset=run.payload_at,
                first_lsn=run.first_lsn,
                last_lsn=run.first_lsn + run.records - 1,
                streams=(stream,),
                row=8,
            )
        return [Record(stream, run.first_seq + n, run.first_lsn + n, payload) for n, payload in enumerate(payloads)]

    def read_frame(self, segment: int, offset: int) -> list[Record]:
        """Every record of the frame whose header is at `offset`, in log order.

        Raises: `Damaged`, `RecoveryFailed`.
        """
        path = self._paths[segment]
        try:
            file = self._file(segment)
            header = fr.parse_header(file.read(offset, fr.HEADER_BYTES))
            body = b"" if header is None else file.read(offset + fr.HEADER_BYTES, header.body_len)
        except OSError as error:
            raise RecoveryFailed.from_os_error("read", error, file=path, offset=offset) from error
        records: list[Record] = []
        entries = None
        if header is not None and fr.body_is_sound(header, body):
            entries = fr.parse_directory(header, body, offset)
        if entries is None:
            raise Damaged(
                f"the frame at offset {offset} of {path!r} is damaged. Run `stepwell verify`.",
                file=path,
                offset=offset,
                row=8,
            )
        base = offset + fr.HEADER_BYTES
        for stream, first_seq, first_lsn, count, size, _crc, _flags, payload_at, lengths_at in entries:
            lengths = body[lengths_at - base : lengths_at - base + count * 4]
            payloads = fr.split_payloads(lengths, body[payload_at - base : payload_at - base + size])
            if payloads is None:
                raise Damaged(
                    f"the frame at offset {offset} of {path!r} contradicts itself.", file=path, offset=offset, row=8
                )
            records.extend(Record(stream, first_seq + n, first_lsn + n, p) for n, p in enumerate(payloads))
        return records

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].close()
