"""Summarising the older part of a thread with a summariser of the caller's.

What the summary covers is stored with it, so that each call goes on where the last one ended; the messages stay.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import trio

from stepwell.errors import InvalidInput
from stepwell.memory.threads import LARGEST_META, ThreadReader, draft_of, read_one
from stepwell.model.codec import UNSTAMPED_NS
from stepwell.model.message import MESSAGE, Message, Role, ThreadSummary, checked_summary, encode_summary
from stepwell.model.run_event import SummaryCheckpoint
from stepwell.model.thread_window import counted, summary_message

if TYPE_CHECKING:
    from stepwell.memory.short_term import ShortTermPort

REDACTED_TOOL_CONTENT = "[tool content redacted]"
_CHUNK = 256


class Summarised(msgspec.Struct, frozen=True):
    """What a summariser gives: the text, and what it took, prompt and completion together."""

    text: str
    tokens: int = 0


Summariser: TypeAlias = Callable[[list[Message]], "str | Summarised | Awaitable[str | Summarised]"]
"""Gets the messages to summarise, oldest first; the first may be the summary so far. An async function is awaited, a
plain one runs in a worker thread."""


async def summarise_older(
    port: ShortTermPort,
    thread: str,
    summariser: Summariser,
    *,
    run: str | None,
    trigger_tokens: int,
    keep_recent: int,
    redact_tool_content: bool,
    redact_roles: Collection[str],
) -> ThreadSummary | None:
    """See `ShortTermPort.summarize_history`, which has checked the arguments."""
    memory = port._memory
    journal, counter = memory._journal, memory._config.token_counter
    stream, last_seq = await memory._supervisor.streams.settled(port._kind, thread)
    reader = ThreadReader(journal, thread, stream, last_seq, _CHUNK)
    chunk = await reader.next_chunk()
    previous = None
    if reader.landmarks is not None and reader.landmarks.summary_seq:
        found = await read_one(journal, thread, stream, reader.landmarks.summary_seq)
        previous = found if isinstance(found, ThreadSummary) else None
    covered = 0 if previous is None else previous.last_seq
    fresh: list[tuple[int, Message]] = []
    while chunk and chunk[0][0] > covered:
        for seq, record in chunk:
            if seq > covered and record.kind == MESSAGE:
                message = draft_of(record)
                assert isinstance(message, Message)
                fresh.append((seq, message))
        chunk = await reader.next_chunk()
    fresh.reverse()
    told = [] if previous is None else [summary_message(previous)]
    if sum(counted(message, counter) for message in (*told, *(item for _seq, item in fresh))) <= trigger_tokens:
        return None
    end = max(len(fresh) - keep_recent, 0)
    while end and end < len(fresh) and fresh[end][1].role == Role.TOOL:
        end += 1  # the replies of a tool go with their call
    if not end:
        return None
    older = fresh[:end]
    shown = [_shown(message, redact_tool_content, redact_roles) for _seq, message in older]
    begin = time.perf_counter()
    made = await _call(summariser, [*told, *shown])
    latency_ms = round((time.perf_counter() - begin) * 1000)
    text = made.text
    if memory._redaction is not None:
        text = memory._redaction.text("summary", text)
    first_seq = older[0][0] if previous is None else previous.first_seq
    summary = checked_summary(text, first_seq, older[-1][0], memory._config.limits)
    size = len(encode_summary(summary, UNSTAMPED_NS, None, memory._config.limits)) + LARGEST_META
    async with memory._whole.atomic() as transaction:
        # The summariser may take minutes. What was cleared meanwhile must not come back in its words.
        transaction._stage_drafts(port._kind, thread, [summary], [size], only_in=stream)
        if run is not None:
            event = SummaryCheckpoint(
                input_message_count=len(older), summary_chars=len(text), latency_ms=latency_ms, tokens=made.tokens
            )
            transaction.record(run, event)
    return summary


def _shown(message: Message, redact_tool_content: bool, redact_roles: Collection[str]) -> Message:
    if message.role in redact_roles or (redact_tool_content and message.role == Role.TOOL):
        return msgspec.structs.replace(message, content=REDACTED_TOOL_CONTENT, wire=None)
    return message


async def _call(summariser: Summariser, messages: list[Message]) -> Summarised:
    if inspect.iscoroutinefunction(summariser):
        made = await summariser(messages)
    else:
        made = await trio.to_thread.run_sync(summariser, messages)
        if inspect.isawaitable(made):
            made = await made
    if isinstance(made, str):
        made = Summarised(made)
    if not isinstance(made, Summarised) or not isinstance(made.text, str) or not isinstance(made.tokens, int):
        raise InvalidInput(f"summariser: must give text or Summarised(text, tokens), not {type(made).__name__}")
    return made
