"""An append that names the record it is to come behind is accepted there or not at all."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import pytest
import trio

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import EpisodeHandle, ExecutionStep, InvalidInput, InvalidState, Memory, MemoryConfig, Receipt
from tests.support import SEGMENT_BYTES, open_on, step

Append = Callable[[Memory, ExecutionStep, int | None], Awaitable[Receipt | None]]


async def nowait(memory: Memory, item: ExecutionStep, expected_seq: int | None) -> Receipt:
    await memory.resume("e")
    return memory.handle("e").log_step_nowait(item, expected_seq=expected_seq)


async def atomic(memory: Memory, item: ExecutionStep, expected_seq: int | None) -> Receipt | None:
    async with memory.atomic() as tx:
        tx.log_step("e", item, expected_seq=expected_seq)
    return tx.receipt


async def atomic_steps(memory: Memory, item: ExecutionStep, expected_seq: int | None) -> Receipt | None:
    async with memory.atomic() as tx:
        tx.log_steps("e", [item], expected_seq=expected_seq)
    return tx.receipt


APPENDS: dict[str, Append] = {
    "handle.log_step": lambda m, item, n: m.handle("e").log_step(item, expected_seq=n),
    "handle.log_steps": lambda m, item, n: m.handle("e").log_steps([item], expected_seq=n),
    "handle.log_step_nowait": nowait,
    "memory.log_step": lambda m, item, n: m.log_step("e", item, expected_seq=n),
    "memory.log_steps": lambda m, item, n: m.log_steps("e", [item], expected_seq=n),
    "tx.log_step": atomic,
    "tx.log_steps": atomic_steps,
}


def seq_of(receipt: Receipt | None) -> int:
    assert receipt is not None
    return receipt.seq


@pytest.mark.parametrize("name", APPENDS)
async def test_it_is_accepted_behind_the_record_named_and_refused_elsewhere(name: str) -> None:
    append = APPENDS[name]
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="e")
        seen = seq_of(await append(memory, step(1), 1))
        assert seen == 2
        seen = seq_of(await append(memory, step(2), seen))
        for wrong in (0, 1, 2, 4, 1_000_000):
            with pytest.raises(InvalidState, match=rf"seq 3, and {wrong} was expected"):
                await append(memory, step(9), wrong)
        assert seq_of(await append(memory, step(3), None)) == 4
        assert [item.action for item in (await memory.get_episode("e")).steps] == [f"action {n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("name", APPENDS)
async def test_what_is_no_number_of_a_record_is_refused(name: str) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("task", episode_id="e")
        for wrong in (-1, 1.0, "1", True):
            with pytest.raises(InvalidInput, match="expected_seq"):
                await APPENDS[name](memory, step(1), wrong)  # type: ignore[arg-type]
        assert (await memory.get_episode("e")).steps == []


@pytest.mark.parametrize("name", APPENDS)
async def test_a_known_key_gets_its_first_receipt_whatever_is_expected(name: str) -> None:
    append = APPENDS[name]
    disk = MemoryFileSystem()
    async with open_on(disk) as memory:
        await memory.start_episode("task", episode_id="e")
        first = await append(memory, step(1, key="k"), 1)
        await memory.log_step("e", step(2))
        assert await append(memory, step(1, key="k"), 1) == first
        with pytest.raises(InvalidState, match="another step"):
            await append(memory, step(5, key="k"), 3)
    async with open_on(disk) as memory:
        assert seq_of(await append(memory, step(1, key="k"), 77)) == 2
        with pytest.raises(InvalidState, match="seq 3, and 2 was expected"):
            await append(memory, step(3, key="new"), 2)
        assert seq_of(await append(memory, step(3, key="new"), 3)) == 4


async def test_of_two_that_expect_the_same_record_one_is_accepted() -> None:
    """However full the mailbox was when they came."""
    async with open_on(MemoryFileSystem(), MemoryConfig(mailbox_size=2, segment_bytes=SEGMENT_BYTES)) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        accepted = refused = 0

        async def race(handle: EpisodeHandle) -> None:
            nonlocal accepted, refused
            seen = 1
            for number in range(20):
                try:
                    seen = (await handle.log_step(step(number), expected_seq=seen)).seq
                except InvalidState as error:
                    refused += 1
                    seen = int(str(error).split("seq ")[1].split(",")[0])
                else:
                    accepted += 1

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(race, handle)
        assert accepted + refused == 100
        assert refused > 0
        assert len((await handle.get()).steps) == accepted


async def test_a_batch_is_expected_as_a_whole_and_refused_as_a_whole() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        assert (await handle.log_steps([step(1), step(2)], expected_seq=1)).seq == 3
        with pytest.raises(InvalidState):
            await handle.log_steps([step(3), step(4)], expected_seq=2)
        assert len((await handle.get()).steps) == 2


async def test_one_episode_elsewhere_refuses_the_whole_transaction() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for name in "ef":
            await memory.start_episode("task", episode_id=name)
        await memory.log_step("f", step(0))
        stage: Callable[[int], Awaitable[Receipt | None]] = functools.partial(both, memory)
        with pytest.raises(InvalidState, match="'f' ends with seq 2, and 1 was expected"):
            await stage(1)
        assert (await memory.get_episode("e")).steps == []
        assert seq_of(await stage(2)) == 4


async def both(memory: Memory, expected_of_f: int) -> Receipt | None:
    """Two steps each; what is expected is the end of the episode before the transaction, for the second as well."""
    async with memory.atomic() as tx:
        tx.log_step("e", step(1), expected_seq=1)
        tx.log_step("f", step(2), expected_seq=expected_of_f)
        tx.log_step("e", step(3), expected_seq=1)
        tx.log_step("f", step(4))
    return tx.receipt
