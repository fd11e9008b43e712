"""What the crash suites do to a log: operations, each a small function. `OPERATIONS` is the alphabet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from stepstore.journal.contract import FLAG_CLOSES, FLAG_SNAPSHOT, FLAG_TOMBSTONE
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from tests.crash.checker import Broken, Violation, Wrong
from tests.crash.examining import read_streams
from tests.crash.images import contents
from tests.crash.lives import Life, stream_id
from tests.crash.promises import Fate
from tests.crash.watching import Call


async def append(life: Life) -> None:
    """One batch of one record."""
    await life.sent(life.send((life.stream("A"), 1, 0, 0)))


async def append_to_several(life: Life) -> None:
    """One submission to three streams; one of them begins and ends with it."""
    brief = stream_id(f"brief {len(life.ledger)}")
    await life.sent(life.send((life.stream("A"), 2, 0, 0), (life.stream("B"), 3, 0, 0), (brief, 1, 0, FLAG_CLOSES)))


async def append_large(life: Life) -> None:
    """A record of several sectors, some of them all zero."""
    await life.sent(life.send((life.stream("B"), 1, 3000, 0)))


async def burst(life: Life) -> None:
    """Submissions that queue behind one another and share a frame."""
    streams = (life.stream("A"), life.stream("C"), life.stream("A"))
    for submission in [life.send((stream, 1, 100, 0)) for stream in streams]:
        await life.sent(submission)


async def close(life: Life) -> None:
    """A clean stop, and open again."""
    await life.close()
    await life.open()


async def kill(life: Life) -> None:
    """The process dies with an append on its way: all of it is in the page cache, nothing is synced."""
    await _die_while_appending(life, lambda disk: disk.page_cache_copy())


async def cut_power(life: Life) -> None:
    """The power goes with an append on its way: of the last write every other sector makes it, of the rest all."""

    def torn(disk: MemoryFileSystem) -> MemoryFileSystem:
        items = disk.unsynced()
        kept = {item.number: (1 << item.pieces) - 1 for item in items}
        last = [item for item in items if item.kind == "write"][-1]
        # A medium that keeps the order of writing tears a write once, and has nothing behind the tear.
        kept[last.number] = 1 if life.setting.in_order else kept[last.number] & 0x55555555
        return disk.image(kept)

    await _die_while_appending(life, torn)


async def _die_while_appending(life: Life, left: Callable[[MemoryFileSystem], MemoryFileSystem]) -> None:
    written: set[str] = set()
    image: list[MemoryFileSystem] = []

    def die_at(call: Call) -> bool:
        if call.operation == "write" and call.path.endswith(".seg"):
            written.add(call.path)
        if not image and call.operation == "datasync" and call.path in written:
            image.append(left(life.disk))
        return bool(image)

    life.die_at = die_at
    await life.sent(life.send((life.stream("C"), 2, 1300, 0)))
    await life.die(*image)
    await life.open()


async def look(life: Life) -> None:
    """Read all that is there."""
    assert life.journal is not None
    try:
        found = await read_streams(life.journal, life.ledger.now())
    except Broken as broken:
        life.forgive(broken)
    else:
        life.judge(found)


async def idle(life: Life) -> None:
    """Nothing is sent for a while."""
    await trio.sleep(7)


async def rotate(life: Life) -> None:
    """Go on in another segment."""
    assert life.journal is not None
    await life.call(life.journal.rotate)


async def delete(life: Life) -> None:
    """Delete a stream; its role goes to another one. If there is none, one is made."""
    role = next((r for r in "BAC" if life.last_seq(life.stream(r))), "B")
    if not life.last_seq(life.stream(role)):
        await life.sent(life.send((life.stream(role), 1, 0, 0)))
    await life.sent(life.send((life.stream(role), 1, 0, FLAG_CLOSES | FLAG_TOMBSTONE)))
    assert life.journal is not None
    await life.call(life.journal.forget, life.stream(role))
    life.replace(role)


async def compact(life: Life) -> None:
    """Rewrite what holds dead records."""
    assert life.journal is not None
    await life.call(life.journal.compact)


async def purge(life: Life) -> None:
    """Rewrite whatever holds a record of a deleted stream; behind it no byte of one is on the medium."""
    assert life.journal is not None
    before = life.ledger.now()
    deleted = frozenset(stream for stream, fate in before.deletions.items() if fate is Fate.STORED)
    await life.call(life.journal.rotate)
    assert life.journal._caretaker is not None  # the journal does not pass this on yet
    if await life.call(life.journal._caretaker.compact, purge=True):
        life.ledger.purged(deleted)
        gone = [
            r.payload
            for a, _f, _l in before.attempts
            for r in a.records(0)
            if not a.is_tombstone and r.stream in deleted
        ]
        for path, content in contents(life.disk.durable_copy(), "/"):
            for payload in gone:
                if payload in content:
                    raise Broken([Violation(Wrong.RESURRECTED, f"{payload[:24]!r} is still in {path}")])


async def snapshot(life: Life) -> None:
    """A record with an LSN and no seq."""
    stream = life.stream("A")
    if not life.last_seq(stream):
        await life.sent(life.send((stream, 1, 0, 0)))
    await life.sent(life.send((stream, 1, 700, FLAG_SNAPSHOT)))


class Operation(NamedTuple):
    """One letter of the alphabet. It is used once the journal has the method `needs`."""

    name: str
    act: Callable[[Life], Awaitable[None]]
    needs: str = "submit"


ALPHABET = (
    Operation("append", append),
    Operation("several", append_to_several),
    Operation("large", append_large),
    Operation("burst", burst),
    Operation("close", close),
    Operation("kill", kill),
    Operation("cut", cut_power),
    Operation("idle", idle),
    Operation("rotate", rotate, "rotate"),
    Operation("delete", delete),
    Operation("snapshot", snapshot),
    Operation("compact", compact),
    Operation("purge", purge),
)
LOOK = Operation("look", look)
"""No letter, since it changes nothing."""

OPERATIONS = tuple(operation for operation in ALPHABET if hasattr(SegmentLogJournal, operation.needs))
MISSING = tuple(operation.name for operation in ALPHABET if operation not in OPERATIONS)
"""Letters for which the journal has no method yet."""

Workload = tuple[Operation, ...]
