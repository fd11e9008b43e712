"""An acknowledgement says what is known, never more."""

from __future__ import annotations

import errno
import gc
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import BatchConfig, MemoryConfig, NotFound, OutcomeUnknown, Receipt, Success, open_memory
from stepwell.runtime.cell import EpisodeCell
from tests.support import SEGMENT_BYTES, HookedFile, HookedFileSystem, open_on, step


async def recovered_actions(files: MemoryFileSystem, episode_id: str) -> list[str]:
    async with open_on(files) as memory:
        return [item.action for item in (await memory.get_episode(episode_id)).steps]


async def test_seq_is_set_on_return_and_counts_without_gaps() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        receipts = [await handle.log_step(step(n)) for n in range(5)]
        batch = await handle.log_steps([step(5), step(6)])
    assert [receipt.seq for receipt in receipts] == [2, 3, 4, 5, 6]
    assert batch.seq == 8


async def test_lsn_is_none_until_durable_and_then_the_place_in_the_log() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        one, two = await memory.start_episode("one"), await memory.start_episode("two")
        receipts = [await one.log_step(step(1)), await two.log_step(step(2)), await one.log_step(step(3))]
        assert [receipt.lsn for receipt in receipts] == [None, None, None]
        await memory.flush()
        assert sorted(receipt.lsn or 0 for receipt in receipts) == [3, 4, 5]
        places = {event.seq: event.lsn async for event in memory.events(one.id)}
        assert [places[receipts[0].seq], places[receipts[2].seq]] == [receipts[0].lsn, receipts[2].lsn]


async def check_durable_when_resolved(make: type[HookedFileSystem]) -> None:
    """At the moment any receipt resolves, its bytes are in the durable image."""
    disk = MemoryFileSystem()
    files = make(disk, lambda _call, _path: None)
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for number in range(20):
            receipt = await handle.log_step(step(number))
            await receipt.wait_durable()
            # Nothing runs between the resolution and here but this task: what a power cut left now must hold it.
            actions = await recovered_actions(disk.durable_copy(), "e")
            assert actions[-1:] == [f"action {number}"]


async def test_when_a_receipt_resolves_its_bytes_are_in_the_durable_image() -> None:
    await check_durable_when_resolved(HookedFileSystem)


class SyncsOnlyTheHeader(HookedFile):
    """A segment whose first sync (of its header) works and whose later ones do nothing."""

    synced = False

    def datasync(self) -> None:
        if not self.synced or not self._path.endswith("spare.tmp"):
            super().datasync()
        self.synced = True


class FileSystemWithoutSync(HookedFileSystem):
    def open(self, path: str, *, create: bool = False, write: bool = True) -> HookedFile:
        return SyncsOnlyTheHeader(self._files.open(path, create=create, write=write), path, self.hook)


async def test_the_durability_check_objects_when_syncs_do_nothing() -> None:
    with pytest.raises(NotFound):
        await check_durable_when_resolved(FileSystemWithoutSync)


async def test_waiting_again_and_after_closing_returns_at_once() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        receipt = await handle.log_step(step(1))
    assert receipt.is_durable
    await receipt.wait_durable()
    await receipt.wait_durable()


async def test_a_cancelled_waiter_does_not_cancel_the_write() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipt = await handle.log_step(step(1))
        with trio.CancelScope() as scope:
            scope.cancel()
            await receipt.wait_durable()
        assert scope.cancelled_caught
        await receipt.wait_durable()
    assert await recovered_actions(files, "e") == ["action 1"]


async def test_of_several_waiters_of_one_receipt_each_is_woken_and_any_may_be_cancelled() -> None:
    told: list[int] = []
    commits = trio.Event()
    files = MemoryFileSystem()
    async with open_on(files) as memory, trio.open_nursery() as nursery:
        handle = await memory.start_episode("task")
        receipt = await handle.log_step(step(1))
        scopes = [trio.CancelScope() for _ in range(5)]

        async def wait(number: int) -> None:
            with scopes[number]:
                await receipt.wait_durable()
                told.append(number)

        async def hold(*_arguments: object) -> None:
            await commits.wait()

        groups = memory._journal._writer._group_commit  # type: ignore[attr-defined]
        run, groups.commit = groups.commit, lambda group: _after(hold, run, group)
        for number in range(4):
            nursery.start_soon(wait, number)
        await wait_all_tasks_blocked()
        scopes[0].cancel()  # the one that waits in the receipt's own place
        scopes[2].cancel()  # and one of the queue behind it
        await wait_all_tasks_blocked()
        scopes[4].cancel()
        nursery.start_soon(wait, 4)  # cancelled before it begins: it must not take the place of anybody
        await wait_all_tasks_blocked()
        assert told == []
        commits.set()
        await wait_all_tasks_blocked()
        assert sorted(told) == [1, 3]
        assert receipt.is_durable


async def _after(hold: Callable[..., Awaitable[None]], commit: Callable[..., Awaitable[None]], group: object) -> None:
    await hold()
    await commit(group)


def _cells(episode_id: str) -> int:
    """Cells of the episode among all objects of the process."""
    return sum(type(found) is EpisodeCell and found.episode_id == episode_id for found in gc.get_objects())


