"""The headers of the segments of a log, checked against their names, the log they are in, and the manifest (rows 7, 12,
13 and 16 of the decision table in `recovery`)."""

from __future__ import annotations

import errno
import posixpath

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import segment_header as sh
from stepstore.log.directory import Identity
from stepstore.log.files import FileSystem
from stepstore.log.footer import HEAD_BYTES, parse_head
from stepstore.log.listing import Listing
from stepstore.log.manifest import ManifestFile
from stepstore.log.names import SegmentName
from stepstore.log.packed_table import UnsoundIndex
from stepstore.log.sealing import belongs_to, read_trailer
from stepstore.log.segment_header import SegmentHeader


def read_headers(
    files: FileSystem, path: str, identity: Identity, listing: Listing, *, lenient: bool = False
) -> list[tuple[SegmentHeader, int]]:
    """The header of every segment, and its CRC; `lenient`: the copy in its footer does for the newest too.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    return [
        read_segment_header(
            files,
            path,
            name,
            identity,
            listed=listing.listed.get(name),
            newest=not lenient and number == len(listing.names) - 1,
        )
        for number, name in enumerate(listing.names)
    ]


def read_segment_header(
    files: FileSystem,
    path: str,
    name: SegmentName,
    identity: Identity,
    *,
    listed: ManifestFile | None = None,
    newest: bool = True,
) -> tuple[SegmentHeader, int]:
    """The header of a segment and its CRC, checked against its name, the log it is in, and what the manifest says of it
    (rows 7, 12, 13, 16). The copy in its footer does for one that is sealed and not the newest.

    Raises: `CorruptLog`, `RecoveryFailed`.
    """
    full = posixpath.join(path, str(name))
    try:
        file = files.open(full, write=False)
        try:
            data, size = file.read(0, sh.HEADER_BYTES), file.size()
            if len(data) < min(sh.HEADER_BYTES, size):
                raise OSError(errno.EIO, f"a read ended after {len(data)} bytes although the file is longer")
        finally:
            file.close()
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=full) from error
    sh.check_segment_size(full, size)
    parsed = sh.parse_segment_header(data)
    if parsed is None and not newest:
        parsed = _header_from_footer(files, full)
    if parsed is None:
        raise CorruptLog(
            f"the header of {full!r} is not what was written (row 16). A .seg file exists only once its header is "
            "durable, so the medium has changed it; restore the file from a backup.",
            file=full,
            first_lsn=name.first_lsn,
            row=16,
        )
    header, _crc = parsed
    if header.format_major != sh.FORMAT_MAJOR or header.features_incompatible & ~sh.KNOWN_INCOMPATIBLE:
        raise RecoveryFailed(
            f"{full!r} was written in segment format {header.format_major}.{header.format_minor} with features "
            f"{header.features_incompatible:#x}; this Stepwell reads {sh.FORMAT_MAJOR}.{sh.FORMAT_MINOR}. Nothing was "
            "changed; open it with a Stepwell that knows this format.",
            file=full,
        )
    branch = identity.branch_uuid.bytes if listed is None else listed.branch_uuid
    if (header.log_uuid, header.branch_uuid) != (identity.log_uuid.bytes, branch):
        raise CorruptLog(
            f"{full!r} belongs to another log than the FORMAT file beside it (row 13). Move it out of the directory.",
            file=full,
            first_lsn=header.first_lsn,
            row=13,
        )
    if (header.seq, header.first_lsn, header.generation) != name:
        raise CorruptLog(
            f"{full!r} says inside that it is {SegmentName(header.seq, header.first_lsn, header.generation)} (row 7). "
            "Give it back its own name.",
            file=full,
            first_lsn=header.first_lsn,
            row=7,
        )
    if header.seq_last != (header.seq if listed is None else listed.seq_last):
        raise CorruptLog(
            f"{full!r} says inside that it reaches to segment {header.seq_last}, and the MANIFEST does not (row 7). "
            "Nothing was changed.",
            file=full,
            first_lsn=header.first_lsn,
            row=7,
        )
    return parsed


def _header_from_footer(files: FileSystem, path: str) -> tuple[SegmentHeader, int] | None:
    try:
        file = files.open(path, write=False)
        try:
            trailer = read_trailer(file, file.size(), None)
            if trailer is None:
                return None
            parsed = sh.parse_segment_header(parse_head(file.read(trailer.index_at, HEAD_BYTES)).header_copy)
            # One that the trailer does not belong to would be cut off with the footer as soon as the file is scanned.
            return parsed if parsed is not None and belongs_to(trailer, parsed[0]) else None
        finally:
            file.close()
    except UnsoundIndex:
        return None
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=path) from error
