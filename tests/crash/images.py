"""What a crash leaves, and how to tell whether two of them are the same."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from stepstore.log.memory_files import MemoryFileSystem, Unsynced
from tests.crash.fates import Kept, describe, image_of
from tests.crash.lives import Setting
from tests.crash.promises import Expectation


class Image(NamedTuple):
    """What a crash left, what had been promised by then, and how it came about."""

    disk: MemoryFileSystem
    expected: Expectation
    power_cut: bool
    at: str


def after_power_cut(
    disk: MemoryFileSystem, items: Sequence[Unsynced], fate: Kept, expected: Expectation, where: str
) -> Image:
    """What a power cut leaves of a disk if this is the fate of what is not synced."""
    return Image(image_of(disk, items, fate), expected, True, f"{where}: power cut, {describe(items, fate)}")


_QUARANTINED_AT = re.compile(r"^\d{8}T[\d.]+Z")


def fingerprint(image: Image, setting: Setting) -> bytes:
    """The same for images that hold the same, seen and durable, with the same promises. When something went to
    quarantine, and what LOCK says of its holder, is left out."""
    known = hashlib.blake2b(image.expected.digest() + setting.name.encode(), digest_size=16)
    for disk in (image.disk,) if image.power_cut else (image.disk, image.disk.durable_copy()):
        for path, content in contents(disk, "/"):
            folder, name = posixpath.split(path)
            if name == "LOCK":
                content = content[:1]
            name = _QUARANTINED_AT.sub("", name)
            known.update(f"{folder}/{name} {len(content)}\n".encode())
            known.update(content)
        known.update(b"durable")
    return known.digest()


def contents(disk: MemoryFileSystem, folder: str) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder; a folder itself counts as an empty file."""
    for name in disk.list_names(folder):
        path = f"{folder}/{name}" if folder != "/" else f"/{name}"
        found = disk.stat(path)
        assert found is not None
        if found.is_directory:
            yield path, b""
            yield from contents(disk, path)
        else:
            yield path, disk.open(path, write=False).read(0, found.size)
