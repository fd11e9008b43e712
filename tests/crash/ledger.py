"""What agents were told, held against what a log gives back: the checker of the suites on real media.

A child reports, in order, each record it is about to hand in and what became of it; one line of JSON each, see
`Ledger`. What a step says follows from its episode's name and its number alone (`step_of`), so that a lost step, a
changed, a doubled, a displaced and an invented one can be told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from stepwell import Event, ExecutionStep, Memory, StepSuccess
from tests.crash import changes

START, END = -1, -2
"""The numbers under which the first and the last record of an episode are reported; steps count from 0."""

Fate = Literal["sent", "durable", "rejected", "unknown"]
TASK = "log until the power fails"


def step_of(episode_id: str, number: int) -> ExecutionStep:
    """The `number`-th step (from 0) of an episode: content of varying size, runs of NULs and a key now and then."""
    digest = hashlib.sha256(f"{episode_id}/{number}".encode()).digest()
    size = int.from_bytes(digest[:2], "big") % (20_000 if digest[2] < 4 else 600)
    output = digest.hex() + "\0" * (size if digest[3] < 20 else 0) + "x" * size
    key = f"key {number}" if digest[4] < 64 else None
    return ExecutionStep("tool", f"step {number}", {"n": number}, StepSuccess(output), key=key)


Found = Mapping[str, Sequence[Event]]
"""What a log gives back: the events of every episode."""


async def read_back(memory: Memory) -> dict[str, list[Event]]:
    """Everything that a memory serves."""
    return {name: [event async for event in memory.events(name)] async for name in memory.episode_ids()}


@dataclass
class Account:
    """What is known of one episode: the fate of every record handed in, in the order of handing in, and the batches
    that must be there as a whole or not at all."""

    fates: dict[int, Fate] = field(default_factory=dict)
    batches: list[list[int]] = field(default_factory=list)
    lsns: dict[int, int] = field(default_factory=dict)
    resent: set[int] = field(default_factory=set)


@dataclass
class Verdict:
    """What the comparison found. Each list must be empty; `acknowledged` and `recovered` count records."""

    acknowledged: int = 0
    recovered: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    displaced: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> dict[str, list[str]]:
        """What is wrong, by kind."""
        kinds = ("lost", "duplicated", "displaced", "changed", "invented", "resurrected", "torn")
        return {kind: found for kind in kinds if (found := getattr(self, kind))}

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.complaints

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {', '.join(found[:5])} ({len(found)})" for kind, found in self.complaints.items())


class Ledger:
    """The reports of the agents of one log. A report is one of

        ["send", episode, [number, …]]               about to hand these in; several at once are one atomic batch
        ["durable", episode, [number, …], lsn]       on the medium, the last of them as record `lsn` of the log
        ["rejected" | "unknown", episode, [number, …]]
        ["reopened", {episode: [number, …]}]         the log was opened anew and served this, all of it durable
        ["resumed", episode, [number, …]]            the same, of this episode alone
        ["left", text]                               the memory was left with this error

    with `START` and `END` as the numbers of the records that start and end an episode, and those of `changes` for
    records that organise it.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.left: list[str] = []

    def note_lines(self, output: bytes) -> None:
        """Take in what a child printed. A last line without an end was cut off by its death: it said nothing."""
        for line in output.split(b"\n")[:-1]:
            self.note(json.loads(line))

    def note(self, report: Sequence[Any]) -> None:
        """Take in one report."""
        what = report[0]
        if what == "reopened":
            for name, settled in self.accounts.items():
                _settle(settled, report[1].get(name, ()))
            return
        if what == "left":
            self.left.append(report[1])
            return
        episode: str = report[1]
        numbers: list[int] = report[2]
        account = self.accounts.setdefault(episode, Account())
        if what == "resumed":
            _settle(account, numbers)
            return
        if what == "send":
            for number in numbers:
                if account.fates.get(number, "rejected") == "rejected":
                    # What was refused and is tried again has a new place, and belongs to no batch of before.
                    account.fates.pop(number, None)
                    account.batches = [batch for batch in account.batches if number not in batch]
                    account.fates[number] = "sent"
                else:
                    account.resent.add(number)
            if len(numbers) > 1:
                account.batches.append(numbers)
            return
        fate: Fate = what
        for number in numbers:
            if fate == "durable" or number not in account.resent:
                account.fates[number] = fate  # what became of a second try says nothing against the first
        if fate == "durable" and report[3] is not None:
            for back, number in enumerate(reversed(numbers)):
                account.lsns[number] = report[3] - back

    def check(self, found: Found, *, episodes: Collection[str] | None = None) -> Verdict:
        """Compare with what a log gives back: with all of it, or with that of these episodes."""
        verdict = Verdict()
        for episode, events in found.items():
            account = self.accounts.get(episode)
            if account is None:
                verdict.invented.append(f"{episode} (all of it)")
                verdict.recovered += len(events)
            else:
                _check_episode(verdict, episode, account, events)
        for episode, account in self.accounts.items():
            if episodes is not None and episode not in episodes:
                continue
            durable = [number for number, fate in account.fates.items() if fate == "durable"]
            verdict.acknowledged += len(durable)
            if durable and episode not in found:
                verdict.lost.append(f"{episode} (all of it)")
        return verdict


