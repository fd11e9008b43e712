"""What callers were told about each episode, and whether a memory keeps to it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import Enum

from stepwell.model.episode import Episode
from stepwell.model.outcome import TaskOutcome


class Fate(Enum):
    """Whether something is in the log, as far as the caller can know."""

    STORED = "stored"
    UNKNOWN = "unknown"
    NEVER = "never stored"


@dataclass
class Logged:
    """Steps of one call: together or not at all. `seq`: that of the last, where it is known."""

    by: str
    actions: tuple[str, ...]
    fate: Fate
    seq: int | None = None


@dataclass
class Told:
    """What is known of one episode. `is_run`: it belongs to a run scope, which ends it whatever happens. `organised`:
    it has events beside its steps. `recorded`: it is a run whose events were recorded, and only has to be readable."""

    start: Fate = Fate.UNKNOWN
    logged: list[Logged] = field(default_factory=list)
    outcome: TaskOutcome | None = None
    ending: Fate = Fate.NEVER
    deletion: Fate = Fate.NEVER
    is_run: bool = False
    organised: bool = False
    recorded: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it certainly takes steps."""
        certain = self.start is Fate.STORED and self.ending is self.deletion is Fate.NEVER
        return certain and not self.is_run


def judge(told: dict[str, Told], shown: dict[str, Episode]) -> list[str]:
    """Every broken promise, by name of the episode; none is what is wanted."""
    wrong = [f"{name} is there, and nobody has started it" for name in shown.keys() - told.keys()]
    for name, known in told.items():
        if known.recorded:
            continue
        episode = shown.get(name)
        if known.deletion is Fate.STORED:
            wrong += [f"{name} is there although it was deleted"] if episode is not None else []
        elif episode is None:
            if known.deletion is Fate.NEVER and known.start is Fate.STORED:
                wrong.append(f"{name} is missing")
        else:
            if known.start is Fate.NEVER:
                wrong.append(f"{name} is there although its start was refused")
            wrong += [f"{name}: {text}" for text in (*_judge_steps(known, episode), *_judge_ending(known, episode))]
    return wrong


def _judge_steps(known: Told, episode: Episode) -> list[str]:
    wrong: list[str] = []
    seq_of: dict[str, int] = {}
    for due, step in enumerate(episode.steps, 2):
        # Where it was organised, records that are no steps stand between; they are numbered like any other.
        if step.seq < due or (step.seq != due and not known.organised):
            wrong.append(f"seq {step.seq} where {due} is due")
        if step.action in seq_of:
            wrong.append(f"{step.action!r} is there twice, as seq {seq_of[step.action]} and {step.seq}")
        seq_of[step.action] = step.seq
    sent = {action for logged in known.logged for action in logged.actions}
    wrong += [f"{action!r} is there, and nobody has logged it" for action in seq_of.keys() - sent]
    last: dict[str, int] = {}
    for logged in known.logged:
        seqs = [seq_of[action] for action in logged.actions if action in seq_of]
        what = ", ".join(map(repr, logged.actions))
        if logged.fate is Fate.STORED and not seqs:
            wrong.append(f"{what} was accepted and is missing")
        if logged.fate is Fate.NEVER and seqs:
            wrong.append(f"{what} is there although the call said that it is not stored")
        if not seqs:
            continue
        if len(seqs) != len(logged.actions) or any(b != a + 1 for a, b in itertools.pairwise(seqs)):
            wrong.append(f"{what} are one batch, and stand at {seqs}")
        if logged.seq is not None and logged.seq != seqs[-1]:
            wrong.append(f"{what} is seq {seqs[-1]}, and its receipt says {logged.seq}")
        if seqs[0] <= last.get(logged.by, 0):
            wrong.append(f"{what} is seq {seqs[0]}, behind a later call of the same task")
        last[logged.by] = seqs[-1]
    return wrong


def _judge_ending(known: Told, episode: Episode) -> list[str]:
    found = episode.outcome
    if known.is_run:
        return ["its run scope is over and it has no ending"] if found is None else _other(known, found)
    if known.ending is Fate.STORED and found is None:
        return ["its ending was durable and is missing"]
    if known.ending is Fate.NEVER and found is not None:
        return [f"it has an ending nobody asked for: {found!r}"]
    return [] if found is None else _other(known, found)


def _other(known: Told, found: TaskOutcome) -> list[str]:
    if known.outcome is not None and found != known.outcome:
        return [f"it ended with {found!r} and not with {known.outcome!r}"]
    return []
