"""Feed recovery with hostile files: whatever they hold, only declared errors, little memory, little time.

`survive` is the one entry point of all fuzzers. It opens the files in every way there is, reads everything and
verifies, on a file layer that takes only offsets and sizes that an operating system would take as well.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
import resource
import signal
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

import trio

from stepstore.errors import CorruptLog
from stepstore.log.memory_files import MemoryFile, MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash.hostile import Input
from tests.crash.readback import Reading, read_read_only, read_writable, verify_outcome
from tests.crash.specimen import Image, put_files
from tests.stepstore.log_lab import LOG

GROWTH_BYTES = 64 * 1024 * 1024
CPU_SECONDS = 1.0
SLOW = "too slow"
STRICT = LogOptions(segment_bytes=4096)
CUT = LogOptions(segment_bytes=4096, tail="cut")


class TooSlow(BaseException):
    """The second is over, and no checkpoint in sight. Not an `Exception`, so that nothing under test handles it."""


class CpuClock(trio.abc.Clock):
    """Counts the work of this process, so that a limit means the same on a busy machine."""

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return time.process_time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - time.process_time()


class ChangedMind(AssertionError):
    """What an opening for writing served, the next opening does not serve."""


class StrictFiles(MemoryFileSystem):
    """The file layer in memory, as particular about its arguments as the real one."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> MemoryFile:
        return StrictFile(super().open(path, create=create, write=write)._inode, path, write=write)


class StrictFile(MemoryFile):
    """A `File` of `StrictFiles`. A real read makes room for what is asked before it knows what there is."""

    def read(self, offset: int, size: int) -> bytes:
        if not 0 <= offset < 2**63 or not 0 <= size < 2**63:
            raise OverflowError(f"read {size} bytes at {offset}")
        if size > GROWTH_BYTES:
            raise MemoryError(f"read {size} bytes at {offset}")
        return super().read(offset, size)

    def truncate(self, size: int) -> None:
        if not 0 <= size < 2**63:
            raise OverflowError(f"truncate to {size}")
        super().truncate(size)


class Survived(NamedTuple):
    """How it went: a word for each way of opening; or a `failure`, told apart by its `signature`."""

    outcomes: tuple[str, ...] = ()
    signature: str = ""
    failure: str = ""

    @property
    def is_slow(self) -> bool:
        """Whether it took too much work."""
        return self.signature.startswith(SLOW)


def survive(what: Input, seconds: float = CPU_SECONDS) -> Survived:
    """Open, read and verify within the limits of memory and of work."""
    try:
        with _limits(seconds):
            return Survived(_everything(what, seconds))
    except (Exception, TooSlow) as error:
        return Survived((), _signature(error), traceback.format_exc())


def peak_of(what: Input) -> int:
    """The most bytes that Python objects took at one time while surviving this, without limits; slow."""
    tracemalloc.start()
    try:
        _everything(what, 10 * CPU_SECONDS)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _everything(what: Input, seconds: float) -> tuple[str, ...]:
    async def main() -> tuple[str, ...]:
        with trio.fail_after(seconds):
            return await look_and_open()

    async def look_and_open() -> tuple[str, ...]:
        disk = _disk(what)
        verified = verify_outcome(disk)
        looking = await read_read_only(disk, STRICT)
        strict = await _open_twice(disk, STRICT)
        cut = await _open_twice(_disk(what), CUT)
        return f"verify: {verified}", _word("read-only:", looking), _word("strict:", strict), _word("cut:", cut)

    return trio.run(main, clock=CpuClock())


def _disk(what: Input) -> MemoryFileSystem:
    disk = StrictFiles()
    put_files(disk, what.image)
    lock = f"{LOG}/LOCK"
    if what.locked and what.image.get(lock) is not None:
        disk.open(lock).lock()  # held by nobody who could ever give it back
    return disk


async def _open_twice(disk: MemoryFileSystem, options: LogOptions) -> Reading:
    first = await read_writable(disk, options)
    if first.refused is None:
        second = await read_writable(disk, options)
        if second.refused is not None:
            raise ChangedMind(f"opening it again {_word('is', second)}") from second.refused
        if second.streams != first.streams or second.damaged.keys() != first.damaged.keys():
            raise ChangedMind("opening it again shows something else")
    return first


