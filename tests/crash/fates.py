"""Which parts of what is not synced a power cut leaves: the fates worth trying for a given list of unsynced items.

Nothing, everything, and each prefix in the order of time; each subset of whole items where there are few, else random
ones; and for each write of several sectors the ways to tear it, with everything else kept and with everything else
lost.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from random import Random

from stepstore.log.memory_files import MemoryFileSystem, Unsynced

Kept = tuple[int, ...]
"""A fate: one mask per item, the pieces of it that are kept."""

FEW_ITEMS = 4
FEW_PIECES = 3
RANDOM_SUBSETS = 12
BYSTANDERS = frozenset({"LOCK", "reserve"})
"""Never synced, so among the unsynced items at every moment; what stands in them matters to nobody. They share the
other fates, but do not count as items of which each subset is tried."""


def fates(items: Sequence[Unsynced], *, in_order: bool = False) -> list[Kept]:
    """Each fate once, in a fixed order. With `in_order` only those that a medium can leave which keeps the order of
    writing: prefixes, the last item of which may be torn to a prefix itself."""
    whole = [(1 << item.pieces) - 1 for item in items]
    chosen: dict[Kept, None] = {}
    for kept in range(len(items) + 1):
        before, after = whole[:kept], [0] * (len(items) - kept)
        chosen[*before, *after] = None
        if in_order and kept:
            for pieces in range(1, items[kept - 1].pieces):
                chosen[*before[:-1], (1 << pieces) - 1, *after] = None
    if in_order:
        return list(chosen)
    core = [n for n, item in enumerate(items) if posixpath.basename(item.path) not in BYSTANDERS]
    for number, subset in enumerate(_subsets(len(core))):
        fate = [mask if number % 2 else 0 for mask in whole]
        for n, place in enumerate(core):
            fate[place] = whole[place] if subset >> n & 1 else 0
        chosen[tuple(fate)] = None
    for place in core:
        for mask in torn(items[place].pieces):
            for others in (whole, [0] * len(items)):
                chosen[*others[:place], mask, *others[place + 1 :]] = None
    return list(chosen)


def _subsets(count: int) -> list[int]:
    """Subsets of so many items as bit masks."""
    if count <= FEW_ITEMS:
        return list(range(1 << count))
    dice = Random(count)
    return [dice.getrandbits(count) for _ in range(RANDOM_SUBSETS)]


def torn(pieces: int) -> list[int]:
    """The ways to tear a write of so many sectors: all of few; of many, those that keep or lose the first, the last, a
    middle one or every other one, each prefix up to eight sectors, and two random ones."""
    whole = (1 << pieces) - 1
    if pieces <= FEW_PIECES:
        return list(range(1, whole))
    other = 0x5555555555555555555555555555 & whole
    dice = Random(pieces)
    masks = [
        *((1 << kept) - 1 for kept in range(1, min(pieces, 9))),
        whole >> 1,
        whole - 1,
        whole ^ (1 << pieces // 2),
        1 << pieces - 1,
        other,
        whole ^ other,
        dice.getrandbits(pieces) | 1,
        dice.getrandbits(pieces),
    ]
    return [mask for mask in dict.fromkeys(masks) if 0 < mask < whole]


def image_of(disk: MemoryFileSystem, items: Sequence[Unsynced], fate: Kept) -> MemoryFileSystem:
    """The disk that this fate leaves."""
    return disk.image({item.number: mask for item, mask in zip(items, fate, strict=True)})


def describe(items: Sequence[Unsynced], fate: Kept) -> str:
    """What is kept, in words."""
    told = []
    for item, mask in zip(items, fate, strict=True):
        what = f"{item.kind} of {posixpath.basename(item.path)}"
        whole = (1 << item.pieces) - 1
        if mask == whole:
            told.append(f"{what} kept")
        elif mask:
            told.append(f"{what} torn to {mask:0{item.pieces}b} (the last bit is the first sector)")
        else:
            told.append(f"{what} lost")
    return ", ".join(told) or "nothing was unsynced"
