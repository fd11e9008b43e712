"""A write that fails while nobody waits for it is told once: by a receipt that is asked, or else by the next flush,
checkpoint, completion or run scope. Until then it is not forgotten, whatever becomes of the episode meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stepwell import (
    EpisodeUnavailable,
    Failure,
    LogFull,
    Memory,
    MemoryConfig,
    Message,
    NotFound,
    OutcomeUnknown,
    Receipt,
    Role,
    RunId,
    StepwellError,
    Success,
    events,
)
from stepwell.runtime.untold import NAMED
from stepwell.testing import MemoryJournal, Submitted, open_memory_on
from tests.support import step

Policy = Literal["fail", "reject", "lose_ack"]
POLICIES: list[Policy] = ["fail", "reject", "lose_ack"]
ASKING: dict[str, Callable[[Memory], Awaitable[object]]] = {
    "flush": lambda memory: memory.flush(),
    "flush_steps": lambda memory: memory.flush_steps("e"),
    "handle.flush": lambda memory: memory.handle("e").flush(),
    "checkpoint": lambda memory: memory.checkpoint("e", "a place"),
    "complete": lambda memory: memory.complete_episode("e", Success("well")),
    "abandon": lambda memory: memory.abandon("e", "nobody wants it"),
}


def told(policy: Policy) -> type[StepwellError]:
    return LogFull if policy == "reject" else OutcomeUnknown


def of(episode_id: str) -> Callable[[Submitted], bool]:
    return lambda submitted: episode_id in submitted.ids and "step" in submitted.kinds


def ask(journal: MemoryJournal, policy: Policy, episode_id: str = "e", n: int = 1) -> None:
    {"fail": journal.fail_next, "reject": journal.reject_next, "lose_ack": journal.lose_ack_next}[policy](
        n, of(episode_id)
    )


def journal_with(*episode_ids: str) -> MemoryJournal:
    journal = MemoryJournal()
    for episode_id in episode_ids:
        journal.preload(episode_id, [step(0)])
    return journal


async def lose(journal: MemoryJournal, memory: Memory, policy: Policy, episode_id: str = "e", n: int = 3) -> Receipt:
    """Have `n` steps accepted in one batch whose write fails while nobody waits for it."""
    ask(journal, policy, episode_id)
    receipt = await memory.log_steps(episode_id, [step(number) for number in range(n)])
    await trio.sleep(1)  # the flush interval, and the backoff
    assert journal.policies_left == 0
    assert not receipt.is_durable
    assert memory.stats().untold_records >= n
    return receipt


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ASKING)
async def test_the_next_call_that_says_durable_says_what_was_lost_and_only_once(
    name: str, policy: Policy, autojump_clock: MockClock
) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        await lose(journal, memory, policy)
        before = journal.records("e")
        with pytest.raises(told(policy), match="'e': 3 records") as caught:
            await ASKING[name](memory)
        assert ("refused and not stored" in str(caught.value)) == (policy == "reject")
        assert isinstance(caught.value.__cause__, told(policy))
        assert journal.records("e") == before, "nothing is written by a call that raises"
        assert memory.stats().untold_records == 0
        await ASKING[name](memory)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_run_that_lost_steps_earlier_does_not_end_as_a_success(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        with pytest.raises(told(policy), match="3 records"):
            async with memory.episode("a run", episode_id="run") as episode:
                await lose(journal, memory, policy, "run")
                await (await episode.log_step(step(9))).wait_durable()
                episode.succeed("fine")
        outcome = (await memory.get_episode("run")).outcome
        assert isinstance(outcome, Failure)
        assert "3 records" in outcome.reason


async def asks_the_receipt(memory: Memory, receipt: Receipt) -> None:
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()


async def asks_for_the_reason(memory: Memory, receipt: Receipt) -> None:
    with pytest.raises(StepwellError):
        await receipt.reach_log()


async def asks_as_the_doors_do(memory: Memory, receipt: Receipt) -> None:
    with pytest.raises(OutcomeUnknown):
        receipt.check_durable()


@pytest.mark.parametrize("how", [asks_the_receipt, asks_for_the_reason, asks_as_the_doors_do])
@pytest.mark.parametrize("policy", POLICIES)
async def test_what_a_receipt_has_told_is_told(
    policy: Policy, how: Callable[[Memory, Receipt], Awaitable[None]], autojump_clock: MockClock
) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        receipt = await lose(journal, memory, policy)
        for _ in range(2):
            await how(memory, receipt)
            assert memory.stats().untold_records == 0
        await memory.flush()
        await memory.complete_episode("e", Success("well"))


async def test_a_receipt_tells_about_its_batch_only_and_later_of_nothing_else(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        first = await lose(journal, memory, "fail", n=2)
        second = await lose(journal, memory, "fail", n=5)
        assert memory.stats().untold_records == 7
        await asks_the_receipt(memory, first)
        with pytest.raises(OutcomeUnknown, match="'e': 5 records"):
            await memory.flush_steps("e")
        await lose(journal, memory, "fail", n=4)
        await asks_the_receipt(memory, second)  # told by the flush already
        with pytest.raises(OutcomeUnknown, match="'e': 4 records"):
            await memory.flush_steps("e")


async def test_looking_at_a_receipt_or_reading_the_episode_is_no_asking(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        receipt = await lose(journal, memory, "fail")
        assert (receipt.is_durable, receipt.lsn, "failed" in repr(receipt)) == (False, None, True)
        assert len((await memory.get_episode("e")).steps) == 1
        with pytest.raises(OutcomeUnknown):
            await memory.flush()


@pytest.mark.parametrize("policy", ["fail", "reject"])
async def test_a_caller_that_waits_is_told_and_a_flush_behind_it_has_nothing_to_say(
    policy: Policy, autojump_clock: MockClock
) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        ask(journal, policy)
        with pytest.raises(told(policy)):
            await memory.log_step("e", step(1))
        await memory.flush()


async def test_a_waiter_that_was_cancelled_was_not_told(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        journal.hang_next(when=of("e"))
        ask(journal, "fail")
        with trio.move_on_after(1) as scope:
            await memory.log_step("e", step(1))
        assert scope.cancelled_caught
        journal.release()
        await trio.sleep(1)
        with pytest.raises(OutcomeUnknown, match="'e': 1 record"):
            await memory.flush_steps("e")


async def test_a_flush_that_waited_for_what_fails_raises_although_another_was_told_first(
    autojump_clock: MockClock,
) -> None:
    journal = journal_with("e")
    raised: list[str] = []

    async def note(name: str, call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(OutcomeUnknown):
            await call()
        raised.append(name)

    async with open_memory_on(journal) as memory:
        journal.hang_next(when=of("e"))
        ask(journal, "fail")
        receipt = await memory.log_step("e", step(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, "receipt", receipt.wait_durable)
            nursery.start_soon(note, "flush", memory.flush)
            nursery.start_soon(note, "flush_steps", lambda: memory.flush_steps("e"))
            await journal.wait_hanging()
            await trio.testing.wait_all_tasks_blocked()
            journal.release()
        assert sorted(raised) == ["flush", "flush_steps", "receipt"]
        await memory.flush()


@pytest.mark.parametrize("name", ASKING)
async def test_it_is_remembered_while_the_episode_sleeps(name: str, autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal, MemoryConfig(idle_seconds=1)) as memory:
        await lose(journal, memory, "fail")
        await trio.sleep(60)
        assert "e" not in memory._cells
        with pytest.raises(OutcomeUnknown, match="'e': 3 records"):
            await ASKING[name](memory)
        await ASKING[name](memory)


@pytest.mark.parametrize("name", ["flush", "flush_steps", "handle.flush"])
async def test_it_is_told_of_an_episode_that_is_parked(name: str, autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        ask(journal, "fail", n=100)
        with pytest.raises(EpisodeUnavailable, match="parked"):
            for number in range(20):
                await memory.log_step("e", step(number))
                await trio.sleep(60)
        with pytest.raises(OutcomeUnknown, match="'e': 6 records"):
            await ASKING[name](memory)
        await ASKING[name](memory)


async def test_a_flush_of_everything_names_the_episodes_and_tells_refused_from_unknown(
    autojump_clock: MockClock,
) -> None:
    journal = journal_with("a", "b", "c")
    async with open_memory_on(journal) as memory:
        await lose(journal, memory, "fail", "a", 2)
        await lose(journal, memory, "reject", "b", 1)
        await lose(journal, memory, "lose_ack", "c", 1)
        await lose(journal, memory, "reject", "c", 4)
        with pytest.raises(
            OutcomeUnknown,
            match=r"'a': 2 records unknown; episode 'b': 1 record refused and not stored; "
            r"episode 'c': 5 records \(4 refused, 1 unknown\)",
        ):
            await memory.flush()
        for name in "abc":
            await memory.flush_steps(name)


async def test_of_many_episodes_some_are_named_and_the_others_counted(autojump_clock: MockClock) -> None:
    names = [f"e{number}" for number in range(NAMED + 5)]
    journal = journal_with(*names)
    async with open_memory_on(journal) as memory:
        for name in names:
            ask(journal, "reject", name)
            await memory.log_step(name, step(1))
        await trio.sleep(1)
        with pytest.raises(LogFull, match=r"episode 'e9': 1 record .*; and 5 more") as caught:
            await memory.flush()
        assert "'e10'" not in str(caught.value)


async def test_a_flush_of_one_episode_says_nothing_of_another(autojump_clock: MockClock) -> None:
    journal = journal_with("e", "other")
    async with open_memory_on(journal) as memory:
        await lose(journal, memory, "fail")
        await memory.flush_steps("other")
        await memory.complete_episode("other", Success("well"))
        with pytest.raises(OutcomeUnknown):
            await memory.flush()


async def test_one_who_is_told_of_a_transaction_is_told_of_all_its_episodes(autojump_clock: MockClock) -> None:
    journal = journal_with("a", "b")
    async with open_memory_on(journal) as memory:
        ask(journal, "fail", "b")
        with pytest.raises(OutcomeUnknown):
            async with memory.atomic() as transaction:
                transaction.log_step("a", step(1))
                transaction.log_step("b", step(1))
        assert memory.stats().untold_records == 0
        await memory.flush()


async def test_a_transaction_whose_caller_was_cancelled_is_told_by_its_receipt_or_by_a_flush(
    autojump_clock: MockClock,
) -> None:
    journal = journal_with("a", "b")
    async with open_memory_on(journal) as memory:
        for is_asked in (True, False):
            journal.hang_next(when=of("b"))
            ask(journal, "fail", "b")
            transaction = memory.atomic()
            with trio.move_on_after(1) as scope:
                async with transaction:
                    transaction.log_step("a", step(1))
                    transaction.log_step("b", step(1))
            assert scope.cancelled_caught
            journal.release()
            await trio.sleep(1)
            assert memory.stats().untold_records == 2
            if is_asked:
                assert transaction.receipt is not None
                await asks_the_receipt(memory, transaction.receipt)
                await memory.flush()
            else:
                with pytest.raises(OutcomeUnknown, match="'a': 1 record unknown; episode 'b': 1 record unknown"):
                    await memory.flush()


async def test_nobody_misses_the_records_of_an_episode_that_is_deleted(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        await lose(journal, memory, "fail")
        await memory.delete_episode("e")
        assert memory.stats().untold_records == 0
        await memory.flush()
        with pytest.raises(NotFound):
            await memory.flush_steps("e")


@pytest.mark.parametrize("kind", ["started", "ended"])
async def test_a_start_and_an_ending_are_asked_for_again_and_not_told_by_others(
    kind: str, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:

        async def both() -> None:
            await memory.start_episode("a task", episode_id="e")
            await memory.complete_episode("e", Success("well"))

        journal.hang_next(when=lambda submitted: kind in submitted.kinds)
        journal.fail_next(when=lambda submitted: kind in submitted.kinds)
        with trio.move_on_after(1) as scope:
            await both()
        assert scope.cancelled_caught
        journal.release()
        await trio.sleep(1)
        await memory.flush()
        await both()


@pytest.mark.parametrize("clears", [False, True])
async def test_a_flush_of_everything_tells_of_a_conversation_too_unless_it_was_cleared(
    clears: bool, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(idle_seconds=1)) as memory:
        journal.fail_next()
        await memory.short_term.append("e", Message(role=Role.USER, content="hi"))
        await trio.sleep(60)
        assert memory.stats().untold_records == 1
        if clears:
            await memory.short_term.clear("e")
        else:
            with pytest.raises(OutcomeUnknown, match="thread 'e': 1 record unknown"):
                await memory.flush()
        await memory.flush()
        assert memory.stats().untold_records == 0


async def test_the_events_of_a_run_are_told_its_start_and_its_ending_as_well(autojump_clock: MockClock) -> None:
    """They are accepted like steps; nobody asks for them again."""
    journal, run = MemoryJournal(), RunId.new()
    async with open_memory_on(journal) as memory:
        journal.fail_next()
        await memory.episodic.record(run, events.Started(agent="planner"))
        await memory.episodic.record(run, events.Completed())
        await trio.sleep(1)
        with pytest.raises(OutcomeUnknown, match=f"'{run}': 2 records"):
            await memory.flush()
        with pytest.raises(NotFound):
            await memory.flush_steps(run)


async def test_what_fails_while_the_memory_closes_is_counted_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal = journal_with("e")
    with caplog.at_level(logging.ERROR, "stepwell.runtime"):
        async with open_memory_on(journal) as memory:
            ask(journal, "fail")
            receipt = await memory.log_steps("e", [step(1), step(2)])
    assert "the write of 2 accepted records failed, and nobody was told before closing" in caplog.text
    assert memory.stats().untold_records == 2
    await asks_the_receipt(memory, receipt)
    assert memory.stats().untold_records == 0


async def test_an_error_that_leaves_the_memory_carries_what_nobody_was_told(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_memory_on(journal) as memory:
            await lose(journal, memory, "fail")
            raise ValueError("mine")
    assert caught.value.__notes__ == ["stepwell: the write of 3 accepted records failed, and nobody was told"]


async def test_of_failures_that_somebody_was_told_of_nothing_is_kept(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        journal.reject_next()
        receipt = await memory.log_step("e", step(1))
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        assert memory._supervisor.untold._of == {}


async def test_what_is_kept_of_failures_is_a_number_for_each_episode(autojump_clock: MockClock) -> None:
    journal = journal_with("e")
    async with open_memory_on(journal) as memory:
        for _ in range(50):
            await lose(journal, memory, "reject", n=10)
            await (await memory.log_step("e", step(1))).wait_durable()
        assert len(memory._supervisor.untold._of) == 1
        with pytest.raises(LogFull, match="'e': 500 records"):
            await memory.flush()
