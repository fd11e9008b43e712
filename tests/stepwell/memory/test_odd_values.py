"""Values at the edge of what a type allows are taken or refused like any other, wherever they are given."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stepwell import (
    START,
    EpisodeFilter,
    Event,
    Fact,
    InvalidInput,
    Memory,
    MemoryConfig,
    Receipt,
    RetentionPolicy,
    RunFilter,
    Success,
    open_memory,
)
from tests.support import step

LONE = "\ud800"
NESTED: list[Any] = []
for _ in range(sys.getrecursionlimit()):
    NESTED = [NESTED]


class Hostile:
    """It cannot be compared, and has no text."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError


HOSTILE: Any = Hostile()

REFUSED: dict[str, Callable[[Memory], Awaitable[object]]] = {
    "what cannot be compared as a kind of relationship": lambda memory: memory.unrelate("a", "b", HOSTILE),
    "what cannot be compared as a direction": lambda memory: memory.related("a", direction=HOSTILE),
    "what cannot be compared as a rule of a window": lambda memory: memory.short_term.load("t", 5, oversize=HOSTILE),
    "what cannot be compared as a kind of pattern": lambda memory: memory.patterns(HOSTILE),
    "what cannot be compared as an order of tags": lambda memory: memory.tags(order=HOSTILE),
    "what cannot be compared as an order of episodes": lambda memory: memory.list_episodes(order=HOSTILE),
    "what cannot be compared as a complexity": lambda memory: memory.start_episode("t", complexity=HOSTILE),
    "what cannot be compared as an eviction": lambda memory: memory.retain(
        RetentionPolicy(max_episodes=1, eviction=HOSTILE)
    ),
    "what cannot be compared as an outcome to retain by": lambda memory: memory.retain(
        RetentionPolicy(outcomes=(HOSTILE,))
    ),
    "what cannot be compared as a status": lambda memory: memory.list_episodes(EpisodeFilter(status=HOSTILE)),
    "text of a pattern": lambda memory: memory.patterns(text=LONE),
    "domain of a pattern": lambda memory: memory.patterns(domain=LONE),
    "id of a pattern": lambda memory: memory.explain(LONE),
    "what is too large for a window": lambda memory: memory.short_term.load("t", 5, oversize=10**5_000),  # type: ignore[arg-type]
    "id of a skill": lambda memory: memory.skills.delete(LONE),
    "nested without end as a time": lambda memory: memory.episodic.list_runs(RunFilter(since=NESTED)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_by_name(name: str) -> None:
    async with open_memory(":memory:") as memory:
        with pytest.raises(InvalidInput):
            await REFUSED[name](memory)


@pytest.mark.parametrize("name", ["durability", "tail", "on_failure", "align", "compression", "oversize", "eviction"])
def test_what_cannot_be_compared_is_no_setting(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{name}: must be one of .*, not <Hostile>"):
        MemoryConfig(**{name: HOSTILE})


async def test_what_is_nested_without_end_is_no_cursor_and_no_kinds() -> None:
    async with open_memory(":memory:") as memory:
        with pytest.raises(InvalidInput):
            memory.follow(NESTED)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            memory.follow(START, kinds=NESTED)


async def test_a_text_of_nothing_but_nul_is_in_no_episode() -> None:
    async with open_memory(":memory:") as memory:
        await memory.start_episode("task")
        assert (await memory.list_episodes(EpisodeFilter(text="\0"), at_least=1)).items == []


@pytest.mark.parametrize("days", [sys.float_info.max, 1e300, 2**63 - 1, 0])
async def test_episodes_of_any_age_are_retained_or_not(days: float) -> None:
    async with open_memory(":memory:") as memory:
        await (await memory.start_episode("task")).complete(Success())
        report = await memory.retain(RetentionPolicy(max_age_days=days), dry_run=True)
        assert len(report.episodes) == (days == 0)


async def test_what_is_equal_is_not_unequal() -> None:
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipts: list[Receipt] = [await handle.log_step(step(1, key="k")) for _ in range(2)]
        await handle.flush()
        events: list[list[Event]] = [[event async for event in memory.events("e")] for _ in range(2)]
        pairs: list[tuple[object, object, object]] = [
            (receipts[0], receipts[1], await handle.log_step(step(2))),
            (events[0][1], events[1][1], events[0][0]),
            (Fact("a", {"n": 1}), Fact("a", {"n": 1}), Fact("a", {"n": True})),
        ]
        for one, same, other in pairs:
            assert one == same
            assert not one != same  # noqa: SIM202 - it is asked by itself
            assert one != other
            assert one != 1
