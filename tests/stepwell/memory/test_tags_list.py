"""The list of all tags, against a plain count."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import InvalidInput, Memory, Success, TagCount
from stepwell.model.tags import tag_key
from tests.stepwell.memory.test_listing import episodes_drawn, fill
from tests.support import open_on


async def all_pages(memory: Memory, order: Literal["tag", "count"], limit: int) -> list[TagCount]:
    found: list[TagCount] = []
    cursor = None
    while True:
        page = await memory.tags(order=order, limit=limit, cursor=cursor, at_least=memory._journal.durable_lsn)
        assert len(page.items) == limit or page.next_cursor is None
        found += page.items
        if (cursor := page.next_cursor) is None:
            return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=episodes_drawn, limit=st.integers(1, 3))
def test_each_tag_is_counted_in_whatever_case_and_spelled_as_in_the_newest_episode(
    drawn: list[dict[str, Any]], limit: int
) -> None:
    async def main() -> None:
        async with open_on(MemoryFileSystem()) as memory:
            await fill(memory, drawn)
            counts: dict[str, int] = {}
            spelled: dict[str, str] = {}
            for name in [name async for name in memory.episode_ids()]:  # the oldest first
                tags = (await memory.get_episode(name)).context.tags
                own = {tag_key(tag): tag for tag in reversed(tags)}  # one may be given twice when it starts
                counts |= {key: counts.get(key, 0) + 1 for key in own}
                spelled |= own
            wanted = [TagCount(tag=spelled[key], episodes=counts[key]) for key in sorted(counts)]
            assert await all_pages(memory, "tag", limit) == wanted
            by_count = sorted(wanted, key=lambda it: (-it.episodes, tag_key(it.tag)))
            assert await all_pages(memory, "count", limit) == by_count

    trio.run(main)


async def test_pages_by_tag_show_each_once_while_episodes_come_and_go() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for number in range(10):
            await memory.start_episode("task", episode_id=f"e{number}", tags=[f"t{number}", "all"])
        seen, cursor = list[str](), None
        for number in range(20):
            page = await memory.tags(limit=1, cursor=cursor, at_least=memory._journal.durable_lsn)
            seen += [item.tag for item in page.items]
            if (cursor := page.next_cursor) is None:
                break
            await memory.delete_episode(f"e{9 - number}") if number < 3 else None
            await memory.start_episode("task", episode_id=f"new{number}", tags=["a before", f"t{number}x"])
        assert len(seen) == len(set(seen))
        assert {"all", *(f"t{number}" for number in range(7))} <= set(seen)
        assert not {"t7", "t8", "t9", "a before"} & set(seen)


async def test_what_is_deleted_is_counted_no_more_at_once_and_what_is_archived_is() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for name in "abc":
            await memory.start_episode("task", episode_id=name, tags=["x"])
            await memory.complete_episode(name, Success())
        await memory.archive("a")
        await memory.list_episodes(at_least=memory._journal.durable_lsn)
        await memory.delete_episode("b")
        assert (await memory.tags()).items == [TagCount(tag="x", episodes=2)]


BAD: list[dict[str, Any]] = [
    {"limit": 0},
    {"limit": 1_001},
    {"limit": True},
    {"order": "newest"},
    {"at_least": -1},
    {"cursor": 5},
    {"cursor": "ü"},
    {"cursor": "e30="},
    {"cursor": "WyJ0YWciLCAxXQ=="},
    {"cursor": "WyJ0YWciLCAtMSwgIiJd"},
]


@pytest.mark.parametrize("arguments", BAD)
async def test_a_bad_argument_is_refused_by_name(arguments: dict[str, Any]) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(InvalidInput, match=next(iter(arguments))):
            await memory.tags(**arguments)


async def test_a_cursor_of_the_other_order_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", tags=["a", "b"])
        page = await memory.tags(limit=1, at_least=memory._journal.durable_lsn)
        assert [item.tag for item in (await memory.tags(cursor=page.next_cursor)).items] == ["b"]
        with pytest.raises(InvalidInput, match="other order"):
            await memory.tags(cursor=page.next_cursor, order="count")
