"""What a memory has learned of its episodes: patterns, advice, and what became of the advice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from stepwell.errors import InvalidInput, NotFound, StepwellError
from stepwell.learning.accumulation import pattern_of
from stepwell.learning.explanation import explain
from stepwell.learning.extraction import label
from stepwell.learning.heuristics import heuristics_of
from stepwell.learning.playbook import playbook_of
from stepwell.memory.core import MemoryCore
from stepwell.model import validation as check
from stepwell.model.context import TaskContext
from stepwell.model.ending import checked_outcome
from stepwell.model.ids import checked_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.pattern import PATTERN_KINDS, AdviceRecord, Explanation, Pattern, PatternKind
from stepwell.model.recommendation import (
    Feedback,
    FeedbackReceipt,
    Heuristic,
    Playbook,
    Recommendation,
    RecommendationStats,
)
from stepwell.model.start import checked_context
from stepwell.runtime import learned, learned_advice
from stepwell.runtime.reading import not_found
from stepwell.runtime.recommending import (
    check_applied,
    recommend,
    recommended,
    store_feedback,
    store_recommendation,
)
from stepwell.runtime.right_loop import checkpoint

MOST_PATTERNS = 1_000
MOST_ADVICE = 50
MOST_STEPS = 100
MOST_IDS = 1_000
EVIDENCE_SHOWN = 20
HEURISTIC_KINDS: tuple[PatternKind, ...] = ("decision_point", "error_recovery", "loop")
PLAYBOOK_ADVICE = 10


class Learning(MemoryCore):
    """The part of a memory that learns of its episodes.

    A learner follows the log in the background. Each of these calls waits until it has taken up everything that was
    accepted before the call, so an episode that was just completed counts. If the learner was parked after failing
    again and again (see `health`), they raise `Unavailable`; logging goes on. Patterns go with the episodes that show
    them: what was deleted teaches nothing.
    """

    async def patterns(
        self,
        kind: PatternKind | None = None,
        *,
        domain: str | None = None,
        text: str | None = None,
        min_episodes: int = 1,
        limit: int = 50,
    ) -> list[Pattern]:
        """Patterns of all episodes, those with the most to say first: by the lower bound of success, of loops and dead
        ends that of failure, then by how many episodes show them.

        `kind`: one of "tool_sequence", "decision_point", "error_recovery", "context_pattern", "loop", "dead_end".
        `text`: only those that hold it, in whatever case. `min_episodes`: only those that so many episodes show.
        `limit`: 1 to 1,000.
        A checkpoint. Raises: `InvalidInput`, `Unavailable`, `Closed`.
        """
        try:
            if kind is not None and not check.is_one_of(kind, PATTERN_KINDS):
                raise InvalidInput(f"kind: must be one of {', '.join(PATTERN_KINDS)}, not {check.shown(kind)}")
            for name, value in (("domain", domain), ("text", text)):
                check.check_optional_text(value, name, self._config.limits.text_bytes)
                if (bad := check.find_bad_text(value, name)) is not None:
                    raise InvalidInput(bad)
            check.check_number(min_episodes, "min_episodes", minimum=1, whole=True)
            _check_limit(limit, "limit", MOST_PATTERNS)
        except StepwellError:
            await checkpoint()
            raise
        await self._learned_all()
        kinds = PATTERN_KINDS if kind is None else (kind,)
        found = await self._runtime.projections.learning.read_now(
            lambda connection: learned.patterns(
                connection,
                kinds=kinds,
                domain=None if domain is None else label(domain),
                text=text,
                min_episodes=min_episodes,
                limit=limit,
            )
        )
        now = time.time_ns()
        return [pattern_of(it.domain, it.content, it.counts, now) for it in found]

    async def heuristics(self, context: TaskContext | None = None, *, limit: int = 20) -> list[Heuristic]:
        """Rules of thumb: patterns that at least two episodes show, read as "when this, then that", the most confident
        first. With a `context`, those of its domain.

        `limit`: 1 to 1,000. A checkpoint. Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`.
        """
        try:
            domain = None if context is None else checked_context(context, {}, self._config.limits).domain
            _check_limit(limit, "limit", MOST_PATTERNS)
        except StepwellError:
            await checkpoint()
            raise
        found: list[Pattern] = []
        for kind in HEURISTIC_KINDS:
            found += await self.patterns(kind, domain=domain, min_episodes=2, limit=limit)
        return heuristics_of(found)[:limit]

    async def explain(self, pattern_id: str) -> Explanation:
        """Why a pattern is believed: its figures beside the base rate of its domain, the newest episodes that show it
        with the numbers of their records, and what became of it as advice.

        A checkpoint. Raises: `InvalidInput`, `NotFound` (no episode shows it, or none does any more), `Unavailable`,
        `Closed`.
        """
        try:
            check.check_text(pattern_id, "pattern_id", MOST_IDS, empty=False)
            if (bad := check.find_bad_text(pattern_id, "pattern_id")) is not None:
                raise InvalidInput(bad)
        except StepwellError:
            await checkpoint()
            raise
        await self._learned_all()

        def reading(connection: Any) -> Any:
            found = learned.pattern(connection, pattern_id)
            if found is None:
                return None
            base = learned.base_counts(connection, found.domain)
            record = learned_advice.advice_records(connection, [pattern_id]).get(pattern_id, AdviceRecord())
            return found, base, learned.evidence(connection, found.key, EVIDENCE_SHOWN), record

        read = await self._runtime.projections.learning.read_now(reading)
        if read is None:
            raise NotFound(
                f"there is no pattern {pattern_id!r} in this memory; `memory.patterns()` shows those there are"
            )
        found, base, evidence, record = read
        pattern = pattern_of(found.domain, found.content, found.counts, time.time_ns())
        return explain(pattern, base, evidence, record)

    async def recommend(
        self, task: str, context: TaskContext | None = None, limit: int = 3, **context_fields: Any
    ) -> Recommendation:
        """Advice for a task: what to do and what to avoid, each piece with its figures, why it stands where it does,
        and the very calls of an episode that shows it; and the episodes most like it that solved their task.

        Fields of `TaskContext` may be given as keywords as well; domain and tags say most. `limit`: 1 to 50.
        What was advised is stored, durable on return, so that `feedback` can say what became of it: that is what makes
        advice which helped rise and other advice fall. A memory opened for reading stores nothing; the `id` is "" then.
        If cancelled, whether it was stored is unknown, and does not matter.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        task, checked = await self._checked_task(task, context, context_fields, limit, "limit", MOST_ADVICE)
        return await self._recommended(task, checked, limit)

    async def playbook(
        self, task: str, context: TaskContext | None = None, *, max_steps: int = 5, **context_fields: Any
    ) -> Playbook | None:
        """An ordered way to go about a task, put together from what was learned; None if nothing was that says what to
        do.

        `max_steps`: 1 to 100. Otherwise as `recommend`, of which it is made: `feedback` takes its `recommendation_id`.
        """
        task, checked = await self._checked_task(task, context, context_fields, max_steps, "max_steps", MOST_STEPS)
        found = await self._recommended(task, checked, PLAYBOOK_ADVICE)
        return playbook_of(found, max_steps=max_steps)

    async def feedback(
        self,
        recommendation_id: str,
        *,
        applied: Sequence[str] = (),
        consulted: Sequence[str] = (),
        outcome: TaskOutcome | None = None,
        rating: float | None = None,
    ) -> FeedbackReceipt:
        """Say what became of a recommendation; durable on return. Given again, the newest counts.

        `applied`: ids of the patterns or skills in it that were followed; all others count as not followed.
        `consulted`: ids of the episodes that were looked at. `outcome`: how the task ended; without one, or if it was
        abstained from or interrupted, nothing is said for or against what was applied. `rating`: 0 to 1.
        If cancelled, whether it is stored is unknown: give it again.
        Raises: `InvalidInput` (something was applied that was not advised), `NotFound` (no such recommendation, or no
        such episode), `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            name = checked_id(recommendation_id, "recommendation_id")
            followed, looked_at = _checked_ids(applied, "applied"), _checked_ids(consulted, "consulted")
            ending = None if outcome is None else checked_outcome(outcome, self._config.limits)
            if rating is not None:
                check.check_number(rating, "rating", minimum=0)
                if rating > 1:
                    raise InvalidInput(f"rating: {rating} is above 1; a rating is 0 to 1")
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_open()
        self._journal.check_open()
        check_applied(followed, await recommended(self._journal, name), name)
        for episode in looked_at:
            known = checked_id(episode, "consulted")
            await self._supervisor.settle(known)
            if not await self._supervisor.is_stored(known):
                raise not_found(known)
        told = Feedback(applied=followed, consulted=looked_at, outcome=msgspec.to_builtins(ending), rating=rating)
        return await store_feedback(self._journal, name, told, self._config.limits)

    async def recommendation_stats(self) -> RecommendationStats:
        """How all recommendations together did. A checkpoint. Raises: `Unavailable`, `Closed`."""
        await self._learned_all()
        return await self._runtime.projections.learning.read_now(learned_advice.recommendation_stats)

    async def _learned_all(self) -> None:
        """Wait until everything accepted before this call has a result; what is durable is then read. A checkpoint."""
        await checkpoint()
        await self._supervisor.settle_all()

    async def _checked_task(
        self, task: object, context: object, fields: dict[str, Any], limit: object, name: str, most: int
    ) -> tuple[str, TaskContext]:
        try:
            check.check_text(task, "task", self._config.limits.task_bytes)
            if (bad := check.find_bad_text(task, "task")) is not None:
                raise InvalidInput(bad)
            checked = checked_context(context, fields, self._config.limits)
            _check_limit(limit, name, most)
            text = str(check.plain(task))
            if self._redaction is not None:
                text = str(self._redaction.value("task", text))
        except StepwellError:
            await checkpoint()
            raise
        return text, checked

    async def _recommended(self, task: str, context: TaskContext, limit: int) -> Recommendation:
        await self._learned_all()
        now = time.time_ns()
        found = await recommend(self._journal, self._runtime.projections, task, context, limit, now)
        if self._runtime.projections.are_read_only:
            return found
        self._supervisor.check_open()
        return await store_recommendation(self._journal, found, self._config.limits, now)


def _check_limit(limit: object, name: str, most: int) -> None:
    check.check_number(limit, name, minimum=1, whole=True)
    if isinstance(limit, int) and limit > most:
        raise InvalidInput(f"{name}: {limit} is above {most:,}")


def _checked_ids(ids: object, name: str) -> list[str]:
    if not isinstance(ids, list | tuple):
        raise InvalidInput(f"{name}: must be a list of ids, not {type(ids).__name__}")
    if len(ids) > MOST_IDS:
        raise InvalidInput(f"{name}: {len(ids):,} ids are above {MOST_IDS:,}")
    return list(dict.fromkeys(str(checked_id(it, f"{name}[{place}]")) for place, it in enumerate(ids)))
