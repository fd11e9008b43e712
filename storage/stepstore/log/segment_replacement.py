"""Put a rewritten file in the place of the segments it stands for. All calls block.

The order survives a crash at any point: a manifest that lists the old files, unless there is one → the new file gets
its name; not listed, it is a left-over → the manifest that lists it instead of the old ones gets its name. From then on
those are the left-overs.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from stepstore.log.compaction import Rewriting
from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.manifest import Manifest, manifest_of, name_manifest, prepare_manifest, superseded_manifests
from stepstore.log.opening import OpenLog
from stepstore.log.sealing import sidecar_path


class Replacement(NamedTuple):
    """A rewritten file in its place, and the manifest that lists it. `gone`: paths that are to be removed."""

    segment: IndexedSegment
    manifest: Manifest
    gone: list[str]


class HalfInPlace(Exception):
    """A rewritten file was being put in its place when an error came (its cause): which files are the log, only the
    manifest that is on the medium can tell. The old ones and the new one are all still there. Nothing more may be
    compacted, nothing removed, before the log was opened again."""


def put_in_place(log: OpenLog, rewriting: Rewriting, ended: Sequence[IndexedSegment]) -> Replacement:
    """Make a sealed rewriting count. `ended`: all segments that have ended, the sources among them.

    Raises: `OSError`, `Fenced` (nothing has changed then), `HalfInPlace`.
    """
    files, sources = log.files, rewriting.sources
    assert log.lock is not None
    log.lock.check()
    if log.manifest is None or log.manifest.seq_last < sources[-1].header.seq_last:
        manifest = manifest_of(log.manifest, log.identity, ended)
        prepare_manifest(files, log.path, manifest)
        with _naming():
            name_manifest(files, log.path, manifest)
        log.manifest = manifest
    at = ended.index(sources[0])
    path = posixpath.join(log.path, str(rewriting.name))
    listed = [*ended[:at], rewriting.indexed(path), *ended[at + len(sources) :]]
    manifest = manifest_of(log.manifest, log.identity, listed)
    prepare_manifest(files, log.path, manifest)  # now, while a full disk still changes nothing
    with _naming():
        if files.stat(path) is not None:
            files.unlink(path)  # not listed, so a left-over
        files.rename(rewriting.path, path)
        files.sync_directory(log.path)
        name_manifest(files, log.path, manifest)
    return Replacement(rewriting.open(path), manifest, _replaced_files(log, sources))


@contextlib.contextmanager
def _naming() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HalfInPlace from error


def _replaced_files(log: OpenLog, sources: Sequence[IndexedSegment]) -> list[str]:
    paths = [path for source in sources for path in (source.path, sidecar_path(source.path))]
    with contextlib.suppress(OSError):  # old manifests that are not removed now are removed at the next opening
        paths += [posixpath.join(log.path, name) for name in superseded_manifests(log.files.list_names(log.path))]
    return paths


def remove(log: OpenLog, paths: Iterable[str]) -> None:
    """Remove files that are not the log any more, for good; readers let go of them. Raises: `OSError`."""
    for path in paths:
        if log.files.stat(path) is not None:
            log.files.unlink(path)
        log.reading.forget(path)
    log.files.sync_directory(log.path)
