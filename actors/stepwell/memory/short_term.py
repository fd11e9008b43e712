"""The short-term port: conversation threads, each a stream with an owner of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from stepwell.errors import InvalidInput, Rejected, StepwellError, TooLarge
from stepwell.memory.summarising import Summariser, summarise_older
from stepwell.memory.threads import ThreadReader, draft_of, read_one, thread_kind
from stepwell.model import validation as check
from stepwell.model.codec import DecodedRecord
from stepwell.model.ids import ThreadId, checked_id
from stepwell.model.message import (
    MESSAGE,
    Message,
    Oversize,
    Role,
    ThreadSummary,
    TokenCounter,
    checked_message,
    checked_summary,
)
from stepwell.model.thread_window import ThreadWindow, WindowBuilder, counted, summary_message
from stepwell.runtime.config import OVERSIZE
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.right_loop import checkpoint

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore

_FEWEST, _MOST = 32, 512
_TOKENS_PER_MESSAGE = 24
"""What a message costs, as a guess at how many to read at once."""


class ShortTermPort:
    """`memory.short_term`: the messages of conversations, in threads named by the caller.

    A thread comes into being with its first message. Everything in it has a number, its `seq`, as its receipt says.
    """

    def __init__(self, memory: MemoryCore):
        self._memory = memory
        self._kind = thread_kind(memory._config.limits)

    async def append(self, thread: str, message: Message) -> Receipt:
        """Add a message at the end of a thread: accepted on return (durable with `durability="commit"`).

        If cancelled before it is accepted nothing is stored; in `durability="commit"`, behind that, it will be.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`.
        """
        return await self._append(thread, [message], one=True)

    async def append_many(self, thread: str, messages: Sequence[Message]) -> Receipt:
        """Add messages that are stored together or not at all. The receipt is that of the last one; see `append`."""
        return await self._append(thread, messages, one=False)

    async def _append(self, thread: str, messages: Sequence[Message], *, one: bool) -> Receipt:
        self._memory._supervisor.check_thread()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            known = checked_id(thread, "thread")
            drafts = self._checked(messages, one=one)
            cell = await self._memory._supervisor.streams.accepting(self._kind, known)
            receipt = cell.accept(drafts)
        except StepwellError as error:
            self._memory._supervisor.oversight.note_refused(error)
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        if self._memory._commit_durability:
            await receipt.reach_log()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return receipt

    def _checked(self, messages: Sequence[Message], *, one: bool) -> list[Message]:
        if not isinstance(messages, list | tuple):
            raise InvalidInput(f"messages: must be a list of Message, not {type(messages).__name__}")
        if not messages:
            raise InvalidInput("messages: must hold at least one message")
        limits, redaction = self._memory._config.limits, self._memory._redaction
        drafts: list[Message] = []
        for place, message in enumerate(messages):
            try:
                drafts.append(checked_message(message, limits, redaction))
            except Rejected as error:
                if one:
                    raise
                raise type(error)(f"messages[{place}]: {error}") from error
        return drafts

    async def load(
        self,
        thread: str,
        max_tokens: int,
        *,
        pin_system: bool = False,
        with_summary: bool = False,
        oversize: Oversize | None = None,
    ) -> list[Message]:
        """The newest messages that cost at most `max_tokens` together, oldest first; none of a thread that is unknown.
        It sees everything accepted before the call. What a message costs says `MemoryConfig.token_counter`.

        Where older messages are left out, it does not begin with the reply of a tool whose call is left out.
        `pin_system`: the last system message comes first even where it is older. `with_summary`: the last summary (see
        `summarise`) stands in the place of what it covers. `oversize`, by default that of `MemoryConfig`: what comes if
        the newest message alone costs more: nothing ("strict"), it alone ("keep_last"), or an error ("raise").
        Raises: `InvalidInput`, `TooLarge` (see `oversize`), `Unavailable`, `Closed`.
        """
        found = await self.window(
            thread, max_tokens, pin_system=pin_system, with_summary=with_summary, oversize=oversize
        )
        return found.messages

    async def window(
        self,
        thread: str,
        max_tokens: int,
        *,
        pin_system: bool = False,
        with_summary: bool = False,
        oversize: Oversize | None = None,
    ) -> ThreadWindow:
        """As `load`, and what there is to know about it: what it costs, which records it is, whether it is all.

        Raises: as `load`.
        """
        try:
            known = checked_id(thread, "thread")
            check.check_number(max_tokens, "max_tokens", minimum=0, whole=True)
            rule = self._memory._config.oversize if oversize is None else oversize
            if not check.is_one_of(rule, OVERSIZE):
                raise InvalidInput(
                    f"oversize: must be one of {', '.join(map(repr, OVERSIZE))}, not {check.shown(oversize)}"
                )
        except StepwellError:
            await checkpoint()
            raise
        journal, counter = self._memory._journal, self._memory._config.token_counter
        stream, last_seq = await self._memory._supervisor.streams.settled(self._kind, known)
        chunk = min(max(max_tokens // _TOKENS_PER_MESSAGE, _FEWEST), _MOST)
        reader = ThreadReader(journal, known, stream, last_seq, chunk)
        first = await reader.next_chunk()
        landmarks = reader.landmarks
        summary: ThreadSummary | None = None
        if with_summary and landmarks is not None and landmarks.summary_seq:
            found = await read_one(journal, known, stream, landmarks.summary_seq)
            summary = found if isinstance(found, ThreadSummary) else None
        behind = 0 if summary is None else summary.last_seq
        prefix: list[Message] = []
        if summary is not None:
            prefix.append(summary_message(summary))
        prefix_tokens = sum(counted(message, counter) for message in prefix)
        if prefix_tokens > max_tokens:
            summary, prefix, prefix_tokens, behind = None, [], 0, 0
        builder, is_cut = await _build(reader, first, behind, max_tokens - prefix_tokens, counter)
        pinned: Message | None = None
        if pin_system and landmarks is not None and landmarks.system_seq:
            oldest = builder.kept[-1][0] if builder.kept else last_seq + 1
            if landmarks.system_seq < oldest:
                found = await read_one(journal, known, stream, landmarks.system_seq)
                if isinstance(found, Message) and found.role == Role.SYSTEM:
                    pinned = found
        if pinned is not None:
            cost = counted(pinned, counter)
            if prefix_tokens + cost <= max_tokens:
                prefix, prefix_tokens = [pinned, *prefix], prefix_tokens + cost
                reader = ThreadReader(journal, known, stream, last_seq, chunk)
                again = await reader.next_chunk()
                builder, is_cut = await _build(reader, again, behind, max_tokens - prefix_tokens, counter)
            elif rule == "raise":
                raise TooLarge(f"max_tokens: the system message alone costs {cost:,}, and {max_tokens:,} are allowed")
            else:
                pinned = None
        window = builder.window(rule, max_tokens=max_tokens, is_cut=is_cut)
        if prefix and not (window.is_oversize and window.messages):
            window = _with_prefix(window, prefix, prefix_tokens, pinned, summary)
        return window

    async def summarise(self, thread: str, text: str, first_seq: int, last_seq: int) -> Receipt:
        """Store a summary of the messages `first_seq` to `last_seq`; durable on return. The messages stay; `load` puts
        the last summary in their place if asked to. Most callers use `summarize_history`, which calls this.

        If cancelled, whether it is stored is unknown; storing it again does no harm.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            known = checked_id(thread, "thread")
            redaction = self._memory._redaction
            if redaction is not None and isinstance(text, str):
                text = redaction.text("summary", text)
            summary = checked_summary(text, first_seq, last_seq, self._memory._config.limits)
        except StepwellError:
            await checkpoint()
            raise
        cell = await self._memory._supervisor.streams.accepting(self._kind, known)
        if last_seq > cell.last_seq:
            raise InvalidInput(f"last_seq: thread {known!r} ends with {cell.last_seq}")
        receipt = cell.accept([summary])
        await receipt.reach_log()
        return receipt

    async def summarize_history(
        self,
        thread: str,
        summariser: Summariser,
        *,
        trigger_token_budget: int,
        keep_recent_messages: int = 10,
        run: str | None = None,
        redact_tool_content: bool = True,
        redact_roles: Collection[str] = (),
    ) -> ThreadSummary | None:
        """Once what no summary covers yet costs more than `trigger_token_budget`, have all of it but the last
        `keep_recent_messages` summarised, together with the summary so far, and store what comes; durable on return.
        None if there was nothing to do. The messages stay; see `load(with_summary=True)`.

        `summariser` gets the messages and gives text, or `Summarised` with the tokens it took; an async function is
        awaited, a plain one runs in a worker thread. With `run`, a `SummaryCheckpoint` is recorded there in the same
        commit. `redact_tool_content`: the replies of tools are not shown to the summariser; nor is what those of
        `redact_roles` said. What the summariser raises leaves unchanged, and nothing is stored; as if it is cancelled.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the run was deleted, or the thread cleared meanwhile),
        `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            known = checked_id(thread, "thread")
            check.check_number(trigger_token_budget, "trigger_token_budget", minimum=0, whole=True)
            check.check_number(keep_recent_messages, "keep_recent_messages", minimum=0, whole=True)
            if not callable(summariser):
                raise InvalidInput(f"summariser: must be a function, not {type(summariser).__name__}")
            of_run = None if run is None else checked_id(run, "run")
            if (
                isinstance(redact_roles, str)
                or not isinstance(redact_roles, Collection)
                or not all(isinstance(role, str) for role in redact_roles)
            ):
                raise InvalidInput(f"redact_roles: must be several roles as text, not {check.shown(redact_roles)}")
        except StepwellError:
            await checkpoint()
            raise
        return await summarise_older(
            self,
            known,
            summariser,
            run=of_run,
            trigger_tokens=trigger_token_budget,
            keep_recent=keep_recent_messages,
            redact_tool_content=redact_tool_content,
            redact_roles=redact_roles,
        )

    async def clear(self, thread: str, *, actor: str = "") -> None:
        """Delete every message of a thread, and what it was encrypted with; durable on return. Other threads are
        untouched, and appending goes on in an empty one. An unknown thread is none. `actor`: who asked, for the event.

        If cancelled the clearing goes on; call again to learn how it went.
        Raises: `InvalidInput`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        try:
            known, asked_by = checked_id(thread, "thread"), check.check_actor(actor)
        except StepwellError:
            await checkpoint()
            raise
        await self._memory._supervisor.streams.clear(self._kind, known, asked_by)

    async def threads(self) -> list[ThreadId]:
        """The threads that hold something, in the order in which they began. The first call reads the log.

        Raises: `Closed`, `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be had).
        """
        await self._memory._supervisor.settle_all()
        index = self._memory._stream_index
        await index.catch_up()
        return index.threads()


async def _build(
    reader: ThreadReader,
    chunk: list[tuple[int, DecodedRecord]],
    behind: int,
    budget: int,
    counter: TokenCounter,
) -> tuple[WindowBuilder, bool]:
    """Take messages behind record `behind` from the newest backwards, beginning with `chunk`. True if some are left."""
    builder = WindowBuilder(budget, counter)
    while chunk:
        for seq, record in chunk:
            if record.kind != MESSAGE:
                continue
            message = draft_of(record)
            assert isinstance(message, Message)
            if seq <= behind or not builder.take(seq, message):
                return builder, True
        chunk = await reader.next_chunk()
    return builder, False


def _with_prefix(
    window: ThreadWindow, prefix: list[Message], tokens: int, pinned: Message | None, summary: ThreadSummary | None
) -> ThreadWindow:
    return msgspec.structs.replace(
        window,
        messages=[*prefix, *window.messages],
        tokens=window.tokens + tokens,
        pinned=pinned,
        summary=summary,
    )