def _settle(account: Account, served: Iterable[int]) -> None:
    """What an opening served stays; what it did not serve has never been, and must not come back."""
    there = set(served)
    settled: dict[int, Fate] = {}
    for number, fate in account.fates.items():
        if number in there and fate != "rejected":
            settled[number] = "durable"
        elif fate in ("durable", "rejected"):
            settled[number] = fate
    account.fates = settled
    account.batches = [batch for batch in account.batches if batch[0] in settled]


def numbers_of(events: Iterable[Event]) -> list[int]:
    """Under which numbers the records of an episode are reported."""
    numbers = []
    for event in events:
        if event.kind == "step":
            numbers.append(event.data["parameters"].get("n", -3))
        elif changes.is_change(event.kind):
            numbers.append(changes.number_of(event.data))
        else:
            numbers.append(START if event.kind == "started" else END)
    return numbers


def _check_episode(verdict: Verdict, episode: str, account: Account, events: Sequence[Event]) -> None:
    numbers = numbers_of(events)
    fates = account.fates
    verdict.recovered += len(numbers)
    there = Counter(numbers)
    verdict.duplicated += [_name(episode, number) for number, count in there.items() if count > 1]
    verdict.invented += [_name(episode, number) for number in there if number not in fates]
    verdict.resurrected += [_name(episode, number) for number in there if fates.get(number) == "rejected"]
    verdict.lost += [_name(episode, n) for n, fate in fates.items() if fate == "durable" and n not in there]
    place = {number: index for index, number in enumerate(fates)}
    known = [place[number] for number in numbers if number in place]
    if known != sorted(known) or [event.seq for event in events] != list(range(1, len(events) + 1)):
        verdict.displaced.append(f"{episode}: {numbers}")
    for number, event in zip(numbers, events, strict=True):
        if account.lsns.get(number, event.lsn) != event.lsn:
            verdict.displaced.append(f"{_name(episode, number)}: record {event.lsn}, not {account.lsns[number]}")
        if not _is_what_was_sent(episode, number, event):
            verdict.changed.append(_name(episode, number))
    if not {"rejected", "unknown"} & set(fates.values()):
        # Accepted one behind the other and never refused: what is there of it has no hole.
        missing = [number for number in fates if number not in there]
        if missing and any(place[number] > place[missing[0]] for number in there if number in place):
            verdict.torn.append(f"{_name(episode, missing[0])} is missing before others")
    for batch in account.batches:
        if 0 < sum(number in there for number in batch) < len(batch):
            verdict.torn.append(f"{episode}: half of the batch {batch[0]}–{batch[-1]}")


def _is_what_was_sent(episode: str, number: int, event: Event) -> bool:
    if event.kind == "started":
        return bool(event.data.get("task") == TASK)
    if changes.is_change(event.kind):
        return changes.is_what_was_sent(number, event.kind, event.data)
    if event.kind != "step":
        return bool(event.data.get("outcome", {}).get("verdict") == f"{episode} has ended")
    sent: dict[str, Any] = msgspec.to_builtins(step_of(episode, number))
    del sent["key"]
    return bool(event.data == sent)


def _name(episode: str, number: int) -> str:
    if number <= changes.FIRST:
        return f"{episode} change {number}"
    return f"{episode} {'start' if number == START else 'ending' if number == END else f'step {number}'}"
