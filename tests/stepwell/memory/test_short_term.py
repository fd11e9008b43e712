"""Conversation threads beyond what the contract of the ports says: counters, summaries, long threads, failures."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    BatchConfig,
    InvalidInput,
    InvalidState,
    Limits,
    Memory,
    MemoryConfig,
    Message,
    OutcomeUnknown,
    Role,
    Summarised,
    TooLarge,
    Unavailable,
    default_redactor,
    events,
)
from stepwell.memory.threads import BATCH_MESSAGES
from stepwell.model.streams import THREAD_STREAM, generation_id
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import cancelled_at_step, open_on

ALL = 10_000


def said(text: str, role: str = Role.USER) -> Message:
    return Message(role, text)


def texts(messages: list[Message]) -> list[str]:
    return [message.content for message in messages]


async def talk(memory: Memory, count: int, thread: str = "t") -> None:
    await memory.short_term.append_many(thread, [said(f"{number:08}") for number in range(count)])


def words(message: Message) -> int:
    return len(message.content.split())


async def test_the_counter_of_the_settings_says_what_a_message_costs() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(token_counter=words)) as memory:
        await memory.short_term.append_many("t", [said("a b c"), said("d e"), said("")])
        assert texts(await memory.short_term.load("t", 4)) == ["d e", ""]
        assert (await memory.short_term.window("t", 5)).tokens == 5


@pytest.mark.parametrize("given", [-1, 1.5, None, True])
async def test_a_counter_that_counts_nonsense_is_said_so(given: object) -> None:
    config = MemoryConfig(token_counter=lambda _message: given)  # type: ignore[arg-type, return-value]
    async with open_on(MemoryFileSystem(), config) as memory:
        await memory.short_term.append("t", said("hi"))
        with pytest.raises(InvalidInput, match="token_counter"):
            await memory.short_term.load("t", 5)


@pytest.mark.parametrize("setting", [{"oversize": "never"}, {"token_counter": 5}])
async def test_settings_that_mean_nothing_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        MemoryConfig(**setting)  # type: ignore[arg-type]


async def test_the_rule_for_an_oversize_message_comes_from_the_settings_and_is_visible() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(oversize="keep_last")) as memory:
        await memory.short_term.append_many("t", [said("old"), said("x" * 400)])
        window = await memory.short_term.window("t", 10)
        assert (texts(window.messages), window.is_oversize, window.tokens) == (["x" * 400], True, 100)
        strict = await memory.short_term.window("t", 10, oversize="strict")
        assert (strict.messages, strict.is_oversize, strict.is_cut) == ([], True, True)


async def test_a_window_says_what_it_is() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 10)
        window = await memory.short_term.window("t", 6)
        assert (window.first_seq, window.last_seq, window.tokens, window.is_cut) == (8, 10, 6, True)
        window = await memory.short_term.window("t", ALL)
        assert (window.first_seq, window.last_seq, window.tokens, window.is_cut) == (1, 10, 20, False)


async def test_a_pinned_message_that_does_not_fit_is_left_out_or_an_error() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.short_term.append("t", said("s" * 400, Role.SYSTEM))
        await talk(memory, 3)
        window = await memory.short_term.window("t", 6, pin_system=True)
        assert (len(window.messages), window.pinned) == (3, None)
        with pytest.raises(TooLarge, match="system message"):
            await memory.short_term.load("t", 6, pin_system=True, oversize="raise")


async def test_where_landmarks_stand_is_known_after_sleeping_and_reopening(autojump_clock: MockClock) -> None:
    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(idle_seconds=1)) as memory:
        await memory.short_term.append("t", said("be nice", Role.SYSTEM))
        await talk(memory, 300)
        await trio.sleep(5)
        await memory.short_term.summarise("t", "they counted", 1, 290)
        await trio.sleep(5)
        await talk(memory, 300)
        assert not (await memory.short_term.load("t", 2, pin_system=True))[1:]
    async with open_on(files) as memory:
        await memory.short_term.append("t", said("now"))
        window = await memory.short_term.window("t", 9, pin_system=True, with_summary=True)
        assert texts(window.messages)[:3] == ["be nice", "they counted", f"{298:08}"]
        assert window.summary is not None
        assert (window.summary.first_seq, window.summary.last_seq) == (1, 290)


async def test_loading_the_end_of_a_long_thread_reads_the_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(segment_bytes=64 * 1024)) as memory:
        for _ in range(100):
            await talk(memory, 100)
    read: list[int] = []
    unpatched = SegmentLogJournal.read

    def reading(journal: SegmentLogJournal, stream: bytes, after: int = 0) -> object:
        read.append(after)
        return unpatched(journal, stream, after)

    monkeypatch.setattr(SegmentLogJournal, "read", reading)
    async with open_on(files) as memory:
        assert len(await memory.short_term.load("t", 100)) == 50
        assert read
        assert min(read) >= 10_000 - 100
        read.clear()
        await memory.short_term.append("t", said("one more"))
        assert read
        assert min(read) >= 10_000 - 2


async def test_summaries_go_on_where_the_last_one_ended_and_are_told_to_the_run() -> None:
    seen: list[list[str]] = []

    async def summariser(messages: list[Message]) -> Summarised:
        seen.append(texts(messages))
        return Summarised(f"summary {len(seen)}", tokens=7)

    files = MemoryFileSystem()
    async with open_on(files) as memory:
        summarize = memory.short_term.summarize_history
        await memory.short_term.append_many("t", [said(f"{number:04}") for number in range(6)])
        assert await summarize("t", summariser, trigger_token_budget=6, keep_recent_messages=2) is None
        first = await summarize("t", summariser, trigger_token_budget=5, keep_recent_messages=2, run="r")
        assert first is not None
        assert (first.text, first.first_seq, first.last_seq) == ("summary 1", 1, 4)
        assert await summarize("t", summariser, trigger_token_budget=5, keep_recent_messages=2, run="r") is None
        await memory.short_term.append_many("t", [said(f"{number:04}") for number in range(6, 9)])
        second = await summarize("t", summariser, trigger_token_budget=5, keep_recent_messages=2, run="r")
        assert second is not None
        assert (second.first_seq, second.last_seq) == (1, 8)
        assert seen == [["0000", "0001", "0002", "0003"], ["summary 1", "0004", "0005", "0006"]]
        checkpoints = await memory.episodic.replay("r")
        assert [type(event) for event in checkpoints] == [events.SummaryCheckpoint] * 2
        for checkpoint, count in zip(checkpoints, (4, 3), strict=True):
            assert isinstance(checkpoint, events.SummaryCheckpoint)
            assert (checkpoint.input_message_count, checkpoint.summary_chars, checkpoint.tokens) == (count, 9, 7)
    async with open_on(files) as memory:
        assert texts(await memory.short_term.load("t", ALL, with_summary=True)) == ["summary 2", "0007", "0008"]
        assert len(await memory.short_term.load("t", ALL)) == 9


async def test_replies_of_tools_are_summarised_with_their_calls_and_not_shown() -> None:
    shown: list[Message] = []

    def summariser(messages: list[Message]) -> str:  # a plain one
        shown.extend(messages)
        return "done"

    async with open_on(MemoryFileSystem()) as memory:
        calls = [Message(Role.ASSISTANT, "", [{"id": "a"}]), Message(Role.TOOL, "secret", tool_call_id="a")]
        await memory.short_term.append_many("t", [said("hi"), *calls, said("so", "developer")])
        summary = await memory.short_term.summarize_history(
            "t", summariser, trigger_token_budget=1, keep_recent_messages=2, redact_roles=["developer"]
        )
        assert summary is not None
        assert summary.last_seq == 3
        assert texts(shown) == ["hi", "", "[tool content redacted]"]
        assert shown[2].tool_call_id == "a"


@pytest.mark.parametrize("given", [5, None, b"bytes"])
async def test_a_summariser_that_gives_no_text_stores_nothing(given: object) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 5)
        summariser: Any = lambda _messages: given  # noqa: E731
        with pytest.raises(InvalidInput, match="summariser"):
            await memory.short_term.summarize_history("t", summariser, trigger_token_budget=1, keep_recent_messages=0)
        with pytest.raises(InvalidInput):
            await memory.short_term.summarize_history("t", 5, trigger_token_budget=1)  # type: ignore[arg-type]
        assert len(await memory.short_term.load("t", ALL, with_summary=True)) == 5


async def test_a_thread_that_is_cleared_while_it_is_summarised_keeps_nothing_of_what_was_cleared() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 5)

        async def summariser(_messages: list[Message]) -> str:
            await memory.short_term.clear("t")
            await memory.short_term.append("t", said("new"))
            return "what was cleared"

        with pytest.raises(InvalidState, match="thread 't' was cleared meanwhile"):
            await memory.short_term.summarize_history(
                "t", summariser, trigger_token_budget=1, keep_recent_messages=0, run="r"
            )
        assert texts(await memory.short_term.load("t", ALL, with_summary=True)) == ["new"]
        assert await memory.episodic.list_runs() == []


@pytest.mark.parametrize("roles", ["user", (role for role in ["user"]), [5], b"user", None])
async def test_what_are_no_roles_to_redact_is_refused_before_the_summariser_sees_anything(roles: Any) -> None:
    shown: list[Message] = []

    def summariser(messages: list[Message]) -> str:
        shown.extend(messages)
        return "done"

    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 5)
        with pytest.raises(InvalidInput, match="redact_roles: must be several roles as text"):
            await memory.short_term.summarize_history(
                "t", summariser, trigger_token_budget=1, keep_recent_messages=0, redact_roles=roles
            )
    assert not shown


async def test_what_the_summariser_raises_leaves_unchanged() -> None:
    problem = LookupError("no model")

    def summariser(_messages: list[Message]) -> str:
        raise problem

    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 5)
        with pytest.raises(LookupError) as caught:
            await memory.short_term.summarize_history(
                "t", summariser, trigger_token_budget=1, keep_recent_messages=1, run="r"
            )
        assert caught.value is problem
        assert await memory.episodic.replay("r") == []


async def test_a_summary_of_what_is_not_there_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await talk(memory, 5)
        for first, last in ((1, 6), (3, 2), (0, 2)):
            with pytest.raises(InvalidInput):
                await memory.short_term.summarise("t", "x", first, last)


async def test_clearing_destroys_what_is_on_disk_once_it_is_purged() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.short_term.append("t", said("a secret that must go"))
        await memory.short_term.clear("t", actor="ann")
        report = await memory.compact(purge=True)
        assert report is not None
        assert memory._journal.is_deleted(generation_id(THREAD_STREAM, "t", 1))
        assert not any(b"a secret that must go" in file for file in _bytes_of(files))
        assert await memory.short_term.threads() == []


def _bytes_of(files: MemoryFileSystem) -> list[bytes]:
    from tests.support import LOG

    found = []
    for name in files.list_names(LOG):
        if name.endswith(".seg"):
            file = files.open(f"{LOG}/{name}", write=False)
            found.append(file.read(0, file.size()))
    assert found
    return found


async def test_what_must_not_be_stored_is_replaced_before_it_is() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(redact=default_redactor)) as memory:
        line = '{"role":"user","content":"use ghp_0123456789012345678901","extra":1}'
        from stepwell.model.message import message_from_json

        message = message_from_json(line)
        assert message.wire is not None
        await memory.short_term.append("t", message)
        (stored,) = await memory.short_term.load("t", ALL)
        assert (stored.content, stored.wire) == ("use [redacted]", None)
        async with memory.atomic() as tx:
            tx.append("t", said("ghp_0123456789012345678901"))
        assert (await memory.short_term.load("t", ALL))[1].content == "[redacted]"
        assert memory.stats().redacted == 2


async def test_messages_too_large_are_refused_and_named() -> None:
    async with open_on(MemoryFileSystem(), MemoryConfig(limits=Limits(text_bytes=100, record_bytes=1_000))) as memory:
        with pytest.raises(TooLarge, match=r"messages\[1\]: message\.content"):
            await memory.short_term.append_many("t", [said("x"), said("x" * 101)])
        with pytest.raises(TooLarge, match="one batch"):
            await memory.short_term.append_many("t", [said("x" * 90)] * 20)
        with pytest.raises(TooLarge):
            async with memory.atomic() as tx:
                tx.append("t", *[said("x" * 90)] * 20)
        assert await memory.short_term.load("t", ALL) == []


async def test_one_commit_over_all_of_them_is_one_frame_and_all_or_nothing(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(batch=BatchConfig.manual())) as memory:
        await talk(memory, 2)
        await memory.flush()
        journal.fail_next()
        with pytest.raises(OutcomeUnknown):
            await _commit(memory)
        assert len(await memory.short_term.load("t", ALL)) == 2
        assert await memory.episodic.replay("r") == []
        await _commit(memory)
        assert len(await memory.short_term.load("t", ALL)) == 3
        assert await memory.episodic.replay("r") == [events.Started("a"), events.Completed()]
        with pytest.raises(InvalidState, match="inside the block"):
            memory.atomic().append("t", said("x"))
        with pytest.raises(InvalidState, match="inside the block"):
            memory.atomic().record("r", events.Completed())


async def _commit(memory: Memory) -> None:
    async with memory.atomic() as tx:
        tx.append("t", said("in one"))
        tx.record("r", events.Started("a"), events.Completed())


async def test_cancelled_at_any_point_an_append_is_stored_once_or_not_at_all() -> None:
    steps, cancelled = 0, True
    outcomes = set()
    while cancelled:
        files = MemoryFileSystem()
        async with open_on(files, MemoryConfig(durability="commit")) as memory:
            await talk(memory, 1)
            cancelled = await cancelled_at_step(steps, lambda m=memory: m.short_term.append("t", said("once")))  # type: ignore[misc]
        async with open_on(files) as memory:
            found = texts(await memory.short_term.load("t", ALL))
            assert found in ([f"{0:08}"], [f"{0:08}", "once"])
            outcomes.add((cancelled, len(found)))
        steps += 1
    assert outcomes >= {(True, 1), (False, 2)}


async def test_a_thread_whose_records_are_not_sound_says_so_and_hurts_no_other() -> None:
    from stepstore.journal import Batch
    from stepwell.model.codec import encode_record
    from tests.support import force_into_log

    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await talk(memory, 1)
        await talk(memory, 1, "other")
    bad = encode_record("message", 5, {"role": "user", "content": 3}, None, path="x", limit=1_000)
    await force_into_log(files, Batch(generation_id(THREAD_STREAM, "t", 1), 2, [bad], 0))
    async with open_on(files) as memory:
        with pytest.raises(Unavailable, match="no sound"):
            await memory.short_term.load("t", 5)
        assert len(await memory.short_term.load("other", 5)) == 1
        await memory.short_term.clear("t")
        assert await memory.short_term.load("t", 5) == []


async def test_a_burst_of_appends_is_cut_into_batches_of_which_a_short_window_reads_the_last() -> None:
    """A batch is read and checked as a whole: one of 20,000 messages cost a window of 150 of them 20 ms."""
    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(batch=BatchConfig.manual())) as memory:
        receipts = [
            await memory.short_term.append_many("t", [said(f"{n}") for n in range(first, first + 300)])
            for first in range(0, 3_000, 300)
        ]
        await memory.flush()
        assert [receipt.lsn for receipt in receipts] == list(range(300, 3_300, 300)), "one commit, in order"
        journal = memory._journal
        assert isinstance(journal, SegmentLogJournal)
        (part,) = journal._log.index.locate(generation_id(THREAD_STREAM, "t", 1)).parts
        amounts = [word >> 32 for word in journal._log.index.batch_words(part, part.first, part.entry.batches)[3::5]]
        assert sum(amounts) == 3_000
        assert max(amounts) <= BATCH_MESSAGES
        assert [message.content for message in await memory.short_term.load("t", 3)] == ["2997", "2998", "2999"]
    async with open_on(files) as memory:
        assert len(await memory.short_term.load("t", 10_000)) == 3_000


async def test_what_was_cut_into_batches_is_stored_as_a_whole_or_not_at_all() -> None:
    journal = MemoryJournal()
    messages = [said(f"{n}") for n in range(2 * BATCH_MESSAGES + 1)]
    async with open_memory_on(journal) as memory:
        journal.fail_next()
        receipt = await memory.short_term.append_many("t", messages)
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        assert await memory.short_term.load("t", 10_000) == []
        journal.lose_ack_next()
        receipt = await memory.short_term.append_many("t", messages)
        with pytest.raises(OutcomeUnknown):
            await receipt.wait_durable()
        assert await memory.short_term.load("t", 10_000) == messages
