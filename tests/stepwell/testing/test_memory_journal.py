"""The journal that tests are made with does what it is told, to whom it is told, and nothing else."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import stepstore.log.frame as frame_module
import stepwell.testing.journal_life as journal_life
from stepstore.journal import Batch
from stepwell import (
    Closed,
    ExecutionStep,
    InvalidInput,
    InvalidState,
    LogFull,
    LogLocked,
    MemoryConfig,
    OutcomeUnknown,
    Rejected,
    StepError,
    Success,
    TooLarge,
)
from stepwell.testing import MemoryJournal, Submitted, open_memory_on
from tests.support import step

# ---- lives -----------------------------------------------------------------------------------------------------------


async def test_what_was_durable_is_there_in_the_next_life() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_step(step(1, key="k"))
    async with open_memory_on(journal) as memory:
        assert memory.recovery.open_episodes == 1
        assert memory.recovery.records == 2
        assert [found.episode_id for found in await memory.open_episodes()] == ["e"]
        again = await memory.log_step("e", step(1, key="k"))
        assert (again.seq, again.is_durable) == (2, True)
        await memory.complete_episode("e", Success())
    async with open_memory_on(journal) as memory:
        assert await memory.open_episodes() == []


async def test_a_crash_leaves_what_was_durable_and_the_memory_itself_goes_on() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await (await handle.log_step(step(1))).wait_durable()
        await handle.log_step(step(2))
        survivor = journal.after_crash()
    assert [item.action for item in journal.steps("e")] == ["action 1", "action 2"]
    assert [item.action for item in survivor.steps("e")] == ["action 1"]
    async with open_memory_on(survivor) as memory:
        assert (await memory.log_step("e", step(3))).seq == 3
    assert len(journal.steps("e")) == 2


async def test_one_memory_at_a_time() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal):
        with pytest.raises(LogLocked):
            async with open_memory_on(journal):
                raise AssertionError("opened twice")
        async with open_memory_on(journal.after_crash()):
            pass
    async with open_memory_on(journal):
        pass


async def test_a_handle_of_an_earlier_life_stays_closed() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        handle = await memory.start_episode("task", episode_id="e")
    async with open_memory_on(journal):
        with pytest.raises(Closed):
            await handle.log_step(step(1))
        with pytest.raises(Closed):
            await handle.get()


# ---- preload ---------------------------------------------------------------------------------------------------------


async def test_a_preloaded_episode_is_as_one_of_an_earlier_life() -> None:
    journal = MemoryJournal()
    at = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
    steps = [step(1, key="k"), step(2), step(3)]
    journal.preload("over", steps, task="a task", outcome=Success("well"), at=at, domain="ci", agent="coder")
    journal.preload("open", steps)
    async with open_memory_on(journal) as memory:
        over = await memory.get_episode("over")
        assert (over.task_description, over.agent, over.context.domain) == ("a task", "coder", "ci")
        assert (over.start_time, over.end_time, over.outcome) == (at, at, Success("well"))
        assert over.reward is not None
        assert over.summary is not None
        assert [found.episode_id for found in await memory.open_episodes()] == ["open"]
        assert (await memory.log_step("open", step(1, key="k"))).seq == 2
        done = await memory.complete_episode("over", Success("well"))
        assert done.reward == over.reward
        with pytest.raises(InvalidState, match="open"):
            journal.preload("late")
    with pytest.raises(InvalidState, match="already"):
        journal.preload("open")
    assert journal.steps("open") == steps


async def test_a_preloaded_episode_equals_one_that_was_really_run() -> None:
    journal = MemoryJournal()
    steps = [step(1), step(2, latency_ms=5.0), step(3, metadata={"n": 3})]
    journal.preload("preloaded", steps, task="a task", outcome=Success("well"), complexity="complex")
    async with open_memory_on(journal) as memory:
        handle = await memory.start_episode("a task", episode_id="run", complexity="complex")
        await handle.log_steps(steps)
        await handle.complete(Success("well"))

        def told(name: str) -> list[tuple[str, dict[str, Any]]]:
            return [(record.kind, record.data) for record in journal.records(name)][:-1]

        assert told("preloaded") == told("run")
        one, two = await memory.get_episode("preloaded"), await memory.get_episode("run")
        assert (one.outcome, one.last_seq, one.formula_version) == (two.outcome, two.last_seq, two.formula_version)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"episode_id": ""}, InvalidInput),
        ({"episode_id": "e", "task": ""}, InvalidInput),
        ({"episode_id": "e", "steps": ["no step"]}, InvalidInput),
        ({"episode_id": "e", "at": dt.datetime(2024, 1, 1)}, InvalidInput),
        ({"episode_id": "e", "colour": "red"}, InvalidInput),
        ({"episode_id": "e", "steps": [step(1, thought="x" * 20_000_000)]}, TooLarge),
    ],
)
def test_what_a_memory_would_refuse_cannot_be_preloaded(arguments: dict[str, object], error: type[Exception]) -> None:
    journal = MemoryJournal()
    with pytest.raises(error):
        journal.preload(**arguments)  # type: ignore[arg-type]
    assert journal.records("e") == []


# ---- policies --------------------------------------------------------------------------------------------------------


async def test_a_policy_is_for_the_next_n_and_then_over() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        for name in ("a", "b", "c"):
            await memory.start_episode("task", episode_id=name)
        journal.reject_next(2)
        assert journal.policies_left == 2
        for name in ("a", "b"):
            with pytest.raises(LogFull):
                await memory.log_step(name, step(1))
        assert journal.policies_left == 0
        await memory.log_step("c", step(1))
    assert [len(journal.steps(name)) for name in ("a", "b", "c")] == [0, 0, 1]


async def test_a_policy_is_for_whom_it_is_meant() -> None:
    journal = MemoryJournal()
    seen: list[Submitted] = []

    def second_step_of_b(submitted: Submitted) -> bool:
        seen.append(submitted)
        return "b" in submitted.ids and "k2" in submitted.keys

    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        journal.fail_next(when=second_step_of_b)
        for name in ("a", "b"):
            await memory.start_episode("task", episode_id=name)
            await memory.log_step(name, step(1, key="k1"))
        await memory.log_step("a", step(2, key="k2"))
        with pytest.raises(OutcomeUnknown):
            await memory.log_step("b", step(2, key="k2"))
    assert [(set(item.ids), set(item.kinds), set(item.keys)) for item in seen] == [
        ({"a"}, {"started"}, set()),
        ({"a"}, {"step"}, {"k1"}),
        ({"b"}, {"started"}, set()),
        ({"b"}, {"step"}, {"k1"}),
        ({"a"}, {"step"}, {"k2"}),
        ({"b"}, {"step"}, {"k2"}),
    ]
    assert seen[1].records[0].data["action"] == "action 1"


async def test_the_policy_asked_for_first_decides_and_others_come_after_it(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    journal.preload("e")
    async with open_memory_on(journal, MemoryConfig(durability="commit")) as memory:
        journal.lose_ack_next()
        journal.fail_next()
        journal.reject_next(error=TooLarge("too large today"))
        with pytest.raises(OutcomeUnknown, match="lose_ack"):
            await memory.log_step("e", step(1))
        with pytest.raises(OutcomeUnknown, match="fail_next"):
            await memory.log_step("e", step(2))
        with pytest.raises(TooLarge, match="today"):
            await memory.log_step("e", step(3))
        journal.fail_next(5)
        journal.clear_policies()
        await memory.log_step("e", step(4))
    assert [item.action for item in journal.steps("e")] == ["action 1", "action 4"]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "1"])
def test_a_policy_for_no_sensible_number_is_refused(n: int) -> None:
    journal = MemoryJournal()
    for ask in (journal.fail_next, journal.reject_next, journal.hang_next, journal.lose_ack_next):
        with pytest.raises(InvalidInput, match="n"):
            ask(n)
    with pytest.raises(InvalidInput, match="when"):
        journal.fail_next(when="always")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="error"):
        journal.reject_next(error=OutcomeUnknown("not a Rejected"))  # type: ignore[arg-type]
    assert journal.policies_left == 0


async def test_what_a_when_raises_fails_the_memory_and_leaves_no_receipt_open() -> None:
    journal = MemoryJournal()

    def broken(_submitted: Submitted) -> bool:
        raise ZeroDivisionError("in the test itself")

    with pytest.raises(BaseException) as caught, trio.fail_after(5):
        async with open_memory_on(journal) as memory:
            handle = await memory.start_episode("task")
            journal.fail_next(when=broken)
            receipt = await handle.log_step(step(1))
            with pytest.raises(OutcomeUnknown):
                await receipt.wait_durable()
    assert "in the test itself" in repr(caught.value)


async def test_hanging_can_be_waited_for_and_released_and_nothing_is_stored_meanwhile() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        for name in ("a", "b"):
            await memory.start_episode("task", episode_id=name)
        journal.hang_next(2)
        receipts = [await memory.log_step(name, step(1)) for name in ("a", "b")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.flush)
            for stored in (0, 1):
                with trio.testing.assert_checkpoints():
                    await journal.wait_hanging()
                with trio.testing.assert_checkpoints():
                    await journal.wait_hanging()
                await trio.testing.wait_all_tasks_blocked()
                assert [receipt.is_durable for receipt in receipts].count(True) == stored
                journal.release()
        assert all(receipt.is_durable for receipt in receipts)
        journal.release()  # nothing hangs
        await memory.log_step("a", step(2))


# ---- limits, errors, bytes -------------------------------------------------------------------------------------------


async def test_everything_goes_through_a_frame_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that does not read back as it was built is noticed."""
    real = frame_module.build_frame

    def flipped(*arguments: object, **named: object) -> object:
        frame, crc, entries = real(*arguments, **named)  # type: ignore[arg-type]
        frame[-1] ^= 1
        return frame, crc, entries

    monkeypatch.setattr(journal_life, "build_frame", flipped)
    with pytest.raises(BaseException) as caught:
        async with open_memory_on(MemoryJournal()) as memory:
            await memory.start_episode("task")
    assert "does not read back" in repr(caught.value)


