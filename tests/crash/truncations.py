"""Cut a log at every length: what opens is a prefix of whole groups, and nothing proven durable vanishes silently.

    python -m tests.crash.truncations [--short] [--seed N] [--jobs N] [--json]

A 64 KiB log is cut to every length from nothing to all of it: as one sequence of bytes over all segments (those behind
the cut are gone), and each other file by itself. Each cut log is opened for writing and read. The long form does so
with four workloads, and makes of each cut what the short form makes of one in 16: look at it with `verify` and opened
for reading only, then open it a second time.

- Where the newest segment is the one cut, exactly the groups that are whole in what is left are read, or opening
  refuses. After an opening that succeeded a second one finds the same and cuts nothing; now and then a group is stored
  behind the cut and read back as well.
- Where an older segment lost bytes, its successor proves that they were durable: opening refuses, or the streams
  concerned raise an error, and `verify` reports a problem. Where nothing that was stored is missing, all of it reads.
- Where any other file was cut, opening refuses or everything reads as it was stored.
"""

from __future__ import annotations

import functools
import itertools
import posixpath
import random
import sys
import time
import traceback
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import trio

from stepstore.errors import CorruptLog
from stepstore.log.memory_files import MemoryFileSystem
from tests.crash.readback import Reading, Verdict, compare, read_read_only, read_writable, verify_outcome
from tests.crash.specimen import Image, Specimen, compacted, disk_with, sealed, several_lives, small, store_groups
from tests.crash.sweep import Tally, conclude, parser_for, sweep
from tests.stepstore.log_lab import stream_id

CLOSELY_EVERY = 16
"""The short form looks closely at one in so many cuts."""
BEHIND = stream_id("behind the cut")
STORED_BEHIND_EVERY = 16
"""Behind one in so many cuts another group is stored."""


class Cut(NamedTuple):
    """A length to which one file is cut, or the whole log (`path` empty) as one sequence of bytes."""

    specimen: Specimen
    path: str
    length: int

    def __str__(self) -> str:
        return f"{self.specimen.name}: {self.path or 'the log'} cut to {self.length} bytes"


