"""The checker of the suites on real media objects to each thing that can be wrong, and to nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from stepwell import Event
from tests.crash import changes
from tests.crash.ledger import END, START, TASK, Ledger, step_of


def event(number: int, seq: int, name: str = "e", lsn: int | None = None) -> Event:
    data: dict[str, Any]
    if number == START:
        kind, data = "started", {"task": TASK}
    elif number == END:
        kind, data = "ended", {"outcome": {"verdict": f"{name} has ended"}}
    else:
        kind, data = "step", msgspec.to_builtins(step_of(name, number))
        del data["key"]
    at = 100 + seq if lsn is None else lsn
    return Event(name, kind, seq, at, 0, 1, repr(data).encode(), lambda _payload, _what: data, lambda _lsn: "")


def found(*numbers: int, name: str = "e") -> dict[str, list[Event]]:
    return {name: [event(number, seq, name) for seq, number in enumerate(numbers, 1)]}


def ledger_of(*reports: Sequence[Any]) -> Ledger:
    ledger = Ledger()
    for report in reports:
        ledger.note(report)
    return ledger


STARTED = (["send", "e", [START]], ["durable", "e", [START], None])
TWO_DURABLE = (*STARTED, ["send", "e", [0]], ["durable", "e", [0], 102], ["send", "e", [1]], ["durable", "e", [1], 103])


def test_everything_acknowledged_and_there_is_sound() -> None:
    ledger = ledger_of(*TWO_DURABLE, ["send", "e", [END]], ["durable", "e", [END], 104])
    verdict = ledger.check(found(START, 0, 1, END))
    assert verdict.sound
    assert (verdict.acknowledged, verdict.recovered) == (4, 4)


def test_what_organises_an_episode_is_there_once_in_its_place_and_says_what_was_sent() -> None:
    number = changes.beside_step(2)
    ledger = ledger_of(*STARTED, ["send", "e", [0]], ["send", "e", [number]], ["durable", "e", [number], None])
    tag = [f"tag {number}"]

    def there(*tags: list[str]) -> dict[str, list[Event]]:
        events = found(START, 0)["e"]
        for seq, added in enumerate(tags, 3):
            data = {"added": added, "removed": [], "actor": str(number)}
            tagged = Event("e", "tagged", seq, 100 + seq, 0, 1, b"", lambda _p, _w, data=data: data, lambda _lsn: "")  # type: ignore[misc]
            events.append(tagged)
        return {"e": events}

    assert number % 3 == 0
    assert ledger.check(there(tag)).sound
    assert ledger.check(there()).complaints == {"lost": [f"e change {number}"]}
    assert ledger.check(there(["other"])).complaints == {"changed": [f"e change {number}"]}
    assert "duplicated" in ledger.check(there(tag, tag)).complaints


@pytest.mark.parametrize("there", [[START, 0, 1], [START, 0, 1, 2], [START, 0, 1, 2, 3]])
def test_what_has_no_answer_yet_may_be_there_or_not(there: list[int]) -> None:
    assert ledger_of(*TWO_DURABLE, ["send", "e", [2]], ["send", "e", [3]]).check(found(*there)).sound


@pytest.mark.parametrize("there", [[START, 0, 1, 3], [START, 0, 1, 2, 3]])
def test_what_is_unknown_may_be_there_or_not(there: list[int]) -> None:
    ledger = ledger_of(
        *TWO_DURABLE, ["send", "e", [2]], ["unknown", "e", [2]], ["send", "e", [3]], ["durable", "e", [3], None]
    )
    assert ledger.check(found(*there)).sound


@pytest.mark.parametrize(
    ("reports", "there", "complaint"),
    [
        ([*TWO_DURABLE], found(START, 0), "lost"),
        ([*TWO_DURABLE], {}, "lost"),
        ([*STARTED], {}, "lost"),
        ([*TWO_DURABLE], found(START, 1), "lost"),
        ([*TWO_DURABLE, ["send", "e", [END]], ["durable", "e", [END], None]], found(START, 0, 1), "lost"),
        ([*TWO_DURABLE], found(START, 0, 0, 1), "duplicated"),
        ([*TWO_DURABLE], found(START, 1, 0), "displaced"),
        ([*TWO_DURABLE], found(START, 0, 1, name="e") | {"e": found(START, 0, 1)["e"][1:]}, "displaced"),
        ([*TWO_DURABLE], {"e": [event(START, 1), event(0, 2), event(1, 3, lsn=99)]}, "displaced"),
        ([*TWO_DURABLE], found(START, 0, 1, 2), "invented"),
        ([*TWO_DURABLE], found(START, 0, 1, END), "invented"),
        ([*TWO_DURABLE], found(START, 0, 1) | found(START, name="f"), "invented"),
        ([*TWO_DURABLE, ["send", "e", [2]], ["rejected", "e", [2]]], found(START, 0, 1, 2), "resurrected"),
        ([["send", "e", [START]], ["rejected", "e", [START]]], found(START), "resurrected"),
        ([*TWO_DURABLE, ["send", "e", [2]], ["send", "e", [3]]], found(START, 0, 1, 3), "torn"),
        ([*TWO_DURABLE, ["send", "e", [2, 3, 4]]], found(START, 0, 1, 2, 3), "torn"),
        ([*TWO_DURABLE, ["send", "e", [2, 3]], ["unknown", "e", [2, 3]]], found(START, 0, 1, 2), "torn"),
    ],
)
def test_the_checker_objects(reports: list[list[Any]], there: dict[str, list[Event]], complaint: str) -> None:
    assert complaint in ledger_of(*reports).check(there).complaints


@pytest.mark.parametrize("place", [0, 1, 3])
def test_the_checker_objects_to_a_changed_record_of_any_kind(place: int) -> None:
    there = found(START, 0, 1, END)
    changed = {**event(1, 1).data, "tool": "another"}
    there["e"][place] = msgspec.structs.replace(there["e"][place], _decode=lambda _payload, _what: changed)
    ledger = ledger_of(*TWO_DURABLE, ["send", "e", [END]], ["durable", "e", [END], None])
    assert "changed" in ledger.check(there).complaints


def test_what_an_opening_served_must_stay() -> None:
    ledger = ledger_of(*TWO_DURABLE, ["send", "e", [2]], ["reopened", {"e": [START, 0, 1, 2]}])
    assert "lost" in ledger.check(found(START, 0, 1)).complaints


def test_what_an_opening_did_not_serve_must_not_come_back() -> None:
    ledger = ledger_of(*TWO_DURABLE, ["send", "e", [2]], ["reopened", {"e": [START, 0, 1]}])
    assert "invented" in ledger.check(found(START, 0, 1, 2)).complaints


def test_what_an_opening_lost_stays_lost() -> None:
    ledger = ledger_of(*TWO_DURABLE, ["reopened", {"e": [START, 0]}])
    assert "lost" in ledger.check(found(START, 0)).complaints


def test_a_second_try_that_is_rejected_says_nothing_against_the_first() -> None:
    ledger = ledger_of(*TWO_DURABLE, ["send", "e", [1]], ["rejected", "e", [1]])
    assert ledger.check(found(START, 0, 1)).sound
    assert "lost" in ledger.check(found(START, 0)).complaints


def test_what_was_rejected_and_is_tried_again_may_be_there_at_its_new_place() -> None:
    ledger = ledger_of(*STARTED, ["send", "e", [0]], ["rejected", "e", [0]], ["send", "e", [1]], ["send", "e", [0]])
    assert ledger.check(found(START, 1, 0)).sound
    assert "displaced" in ledger.check(found(START, 0, 1)).complaints


def test_a_batch_that_was_rejected_binds_nothing_that_is_tried_again() -> None:
    ledger = ledger_of(*STARTED, ["send", "e", [0, 1]], ["rejected", "e", [0, 1]], ["send", "e", [0]])
    assert ledger.check(found(START, 0)).sound


def test_a_line_cut_off_by_the_death_of_its_writer_says_nothing() -> None:
    ledger = Ledger()
    ledger.note_lines(b'["send", "e", [-1]]\n["durable", "e", [-1], nu')
    assert ledger.check({}).sound