def test_a_frame_gives_back_any_batches() -> None:
    batches = [Batch(b"a" * 16, 1, [b"", b"\x00\xff", b"x" * 70_000], 1), Batch(b"b" * 16, 7, [b"y"], 2 | (1 << 16))]
    assert journal_life.through_frame(batches, 5) == batches


# ---- what is stored --------------------------------------------------------------------------------------------------


async def test_expecting_a_step_says_what_is_there_instead() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        await handle.log_steps([step(1), step(2), step(1), ExecutionStep("tool", "action 3", result=StepError("no"))])
        with pytest.raises(AssertionError, match="none"):
            journal.expect_step("e", step(1))  # accepted is not durable
        await handle.flush()
        (record,) = journal.expect_step("e", step(2))
        assert (record.id, record.seq, record.kind, record.key) == ("e", 3, "step", None)
        assert record.data["action"] == "action 2"
        assert len(journal.expect_step("e", step(1), times=2)) == 2
        journal.expect_step("e", step(9), times=0)
        with pytest.raises(AssertionError, match=r"found it 2 times(.|\n)*action 3"):
            journal.expect_step("e", step(1))
        with pytest.raises(AssertionError):
            journal.expect_step("e", step(2, key="another key"))
        with pytest.raises(AssertionError, match="none"):
            journal.expect_step("unknown", step(2))
        with pytest.raises(ValueError, match="no step"):
            journal.records("e")[0].step()


async def test_the_default_refusal_is_one() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        journal.reject_next()
        with pytest.raises(Rejected):
            await memory.start_episode("task", episode_id="e")
        assert await memory.open_episodes() == []
        await memory.start_episode("task", episode_id="e")


@pytest.mark.parametrize("steps", [step(1), None, [step(1, key="k"), step(2, key="k")]])
def test_what_no_earlier_life_could_have_left_is_not_preloaded(steps: Any) -> None:
    journal = MemoryJournal()
    with pytest.raises(InvalidInput, match=r"^steps: "):
        journal.preload("e", steps)
    assert journal.records("e") == []
