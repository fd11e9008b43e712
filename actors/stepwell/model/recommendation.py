"""What a memory advises for a task, and what became of the advice."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from stepwell.model.context import TaskContext
from stepwell.model.pattern import Interval, Pattern

RECOMMENDATION_STREAM = "recommendation"
RECOMMENDED, FEEDBACK = "recommended", "feedback"
"""Kinds of the records of such a stream: the first one, and all others."""

CHARACTERS_PER_TOKEN = 4


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of an episode that show a pattern, in words: `failed` is the call that failed, `worked` the one that then
    succeeded, either "" where there is none. `success` is that of the episode."""

    episode_id: str
    seqs: tuple[int, ...]
    success: float | None
    failed: str = ""
    worked: str = ""


class ScoreParts(msgspec.Struct, frozen=True, kw_only=True):
    """Of what the score of advice is made; each part is weighed already, and they add up to it.

    `similar`: how much of what is like the task shows the pattern. `context`: whether domain and tags are those of the
    task. `lift`: how much more is believed of it than of any task of its domain. `recency`: it was seen lately.
    `success`: mean success (of warnings: of failure). `boost`: what feedback adds or takes.
    """

    similar: float
    context: float
    lift: float
    recency: float
    success: float
    boost: float

    @property
    def total(self) -> float:
        """The score."""
        return self.similar + self.context + self.lift + self.recency + self.success + self.boost


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of advice: the pattern behind it, `text` (what to do or to avoid), `why` (its figures and its place in
    the ranking, in words), and an example from an episode where there is one."""

    pattern: Pattern
    text: str
    why: str
    score: float
    parts: ScoreParts
    example: Example | None = None

    @property
    def pattern_id(self) -> str:
        """What `feedback(applied=[…])` takes."""
        return self.pattern.pattern_id


class SimilarEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An ended episode like the task, with how it ended, and the last call that succeeded in it (`answer`)."""

    episode_id: str
    task: str
    outcome: str
    similarity: float
    answer: str = ""


class BaseRate(msgspec.Struct, frozen=True, kw_only=True):
    """How often tasks of one kind (`features`) were solved."""

    features: str
    episodes: int
    success: float
    interval: Interval


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """Advice for a task, best first, with the episodes most like it that solved their task, and base rates.

    `id` is what `memory.feedback` takes; "" where it could not be stored (a memory opened for reading), so that there
    can be no feedback. `note` says why there is no advice, where there is none.
    """

    id: str
    task: str
    context: TaskContext
    created_at: dt.datetime
    advice: list[Advice] = []
    episodes: list[SimilarEpisode] = []
    base_rates: list[BaseRate] = []
    note: str = ""

    def to_text(self, max_tokens: int | None = None) -> str:
        """The recommendation for a prompt or a person, the best advice first; what would exceed `max_tokens` (counted
        as a quarter of the characters) is left out."""
        room = None if max_tokens is None else max_tokens * CHARACTERS_PER_TOKEN
        kept: list[str] = []
        used = 0
        for line in self._lines():
            used += len(line) + 1
            if room is not None and used > room:
                break
            kept.append(line)
        return "\n".join(kept)

    def _lines(self) -> list[str]:
        lines = []
        for number, advice in enumerate(self.advice, 1):
            lines.append(f"{number}. {advice.text}")
            lines += [f"   {line}" for line in advice_lines(advice)]
        if self.episodes:
            lines.append("Solved before:")
            for episode in self.episodes:
                lines.append(f"- {episode.task}")
                if episode.answer:
                    lines.append(f"  {episode.answer}")
        if self.note:
            lines.append(self.note)
        return lines


def advice_lines(advice: Advice) -> list[str]:
    """What stands below the text of an advice."""
    lines = [advice.why]
    if advice.example is not None:
        if advice.example.failed:
            lines.append(f"failed: {advice.example.failed}")
        if advice.example.worked:
            lines.append(f"worked: {advice.example.worked}")
    return lines


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a recommendation, as it is stored: the newest one of a recommendation counts."""

    applied: list[str] = []
    consulted: list[str] = []
    outcome: dict[str, Any] | None = None
    rating: float | None = None


class FeedbackReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Feedback is durable: record `seq` of the recommendation's stream, `lsn` of the log. `replaced`: there was
    feedback before, which does not count any more."""

    recommendation_id: str
    seq: int
    lsn: int
    replaced: bool


class RecommendationStats(msgspec.Struct, frozen=True, kw_only=True):
    """How recommendations did: of those given (`recommendations`), those with feedback, the pieces of advice applied
    and not, and shares over them; None where there is nothing to divide by."""

    recommendations: int
    with_feedback: int
    applied: int
    ignored: int
    adoption: float | None
    success_after_adoption: float | None
    mean_rating: float | None


class Heuristic(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of thumb made of a pattern: when `condition`, then `action`. `samples` episodes stand behind it, with
    mean `success` where their endings tell; `confidence` is the lower bound of it."""

    pattern_id: str
    condition: str
    action: str
    domain: str
    samples: int
    success: float | None
    confidence: float


class PlaybookStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a playbook: what to do, with which tool, and why (figures of the pattern behind it)."""

    order: int
    action: str
    tool_hint: str = ""
    because: str = ""


class Pitfall(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong before, why it is believed, and what helped against it ("" where nothing is known)."""

    warning: str
    reason: str
    mitigation: str = ""


class Playbook(msgspec.Struct, frozen=True, kw_only=True):
    """An ordered way to go about a task, put together from patterns with templates.

    `match`: how well it fits, 0 to 1. `confidence`: what it rests on, 0 to 1. `recommendation_id` is what
    `memory.feedback` takes, with `pattern_ids` as what may be applied.
    """

    recommendation_id: str
    task: str
    match: float
    confidence: float
    why: str
    when_to_apply: list[str]
    when_not_to_apply: list[str]
    steps: list[PlaybookStep]
    pitfalls: list[Pitfall]
    expected: str
    pattern_ids: list[str]
    episode_ids: list[str]

    def to_text(self) -> str:
        """The playbook for a prompt or a person."""
        lines = [f"Playbook: {self.task}", self.why]
        lines += [
            f"{step.order}. {step.action}" + (f"  ({step.because})" if step.because else "") for step in self.steps
        ]
        for title, texts in (("When", self.when_to_apply), ("Not when", self.when_not_to_apply)):
            lines += [f"{title}: {text}" for text in texts]
        for pitfall in self.pitfalls:
            lines.append(f"Beware: {pitfall.warning} ({pitfall.reason})")
            if pitfall.mitigation:
                lines.append(f"  {pitfall.mitigation}")
        return "\n".join([*lines, f"Expect: {self.expected}"])
