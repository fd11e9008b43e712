"""MANIFEST-<number>: which files are the log, up to the newest that was left when the manifest was written.

Compaction puts one file in the place of one or more others; the manifest is what makes that happen at one moment. Until
a log was compacted it has none: then the names alone tell. Behind the manifest's range they always do.

    manifest = 55799(["stepmani", version, number, log uuid, branch uuid,
                      [* [seq, seq_last, first lsn, end lsn, generation, branch uuid]],
                      [* [epoch, last lsn]], crc])

One CBOR item of fixed-width integers and 16-byte strings. It also keeps what the headers of merged files named: where
each epoch ended. The one with the highest number counts. It was written whole, synced and then renamed, so one that is
not sound is damage, never a crash. Two are kept, for people.
"""

from __future__ import annotations

import itertools
import posixpath
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log import names
from stepstore.log.directory import Identity
from stepstore.log.files import FileSystem, write_all
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.names import SegmentName, manifest_name, parse_manifest_name

_LARGEST_BYTES = 64 * 1024 * 1024  # of a manifest: of a million segments
MANIFESTS_KEPT = 2
_VERSION = 1
_PREFIX = b"\xd9\xd9\xf7\x88\x68stepmani"  # tag 55799, array(8), text(8)
_U32, _U64, _UUID, _ARRAY32, _ARRAY6, _ARRAY2 = 0x1A, 0x1B, 0x50, 0x9A, 0x86, 0x82
_HEAD = struct.Struct(">BI BQ B16s B16s")
_HEAD_TYPES = (_U32, _U64, _UUID, _UUID)
_COUNT = struct.Struct(">BI")
_FILE = struct.Struct(">B BQ BQ BQ BQ BQ B16s")
_FILE_TYPES = (_U64, _U64, _U64, _U64, _U64, _UUID)
_EPOCH = struct.Struct(">B BQ BQ")


class ManifestFile(NamedTuple):
    """One file of the log. `branch_uuid`: what its header says, which in a restored log is not that of the log."""

    seq: int
    seq_last: int
    first_lsn: int
    end_lsn: int
    generation: int
    branch_uuid: bytes

    @property
    def name(self) -> SegmentName:
        """How the file is called."""
        return SegmentName(self.seq, self.first_lsn, self.generation)


