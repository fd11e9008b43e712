"""A medium on which one call fails, or all calls from one on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from stepstore.log.frame import SECTOR
from tests.crash.lives import Life
from tests.crash.watching import Call

SYNCS = frozenset({"datasync", "sync_directory"})


class Fault(NamedTuple):
    """What goes wrong at the k-th call. `how`: "EIO", "ENOSPC", "short", or "short, then ENOSPC". `lasting`: "once",
    "for ever" (calls of the same operation) or "for ever, all". `reached`: whether what failed was carried out all the
    same; of a write, half of it."""

    at: int
    how: str
    lasting: str
    reached: bool = False

    def __str__(self) -> str:
        return f"{self.how} {self.lasting}{', although carried out' if self.reached else ''}"


class FaultyMedium:
    """A hook for every call of the file layer that lets a fault happen. `operation`: of the call that failed first."""

    def __init__(self, fault: Fault):
        self.fault = fault
        self.calls = 0
        self.failed = 0
        self.first: Call | None = None
        self.life: Life | None = None

    def __call__(self, call: Call) -> int | None:
        self.calls += 1
        fault = self.fault
        if self.calls < fault.at:
            return None
        if self.calls == fault.at:
            self.first = call
        assert self.first is not None
        if fault.lasting == "once":
            last = fault.at + (fault.how == "short, then ENOSPC")
            if self.calls > last:
                return None
        if fault.lasting != "for ever, all" and call.operation != self.first.operation:
            return None
        self.failed += 1
        if fault.how == "short":
            return self._short(call)
        if fault.how == "short, then ENOSPC" and self.calls == fault.at and (taken := first_half(call)):
            return taken
        number = errno.EIO if fault.how == "EIO" else errno.ENOSPC
        if call.file is not None and call.operation == "datasync":
            call.file.datasync() if fault.reached else call.file.lose_unsynced()
        elif fault.reached and call.file is not None and call.operation == "write":
            call.file.write(call.offset, memoryview(call.data)[: first_half(call)])
        elif fault.reached and call.operation == "sync_directory" and self.life is not None:
            self.life.disk.sync_directory(call.path)
        raise OSError(number, os.strerror(number), call.path)

    @staticmethod
    def _short(call: Call) -> int:
        assert call.file is not None
        there = call.size if call.operation == "write" else min(call.size, max(call.file.size() - call.offset, 0))
        return max(there // 2, 1)


def first_half(call: Call) -> int:
    """How much of a write is carried out before it fails: whole sectors, since the medium and the page cache take no
    less than that; nothing where it lies in one sector."""
    return max((call.offset + call.size // 2) // SECTOR * SECTOR - call.offset, 0)


def faults(at: int, operation: str) -> Iterator[Fault]:
    """Every way in which this call can fail; the first one of them tells what call it is."""
    ways = [("EIO", "once"), ("EIO", "for ever"), ("EIO", "for ever, all"), ("ENOSPC", "once"), ("ENOSPC", "for ever")]
    yield from (Fault(at, how, lasting) for how, lasting in ways)
    if operation in SYNCS or operation == "write":
        yield from (Fault(at, how, lasting, reached=True) for how, lasting in ways)
    if operation in ("read", "write"):
        yield from (Fault(at, "short", lasting) for lasting in ("once", "for ever"))
    if operation == "write":
        yield from (Fault(at, "short, then ENOSPC", lasting) for lasting in ("once", "for ever"))
