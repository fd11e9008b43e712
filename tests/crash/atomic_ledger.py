"""What writers of transactions were told, held against what a log gives back: the checker of `atomic_kill9`.

Several writers share episodes, so the order in an episode is that of acceptance and nobody knows it beforehand; each
writer's own steps are in order. What a step says follows from its episode, its number and whether it has a key.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from stepwell import Event, ExecutionStep
from tests.crash import changes
from tests.crash.ledger import START, TASK, Verdict, numbers_of, step_of

WRITER = 100_000
"""Writer w gives its steps numbers from w * WRITER on, one after another over all episodes."""

Fate = Literal["sent", "committed", "gone"]
Parts = dict[str, list[int]]
"""The numbers of the steps of a transaction, by episode."""


def step_with(episode: str, number: int, *, keyed: bool) -> ExecutionStep:
    """The step of this number, with a key of its own or without one."""
    return msgspec.structs.replace(step_of(episode, number), key=f"key {number}" if keyed else None)


def changes_of(numbers: Sequence[int], *, keyed: bool) -> set[int]:
    """Which of the records of an episode in a transaction organise it; at least one is a step. What may be handed in
    again is a change that is recorded once then."""
    first = numbers[0]
    return {first} if len(numbers) > 2 and (not keyed or changes.can_be_repeated(first)) else set()


@dataclass
class Transaction:
    """What is known of a transaction; a step that is logged by itself is one of one part."""

    parts: Parts
    keyed: bool
    fate: Fate = "sent"
    lsn: int | None = None


@dataclass
class AtomicLedger:
    """The reports of the writers of one log. A report is one of

    ["started", episode]
    ["send", name, {episode: [number, …]}, keyed]    about to hand these in as one transaction; `changes_of` are changes
    ["committed", name, lsn]                         durable, the last of them as record `lsn` of the log
    """

    started: set[str] = field(default_factory=set)
    sent: dict[str, Transaction] = field(default_factory=dict)
    resubmitted: int = 0
    repeated: set[tuple[str, int]] = field(default_factory=set)
    """Steps that were handed in again; they may have come behind later ones of their writer."""

    def note_lines(self, output: bytes) -> None:
        """Take in what a child printed. A last line without an end was cut off by its death: it said nothing."""
        for line in output.split(b"\n")[:-1]:
            self.note(json.loads(line))

    def note(self, report: Sequence[Any]) -> None:
        """Take in one report."""
        if report[0] == "started":
            self.started.add(report[1])
        elif report[0] == "send":
            again = self.sent.get(report[1])
            if again is None:
                self.sent[report[1]] = Transaction(report[2], report[3])
            else:
                self.resubmitted += 1
                self.repeated.update((episode, n) for episode, numbers in again.parts.items() for n in numbers)
                again.fate = "committed" if again.fate == "committed" else "sent"
        else:
            found = self.sent[report[1]]
            found.fate, found.lsn = "committed", report[2]

    def unsettled(self) -> dict[str, Parts]:
        """The transactions with keys that nobody was told the result of: they may be handed in again."""
        return {name: sent.parts for name, sent in self.sent.items() if sent.keyed and sent.fate != "committed"}

    def check(self, found: Mapping[str, Sequence[Event]]) -> Verdict:
        """Compare with all that a log gives back. What it serves now must stay, and what it does not serve and nobody
        was told of must not come back."""
        verdict = Verdict()
        verdict.lost += [f"{name} (all of it)" for name in self.started if name not in found]
        places: dict[tuple[str, int], Event] = {}
        for episode, events in found.items():
            self._check_episode(verdict, episode, events)
            places.update(((episode, n), e) for n, e in zip(numbers_of(events), events, strict=True) if n >= 0)
        for name, sent in self.sent.items():
            self._check_transaction(verdict, name, sent, places)
        verdict.invented += [f"{episode} step {number}" for episode, number in places]  # what no transaction took out
        return verdict

    def _check_episode(self, verdict: Verdict, episode: str, events: Sequence[Event]) -> None:
        numbers = numbers_of(events)
        verdict.recovered += len(numbers)
        verdict.duplicated += [f"{episode} step {n}" for n, count in Counter(numbers).items() if count > 1]
        if [event.seq for event in events] != list(range(1, len(events) + 1)) or numbers[:1] != [START]:
            verdict.displaced.append(f"{episode}: seq {[event.seq for event in events]}")
        if events and events[0].data.get("task") != TASK:
            verdict.changed.append(f"{episode} start")
        latest: dict[int, int] = {}
        for number in numbers[1:]:
            if (episode, number) in self.repeated:
                continue
            if latest.get(number // WRITER, -1) > number:
                verdict.displaced.append(f"{episode} step {number} behind {latest[number // WRITER]}")
            latest[number // WRITER] = number

    def _check_transaction(
        self, verdict: Verdict, name: str, sent: Transaction, places: dict[tuple[str, int], Event]
    ) -> None:
        wanted = [(episode, number) for episode, numbers in sent.parts.items() for number in numbers]
        there = {place: places.pop(place) for place in wanted if place in places}
        for (episode, number), event in there.items():
            made = changes_of(sent.parts[episode], keyed=sent.keyed)
            if not _is_what_was_sent(episode, number, event, is_change=number in made):
                verdict.changed.append(f"{episode} step {number}")
        if sent.fate == "committed":
            verdict.acknowledged += len(wanted)
            verdict.lost += [f"{name}: {episode} step {n}" for episode, n in wanted if (episode, n) not in there]
        if 0 < len(there) < len(wanted):
            verdict.torn.append(f"{name}: {len(there)} of {len(wanted)}")
        if there and sent.fate == "gone":
            verdict.resurrected.append(name)
        lsns = sorted(event.lsn for event in there.values())
        if len(there) == len(wanted) and lsns != list(range(lsns[0], lsns[0] + len(lsns))):
            verdict.displaced.append(f"{name}: records {lsns} are no one frame")
        if sent.lsn is not None and lsns and lsns[-1] != sent.lsn:
            verdict.displaced.append(f"{name}: ends with record {lsns[-1]}, not {sent.lsn}")
        if sent.fate == "sent":
            sent.fate = "committed" if there else "gone"


def _is_what_was_sent(episode: str, number: int, event: Event, *, is_change: bool) -> bool:
    if is_change or changes.is_change(event.kind):
        return is_change and changes.is_what_was_sent(number, event.kind, event.data)
    expected: dict[str, Any] = msgspec.to_builtins(step_of(episode, number))
    del expected["key"]
    return bool(event.data == expected)
