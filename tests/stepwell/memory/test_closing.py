"""Leaving open_memory stores what was accepted, whatever makes one leave."""

from __future__ import annotations

import errno
import signal
import threading
from pathlib import Path

import pytest
import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import BatchConfig, Closed, LogLocked, MemoryConfig, OutcomeUnknown, Receipt, open_memory
from stepwell.memory.opening import OpenMemory
from tests.support import HookedFileSystem, open_on, step


async def log_for_ever(memory: object, name: str, accepted: dict[str, int]) -> None:
    handle = await memory.start_episode("task", episode_id=name)  # type: ignore[attr-defined]
    accepted[name] = 0
    while True:
        await handle.log_step(step(accepted[name]))
        accepted[name] += 1


async def check_all_there(path: Path, accepted: dict[str, int]) -> None:
    async with open_memory(path) as memory:
        for name, count in accepted.items():
            found = await memory.get_episode(name)
            # A step whose acceptance the cancel interrupted right behind its counting point may be there as well.
            assert [item.action for item in found.steps][:count] == [f"action {n}" for n in range(count)]
            assert len(found.steps) - count in (0, 1)


async def test_a_deadline_around_open_memory_under_load_loses_no_accepted_step(tmp_path: Path) -> None:
    accepted: dict[str, int] = {}
    with trio.move_on_after(0.5) as scope:
        async with open_memory(tmp_path / "m") as memory:
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(log_for_ever, memory, f"e{number}", accepted)
    assert scope.cancelled_caught
    assert len(accepted) == 30
    assert sum(accepted.values()) > 300
    await check_all_there(tmp_path / "m", accepted)


def test_ctrl_c_under_load_loses_no_accepted_step(tmp_path: Path) -> None:
    accepted: dict[str, int] = {}

    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(log_for_ever, memory, f"e{number}", accepted)
                await trio.sleep(0.1)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert _holds(caught.value, KeyboardInterrupt)
    trio.run(check_all_there, tmp_path / "m", accepted)


def _holds(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_holds(inner, kind) for inner in error.exceptions)
    return isinstance(error, kind)


