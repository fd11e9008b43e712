"""Finding episodes by what they are."""

from __future__ import annotations

from typing import Literal

from stepwell.errors import InvalidInput, StepwellError
from stepwell.memory.core import MemoryCore
from stepwell.model import validation as check
from stepwell.model.episode_filter import EpisodeFilter, checked_filter
from stepwell.model.listed_episode import Page
from stepwell.model.tag_count import TagPage
from stepwell.runtime.episode_query import EpisodeQuery, count_episodes, cursor_text, parse_cursor
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.tag_query import parse_tag_cursor, read_tags

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

        The list is kept up to date in the background and lags behind the log: by a fraction of a second, and while much
        is written by a few seconds. `at_least`: an lsn, `receipt.lsn` for instance, up to which it must be: the call
        waits until it is. Deleted episodes are gone from it when `delete_episode` returns. Cancelling breaks off the
        search.
        Raises: `InvalidInput`, `TooLarge`, naming the argument; `Unavailable` (the list is not kept up to date any
        more, see `health`, or cannot be read), `Closed`.
        """
        try:
            checked = checked_filter(filter)
            _check_page(limit, at_least)
            if not check.is_one_of(order, ("newest", "oldest")):
                raise InvalidInput(f"order: must be 'newest' or 'oldest', not {check.shown(order)}")
            after = None if cursor is None else parse_cursor(cursor, checked, order)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_thread()
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
        self._supervisor.check_thread()
        episodes = self._runtime.projections.episodes
        return await episodes.read(lambda connection: count_episodes(connection, checked), at_least=at_least)

    async def tags(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        order: Literal["tag", "count"] = "tag",
        at_least: int | None = None,
    ) -> TagPage:
        """A page of all tags that episodes have, archived ones too, each with how many episodes have it.

        `order`: by "tag", without regard to case, or by "count", the most frequent first. `limit` and `cursor`: as for
        `list_episodes`. By tag each comes exactly once over all pages, whatever changes meanwhile; by count one whose
        count changes between two pages may come twice, or not. As up to date as a list; `at_least` as there. Cancelling
        breaks off the search.
        Raises: as `list_episodes`.
        """
        try:
            _check_page(limit, at_least)
            if not check.is_one_of(order, ("tag", "count")):
                raise InvalidInput(f"order: must be 'tag' or 'count', not {check.shown(order)}")
            after = None if cursor is None else parse_tag_cursor(cursor, order)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_thread()
        episodes = self._runtime.projections.episodes
        return await episodes.read(lambda known: read_tags(known, order, limit, after), at_least=at_least)


def _check_page(limit: int, at_least: int | None) -> None:
    check.check_number(limit, "limit", minimum=1, whole=True)
    if limit > MOST_ITEMS:
        raise InvalidInput(f"limit: {limit} is above {MOST_ITEMS:,}; ask for page after page")
    if at_least is not None:
        check.check_number(at_least, "at_least", minimum=0, whole=True)
