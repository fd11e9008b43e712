"""Finding episodes by what they are."""

from __future__ import annotations

from typing import Literal

from stepwell.errors import InvalidInput, StepwellError
from stepwell.memory.core import MemoryCore
from stepwell.model import validation as check
from stepwell.model.episode_filter import EpisodeFilter, checked_filter
from stepwell.model.listed_episode import Page
from stepwell.runtime.episode_query import EpisodeQuery, count_episodes, cursor_text, parse_cursor
from stepwell.runtime.right_loop import checkpoint

MOST_ITEMS = 1_000
"""So many episodes one page may have."""


class Finding(MemoryCore):
    """The part of a memory that lists episodes."""

    async def list_episodes(
        self,
        filter: EpisodeFilter | None = None,
        *,
        limit: int = 50,
        cursor: str | None = None,
        order: Literal["newest", "oldest"] = "newest",
        at_least: int | None = None,
    ) -> Page:
        """A page of the episodes that a filter lets through, by the time at which they started.

        `limit`: 1 to 1,000. `cursor`: the `next_cursor` of the page before, of a list with the same filter and order;
        over all pages each episode comes exactly once, whatever is added or deleted meanwhile.

        The list is kept up to date in the background and lags a little behind the log, a second at most. `at_least`: an
        lsn, `receipt.lsn` for instance, up to which it must be: the call waits until it is. Deleted episodes are gone
        from it when `delete_episode` returns. Cancelling breaks off the search.
        Raises: `InvalidInput`, `TooLarge`, naming the argument; `Unavailable` (the list is not kept up to date any
        more, see `health`, or cannot be read), `Closed`.
        """
        try:
            checked = checked_filter(filter)
            check.check_number(limit, "limit", minimum=1, whole=True)
            if limit > MOST_ITEMS:
                raise InvalidInput(f"limit: {limit} is above {MOST_ITEMS:,}; ask for page after page")
            if order not in ("newest", "oldest"):
                raise InvalidInput(f"order: must be 'newest' or 'oldest', not {check.shown(order)}")
            after = None if cursor is None else parse_cursor(cursor, checked, order)
            if at_least is not None:
                check.check_number(at_least, "at_least", minimum=0, whole=True)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        query = EpisodeQuery(checked, order, limit + 1, after)
        found = await self._runtime.projections.episodes.read(query.run, at_least=at_least)
        has_more = len(found) > limit
        del found[limit:]
        return Page(
            items=[item.episode for item in found],
            next_cursor=cursor_text(checked, order, found[-1].key) if has_more else None,
        )

    async def count_episodes(self, filter: EpisodeFilter | None = None, *, at_least: int | None = None) -> int:
        """How many episodes a filter lets through, all of them without one; as up to date as a list.

        It looks at all of them that the filter's best index leaves. Cancelling breaks off the count.
        Raises: as `list_episodes`.
        """
        try:
            checked = checked_filter(filter)
            if at_least is not None:
                check.check_number(at_least, "at_least", minimum=0, whole=True)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        episodes = self._runtime.projections.episodes
        return await episodes.read(lambda connection: count_episodes(connection, checked), at_least=at_least)
