"""Streams that are no episodes keep the promises that episodes keep: nothing accepted is lost, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.journal import Journal
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    BatchConfig,
    Closed,
    InvalidInput,
    Memory,
    MemoryConfig,
    OutcomeUnknown,
    TooLarge,
    Unavailable,
)
from stepwell.model.codec import decode_record, encode_record
from stepwell.model.streams import SCOPE_STREAM, generation_id
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.streams import Streams
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import open_on, step

LIMIT = 100_000


class Notes:
    """All notes of a stream; one that begins with "!" is refused."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def restore(self, journal: Journal, stream: bytes, last_seq: int) -> None:
        slices = journal.read(stream)
        while found := await slices.next_slice():
            self.texts += [decode_record(record.payload, "a note").data["text"] for record in found]
        assert len(self.texts) == last_seq

    def encode(self, drafts: Sequence[Any], first_seq: int, time_ns: int, meta: dict[str, Any] | None) -> list[bytes]:
        if any(text.startswith("!") for text in drafts):
            raise InvalidInput("a note must not shout")
        return [
            encode_record("note", time_ns, {"text": text}, None if place else meta, path="note", limit=LIMIT)
            for place, text in enumerate(drafts)
        ]

    def apply(self, drafts: Sequence[Any], first_seq: int, time_ns: int) -> None:
        assert len(self.texts) == first_seq - 1
        self.texts += drafts


NOTES = StreamKind(SCOPE_STREAM, "notebook", Notes)
MANUAL = MemoryConfig(batch=BatchConfig.manual())


def streams_of(memory: Memory) -> Streams:
    return memory._supervisor.streams


async def stored(memory: Memory, name: str = "n") -> list[str]:
    """What the log says."""
    stream, last_seq = await streams_of(memory).settled(NOTES, name)
    contents = Notes()
    await contents.restore(memory._journal, stream, last_seq)
    return contents.texts


async def in_mind(memory: Memory, name: str = "n") -> list[str]:
    """What the owner of the stream says."""
    cell = await streams_of(memory).awake(NOTES, name)
    assert isinstance(cell.contents, Notes)
    return cell.contents.texts


async def test_drafts_get_numbers_and_receipts_and_are_there_after_reopening() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        first = await streams_of(memory).append(NOTES, "n", ["one"])
        assert (first.seq, first.is_durable) == (1, False)
        second = await streams_of(memory).append(NOTES, "n", ["two", "three"])
        assert second.seq == 3
        await first.wait_durable()
        assert await stored(memory) == await in_mind(memory) == ["one", "two", "three"]
        assert await stored(memory, "other") == await in_mind(memory, "other") == []
    async with open_on(files) as memory:
        assert await in_mind(memory) == ["one", "two", "three"]
        assert (await streams_of(memory).append(NOTES, "n", ["four"])).seq == 4
        assert await stored(memory) == ["one", "two", "three", "four"]


async def test_leaving_the_memory_stores_what_nobody_waited_for() -> None:
    files = MemoryFileSystem()
    async with open_on(files, MANUAL) as memory:
        receipt = await streams_of(memory).append(NOTES, "n", ["one"])
        await wait_all_tasks_blocked()
        assert receipt.lsn is None
    assert receipt.is_durable
    async with open_on(files) as memory:
        assert await in_mind(memory) == ["one"]


async def test_flush_covers_every_stream() -> None:
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        receipt = await streams_of(memory).append(NOTES, "n", ["one"])
        await memory.flush()
        assert receipt.is_durable


async def test_what_is_refused_is_not_accepted() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(InvalidInput, match="shout"):
            await streams_of(memory).append(NOTES, "n", ["fine", "!no"])
        with pytest.raises(TooLarge):
            await streams_of(memory).append(NOTES, "n", ["x" * 60_000] * 300)
        assert await in_mind(memory) == await stored(memory) == []
        assert (await streams_of(memory).append(NOTES, "n", ["one"])).seq == 1


async def test_an_idle_stream_goes_to_sleep_and_wakes_with_all_it_knew(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(idle_seconds=1)) as memory:
        await streams_of(memory).append(NOTES, "n", ["one"])
        await trio.sleep(5)
        assert not streams_of(memory).cells
        assert await in_mind(memory) == ["one"]
        assert (await streams_of(memory).append(NOTES, "n", ["two"])).seq == 2


