"""One commit over several streams."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import trio

from stepwell.errors import InvalidInput, InvalidState, NotFound, Rejected
from stepwell.memory.core import MemoryCore
from stepwell.memory.organising_staging import OrganisingStaging
from stepwell.memory.threads import LARGEST_META
from stepwell.model.codec import UNSTAMPED_NS
from stepwell.model.fact import Fact, FactId, Origin
from stepwell.model.fact_records import encode_change, fact_id
from stepwell.model.ids import EpisodeId, checked_id
from stepwell.model.message import Message, encode_message
from stepwell.model.organising import Related
from stepwell.model.run_event import RunEvent
from stepwell.model.scope import Scope, checked_scope
from stepwell.model.step import ExecutionStep
from stepwell.model.streams import SCOPE_STREAM
from stepwell.runtime.episode_part import EpisodePart, Staged, staged_bytes, staged_step
from stepwell.runtime.fact_scope import LARGEST_SCOPE_META
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.run_part import START_BYTES, RunPart
from stepwell.runtime.run_recording import Recording
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.stream_part import StreamPart
from stepwell.runtime.transaction import Transaction


class AtomicCommits(MemoryCore):
    """The part of a memory that commits over several streams at once."""

    def atomic(self) -> AtomicScope:
        """An async context manager; what is staged in its block is stored together or not at all. See `AtomicScope`."""
        return AtomicScope(self)


class AtomicScope(OrganisingStaging):
    """`async with memory.atomic() as tx:` — plain staging calls in the block, one commit when it is left.

    Leaving the block without an exception stores everything staged in one frame of the log, durable on return, and sets
    `receipt`. An exception or a cancellation in the block stores nothing. Staging checks and encodes at once, as the
    steps are then; an error of a staging call stages nothing of that call, and what was staged before stays.

    What organises an episode (tags, description, archive, checkpoints, relationships) is staged beside its steps, in
    one order with them, and may be of one that has ended. Whether it changes anything is decided at the commit; what
    changes nothing records nothing. Handing over and going on are no part of a transaction: the one only reads, the
    other starts an episode.

    An episode may be asleep; it is woken for the commit. Steps that others log meanwhile come before or behind, never
    between; while the commit holds an episode others wait as for a full mailbox. If all steps of an episode carry keys
    that are known they count as stored; together with new ones that is `InvalidState`. All staged records have the time
    of the commit.

    Cancelled while it leaves the block: as long as it waits for the episodes nothing is stored, and `receipt` stays
    None. Once everything is given to the log, `receipt` is set, and it will be stored unless the log fails. Either way
    the same steps with the same keys may be committed again, and are stored once.

    Raises on entering: `Closed`, `InvalidState` (entered before). On leaving, with nothing stored: `NotFound`,
    `InvalidState` (an episode has ended, is being completed or deleted, or is not at its `expected_seq`; a key was used
    for another step, or keys as above; a relationship would lead in a circle, or is there with another priority, reason
    or metadata), `TooLarge` (an episode would have too many steps, tags, relationships or checkpoints),
    `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`; and `OutcomeUnknown`: all of it is stored, or nothing.
    """

    def __init__(self, memory: MemoryCore):
        super().__init__()
        self._memory = memory
        self._transaction = Transaction(memory._journal)
        self._episodes: dict[str, EpisodePart] = {}
        self._runs: dict[str, RunPart] = {}
        self._streams: dict[tuple[str, str], StreamPart] = {}
        self._entered = self._open = False

    @property
    def receipt(self) -> Receipt | None:
        """That of the last record of the transaction, as it stands in the log; `seq` is its number in its own episode.

        None before the commit, after one that stored nothing, and if there was nothing to store.
        """
        return self._transaction.receipt

    def receipt_of(self, episode_id: str) -> Receipt | None:
        """That of the last record staged for an episode; None as `receipt`. Raises: `NotFound` if none was."""
        part = self._episodes.get(episode_id) or self._runs.get(episode_id)
        if part is None:
            raise NotFound(f"nothing was staged for episode {episode_id!r} in this transaction")
        return None if self._transaction.receipt is None else part.receipt

    def log_step(self, episode_id: str, step: ExecutionStep, *, expected_seq: int | None = None) -> None:
        """Stage one step for an episode. A plain function; whether the episode takes it shows at the commit.

        `expected_seq`: commit only if the episode, before the transaction, ends with that record; one number for all
        steps of the episode.
        Raises: `InvalidInput`, `TooLarge` (the step, or with it the episode's batch or the transaction: 16 MiB),
        `InvalidState` (not inside the block); then it is not staged.
        """
        self._stage(episode_id, [step], expected_seq, one=True)

    def log_steps(self, episode_id: str, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> None:
        """Stage several steps for an episode, all of them or, if it raises, none; see `log_step`."""
        if not isinstance(steps, list | tuple):
            raise InvalidInput(f"steps: must be a list of ExecutionStep, not {type(steps).__name__}")
        if not steps:
            raise InvalidInput("steps: must hold at least one step")
        self._stage(episode_id, steps, expected_seq, one=False)

    def append(self, thread: str, *messages: Message) -> None:
        """Stage messages for the end of a thread; see `ShortTermPort.append`. A plain function.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (not inside the block); then none is staged.
        """
        known = checked_id(thread, "thread")
        # Encoded at the commit; until then its caller may change what it gave.
        drafts = copy.deepcopy(self._memory._whole.short_term._checked(messages, one=len(messages) == 1))
        limits = self._memory._config.limits
        sizes = [len(encode_message(draft, UNSTAMPED_NS, None, limits)) + LARGEST_META for draft in drafts]
        self._stage_drafts(self._memory._whole.short_term._kind, known, drafts, sizes)

    @trio.lowlevel.enable_ki_protection
    def record(self, run: str, *events: RunEvent) -> None:
        """Stage events of a run; see `EpisodicPort.record`. A run that is unknown begins with the commit. For one run a
        transaction has either steps or events; a `ToolCall` is a step. A plain function.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (not inside the block); then none is staged.
        """
        self._check_staging()
        known = checked_id(run, "run")
        if known in self._episodes:
            raise InvalidInput(
                f"steps or changes were staged for {known!r}; record its steps as events.ToolCall, too, or stage its "
                "events in another transaction"
            )
        limits = self._memory._config.limits
        checked = copy.deepcopy(self._memory._whole.episodic._checked(events))  # encoded at the commit
        sizes = [len(payload) for payload in Recording(known, checked, UNSTAMPED_NS, limits, may_end=True).payloads]
        part = self._runs.get(known) or RunPart(self._memory._supervisor, known)
        part.check(sizes)
        self._transaction.admit(part, sizes if known in self._runs else [START_BYTES, *sizes])
        part.stage(checked, sizes)
        self._runs[known] = part

    def remember(
        self,
        scope: Scope,
        fact: Fact,
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Stage a fact for a scope; see `LongTermPort.remember`. `fact_ids` gives its id behind the commit. A plain
        function.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (not inside the block); then it is not staged.
        """
        known, port = checked_scope(scope), self._memory._whole.long_term
        change = port._checked(fact, "fact", time=time, expires_at=expires_at, origin=origin)
        size = len(encode_change(change, UNSTAMPED_NS, None, self._memory._config.limits)) + LARGEST_SCOPE_META
        self._stage_drafts(port._kind, known.stream_name, [change], [size])

    def fact_ids(self, scope: Scope) -> list[FactId]:
        """The ids of the facts that were staged for a scope, in that order, once everything is accepted.

        Raises: `InvalidInput`, `NotFound` if none was staged, `InvalidState` before the commit, and behind one that
        stored nothing.
        """
        part = self._streams.get((SCOPE_STREAM, checked_scope(scope).stream_name))
        if part is None:
            raise NotFound(f"nothing was staged for scope {scope} in this transaction")
        numbers = None if self._transaction.receipt is None else part.numbers
        if numbers is None:
            raise InvalidState("the facts of a transaction have ids once it is committed")
        return [fact_id(scope, part.generation, number) for number in numbers]

    def _check_staging(self) -> None:
        if not self._open:
            raise InvalidState("staging happens inside the block of memory.atomic(), not before or behind it")

    @trio.lowlevel.enable_ki_protection
    def _stage(self, episode_id: str, steps: Sequence[ExecutionStep], expected_seq: int | None, *, one: bool) -> None:
        if not self._open:
            raise InvalidState("steps are staged inside the block of memory.atomic(), not before or behind it")
        known = checked_id(episode_id)
        if known in self._runs:
            raise InvalidInput(f"events were recorded for {known!r}; record its steps as events.ToolCall, too")
        limits = self._memory._config.limits
        staged = []
        for position, step in enumerate(steps):
            try:
                staged.append(staged_step(step, limits, self._memory._redaction))
            except Rejected as error:
                if one:
                    raise
                raise type(error)(f"steps[{position}]: {error}") from error
        self._add(known, staged, expected_seq)

    @trio.lowlevel.enable_ki_protection
    def _add(self, known: EpisodeId, staged: Sequence[Staged], expected_seq: int | None) -> None:
        part = self._episodes.get(known) or EpisodePart(self._memory._supervisor, known)
        part.check(staged, expected_seq)
        self._transaction.admit(part, list(map(staged_bytes, staged)))
        part.stage(staged, expected_seq)
        self._episodes[known] = part

    @trio.lowlevel.enable_ki_protection
    def _stage_drafts(
        self, kind: StreamKind, name: str, drafts: Sequence[Any], sizes: Sequence[int], *, only_in: bytes | None = None
    ) -> None:
        """Stage drafts for a stream that is no episode. `sizes`: the most bytes of the record of each; `only_in`: the
        stream that they are made of, if they are of no use in another one."""
        self._check_staging()
        place = (kind.name, name)
        part = self._streams.get(place) or StreamPart(self._memory._supervisor, kind, name)
        part.check(sizes)
        self._transaction.admit(part, sizes)
        part.stage(drafts, sizes)
        if only_in is not None:
            part.only_in(only_in)
        self._streams[place] = part

    async def __aenter__(self) -> AtomicScope:
        await checkpoint()
        if self._entered:
            raise InvalidState("a transaction can be entered once; call memory.atomic() again")
        self._memory._supervisor.check_open()
        self._memory._journal.check_open(critical=True)
        self._entered = self._open = True
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        if any(isinstance(change, Related) for change in self._relationships):
            async with self._memory._relating.allowed(self._relationships):
                await self._transaction.commit()
        else:
            await self._transaction.commit()
