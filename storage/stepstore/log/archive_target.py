"""The directory that an archive is made in, or a log restored to: it holds nothing, or what was cut off there."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from stepstore.errors import InvalidInput
from stepstore.log import names
from stepstore.log.directory import make_levels, sync_levels
from stepstore.log.files import FileSystem
from stepstore.log.names import parse_manifest_name, parse_segment_name, parse_sidecar_name


def refuse_inside(files: FileSystem, source: str, target: str) -> None:
    """Raises: `InvalidInput` if the target lies inside what is to be read, whatever names lead there; `OSError`."""
    if _is_inside(files, source, posixpath.abspath(target)):
        raise InvalidInput(
            f"target: {target!r} lies inside {source!r}, which is not to be changed. Name another place."
        )


def _is_inside(files: FileSystem, source: str, target: str) -> bool:
    read = files.stat(source)
    while read is not None and target != posixpath.dirname(target):
        found = files.stat(target)
        if found is not None and found.identity == read.identity:
            return True
        target = posixpath.dirname(target)
    return False


def check_empty(files: FileSystem, target: str, is_left_over: Callable[[list[str]], bool]) -> None:
    """Raises: `InvalidInput` unless there is nothing at the target, or only what was left there by a run that was cut
    off; `OSError`."""
    at = files.stat(target)
    if at is None:
        return
    inside = files.list_names(target) if at.is_directory else [""]
    if inside and not (is_left_over(inside) and all(map(_is_of_an_archive, inside))):
        raise InvalidInput(f"target: {target!r} exists and is not an empty directory. Name a new one.")


def _is_of_an_archive(name: str) -> bool:
    return (
        name in (names.FORMAT, names.RESTORING)
        or name.endswith(".tmp")
        or any(parse(name) is not None for parse in (parse_segment_name, parse_sidecar_name, parse_manifest_name))
    )


def begin(files: FileSystem, target: str, marker: str) -> None:
    """Make the target, or empty it, with a durable sign that it is not finished."""
    make_levels(files, target)
    sync_levels(files, target)
    path = posixpath.join(target, marker)
    if files.stat(path) is None:
        files.open(path, create=True).close()
    files.sync_directory(target)
    for name in files.list_names(target):
        if name != marker:
            files.unlink(posixpath.join(target, name))
    files.sync_directory(target)
