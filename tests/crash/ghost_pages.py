"""Ghost pages: what a failed fsync leaves in the page cache is read by the next process, and was never on the medium.

    python -m tests.crash.ghost_pages [--short] [--rounds N] [--seed N] [--json] [--broken]

Agents log into a memory on ext4 on a loop device over a tmpfs with little room. When the tmpfs is full, writing back
fails for real: the fdatasync of a commit group returns an error, and its pages stay in the cache, clean. Their process
dies at that very call, or goes on with the error and dies later. Then room is made (in every second round only after an
opening on the full medium) and the memory opened: whatever it serves must be on the medium. That is looked at twice: on
a copy of the medium taken while the memory is open, as a power cut would leave it, and through the same mount when the
kernel has been made to forget every clean page. And what it serves is compared with what was acknowledged.

A round counts only if there were ghosts: bytes of a segment that the page cache showed and the medium had not. It does
not if the full medium hit the file system itself, which then lets nobody write any more.

With --broken the opening does not write again what it recovered, it only syncs, and the suite must object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import trio

from stepstore.log.files import FileSystem, OsFile, OsFileSystem
from stepstore.log.recovered import SegmentState
from stepwell import MemoryConfig, RecoveryFailed, StepwellError
from stepwell.memory.opening import OpenMemory
from tests.crash import suite
from tests.crash.children import child_command, report_to_parent, run_child
from tests.crash.ledger import Ledger
from tests.crash.media import (
    Bench,
    copy_sparse,
    die_with_parent,
    drop_caches,
    fill_used_blocks,
    make_ext4,
    mounted_image,
    mounted_tmpfs,
    need_ext4_on_a_loop,
)
from tests.crash.reopening import SMALL_SEGMENT, reopen
from tests.crash.suite import Result
from tests.crash.workload import HUNG, PATIENCE, Work, work_out

MEDIUM_BYTES = 40 * 1024 * 1024
DISK_BYTES = 24 * 1024 * 1024
WORK = Work(agents=6, episodes=6, steps=40)
MEMORY = "memory"


# ---- the child -------------------------------------------------------------------------------------------------------


class MortalFile(OsFile):
    """A file whose process does not survive an error of a write or a sync."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        with _deadly():
            return super().write(offset, data)

    def datasync(self) -> None:
        with _deadly():
            super().datasync()


