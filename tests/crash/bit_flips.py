"""Flip single bits of a log: `verify` finds each, and what is read is a declared error or exactly what was stored.

    python -m tests.crash.bit_flips [--short] [--seed N] [--jobs N] [--json]

All bits of every file of a 64 KiB log that was closed in order, and of short logs whose process died behind a last
group full of NULs; of the keys of an encrypted log; and of what compaction makes. The short form samples 20,000 of
them. For each flip:

- `verify` reports a problem, or refuses to look at all;
- opening for writing refuses, or everything reads as it was stored, but for streams that raise an error;
- so does opening for reading only, which takes the newest segment of a log that was not closed for one that is still
  being written: it may end in front of a flip in the last group, and such cases are counted ("not yet").

Two kinds of bits are judged otherwise, and counted. Row 5 of the decision table cannot see a flip of the only bit set
in a sector of the last group (`docs/reliability.md`, "What is not claimed"): that group is cut like a torn one. And a
bit behind the last group lies in no record: `verify` may note it as the rest of a torn write.
"""

from __future__ import annotations

import functools
import itertools
import random
import sys
import time
import traceback
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import trio

from stepstore.log.frame import SECTOR
from tests.crash.readback import Verdict, compare, read_read_only, read_writable, verify_outcome
from tests.crash.specimen import Specimen, compacted, disk_with, encrypted, sealed, unclean_logs
from tests.crash.sweep import Tally, conclude, evenly, parser_for, sweep

SHORT = 20_000


class Flip(NamedTuple):
    """One bit of one file of one specimen."""

    specimen: Specimen
    path: str
    offset: int
    bit: int

    def __str__(self) -> str:
        return f"{self.specimen.name}: {self.path} offset {self.offset} bit {self.bit}"