async def test_streams_and_episodes_share_the_places_of_live_ones(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(max_live_episodes=2)) as memory:
        for number in range(5):
            await streams_of(memory).append(NOTES, str(number), ["one"])
        await memory.start_episode("task", episode_id="e")
        await trio.sleep(1)
        assert len(memory._supervisor.every_cell()) == 2
        assert [await in_mind(memory, str(number)) for number in range(5)] == [["one"]] * 5


@pytest.mark.parametrize("policy", ["fail_next", "lose_ack_next", "reject_next"])
async def test_a_failed_write_is_told_to_its_receipt_and_the_stream_goes_on_from_the_log(
    policy: str, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MANUAL) as memory:
        await (await streams_of(memory).append(NOTES, "n", ["one"])).wait_durable()
        getattr(journal, policy)()
        lost = await streams_of(memory).append(NOTES, "n", ["two"])
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        there = ["one", "two"] if policy == "lose_ack_next" else ["one"]
        assert await in_mind(memory) == await stored(memory) == there
        again = await streams_of(memory).append(NOTES, "n", ["three"])
        assert again.seq == len(there) + 1
        await again.wait_durable()
        assert memory.stats().restarts == 1


async def test_clearing_deletes_everything_and_the_stream_begins_anew() -> None:
    files = MemoryFileSystem()
    async with open_on(files, MANUAL) as memory:
        await streams_of(memory).clear(NOTES, "n")  # nothing there
        before = await streams_of(memory).append(NOTES, "n", ["one"])
        await streams_of(memory).append(NOTES, "other", ["mine"])
        await streams_of(memory).clear(NOTES, "n")
        assert before.is_durable  # it was accepted, so it was stored, and then deleted
        assert await stored(memory) == await in_mind(memory) == []
        assert memory._journal.is_deleted(generation_id(SCOPE_STREAM, "n", 1))
        assert (await streams_of(memory).append(NOTES, "n", ["again"])).seq == 1
        assert await stored(memory) == ["again"]
    async with open_on(files) as memory:
        assert await in_mind(memory) == ["again"]
        assert await in_mind(memory, "other") == ["mine"]


async def test_cleared_many_times_and_purged_it_still_knows_where_it_is() -> None:
    files = MemoryFileSystem()
    for number in range(20):
        async with open_on(files) as memory:
            assert await in_mind(memory) == ([str(number - 1)] if number else [])
            await streams_of(memory).clear(NOTES, "n")
            await streams_of(memory).append(NOTES, "n", [str(number)])
            if number == 12:
                await memory.compact(purge=True)
    async with open_on(files) as memory:
        assert await in_mind(memory) == ["19"]
        assert (await streams_of(memory).awake(NOTES, "n")).generation == 20


async def test_what_is_appended_while_it_is_being_cleared_comes_behind() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await streams_of(memory).append(NOTES, "n", ["before"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams_of(memory).clear, NOTES, "n")
            await wait_all_tasks_blocked()
            nursery.start_soon(streams_of(memory).clear, NOTES, "n")
            nursery.start_soon(streams_of(memory).append, NOTES, "n", ["behind"])
        assert await in_mind(memory) in (["behind"], [])  # the second clearing may have come behind it


async def test_what_comes_between_the_end_of_the_task_and_the_end_of_the_clearing_is_kept() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        await (await streams_of(memory).append(NOTES, "n", ["before"])).wait_durable()
        journal.hang_next()  # the last record of what is cleared
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams_of(memory).clear, NOTES, "n")
            await journal.wait_hanging()
            nursery.start_soon(streams_of(memory).append, NOTES, "n", ["behind"])
            await wait_all_tasks_blocked()
            journal.release()
        await memory.flush()
        assert await in_mind(memory) == await stored(memory) == ["behind"]


async def test_a_cancelled_clearing_goes_on() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await streams_of(memory).append(NOTES, "n", ["before"])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(streams_of(memory).clear, NOTES, "n")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert await in_mind(memory) == []