class Manifest(NamedTuple):
    """`files`: the log from its first segment on, without a gap. `epochs`: (epoch, its last LSN) in that range."""

    number: int
    log_uuid: bytes
    branch_uuid: bytes
    files: tuple[ManifestFile, ...]
    epochs: tuple[tuple[int, int], ...]

    @property
    def seq_last(self) -> int:
        """The last segment number of its range."""
        return self.files[-1].seq_last

    @property
    def end_lsn(self) -> int:
        """The last LSN of its range: everything up to there was durable when it was written."""
        return self.files[-1].end_lsn


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as one CBOR item."""
    number, log_uuid, branch_uuid, files, epochs = manifest
    parts = [
        _PREFIX,
        _HEAD.pack(_U32, _VERSION, _U64, number, _UUID, log_uuid, _UUID, branch_uuid),
        _COUNT.pack(_ARRAY32, len(files)),
        *(_FILE.pack(_ARRAY6, *itertools.chain(*zip(_FILE_TYPES, file, strict=True))) for file in files),
        _COUNT.pack(_ARRAY32, len(epochs)),
        *(_EPOCH.pack(_ARRAY2, _U64, epoch, _U64, last_lsn) for epoch, last_lsn in epochs),
    ]
    data = b"".join(parts)
    return data + _COUNT.pack(_U32, zlib.crc32(data))


def parse_manifest(data: bytes) -> Manifest | None:
    """The manifest in these bytes, None unless every byte is as it was written and the files follow one another."""
    try:
        manifest = _parse(data)
    except struct.error:
        return None
    return manifest if manifest is not None and _is_consistent(manifest) else None


def _parse(data: bytes) -> Manifest | None:
    if not data.startswith(_PREFIX):
        return None
    crc_at = len(data) - _COUNT.size
    if _COUNT.unpack_from(data, crc_at) != (_U32, zlib.crc32(data[:crc_at])):
        return None
    at = len(_PREFIX)
    head = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    if head[::2] != _HEAD_TYPES or head[1] != _VERSION:
        return None
    kind, count = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if kind != _ARRAY32 or at + count * _FILE.size > crc_at:
        return None
    files: list[ManifestFile] = []
    for _ in range(count):
        mark, *fields = _FILE.unpack_from(data, at)
        at += _FILE.size
        if mark != _ARRAY6 or tuple(fields[::2]) != _FILE_TYPES:
            return None
        files.append(ManifestFile(*fields[1::2]))
    kind, count = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    if kind != _ARRAY32 or at + count * _EPOCH.size != crc_at:
        return None
    epochs: list[tuple[int, int]] = []
    for _ in range(count):
        mark, epoch_type, epoch, lsn_type, last_lsn = _EPOCH.unpack_from(data, at)
        at += _EPOCH.size
        if (mark, epoch_type, lsn_type) != (_ARRAY2, _U64, _U64):
            return None
        epochs.append((epoch, last_lsn))
    return Manifest(head[3], head[5], head[7], tuple(files), tuple(epochs))


def _is_consistent(manifest: Manifest) -> bool:
    expected_seq = expected_lsn = 1
    for file in manifest.files:
        if (file.seq, file.first_lsn) != (expected_seq, expected_lsn):
            return False
        if file.seq_last < file.seq or file.end_lsn < file.first_lsn - 1:
            return False
        expected_seq, expected_lsn = file.seq_last + 1, file.end_lsn + 1
    rising = all(
        earlier[0] < later[0] and earlier[1] <= later[1] for earlier, later in itertools.pairwise(manifest.epochs)
    )
    return bool(manifest.files and manifest.epochs) and rising and manifest.epochs[-1][1] == manifest.end_lsn


def epochs_of(manifest: Manifest | None, segments: Iterable[IndexedSegment]) -> list[tuple[int, int]]:
    """(epoch, its last LSN) over the segments of a log: from the manifest, which knows them also where files that named
    them were merged, and from the headers of the segments behind it."""
    found = [] if manifest is None else list(manifest.epochs)
    reached = 0 if manifest is None else manifest.seq_last
    for segment in segments:
        if segment.header.seq > reached:
            epoch, end_lsn = segment.header.epoch, segment.named_end[1]
            if found and found[-1][0] == epoch:
                found.pop()
            found.append((epoch, end_lsn))
    return found


def manifest_of(before: Manifest | None, identity: Identity, segments: Sequence[IndexedSegment]) -> Manifest:
    """The manifest that lists these segments, the first of a log, and follows `before`."""
    files = tuple(
        ManifestFile(
            segment.header.seq,
            segment.header.seq_last,
            segment.header.first_lsn,
            segment.named_end[1],
            segment.header.generation,
            segment.header.branch_uuid,
        )
        for segment in segments
    )
    return Manifest(
        1 if before is None else before.number + 1,
        identity.log_uuid.bytes,
        identity.branch_uuid.bytes,
        files,
        tuple(epochs_of(before, segments)),
    )


def newest_manifest(files: FileSystem, path: str, listed: Iterable[str], identity: Identity) -> Manifest | None:
    """The manifest that counts among the `listed` names of the directory `path`, None if there is none.

    Raises: `CorruptLog` (row 7 if it is not sound, 13 if it is of another log), `RecoveryFailed`.
    """
    numbers = [number for name in listed if (number := parse_manifest_name(name)) is not None]
    if not numbers:
        return None
    name = manifest_name(max(numbers))
    full = posixpath.join(path, name)
    manifest = read_manifest(files, full)
    if manifest is None or manifest_name(manifest.number) != name:
        raise CorruptLog(
            f"{full!r} is not what was written (row 7): it says which files are the log. Nothing was changed; restore "
            "it from a backup, together with the files it names.",
            file=full,
            first_lsn=1,
            row=7,
        )
    if (manifest.log_uuid, manifest.branch_uuid) != (identity.log_uuid.bytes, identity.branch_uuid.bytes):
        raise CorruptLog(
            f"{full!r} belongs to another log than the FORMAT file beside it (row 13). Move it out of the directory.",
            file=full,
            row=13,
        )
    return manifest


def read_manifest(files: FileSystem, path: str) -> Manifest | None:
    """The manifest in a file, None if it is not sound. Raises: `RecoveryFailed`."""
    try:
        file = files.open(path, write=False)
        try:
            size = file.size()
            if size > _LARGEST_BYTES:
                return None
            data = file.read(0, size)
        finally:
            file.close()
    except OSError as error:
        raise RecoveryFailed.from_os_error("read", error, file=path) from error
    if len(data) != size:
        raise RecoveryFailed(f"reading {path!r} gave {len(data)} of {size} bytes. Nothing was changed.", file=path)
    return parse_manifest(data)


def prepare_manifest(files: FileSystem, path: str, manifest: Manifest) -> None:
    """Put a manifest on the medium, for the log in the directory `path`, without the name that makes it count. Blocks.

    Raises: `OSError`; nothing has changed then.
    """
    temporary = posixpath.join(path, names.MANIFEST_TEMPORARY)
    if files.stat(temporary) is not None:
        files.unlink(temporary)
    file = files.open(temporary, create=True)
    try:
        write_all(file, 0, encode_manifest(manifest))
        file.datasync()
    finally:
        file.close()


def name_manifest(files: FileSystem, path: str, manifest: Manifest) -> None:
    """Make what was prepared the manifest of the log: from the return on, it counts. Blocks.

    Raises: `OSError`; either this manifest or the one before may be the one that counts then.
    """
    files.rename(posixpath.join(path, names.MANIFEST_TEMPORARY), posixpath.join(path, manifest_name(manifest.number)))
    files.sync_directory(path)


def superseded_manifests(listed: Iterable[str]) -> list[str]:
    """The names of the manifests that need not be kept any more."""
    found = sorted(number for name in listed if (number := parse_manifest_name(name)) is not None)
    return [manifest_name(number) for number in found[:-MANIFESTS_KEPT]]