class UnsyncedMortalFile(OsFile):
    """A file whose process does not come to its first sync."""

    def datasync(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _deadly() -> Iterator[None]:
    try:
        yield
    except OSError:
        os.kill(os.getpid(), signal.SIGKILL)


class MortalFiles(OsFileSystem):
    """The real file layer, with files of this kind."""

    def __init__(self, kind: type[OsFile]):
        self._kind = kind

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        flags = os.O_RDWR if write else os.O_RDONLY
        return self._kind(path, flags | (os.O_CREAT | os.O_EXCL if create else 0))


FILES: dict[str, FileSystem | None] = {
    "goes on": None,
    "dies of an error": MortalFiles(MortalFile),
    "dies before a sync": MortalFiles(UnsyncedMortalFile),
}
"""What becomes of a child when the medium is full."""


async def _log(directory: str, seed: str, nature: str) -> None:
    async with OpenMemory(directory, MemoryConfig(segment_bytes=SMALL_SEGMENT), False, FILES[nature]) as memory:
        await work_out(memory, report_to_parent, seed=seed, work=WORK)


def _child(directory: str, seed: str, nature: str) -> None:
    die_with_parent()
    try:
        trio.run(_log, directory, seed, nature)
    except (StepwellError, OSError) as error:
        report_to_parent(["left", f"{type(error).__name__}: {error}"])


# ---- the parent ------------------------------------------------------------------------------------------------------


def ghosts(mounted: Path, copy: Path, at: Path) -> int:
    """How many bytes of segments the page cache shows that are not on the medium, of which `copy` is a copy."""
    with mounted_image(copy, at) as real:
        found = 0
        for segment in sorted((mounted / MEMORY).glob("*.seg")):
            shown = segment.read_bytes()
            twin = real / MEMORY / segment.name
            held = twin.read_bytes().ljust(len(shown), b"\0") if twin.exists() else bytes(len(shown))
            found += sum(a != b for a, b in zip(shown, held, strict=False)) if shown != held[: len(shown)] else 0
        return found


def only_sync(files: FileSystem, state: SegmentState) -> None:
    """What the opening does with recovered frames under --broken: it syncs them, which is not enough."""
    file = files.open(state.segment.path)
    try:
        file.datasync()
    finally:
        file.close()


class FileSystemLostError(Exception):
    """The file system has made itself read-only: the full medium refused a block of its own."""


class Round:
    """One medium that fills up, and what becomes of the memory on it."""

    def __init__(self, bench: Path, room: Path, name: str, rng: random.Random, result: Result):
        self._bench, self._room, self._name, self._result = bench, room, name, result
        self._spare = rng.randrange(60, 700) * 1024
        self._nature = rng.choice(("goes on", "dies of an error", "dies of an error"))
        self._while_full = rng.choice(("nothing", "an opening", "dies of an error", "dies before a sync"))
        self._ledger = Ledger()
        self._lives = 0

    def run(self) -> bool:
        """Whether there were ghosts."""
        with mounted_tmpfs(self._bench / "medium", MEDIUM_BYTES) as medium:
            image, filler = medium / "image", medium / "filler"
            make_ext4(image, DISK_BYTES)
            fill_used_blocks(image)
            free = shutil.disk_usage(medium).free
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free - self._spare)
            # The medium is copied while it is mounted, so nothing may go to it by itself meanwhile.
            quiet = "commit=300"
            with mounted_image(image, self._bench / "mounted", single_blocks=True, options=quiet) as mounted:
                try:
                    return self._fill_and_reopen(mounted, image, filler)
                except FileSystemLostError:
                    self._result.count("rounds_in_which_the_file_system_was_lost")
                    return False

    def _fill_and_reopen(self, mounted: Path, image: Path, filler: Path) -> bool:
        memory = mounted / MEMORY
        self._work(memory, self._nature)
        copy = self._room / "copy"
        copy_sparse(image, copy)
        haunted = ghosts(mounted, copy, self._bench / "twin")
        copy.unlink()
        if self._while_full == "an opening":
            self._open(memory, image, full=True)
        elif self._while_full != "nothing":
            self._work(memory, self._while_full)
            self._result.count("openings_killed_on_the_full_medium")
        filler.unlink()
        self._open(memory, image)
        self._work(memory, "goes on")
        self._open(memory, image)
        self._result.count("ghost_bytes", haunted)
        return haunted > 0

    def _work(self, memory: Path, nature: str) -> None:
        name = f"{self._name}-{self._lives}"
        self._lives += 1
        self._ledger.note_lines(
            run_child(child_command("ghost_pages", str(memory), name, nature), may_die=nature != "goes on")
        )
        if HUNG in self._ledger.left:
            self._result.violate(f"{name}: agents still waited after {PATIENCE:.0f} s")
        self._ledger.left.clear()

    def _open(self, memory: Path, image: Path, *, full: bool = False) -> None:
        """Open, and compare what is served with what was acknowledged, and with what is on the medium. On the full
        medium the opening may fail."""
        copy = self._room / "copy"
        try:
            served = reopen(memory, lambda: copy_sparse(image, copy)).served
        except StepwellError as error:
            if os.statvfs(memory).f_flag & os.ST_RDONLY:
                raise FileSystemLostError from error
            if full and isinstance(error, RecoveryFailed):
                self._result.count("openings_refused_on_the_full_medium")
            else:
                self._result.violate(f"{self._name}: it does not open: {type(error).__name__}: {error}")
            return
        verdict = self._ledger.check(served)
        if not verdict.sound:
            self._result.violate(f"{self._name}: {verdict}")
        with mounted_image(copy, self._bench / "twin") as twin:
            self._compare("on the medium", twin / MEMORY, served)
        copy.unlink()
        drop_caches()
        self._compare("when the cache is dropped", memory, served)
        self._result.count("acknowledged_records_compared", verdict.acknowledged)

    def _compare(self, where: str, memory: Path, served: object) -> None:
        try:
            again = reopen(memory).served
        except StepwellError as error:
            self._result.violate(f"{self._name}: what was served is not there {where}: {error}")
        else:
            if again != served:
                self._result.violate(f"{self._name}: what was served is not there {where}")


def haunt(options: argparse.Namespace, result: Result) -> None:
    """Run rounds until the wanted number of them had ghosts."""
    need_ext4_on_a_loop()
    broken = mock.patch("stepstore.log.repair._write_again", only_sync)
    with (
        Bench() as bench,
        suite.Steps("ghost rounds", options.count) as steps,
        broken if options.broken else contextlib.nullcontext(),
    ):
        room = bench.enter(mounted_tmpfs(bench.path / "room", 4 * DISK_BYTES))
        haunted = tried = 0
        while haunted < options.count:
            rng = suite.seeded(options, tried)
            name = f"s{options.seed}-{tried}"
            if Round(bench.path, room, name, rng, result).run():
                haunted += 1
                result.count("rounds_with_ghosts")
                steps.advance()
            tried += 1
            if tried > 3 * options.count + 10:
                raise RuntimeError(f"only {haunted} of {tried} rounds had ghosts")


def main(arguments: suite.Arguments = None) -> int:
    """Run the suite."""
    parser = suite.parser("ghost_pages", __doc__ or "", unit="rounds", short=5, long=50)
    parser.add_argument("--broken", action="store_true", help="recovered frames are only synced: must object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _child(*json.loads(options.child))
        return 0
    return suite.run("ghost_pages", options, haunt)


if __name__ == "__main__":
    sys.exit(main())