async def test_a_stream_is_no_episode() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await (await streams_of(memory).append(NOTES, "n", ["one"])).wait_durable()
        await memory.start_episode("task", episode_id="e")
        assert [name async for name in memory.episode_ids()] == ["e"]
        assert memory.stats().live_episodes == 1
        assert memory.stats().asleep_episodes == 0
    async with open_on(files) as memory:
        await in_mind(memory)
        assert [item.episode_id for item in await memory.open_episodes()] == ["e"]
        assert memory.recovery.open_episodes == 1
        assert (memory.stats().live_episodes, memory.stats().asleep_episodes) == (0, 1)


async def test_an_episode_and_a_stream_of_one_name_are_two() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="n")
        await streams_of(memory).append(NOTES, "n", ["one"])
        await streams_of(memory).clear(NOTES, "n")
        assert (await memory.get_episode("n")).task_description == "task"


async def test_followers_see_streams_and_their_clearing() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for text in ("one", "two"):
            await (await streams_of(memory).append(NOTES, "n", [text])).wait_durable()
        async with memory.follow() as events:
            seen = [await events.receive() for _ in range(2)]
            assert [(event.stream, event.kind, event.seq) for event in seen] == [("n", "note", 1), ("n", "note", 2)]  # type: ignore[union-attr]
            await streams_of(memory).clear(NOTES, "n", actor="ann")
            last = await events.receive()
            assert (last.stream, last.kind, last.data) == ("n", "cleared", {"actor": "ann"})  # type: ignore[union-attr]
            await (await streams_of(memory).append(NOTES, "n", ["new"])).wait_durable()
            again = await events.receive()
            assert (again.stream, again.seq) == ("n", 1)  # type: ignore[union-attr]


async def test_one_commit_over_an_episode_and_streams() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.start_episode("task", episode_id="e")
        await streams_of(memory).append(NOTES, "n", ["before"])
        groups = memory.stats().groups
        async with memory.atomic() as tx:
            tx._stage_drafts(NOTES, "n", ["one", "two"], [50, 50])
            tx.log_step("e", step(1))
            tx._stage_drafts(NOTES, "new", ["first"], [50])
        assert memory.stats().groups - groups <= 2  # what was before, and the transaction in one
        assert await in_mind(memory) == await stored(memory) == ["before", "one", "two"]
        assert await stored(memory, "new") == ["first"]
        with pytest.raises(RuntimeError):
            async with memory.atomic() as tx:
                tx._stage_drafts(NOTES, "n", ["never"], [50])
                raise RuntimeError
        with pytest.raises(InvalidInput):
            async with memory.atomic() as tx:
                tx.log_step("e", step(2))
                tx._stage_drafts(NOTES, "n", ["!never"], [50])
        assert await in_mind(memory) == ["before", "one", "two"]
        assert len((await memory.get_episode("e")).steps) == 1
    async with open_on(files) as memory:
        assert await in_mind(memory) == ["before", "one", "two"]


async def test_after_closing_and_beside_a_writer_nothing_is_taken() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await (await streams_of(memory).append(NOTES, "n", ["one"])).wait_durable()
        async with open_on(files, read_only=True) as reader:
            assert await stored(reader) == ["one"]
            with pytest.raises(Closed):
                await streams_of(reader).append(NOTES, "n", ["two"])
            with pytest.raises(Closed):
                await streams_of(reader).clear(NOTES, "n")
            await streams_of(memory).clear(NOTES, "n")
            await (await streams_of(memory).append(NOTES, "n", ["new"])).wait_durable()
            assert await stored(reader) == ["new"]
    with pytest.raises(Closed):
        await streams_of(memory).append(NOTES, "n", ["two"])


async def test_a_stream_that_cannot_be_restored_is_parked_and_says_so(autojump_clock: MockClock) -> None:
    class Broken(Notes):
        async def restore(self, journal: Journal, stream: bytes, last_seq: int) -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError("no")

    async with open_on(MemoryFileSystem()) as memory:
        broken = StreamKind(SCOPE_STREAM, "notebook", Broken)
        with pytest.raises(Unavailable, match="parked after 6 failures"):
            await streams_of(memory).append(broken, "n", ["one"])
        assert memory.health().status == "degraded"
        await memory.start_episode("task")  # nothing else is hurt
        await streams_of(memory).clear(NOTES, "n")
        assert await in_mind(memory) == []
