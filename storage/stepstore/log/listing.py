"""Which files of a directory are the log: by the manifest as far as it reaches, by their names behind that.

A file in the manifest's range that it does not list is a left-over: what a compaction was making, or has replaced, when
the process ended. Every record in it is also in the files that are listed, or was removed on purpose.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeVar

from stepstore.errors import CorruptLog, RecoveryFailed
from stepstore.log.directory import Identity
from stepstore.log.files import FileSystem
from stepstore.log.manifest import Manifest, ManifestFile, newest_manifest, superseded_manifests
from stepstore.log.names import (
    SegmentName,
    manifest_name,
    parse_manifest_name,
    parse_segment_name,
    parse_sidecar_name,
)

T = TypeVar("T")

_TIMES = 3


class Listing(NamedTuple):
    """`names`: the segments of the log, in order. `listed`: those that the manifest lists, and what it says of them.
    `leftovers`: names of files that are to be removed."""

    names: list[SegmentName]
    manifest: Manifest | None
    listed: dict[SegmentName, ManifestFile]
    leftovers: list[str]

    def end_lsn_of(self, name: SegmentName) -> int | None:
        """Where the manifest says that a segment ends, None if it does not list it."""
        file = self.listed.get(name)
        return None if file is None else file.end_lsn


def list_log(files: FileSystem, path: str, identity: Identity) -> Listing:
    """The files of the log in a directory.

    Raises: `CorruptLog` (row 7) if files are missing, or if the manifest is missing or not sound (row 13: not this
    log's), `RecoveryFailed`.
    """
    try:
        listed = files.list_names(path)
    except OSError as error:
        raise RecoveryFailed.from_os_error("list", error, file=path) from error
    manifest = newest_manifest(files, path, listed, identity)
    found = sorted(name for name in map(parse_segment_name, listed) if name is not None)
    if manifest is None:
        _check_uncompacted(path, found, "there is no MANIFEST")
        _check_gapless(path, found, 0, 0)
        return Listing(found, None, {}, [])
    _check_present(path, manifest, found)
    behind = [name for name in found if name.seq > manifest.seq_last]
    _check_uncompacted(path, behind, f"{manifest_name(manifest.number)} does not reach so far")
    _check_gapless(path, behind, manifest.seq_last, manifest.end_lsn)
    wanted = {file.name: file for file in manifest.files}
    return Listing([*wanted, *behind], manifest, wanted, sorted(_leftovers(listed, found, manifest, wanted)))


def again_if_replaced(files: FileSystem, path: str, look: Callable[[], T]) -> T:
    """Call `look`, which reads a log that another process may be compacting, and once or twice more if it fails while
    the files were being replaced.

    Raises: `RecoveryFailed`, and what `look` raises.
    """
    for _ in range(_TIMES - 1):
        before = _names_that_count(files, path)
        try:
            return look()
        except (CorruptLog, RecoveryFailed):
            if _names_that_count(files, path) == before:
                raise
    return look()


def _names_that_count(files: FileSystem, path: str) -> list[str]:
    try:
        if files.stat(path) is None:
            return []
        listed = files.list_names(path)
    except OSError:
        return []  # `look` says what is wrong
    return [name for name in listed if parse_segment_name(name) or parse_manifest_name(name) is not None]


def _leftovers(
    listed: list[str], found: list[SegmentName], manifest: Manifest, wanted: Collection[SegmentName]
) -> list[str]:
    left = [str(name) for name in found if name.seq <= manifest.seq_last and name not in wanted]
    # A rewritten file has a footer of its own, so a sidecar beside it is that of the file whose place it took.
    with_sidecar = {(name.seq, name.first_lsn) for name in wanted if not name.generation}
    for name in listed:
        sidecar = parse_sidecar_name(name)
        if sidecar is not None and sidecar[0] <= manifest.seq_last and sidecar not in with_sidecar:
            left.append(name)
    return left + superseded_manifests(listed)


def _check_present(path: str, manifest: Manifest, found: list[SegmentName]) -> None:
    present = set(found)
    for file in manifest.files:
        if file.name not in present:
            raise CorruptLog(
                f"{file.name} is missing from {path!r}: {manifest_name(manifest.number)} lists it, with the records "
                f"LSN {file.first_lsn} to {file.end_lsn} (row 7). Restore the file from a backup.",
                file=posixpath.join(path, str(file.name)),
                first_lsn=file.first_lsn,
                last_lsn=file.end_lsn,
                row=7,
            )


def _check_uncompacted(path: str, found: list[SegmentName], why: str) -> None:
    for name in found:
        if name.generation:
            raise CorruptLog(
                f"{path!r} holds {name}, which a compaction wrote, but {why} (row 7), so which files are the log "
                "cannot be told. Restore the MANIFEST from a backup.",
                file=posixpath.join(path, str(name)),
                first_lsn=name.first_lsn,
                row=7,
            )


def _check_gapless(path: str, found: list[SegmentName], last_seq: int, end_lsn: int) -> None:
    """Files without generation that continue segment `last_seq`, which ended at `end_lsn`."""
    if found and found[0].seq != last_seq + 1:
        raise CorruptLog(
            f"segments {last_seq + 1} to {found[0].seq - 1} are missing from {path!r}: it goes on with {found[0]}, so "
            f"records up to LSN {found[0].first_lsn - 1} are not there. Restore the files from a backup.",
            file=posixpath.join(path, str(found[0])),
            first_lsn=end_lsn + 1,
            last_lsn=found[0].first_lsn - 1,
            row=7,
        )
    for before, after in itertools.pairwise(found):
        if after.seq == before.seq:
            raise CorruptLog(
                f"{path!r} holds two files for segment {after.seq}: {before} and {after} (row 7). Move out the one "
                "that does not belong there.",
                file=posixpath.join(path, str(after)),
                first_lsn=after.first_lsn,
                row=7,
            )
        if after.seq != before.seq + 1:
            raise CorruptLog(
                f"segments {before.seq + 1} to {after.seq - 1} are missing from {path!r}: {before} is followed by "
                f"{after}, so records up to LSN {after.first_lsn - 1} are not there. Restore the files from a backup.",
                file=posixpath.join(path, str(after)),
                first_lsn=before.first_lsn,
                last_lsn=after.first_lsn - 1,
                row=7,
            )
