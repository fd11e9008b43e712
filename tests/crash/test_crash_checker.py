"""The checker of the journal-level crash suites accepts what may be there and objects to everything else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from stepstore.errors import CorruptLog, InvalidState, StepwellError
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, Record, append
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash.checker import Broken, Wrong, judge, judge_followed
from tests.crash.examining import LOG, declared, examine
from tests.crash.promises import Attempt, Expectation, Fate, Found

A, B = b"A" * 16, b"B" * 16
SMALL = LogOptions(segment_bytes=8192)


def sent(number: int, stream: bytes, first_seq: int, *payloads: bytes, flags: int = 0) -> Attempt:
    return Attempt(number, [Batch(stream, first_seq, payloads, flags)])


ONE, TWO = sent(0, A, 1, b"one", flags=FLAG_OPENS), sent(1, A, 2, b"two", b"three")
BOTH = Attempt(2, [Batch(A, 4, [b"four"], 0), Batch(B, 1, [b"first of B"], FLAG_OPENS)])
LATER = sent(3, A, 5, b"five")
TOMBSTONE = sent(4, A, 6, b"tombstone", flags=FLAG_CLOSES | FLAG_TOMBSTONE)
SNAPSHOT, NEWER = sent(5, A, 3, b"snapshot", flags=FLAG_SNAPSHOT), sent(6, A, 5, b"newer", flags=FLAG_SNAPSHOT)

STORED = Expectation(((ONE, Fate.STORED, 1), (TWO, Fate.STORED, 2), (BOTH, Fate.STORED, 4)))
OPEN = Expectation((*STORED.attempts[:2], (BOTH, Fate.UNDER_WAY, 0), (LATER, Fate.UNDER_WAY, 0)))
UNKNOWN = Expectation((*STORED.attempts[:2], (BOTH, Fate.UNKNOWN, 0)))
REFUSED = Expectation((*STORED.attempts[:2], (BOTH, Fate.REFUSED, 0)))

RECORDS = [Record(A, 1, 1, b"one"), Record(A, 2, 2, b"two"), Record(A, 3, 3, b"three")]
FOUR, FIRST_OF_B, FIVE = Record(A, 4, 4, b"four"), Record(B, 1, 5, b"first of B"), Record(A, 5, 6, b"five")


def found(
    *records: Record,
    open_streams: Sequence[bytes] | None = None,
    snapshots: dict[bytes, Record | None] | None = None,
    deleted: Sequence[bytes] = (),
) -> Found:
    streams: dict[bytes, list[Record]] = {}
    for record in records:
        streams.setdefault(record.stream, []).append(record)
    return Found(streams, set(streams if open_streams is None else open_streams), snapshots or {}, set(deleted))


ALL = found(*RECORDS, FOUR, FIRST_OF_B)


def kinds(expected: Expectation, what: Found) -> set[str]:
    return {violation.wrong.name for violation in judge(expected, what)}


@pytest.mark.parametrize(
    ("expected", "what"),
    [
        (STORED, ALL),
        (OPEN, found(*RECORDS)),
        (OPEN, ALL),
        (OPEN, found(*RECORDS, FOUR, FIRST_OF_B, FIVE)),
        (UNKNOWN, found(*RECORDS)),
        (UNKNOWN, ALL),
        (REFUSED, found(*RECORDS)),
        (Expectation(), Found()),
    ],
)
def test_what_was_promised_is_accepted(expected: Expectation, what: Found) -> None:
    assert judge(expected, what) == []


@pytest.mark.parametrize(
    ("expected", "what", "complaint"),
    [
        (STORED, found(*RECORDS), "LOST"),
        (STORED, Found(), "LOST"),
        (STORED, found(*RECORDS[:2], FOUR, FIRST_OF_B), "LOST"),
        (STORED, found(*RECORDS[:2], Record(A, 3, 3, b"THREE"), FOUR, FIRST_OF_B), "CHANGED"),
        (STORED, found(*RECORDS, Record(A, 4, 5, b"four"), Record(B, 1, 4, b"first of B")), "MOVED"),
        (STORED, found(*RECORDS, FOUR, FIRST_OF_B._replace(lsn=7)), "MOVED"),
        (UNKNOWN, found(*RECORDS, FOUR._replace(lsn=9), FIRST_OF_B), "MOVED"),
        (STORED, found(*RECORDS, FOUR, FIRST_OF_B, Record(A, 5, 6, b"one")), "DOUBLED"),
        (STORED, found(*RECORDS, RECORDS[2], FOUR, FIRST_OF_B), "DOUBLED"),
        (STORED, found(*RECORDS, FOUR, FIRST_OF_B._replace(lsn=4)), "DOUBLED"),
        (UNKNOWN, found(*RECORDS, FOUR, FIRST_OF_B, Record(A, 5, 6, b"four")), "DOUBLED"),
        (STORED, found(RECORDS[1], RECORDS[0], RECORDS[2], FOUR, FIRST_OF_B), "DISORDER"),
        (STORED, found(*RECORDS[1:], FOUR, FIRST_OF_B), "DISORDER"),
        (STORED, found(*RECORDS, FOUR, FIRST_OF_B, Record(A, 5, 6, b"never sent")), "PHANTOM"),
        (Expectation(), found(RECORDS[0]), "PHANTOM"),
        (REFUSED, ALL, "REFUSED"),
        (REFUSED, found(*RECORDS, FOUR), "REFUSED"),
        (OPEN, found(*RECORDS, FOUR), "HALF"),
        (UNKNOWN, found(*RECORDS, Record(B, 1, 4, b"first of B")), "HALF"),
        (OPEN, found(*RECORDS, FIVE._replace(seq=4, lsn=4)), "OVERTAKEN"),
        (STORED, found(*RECORDS, FOUR, FIRST_OF_B, open_streams=[A]), "OPEN_STREAMS"),
        (REFUSED, found(*RECORDS, open_streams=[A, B]), "OPEN_STREAMS"),
    ],
)
def test_the_checker_objects(expected: Expectation, what: Found, complaint: str) -> None:
    assert complaint in kinds(expected, what)


def test_a_record_under_another_stream_is_out_of_order() -> None:
    what = found(*RECORDS, FOUR, FIRST_OF_B)
    what.streams[B] = [FIRST_OF_B._replace(stream=A)]
    assert "DISORDER" in kinds(STORED, what)


# ---- deletion --------------------------------------------------------------------------------------------------------

DELETED = Expectation((*STORED.attempts, (TOMBSTONE, Fate.STORED, 6)))
DELETING = Expectation((*STORED.attempts, (TOMBSTONE, Fate.UNDER_WAY, 0)))
NOT_DELETED = Expectation((*STORED.attempts, (TOMBSTONE, Fate.REFUSED, 0)))
GONE = found(FIRST_OF_B, deleted=[A])


def test_a_deleted_stream_is_gone_and_one_being_deleted_is_there_or_gone() -> None:
    assert judge(DELETED, GONE) == []
    assert judge(DELETING, GONE) == judge(DELETING, ALL) == []
    assert judge(NOT_DELETED, ALL) == []


@pytest.mark.parametrize(
    ("expected", "what", "complaint"),
    [
        (DELETED, ALL, "RESURRECTED"),
        (DELETED, found(FIRST_OF_B), "RESURRECTED"),
        (DELETED, found(FIRST_OF_B, open_streams=[A, B], deleted=[A]), "RESURRECTED"),
        (DELETED, found(RECORDS[0], FIRST_OF_B, deleted=[A]), "RESURRECTED"),
        (DELETED, found(deleted=[A]), "LOST"),
        (DELETING, found(*RECORDS[:1], FIRST_OF_B), "LOST"),
        (NOT_DELETED, GONE, "LOST"),
        (DELETED, found(FIRST_OF_B, deleted=[A, B]), "LOST"),
    ],
)
def test_the_checker_objects_to_half_a_deletion(expected: Expectation, what: Found, complaint: str) -> None:
    assert complaint in kinds(expected, what)


def test_an_opening_settles_what_was_open() -> None:
    settled = DELETING.settled(GONE)
    assert "RESURRECTED" in kinds(settled, ALL)
    settled = DELETING.settled(ALL)
    assert "LOST" in kinds(settled, GONE)
    settled = OPEN.settled(found(*RECORDS))
    assert "REFUSED" in kinds(settled, ALL)
    settled = OPEN.settled(ALL)
    assert judge(settled, ALL) == []
    assert "LOST" in kinds(settled, found(*RECORDS))
    assert {fate for _attempt, fate, _lsn in settled.attempts} == {Fate.STORED, Fate.REFUSED}
    unfinished = OPEN.settled(found(*RECORDS), for_good=False)
    assert judge(unfinished, found(*RECORDS)) == judge(unfinished, ALL) == []
    assert "LOST" in kinds(unfinished, found(*RECORDS[:2]))


# ---- snapshots -------------------------------------------------------------------------------------------------------

STORED_SNAPSHOT = Record(A, 3, 6, b"snapshot")
WITH_SNAPSHOT = Expectation((*STORED.attempts, (SNAPSHOT, Fate.STORED, 6), (NEWER, Fate.UNDER_WAY, 0)))


@pytest.mark.parametrize(
    ("expected", "shown", "fine"),
    [
        (WITH_SNAPSHOT, STORED_SNAPSHOT, True),
        (WITH_SNAPSHOT, Record(A, 5, 7, b"newer"), True),
        (WITH_SNAPSHOT, None, False),
        (WITH_SNAPSHOT, STORED_SNAPSHOT._replace(lsn=7), False),
        (WITH_SNAPSHOT, STORED_SNAPSHOT._replace(seq=2), False),
        (WITH_SNAPSHOT, STORED_SNAPSHOT._replace(payload=b"other"), False),
        (Expectation((*STORED.attempts, (SNAPSHOT, Fate.UNKNOWN, 0))), None, True),
        (Expectation((*STORED.attempts, (SNAPSHOT, Fate.UNKNOWN, 0))), STORED_SNAPSHOT, True),
        (Expectation((*STORED.attempts, (SNAPSHOT, Fate.REFUSED, 0))), STORED_SNAPSHOT, False),
        (Expectation((*STORED.attempts, (SNAPSHOT, Fate.STORED, 6), (NEWER, Fate.STORED, 7))), STORED_SNAPSHOT, False),
    ],
)
def test_the_newest_snapshot_is_shown(expected: Expectation, shown: Record | None, fine: bool) -> None:
    what = found(*RECORDS, FOUR, FIRST_OF_B, snapshots={A: shown})
    assert kinds(expected, what) == (set() if fine else {"SNAPSHOT"})


def test_a_snapshot_is_no_record_and_one_of_a_deleted_stream_is_gone() -> None:
    assert "PHANTOM" in kinds(WITH_SNAPSHOT, found(*RECORDS, FOUR, FIRST_OF_B, STORED_SNAPSHOT))
    expected = Expectation((*DELETED.attempts, (SNAPSHOT, Fate.STORED, 6)))
    assert kinds(expected, found(FIRST_OF_B, deleted=[A], snapshots={A: STORED_SNAPSHOT})) == {"SNAPSHOT"}
    assert kinds(expected, found(FIRST_OF_B, deleted=[A], snapshots={A: None})) == set()


# ---- followers -------------------------------------------------------------------------------------------------------


def followed(expected: Expectation, records: list[Record], seen: list[Record]) -> set[str]:
    return {violation.wrong.name for violation in judge_followed(expected, seen, records)}


def test_a_follower_sees_what_the_streams_hold_in_log_order() -> None:
    records = [*RECORDS, FOUR, FIRST_OF_B]
    assert followed(STORED, records, records) == set()
    assert followed(STORED, records, records[:-1]) == {"ANOTHER_ANSWER"}
    assert followed(STORED, records, [*records, FIVE]) == {"ANOTHER_ANSWER"}
    assert "DISORDER" in followed(STORED, records, [*records[:3], FIRST_OF_B, FOUR])
    assert "DISORDER" in followed(STORED, records, [*records, FIRST_OF_B])


def test_a_follower_sees_of_a_deleted_stream_its_tombstone_only() -> None:
    tombstone = Record(A, 6, 6, b"tombstone")
    purged = Expectation(DELETED.attempts, frozenset({A}))
    for expected in (DELETED, DELETING, purged):
        assert followed(expected, [FIRST_OF_B], [FIRST_OF_B, tombstone]) == set()
        assert followed(expected, [FIRST_OF_B], [RECORDS[0], FIRST_OF_B, tombstone]) == {"RESURRECTED"}
    assert followed(DELETED, [FIRST_OF_B], [FIRST_OF_B]) == {"LOST"}
    assert followed(purged, [FIRST_OF_B], [FIRST_OF_B]) == followed(DELETING, [FIRST_OF_B], [FIRST_OF_B]) == set()
    assert followed(DELETED, [FIRST_OF_B], [FIRST_OF_B, tombstone._replace(lsn=9)]) == {"MOVED"}
    assert followed(DELETED, [FIRST_OF_B], [FIRST_OF_B, tombstone, tombstone._replace(lsn=7)]) == {"RESURRECTED"}
    everything = [*RECORDS, FOUR, FIRST_OF_B]
    assert followed(DELETING, everything, everything) == set()
    assert followed(NOT_DELETED, everything, [*everything, tombstone]) == {"REFUSED"}


# ---- opening an image ------------------------------------------------------------------------------------------------


def write(disk: MemoryFileSystem, *payloads: bytes, behind: int = 0) -> Expectation:
    """Add these records to one stream of a log, behind a record, and leave it by a crash."""

    async def main() -> None:
        journal = SegmentLogJournal.open(LOG, SMALL, disk)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for seq, payload in enumerate(payloads, behind):
                await append(journal, A, [payload], expected_seq=seq)
            nursery.cancel_scope.cancel()
        journal.release()

    trio.run(main)
    attempts = [(sent(n, A, n + 1, payload), Fate.STORED, n + 1) for n, payload in enumerate(payloads)]
    return Expectation(attempts)


def complaints(disk: MemoryFileSystem, expected: Expectation) -> list[Wrong]:
    try:
        trio.run(examine, disk, expected, SMALL)
    except Broken as broken:
        return [violation.wrong for violation in broken.violations]
    return []


def newest_segment(disk: MemoryFileSystem) -> str:
    return f"{LOG}/{[name for name in disk.list_names(LOG) if name.endswith('.seg')][-1]}"


def test_an_image_is_opened_twice_and_read_in_both_orders() -> None:
    disk = MemoryFileSystem()
    expected = write(disk, b"one", b"two")
    assert complaints(disk.durable_copy(), expected) == []
    assert complaints(disk.durable_copy(), Expectation(expected.attempts[:1])) == [Wrong.PHANTOM]
    more = Expectation([*expected.attempts, (sent(2, A, 3, b"three"), Fate.STORED, 3)])
    assert complaints(disk.durable_copy(), more) == [Wrong.LOST]


def test_a_log_that_does_not_open_is_objected_to() -> None:
    disk = MemoryFileSystem()
    expected = write(disk, b"one")
    disk.open(newest_segment(disk)).write(100, b"rot")
    assert complaints(disk, expected) == [Wrong.NOT_OPENED]


def test_what_an_opening_shows_and_does_not_make_durable_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryFileSystem()
    expected = write(disk, b"one")
    without_the_second = disk.durable_copy()
    write(disk, b"two", behind=1)
    maybe = Expectation([*expected.attempts, (sent(1, A, 2, b"two"), Fate.UNDER_WAY, 0)])
    assert complaints(disk.durable_copy(), maybe) == complaints(without_the_second.durable_copy(), maybe) == []
    monkeypatch.setattr(MemoryFileSystem, "durable_copy", lambda self: without_the_second)
    assert complaints(disk, maybe) == [Wrong.ANOTHER_ANSWER]


def test_an_exception_that_is_not_declared_is_told_from_one_that_is() -> None:
    with pytest.raises(Broken, match="REFUSAL"), declared(Wrong.REFUSAL, "asking"):
        raise InvalidState("no")
    with pytest.raises(Broken, match="UNDECLARED"), declared(Wrong.REFUSAL, "asking"):
        raise OSError(5, "escaped")
    with pytest.raises(Broken, match="UNDECLARED"), declared(Wrong.REFUSAL, "asking"):
        raise ExceptionGroup("of a nursery", [StepwellError("fine"), KeyError("not")])
    with pytest.raises(Broken) as caught, declared(Wrong.NOT_OPENED, "opening"):
        raise CorruptLog("rot")
    assert isinstance(caught.value.__cause__, CorruptLog)


def test_equal_expectations_have_equal_digests() -> None:
    every = [
        Expectation(),
        STORED,
        OPEN,
        UNKNOWN,
        REFUSED,
        DELETED,
        DELETING,
        Expectation(DELETED.attempts, frozenset({A})),
    ]
    assert len({expected.digest() for expected in every}) == len(every)
    assert STORED.digest() == Expectation(tuple(STORED.attempts)).digest()
