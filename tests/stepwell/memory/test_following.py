"""Following the log: durable events only, all of them, in order, from any place, over any interruption."""

from __future__ import annotations

import errno
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from stepstore.journal import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    NOW,
    START,
    Closed,
    CorruptLog,
    EpisodeUnavailable,
    Event,
    Gap,
    InvalidInput,
    InvalidState,
    Memory,
    MemoryConfig,
    OutcomeUnknown,
    RecoveryFailed,
    Success,
    open_memory,
)
from stepwell.memory.following import EventChannel
from stepwell.memory.opening import OpenMemory
from stepwell.model.codec import encode_record
from stepwell.model.ids import stream_id
from tests.stepstore.log_lab import content, flip, put, remove, segments
from tests.stepwell.memory.test_closing import BlockedDisk
from tests.support import SEGMENT_BYTES, HookedFileSystem, cancelled_at_step, force_into_log, open_on, step

SMALL = MemoryConfig(segment_bytes=64 * 1024)
Seen = tuple[str, str, int]


def seen(event: Event | Gap) -> Seen | Gap:
    return event if isinstance(event, Gap) else (event.stream, event.kind, event.seq)


def sound(event: Event | Gap) -> Event:
    assert isinstance(event, Event)
    return event


async def take(events: EventChannel, count: int) -> list[Event]:
    with trio.fail_after(100):
        return [sound(await events.receive()) for _ in range(count)]


async def nothing_more(events: EventChannel) -> None:
    with trio.move_on_after(0.02) as waiting:
        raise AssertionError(f"unexpected: {await events.receive()}")
    assert waiting.cancelled_caught


async def fill(memory: Memory, episodes: int = 3, steps: int = 4) -> list[Seen]:
    """Episodes whose steps are interleaved; what a follower is to see of them."""
    expected: list[Seen] = []
    names = [f"e{n}" for n in range(episodes)]
    for name in names:
        await memory.start_episode(f"task of {name}", episode_id=name)
        expected.append((name, "started", 1))
    for number in range(steps):
        for name in names:
            await (await memory.log_step(name, step(number))).wait_durable()
            expected.append((name, "step", number + 2))
    for name in names:
        await memory.complete_episode(name, Success())
        expected.append((name, "ended", steps + 2))
    return expected


