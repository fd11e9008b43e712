"""The ports in plain memory, for tests of agents: no files, no tasks, everything durable at once.

    agent = Agent(InMemoryShortTerm(), InMemoryEpisodic())

They pass `ports_contract`, as the real ones do. What they hold is in `kept`, which may be given to another.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import trio

from stepwell.errors import InvalidInput, TooLarge
from stepwell.model import validation as check
from stepwell.model.ids import ThreadId, checked_id
from stepwell.model.limits import Limits
from stepwell.model.message import (
    Message,
    Oversize,
    Role,
    ThreadSummary,
    TokenCounter,
    chars_over_4,
    checked_message,
    checked_summary,
)
from stepwell.model.run_event import Completed, Failed, RunEvent, Started
from stepwell.model.run_filter import RunFilter, RunFold, RunSummary, checked_filter, select
from stepwell.model.run_record import RecordedEvent, checked_event
from stepwell.model.thread_window import counted, summary_message
from stepwell.runtime.receipt import Commit, Receipt
from stepwell.testing.long_term import InMemoryLongTerm as InMemoryLongTerm

_LIMITS = Limits()


def _receipt(seq: int) -> Receipt:
    return Receipt(seq, Commit.stored(seq, seq))


class InMemoryShortTerm:
    """A `ShortTermMemory`. `kept`: by thread, its messages and summaries; the n-th has the number n."""

    def __init__(
        self,
        kept: dict[str, list[Message | ThreadSummary]] | None = None,
        *,
        token_counter: TokenCounter = chars_over_4,
        oversize: Oversize = "strict",
    ):
        self.kept: dict[str, list[Message | ThreadSummary]] = {} if kept is None else kept
        self._counter = token_counter
        self._oversize: Oversize = oversize

    async def append(self, thread: str, message: Message) -> Receipt:
        """See `ShortTermPort.append`."""
        await trio.lowlevel.checkpoint()
        return self._store(thread, [checked_message(message, _LIMITS, None)])

    async def append_many(self, thread: str, messages: Sequence[Message]) -> Receipt:
        """See `ShortTermPort.append_many`."""
        await trio.lowlevel.checkpoint()
        if not isinstance(messages, list | tuple) or not messages:
            raise InvalidInput("messages: must be a list of at least one Message")
        return self._store(thread, [checked_message(message, _LIMITS, None) for message in messages])

    async def summarise(self, thread: str, text: str, first_seq: int, last_seq: int) -> Receipt:
        """See `ShortTermPort.summarise`."""
        await trio.lowlevel.checkpoint()
        summary = checked_summary(text, first_seq, last_seq, _LIMITS)
        if last_seq > len(self.kept.get(thread, ())):
            raise InvalidInput(f"last_seq: thread {thread!r} has no record {last_seq}")
        return self._store(thread, [summary])

    def _store(self, thread: str, drafts: Sequence[Message | ThreadSummary]) -> Receipt:
        kept = self.kept.setdefault(checked_id(thread, "thread"), [])
        kept += drafts
        return _receipt(len(kept))

    async def load(
        self,
        thread: str,
        max_tokens: int,
        *,
        pin_system: bool = False,
        with_summary: bool = False,
        oversize: Oversize | None = None,
    ) -> list[Message]:
        """See `ShortTermPort.load`."""
        await trio.lowlevel.checkpoint()
        check.check_number(max_tokens, "max_tokens", minimum=0, whole=True)
        kept = self.kept.get(checked_id(thread, "thread"), [])
        prefix: list[Message] = []
        behind = 0
        summaries = [item for item in kept if isinstance(item, ThreadSummary)]
        if with_summary and summaries and self.cost(summary_message(summaries[-1])) <= max_tokens:
            prefix, behind = [summary_message(summaries[-1])], summaries[-1].last_seq
        messages = [item for item in kept[behind:] if isinstance(item, Message)]
        window = self.newest(messages, max_tokens - self.cost_of(prefix))
        said = [item for item in kept if isinstance(item, Message) and item.role == Role.SYSTEM]
        if pin_system and said and not any(item is said[-1] for item in window):
            tokens = self.cost(said[-1]) + self.cost_of(prefix)
            if tokens <= max_tokens:
                prefix = [said[-1], *prefix]
                window = self.newest(messages, max_tokens - tokens)
            elif (oversize or self._oversize) == "raise":
                raise TooLarge("max_tokens: the system message alone costs more")
        if messages and max_tokens > 0 and self.cost(messages[-1]) > max_tokens - self.cost_of(prefix):
            return self.too_large(messages[-1], oversize or self._oversize, prefix)
        if len(window) < len(messages) or behind:
            window = self.without_orphans(window)
        return [*prefix, *window]

    def newest(self, messages: list[Message], max_tokens: int) -> list[Message]:
        """The longest piece at the end that fits."""
        begin, tokens = len(messages), 0
        while begin and tokens + self.cost(messages[begin - 1]) <= max_tokens:
            begin -= 1
            tokens += self.cost(messages[begin])
        return messages[begin:]

    def without_orphans(self, window: list[Message]) -> list[Message]:
        """Without the replies at its beginning whose calls were cut off."""
        begin = 0
        while begin < len(window) and window[begin].role == Role.TOOL:
            begin += 1
        return window[begin:]

    def too_large(self, newest: Message, rule: Oversize, prefix: list[Message]) -> list[Message]:
        """What is given where the newest message alone does not fit."""
        if rule == "raise":
            raise TooLarge("the newest message alone costs more than is allowed")
        return [newest] if rule == "keep_last" else prefix

    def cost(self, message: Message) -> int:
        """In tokens."""
        return counted(message, self._counter)

    def cost_of(self, messages: list[Message]) -> int:
        """Of all of them."""
        return sum(map(self.cost, messages))

    async def clear(self, thread: str) -> None:
        """See `ShortTermPort.clear`."""
        await trio.lowlevel.checkpoint()
        self.kept.pop(checked_id(thread, "thread"), None)

    async def threads(self) -> list[ThreadId]:
        """See `ShortTermPort.threads`."""
        await trio.lowlevel.checkpoint()
        return [ThreadId(thread) for thread in self.kept]


class InMemoryEpisodic:
    """An `EpisodicMemory`. `kept`: by run, its events. `clock`: nanoseconds since 1970."""

    def __init__(self, kept: dict[str, list[RecordedEvent]] | None = None, *, clock: Callable[[], int] = time.time_ns):
        self.kept: dict[str, list[RecordedEvent]] = {} if kept is None else kept
        self._clock = clock

    async def record(self, run: str, event: RunEvent) -> Receipt:
        """See `EpisodicPort.record`."""
        await trio.lowlevel.checkpoint()
        return self.store(checked_id(run, "run"), [checked_event(event, _LIMITS, None)])

    async def record_many(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        """See `EpisodicPort.record_many`."""
        await trio.lowlevel.checkpoint()
        if not isinstance(events, list | tuple) or not events:
            raise InvalidInput("events: must be a list of at least one event")
        return self.store(checked_id(run, "run"), [checked_event(event, _LIMITS, None) for event in events])

    def store(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        """Keep checked events."""
        kept = self.kept.setdefault(run, [])
        for event in events:
            # A run that begins with something else has a start that is implied, and takes a number.
            seq = kept[-1].seq + 1 if kept else 1 if isinstance(event, Started) else 2
            time_ns = max(self._clock(), kept[-1].time_ns if kept else 0)
            kept.append(RecordedEvent(seq, seq, time_ns, event))
        return _receipt(kept[-1].seq)

    async def replay(self, run: str) -> list[RunEvent]:
        """See `EpisodicPort.replay`."""
        await trio.lowlevel.checkpoint()
        return [item.event for item in self.kept.get(checked_id(run, "run"), [])]

    async def replay_many(self, runs: Iterable[str]) -> list[tuple[str, list[RunEvent]]]:
        """See `EpisodicPort.replay_many`."""
        await trio.lowlevel.checkpoint()
        if isinstance(runs, str) or not isinstance(runs, Iterable):
            raise InvalidInput(f"runs: must be several ids, not {type(runs).__name__}")
        return [(run, await self.replay(run)) for run in runs]

    async def iter_replay(self, run: str, after: int = 0) -> AsyncIterator[RecordedEvent]:
        """See `EpisodicPort.iter_replay`."""
        await trio.lowlevel.checkpoint()
        for item in list(self.kept.get(checked_id(run, "run"), [])):
            if item.seq > after:
                yield item

    async def list_runs(self, filter: RunFilter | None = None) -> list[RunSummary]:
        """See `EpisodicPort.list_runs`."""
        await trio.lowlevel.checkpoint()
        return self.select([self.fold(run, kept) for run, kept in self.kept.items()], checked_filter(filter))

    def select(self, folds: list[RunFold], run_filter: RunFilter) -> list[RunSummary]:
        """The runs a filter is met by, in order."""
        return select(folds, run_filter)

    def fold(self, run: str, kept: list[RecordedEvent]) -> RunFold:
        """What there is to say of a run."""
        fold = RunFold(run)
        for item in kept:
            fold.add(item.time_ns)
            if isinstance(item.event, Started):
                fold.start(item.event.agent)
            elif isinstance(item.event, Completed | Failed):
                fold.end(item.time_ns, "completed" if isinstance(item.event, Completed) else "failed")
        return fold


class InMemoryPorts:
    """The ports that share one place, as those of a memory do."""

    def __init__(self, **settings: Any) -> None:
        self.short_term, self.episodic = InMemoryShortTerm(**settings), InMemoryEpisodic()
        self.long_term = InMemoryLongTerm()