async def test_what_is_resolved_lets_go_of_its_cell_and_of_who_waited() -> None:
    """The garbage collector does not know commits and submissions, so none may stay in a cycle."""
    async with open_on(MemoryFileSystem(), MemoryConfig(batch=BatchConfig.manual())) as memory:
        handle = await memory.start_episode("task")
        receipt = await handle.log_step(step(1))
        assert _cells(handle.id) == 1
        await receipt.wait_durable()
        await handle.complete(Success("done"))
        await wait_all_tasks_blocked()
        assert receipt._commit.cell is None
        assert receipt._commit._waiter is None
        gc.collect()
        assert _cells(handle.id) == 0  # although the receipt is still held


async def test_commit_durability_makes_log_step_itself_wait() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk, MemoryConfig(segment_bytes=SEGMENT_BYTES, durability="commit")) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        receipt = await handle.log_step(step(1))
        assert receipt.is_durable
        assert await recovered_actions(disk.durable_copy(), "e") == ["action 1"]
        assert (await handle.log_steps([step(2), step(3)])).is_durable


async def test_with_commit_durability_a_nowait_step_goes_to_the_medium_at_once(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(segment_bytes=SEGMENT_BYTES, durability="commit")) as memory:
        handle = await memory.start_episode("task")
        began = trio.current_time()
        receipt = handle.log_step_nowait(step(1))
        await trio.testing.wait_all_tasks_blocked()
        assert receipt.is_durable
        assert trio.current_time() == began


async def test_a_waiter_never_waits_for_a_timer(autojump_clock: MockClock) -> None:
    config = MemoryConfig(
        segment_bytes=SEGMENT_BYTES, batch=BatchConfig(max_batch_size=1000, flush_interval_ms=3_600_000)
    )
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task")
        began = trio.current_time()
        for number in range(10):
            await (await handle.log_step(step(number))).wait_durable()
        await handle.log_step(step(10))
        await handle.flush()
        assert trio.current_time() == began


async def test_steps_nobody_waits_for_are_stored_after_the_interval(autojump_clock: MockClock) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        receipt = await handle.log_step(step(1))
        await trio.sleep(0.04)
        assert not receipt.is_durable
        await trio.sleep(0.02)
        assert receipt.is_durable


async def test_a_full_batch_is_stored_without_waiting_for_the_interval(autojump_clock: MockClock) -> None:
    config = MemoryConfig(
        segment_bytes=SEGMENT_BYTES, batch=BatchConfig(max_batch_size=10, flush_interval_ms=3_600_000)
    )
    async with open_on(MemoryFileSystem(), config) as memory:
        handle = await memory.start_episode("task")
        receipts = [await handle.log_step(step(n)) for n in range(10)]
        await trio.testing.wait_all_tasks_blocked()
        assert all(receipt.is_durable for receipt in receipts)


async def test_manual_batches_go_only_when_asked(autojump_clock: MockClock) -> None:
    async with open_on(
        MemoryFileSystem(), MemoryConfig(segment_bytes=SEGMENT_BYTES, batch=BatchConfig.manual())
    ) as memory:
        handle = await memory.start_episode("task")
        receipts = [await handle.log_step(step(n)) for n in range(200)]
        await trio.sleep(10_000)
        assert not any(receipt.is_durable for receipt in receipts)
        await handle.flush()
        assert all(receipt.is_durable for receipt in receipts)


async def test_receipts_of_a_log_that_fails_say_that_the_outcome_is_unknown() -> None:
    broken = False

    def hook(call: str, path: str) -> None:
        if broken and call in ("datasync", "create"):
            raise OSError(errno.EIO, "injected")

    files = HookedFileSystem(MemoryFileSystem(), hook)
    receipt: Receipt | None = None
    with pytest.raises(OSError, match="injected"):
        async with open_on(files) as memory:
            handle = await memory.start_episode("task")
            broken = True
            receipt = await handle.log_step(step(1))
            with pytest.raises(OutcomeUnknown):
                await receipt.wait_durable()
    assert receipt is not None
    assert not receipt.is_durable
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()


@pytest.mark.parametrize("kind", [":memory:", "directory"])
async def test_the_same_on_disk_and_in_memory(kind: str, tmp_path: object) -> None:
    async with open_memory(kind if kind == ":memory:" else f"{tmp_path}/memory") as memory:
        handle = await memory.start_episode("task")
        receipt = await handle.log_step(step(1))
        await receipt.wait_durable()
        assert receipt.lsn == 2


async def test_everything_but_logging_is_durable_on_return() -> None:
    """What a power cut leaves at the very moment each of these calls returns."""
    disk = MemoryFileSystem()

    async def left() -> dict[str, tuple[int, str]]:
        async with open_on(disk.durable_copy()) as memory:
            episodes = [await memory.get_episode(name) async for name in memory.episode_ids()]
        return {e.episode_id: (len(e.steps), type(e.outcome).__name__) for e in episodes}

    async with open_on(disk, MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)) as memory:
        handle = await memory.start_episode("task", episode_id="a")
        assert await left() == {"a": (0, "NoneType")}
        await handle.log_step(step(1))
        await memory.flush()
        assert await left() == {"a": (1, "NoneType")}
        await handle.log_step(step(2))
        await handle.flush()
        assert await left() == {"a": (2, "NoneType")}
        await handle.log_step(step(3))
        await handle.complete(Success())
        assert await left() == {"a": (3, "Success")}
        async with memory.episode("task", episode_id="b") as episode:
            await episode.log_step(step(1))
        assert await left() == {"a": (3, "Success"), "b": (1, "Success")}
        await memory.start_episode("task", episode_id="c")
        await memory.abandon("c")
        assert (await left())["c"] == (0, "Interrupted")
        await memory.delete_episode("b")
        assert set(await left()) == {"a", "c"}
