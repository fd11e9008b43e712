"""What a fleet acknowledged, held against what the log gave back: the demo's claim, checked by content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from stepwell.model.episode import Episode
from stepwell.model.outcome import outcome_kind
from stepwell.model.step import EpisodeStep, ExecutionStep


def step_digest(step: ExecutionStep | EpisodeStep) -> str:
    """A digest of everything the agent said in a step, its own step number included."""
    content = [
        step.step_number,
        step.tool,
        step.action,
        step.parameters,
        msgspec.to_builtins(step.result),
        None if step.latency_ms is None else float(step.latency_ms),
        step.thought,
    ]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Recovered(NamedTuple):
    """One step as the log gave it back."""

    seq: int
    number: int
    digest: str


class RecoveredEpisode(NamedTuple):
    """One episode as the log gave it back; `outcome` is None while it is open."""

    steps: list[Recovered]
    outcome: str | None

    @classmethod
    def of(cls, episode: Episode) -> RecoveredEpisode:
        """What counts of an episode for the comparison."""
        steps = [Recovered(step.seq, step.step_number, step_digest(step)) for step in episode.steps]
        return cls(steps, None if episode.outcome is None else outcome_kind(episode.outcome))


class Verdict(msgspec.Struct, kw_only=True):
    """How acknowledged and recovered compare. All but the first three must be empty.

    `beyond`: steps in the log that the fleet did not acknowledge: it died between storing and saying so, or they were
    logged by whoever went on with the episode.
    """

    acknowledged: int
    recovered: int
    beyond: int
    missing: list[str] = []
    changed: list[str] = []
    duplicated: list[str] = []
    out_of_order: list[str] = []
    lost_episodes: list[str] = []
    lost_endings: list[str] = []

    @property
    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by kind."""
        names = ("missing", "changed", "duplicated", "out_of_order", "lost_episodes", "lost_endings")
        return {name: found for name in names if (found := getattr(self, name))}

    @property
    def ok(self) -> bool:
        """Whether every acknowledgement was kept."""
        return not self.problems


class Ledger:
    """The acknowledgements that reached the parent process, one JSON line each."""

    def __init__(self) -> None:
        self.started: set[str] = set()
        self.steps: dict[tuple[str, int], str] = {}
        self.ended: dict[str, str] = {}
        self.finished = False
        self.contradictions: list[str] = []

    def take(self, line: bytes) -> None:
        """Write down one line of the fleet."""
        kind, *said = json.loads(line)
        if kind == "step":
            episode_id, seq, digest = said
            if self.steps.setdefault((episode_id, seq), digest) != digest:
                self.contradictions.append(f"{episode_id} seq {seq}: acknowledged twice, with different content")
        elif kind == "started":
            self.started.add(said[0])
        elif kind == "ended":
            self.ended[said[0]] = said[1]
        elif kind == "finished":
            self.finished = True

    def compare(self, recovered: Mapping[str, RecoveredEpisode]) -> Verdict:
        """Hold everything acknowledged against what the log gave back."""
        total = sum(len(episode.steps) for episode in recovered.values())
        verdict = Verdict(acknowledged=len(self.steps), recovered=total, beyond=0, changed=list(self.contradictions))
        there = {
            (episode_id, step.seq): step.digest for episode_id, episode in recovered.items() for step in episode.steps
        }
        for (episode_id, seq), digest in self.steps.items():
            found = there.get((episode_id, seq))
            if found is None:
                verdict.missing.append(f"{episode_id} seq {seq}")
            elif found != digest:
                verdict.changed.append(f"{episode_id} seq {seq}")
        verdict.beyond = sum(place not in self.steps for place in there)
        for episode_id, episode in recovered.items():
            self._check_order(episode_id, episode.steps, verdict)
        known = self.started | {episode_id for episode_id, _ in self.steps}
        verdict.lost_episodes = sorted(known - recovered.keys())
        for episode_id, outcome in self.ended.items():
            if episode_id in recovered and recovered[episode_id].outcome != outcome:
                verdict.lost_endings.append(episode_id)
        return verdict

    @staticmethod
    def _check_order(episode_id: str, steps: list[Recovered], verdict: Verdict) -> None:
        for what, values in (
            ("seq", [step.seq for step in steps]),
            ("step", [step.number for step in steps]),
            ("content", [step.digest for step in steps]),
        ):
            verdict.duplicated += [f"{episode_id} {what} {value}" for value, times in _counted(values) if times > 1]
        # An agent numbers its steps 1, 2, 3 … itself, so a step that is out of its place or skipped shows here.
        numbers, seqs = [step.number for step in steps], [step.seq for step in steps]
        if numbers != list(range(1, len(steps) + 1)) or seqs != sorted(seqs):
            verdict.out_of_order.append(f"{episode_id} steps {_short(numbers)}, seqs {_short(seqs)}")


def acknowledgement(kind: str, *said: Any) -> bytes:
    """One line as the fleet prints it."""
    return json.dumps([kind, *said], separators=(",", ":")).encode() + b"\n"


def _counted(values: Iterable[Any]) -> Iterable[tuple[Any, int]]:
    return Counter(values).items()


def _short(numbers: list[int]) -> str:
    text = ", ".join(map(str, numbers[:12]))
    return f"[{text}, …]" if len(numbers) > 12 else f"[{text}]"
