"""Which files of a log directory `salvage` reads, and in which order: FORMAT or not, with gaps, with files too many."""

from __future__ import annotations

import posixpath
import uuid
from collections import Counter
from typing import NamedTuple

from stepstore.errors import CorruptLog, NotFound, RecoveryFailed
from stepstore.log.directory import Identity, look
from stepstore.log.files import FileSystem
from stepstore.log.manifest import newest_manifest
from stepstore.log.names import SegmentName, parse_segment_name
from stepstore.log.open_files import OpenFiles
from stepstore.log.salvage_source import KnownEnd, Source


class Sources(NamedTuple):
    """The segments of a log, oldest first, and what is odd about the directory."""

    segments: list[Source]
    log_uuid: str | None
    notes: list[str]


def list_sources(files: FileSystem, path: str, reading: OpenFiles) -> Sources:
    """What there is to read in a log directory, FORMAT or not.

    Raises: `NotFound` if there is no segment, `InvalidInput`, `RecoveryFailed`.
    """
    notes: list[str] = []
    log_uuid: str | None = None
    identity: Identity | None = None
    try:
        identity = look(files, path)
        log_uuid = None if identity is None else str(identity.log_uuid)
    except CorruptLog as error:
        notes.append(f"{error} Salvage goes by the headers of the segments.")
    try:
        found = files.stat(path)
        listed = [] if found is None else files.list_names(path)
        names = [name for name in map(parse_segment_name, listed) if name is not None]
        if identity is not None:
            names = _without_leftovers(files, path, listed, names, identity, notes)
        if not names and log_uuid is None:
            raise NotFound(f"there is no Stepwell log in {path!r}: it holds no segment (a file named *.seg)")
        segments = [Source(files, reading, posixpath.join(path, str(name)), name) for name in names]
    except OSError as error:
        raise RecoveryFailed.from_os_error("look into", error, file=path) from error
    if log_uuid is None:
        owners = Counter(source.header.log_uuid for source in segments if source.header is not None)
        log_uuid = str(uuid.UUID(bytes=owners.most_common(1)[0][0])) if owners else None
    kept: list[Source] = []
    for source in sorted(segments, key=_rank):
        if source.header is not None and str(uuid.UUID(bytes=source.header.log_uuid)) != log_uuid:
            notes.append(f"{source.path} belongs to another log and was left out; salvage that one by itself")
        else:
            kept.append(source)
    _find_ends(kept)
    return Sources(kept, log_uuid, notes)


def _without_leftovers(
    files: FileSystem, path: str, listed: list[str], names: list[SegmentName], identity: Identity, notes: list[str]
) -> list[SegmentName]:
    """The segments without those that a compaction has replaced, or was about to put in the place of others: all they
    hold is in the files that the manifest lists, or was removed on purpose."""
    try:
        manifest = newest_manifest(files, path, listed, identity)
    except CorruptLog as error:
        notes.append(f"{error} Salvage reads every segment there is.")
        return names
    if manifest is None:
        return names
    wanted = {file.name for file in manifest.files}
    leftovers = [name for name in names if name.seq <= manifest.seq_last and name not in wanted]
    if leftovers:
        notes.append(f"left over from a compaction, and not read: {', '.join(map(str, leftovers))}")
    return [name for name in names if name not in leftovers]


def _find_ends(segments: list[Source]) -> None:
    """What the header of the next segment says about where one ends, for those that do not say it themselves."""
    named: dict[int, KnownEnd] = {}
    for source in segments:
        header = source.header
        if header is not None:
            named[header.prev_seq] = KnownEnd(header.prev_end_offset, header.prev_end_lsn, header.prev_chain)
    for source in segments:
        source.find_end(named)


def _rank(source: Source) -> tuple[int, int, bool, int]:
    """In log order; of several files for one segment the one with its own name first, and the one rewritten last."""
    header, name = source.header, source.name
    is_itself = header is not None and (header.seq, header.first_lsn, header.generation) == name
    return source.first_lsn, source.seqs[0], not is_itself, -name.generation