class Field:
    """All bits of some files of specimens, numbered."""

    def __init__(self, files: Sequence[tuple[Specimen, str]]):
        self._files = files
        sizes = [len(specimen.files[path]) * 8 for specimen, path in self._files]
        self._starts = [0, *itertools.accumulate(sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Flip:
        file = bisect_right(self._starts, number) - 1
        offset, bit = divmod(number - self._starts[file], 8)
        return Flip(*self._files[file], offset, bit)

    def lone_bits(self) -> list[int]:
        """The numbers of the bits that fall under the documented limit: few, so that no sample would meet them."""
        found: list[int] = []
        for (specimen, path), start in zip(self._files, self._starts, strict=False):
            for offset, byte in enumerate(specimen.files[path]):
                if byte.bit_count() == 1:
                    flip = Flip(specimen, path, offset, byte.bit_length() - 1)
                    found += [start + offset * 8 + flip.bit] if is_lone_bit(flip) else []
        return found


@functools.cache
def field_of(seed: int) -> Field:
    """The bits of the specimens made with this seed. What is alike in several of them is taken from one."""
    first, *others = unclean_logs(seed)
    whole = [(specimen, path) for specimen in (sealed(seed), first) for path in specimen.files]
    with_keys = encrypted(seed)
    keys = [(with_keys, path) for path in with_keys.files if not path.endswith((".seg", "FORMAT"))]
    merged = compacted(seed)
    rewritten = [(merged, path) for path in merged.files if "MANIFEST" in path or path == merged.segments[0]]
    return Field([*whole, *((specimen, specimen.newest) for specimen in others), *keys, *rewritten])


def is_lone_bit(flip: Flip) -> bool:
    """Whether this is the only bit set in a sector of the last group of a log that was not closed, its header's sector
    excepted: a sector that never reached the medium looks the same without it."""
    specimen, path, offset, bit = flip
    if specimen.clean or path != specimen.newest:
        return False
    start, end = specimen.last_group
    sector = offset // SECTOR * SECTOR
    piece = specimen.files[path][max(sector, start) : min(sector + SECTOR, end)]
    inside = start < sector and offset < end
    return inside and int.from_bytes(piece).bit_count() == 1 and bool(specimen.files[path][offset] >> bit & 1)


def is_unwritten(flip: Flip) -> bool:
    """Whether it lies behind the last group of a log that was not closed, in space set aside."""
    return not flip.specimen.clean and flip.path == flip.specimen.newest and flip.offset >= flip.specimen.last_group[1]


async def try_flip(flip: Flip, tally: Tally) -> None:
    """Flip, verify, open and read in both ways, and judge."""
    specimen = flip.specimen
    data = bytearray(specimen.files[flip.path])
    data[flip.offset] ^= 1 << flip.bit
    image = {**specimen.image, flip.path: bytes(data)}
    disk = disk_with(image)
    tally.cases += 1
    try:
        verified = verify_outcome(disk)
        writable = compare(specimen, await read_writable(disk_with(image), specimen.options))
        # Open, the log is read by the same code in both ways: reading each stream once is enough.
        streams = writable.kind == "refused"
        looking = compare(specimen, await read_read_only(disk, specimen.options, streams=streams))
    except Exception:
        tally.violation(flip, f"an undeclared error escapes: {traceback.format_exc()}")
        return
    if complaint := judge(flip, verified, looking, writable, tally):
        tally.violation(flip, complaint)


def judge(flip: Flip, verified: str, looking: Verdict, writable: Verdict, tally: Tally) -> str:
    """Count what was seen of a flip; what is wrong with it, "" if nothing is."""
    specimen = flip.specimen
    if is_lone_bit(flip) and verified == "note" and writable == Verdict("prefix", len(specimen.groups) - 1):
        tally.seen["documented limit: the one bit set in a sector of the last group"] += 1
    elif is_unwritten(flip) and verified == "note" and writable.kind == "identical":
        tally.seen["space set aside: noted by verify, content identical"] += 1
    elif verified in ("nothing", "note"):
        return f"verify reports no problem ({verified}); opened for writing: {writable.kind} {writable.why}".rstrip()
    elif writable.kind in ("prefix", "wrong"):
        return f"opened for writing: {writable.kind} {writable.why}".rstrip()
    else:
        tally.seen[f"verify: {verified}"] += 1
        tally.seen[f"writable: {writable.kind} {writable.why}".rstrip()] += 1
    last_group = looking.groups >= len(specimen.groups) - 1  # what lies before it, a later frame proves durable
    if looking.kind == "prefix" and flip.path == specimen.newest and not specimen.clean and last_group:
        tally.seen["read-only: not yet, the last group"] += 1
    elif looking.kind in ("prefix", "wrong"):
        return f"opened for reading only: {looking.kind} {looking.why}".rstrip()
    else:
        tally.seen[f"read-only: {looking.kind} {looking.why}".rstrip()] += 1
    return ""


def try_flips(seed: int, numbers: Sequence[int]) -> Tally:
    """Try the bits with these numbers."""
    field, tally = field_of(seed), Tally()

    async def main() -> None:
        for number in numbers:
            await try_flip(field[number], tally)

    trio.run(main)
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Flip, and print what was seen; the exit status is 1 on any violation."""
    options = parser_for("bit_flips", __doc__, f"{SHORT:,} flips").parse_args(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    began = time.monotonic()
    bits = len(field_of(seed))
    numbers: Sequence[int] = range(bits)
    if options.short:
        numbers = sorted({*evenly(bits, SHORT, seed), *field_of(seed).lone_bits()})
    if not options.json:
        print(f"bit flips: {len(numbers):,} of the {bits:,} bits of 6 logs, seed {seed}", flush=True)
    tally = sweep(numbers, functools.partial(try_flips, seed), jobs=options.jobs)
    return conclude("bit_flips", tally, began, as_json=options.json, seed=seed, bits=bits)


if __name__ == "__main__":
    sys.exit(main())
