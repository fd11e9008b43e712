"""A transaction over several episodes is stored as a whole or not at all, whatever meets it."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from stepstore.journal import Batch, SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.writer import LogWriter
from stepstore.restarting import RestartPolicy
from stepwell import (
    AtomicScope,
    BatchConfig,
    Busy,
    Closed,
    EpisodeUnavailable,
    ExecutionStep,
    InvalidInput,
    InvalidState,
    Limits,
    LogFull,
    Memory,
    MemoryConfig,
    Message,
    NotFound,
    OutcomeUnknown,
    Receipt,
    Role,
    StepSuccess,
    StepwellError,
    Success,
    TooLarge,
    events,
)
from stepwell.model.ids import stream_id
from stepwell.runtime.cell import EpisodeCell
from tests.support import LOG, SEGMENT_BYTES, HookedFileSystem, cancelled_at_step, force_into_log, open_on, step

MANUAL = MemoryConfig(batch=BatchConfig.manual(), segment_bytes=SEGMENT_BYTES)
NAMES = ("a", "b", "c")


async def start(memory: Memory, *names: str) -> None:
    for name in names or NAMES:
        await memory.start_episode("task", episode_id=name)


async def numbers(memory: Memory, episode_id: str) -> list[int]:
    found = (await memory.get_episode(episode_id)).steps
    assert [item.seq for item in found] == list(range(2, len(found) + 2))
    return [item.parameters["n"] for item in found]


async def recovered(files: MemoryFileSystem, *names: str) -> list[list[int]]:
    async with open_on(files) as memory:
        return [await numbers(memory, name) for name in names or NAMES]


def writer_of(memory: Memory) -> LogWriter:
    assert isinstance(memory._journal, SegmentLogJournal)
    assert memory._journal._writer is not None
    return memory._journal._writer


@asynccontextmanager
async def stuck_writer(memory: Memory) -> AsyncIterator[trio.Event]:
    """Groups wait before they are written until the event is set, at the latest when the block is left."""
    group_commit, go_on = writer_of(memory)._group_commit, trio.Event()
    real = group_commit.commit

    async def waiting(group: list[object]) -> None:
        await go_on.wait()
        await real(group)  # type: ignore[arg-type]

    group_commit.commit = waiting  # type: ignore[method-assign,assignment]
    try:
        yield go_on
    finally:
        go_on.set()


# ---- what it is ------------------------------------------------------------------------------------------------------


async def test_everything_staged_is_one_frame_and_durable_when_the_block_is_left() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
        groups = memory.stats().groups
        async with memory.atomic() as tx:
            tx.log_step("b", step(1))
            tx.log_steps("a", [step(2), step(3)])
            tx.log_step("c", step(4))
            tx.log_step("b", step(5))
            assert [tx.receipt, tx.receipt_of("a")] == [None, None]
        assert memory.stats().groups == groups + 1
        assert await recovered(disk.durable_copy()) == [[2, 3], [1, 5], [4]]
        assert tx.receipt is not None
        assert tx.receipt.is_durable
        assert tx.receipt.lsn == 8  # behind three starts: b, b, a, a, c
        receipts = {name: tx.receipt_of(name) for name in NAMES}
        assert {name: (receipt.seq, receipt.lsn) for name, receipt in receipts.items() if receipt} == {
            "a": (3, 7),
            "b": (3, 5),
            "c": (2, 8),
        }
        with pytest.raises(NotFound, match="'d'"):
            tx.receipt_of("d")
        assert (await memory.log_step("b", step(6))).seq == 4


async def test_an_exception_in_the_block_stores_nothing_and_leaves_unchanged() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        tx = memory.atomic()
        with pytest.raises(ZeroDivisionError):
            async with tx:
                tx.log_step("a", step(1))
                raise ZeroDivisionError
        assert tx.receipt is None
        with pytest.raises(InvalidState, match="inside the block"):
            tx.log_step("a", step(1))
        tx = memory.atomic()
        with trio.CancelScope() as scope, pytest.raises(KeyError):
            async with tx:
                tx.log_step("a", step(1))
                scope.cancel()
                raise KeyError  # leaving is no cancel point that would put `Cancelled` in its place
        assert (await memory.log_step("a", step(2))).seq == 2


async def test_a_cancelled_block_stores_nothing() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        tx = memory.atomic()
        with trio.CancelScope() as scope:
            async with tx:
                tx.log_step("a", step(1))
                scope.cancel()
        assert scope.cancelled_caught
        assert tx.receipt is None
        assert await numbers(memory, "a") == []


async def test_nothing_staged_is_nothing_stored() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        groups = memory.stats().groups
        async with memory.atomic() as tx:
            pass
        assert tx.receipt is None
        assert memory.stats().groups == groups


async def test_a_transaction_is_entered_once_and_not_in_a_memory_that_takes_nothing() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
        tx = memory.atomic()
        with pytest.raises(InvalidState, match="inside the block"):
            tx.log_step("a", step(1))
        async with tx:
            pass
        with pytest.raises(InvalidState, match="once"):
            async with tx:
                raise AssertionError("entered")
    with pytest.raises(Closed):
        async with memory.atomic():
            raise AssertionError("entered")
    async with open_on(disk, read_only=True) as memory:
        with pytest.raises(Closed, match="read_only"):
            async with memory.atomic():
                raise AssertionError("entered")


BIG = ExecutionStep("tool", result=StepSuccess("x" * 1_000_000))
BAD_STAGING: dict[str, tuple[type[StepwellError], str, Callable[[AtomicScope], object]]] = {
    "a bad step": (InvalidInput, "step.tool", lambda tx: tx.log_step("b", ExecutionStep(""))),
    "no step": (InvalidInput, "ExecutionStep", lambda tx: tx.log_step("b", 5)),  # type: ignore[arg-type]
    "a bad one of several": (
        InvalidInput,
        r"steps\[1\]",
        lambda tx: tx.log_steps("b", [step(1), ExecutionStep("")]),
    ),
    "no list": (InvalidInput, "list", lambda tx: tx.log_steps("b", step(1))),  # type: ignore[arg-type]
    "an empty list": (InvalidInput, "at least one", lambda tx: tx.log_steps("b", [])),
    "a bad id": (InvalidInput, "episode_id", lambda tx: tx.log_step("", step(1))),
    "a step too large": (TooLarge, "limit", lambda tx: tx.log_step("b", step(1, thought="x" * 2_000_000))),
    "more than 16 MiB": (TooLarge, "16,777,216", lambda tx: tx.log_steps("b", [BIG] * 17)),
    "a key twice": (InvalidInput, "key", lambda tx: tx.log_steps("b", [step(1, key="k"), step(1, key="k")])),
    "a key staged before": (InvalidInput, "key", lambda tx: tx.log_step("a", step(1, key="mine"))),
    "another expectation": (InvalidInput, "expected_seq", lambda tx: tx.log_step("a", step(1), expected_seq=7)),
    "a bad expectation": (InvalidInput, "expected_seq", lambda tx: tx.log_step("b", step(1), expected_seq=True)),
}


@pytest.mark.parametrize("name", BAD_STAGING)
async def test_a_bad_staging_call_raises_at_once_and_stages_nothing_of_it(name: str) -> None:
    kind, message, call = BAD_STAGING[name]
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        async with memory.atomic() as tx:
            tx.log_step("a", step(1, key="mine"), expected_seq=1)
            with pytest.raises(kind, match=message):
                call(tx)
            tx.log_step("a", step(2))
        assert await numbers(memory, "a") == [1, 2]
        assert await numbers(memory, "b") == []


async def test_a_step_is_staged_as_it_is_then() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        parameters = {"n": 1}
        async with memory.atomic() as tx:
            tx.log_step("a", ExecutionStep("tool", parameters=parameters, key="k"))
            parameters["n"] = 2
        assert await numbers(memory, "a") == [1]
        again = await memory.log_step("a", ExecutionStep("tool", parameters={"n": 1}, key="k"))
        assert again == tx.receipt
        with pytest.raises(InvalidState, match="another step"):
            await memory.log_step("a", ExecutionStep("tool", parameters=parameters, key="k"))


async def test_episodes_that_are_asleep_are_woken() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
        await memory.log_step("b", step(0))
    async with open_on(disk) as memory:
        async with memory.atomic() as tx:
            for name in NAMES:
                tx.log_step(name, step(1))
    assert await recovered(disk) == [[1], [0, 1], [1]]


async def test_the_most_that_one_frame_takes_is_taken_and_no_more() -> None:
    disk = MemoryFileSystem()
    config = MemoryConfig(limits=Limits(text_bytes=6_000_000))
    part = ExecutionStep("tool", parameters={"n": 1}, result=StepSuccess("x" * 5_500_000))
    async with open_on(disk, config) as memory:
        await start(memory)
        groups = memory.stats().groups
        async with memory.atomic() as tx:
            for name in NAMES:
                tx.log_step(name, part)
            with pytest.raises(TooLarge, match="split"):
                tx.log_step("a", part)
            with pytest.raises(TooLarge, match="split"):
                tx.log_steps("d", [part])
            tx.log_step("a", step(2))
        assert memory.stats().groups == groups + 1  # although a group of several submissions takes 4 MiB at most
        tx = memory.atomic()
        with pytest.raises(TooLarge, match="'a'"):
            async with tx:
                tx.log_steps("a", [part, part, part])
                tx.log_step("a", part)
    assert await recovered(disk) == [[1, 2], [1], [1]]


async def test_the_limit_of_one_batch_holds_for_the_share_of_each_episode() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=Limits(record_bytes=1_000))) as memory:
        await start(memory)
        async with memory.atomic() as tx:
            for name in NAMES:
                tx.log_steps(name, [step(1, thought="x" * 300)] * 2)
            with pytest.raises(TooLarge, match="1,000"):
                tx.log_step("b", step(2, thought="x" * 300))
        assert await numbers(memory, "b") == [1, 1]


# ---- what episodes refuse --------------------------------------------------------------------------------------------


async def park(memory: Memory, disk: MemoryFileSystem) -> None:
    del disk
    cell = memory._supervisor.cells["b"]
    cell.failure = EpisodeUnavailable("episode 'b' is parked", reason="parked")
    cell.accepting = False
    cell.wake()
    await wait_all_tasks_blocked()
    assert cell.state.value == "parked"


REFUSALS: dict[str, tuple[type[StepwellError], str, Callable[[Memory, MemoryFileSystem], Awaitable[object]]]] = {
    "ended": (InvalidState, "ended", lambda m, _: m.complete_episode("b", Success())),
    "deleted": (NotFound, "'b'", lambda m, _: m.delete_episode("b")),
    "parked": (EpisodeUnavailable, "parked", park),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_an_episode_that_takes_no_steps_refuses_the_whole_transaction(name: str) -> None:
    kind, message, spoil = REFUSALS[name]
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
        await spoil(memory, disk)
        tx = memory.atomic()
        with pytest.raises(kind, match=message):
            async with tx:
                for each in NAMES:
                    tx.log_step(each, step(1))
        assert tx.receipt is None
        assert not any(cell.locked for cell in memory._supervisor.cells.values())
        for each in "ac":
            assert (await memory.log_step(each, step(2))).seq == 2


async def test_an_unknown_episode_refuses_the_whole_transaction() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        tx = memory.atomic()
        with pytest.raises(NotFound, match="'nope'"):
            async with tx:
                tx.log_step("a", step(1))
                tx.log_step("nope", step(1))
        assert (await memory.log_step("a", step(2))).seq == 2


@pytest.mark.parametrize("how", ["complete", "delete"])
async def test_an_ending_or_a_deletion_under_way_refuses_the_whole_transaction(how: str) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            if how == "complete":
                nursery.start_soon(memory.complete_episode, "b", Success())
            else:
                nursery.start_soon(memory.delete_episode, "b")
            await wait_all_tasks_blocked()
            tx = memory.atomic()
            with pytest.raises((InvalidState, NotFound), match="'b'"):
                async with tx:
                    tx.log_step("a", step(1))
                    tx.log_step("b", step(1))
            go_on.set()
        assert (await memory.log_step("a", step(2))).seq == 2


async def test_too_many_steps_for_one_episode_refuse_the_whole_transaction() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=Limits(steps_per_episode=3))) as memory:
        await start(memory)
        await memory.log_step("b", step(0))
        tx = memory.atomic()
        with pytest.raises(TooLarge, match="4"):
            async with tx:
                tx.log_step("a", step(1))
                tx.log_steps("b", [step(1), step(2), step(3)])
        async with memory.atomic() as tx:
            tx.log_steps("b", [step(1), step(2)])
        with pytest.raises(TooLarge):
            await memory.log_step("b", step(3))
        assert [await numbers(memory, name) for name in "ab"] == [[], [0, 1, 2]]


# ---- keys ------------------------------------------------------------------------------------------------------------


async def keyed(memory: Memory, **keys: list[int]) -> Receipt | None:
    """A transaction of steps with keys of their numbers."""
    async with memory.atomic() as tx:
        for name, wanted in keys.items():
            tx.log_steps(name, [step(n, key=f"k{n}") for n in wanted])
    return tx.receipt


async def test_a_transaction_committed_again_under_its_keys_is_stored_once_and_gives_the_same_receipt() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
        first = await keyed(memory, b=[3], a=[1, 2])
        assert await keyed(memory, a=[1, 2], b=[3]) == first
        assert first is not None
    async with open_on(disk) as memory:
        again = await keyed(memory, a=[1, 2], b=[3])
        assert again is not None
        assert (again.seq, again.lsn, again.is_durable) == (first.seq, first.lsn, True)
        assert await numbers(memory, "a") == [1, 2]
        assert await numbers(memory, "b") == [3]


async def test_known_keys_of_one_episode_count_as_stored_beside_new_steps_of_another() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        known = await memory.log_step("a", step(1, key="k1"))
        async with memory.atomic() as tx:
            tx.log_step("a", step(1, key="k1"))
            tx.log_step("b", step(2, key="k2"))
        assert tx.receipt_of("a") == known
        assert tx.receipt == tx.receipt_of("b")
        assert [await numbers(memory, name) for name in "ab"] == [[1], [2]]


@pytest.mark.parametrize("mixed", [[1, 2], [2, 1]])
async def test_known_and_new_keys_in_one_episode_store_nothing(mixed: list[int]) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await start(memory)
        await memory.log_step("b", step(1, key="k1"))
        with pytest.raises(InvalidState, match="some were not"):
            await keyed(memory, a=[1], b=mixed)
        tx = memory.atomic()
        with pytest.raises(InvalidState, match="some were not"):
            async with tx:
                tx.log_step("b", step(1, key="k1"))
                tx.log_step("b", step(2))
        tx = memory.atomic()
        with pytest.raises(InvalidState, match="another step"):
            async with tx:
                tx.log_step("a", step(1))
                tx.log_step("b", step(5, key="k1"))
        assert [await numbers(memory, name) for name in "ab"] == [[], [1]]


# ---- beside others ---------------------------------------------------------------------------------------------------


async def test_others_wait_while_a_transaction_holds_an_episode_and_come_behind_it() -> None:
    """Held back by a step of "b" on its way to the medium: "a" is locked, and nothing is submitted yet."""
    disk = MemoryFileSystem()
    async with open_on(disk, MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            before = await memory.log_step("b", step(0))

            async def transact() -> None:
                async with memory.atomic() as tx:
                    for name in NAMES:
                        tx.log_steps(name, [step(1), step(2)])

            async def log_behind() -> None:
                assert (await memory.log_step("a", step(3))).seq == 4
                assert (await memory.log_steps("a", [step(4), step(5)])).seq == 6
                assert (await memory.log_step("b", step(3))).seq == 5
                await memory.complete_episode("a", Success())

            nursery.start_soon(transact)
            await wait_all_tasks_blocked()
            nursery.start_soon(log_behind)
            await wait_all_tasks_blocked()
            assert [memory._supervisor.cells[name].locked for name in NAMES] == [True, True, True]
            for name in NAMES:
                with pytest.raises(Busy, match="transaction"):
                    memory.handle(name).log_step_nowait(step(9))
            assert not before.is_durable
            go_on.set()
    assert await recovered(disk) == [[1, 2, 3, 4, 5], [0, 1, 2, 3], [1, 2]]


async def test_completing_an_episode_that_a_transaction_holds_waits_for_it() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk, MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            await memory.log_step("b", step(0))

            async def transact() -> None:
                async with memory.atomic() as tx:
                    for name in NAMES:
                        tx.log_step(name, step(1))

            nursery.start_soon(transact)
            await wait_all_tasks_blocked()
            nursery.start_soon(memory.complete_episode, "a", Success())
            await wait_all_tasks_blocked()
            go_on.set()
    assert await recovered(disk) == [[1], [0, 1], [1]]


async def test_once_submitted_a_transaction_holds_nobody_up() -> None:
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            tx = memory.atomic()

            async def transact() -> None:
                async with tx:
                    for name in NAMES:
                        tx.log_step(name, step(1))

            nursery.start_soon(transact)
            await wait_all_tasks_blocked()
            assert tx.receipt is not None
            assert not tx.receipt.is_durable
            assert memory.handle("a").log_step_nowait(step(2)).seq == 3
            go_on.set()
        assert await numbers(memory, "a") == [1, 2]


async def test_transactions_over_overlapping_episodes_never_wait_for_each_other_in_a_circle() -> None:
    disk = MemoryFileSystem()
    rng = random.Random(20261122)
    names = "abcdef"
    expected: dict[str, int] = dict.fromkeys(names, 0)
    frames: dict[str, list[tuple[str, int]]] = {}
    async with open_on(disk, MemoryConfig(mailbox_size=3, segment_bytes=SEGMENT_BYTES)) as memory:
        await start(memory, *names)

        async def transact(task: int) -> None:
            for number in range(12):
                chosen = rng.sample(names, rng.randrange(2, 5))
                async with memory.atomic() as tx:
                    for name in chosen:
                        tx.log_step(name, step(0, metadata={"tx": f"{task}.{number}"}))
                for name in chosen:
                    expected[name] += 1

        async def log(name: str) -> None:
            for number in range(40):
                await memory.log_step(name, step(number, metadata={"tx": ""}))

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                for task in range(8):
                    nursery.start_soon(transact, task)
                for name in names:
                    nursery.start_soon(log, name)
        for name in names:
            found = (await memory.get_episode(name)).steps
            logged = [item.parameters["n"] for item in found if not item.metadata["tx"]]
            assert logged == list(range(40))
            assert len(found) == 40 + expected[name]
        for name in names:
            async for event in memory.events(name):
                if event.kind == "step":
                    frames.setdefault(event.data["metadata"]["tx"], []).append((name, event.lsn))
        del frames[""]
        assert len(frames) == 8 * 12
        for parts in frames.values():
            lsns = sorted(lsn for _name, lsn in parts)
            assert lsns == list(range(lsns[0], lsns[0] + len(parts)))  # beside each other, as in one frame


# ---- when things fail ------------------------------------------------------------------------------------------------


class Medium:
    """A disk in memory whose next calls of one kind can fail."""

    def __init__(self) -> None:
        self.disk = MemoryFileSystem()
        self.failing: dict[str, int] = {}
        self.times = 0
        self.files = HookedFileSystem(self.disk, self.hook)

    def fail(self, code: int, *calls: str, times: int = 1_000_000) -> None:
        self.failing, self.times = dict.fromkeys(calls, code), times

    def mend(self) -> None:
        self.failing = {}

    def hook(self, call: str, path: str) -> None:
        if call == "write" and self.failing.get(call) == errno.ENOSPC and self.disk.stat(f"{LOG}/reserve") is None:
            return  # the reserve was given up for it
        if call in self.failing and self.times:
            self.times -= 1
            raise OSError(self.failing[call], "injected")


async def test_a_sync_that_fails_leaves_all_of_it_or_nothing_and_the_same_keys_settle_it() -> None:
    medium = Medium()
    async with open_on(medium.files) as memory:
        await start(memory)
        medium.fail(errno.EIO, "datasync", times=1)
        with pytest.raises(OutcomeUnknown):
            await keyed(memory, a=[1], b=[2, 3], c=[4])
        receipt = await keyed(memory, a=[1], b=[2, 3], c=[4])
        assert receipt is not None
        assert [await numbers(memory, name) for name in NAMES] == [[1], [2, 3], [4]]
        assert (await memory.log_step("b", step(5))).seq == 4
    assert await recovered(medium.disk) == [[1], [2, 3, 5], [4]]


async def test_a_failed_transaction_takes_what_was_accepted_behind_it_along_and_no_other_episode() -> None:
    medium = Medium()
    async with open_on(medium.files, MANUAL) as memory:
        await start(memory, "a", "b", "c", "d")
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            tx = memory.atomic()

            async def transact() -> None:
                with pytest.raises(OutcomeUnknown):
                    async with tx:
                        for name in "abc":
                            tx.log_step(name, step(1, key="k"))

            nursery.start_soon(transact)
            await wait_all_tasks_blocked()
            behind = memory.handle("a").log_step_nowait(step(2))
            other = memory.handle("d").log_step_nowait(step(3))
            medium.fail(errno.EIO, "datasync", times=1)
            go_on.set()
        with pytest.raises(OutcomeUnknown):
            await behind.wait_durable()
        await other.wait_durable()
        assert tx.receipt is not None
        with pytest.raises(OutcomeUnknown):
            await tx.receipt.wait_durable()
        assert [await numbers(memory, name) for name in "abcd"] == [[], [], [], [3]]
        assert (await memory.log_step("a", step(1, key="k"))).seq == 2  # its key is free again
    assert await recovered(medium.disk, *"abcd") == [[1], [], [], [3]]


async def test_on_a_full_disk_a_transaction_is_refused_and_stored_once_there_is_room(
    autojump_clock: MockClock,
) -> None:
    medium = Medium()
    async with open_on(medium.files) as memory:
        await start(memory)
        medium.fail(errno.ENOSPC, "write", "allocate")
        for _ in range(2):
            with pytest.raises(LogFull):
                await keyed(memory, a=[1], b=[2])
        medium.mend()
        await trio.sleep(20)
        assert await recovered(medium.disk.durable_copy()) == [[], [], []]
        assert await keyed(memory, a=[1], b=[2]) is not None
    assert await recovered(medium.disk) == [[1], [2], []]


async def test_when_the_log_is_lost_the_outcome_is_unknown_and_the_next_one_is_closed() -> None:
    medium = Medium()
    with pytest.raises(OSError, match="injected"):
        async with open_on(medium.files) as memory:
            await start(memory)
            medium.fail(errno.EIO, "datasync", "create")
            with pytest.raises(OutcomeUnknown):
                await keyed(memory, a=[1], b=[2])
            tx = memory.atomic()
            with pytest.raises(Closed):
                async with tx:
                    raise AssertionError("entered")
    medium.mend()
    assert await recovered(medium.disk) in ([[], [], []], [[1], [2], []])


async def test_a_log_lost_between_entering_and_leaving_is_closed() -> None:
    medium = Medium()
    with pytest.raises(OSError, match="injected"):
        async with open_on(medium.files) as memory:
            await start(memory)
            tx = memory.atomic()
            with pytest.raises(Closed):
                async with tx:
                    tx.log_step("a", step(1))
                    medium.fail(errno.EIO, "datasync", "create")
                    with pytest.raises(OutcomeUnknown):
                        await (await memory.log_step("b", step(1))).wait_durable()
            assert tx.receipt is None


async def test_an_incarnation_that_crashes_under_a_transaction_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """One before the submission, while its episode is locked, and one behind it."""
    disk = MemoryFileSystem()

    async def crash(memory: Memory, name: str) -> None:
        cell = memory._supervisor.cells[name]
        cell.failure = RuntimeError("injected")
        cell.wake()
        await wait_all_tasks_blocked()
        assert cell.state.value == "waking"

    async with open_on(disk, MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            await memory.log_step("b", step(0))
            nursery.start_soon(lambda: keyed(memory, a=[1], b=[2], c=[3]))
            await wait_all_tasks_blocked()
            await crash(memory, "a")
            go_on.set()
        assert await numbers(memory, "a") == [1]
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: keyed(memory, a=[4], b=[5], c=[6]))
            await wait_all_tasks_blocked()
            await crash(memory, "c")
            go_on.set()
        assert memory._supervisor.cells["a"].restarts == 1
    assert await recovered(disk) == [[1, 4], [0, 2, 5], [3, 6]]


async def test_an_episode_parked_while_a_transaction_is_at_the_journal_hurts_nobody_else() -> None:
    """It has given its part up as unknown when the result comes; the writer must not stumble over that."""
    disk = MemoryFileSystem()
    async with open_on(disk, MANUAL, restarts=RestartPolicy(park_after=1)) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            tx = memory.atomic()

            async def transact() -> None:
                with pytest.raises(OutcomeUnknown, match="parked"):
                    async with tx:
                        for name in NAMES:
                            tx.log_step(name, step(1))

            nursery.start_soon(transact)
            await wait_all_tasks_blocked()
            cell = memory._supervisor.cells["b"]
            cell.failure = RuntimeError("injected")
            cell.wake()
            await wait_all_tasks_blocked()
            assert cell.state.value == "parked"
            go_on.set()
        assert (await memory.log_step("a", step(2))).seq == 3
        with pytest.raises(EpisodeUnavailable):
            await memory.log_step("b", step(2))
    assert await recovered(disk) == [[1, 2], [1], [1]]


async def test_an_episode_whose_log_was_damaged_meanwhile_refuses_the_whole_transaction() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await start(memory)
    await force_into_log(disk, Batch(stream_id("episode", "b"), 2, [b"\xff no record"], 0))
    async with open_on(disk) as memory:
        with pytest.raises(EpisodeUnavailable):
            await keyed(memory, a=[1], b=[2])
        assert await numbers(memory, "a") == []


# ---- crashes ---------------------------------------------------------------------------------------------------------


async def test_whatever_a_crash_leaves_at_any_call_of_the_file_layer_it_is_all_of_it_or_nothing() -> None:
    """At every call while a transaction is committed beside other steps: power cuts with nothing, or a random part, of
    what was not synced, and the death of the process alone."""
    disk = MemoryFileSystem()
    rng = random.Random(4)
    images: list[tuple[str, MemoryFileSystem]] = []

    def look(call: str, path: str) -> None:
        if committing:
            images.append((f"{call} {path}, power cut", disk.durable_copy()))
            images.append((f"{call} {path}, death", disk.page_cache_copy()))
            for number in range(6):
                images.append((f"{call} {path}, power cut {number}", disk.crash_copy(rng.randrange)))

    committing = False
    async with open_on(HookedFileSystem(disk, look), MANUAL) as memory:
        await start(memory)
        await memory.log_step("b", step(0))
        committing = True
        async with memory.atomic() as tx:
            tx.log_steps("a", [step(1, thought="x" * 2_000), step(2)])
            tx.log_step("b", step(3, thought="y" * 2_000))
            tx.log_step("c", step(4))
        committing = False
        acknowledged = disk.durable_copy()
    outcomes = set()
    for where, image in images:
        found = await recovered(image)
        assert found in ([[], [], []], [[], [0], []], [[1, 2], [0, 3], [4]]), where
        outcomes.add(len(found[0]))
    assert outcomes == {0, 2}
    assert await recovered(acknowledged) == [[1, 2], [0, 3], [4]]


# ---- cancelled at any moment -----------------------------------------------------------------------------------------


class CancelAtAnyStep(trio.abc.Instrument):
    """Cancels a scope before the k-th step of any task of the run."""

    def __init__(self, steps: int, scope: trio.CancelScope):
        self._left, self._scope = steps, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def transact_cancelled(memory: Memory, steps: int, tx: AtomicScope) -> bool:
    with trio.CancelScope() as scope:
        instrument = CancelAtAnyStep(steps, scope)
        if steps == 0:
            scope.cancel()
        trio.lowlevel.add_instrument(instrument)
        try:
            async with tx:
                for number, name in enumerate(NAMES):
                    tx.log_step(name, step(100 + number, key="mine"))
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def test_cancelled_at_any_step_of_the_scheduler_it_is_whole_and_loses_nobody_elses_steps() -> None:
    """One episode is asleep, one has a step that nobody waits for, and to one of them another task logs meanwhile."""
    steps, cancelled, seen = 0, True, set[bool]()
    while cancelled:
        disk = MemoryFileSystem()
        async with open_on(disk) as memory:
            await start(memory)
        with trio.fail_after(100):
            async with open_on(disk, MemoryConfig(mailbox_size=2, segment_bytes=SEGMENT_BYTES)) as memory:
                await memory.log_step("b", step(0))
                receipts: list[Receipt] = []

                async def log(memory: Memory = memory, receipts: list[Receipt] = receipts) -> None:
                    for number in range(1, 8):
                        receipts.append(await memory.log_step("b", step(number)))

                tx = memory.atomic()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(log)
                    cancelled = await transact_cancelled(memory, steps, tx)
                assert not any(cell.locked for cell in memory._supervisor.cells.values())
                is_submitted = tx.receipt is not None
                assert is_submitted or cancelled
                assert [receipt.seq for receipt in receipts] == sorted(receipt.seq for receipt in receipts)
        found = await recovered(disk)
        mine = [[n for n in part if n >= 100] for part in found]
        assert mine == ([[100], [101], [102]] if is_submitted else [[], [], []])
        assert [n for n in found[1] if n < 100] == list(range(8))
        seen.add(is_submitted)
        async with open_on(disk) as memory:  # what the caller does about it
            async with memory.atomic() as tx:
                for number, name in enumerate(NAMES):
                    tx.log_step(name, step(100 + number, key="mine"))
            for number, name in enumerate(NAMES):
                assert (await numbers(memory, name)).count(100 + number) == 1
        steps += 1
    assert steps > 30
    assert seen == {True, False}


async def test_cancelled_behind_the_submission_it_is_stored_and_the_receipt_tells() -> None:
    disk = MemoryFileSystem()
    async with open_on(disk, MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on:
            tx = memory.atomic()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cancel_when_blocked, scope)
                    async with tx:
                        for name in NAMES:
                            tx.log_step(name, step(1))
            assert scope.cancelled_caught
            assert tx.receipt is not None
            go_on.set()
            await tx.receipt.wait_durable()
        assert await numbers(memory, "c") == [1]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_cancelled_while_it_waits_for_another_transaction_it_leaves_the_other_alone() -> None:
    async with open_on(MemoryFileSystem(), MANUAL) as memory:
        await start(memory)
        async with stuck_writer(memory) as go_on, trio.open_nursery() as nursery:
            await memory.log_step("b", step(0))
            nursery.start_soon(lambda: keyed(memory, a=[1], b=[2]))
            await wait_all_tasks_blocked()
            for steps in range(1, 4):
                with trio.move_on_after(0.01 * steps):
                    await keyed(memory, b=[3], c=[4])
                cell: EpisodeCell = memory._supervisor.cells["b"]
                assert cell.locked
                assert not memory._supervisor.cells["c"].locked
            go_on.set()
        assert [await numbers(memory, name) for name in NAMES] == [[1], [0, 2], []]


# ---- closing ---------------------------------------------------------------------------------------------------------


async def test_a_transaction_at_the_journal_when_the_memory_closes_is_stored() -> None:
    disk = MemoryFileSystem()
    receipts: list[Receipt | None] = []

    async def transact(memory: Memory) -> None:
        receipts.append(await keyed(memory, a=[1], b=[2], c=[3]))

    async with trio.open_nursery() as nursery:
        async with open_on(disk) as memory:
            await start(memory)
            async with stuck_writer(memory):
                nursery.start_soon(transact, memory)
                await wait_all_tasks_blocked()
                assert memory._supervisor.cells["a"].pending_commits
    assert [receipt.is_durable for receipt in receipts if receipt is not None] == [True]
    assert await recovered(disk) == [[1], [2], [3]]


async def test_a_transaction_that_waits_when_the_memory_closes_is_refused_and_nothing_of_it_is_stored() -> None:
    disk = MemoryFileSystem()
    refused: list[StepwellError] = []

    async def transact(memory: Memory) -> None:
        try:
            await keyed(memory, a=[1], b=[2], c=[3])
        except Closed as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        async with open_on(disk) as memory:
            await start(memory)
            async with stuck_writer(memory):
                await memory.log_step("b", step(0))
                nursery.start_soon(transact, memory)
                await wait_all_tasks_blocked()
                assert memory._supervisor.cells["a"].locked
                memory._supervisor.stop_intake()
    assert len(refused) == 1
    assert await recovered(disk) == [[], [0], []]


async def test_a_transaction_that_outlasts_the_grace_is_unknown(autojump_clock: MockClock) -> None:
    disk = MemoryFileSystem()
    unknown: list[StepwellError] = []

    async def transact(memory: Memory) -> None:
        try:
            await keyed(memory, a=[1], b=[2], c=[3])
        except OutcomeUnknown as error:
            unknown.append(error)

    async with trio.open_nursery() as nursery:
        with pytest.raises(KeyError):
            async with open_on(disk, MemoryConfig(grace_seconds=1, segment_bytes=SEGMENT_BYTES)) as memory:
                await start(memory)
                writer_of(memory)._worker.run = never  # type: ignore[method-assign,assignment]
                nursery.start_soon(transact, memory)
                await wait_all_tasks_blocked()
                raise KeyError("body")
    assert len(unknown) == 1
    assert await recovered(disk) == [[], [], []]


async def never(*_call: object) -> None:
    """A call of the file layer that does not come back."""
    await trio.sleep_forever()


async def test_stepping_through_a_commit_the_calling_task_can_be_cancelled_at_each_of_its_steps() -> None:
    """As above, counted in steps of the calling task alone, until the call gets through."""
    steps, cancelled = 0, True
    while cancelled:
        async with open_on(MemoryFileSystem()) as memory:
            await start(memory)
            tx = memory.atomic()

            async def call(tx: AtomicScope = tx) -> None:
                async with tx:
                    for name in NAMES:
                        tx.log_step(name, step(1))

            cancelled = await cancelled_at_step(steps, call)
            is_submitted = tx.receipt is not None
            assert not any(cell.locked for cell in memory._supervisor.cells.values())
            assert [await numbers(memory, name) for name in NAMES] == [[1] if is_submitted else []] * 3
        steps += 1
    assert steps > 5


async def test_what_is_changed_behind_its_staging_is_stored_as_it_was_staged() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        args: dict[str, Any] = {"list": [1]}
        calls: list[Any] = [{"id": "a", "args": [1]}]
        async with memory.atomic() as tx:
            tx.record("r", events.ToolCall(name="search", args=args, result=events.ToolOk(value=args)))
            tx.append("t", Message(Role.ASSISTANT, "", calls))
            args["list"].append(object())
            calls[0]["args"].append(2)
        (found,) = await memory.episodic.replay("r")
        assert found == events.ToolCall(name="search", args={"list": [1]}, result=events.ToolOk(value={"list": [1]}))
        assert (await memory.short_term.load("t", 1_000))[0].tool_calls == [{"id": "a", "args": [1]}]