async def test_an_exception_in_the_body_leaves_unchanged_and_everything_is_stored() -> None:
    files = MemoryFileSystem()
    with pytest.raises(KeyError):
        async with open_on(files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            for number in range(30):
                await handle.log_step(step(number))
            raise KeyError("mine")
    async with open_on(files) as memory:
        assert len((await memory.get_episode("e")).steps) == 30


async def test_errors_are_caught_by_a_plain_except(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "m") as memory:
        try:
            async with open_memory(tmp_path / "m"):
                raise AssertionError("opened twice")
        except LogLocked as error:
            assert error.pid is not None
            assert str(error.pid) in str(error)
        try:
            async with memory.episode("task"):
                raise KeyError("missing")
        except KeyError as error:
            assert error.args == ("missing",)
    try:
        async with open_memory(tmp_path / "m"):
            raise KeyError("in the body")
    except KeyError as error:
        assert error.args == ("in the body",)


async def test_leaving_resolves_every_receipt() -> None:
    receipts: list[Receipt] = []
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task")
        receipts = [await handle.log_step(step(n)) for n in range(100)]
    assert all(receipt.is_durable for receipt in receipts)


async def test_a_caller_waiting_for_room_when_the_memory_closes_is_refused() -> None:
    files = MemoryFileSystem()
    refused = 0

    async def log(handle: object) -> None:
        nonlocal refused
        try:
            for number in range(10_000):
                await handle.log_step(step(number))  # type: ignore[attr-defined]
        except Closed:
            refused += 1

    async with trio.open_nursery() as nursery:
        async with open_on(files) as memory:
            for number in range(3):
                nursery.start_soon(log, await memory.start_episode("task", episode_id=f"e{number}"))
            await trio.sleep(0.05)
    assert refused == 3


class BlockedDisk:
    """A file layer whose datasync of a segment blocks until released, as a dead disk does."""

    def __init__(self, path: Path):
        from stepstore.log.files import OsFileSystem

        self.blocked, self.release = False, threading.Event()
        self.files = HookedFileSystem(OsFileSystem(), self.hook)
        self.path = str(path)

    def hook(self, call: str, path: str) -> None:
        if self.blocked and call == "datasync":
            self.release.wait(10)


async def test_a_cancel_during_an_unlimited_close_starts_the_grace_and_the_rest_is_reported(tmp_path: Path) -> None:
    disk = BlockedDisk(tmp_path / "m")
    config = MemoryConfig(grace_seconds=0.05)
    receipt: Receipt | None = None
    late: Receipt | None = None
    with trio.move_on_after(0.3) as scope:
        async with OpenMemory(disk.path, config, False, disk.files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            disk.blocked = True
            receipt = await handle.log_step(step(1))
            with trio.move_on_after(0.05):
                await receipt.wait_durable()
            late = await handle.log_step(step(2))
            trio.lowlevel.spawn_system_task(_release_later, disk)
    assert scope.cancelled_caught
    # The group on its way when the grace ended was finished by the system call; what waited behind it was not.
    assert receipt is not None
    assert late is not None
    assert receipt.is_durable
    assert not late.is_durable
    with pytest.raises(OutcomeUnknown, match="closed"):
        await late.wait_durable()


async def test_a_slow_medium_holds_callers_up_instead_of_filling_memory(tmp_path: Path) -> None:
    disk = BlockedDisk(tmp_path / "m")
    accepted = 0
    async with OpenMemory(disk.path, MemoryConfig(mailbox_size=10), False, disk.files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        disk.blocked = True
        with trio.move_on_after(0.3) as scope:
            while accepted < 1_000:
                await handle.log_step(step(accepted))
                accepted += 1
        disk.blocked = False
        disk.release.set()
        assert scope.cancelled_caught
        # One batch of at most 50 on its way and what gathered before it went, and a full mailbox behind it.
        assert accepted <= 50 + 10 + 10
        assert [item.action for item in (await handle.get()).steps] == [f"action {n}" for n in range(accepted)]


async def test_a_caller_held_up_behind_a_batch_goes_on_when_it_is_stored(tmp_path: Path) -> None:
    """The batch size is above the mailbox size, so a full mailbox alone sends nothing."""
    disk = BlockedDisk(tmp_path / "m")
    config = MemoryConfig(mailbox_size=4, batch=BatchConfig(max_batch_size=1_000, flush_interval_ms=3_600_000))
    async with OpenMemory(disk.path, config, False, disk.files) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        disk.blocked = True
        first = await handle.log_step(step(0))
        with trio.move_on_after(0.05):
            await first.wait_durable()

        async def log_the_rest() -> None:
            for number in range(1, 7):  # the fifth of them finds the mailbox full, and nothing else comes to wake it
                await handle.log_step(step(number))

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log_the_rest)
                await trio.sleep(0.05)
                disk.blocked = False
                disk.release.set()


async def _release_later(disk: BlockedDisk) -> None:
    await trio.sleep(0.8)
    disk.blocked = False
    disk.release.set()


async def test_a_lost_log_fails_the_memory_reads_go_on_and_the_cause_leaves() -> None:
    broken = False

    def hook(call: str, path: str) -> None:
        if broken and call in ("write", "datasync", "create"):
            raise OSError(errno.EIO, "the disk is gone")

    files = HookedFileSystem(MemoryFileSystem(), hook)
    with pytest.raises(OSError, match="the disk is gone"):
        async with open_on(files) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            await (await handle.log_step(step(1))).wait_durable()
            broken = True
            lost = await handle.log_step(step(2))
            with pytest.raises(OutcomeUnknown):
                await lost.wait_durable()
            with pytest.raises(Closed) as refused:
                await memory.start_episode("another")
            assert isinstance(refused.value.__cause__, OSError)
            assert len((await memory.get_episode("e")).steps) == 1


async def test_a_lost_log_cancels_the_body_if_asked_to() -> None:
    broken = False

    def hook(call: str, path: str) -> None:
        if broken and call in ("write", "datasync", "create"):
            raise OSError(errno.EIO, "the disk is gone")

    files = HookedFileSystem(MemoryFileSystem(), hook)
    with pytest.raises(OSError, match="the disk is gone"), trio.fail_after(100):
        async with open_on(files, MemoryConfig(on_failure="cancel", segment_bytes=1 << 20)) as memory:
            handle = await memory.start_episode("task", episode_id="e")
            broken = True
            await handle.log_step(step(2))
            await trio.sleep_forever()


async def test_a_keyed_step_lost_to_a_failed_write_is_stored_when_it_is_resubmitted(autojump_clock: object) -> None:
    disk = MemoryFileSystem()
    fail = 0

    def hook(call: str, path: str) -> None:
        nonlocal fail
        if fail and call == "datasync":
            fail -= 1
            raise OSError(errno.EIO, "once")

    async with open_on(HookedFileSystem(disk, hook)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        fail = 1
        lost = await handle.log_step(step(1, key="k"))
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        again = await handle.log_step(step(1, key="k"))
        await again.wait_durable()
    async with open_on(disk) as memory:
        assert [item.key for item in (await memory.get_episode("e")).steps] == ["k"]


async def test_one_failed_write_costs_its_receipts_and_nothing_else(autojump_clock: object) -> None:
    disk = MemoryFileSystem()
    fail = 0

    def hook(call: str, path: str) -> None:
        nonlocal fail
        if fail and call == "datasync":
            fail -= 1
            raise OSError(errno.EIO, "once")

    async with open_on(HookedFileSystem(disk, hook)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        other = await memory.start_episode("task", episode_id="o")
        await (await handle.log_step(step(1))).wait_durable()
        fail = 1
        lost = await handle.log_step(step(2))
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        after = await handle.log_step(step(3))
        await after.wait_durable()
        assert after.seq == 3
        assert (await other.log_step(step(1))).seq == 2
    async with open_on(disk) as memory:
        assert [item.action for item in (await memory.get_episode("e")).steps] == ["action 1", "action 3"]
        assert memory.recovery.segments == 2
