"""What a log holds, told by its indexes: nothing of the records is read, and nothing is changed."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from stepstore.log.compaction_policy import is_dead_enough
from stepstore.log.dead_records import DeadRecords
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.names import QUARANTINE
from stepstore.log.opening import open_log_read_only
from stepstore.log.stream_listing import streams_of


@dataclass(frozen=True, kw_only=True)
class LogSurvey:
    """A log as it was looked at; the newest records may be not yet durable if a process is writing.

    `segments`, `sealed` (those with a footer), `log_bytes` (the size of their files, space set aside included).
    `records` and `payload_bytes` are all that is stored, of which `dead_bytes` (payload, in `dead_batches`) are of
    deleted streams or superseded: compacting removes them. `worth_compacting`: files that are so dead that they are
    rewritten for it. `streams` are there and not deleted, `open_streams` of them have no end; `deleted_streams` were
    deleted. `quarantine_files`, `quarantine_bytes`: what openings have cut off. `notes`: as of an opening.
    """

    segments: int
    sealed: int
    log_bytes: int
    records: int
    payload_bytes: int
    streams: int
    open_streams: int
    deleted_streams: int
    dead_batches: int
    dead_bytes: int
    worth_compacting: tuple[str, ...]
    quarantine_files: int
    quarantine_bytes: int
    notes: tuple[str, ...]


def survey_log(path: str, files: FileSystem | None = None) -> LogSurvey:
    """Look at the log in a directory, beside a living writer or without one. Blocks.

    Raises: `NotFound`, `InvalidInput`, `CorruptLog`, `RecoveryFailed`.
    """
    files = files or OsFileSystem()
    log = open_log_read_only(files, path)
    try:
        index, dead = log.index, DeadRecords(log.index)
        while (unseen := dead.next_unseen(index.segments)) is not None:
            dead.take_up(unseen)
        sizes = [found.size for segment in index.segments if (found := files.stat(segment.path)) is not None]
        cut = posixpath.join(path, QUARANTINE)
        names = files.list_names(cut) if files.stat(cut) is not None else []
        cut_sizes = [found.size for name in names if (found := files.stat(posixpath.join(cut, name))) is not None]
        return LogSurvey(
            segments=len(index.segments),
            sealed=sum(segment.sealed for segment in index.segments),
            log_bytes=sum(sizes),
            records=index.records,
            payload_bytes=sum(segment.index.payload_bytes for segment in index.segments),
            streams=sum(1 for _stream in streams_of(index)),
            open_streams=len(index.open_streams),
            deleted_streams=len(dead.deleted),
            dead_batches=sum(dead[segment].batches for segment in index.segments),
            dead_bytes=sum(dead[segment].size for segment in index.segments),
            worth_compacting=tuple(
                segment.path for segment in index.segments if is_dead_enough(segment.index, dead[segment])
            ),
            quarantine_files=len(cut_sizes),
            quarantine_bytes=sum(cut_sizes),
            notes=log.report.notes,
        )
    finally:
        log.release()
