"""The plain-dict model: what was sent to a memory, what the senders were told, and what must follow from it.

The rule: every acknowledged step is there exactly once, at its number, byte for byte; what was refused is not; what had
an unknown outcome is there once or not at all; nothing is there that was never sent; a batch is there whole or not at
all; what anybody was shown stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from stepwell import Episode, Event, ExecutionStep, Receipt
from stepwell.model.event import ENDED, STARTED, STEP
from stepwell.model.outcome import TaskOutcome


class Fate(Enum):
    """What the caller was told about one call."""

    UNDER_WAY = "under way"
    ACCEPTED = "accepted"
    STORED = "stored"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    @property
    def is_open(self) -> bool:
        """Whether it may have an effect or not."""
        return self in (Fate.UNDER_WAY, Fate.ACCEPTED, Fate.UNKNOWN)


@dataclass(eq=False)
class Attempt:
    """One call that hands in steps (several: one atomic batch), starts, ends or deletes an episode. `told`: somebody
    was told that it failed."""

    what: str
    numbers: tuple[int, ...] = ()
    outcome: TaskOutcome | None = None
    fate: Fate = Fate.UNDER_WAY
    receipt: Receipt | None = None
    told: bool = False

    @property
    def has_failed(self) -> bool:
        """Whether its write is known to have failed, told or not. This asks nobody."""
        return self.receipt is not None and self.receipt._commit.done and not self.receipt.is_durable

    def __str__(self) -> str:
        return f"{self.what} {','.join(map(str, self.numbers))}".strip()


Shown = dict[int, tuple[int | str, int]]
"""What must be there of an episode, by seq: the kind of the record, or the number of the step, and its LSN (0: not
known)."""


@dataclass(eq=False)
class Sent:
    """What is known of one episode."""

    name: str
    task: str
    attempts: list[Attempt] = field(default_factory=list)
    steps: dict[int, ExecutionStep] = field(default_factory=dict)
    keyed: dict[str, int] = field(default_factory=dict)
    shown: Shown = field(default_factory=dict)
    outcome: TaskOutcome | None = None
    is_being_left: bool = False
    """Its run scope is being left: what has failed of it is raised, or noted, there, once the ending is written."""

    def fates(self, what: str) -> set[Fate]:
        """What became of the calls of one kind."""
        return {attempt.fate for attempt in self.attempts if attempt.what == what}

    def was_asked_to(self, what: str) -> bool:
        """Whether somebody called for this, and it may have had an effect."""
        return any(attempt.what == what and attempt.fate is not Fate.REFUSED for attempt in self.attempts)

    @property
    def is_deleted(self) -> bool:
        """Whether its deletion was acknowledged, or has been seen."""
        return Fate.STORED in self.fates("delete")


class Model:
    """See the module. Nothing is noted while it is `frozen`: the process that would be told is dead."""

    def __init__(self, on_wrong: Callable[[str], None] = lambda text: None) -> None:
        self._on_wrong = on_wrong
        self.episodes: dict[str, Sent] = {}
        self.transactions: list[list[tuple[Sent, Attempt]]] = []
        self.numbers = 0
        self.frozen = False
        self.wrong: list[str] = []
        self.counts: dict[str, int] = {}

    def object_to(self, text: str) -> None:
        """Note that a promise is broken."""
        if not self.frozen:
            self.wrong.append(text)
            self._on_wrong(text)

    def count(self, what: str, by: int = 1) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + by

    # ---- what callers do and are told --------------------------------------------------------------------------------

    def begin(self, sent: Sent, attempt: Attempt) -> Attempt:
        """Note a call that is about to be made."""
        sent.attempts.append(attempt)
        return attempt

    def learn(self, sent: Sent, attempt: Attempt, fate: Fate, receipt: Receipt | None = None) -> None:
        """Note what the caller was told."""
        if self.frozen:
            return
        attempt.fate, attempt.receipt = fate, receipt or attempt.receipt
        self.look_at_receipt(sent, attempt)

    def look_at_receipt(self, sent: Sent, attempt: Attempt) -> None:
        """Note what a receipt says by now."""
        receipt = attempt.receipt
        if self.frozen or receipt is None or attempt.what != "log":
            return
        if receipt.is_durable and attempt.fate is not Fate.STORED:
            attempt.fate = Fate.STORED
            assert receipt.lsn is not None
            for back, number in enumerate(reversed(attempt.numbers)):
                self.show(sent, receipt.seq - back, number, receipt.lsn - back)

    def show(self, sent: Sent, seq: int, what: int | str, lsn: int = 0) -> None:
        """Somebody was shown a record as durable, or told that it is: it stays from now on."""
        if self.frozen:
            return
        known, known_lsn = sent.shown.get(seq, (what, lsn))
        if known != what or (known_lsn and lsn and known_lsn != lsn):
            self.object_to(f"{sent.name}: seq {seq} was {known} (lsn {known_lsn}) and now is {what} (lsn {lsn})")
        elsewhere = [other for other, (same, _lsn) in sent.shown.items() if same == what and other != seq]
        if elsewhere:
            self.object_to(f"{sent.name}: {what} is at seq {seq} and was at seq {elsewhere[0]}")
        sent.shown[seq] = what, lsn or known_lsn

    def hear(self, sent: Sent | None, receipt: Receipt | None = None) -> None:
        """Somebody was told what has failed so far of an episode, or of all; or only what a receipt stands for: its
        batch, and the other parts of its transaction."""
        for one in self.episodes.values() if sent is None else (sent,):
            for attempt in one.attempts:
                if not attempt.has_failed or attempt.told:
                    continue
                assert attempt.receipt is not None
                if receipt is None or attempt.receipt._commit is receipt._commit:
                    attempt.told = True
                    self.count("losses told by a receipt" if receipt is not None else "losses told by another call")
        for parts in self.transactions if receipt is not None else ():
            if any(attempt.receipt is receipt for _sent, attempt in parts):
                for _sent, attempt in parts:
                    attempt.told = True

    def check_told(self, sent: Sent, before: Iterable[Attempt], behind: str) -> None:
        """A call has returned that says that these, which were accepted before, are durable."""
        for attempt in before:
            if attempt.has_failed and not (attempt.told or sent.is_being_left or sent.was_asked_to("delete")):
                self.object_to(f"{sent.name}: {attempt} has failed, and {behind} has returned with nobody told")

    def freeze(self) -> None:
        """The process dies at this very moment: what receipts say now was promised; nothing more is told."""
        for sent in self.episodes.values():
            for attempt in sent.attempts:
                self.look_at_receipt(sent, attempt)
        self.frozen = True

    # ---- what is found -----------------------------------------------------------------------------------------------

    def check_events(self, name: str, events: Sequence[Event], shown: Shown | None = None) -> None:
        """What an episode's events say, against what was sent, and `shown` before they were asked for."""
        sent = self.episodes.get(name)
        if sent is None:
            self.object_to(f"{name} was never started")
            return
        if [event.seq for event in events] != list(range(1, len(events) + 1)):
            self.object_to(f"{name}: the numbers of its events are {[event.seq for event in events]}")
        if any(
            after.lsn <= before.lsn or after.time_ns < before.time_ns for before, after in itertools.pairwise(events)
        ):
            self.object_to(f"{name}: its LSNs or times go back")
        kinds = [event.kind for event in events]
        if kinds[:1] != [STARTED] or STARTED in kinds[1:] or ENDED in kinds[:-1]:
            self.object_to(f"{name}: its events are {kinds}")
        found: list[int | str] = [self._check_event(sent, event) for event in events]
        self._check_found(sent, found, sent.shown if shown is None else shown)
        for event, what in zip(events, found, strict=True):
            self.show(sent, event.seq, what, event.lsn)

    def _check_event(self, sent: Sent, event: Event) -> int | str:
        if event.kind == STARTED:
            if event.data["task"] != sent.task:
                self.object_to(f"{sent.name}: it was started as {sent.task!r} and says {event.data['task']!r}")
        elif event.kind == STEP:
            number = event.data["parameters"].get("n")
            self._check_step(sent, number, event.data)
            return int(number)
        elif event.kind == ENDED:
            self._check_outcome(sent, msgspec.convert(event.data["outcome"], TaskOutcome))
        return event.kind

    def _check_step(self, sent: Sent, number: object, data: dict[str, Any]) -> None:
        step = sent.steps.get(number) if isinstance(number, int) else None
        if step is None:
            self.object_to(f"{sent.name}: step {number} was never sent")
            return
        wanted = msgspec.to_builtins(step)
        if any(data[name] != wanted[name] for name in ("tool", "action", "parameters", "result", "thought")):
            self.object_to(f"{sent.name}: step {number} is not what was sent")

    def _check_outcome(self, sent: Sent, outcome: TaskOutcome) -> None:
        known = {
            repr(attempt.outcome)
            for attempt in sent.attempts
            if attempt.what == "end" and attempt.fate is not Fate.REFUSED
        }
        told = next((a.outcome for a in sent.attempts if a.what == "end" and a.fate is Fate.STORED), None)
        if repr(outcome) not in known:
            self.object_to(f"{sent.name}: it ended with {outcome!r}, which nobody asked for")
        if told is not None and told != outcome:
            self.object_to(f"{sent.name}: it ended with {outcome!r}, and the caller was told {told!r}")
        if sent.outcome is not None and sent.outcome != outcome:
            self.object_to(f"{sent.name}: it ended with {outcome!r}, and before with {sent.outcome!r}")
        if not self.frozen:
            sent.outcome = outcome

    def check_episode(self, episode: Episode, shown: Shown) -> None:
        """What `get_episode` gives, against what was sent, and `shown` before it was asked for."""
        sent = self.episodes.get(episode.episode_id)
        if sent is None:
            self.object_to(f"{episode.episode_id} was never started")
            return
        if episode.task_description != sent.task:
            self.object_to(f"{sent.name}: it was started as {sent.task!r} and says {episode.task_description!r}")
        found: list[int | str] = [STARTED]
        for step in episode.steps:
            number = step.parameters.get("n")
            self._check_step(sent, number, msgspec.to_builtins(step))
            found.append(int(number))  # type: ignore[arg-type]
            if step.seq != len(found):
                self.object_to(f"{sent.name}: step {number} has seq {step.seq} and is the {len(found)}th record")
        if episode.outcome is not None:
            self._check_outcome(sent, episode.outcome)
            found.append(ENDED)
        if episode.last_seq != len(found):
            self.object_to(f"{sent.name}: it has {len(found)} records, and its last is {episode.last_seq}")
        self._check_found(sent, found, shown)
        for seq, what in enumerate(found, 1):
            self.show(sent, seq, what)

    def _check_found(self, sent: Sent, found: list[int | str], shown: Shown) -> None:
        for seq, (what, _lsn) in shown.items():
            if seq > len(found):
                self.object_to(f"{sent.name}: {what} at seq {seq} was acknowledged or shown, and is missing")
        there = {what for what in found if isinstance(what, int)}
        for what in there:
            if found.count(what) > 1:
                self.object_to(f"{sent.name}: step {what} is there {found.count(what)} times")
        for number in there:
            fates = {attempt.fate for attempt in sent.attempts if number in attempt.numbers}
            if fates == {Fate.REFUSED}:
                self.object_to(f"{sent.name}: step {number} was refused, and is there")
        for attempt in sent.attempts:
            places = [found.index(number) for number in attempt.numbers if number in there]
            if places and (len(places) != len(attempt.numbers) or places != list(range(places[0], places[-1] + 1))):
                self.object_to(f"{sent.name}: of the batch {attempt} {len(places)} steps are there, at {places}")
        keys: dict[str, int] = {}
        for number in there & sent.steps.keys():
            if (key := sent.steps[number].key) is not None and keys.setdefault(key, number) != number:
                self.object_to(f"{sent.name}: the key {key} is at the steps {keys[key]} and {number}")

    def settle(self, found: Mapping[str, Sequence[Event]], *, for_good: bool) -> None:
        """A new process has found this. What it shows stays, and the rest of what was open is gone for good; still
        unknown if that process could not finish its repairs."""
        for name, events in found.items():
            self.check_events(name, events)
        self._check_transactions(found)
        for sent in self.episodes.values():
            if sent.name not in found:
                self._check_missing(sent)
            there = {what for what, _lsn in sent.shown.values()}
            for attempt in sent.attempts:
                attempt.receipt = None  # of a process that is gone
                if not attempt.fate.is_open:
                    continue
                if attempt.what == "delete" and sent.name not in found and not sent.is_deleted:
                    continue  # it is missing since it was never stored, or since it was deleted
                is_there = {
                    "log": bool(there & set(attempt.numbers)),
                    "start": sent.name in found,
                    "end": attempt.outcome == sent.outcome,
                    "delete": sent.is_deleted,
                }[attempt.what]
                if is_there:
                    attempt.fate = Fate.STORED
                elif for_good:
                    attempt.fate = Fate.REFUSED

    def _check_transactions(self, found: Mapping[str, Sequence[Event]]) -> None:
        for parts in self.transactions:
            left = [(sent, attempt) for sent, attempt in parts if sent.name in found and attempt.numbers]
            there = [attempt.numbers[0] in {what for what, _lsn in sent.shown.values()} for sent, attempt in left]
            if any(there) and not all(there):
                told = ", ".join(f"{attempt} of {sent.name}" for sent, attempt in left)
                self.object_to(f"a transaction is there in part: {told}: {there}")

    def _check_missing(self, sent: Sent) -> None:
        if sent.was_asked_to("delete"):
            if sent.shown or Fate.STORED in sent.fates(
                "start"
            ):  # nothing but its deletion explains that it is not there
                for attempt in sent.attempts:
                    if attempt.what == "delete" and attempt.fate is not Fate.REFUSED:
                        attempt.fate = Fate.STORED
        elif sent.shown or Fate.STORED in sent.fates("start"):
            self.object_to(f"{sent.name} is missing")

    def check_ids(self, found: Iterable[str]) -> None:
        """Which episodes there are, against what was deleted."""
        for name in found:
            sent = self.episodes.get(name)
            if sent is not None and sent.is_deleted:
                self.object_to(f"{name} was deleted, and is there")
