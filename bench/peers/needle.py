"""Is deleted text still in a file?"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

NEEDLE = b"src/module_0.py"
"""In every step of the first episode, and in no other (see `Load`)."""


def spellings(text: bytes) -> Iterator[bytes]:
    """How a text can stand in a file: as it is, and within base64, which has three forms of it."""
    yield text
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + text)
        # The first and the last few characters depend on the neighbours too.
        yield coded[-(-shift * 8 // 6) : len(coded) - (0 if (shift + len(text)) % 3 == 0 else 4)]


def files_with(directory: Path, text: bytes = NEEDLE) -> list[str]:
    """The names of the files in a directory that have this text somewhere."""
    found = []
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            if any(spelling in content for spelling in spellings(text)):
                found.append(str(file.relative_to(directory)))
    return found