class Cuts:
    """All cuts of the specimens, numbered."""

    def __init__(self, specimens: Sequence[Specimen]):
        self._places: list[tuple[Specimen, str]] = []
        sizes: list[int] = []
        for specimen in specimens:
            # The newest segment by itself is the last stretch of the log.
            alone = [path for path in specimen.files if path != specimen.newest]
            self._places += [(specimen, ""), *((specimen, path) for path in alone)]
            sizes.append(sum(len(specimen.files[path]) for path in specimen.segments))
            sizes += [len(specimen.files[path]) for path in alone]
        self._starts = [0, *itertools.accumulate(size + 1 for size in sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Cut:
        place = bisect_right(self._starts, number) - 1
        return Cut(*self._places[place], number - self._starts[place])


@functools.cache
def cuts_of(seed: int, workloads: int) -> Cuts:
    """The cuts of the logs made with this seed."""
    makers: list[Callable[[int], Specimen]] = [
        sealed,
        several_lives,
        functools.partial(sealed, workload=small),
        compacted,
    ]
    return Cuts([make(seed) for make in makers[:workloads]])


def cut_image(cut: Cut) -> tuple[Image, str]:
    """What the disk holds after the cut, and which file was cut ("" where files vanished at their very ends)."""
    specimen, path, length = cut
    if path:
        return {**specimen.image, path: specimen.files[path][:length]}, path
    left = dict(specimen.image)
    for segment in specimen.segments:
        size = len(specimen.files[segment])
        if length <= 0:  # what belongs to a segment that is gone is gone with it
            stem = posixpath.basename(segment).split(".")[0]
            for other in specimen.files:
                if posixpath.basename(other).startswith(stem):
                    left.pop(other, None)
        elif length < size:
            left[segment], path = specimen.files[segment][:length], segment
        length -= size
    return left, path


def whole_groups(specimen: Specimen, image: Image) -> int | None:
    """How many groups are whole in what the segments of an image hold, up to the first frame that is not; None if it
    ends inside a group, which only a frame that is several groups can do."""
    lsn = 0
    for path in specimen.segments:
        size = len(image.get(path) or b"")
        for frame in specimen.frames[path]:
            if frame.end > size:
                return specimen.group_ends.get(lsn)
            lsn = frame.head.last_lsn
    return specimen.group_ends.get(lsn)


async def try_cut(cut: Cut, tally: Tally, *, closely: bool, store: bool) -> None:
    """Cut, open and read, and judge; `closely`: in every way there is."""
    image, path = cut_image(cut)
    disk = disk_with(image)
    tally.cases += 1
    try:
        verified = verify_outcome(disk) if closely else ""
        looking = await read_read_only(disk, cut.specimen.options) if closely else None
        writable = await read_writable(disk, cut.specimen.options)
        complaint = judge(cut, image, path, looking, writable, tally)
        if closely and not complaint:
            complaint = judge_verify(verified, writable)
        if closely and not complaint and writable.refused is None:
            complaint = await try_again(cut.specimen, disk, verified, compare(cut.specimen, writable), store=store)
    except Exception:
        complaint = f"an undeclared error escapes: {traceback.format_exc()}"
    if complaint:
        tally.violation(cut, complaint)


def judge(cut: Cut, image: Image, path: str, looking: Reading | None, writable: Reading, tally: Tally) -> str:
    """Count what was seen of a cut; what is wrong with it, "" if nothing is."""
    specimen = cut.specimen
    left = [segment for segment in specimen.segments if segment in image]
    newest = not left or path in ("", left[-1])
    groups = whole_groups(specimen, image)
    where = "newest segment" if newest else "older segment" if path in specimen.segments else "other file"
    for way, reading in (("writable", writable), ("read-only", looking)):
        if reading is None:
            continue
        verdict = compare(specimen, reading)
        row = f" (row {error.row})" if isinstance(error := reading.refused, CorruptLog) else ""
        seen = f"{where} cut, {way}: {verdict.kind} {verdict.why}".rstrip() + row
        if verdict.kind == "wrong" or (verdict.kind == "prefix" and not newest):
            return seen
        if verdict.kind in ("identical", "prefix") and verdict.groups != groups:
            return f"{seen}, but of other groups than those that are whole in what is left"
        tally.seen[seen] += 1
    return ""


def judge_verify(verified: str, writable: Reading) -> str:
    """What is refused, or damaged, is a problem to `verify`, too."""
    if (writable.refused is not None or writable.damaged) and verified in ("note", "nothing"):
        return f"opened for writing it is refused or damaged, but verify reports no problem ({verified})"
    return ""


async def try_again(specimen: Specimen, disk: MemoryFileSystem, verified: str, verdict: Verdict, *, store: bool) -> str:
    """Open for writing what an opening has left, and perhaps store a group behind it; what is wrong, "" if nothing.

    `verified` is what `verify` said before: a damaged index stays a problem, though no record is concerned.
    """
    second = await read_writable(disk, specimen.options)
    if compare(specimen, second) != verdict:
        return f"the second opening finds something else: {compare(specimen, second).kind}"
    if second.bytes_cut:
        return "the second opening cuts again"
    if verdict.kind == "damaged":
        return ""
    if verify_outcome(disk) == "problem" and verified != "problem":
        return "verify reports a problem after an opening that repaired the log"
    if store:
        group = [(BEHIND, [b"behind the cut"], 0)]
        more = await store_groups(disk, [group], specimen.options, close=True)
        longer = replace(specimen, groups=[*specimen.groups[: verdict.groups], *more], _prefixes={})
        if compare(longer, await read_read_only(disk, specimen.options)).kind != "identical":
            return "a group stored behind the cut does not read back"
    return ""


def try_cuts(seed: int, workloads: int, every: int, numbers: Sequence[int]) -> Tally:
    """Try the cuts with these numbers; closely those that are multiples of `every`."""
    cuts, tally = cuts_of(seed, workloads), Tally()

    async def main() -> None:
        for number in numbers:
            closely = number % every == 0
            await try_cut(cuts[number], tally, closely=closely, store=number % STORED_BEHIND_EVERY == 0)

    trio.run(main)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut, and print what was seen; the exit status is 1 on any violation."""
    options = parser_for("truncations", __doc__, "one workload instead of four").parse_args(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    workloads, every = (1, CLOSELY_EVERY) if options.short else (4, 1)
    began = time.monotonic()
    numbers = range(len(cuts_of(seed, workloads)))
    if not options.json:
        print(f"truncations: {len(numbers):,} cuts of {workloads} logs, seed {seed}", flush=True)
    tally = sweep(numbers, functools.partial(try_cuts, seed, workloads, every), jobs=options.jobs)
    return conclude("truncations", tally, began, as_json=options.json, seed=seed, workloads=workloads)


if __name__ == "__main__":
    sys.exit(main())
