"""Power cuts on a real file system: ext4 on a loop device whose every block write is recorded.

    python -m tests.crash.power_cuts [--short] [--cuts N] [--seed N] [--json] [--broken]

Agents log into a memory on a device that remembers (`block_device`); they report to the device what they hand in and
what is acknowledged, so that both stand in one order with the block writes and the flushes. Then the disk is rebuilt as
a power cut would have left it: at a chosen write, with all that the medium was given, or with some of what it was given
since the last flush, or with some sectors of that. The image is mounted on a fresh loop device (the file system replays
its journal), opened, read as a whole, and compared with what was acknowledged by then. Now and then the power is cut
again right after the opening: what it served must be there a second time. And two recordings of three go on from a disk
that a power cut left.

Agents, episodes and steps follow from the seed, their timing does not: another run cuts elsewhere. So whatever is
needed to look at a violation is kept (the image, the ledger), and its place is printed.

With --broken the fdatasync behind a commit group does nothing, and the suite must object.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from stepstore.log.files import OsFile, OsFileSystem
from stepwell import MemoryConfig, StepwellError
from stepwell.memory.opening import OpenMemory
from tests.crash import suite
from tests.crash.block_device import DiskImage, Markers, Operation, Recording, logged_device, need_logged_device
from tests.crash.children import child_command, run_child
from tests.crash.ledger import Ledger
from tests.crash.media import Bench, copy_sparse, die_with_parent, make_ext4, mounted_image, mounted_tmpfs
from tests.crash.reopening import Opened, reopen
from tests.crash.suite import Result
from tests.crash.workload import Report, Work, go_on, reopened, run_agents

DISK_BYTES = 24 * 1024 * 1024
ROOM_BYTES = 512 * 1024 * 1024
CUTS_PER_RECORDING = 100
MOUNT_OPTIONS = ("", "", "data=writeback", "", "", "data=journal")
"""How the file system is mounted, one recording after another: mostly as everybody has it."""
CHAIN = 3
"""So many recordings go on from one another before the next begins with an empty disk."""
SECOND_CUT_EVERY = 4
WORK = Work(agents=8, episodes=3, steps=24)
MEMORY = "memory"


# ---- the child: what runs when the power fails -----------------------------------------------------------------------


class UnsyncedFile(OsFile):
    """A file whose datasync does something only the first time: FORMAT and the header of a segment reach the medium,
    the commit groups behind it do when it pleases the kernel."""

    _synced = False

    def datasync(self) -> None:
        if not self._synced:
            super().datasync()
            self._synced = True


class UnsyncedFiles(OsFileSystem):
    """The file layer of --broken."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        flags = os.O_RDWR if write else os.O_RDONLY
        return UnsyncedFile(path, flags | (os.O_CREAT | os.O_EXCL if create else 0))


def _config(rng: random.Random) -> MemoryConfig:
    return MemoryConfig(
        segment_bytes=rng.choice((64, 64, 128, 256)) * 1024,
        align=rng.choice((0, 0, 512, 4096)),
        durability=rng.choice(("receipt", "receipt", "commit")),
        mailbox_size=rng.choice((4, 64)),
    )


async def _session(directory: str, send: Report, rng: random.Random, seed: str, ending: str, *, broken: bool) -> None:
    """Open the memory, report what it serves, and run the agents: to their end, or to a cancellation or the death of
    the process after a number of reports that the dice decide."""
    left = rng.randrange(50, 500)

    def report(text: Sequence[Any]) -> None:
        nonlocal left
        send(text)
        left -= 1
        if left == 0 and ending == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0 and ending == "cancel":
            scope.cancel()

    files = UnsyncedFiles() if broken else None
    scope = trio.CancelScope()
    async with OpenMemory(directory, _config(rng), False, files) as memory:
        await reopened(memory, report)
        with scope:
            await go_on(memory, report, seed=seed, work=WORK)
            await run_agents(memory, report, seed=seed, work=WORK)


def _child(directory: str, markers: str, seed: str, endings: Sequence[str], broken: bool) -> None:
    die_with_parent()
    channel = Markers(markers)

    def send(text: Sequence[Any]) -> None:
        channel.send(json.dumps(text).encode())

    for number, ending in enumerate(endings):
        name = f"{seed}-{number}"
        trio.run(lambda: _session(directory, send, random.Random(name), name, ending, broken=broken))  # noqa: B023


def record(directory: Path, seed: str, rng: random.Random, options: str, *, broken: bool) -> Recording:
    """Run the agents on a device that remembers; the file system is in `directory`/image, mounted with `options`."""
    lives = [["cancel", "die"], ["close", "die"], ["close"]]
    rng.shuffle(lives)
    with logged_device(directory, options=options) as device:
        for number, endings in enumerate(lives):
            name = f"{seed}-{number}"
            directory_of_agents = str(device.mounted_at / MEMORY)
            command = child_command("power_cuts", directory_of_agents, device.markers, name, endings, broken)
            run_child(command, may_die="die" in endings)
    assert device.recording is not None
    return device.recording