def _word(way: str, reading: Reading) -> str:
    if isinstance(reading.refused, CorruptLog):
        return f"{way} refused by row {reading.refused.row}"
    if reading.refused is not None:
        return f"{way} refused with {type(reading.refused).__name__}"
    return f"{way} damaged in some streams" if reading.damaged else f"{way} readable"


_OURS = re.compile(r"/(stepstore|tests)/")


@contextmanager
def _limits(seconds: float) -> Iterator[None]:
    """Allow the address space to grow by `GROWTH_BYTES`, and somewhat more work than that: where there are checkpoints,
    Trio ends it before."""

    def over(number: int, frame: FrameType | None) -> None:
        if frame is None or not _OURS.search(frame.f_code.co_filename):
            # Trio would not survive it, and a callback of the collector would keep it to itself.
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.002)
            return
        raise TooSlow(f"more than {seconds} s without a checkpoint")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, over)
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH_BYTES, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.5 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def _signature(error: BaseException) -> str:
    """What failed and where in the product: the same for the many inputs that meet the same mistake."""
    if isinstance(error, ChangedMind):
        return str(error)
    entries = traceback.extract_tb(error.__traceback__)
    inside = [entry for entry in entries if "/stepstore/" in entry.filename and "/tests/" not in entry.filename]
    if isinstance(error, TooSlow | trio.TooSlowError):  # where exactly it was is chance
        cancelled = error.__context__ if isinstance(error, trio.TooSlowError) else None
        entries += traceback.extract_tb(cancelled.__traceback__) if cancelled is not None else []
        called = [entry for entry in entries if posixpath.basename(entry.filename) == "readback.py"]
        return f"{SLOW}: {called[-1].line if called else 'somewhere'}"
    if not inside:
        return f"{type(error).__name__} outside stepstore"
    return f"{type(error).__name__} in {posixpath.basename(inside[-1].filename)}, {inside[-1].name}: {inside[-1].line}"


# ---- reproductions ---------------------------------------------------------------------------------------------------


def pack(what: Input) -> str:
    """An input as one word that `python -m tests.crash.fuzz --replay` takes."""
    files = {path: None if data is None else data.hex() for path, data in what.image.items()}
    text = json.dumps({"locked": what.locked, "files": files})
    return base64.b85encode(zlib.compress(text.encode("utf-8", "surrogatepass"), 9)).decode()


def unpack(word: str) -> Input:
    """The input that `pack` made a word of."""
    known = json.loads(zlib.decompress(base64.b85decode(word)))
    files = {path: None if data is None else bytes.fromhex(data) for path, data in known["files"].items()}
    return Input(files, known["locked"])


def minimise(what: Input, fails: Callable[[Input], bool], *, seconds: float) -> Input:
    """A smaller input that fails as well: fewer files, shorter ones, more zeros. Gives up after so much work."""
    end = time.process_time() + seconds

    def attempt(image: Image, locked: bool) -> bool:
        nonlocal what
        candidate = Input(image, locked)
        if (
            time.process_time() > end
            or (candidate.image == what.image and locked == what.locked)
            or not fails(candidate)
        ):
            return False
        what = candidate
        return True

    attempt(what.image, False)
    for path in sorted(what.image):
        if path != LOG:
            attempt({p: d for p, d in what.image.items() if p != path and not p.startswith(path + "/")}, what.locked)
    for path in sorted(what.image):
        size = len(what.image[path] or b"")
        step = size
        while step:
            data = what.image[path] or b""
            attempt({**what.image, path: data[: max(len(data) - step, 0)]}, what.locked)
            step //= 2
        for block in (512, 64, 8, 1):
            data = what.image[path] or b""
            for start in range(0, len(data), block):
                data = what.image[path] or b""
                attempt({**what.image, path: _blank(data, start, block)}, what.locked)
    return what


def _blank(data: bytes, start: int, size: int) -> bytes:
    end = min(start + size, len(data))
    return data[:start] + bytes(end - start) + data[end:]
