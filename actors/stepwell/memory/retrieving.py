"""Finding finished episodes that help with a task."""

from __future__ import annotations

import logging
import time
from functools import cached_property

from stepwell.errors import EpisodeUnavailable, InvalidInput, NotFound, StepwellError
from stepwell.learning.prompt_text import told_for_a_prompt
from stepwell.learning.relevance import DIVERSITY
from stepwell.learning.scored_episode import RelevantEpisodes, ScoredEpisode
from stepwell.learning.text import counted
from stepwell.memory.core import MemoryCore
from stepwell.model import validation as check
from stepwell.model.context import TaskContext
from stepwell.model.episode import Episode
from stepwell.model.episode_filter import EpisodeFilter, checked_filter
from stepwell.model.start import checked_context
from stepwell.runtime.lexical_index import TermCounts
from stepwell.runtime.reading import fold_episode
from stepwell.runtime.retrieval import Ranked, Retrieval
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.vectors import EmbedderFailed, VectorIndex

_logger = logging.getLogger("stepwell.memory")

MOST_HITS = 100
"""So many episodes one call gives at most."""
QUERY_BYTES = 100_000


class Retrieving(MemoryCore):
    """The part of a memory that knows what helped before."""

    _vectors: VectorIndex | None = None

    @cached_property
    def _counts(self) -> TermCounts:
        return TermCounts()

    async def retrieve_relevant_context(
        self,
        query: str,
        context: TaskContext | None = None,
        limit: int = 5,
        *,
        filter: EpisodeFilter | None = None,
        diversity: float = DIVERSITY,
    ) -> RelevantEpisodes:
        """The finished episodes that are most relevant to a task, best first: by the words their tasks and labels share
        with `query`, and then by context, outcome, reward and age (see docs/retrieval.md). Every hit says what its
        score is made of, and an empty answer why it is. With an embedder in the settings vectors count too; if that
        fails, the answer is by words alone, and its `note` says so.

        `context`: that of the task at hand; episodes that share its domain, language, framework or tags rank higher.
        `limit`: 1 to 100. `diversity`: from 0 to 1, the share of its score that an episode loses which only repeats a
        better one. `filter`: only episodes that it lets through; without a word in it on archived ones, those
        are left out. Open and interrupted episodes are never in the answer, deleted ones never again after
        `delete_episode` returned. It sees every ending that was durable before the call. Cancelling breaks it off.
        Raises: `InvalidInput`, `TooLarge`, naming the argument; `Unavailable` (what is looked up is not kept up to date
        any more, see `health`, or cannot be read), `Closed`.
        """
        try:
            check.check_text(query, "query", QUERY_BYTES)
            if bad := check.find_bad_text(query, "query"):
                raise InvalidInput(bad)
            check.check_number(limit, "limit", minimum=1, whole=True)
            if limit > MOST_HITS:
                raise InvalidInput(f"limit: {limit} is above {MOST_HITS}; the first few are what helps")
            check.check_number(diversity, "diversity", minimum=0)
            if diversity > 1:
                raise InvalidInput(f"diversity: must be from 0 to 1, not {diversity}")
            checked = checked_filter(filter)
            if checked.text is not None:
                raise InvalidInput("filter.text: the query is what is looked for; leave it out of the filter")
            if context is not None:
                context = checked_context(context, {}, self._config.limits)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_thread()
        cosines, note = await self._cosines(query)
        retrieval = Retrieval(query, context, limit, checked, time.time_ns(), cosines, diversity, self._counts)
        retrieved = await self._runtime.projections.retrieval.read_now(retrieval.run)
        found = [
            ScoredEpisode(
                episode_id=ranked.episode_id, score=ranked.score, parts=retrieved.explain(ranked), episode=episode
            )
            for ranked in retrieved.ranked
            if (episode := await self._read_hit(ranked)) is not None
        ]
        if lost := len(retrieved.ranked) - len(found):
            note = f"{counted(lost, 'episode')} left out: deleted meanwhile, or damaged{note and '; '}{note}"
        return RelevantEpisodes(
            found,
            ranked_by=retrieved.ranked_by,
            why_empty="" if found else retrieved.why_empty or "what was found was deleted meanwhile, or is damaged",
            note=note,
            told=lambda hit: told_for_a_prompt(hit.episode),
        )

    async def _cosines(self, query: str) -> tuple[dict[int, float] | None, str]:
        """By the embedder, if there is one; None, and why, if it does not work: then words alone have to do."""
        if self._config.embedder is None:
            return None, ""
        if self._vectors is None:
            self._vectors = VectorIndex(self._runtime.projections.retrieval, self._config.embedder)
        try:
            return await self._vectors.cosines(query), ""
        except EmbedderFailed as error:
            _logger.warning("retrieval ranks by words alone", exc_info=True)
            return None, f"ranked by words alone: {error}"

    async def _read_hit(self, ranked: Ranked) -> Episode | None:
        """None: it was deleted meanwhile, or its records are damaged."""
        try:
            fold, _keyed = await fold_episode(self._journal, ranked.episode_id, partial=True)
        except (NotFound, EpisodeUnavailable):
            return None
        return fold.episode()