@pytest.fixture(params=[":memory:", "directory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ":memory:" if request.param == ":memory:" else str(tmp_path / "memory")


# ---- from where ------------------------------------------------------------------------------------------------------


async def test_from_the_start_every_event_of_every_episode_comes_in_log_order(path: str) -> None:
    async with open_memory(path) as memory:
        expected = await fill(memory)
        async with memory.follow(START) as events:
            found = await take(events, len(expected))
            assert [seen(event) for event in found] == expected
            assert [event.lsn for event in found] == list(range(1, len(expected) + 1))
            for name in ("e0", "e2"):
                assert [event async for event in memory.events(name)] == [e for e in found if e.stream == name]
            assert found[0].data["task"] == "task of e0"
            assert found[5].data["action"] == "action 0"
            await nothing_more(events)


async def test_without_a_place_it_begins_at_the_start(path: str) -> None:
    async with open_memory(path) as memory:
        await memory.start_episode("task", episode_id="e")
        async with memory.follow() as events:
            assert seen(await events.receive()) == ("e", "started", 1)


async def test_from_now_only_what_becomes_durable_later_comes(path: str) -> None:
    async with open_memory(path) as memory:
        await fill(memory)
        handle = await memory.start_episode("task", episode_id="later")
        async with memory.follow(NOW) as events:
            await nothing_more(events)
            for number in range(3):
                await (await handle.log_step(step(number))).wait_durable()
                assert seen(await events.receive()) == ("later", "step", number + 2)


async def test_from_the_cursor_of_any_event_it_goes_on_right_behind_it(path: str) -> None:
    async with open_memory(path) as memory:
        expected = await fill(memory)
        async with memory.follow() as events:
            found = await take(events, len(expected))
        for number, event in enumerate(found):
            async with memory.follow(event.cursor) as events:
                behind = await take(events, len(expected) - number - 1)
                assert behind == found[number + 1 :]
                assert [later.stream for later in behind] == [later.stream for later in found[number + 1 :]]
        async for event in memory.events("e1"):
            assert event.cursor == found[event.lsn - 1].cursor


async def test_after_reopening_it_goes_on_right_behind_a_cursor_whoever_wrote_meanwhile() -> None:
    files = MemoryFileSystem()
    expected: list[Seen] = []
    found: list[Seen | Gap] = []
    cursor: str | None = None
    for opening in range(4):
        async with open_on(files, SMALL) as memory:
            names = [f"{opening}-{n}" for n in range(4)]
            for name in names:
                handle = await memory.start_episode("task", episode_id=name)
                await handle.log_steps([step(n) for n in range(40)])
                await handle.flush()
                expected += [(name, "started", 1), *[(name, "step", n + 2) for n in range(40)]]
            for name in [f"{opening - 1}-{n}" for n in range(2)] if opening else []:
                await (await memory.log_step(name, step(99))).wait_durable()  # a name known from before only
                expected.append((name, "step", 42))
            async with memory.follow(START if cursor is None else cursor) as events:
                for event in await take(events, len(expected) - len(found) - 17):  # and leaves some for the next time
                    found.append(seen(event))
                    cursor = event.cursor
    async with open_on(files, SMALL, read_only=True) as memory:
        assert cursor is not None
        async with memory.follow(cursor) as events:
            found += [seen(event) async for event in events]
    assert found == expected


# ---- the live tail ---------------------------------------------------------------------------------------------------


async def test_several_followers_each_see_everything_while_many_write(path: str) -> None:
    results: list[list[Event]] = []
    total = 6 * 31

    async def follow(memory: Memory, pause: float) -> None:
        found: list[Event] = []
        async with memory.follow() as events:
            async for event in events:
                found.append(sound(event))
                if pause and len(found) % 10 == 0:
                    await trio.sleep(pause)
                if len(found) == total:
                    break
        results.append(found)

    async def write(memory: Memory, name: str) -> None:
        handle = await memory.start_episode("task", episode_id=name)
        for number in range(30):
            await handle.log_step(step(number))
            if number % 5 == 0:
                await handle.flush()

    with trio.fail_after(100):
        async with open_memory(path) as memory, trio.open_nursery() as nursery:
            for pause in (0, 0, 0.001):
                nursery.start_soon(follow, memory, pause)
            for number in range(6):
                nursery.start_soon(write, memory, f"e{number}")
    assert len(results) == 3
    for found in results:
        assert [event.lsn for event in found] == list(range(1, total + 1))
        for number in range(6):
            assert [event.seq for event in found if event.stream == f"e{number}"] == list(range(1, 32))
    assert results[0] == results[1] == results[2]


async def test_a_slow_follower_holds_nobody_up_and_misses_nothing(path: str) -> None:
    async with open_memory(path) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        async with memory.follow() as slow:
            await take(slow, 1)
            with trio.fail_after(100):
                for start in range(0, 3_000, 100):
                    await handle.log_steps([step(n) for n in range(start, start + 100)])
                await handle.flush()
            assert [event.seq for event in await take(slow, 3_000)] == list(range(2, 3_002))
            await (await handle.log_step(step(0))).wait_durable()
            assert [event.seq for event in await take(slow, 1)] == [3_002]


async def test_only_events_of_the_wanted_kinds_come(path: str) -> None:
    async with open_memory(path) as memory:
        expected = await fill(memory)
        await memory.delete_episode("e2")
        for kinds in (["started"], {"ended", "deleted"}, ("step",), [], ["nothing of ours"]):
            async with memory.follow(kinds=kinds) as events:
                of_the_kinds = [item for item in expected if item[1] in kinds and item[0] != "e2"]
                assert [seen(event) for event in await take(events, len(of_the_kinds))] == of_the_kinds
                if "deleted" in kinds:
                    assert (await take(events, 1))[0].kind == "deleted"
                await nothing_more(events)


async def test_an_event_comes_once_its_record_is_durable_and_not_earlier(tmp_path: Path) -> None:
    disk = BlockedDisk(tmp_path / "m")
    async with OpenMemory(disk.path, None, False, disk.files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        async with memory.follow(NOW) as events:
            disk.blocked = True
            receipt = await handle.log_step(step(1))
            with trio.move_on_after(0.1):
                await receipt.wait_durable()
            await nothing_more(events)
            assert not receipt.is_durable
            disk.blocked = False
            disk.release.set()
            assert seen((await take(events, 1))[0]) == ("e", "step", 2)
            assert receipt.is_durable


async def test_an_event_whose_fsync_failed_never_comes(autojump_clock: trio.testing.MockClock) -> None:
    disk, fail = MemoryFileSystem(), 0

    def hook(call: str, path: str) -> None:
        nonlocal fail
        if fail and call == "datasync":
            fail -= 1
            raise OSError(errno.EIO, "once")

    async with open_on(HookedFileSystem(disk, hook)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        async with memory.follow(NOW) as events:
            fail = 1
            with pytest.raises(OutcomeUnknown):
                await (await handle.log_step(step(1))).wait_durable()
            await (await handle.log_step(step(2))).wait_durable()
            (event,) = await take(events, 1)
            assert (event.seq, event.data["action"]) == (2, "action 2")
            await nothing_more(events)


@pytest.mark.parametrize("kind", ["whole", "torn"])
async def test_at_every_event_a_power_cut_would_keep_it(kind: str) -> None:
    disk = MemoryFileSystem()
    dice = iter([1, 0, 1, 1, 2] * 100_000)
    async with open_on(disk) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        async with memory.follow() as events, trio.open_nursery() as nursery:

            async def write() -> None:
                for number in range(25):
                    await handle.log_step(step(number))
                    await handle.flush()

            nursery.start_soon(write)
            for _ in range(26):
                event = sound(await events.receive())
                survivor = disk.durable_copy() if kind == "whole" else disk.crash_copy(lambda n: next(dice) % n)
                async with open_on(survivor) as left:
                    assert event in [item async for item in left.events("e")]
                    assert left._journal.check_cursor(event.cursor) == event.lsn


# ---- the end ---------------------------------------------------------------------------------------------------------


async def test_closing_the_memory_ends_it_after_everything_was_seen(path: str) -> None:
    ends: list[list[Seen | Gap]] = []

    async def follow(memory: Memory) -> None:
        async with memory.follow() as events:
            ends.append([seen(event) async for event in events])
            with pytest.raises(trio.EndOfChannel):
                await events.receive()

    async with trio.open_nursery() as nursery:
        async with open_memory(path) as memory:
            for _ in range(3):
                nursery.start_soon(follow, memory)
            expected = await fill(memory)
            await trio.testing.wait_all_tasks_blocked(0.05)
    assert ends == [expected] * 3


async def test_a_follower_that_lags_when_the_memory_closes_ends_and_goes_on_from_its_cursor(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m") as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for start in range(0, 2_000, 100):
            await handle.log_steps([step(n) for n in range(start, start + 100)])
            await handle.flush()
        following = memory.follow()
        events = await following.__aenter__()
        found = [sound(await events.receive())]
    async for event in events:
        found.append(sound(event))
    await following.__aexit__(None, None, None)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert len(found) < 2_001
    async with open_memory(tmp_path / "m") as memory, memory.follow(found[-1].cursor) as events:
        assert [event.seq for event in await take(events, 2_001 - len(found))] == list(range(len(found) + 1, 2_002))


async def test_the_loss_of_the_log_ends_it_after_what_is_durable() -> None:
    broken = False

    def hook(call: str, path: str) -> None:
        if broken and call in ("write", "datasync", "create"):
            raise OSError(errno.EIO, "the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"), trio.fail_after(100):
        async with open_on(HookedFileSystem(MemoryFileSystem(), hook)) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await (await handle.log_step(step(1))).wait_durable()
            async with memory.follow() as events:
                broken = True
                with pytest.raises(OutcomeUnknown):
                    await (await handle.log_step(step(2))).wait_durable()
                assert [seen(event) async for event in events] == [("e", "started", 1), ("e", "step", 2)]


async def test_a_closed_memory_cannot_be_followed(path: str) -> None:
    async with open_memory(path) as memory:
        pass
    with pytest.raises(Closed):
        async with memory.follow():
            raise AssertionError("entered")


async def test_leaving_the_block_ends_it_for_every_task(path: str) -> None:
    async with open_memory(path) as memory, trio.open_nursery() as nursery:

        async def wait(events: EventChannel) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await events.receive()

        async with memory.follow() as events:
            nursery.start_soon(wait, events)
            await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await events.receive()
        async with memory.follow() as events:
            with trio.testing.assert_checkpoints():
                await events.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await events.receive()


async def test_what_the_body_raises_leaves_unchanged(path: str) -> None:
    mine = ExceptionGroup("mine", [ValueError("one")])
    async with open_memory(path) as memory:
        await memory.start_episode("task")
        try:
            async with memory.follow() as events:
                await events.receive()
                raise mine
        except ExceptionGroup as caught:
            assert caught is mine


async def test_followers_that_come_and_go_leave_no_task_behind(path: str) -> None:
    async with open_memory(path) as memory:
        await fill(memory)
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = trio.lowlevel.current_statistics().tasks_living
        for received in (0, 1, 5):
            async with memory.follow() as events:
                await take(events, received)
            with trio.move_on_after(0.02):
                async with memory.follow(NOW) as events:
                    await events.receive()
            assert trio.lowlevel.current_statistics().tasks_living == before


# ---- interruptions ---------------------------------------------------------------------------------------------------


async def test_a_receive_that_is_cancelled_at_any_point_skips_nothing(path: str) -> None:
    async with open_memory(path) as memory:
        expected = await fill(memory, episodes=3, steps=40)
        async with memory.follow() as first:
            middle = (await take(first, 60))[-1].cursor
        async with memory.follow(middle) as events:  # names are to be looked up as well
            found: list[Seen | Gap] = []
            steps = 0

            async def receive() -> None:
                found.append(seen(await events.receive()))

            while len(found) < len(expected) - 60:
                await cancelled_at_step(steps, receive)
                steps = (steps + 1) % 5
        assert found == expected[60:]


async def test_a_read_error_leaves_receive_and_the_next_one_gives_the_same_event() -> None:
    failing = False

    def hook(call: str, path: str) -> None:
        if failing and call == "read" and path.endswith(".seg"):
            raise OSError(errno.EIO, "injected", path)

    async with open_on(HookedFileSystem(MemoryFileSystem(), hook)) as memory:
        expected = await fill(memory)
        async with memory.follow() as first:
            middle = (await take(first, 7))[-1].cursor
        async with memory.follow(middle) as events:
            for attempt in range(3):
                failing = True
                if attempt < 2:
                    with pytest.raises(RecoveryFailed):
                        await events.receive()
                failing = False
            assert [seen(event) for event in await take(events, len(expected) - 7)] == expected[7:]


def test_ctrl_c_in_a_follower_leaves_everything_in_order(tmp_path: Path) -> None:
    seqs: list[int] = []

    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory, trio.open_nursery() as nursery:
            handle = await memory.start_episode("task", episode_id="e")

            async def write() -> None:
                for number in range(1_000):
                    await handle.log_step(step(number))

            nursery.start_soon(write)
            async with memory.follow() as events:
                async for event in events:
                    seqs.append(sound(event).seq)
                    if len(seqs) == 50:
                        signal.raise_signal(signal.SIGINT)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, KeyboardInterrupt)
    assert seqs == list(range(1, 51))

    async def look() -> None:
        async with open_memory(tmp_path / "m") as memory:
            found = await memory.get_episode("e")
            assert [item.seq for item in found.steps] == list(range(2, found.last_seq + 1))
            assert found.last_seq >= 50

    trio.run(look)


async def test_two_tasks_cannot_receive_at_once(path: str) -> None:
    async with open_memory(path) as memory, memory.follow() as events, trio.open_nursery() as nursery:
        nursery.start_soon(events.receive)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.testing.assert_checkpoints(), pytest.raises(trio.BusyResourceError):
            await events.receive()
        await memory.start_episode("task")


async def test_entering_and_waiting_are_checkpoints(path: str) -> None:
    async with open_memory(path) as memory:
        await fill(memory)
        following = memory.follow()
        with trio.testing.assert_checkpoints():
            events = await following.__aenter__()
        with trio.testing.assert_checkpoints(), pytest.raises(InvalidState, match="entered"):
            await following.__aenter__()
        with trio.testing.assert_checkpoints():
            await events.receive()
        await following.__aexit__(None, None, None)
        bad: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: memory.follow("nonsense").__aenter__(),
            lambda: memory.follow(NOW).__aenter__(),
        )
        with trio.testing.assert_checkpoints(), pytest.raises(InvalidInput):
            await bad[0]()
        with trio.testing.assert_checkpoints():
            await bad[1]()
        for call in bad:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught


# ---- what cannot be given --------------------------------------------------------------------------------------------


@asynccontextmanager
async def reopened(files: MemoryFileSystem) -> AsyncIterator[EventChannel]:
    async with open_on(files) as memory, memory.follow() as events:
        yield events


async def test_a_flipped_byte_of_a_sealed_segment_is_a_gap_and_nothing_else_is_missing() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await fill(memory)
        await memory._journal.rotate()
        await memory.start_episode("task", episode_id="later")
    first = segments(files)[0]
    flip(files, first, content(files, first).index(b"action 2"))
    async with open_on(files) as memory:
        with pytest.raises(EpisodeUnavailable) as caught:
            await memory.get_episode("e0")
        assert caught.value.reason == "damaged"
        async with memory.follow() as events:
            found = [await events.receive() for _ in range(19)]
        assert found[9] == Gap(10, 10)
        for number in (0, 8, 10, 18):
            assert isinstance(found[number], Event)
        assert [seen(event) for event in found[10:]][:2] == [("e1", "step", 4), ("e2", "step", 4)]
        assert seen(found[18]) == ("later", "started", 1)
        async with memory.follow(sound(found[10]).cursor) as events:
            assert seen(await events.receive()) == ("e2", "step", 4)
        async with memory.follow(kinds=["ended"]) as events:
            assert await events.receive() == Gap(10, 10)  # it might have been one


async def test_damage_in_the_first_record_of_an_episode_hides_its_name() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await fill(memory, episodes=2, steps=2)
        await memory._journal.rotate()
    first = segments(files)[0]
    flip(files, first, content(files, first).index(b"task of e0"))
    async with reopened(files) as events:
        found = [seen(await events.receive()) for _ in range(8)]
    assert found == [
        Gap(1, 1),
        ("e1", "started", 1),
        Gap(3, 3),
        ("e1", "step", 2),
        Gap(5, 5),
        ("e1", "step", 3),
        Gap(7, 7),
        ("e1", "ended", 4),
    ]
    async with open_on(files) as memory:
        assert [name async for name in memory.episode_ids()] == ["e1"]


async def test_a_record_that_cannot_be_decoded_is_a_gap_in_its_own_episode_only() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        for name in ("e", "f"):
            await memory.start_episode("task", episode_id=name)
    stranger = encode_record("note", 1, {}, {"stream": "elsewhere", "id": "x"}, path="", limit=1000)
    impostor = encode_record("started", 1, {}, {"stream": "episode", "id": "e"}, path="", limit=1000)
    nameless = encode_record("note", 1, {}, None, path="", limit=1000)
    await force_into_log(
        files,
        Batch(stream_id("episode", "e"), 2, [b"\xff no record of ours"], 0),
        Batch(b"S" * 16, 1, [b"\xff neither"], 0),
        Batch(b"S" * 16, 2, [nameless], 0),
        Batch(b"T" * 16, 1, [stranger, nameless], 0),
        Batch(b"U" * 16, 1, [impostor], 0),
        Batch(b"V" * 16, 1, [nameless, nameless], 0),
    )
    async with open_on(files) as memory:
        await memory.log_step("f", step(1))
        await memory.flush()
        async with memory.follow() as events:
            found = [seen(await events.receive()) for _ in range(7)]
            await nothing_more(events)
        assert found == [
            ("e", "started", 1),
            ("f", "started", 1),
            Gap(3, 3),
            Gap(4, 4),
            Gap(5, 5),
            Gap(8, 8),
            ("f", "step", 2),
        ]
        assert [name async for name in memory.episode_ids()] == ["e", "f"]
        assert [item.episode_id for item in await memory.open_episodes()] == ["e", "f"]


# ---- deletions -------------------------------------------------------------------------------------------------------


async def test_of_a_deleted_episode_only_the_deletion_comes(path: str) -> None:
    async with open_memory(path) as memory:
        await fill(memory)
        await memory.delete_episode("e1")
        async with memory.follow() as events:
            found = await take(events, 13)
            await nothing_more(events)
        assert {event.stream for event in found} == {"e0", "e2", ""}
        last = found[-1]
        assert (last.stream, last.kind, last.seq, last.data) == ("", "deleted", 7, {})
        async with memory.follow(found[-2].cursor) as events:
            assert await take(events, 1) == [last]


async def test_a_follower_that_knows_the_episode_names_it_in_its_deletion(path: str) -> None:
    async with open_memory(path) as memory, memory.follow() as events:
        await memory.start_episode("task", episode_id="e")
        assert seen((await take(events, 1))[0]) == ("e", "started", 1)
        await memory.delete_episode("e")
        assert seen((await take(events, 1))[0]) == ("e", "deleted", 2)


async def test_steps_read_just_before_a_deletion_come_with_their_name_or_not_at_all(path: str) -> None:
    async with open_memory(path) as memory:
        await fill(memory)
        async with memory.follow() as events:
            middle = (await take(events, 4))[-1].cursor
        async with memory.follow(middle) as events:
            assert seen((await take(events, 1))[0]) == ("e1", "step", 2)  # its slice holds the others, too
            await memory.delete_episode("e2")
            found: list[Seen | Gap] = []
            while not found or found[-1][1] != "deleted":
                found.append(seen(await events.receive()))
            assert {item[0] for item in found} <= {"e0", "e1", ""}


# ---- cursors that are worth nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", ["", "12", "a.b.c.d", "0" * 32 + ".1.2.3", 12, None, b"x", 1.5])
async def test_what_is_no_cursor_is_invalid_input(path: str, cursor: object) -> None:
    async with open_memory(path) as memory:
        with pytest.raises(InvalidInput, match="cursor"):
            async with memory.follow(cursor):  # type: ignore[arg-type]
                raise AssertionError("entered")


@pytest.mark.parametrize("kinds", ["step", 5, [1], [b"step"], (x for x in ["step"])])
async def test_what_are_no_kinds_is_invalid_input(path: str, kinds: object) -> None:
    async with open_memory(path) as memory:
        with pytest.raises(InvalidInput, match="kinds"):
            memory.follow(kinds=kinds)  # type: ignore[arg-type]


async def test_a_cursor_of_another_memory_is_invalid_input(path: str) -> None:
    others: list[str] = []
    for place in (":memory:", MemoryFileSystem()):
        async with open_memory(place) if isinstance(place, str) else open_on(place) as other:
            handle = await other.start_episode("task")
            others += [event.cursor async for event in handle.events()]
    async with open_memory(path) as memory:
        await fill(memory)
        for cursor in others:
            with pytest.raises(InvalidInput, match="another"):
                async with memory.follow(cursor):
                    raise AssertionError("entered")


async def cursor_behind(files: MemoryFileSystem, steps: int) -> tuple[MemoryFileSystem, str]:
    """A disk as it was before the last steps were written, and a cursor behind them."""
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await (await handle.log_step(step(0))).wait_durable()
        earlier = files.durable_copy()
        for number in range(steps):
            await (await handle.log_step(step(number))).wait_durable()
        return earlier, [event async for event in handle.events()][-1].cursor


async def test_a_cursor_whose_record_was_lost_to_a_crash_is_refused_once_its_number_is_anothers() -> None:
    files, cursor = await cursor_behind(MemoryFileSystem(), 5)
    async with open_on(files) as memory:
        await (await memory.log_step("e", step(77))).wait_durable()
        with pytest.raises(InvalidState, match="lost branch"):
            await memory.follow(cursor).__aenter__()
        await memory.log_steps("e", [step(n) for n in range(78, 90)])
        await memory.flush()
    async with open_on(files) as memory:
        with pytest.raises(InvalidState, match="lost branch"):
            await memory.follow(cursor).__aenter__()


async def test_a_cursor_behind_the_end_of_the_log_says_that_durable_records_have_vanished() -> None:
    files, cursor = await cursor_behind(MemoryFileSystem(), 5)
    for read_only in (True, False):
        async with open_on(files, read_only=read_only) as memory:
            with pytest.raises(CorruptLog, match="vanished") as caught:
                await memory.follow(cursor).__aenter__()
            assert (caught.value.row, caught.value.first_lsn, caught.value.last_lsn) == (2, 3, 7)


async def test_a_cursor_into_a_newest_segment_that_somebody_removed_says_so_too() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await fill(memory)
        await memory._journal.rotate()
        handle = await memory.start_episode("task", episode_id="later")
        cursor = [event async for event in handle.events()][-1].cursor
    remove(files, segments(files)[-1])
    async with open_on(files) as memory:
        with pytest.raises(CorruptLog) as caught:
            await memory.follow(cursor).__aenter__()
        assert caught.value.row == 2


async def test_a_cursor_behind_the_end_of_a_cut_segment_says_so_too() -> None:
    """The segment was never sealed, and ends with an earlier group: nothing in it tells what is missing."""
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await (await handle.log_step(step(1))).wait_durable()
        (name,) = segments(files)
        whole = content(files, name)
        await (await handle.log_step(step(2))).wait_durable()
        cursor = [event async for event in handle.events()][-1].cursor
        left = files.durable_copy()
    put(left, name, whole)
    async with open_on(left) as memory:
        assert len((await memory.get_episode("e")).steps) == 1
        with pytest.raises(CorruptLog) as caught:
            await memory.follow(cursor).__aenter__()
        assert caught.value.row == 2


# ---- for readers -----------------------------------------------------------------------------------------------------


async def test_a_memory_opened_for_reading_is_followed_to_its_end(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m", config=SMALL) as memory:
        expected = await fill(memory, steps=30)
        async with open_memory(tmp_path / "m", read_only=True) as reader:
            async with reader.follow() as events:
                assert [seen(event) async for event in events] == expected
            async with reader.follow(NOW) as events:
                assert [event async for event in events] == []
    async with open_memory(tmp_path / "m", read_only=True) as reader:
        async with reader.follow() as events:
            found = [sound(event) async for event in events]
        assert [seen(event) for event in found] == expected
        async with reader.follow(found[50].cursor) as events:
            assert [sound(event) async for event in events] == found[51:]


async def test_many_names_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.memory.following._NAMES_KEPT", 3)
    async with open_on(MemoryFileSystem(), MemoryConfig(segment_bytes=SEGMENT_BYTES)) as memory:
        expected = await fill(memory, episodes=8, steps=5)
        async with memory.follow() as events:
            assert [seen(event) for event in await take(events, len(expected))] == expected
            assert len(events._names) == 3
