"""Each call of a memory over a journal that fails, refuses, hangs or loses the acknowledgement.

What the caller is told, what is stored, that the same call again leaves exactly one copy, and that nobody else notices.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stepwell import (
    Closed,
    EpisodeUnavailable,
    ExecutionStep,
    Failure,
    InvalidState,
    LogFull,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    Receipt,
    Success,
)
from stepwell.testing import MemoryJournal, Submitted, open_memory_on
from tests.support import step

Policy = Literal["fail", "reject", "lose_ack"]
POLICIES: list[Policy] = ["fail", "reject", "lose_ack"]


@dataclass(frozen=True)
class Call:
    """A call on episode "e" (or one that makes "new"), and how many copies of what it stores there are."""

    make: Callable[[Memory], Awaitable[object]]
    kind: str
    copies: Callable[[MemoryJournal], int]
    durability: Literal["receipt", "commit"] = "receipt"
    refusal: type[Exception] = LogFull
    """What the caller is told when the journal refuses: a receipt was given already, so it can only be unknown."""


def keyed(journal: MemoryJournal, *keys: str) -> int:
    """How often steps with these keys stand there, in this order and next to each other."""
    found = [record.key for record in journal.records("e")]
    times = found.count(keys[0])
    at = 0
    for _ in range(times):
        at = found.index(keys[0], at) + 1
        assert tuple(found[at - 1 : at - 1 + len(keys)]) == keys
    assert [found.count(key) for key in keys] == [times] * len(keys)
    return times


def of_kind(journal: MemoryJournal, episode_id: str, kind: str) -> int:
    return [record.kind for record in journal.records(episode_id)].count(kind)


async def log_step(memory: Memory) -> None:
    await (await memory.log_step("e", step(1, key="k"))).wait_durable()


async def log_step_at_once(memory: Memory) -> None:
    assert (await memory.log_step("e", step(1, key="k"))).is_durable


async def log_steps(memory: Memory) -> None:
    await (await memory.log_steps("e", [step(1, key="k1"), step(2, key="k2")])).wait_durable()


async def log_steps_at_once(memory: Memory) -> None:
    assert (await memory.log_steps("e", [step(1, key="k1"), step(2, key="k2")])).is_durable


async def flush_one(memory: Memory) -> None:
    await memory.log_step("e", step(1, key="k"))
    await memory.flush_steps("e")


async def flush_all(memory: Memory) -> None:
    await memory.log_step("e", step(1, key="k"))
    await memory.flush()


async def complete(memory: Memory) -> None:
    done = await memory.complete_episode("e", Success("well"))
    assert done.outcome == Success("well")
    assert done.receipt.is_durable
    assert done.reward is not None


async def start(memory: Memory) -> None:
    assert (await memory.start_episode("a task", episode_id="new")).id == "new"


CALLS = {
    "log_step": Call(log_step, "step", lambda journal: keyed(journal, "k"), refusal=OutcomeUnknown),
    "log_steps": Call(log_steps, "step", lambda journal: keyed(journal, "k1", "k2"), refusal=OutcomeUnknown),
    "log_step, commit": Call(log_step_at_once, "step", lambda journal: keyed(journal, "k"), "commit"),
    "log_steps, commit": Call(log_steps_at_once, "step", lambda journal: keyed(journal, "k1", "k2"), "commit"),
    "flush_steps": Call(flush_one, "step", lambda journal: keyed(journal, "k")),
    "flush": Call(flush_all, "step", lambda journal: keyed(journal, "k")),
    "complete": Call(complete, "ended", lambda journal: of_kind(journal, "e", "ended")),
    "start_episode": Call(start, "started", lambda journal: of_kind(journal, "new", "started")),
    "delete_episode": Call(
        lambda memory: memory.delete_episode("e"), "deleted", lambda journal: int(not journal.records("e"))
    ),
}


def meant_for(call: Call) -> Callable[[Submitted], bool]:
    return lambda submitted: call.kind in submitted.kinds and "other" not in submitted.ids


def ask(journal: MemoryJournal, policy: Policy, when: Callable[[Submitted], bool], n: int = 1) -> None:
    {"fail": journal.fail_next, "reject": journal.reject_next, "lose_ack": journal.lose_ack_next}[policy](n, when)


def two_episodes() -> MemoryJournal:
    journal = MemoryJournal()
    journal.preload("e", [step(0)])
    journal.preload("other", [step(0)])
    return journal


def other_actions(journal: MemoryJournal) -> list[str]:
    return [item.action for item in journal.steps("other")]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("policy", POLICIES)
async def test_the_caller_is_told_and_the_same_call_again_leaves_one_copy(
    policy: Policy, name: str, autojump_clock: MockClock
) -> None:
    call, journal = CALLS[name], two_episodes()
    config = MemoryConfig(durability=call.durability)
    with trio.fail_after(1_000):
        async with open_memory_on(journal, config) as memory:
            around = [await memory.log_step("other", step(1))]
            ask(journal, policy, meant_for(call))
            with pytest.raises(call.refusal if policy == "reject" else OutcomeUnknown):
                await call.make(memory)
            assert journal.policies_left == 0
            assert call.copies(journal) == (1 if policy == "lose_ack" else 0)
            around.append(await memory.log_step("other", step(2)))
            await call.make(memory)
            assert call.copies(journal) == 1
            await call.make(memory)
            assert call.copies(journal) == 1
        assert all(receipt.is_durable for receipt in around)
        assert other_actions(journal) == ["action 0", "action 1", "action 2"]
        async with open_memory_on(journal.after_crash(), config) as memory:
            await call.make(memory)
        async with open_memory_on(journal, config) as memory:
            await call.make(memory)
        assert call.copies(journal) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_a_caller_over_a_hanging_journal_waits_and_may_be_cancelled_and_it_is_stored_once(
    name: str, autojump_clock: MockClock
) -> None:
    call, journal = CALLS[name], two_episodes()
    returned: list[str] = []

    async def make(memory: Memory) -> None:
        await call.make(memory)
        returned.append(name)

    with trio.fail_after(1_000):
        async with open_memory_on(journal, MemoryConfig(durability=call.durability)) as memory:
            journal.hang_next(when=meant_for(call))
            with trio.move_on_after(10) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(make, memory)
                    await journal.wait_hanging()
            assert scope.cancelled_caught
            assert (returned, call.copies(journal)) == ([], 0)
            behind = memory.handle("other")
            receipt: Receipt | None = None
            with trio.move_on_after(1):
                receipt = await behind.log_step(step(1))
                await receipt.wait_durable()
            assert receipt is None or not receipt.is_durable  # everything waits for a dead disk
            async with trio.open_nursery() as nursery:
                nursery.start_soon(make, memory)
                await trio.sleep(1)
                assert returned == []
                journal.release()
            assert (returned, call.copies(journal)) == ([name], 1)
        async with open_memory_on(journal) as memory:
            assert other_actions(journal)[:1] == ["action 0"]
            await (await memory.log_step("other", step(2))).wait_durable()
        assert other_actions(journal).count("action 1") == 1
        assert call.copies(journal) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_closing_over_a_hanging_journal_ends_with_its_release_and_says_what_is_not_known(
    name: str, autojump_clock: MockClock
) -> None:
    """As with a dead disk: past the grace it waits for the system call, whose result counts; what waits behind that is
    unknown."""
    call, journal = CALLS[name], two_episodes()
    behind: list[Receipt] = []

    async def release_late() -> None:
        await journal.wait_hanging()
        await trio.sleep(100)
        journal.release()

    with trio.fail_after(1_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(release_late)
            journal.hang_next(when=meant_for(call))
            with trio.CancelScope() as scope:
                config = MemoryConfig(grace_seconds=2, durability=call.durability)
                async with open_memory_on(journal, config) as memory:
                    await (await memory.log_step("other", step(1))).wait_durable()
                    async with trio.open_nursery() as calls:
                        calls.start_soon(call.make, memory)
                        await journal.wait_hanging()
                        behind.append(memory.handle("other").log_step_nowait(step(2)))
                        scope.cancel()
            assert scope.cancelled_caught
            assert trio.current_time() >= 100
    with pytest.raises(OutcomeUnknown):
        await behind[0].wait_durable()
    assert call.copies(journal) == 1  # the one that hung
    assert other_actions(journal) == ["action 0", "action 1"]
    async with open_memory_on(journal) as memory:
        await call.make(memory)
        assert call.copies(journal) == 1


@pytest.mark.parametrize("policy", POLICIES)
async def test_what_others_sent_in_the_same_turn_is_stored(policy: Policy, autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    for number in range(20):
        journal.preload(f"e{number}")
    results: dict[str, bool] = {}

    async def log(memory: Memory, name: str) -> None:
        receipt = await memory.log_step(name, step(1, key="k"))
        with suppress(OutcomeUnknown):
            await receipt.wait_durable()
        results[name] = receipt.is_durable

    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "e7" in submitted.ids)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(log, memory, f"e{number}")
        assert [name for name, is_durable in results.items() if not is_durable] == ["e7"]
        assert len(journal.steps("e7")) == (policy == "lose_ack")
        await log(memory, "e7")
    assert all(len(journal.steps(f"e{number}")) == 1 for number in range(20))


@pytest.mark.parametrize("policy", POLICIES)
async def test_everything_accepted_behind_a_failure_shares_its_fate_and_can_be_sent_again(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        journal.hang_next(when=lambda submitted: "k0" in submitted.keys)
        ask(journal, policy, lambda submitted: "k0" in submitted.keys)
        handle = memory.handle("e")
        first = await handle.log_step(step(0, key="k0"))
        await journal.wait_hanging()
        rest = [await handle.log_step(step(n, key=f"k{n}")) for n in range(1, 5)]
        journal.release()
        for receipt in (first, *rest):
            with pytest.raises(OutcomeUnknown):
                await receipt.wait_durable()
        again = [await handle.log_step(step(n, key=f"k{n}")) for n in range(5)]
        await again[-1].wait_durable()
        assert [receipt.seq for receipt in again] == [3, 4, 5, 6, 7]
    assert [item.key for item in journal.steps("e")] == [None, "k0", "k1", "k2", "k3", "k4"]


async def test_a_lost_acknowledgement_is_found_again_in_the_next_life() -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        journal.lose_ack_next()
        lost = await memory.log_step("e", step(1, key="k"))
        with pytest.raises(OutcomeUnknown):
            await lost.wait_durable()
        survivor = journal.after_crash()
    async with open_memory_on(survivor) as memory:
        again = await memory.log_step("e", step(1, key="k"))
        assert again.is_durable
        assert again.seq == lost.seq
        with pytest.raises(InvalidState):
            await memory.log_step("e", step(2, key="k"))
    survivor.expect_step("e", step(1, key="k"))


@pytest.mark.parametrize("policy", ["fail", "reject"])
async def test_a_journal_that_fails_one_episode_for_ever_parks_it_and_the_others_go_on(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "e" in submitted.ids, n=100)
        with pytest.raises(EpisodeUnavailable, match="parked"):
            for number in range(20):
                receipt = await memory.log_step("e", step(number))
                with pytest.raises(OutcomeUnknown):
                    await receipt.wait_durable()
        await (await memory.log_step("other", step(1))).wait_durable()
        assert len((await memory.get_episode("e")).steps) == 1
    async with open_memory_on(journal) as memory:
        journal.clear_policies()
        await (await memory.log_step("e", step(1))).wait_durable()


# ---- the run scope ---------------------------------------------------------------------------------------------------


async def run(memory: Memory) -> None:
    async with memory.episode("a run", episode_id="run") as episode:
        await episode.log_step(step(1, key="k"))
        episode.succeed("fine")


def run_records(journal: MemoryJournal) -> list[str]:
    return [record.kind for record in journal.records("run")]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_whose_start_fails_does_not_run_and_can_be_started_again(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "started" in submitted.kinds)
        with pytest.raises(LogFull if policy == "reject" else OutcomeUnknown):
            await run(memory)
        assert run_records(journal) == (["started"] if policy == "lose_ack" else [])
        await run(memory)
    assert run_records(journal) == ["started", "step", "ended"]


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_whose_steps_may_be_lost_does_not_end_as_a_success(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "step" in submitted.kinds)
        with pytest.raises(LogFull if policy == "reject" else OutcomeUnknown):
            await run(memory)
        assert run_records(journal) == (["started", "step", "ended"] if policy == "lose_ack" else ["started", "ended"])
        assert journal.records("run")[-1].data["outcome"]["kind"] == "failure"


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_whose_ending_alone_is_lost_gets_that_very_ending_once(
    policy: Policy, autojump_clock: MockClock
) -> None:
    """Its steps are durable, so it ended as it believes: the ending is looked for, and written again if missing."""
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "ended" in submitted.kinds, n=2)
        await run(memory)
        assert journal.policies_left == (1 if policy == "lose_ack" else 0)
        assert run_records(journal) == ["started", "step", "ended"]
        assert (await memory.get_episode("run")).outcome == Success("fine")


async def test_a_run_whose_ending_is_lost_again_and_again_says_so_within_the_grace(autojump_clock: MockClock) -> None:
    journal = two_episodes()
    async with open_memory_on(journal, MemoryConfig(grace_seconds=2)) as memory:
        began = trio.current_time()
        ask(journal, "fail", lambda submitted: "ended" in submitted.kinds, n=100)
        with pytest.raises(OutcomeUnknown, match="within the grace"):
            await run(memory)
        assert trio.current_time() - began == pytest.approx(2)
        journal.clear_policies()
        await memory.complete_episode("run", Success("fine"))
    assert run_records(journal) == ["started", "step", "ended"]


async def test_a_run_whose_ending_is_lost_as_the_memory_closes_says_that_it_is_unknown(
    autojump_clock: MockClock,
) -> None:
    journal = two_episodes()
    scope = trio.CancelScope()

    async def leave_the_run(memory: Memory) -> None:
        await memory.start_episode("a run", episode_id="run")
        async with memory.episode("a run", episode_id="run"):
            journal.hang_next(when=lambda submitted: "ended" in submitted.kinds)
            journal.fail_next(when=lambda submitted: "ended" in submitted.kinds)

    async with trio.open_nursery() as outside:
        with scope:
            async with open_memory_on(journal, MemoryConfig(grace_seconds=60)) as memory:

                async def told() -> None:
                    with pytest.raises(OutcomeUnknown, match="fail_next"):
                        await leave_the_run(memory)

                outside.start_soon(told)
                await journal.wait_hanging()
                outside.start_soon(_release, journal)
    assert run_records(journal) == ["started"]


async def _release(journal: MemoryJournal) -> None:
    await trio.sleep(1)  # by then the memory is closing
    journal.release()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_that_failed_anyway_and_lost_steps_ends_as_the_failure_it_was(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "step" in submitted.kinds)
        with pytest.raises(ValueError, match="broken") as caught:
            async with memory.episode("a run", episode_id="run") as episode:
                await episode.log_step(step(1, key="k"))
                raise ValueError("broken")
        (note,) = caught.value.__notes__
        assert "records of episode 'run' could not be written" in note
        assert (await memory.get_episode("run")).outcome == Failure("ValueError: broken")


# ---- several things at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_completion_behind_a_failed_step_is_told_and_says_on_repetition_what_became_of_it(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "step" in submitted.kinds)
        receipt = await memory.log_step("e", step(1, key="k"))
        with pytest.raises(LogFull if policy == "reject" else OutcomeUnknown):
            await memory.complete_episode("e", Success("well"))
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        await log_step(memory)
        await complete(memory)
        with pytest.raises(InvalidState):
            await memory.complete_episode("e", Success("better"))
    assert keyed(journal, "k") == 1


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_deletion_behind_a_failed_step_takes_place(policy: Policy, autojump_clock: MockClock) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        journal.hang_next(when=lambda submitted: "step" in submitted.kinds)
        ask(journal, policy, lambda submitted: "step" in submitted.kinds)
        receipt = await memory.log_step("e", step(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.delete_episode, "e")
            await journal.wait_hanging()
            await trio.testing.wait_all_tasks_blocked()
            journal.release()
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        with pytest.raises(NotFound):
            await memory.get_episode("e")
    assert journal.records("e") == []


@pytest.mark.parametrize("policy", POLICIES)
async def test_of_two_that_start_the_same_episode_one_is_told_and_there_is_one(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    told: list[str] = []

    async def try_to_start(memory: Memory) -> None:
        try:
            await start(memory)
            told.append("started")
        except (OutcomeUnknown, LogFull):
            told.append("failed")

    async with open_memory_on(journal) as memory:
        ask(journal, policy, lambda submitted: "started" in submitted.kinds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_start, memory)
            nursery.start_soon(try_to_start, memory)
        assert sorted(told) == ["failed", "started"]
        await (await memory.log_step("new", step(1))).wait_durable()
    assert [record.kind for record in journal.records("new")] == ["started", "step"]


async def test_an_episode_whose_start_was_stored_and_not_acknowledged_takes_steps() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        journal.lose_ack_next()
        with pytest.raises(OutcomeUnknown):
            await memory.start_episode("a task", episode_id="new")
        await (await memory.log_step("new", step(1))).wait_durable()
        with pytest.raises(InvalidState):
            await memory.start_episode("another task", episode_id="new")
    assert [record.kind for record in journal.records("new")] == ["started", "step"]


async def test_an_id_whose_deletion_was_stored_and_not_acknowledged_stays_taken() -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        journal.lose_ack_next()
        with pytest.raises(OutcomeUnknown):
            await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.log_step("e", step(1))
        with pytest.raises(InvalidState, match="deleted"):
            await memory.start_episode("a task", episode_id="e")
        await memory.delete_episode("e")


async def test_a_cancelled_commit_whose_acknowledgement_is_lost_is_there_once_when_it_is_sent_again(
    autojump_clock: MockClock,
) -> None:
    journal = two_episodes()
    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        journal.hang_next()
        journal.lose_ack_next()
        with trio.move_on_after(1) as scope:
            await log_step_at_once(memory)
        assert scope.cancelled_caught
        journal.release()
        with pytest.raises(OutcomeUnknown):  # it is still on its way, so this is the same receipt
            await log_step_at_once(memory)
        await log_step_at_once(memory)
    assert keyed(journal, "k") == 1


async def test_after_closing_nothing_is_taken_whatever_the_journal_did(autojump_clock: MockClock) -> None:
    journal = two_episodes()
    async with open_memory_on(journal) as memory:
        journal.fail_next()
        receipt = await memory.log_step("e", step(1))
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()
    with pytest.raises(Closed):
        await memory.log_step("e", step(2))


@pytest.mark.parametrize("seed", range(30))
async def test_agents_that_send_again_what_they_do_not_know_leave_each_step_once_and_in_order(
    seed: int, autojump_clock: MockClock
) -> None:
    """A third of everything fails, is refused, or is stored without an acknowledgement."""
    dice = random.Random(seed)
    journal = MemoryJournal()
    episodes, steps_each = 6, 12

    async def persist(call: Callable[[], Awaitable[object]]) -> None:
        for _ in range(100):
            try:
                await call()
            except (OutcomeUnknown, LogFull):
                continue
            return
        raise AssertionError("it was told a hundred times that it is not known")

    async def agent(memory: Memory, name: str) -> None:
        await persist(lambda: memory.start_episode("a task", episode_id=name))
        number = 0
        while number < steps_each:
            count = dice.randint(1, min(4, steps_each - number))
            batch = [step(n, key=f"k{n}") for n in range(number, number + count)]

            async def send(batch: list[ExecutionStep] = batch) -> None:
                if len(batch) == 1:
                    receipt = await memory.log_step(name, batch[0])
                else:
                    receipt = await memory.log_steps(name, batch)
                await receipt.wait_durable()

            await persist(send)
            number += count
        await persist(lambda: memory.complete_episode(name, Success("done")))

    looked_at: list[tuple[Submitted, Policy | None]] = []
    in_a_row: dict[frozenset[str], int] = {}

    def fate_of(submitted: Submitted) -> Policy | None:
        """One throw for each submission; never five misfortunes in a row, since six park the episode."""
        if not looked_at or looked_at[-1][0] is not submitted:
            is_lucky = dice.random() < 2 / 3 or in_a_row.get(submitted.ids, 0) >= 4
            in_a_row[submitted.ids] = 0 if is_lucky else in_a_row.get(submitted.ids, 0) + 1
            looked_at.append((submitted, None if is_lucky else dice.choice(POLICIES)))
        return looked_at[-1][1]

    for policy in POLICIES:
        ask(journal, policy, lambda submitted, policy=policy: fate_of(submitted) == policy, n=10_000)  # type: ignore[misc]
    with trio.fail_after(100_000):
        async with open_memory_on(journal) as memory, trio.open_nursery() as nursery:
            for number in range(episodes):
                nursery.start_soon(agent, memory, f"e{number}")
    assert 3 * 10_000 - journal.policies_left >= 3
    for number in range(episodes):
        kinds = [record.kind for record in journal.records(f"e{number}")]
        assert kinds == ["started", *["step"] * steps_each, "ended"]
        assert [item.key for item in journal.steps(f"e{number}")] == [f"k{n}" for n in range(steps_each)]
