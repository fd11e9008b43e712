"""Tags, description, metadata and the archive: events of the episode's own stream, whatever state the episode is in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Closed,
    Event,
    InvalidInput,
    InvalidState,
    Limits,
    LogFull,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    Success,
    TooLarge,
)
from stepwell.testing import MemoryJournal, open_memory_on
from tests.stepwell.memory.test_deleting import tasks_of
from tests.support import SEGMENT_BYTES, open_on, step

STATES = ["live", "asleep", "ended", "ended and asleep"]


@asynccontextmanager
async def in_state(state: str, files: MemoryFileSystem, **start: Any) -> AsyncIterator[Memory]:
    """A memory with the episode "e" in this state, with one step."""
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e", **start)
        await handle.log_step(step(1, key="k"))
        if state.startswith("ended"):
            await handle.complete(Success("well"))
        if "asleep" not in state:
            yield memory
            return
    async with open_on(files) as memory:
        yield memory


async def events_of(memory: Memory, episode_id: str = "e") -> list[Event]:
    found = [event async for event in memory.events(episode_id)]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return found


@pytest.mark.parametrize("state", STATES)
async def test_tags_are_added_removed_and_set_and_are_there_after_opening_again(state: str) -> None:
    files = MemoryFileSystem()
    async with in_state(state, files, tags=["Net", "db:world_1"]) as memory:
        await memory.add_tags("e", [" Urgent ", "NET", "urgent", "größe"], actor="ann")
        assert (await memory.get_episode("e")).tags == ["Net", "db:world_1", "Urgent", "größe"]
        await memory.remove_tags("e", ["net", "GRÖSSE", "absent"], actor="bob")
        assert (await memory.get_episode("e")).tags == ["db:world_1", "Urgent"]
        await memory.set_tags("e", ["urgent", "x", "X"])
        episode = await memory.get_episode("e")
        assert episode.tags == ["urgent", "x"] == episode.context.tags
        tagged = [event.data for event in await events_of(memory) if event.kind == "tagged"]
        assert tagged == [
            {"added": ["Urgent", "größe"], "removed": [], "actor": "ann"},
            {"added": [], "removed": ["Net", "größe"], "actor": "bob"},
            {"added": ["urgent", "x"], "removed": ["db:world_1", "Urgent"], "actor": ""},
        ]
    async with open_on(files) as memory:
        assert (await memory.get_episode("e")).tags == ["urgent", "x"]
        await memory.add_tags("e", ["y"])
        assert (await memory.get_episode("e")).tags == ["urgent", "x", "y"]
        assert (await events_of(memory))[0].data["context"]["tags"] == ["Net", "db:world_1"]


@pytest.mark.parametrize("state", STATES)
async def test_what_changes_nothing_makes_no_event(state: str) -> None:
    async with in_state(state, MemoryFileSystem(), tags=["a"], metadata={"n": 1, "flag": True}) as memory:
        before = await events_of(memory)
        await memory.add_tags("e", ["A"])
        await memory.add_tags("e", [])
        await memory.remove_tags("e", ["b"])
        await memory.set_tags("e", ["a", "A"])
        await memory.update_episode("e")
        await memory.update_episode("e", description="task", metadata={"n": 1}, remove_metadata=["absent"])
        await memory.restore("e")
        assert await events_of(memory) == before
        await memory.archive("e")
        await memory.archive("e")
        assert len(await events_of(memory)) == len(before) + 1


@pytest.mark.parametrize("state", STATES)
async def test_description_and_metadata_are_updated_and_the_start_still_says_what_it_said(state: str) -> None:
    files = MemoryFileSystem()
    async with in_state(state, files, metadata={"kept": [1], "n": 1, "gone": None}) as memory:
        await memory.update_episode(
            "e",
            description="die Aufgabe, größer",
            metadata={"n": 1.0, "new": "ü"},
            remove_metadata=["gone"],
            actor="ann",
        )
        await memory.update_episode("e", metadata={"kept": True})
    async with open_on(files) as memory:
        episode = await memory.get_episode("e")
        assert episode.task_description == "die Aufgabe, größer"
        assert episode.metadata == {"kept": True, "n": 1.0, "new": "ü"}
        assert type(episode.metadata["n"]) is float
        events = await events_of(memory)
        assert events[0].data["task"] == "task"
        assert events[0].data["metadata"] == {"kept": [1], "n": 1, "gone": None}
        assert [event.data for event in events if event.kind == "updated"] == [
            {
                "description": "die Aufgabe, größer",
                "metadata": {"n": 1.0, "new": "ü"},
                "removed_metadata": ["gone"],
                "actor": "ann",
            },
            {"description": None, "metadata": {"kept": True}, "removed_metadata": [], "actor": ""},
        ]
        handle = await memory.start_episode("task", episode_id="e", metadata={"kept": [1], "n": 1, "gone": None})
        assert handle.id == "e"


@pytest.mark.parametrize("state", STATES)
async def test_an_episode_is_archived_and_restored(state: str) -> None:
    async with in_state(state, MemoryFileSystem()) as memory:
        assert not (await memory.get_episode("e")).archived
        await memory.archive("e", actor="ann")
        episode = await memory.get_episode("e")
        assert episode.archived
        last = (await events_of(memory))[-1]
        assert (last.kind, last.time, last.data) == ("archived", episode.archived_at, {"actor": "ann"})
        assert episode.status == state.split()[0].replace("live", "open").replace("asleep", "open")
        await memory.restore("e", actor="bob")
        assert (await memory.get_episode("e")).archived_at is None
        assert (await events_of(memory))[-1].data == {"actor": "bob"}


@pytest.mark.parametrize("state", ["ended", "ended and asleep"])
async def test_the_ending_stays_the_ending(state: str) -> None:
    async with in_state(state, MemoryFileSystem()) as memory:
        before = await memory.get_episode("e")
        done = await memory.complete_episode("e", Success("well"))
        await memory.add_tags("e", ["later"])
        await memory.archive("e")
        after = await memory.get_episode("e")
        assert (after.outcome, after.end_time, after.reward, after.summary) == (
            before.outcome,
            before.end_time,
            before.reward,
            before.summary,
        )
        assert after.last_seq == before.last_seq + 2
        again = await memory.complete_episode("e", Success("well"))
        assert (again, again.receipt.seq, again.receipt.lsn) == (done, 3, done.receipt.lsn)
        with pytest.raises(InvalidState, match="another outcome"):
            await memory.complete_episode("e", Success("otherwise"))
        with pytest.raises(InvalidState, match="takes no more steps"):
            await memory.log_step("e", step(2))
        with pytest.raises(InvalidState, match="takes no more steps"):
            await memory.resume("e")
        assert [event.kind for event in await events_of(memory)] == ["started", "step", "ended", "tagged", "archived"]
        assert await memory.open_episodes() == []


async def test_a_step_key_is_known_behind_a_change() -> None:
    async with in_state("asleep", MemoryFileSystem()) as memory:
        await memory.add_tags("e", ["x"])
        assert (await memory.log_step("e", step(1, key="k"))).seq == 2
        assert (await memory.log_step("e", step(2), expected_seq=3)).seq == 4
        with pytest.raises(InvalidState):
            await memory.log_step("e", step(3), expected_seq=3)


async def test_changes_stand_where_they_were_made_between_steps_that_nobody_has_waited_for() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipts = []
        for number in range(200):  # more than the mailbox holds
            receipts.append(await handle.log_step(step(number)))
            if number % 50 == 0:
                await memory.add_tags("e", [f"t{number}"])
                assert all(receipt.is_durable for receipt in receipts)
        await handle.complete(Success())
        episode = await memory.get_episode("e")
        assert episode.tags == ["t0", "t50", "t100", "t150"]
        assert [item.action for item in episode.steps] == [f"action {number}" for number in range(200)]
        await events_of(memory)


@pytest.mark.parametrize("state", STATES)
async def test_many_who_change_one_episode_at_once_each_get_their_change(state: str) -> None:
    async with in_state(state, MemoryFileSystem()) as memory:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(memory.add_tags, "e", [f"t{number % 60}"])
                if state in ("live", "asleep"):
                    nursery.start_soon(memory.log_step, "e", step(number))
        assert sorted((await memory.get_episode("e")).tags) == sorted(f"t{number}" for number in range(60))
        assert [event.kind for event in await events_of(memory)].count("tagged") == 60


async def test_a_change_that_meets_a_completion_comes_before_it_or_behind_it() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for number in range(20):
            name = f"e{number}"
            handle = await memory.start_episode("task", episode_id=name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.log_step, step(1))
                nursery.start_soon(handle.complete, Success())
                nursery.start_soon(memory.add_tags, name, ["x"])
            assert (await memory.get_episode(name)).tags == ["x"]
            assert sorted(event.kind for event in await events_of(memory, name)) in (
                ["ended", "started", "step", "tagged"],
                ["ended", "started", "tagged"],
            )


async def test_nothing_of_an_ended_episode_runs_once_it_was_changed_or_asked_for() -> None:
    async with in_state("ended and asleep", MemoryFileSystem()) as memory:
        await memory.add_tags("e", ["x"])
        await memory.add_tags("e", ["x"])
        await memory.complete_episode("e", Success("well"))
        with pytest.raises(InvalidState):
            await memory.resume("e")
        await trio.testing.wait_all_tasks_blocked()
        assert tasks_of(memory) == []
        assert memory._supervisor.cells == {}


async def test_a_change_is_refused_before_anything_is_accepted() -> None:
    limits = Limits(task_bytes=10, tag_bytes=4)
    config = MemoryConfig(segment_bytes=SEGMENT_BYTES, limits=limits)
    async with open_on(MemoryFileSystem(), config) as memory:
        await memory.start_episode("task", episode_id="e")
        before = await events_of(memory)
        for tags in (["ok", ""], [" \t"], ["a\nb"], ["a\x85b"], [5], "text", ["\ud800"], None):
            for call in (memory.add_tags, memory.remove_tags, memory.set_tags):
                with pytest.raises(InvalidInput, match="tags"):
                    await call("e", tags)  # type: ignore[arg-type]
        await memory.add_tags("e", ["ßß", "  1234  "])  # two bytes each
        await memory.set_tags("e", [])
        before = await events_of(memory)
        with pytest.raises(TooLarge, match=r"tags\[1\]: 5 bytes exceed the limit of 4"):
            await memory.add_tags("e", ["ok", "1ßß"])
        with pytest.raises(TooLarge, match="description: 11 bytes exceed the limit of 10"):
            await memory.update_episode("e", description="ßßßßß.")
        bad: dict[str, Any]
        for bad in ({"description": " "}, {"metadata": {"x": float("nan")}}, {"metadata": {"x": "\ud800"}}):
            with pytest.raises(InvalidInput):
                await memory.update_episode("e", **bad)
        with pytest.raises(InvalidInput, match="remove_metadata"):
            await memory.update_episode("e", remove_metadata="name")
        for bad_actor in (5, "\ud800"):
            with pytest.raises(InvalidInput, match="actor"):
                await memory.archive("e", actor=bad_actor)  # type: ignore[arg-type]
        with pytest.raises(TooLarge, match="more than the 1,000"):
            await memory.add_tags("e", [f"{number:x}" for number in range(1001)])
        with pytest.raises(NotFound, match="nope"):
            await memory.add_tags("nope", ["x"])
        assert await events_of(memory) == before


async def test_a_deleted_episode_takes_no_change_whoever_comes_first() -> None:
    for state in STATES:
        async with in_state(state, MemoryFileSystem()) as memory:
            refused: list[str] = []

            async def tag(number: int, memory: Memory = memory, refused: list[str] = refused) -> None:
                try:
                    await memory.add_tags("e", [f"t{number}"])
                except (InvalidState, NotFound) as error:
                    refused.append(type(error).__name__)

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(tag, number)
                    if number == 5:
                        nursery.start_soon(memory.delete_episode, "e")
            with pytest.raises(NotFound):
                await memory.get_episode("e")
            with pytest.raises(NotFound):
                await memory.add_tags("e", ["x"])
            assert memory._supervisor.cells == {}


async def test_closing_waits_for_a_change_of_an_ended_episode_that_was_accepted() -> None:
    files = MemoryFileSystem()
    unknown: list[str] = []

    async def tag(memory: Memory, number: int) -> None:
        try:
            await memory.add_tags("e", [f"t{number}"])
        except Closed:
            unknown.append(f"t{number}")

    async with trio.open_nursery() as nursery:
        async with in_state("ended", files) as memory:
            for number in range(5):
                nursery.start_soon(tag, memory, number)
            await trio.lowlevel.checkpoint()
    async with open_on(files) as memory:
        tags = (await memory.get_episode("e")).tags
    assert sorted(tags + unknown) == [f"t{number}" for number in range(5)]


@pytest.mark.parametrize("state", ["open", "ended"])
@pytest.mark.parametrize("policy", ["fail", "reject", "lose_ack"])
async def test_over_a_journal_that_fails_a_change_is_made_once_when_it_is_asked_for_again(
    policy: str, state: str, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    lifecycle: list[str] = []
    with trio.fail_after(1_000):
        async with open_memory_on(journal) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            ends = [await handle.complete(Success("well"))] if state == "ended" else []
            getattr(journal, f"{policy}_next")(1, lambda submitted: "tagged" in submitted.kinds)
            async with memory.lifecycle() as told:
                with pytest.raises(LogFull if policy == "reject" else OutcomeUnknown):
                    await memory.add_tags("e", ["x"])
                await memory.add_tags("e", ["x", "y"])
                told._ended = True
                lifecycle += [event.kind async for event in told]
            assert (await memory.get_episode("e")).tags == ["x", "y"]
            if state == "ended":
                assert await handle.complete(Success("well")) == ends[0]
        kinds = [record.kind for record in journal.records("e")]
        assert kinds.count("tagged") == (2 if policy == "lose_ack" else 1)
        assert "ended" not in lifecycle  # it had ended before; nobody is told twice
