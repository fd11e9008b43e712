"""Whether a process has a log open for writing, told without taking its lock where that can be."""

from __future__ import annotations

import os
import posixpath

from stepstore.errors import StepwellError
from stepstore.log.files import FileSystem, OsFileSystem
from stepstore.log.names import LOCK


def is_locked(files: FileSystem, path: str) -> bool:
    """Whether a process has the log open for writing. On Linux the kernel's table tells, and the lock is not touched:
    taking it for a moment could refuse a process that opens the log just then."""
    found = files.stat(posixpath.join(path, LOCK))
    if found is None:
        return False
    if isinstance(files, OsFileSystem):
        device, inode = found.identity
        mine = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
        try:
            with open("/proc/locks", encoding="ascii") as table:
                return any("FLOCK" in line and mine in line.split() for line in table)
        except OSError:
            pass  # no such table here: ask the lock itself
    try:
        file = files.open(posixpath.join(path, LOCK), write=False)
    except OSError:
        return False
    try:
        return not file.lock()
    except (OSError, StepwellError):
        return False
    finally:
        file.close()
