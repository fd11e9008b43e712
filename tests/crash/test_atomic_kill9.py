"""Killed children leave no part of a transaction; the suite and its checker object to each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from stepwell import Event
from tests.crash.atomic_ledger import AtomicLedger, step_with
from tests.crash.commands import run_suite
from tests.crash.ledger import START, TASK, step_of


def test_three_rounds_pass() -> None:
    status, summary = run_suite("atomic_kill9", "--rounds", "3", "--seed", "7")
    assert (status, summary["violations"]) == (0, [])
    assert summary["transactions_stored"] > 0


@pytest.mark.parametrize(("how", "complaint"), [("torn", "torn"), ("early", "lost")])
def test_the_suite_objects_to_children_that_break_the_promise(how: str, complaint: str) -> None:
    status, summary = run_suite("atomic_kill9", "--rounds", "5", "--seed", "7", "--broken", how)
    assert status == 1
    assert complaint in str(summary["violations"])


# ---- the checker -----------------------------------------------------------------------------------------------------


def event(episode: str, number: int, seq: int, lsn: int, data: dict[str, Any] | None = None) -> Event:
    shown: dict[str, Any] = {"task": TASK} if number == START else data or msgspec.to_builtins(step_of(episode, number))
    shown.pop("key", None)
    kind = "started" if number == START else "step"
    return Event(episode, kind, seq, lsn, 0, 1, repr(shown).encode(), lambda _payload, _what: shown, lambda _lsn: "")


def log_of(*records: tuple[str, int]) -> dict[str, list[Event]]:
    """A log with these records, in this order."""
    found: dict[str, list[Event]] = {}
    for lsn, (episode, number) in enumerate(records, 1):
        events = found.setdefault(episode, [])
        events.append(event(episode, number, len(events) + 1, lsn))
    return found


def ledger_of(*reports: Sequence[Any]) -> AtomicLedger:
    ledger = AtomicLedger()
    for report in (["started", "e"], ["started", "f"], *reports):
        ledger.note(report)
    return ledger


STARTS = (("e", START), ("f", START))
SENT = ["send", "t", {"e": [0, 1], "f": [2]}, True]
COMMITTED = ["committed", "t", 5]
WHOLE = (("e", 0), ("e", 1), ("f", 2))


def test_a_transaction_that_is_whole_is_sound_and_so_is_one_without_an_answer_that_is_not_there() -> None:
    verdict = ledger_of(SENT, COMMITTED).check(log_of(*STARTS, *WHOLE))
    assert verdict.sound
    assert (verdict.acknowledged, verdict.recovered) == (3, 5)
    assert ledger_of(SENT).check(log_of(*STARTS, *WHOLE)).sound
    assert ledger_of(SENT).check(log_of(*STARTS)).sound


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        (STARTS, "lost"),
        ((("e", START), ("e", 0), ("e", 1)), "lost"),
        ((*STARTS, ("e", 0), ("e", 1)), "torn"),
        ((*STARTS, *WHOLE, ("f", 2)), "duplicated"),
        ((*STARTS, *WHOLE, ("f", 3)), "invented"),
        ((*STARTS, ("e", 1), ("e", 0), ("f", 2)), "displaced"),
        ((*STARTS, ("e", 0), ("f", 2), ("e", 1), ("g", START)), None),
        ((("g", START), *STARTS, *WHOLE), "displaced"),
        ((*STARTS, ("e", 0), ("e", 1), ("g", START), ("f", 2)), "displaced"),
    ],
)
def test_an_acknowledged_transaction_is_there_once_in_one_piece_where_its_receipt_says(
    records: Sequence[tuple[str, int]], complaint: str | None
) -> None:
    verdict = ledger_of(SENT, COMMITTED).check(log_of(*records))
    assert complaint in verdict.complaints if complaint else verdict.sound


def test_part_of_a_transaction_without_an_answer_is_torn() -> None:
    verdict = ledger_of(SENT).check(log_of(*STARTS, ("f", 2)))
    assert list(verdict.complaints) == ["torn"]


def test_a_step_that_says_something_else_is_changed() -> None:
    found = log_of(*STARTS, *WHOLE)
    found["f"][1] = event("f", 2, 2, 5, {"parameters": {"n": 2}})
    assert list(ledger_of(SENT, COMMITTED).check(found).complaints) == ["changed"]


def test_what_one_opening_served_the_next_one_serves_and_what_it_did_not_never_comes_back() -> None:
    ledger = ledger_of(SENT)
    assert ledger.check(log_of(*STARTS, *WHOLE)).sound
    assert "lost" in ledger.check(log_of(*STARTS)).complaints
    ledger = ledger_of(SENT)
    assert ledger.check(log_of(*STARTS)).sound
    assert "resurrected" in ledger.check(log_of(*STARTS, *WHOLE)).complaints


def test_what_is_handed_in_again_may_be_there_and_later_than_other_steps_of_its_writer() -> None:
    later = (["send", "u", {"e": [7]}, False], ["committed", "u", 3])
    ledger = ledger_of(SENT, *later)
    assert ledger.unsettled() == {"t": {"e": [0, 1], "f": [2]}}
    assert ledger.check(log_of(*STARTS, ("e", 7))).sound
    assert ledger.unsettled() == {"t": {"e": [0, 1], "f": [2]}}
    ledger.note(SENT)
    ledger.note(["committed", "t", 6])
    assert ledger.unsettled() == {}
    assert ledger.check(log_of(*STARTS, ("e", 7), *WHOLE)).sound


def test_a_keyed_step_differs_from_the_other_in_its_key_alone() -> None:
    assert step_with("e", 1, keyed=False) == msgspec.structs.replace(step_with("e", 1, keyed=True), key=None)


def changed(episode: str, number: int, seq: int, lsn: int, tag: str | None = None) -> Event:
    shown = {"added": [tag or f"tag {number}"], "removed": [], "actor": str(number)}
    data = repr(shown).encode()
    return Event(episode, "tagged", seq, lsn, 0, 1, data, lambda _payload, _what: shown, lambda _lsn: "")


def test_what_organises_an_episode_is_part_of_its_transaction() -> None:
    sent = ["send", "t", {"e": [3, 4, 5]}, True]  # the first of three organises it
    starts, first, other = log_of(("e", START), ("f", START)), changed("e", 3, 2, 3), event("e", 3, 2, 3)
    rest = [event("e", 4, 3, 4), event("e", 5, 4, 5)]

    def check(*events: Event) -> str:
        ledger = ledger_of(sent, ["committed", "t", 5])
        return str(ledger.check({**starts, "e": [*starts["e"], *events]}))

    assert check(first, *rest) == ""
    assert check(other, *rest) == "changed: e step 3 (1)"
    assert check(changed("e", 3, 2, 3, "other"), *rest) == "changed: e step 3 (1)"
    assert "torn: t: 2 of 3" in check(event("e", 4, 2, 4), event("e", 5, 3, 5))
    assert "duplicated: e step 3" in check(first, *rest, changed("e", 3, 5, 6))
