"""The operations of the crash suites do what they are named after, those included that wait for the journal to learn
them; and the same seed gives the same run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from stepstore.errors import InvalidState, LogFull, OutcomeUnknown
from stepstore.journal.contract import FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch, Submission
from stepstore.journal.segment_log import SegmentLogJournal
from tests.crash.checker import Broken, Wrong
from tests.crash.lives import SETTINGS, Ledger, Life, payload
from tests.crash.promises import Expectation, Fate
from tests.crash.repeatable import deterministic, run
from tests.crash.watching import Call
from tests.crash.workloads import (
    ALPHABET,
    OPERATIONS,
    Operation,
    append,
    burst,
    compact,
    delete,
    look,
    purge,
    snapshot,
)


def live(*operations: Callable[[Life], Awaitable[None]]) -> tuple[Expectation, list[Call]]:
    """Let a life go through these, look at all there is in the end, and give what is promised then."""
    calls: list[Call] = []
    promised: list[Expectation] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            life = Life(nursery, SETTINGS[0], calls.append)
            await life.open()
            for operation in operations:
                await operation(life)
            await look(life)
            promised.append(life.ledger.now())
            await life.die()

    with deterministic() as dice:
        dice.throw_anew(1)
        run(main)
    return promised[0], calls


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_each_operation_works_on_an_empty_log_behind_itself_and_behind_an_append(operation: Operation) -> None:
    expected, calls = live(operation.act, operation.act, append, operation.act)
    assert calls
    assert {fate for _attempt, fate, _lsn in expected.attempts} <= {Fate.STORED, Fate.REFUSED}
    assert Fate.STORED in {fate for _attempt, fate, _lsn in expected.attempts}


def test_a_kill_leaves_an_append_in_the_page_cache_and_a_power_cut_tears_one() -> None:
    by_name = {operation.name: operation.act for operation in OPERATIONS}
    killed, _calls = live(by_name["kill"])
    assert [fate for _attempt, fate, _lsn in killed.attempts] == [Fate.STORED], "found again, so it is promised"
    cut, _calls = live(by_name["cut"])
    assert [fate for _attempt, fate, _lsn in cut.attempts] == [Fate.REFUSED], "torn, so it must never come back"


def test_deletions_snapshots_and_purges_are_promised() -> None:
    expected, _calls = live(snapshot, append, snapshot, delete, append, delete, compact, burst, purge)
    kinds = [attempt.batches[0].flags & (FLAG_SNAPSHOT | FLAG_TOMBSTONE) for attempt, _f, _l in expected.attempts]
    assert kinds.count(FLAG_SNAPSHOT) == kinds.count(FLAG_TOMBSTONE) == 2
    assert len(expected.deletions) == 2
    assert set(expected.deletions.values()) == {Fate.STORED}
    assert expected.purged == expected.deletions.keys()
    assert all(fate is Fate.STORED for _attempt, fate, _lsn in expected.attempts)


def test_every_letter_is_known_by_one_name() -> None:
    assert len({operation.name for operation in ALPHABET}) == len(ALPHABET)
    assert {"append", "several", "large", "close", "kill", "cut"} <= {operation.name for operation in OPERATIONS}


def test_payloads_are_unique_and_large_ones_have_sectors_of_zeros() -> None:
    large = payload("1.0.0", 3000)
    assert bytes(1024) in large
    assert large.startswith(b"<1.0.0>")
    assert large.endswith(b"<1.0.0>")
    assert payload("1.0.0", 0) == b"<1.0.0>"
    assert len({payload(f"{n}.0.0", size) for n in range(20) for size in (0, 100, 3000)}) == 60


# ---- what the sender was told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (None, Fate.STORED),
        (LogFull("no room"), Fate.REFUSED),
        (InvalidState("no"), Fate.REFUSED),
        (OutcomeUnknown("?"), Fate.UNKNOWN),
    ],
)
def test_what_is_known_follows_from_what_the_sender_was_told(
    error: Any, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(self: object, batches: list[Batch], *, on_done: Callable[[Submission], None]) -> Submission:
        submission = Submission(batches, 0, False, on_done)
        submission.resolve(7 if error is None else 0, error)
        return submission

    monkeypatch.setattr(SegmentLogJournal, "submit", submit)
    known: list[Expectation] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            life = Life(nursery, SETTINGS[0], lambda call: None)
            await life.open()
            assert life.send((life.stream("A"), 1, 0, 0)) is not None
            known.append(life.ledger.now())
            await life.die()

    with deterministic():
        run(main)
    assert [item[1:] for item in known[0].attempts] == [(fate, 7 if error is None else 0)]


def test_an_error_that_is_not_declared_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: object, *_arguments: object, **_named: object) -> Submission:
        raise OSError(5, "escaped")

    monkeypatch.setattr(SegmentLogJournal, "submit", submit)
    with pytest.raises(Broken) as caught:
        live(append)
    assert caught.value.violations[0].wrong is Wrong.UNDECLARED


def test_a_refusal_by_a_healthy_log_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: object, *_arguments: object, **_named: object) -> Submission:
        raise LogFull("no room")

    monkeypatch.setattr(SegmentLogJournal, "submit", submit)
    with pytest.raises(Broken) as caught:
        live(append)
    assert caught.value.violations[0].wrong is Wrong.REFUSAL


def test_a_submission_that_is_never_resolved_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: object, batches: list[Batch], *, on_done: Callable[[Submission], None]) -> Submission:
        return Submission(batches, 0, False, on_done)

    monkeypatch.setattr(SegmentLogJournal, "submit", submit)
    with pytest.raises(Broken) as caught:
        live(append)
    assert caught.value.violations[0].wrong is Wrong.STUCK


def test_a_ledger_grows_by_versions() -> None:
    ledger = Ledger(Expectation())
    number = ledger.add([Batch(b"A" * 16, 1, [b"one"], 0)])
    before = ledger.version
    assert ledger.now().attempts[number][1] is Fate.UNDER_WAY
    ledger.learn(number, Fate.STORED, 5)
    assert ledger.version > before
    assert ledger.now().attempts[number][1:] == (Fate.STORED, 5)
    assert len(Ledger(ledger.now())) == 1


def shown(call: Call) -> tuple[object, ...]:
    """A call without what says when it was made: the name of a quarantined file, and what LOCK says of its holder."""
    data = b"" if call.path.endswith("LOCK") else bytes(call.data)
    return call.operation, re.sub(r"\d{8}T[\d.]+Z", "", call.path), call.offset, call.size, data


def test_a_life_is_the_same_twice() -> None:
    operations = [operation.act for operation in OPERATIONS]
    first, second = live(*operations), live(*operations)
    assert [shown(call) for call in first[1]] == [shown(call) for call in second[1]]
    assert first[0].digest() == second[0].digest()