# ---- the parent: cutting the power -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A power cut behind operation number `place` of a recording. `kind` says what the medium has of that which it was
    given since the last flush: all ("prefix"), some writes ("subset"), some sectors ("torn")."""

    place: int
    kind: str

    def writes(self, disk: DiskImage, rng: random.Random) -> list[tuple[int, bytes]]:
        """What it leaves of the writes that were not flushed."""
        if self.kind == "prefix":
            return disk.everything()
        return disk.subset(rng) if self.kind == "subset" else disk.torn(rng)


def choose_cuts(operations: Sequence[Operation], count: int, rng: random.Random) -> list[Cut]:
    """Spread `count` cuts over the writes of a recording, one at random in each stretch."""
    places = [number for number, operation in enumerate(operations) if operation.kind == "write"]
    kinds = ("prefix", "subset", "torn")
    chosen = [places[int((n + rng.random()) * len(places) / count)] for n in range(count)]
    return [Cut(place, kinds[number % len(kinds)]) for number, place in enumerate(chosen)]


@dataclass(frozen=True)
class Leaving:
    """A disk as a power cut left it, for a recording to go on from, and what was known at that moment."""

    image: Path
    ledger: Ledger


class Cutter:
    """Rebuilds the disks of recordings, opens them, and compares."""

    def __init__(self, room: Path, result: Result, tried: Callable[[], None], *, keeping: bool):
        self._room, self._result, self._tried, self._keeping = room, result, tried, keeping

    def run(
        self, name: str, recording: Recording, cuts: Sequence[Cut], ledger: Ledger, rng: random.Random, leaving: Path
    ) -> Leaving:
        """Cut a recording at these places, in their order. `ledger` is what was known when it began. Gives one of the
        disks, with its image in the file `leaving`."""
        disk, handed_on, pending = DiskImage(recording.base), rng.randrange(len(cuts)), list(enumerate(cuts))
        left: Leaving | None = None
        for place, operation in enumerate(recording.operations):
            disk.apply(operation)
            if operation.kind == "marker":
                ledger.note(json.loads(operation.data))
            while pending and pending[0][1].place == place:
                number, cut = pending.pop(0)
                writes = cut.writes(disk, rng)
                what = f"{name}, {cut.kind} cut behind operation {place:,} of {len(recording.operations):,}"
                self._try(what, disk, writes, ledger, again=number % SECOND_CUT_EVERY == 0)
                self._result.count(f"{cut.kind}_cuts")
                self._tried()
                if number == handed_on:
                    disk.save(leaving, writes)
                    left = Leaving(leaving, copy.deepcopy(ledger))
        assert left is not None
        return left

    def _try(self, what: str, disk: DiskImage, writes: list[tuple[int, bytes]], ledger: Ledger, *, again: bool) -> None:
        image, second = self._room / "image", self._room / "second"
        disk.save(image, writes)
        try:
            opened = self._open(image, second if again else None)
            verdict = ledger.check(opened.served)
            complaints = [] if verdict.sound else [str(verdict)]
            self._result.count("torn_tails_cut", int(opened.bytes_cut > 0))
            self._result.count("acknowledged_records_compared", verdict.acknowledged)
            if again:
                self._result.count("second_cuts")
                if self._open(second, None).served != opened.served:
                    complaints.append("what an opening served was gone or changed after another power cut")
        except StepwellError as error:
            complaints = [f"{type(error).__name__}: {error}"]
        finally:
            image.unlink()
            second.unlink(missing_ok=True)
        for complaint in complaints:
            if self._keeping:
                kept = Path(tempfile.mkdtemp(prefix="stepwell-power-cut-"))
                disk.save(kept / "image", writes)
                (kept / "ledger.json").write_bytes(msgspec.json.encode(ledger.accounts))
                complaint += f" [the disk is kept in {kept}]"
            self._result.violate(f"{what}: {complaint}")

    def _open(self, image: Path, second: Path | None) -> Opened:
        with mounted_image(image, self._room / "mounted") as mounted:
            return reopen(mounted / MEMORY, None if second is None else lambda: copy_sparse(image, second))


def cut_power(options: argparse.Namespace, result: Result) -> None:
    """Make recordings and cut each of them, until the wanted number of cuts is reached."""
    need_logged_device()
    recordings = -(-options.count // CUTS_PER_RECORDING)
    with Bench() as bench, suite.Steps("power cuts", options.count) as steps:
        room = bench.enter(mounted_tmpfs(bench.path / "room", ROOM_BYTES))
        cutter = Cutter(room, result, steps.advance, keeping=not options.broken)
        left: Leaving | None = None
        for number in range(recordings):
            rng = suite.seeded(options, number)
            directory = room / f"recording-{number}"
            directory.mkdir()
            if left is None or number % CHAIN == 0:
                make_ext4(directory / "image", DISK_BYTES)
                ledger = Ledger()
            else:
                left.image.rename(directory / "image")
                ledger = left.ledger
            name = f"s{options.seed}-{number}"
            mounting = MOUNT_OPTIONS[number % len(MOUNT_OPTIONS)]
            recording = record(directory, name, rng, mounting, broken=options.broken)
            shutil.rmtree(directory)
            count = options.count * (number + 1) // recordings - options.count * number // recordings
            cuts = choose_cuts(recording.operations, count, rng)
            result.count("block_writes_recorded", sum(o.kind == "write" for o in recording.operations))
            result.count("flushes_recorded", sum(o.kind == "flush" for o in recording.operations))
            left = cutter.run(f"recording {number}", recording, cuts, ledger, rng, room / "left")


def main(arguments: suite.Arguments = None) -> int:
    """Run the suite."""
    parser = suite.parser("power_cuts", __doc__ or "", unit="cuts", short=200, long=2_000)
    parser.add_argument("--broken", action="store_true", help="with an fdatasync that does nothing: must object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        _child(*json.loads(options.child))
        return 0
    return suite.run("power_cuts", options, cut_power)


if __name__ == "__main__":
    sys.exit(main())
