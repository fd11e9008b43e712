"""The calls of a memory, as plain code makes them. Made by `tools/make_doors.py`; change what that reads."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from stepstore.journal import ArchiveReport, CompactionReport, DeletionReport, Gap
from stepwell.bridge import hot
from stepwell.learning.relevance import DIVERSITY
from stepwell.learning.scored_episode import RelevantEpisodes
from stepwell.memory.completed import CompletedEpisode
from stepwell.memory.episodic import EpisodicPort as TargetEpisodicPort
from stepwell.memory.figures import MemoryHealth, MemoryRecovery, MemoryStats
from stepwell.memory.following import START, Place
from stepwell.memory.handle import EpisodeHandle as TargetEpisodeHandle
from stepwell.memory.handle import StepScope
from stepwell.memory.long_term import LongTermPort as TargetLongTermPort
from stepwell.memory.memory import Memory as TargetMemory
from stepwell.memory.run_scope import RunningEpisode as TargetRunningEpisode
from stepwell.memory.short_term import ShortTermPort as TargetShortTermPort
from stepwell.memory.skills import Skills as TargetSkills
from stepwell.memory.summarising import Summariser
from stepwell.model.checkpoint import Checkpoint
from stepwell.model.context import TaskContext
from stepwell.model.episode import Episode
from stepwell.model.episode_filter import EpisodeFilter
from stepwell.model.event import Event
from stepwell.model.fact import Fact, FactId, Hit, Origin, StoredFact
from stepwell.model.fact_page import FactPage
from stepwell.model.handoff import HandoffPack
from stepwell.model.ids import EpisodeId, ThreadId
from stepwell.model.listed_episode import Page
from stepwell.model.message import Message, Oversize, ThreadSummary
from stepwell.model.outcome import TaskOutcome
from stepwell.model.pattern import Explanation, Pattern, PatternKind
from stepwell.model.recall_semantics import RecallSemantics
from stepwell.model.recommendation import FeedbackReceipt, Heuristic, Playbook, Recommendation, RecommendationStats
from stepwell.model.relationship import Relationship, RelationshipKind
from stepwell.model.retention import RetentionPolicy, RetentionReport
from stepwell.model.run_event import RunEvent
from stepwell.model.run_filter import RunFilter, RunSummary
from stepwell.model.run_record import RecordedEvent
from stepwell.model.scope import Scope
from stepwell.model.skill import Skill, SkillMatch
from stepwell.model.step import ExecutionStep
from stepwell.model.tag_count import TagPage
from stepwell.model.thread_window import ThreadWindow
from stepwell.model.usage import Price, UsageReport
from stepwell.runtime.lifecycle_events import LifecycleEvent
from stepwell.runtime.reading import OpenEpisode
from stepwell.sync.door import Door
from stepwell.sync.wrappers import Channel, DoorScope, Items, Receipt, Transaction


class EpisodeHandle:
    """A handle to one episode; see `stepwell.EpisodeHandle`."""

    def __init__(self, door: Door, target: TargetEpisodeHandle):
        self._door, self._target = door, target

    @property
    def id(self) -> EpisodeId:
        """The id of the episode."""
        return self._target.id

    def __repr__(self) -> str:
        return repr(self._target)

    @property
    def episode_id(self) -> EpisodeId:
        """The same as `id`."""
        return self._target.episode_id

    def log_step(self, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step: accepted on return (durable with `durability="commit"`); the receipt tells when it is durable.

        Waits while the mailbox of the episode is full; cancelled there, nothing is accepted. Cancelled in
        `durability="commit"` after that, the step will be stored unless the log fails.
        `expected_seq`: accept it only behind that record, the last one of the episode that the caller knows of (its
        receipt's `seq`; 1 right after the start). A step whose key is known gets its first receipt all the same.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (the episode has ended, the key was used for
        another step, or the episode is not at `expected_seq`), `EpisodeUnavailable`, `Closed`, `LogFull`.
        """
        found: Receipt = self._door.call(
            lambda: self._target.log_step(step, expected_seq=expected_seq),
            lambda: hot.log_step(self._target, step, expected_seq=expected_seq),
        )
        return found

    def log_steps(self, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> Receipt:
        """Log several steps as one atomic batch; see `Memory.log_steps`."""
        found: Receipt = self._door.call(
            lambda: self._target.log_steps(steps, expected_seq=expected_seq),
            lambda: hot.log_steps(self._target, steps, expected_seq=expected_seq),
        )
        return found

    def log_step_nowait(self, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step without waiting: accepted on return. A plain function; let the loop run between many of them.

        Raises: `Busy` when it would have to wait (the mailbox is full, a transaction is being committed, or the episode
        is asleep or being rebuilt), and all that `log_step` raises.
        """
        found: Receipt = self._door.call_plain(lambda: self._target.log_step_nowait(step, expected_seq=expected_seq))
        return found

    def record(self, *events: RunEvent) -> Receipt:
        """Record events of the run that this episode is, several of them as one batch; see `EpisodicPort.record`.
        Unlike logging, it begins a run that is unknown, and adds to one that has ended.
        """
        found: Receipt = self._door.call(lambda: self._target.record(*events))
        return found

    def step(self, tool: str, action: str = "", parameters: dict[str, Any] | None = None) -> DoorScope[StepScope]:
        """A context manager that logs what its body does as one step, with the latency measured."""
        return DoorScope(self._door, self._target.step(tool, action, parameters))

    def flush(self) -> None:
        """Return once everything accepted for this episode is durable; see `Memory.flush_steps`."""
        self._door.call(lambda: self._target.flush())

    def complete(
        self, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None, actor: str = ""
    ) -> CompletedEpisode:
        """End the episode; see `Memory.complete_episode`."""
        found: CompletedEpisode = self._door.call(
            lambda: self._target.complete(outcome, metadata=metadata, actor=actor)
        )
        return found

    def get(self) -> Episode:
        """The episode so far; see `Memory.get_episode`."""
        found: Episode = self._door.call(lambda: self._target.get())
        return found

    def events(self, after: int = 0) -> Items[Event]:
        """The events of the episode; see `Memory.events`."""
        return Items(self._door, self._target.events(after))


class RunningEpisode(EpisodeHandle):
    """A handle inside a run scope; see `stepwell.Memory.episode`."""

    _target: TargetRunningEpisode

    def succeed(self, verdict: str = "", artifacts: list[str] | None = None) -> None:
        """The task was done. Raises: `InvalidInput`."""
        self._target.succeed(verdict, artifacts)

    def partially(self, verdict: str = "", completed: list[str] | None = None, failed: list[str] | None = None) -> None:
        """Some of the task was done. Raises: `InvalidInput`."""
        self._target.partially(verdict, completed, failed)

    def fail(self, reason: str = "", error_details: str | None = None) -> None:
        """The task was not done. Raises: `InvalidInput`."""
        self._target.fail(reason, error_details)

    def abstain(
        self, reason: str = "", stopped_at_step: int = 0, infeasibility_signals: list[str] | None = None
    ) -> None:
        """The task was judged infeasible. Raises: `InvalidInput`."""
        self._target.abstain(reason, stopped_at_step, infeasibility_signals)


class ShortTermPort:
    """Conversation threads; see `stepwell.ShortTermPort`."""

    def __init__(self, door: Door, target: TargetShortTermPort):
        self._door, self._target = door, target

    def append(self, thread: str, message: Message) -> Receipt:
        """Add a message at the end of a thread: accepted on return (durable with `durability="commit"`).

        If cancelled before it is accepted nothing is stored; in `durability="commit"`, behind that, it will be.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`.
        """
        found: Receipt = self._door.call(lambda: self._target.append(thread, message))
        return found

    def append_many(self, thread: str, messages: Sequence[Message]) -> Receipt:
        """Add messages that are stored together or not at all. The receipt is that of the last one; see `append`."""
        found: Receipt = self._door.call(lambda: self._target.append_many(thread, messages))
        return found

    def load(
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
        found: list[Message] = self._door.call(
            lambda: self._target.load(
                thread, max_tokens, pin_system=pin_system, with_summary=with_summary, oversize=oversize
            )
        )
        return found

    def window(
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
        found: ThreadWindow = self._door.call(
            lambda: self._target.window(
                thread, max_tokens, pin_system=pin_system, with_summary=with_summary, oversize=oversize
            )
        )
        return found

    def summarise(self, thread: str, text: str, first_seq: int, last_seq: int) -> Receipt:
        """Store a summary of the messages `first_seq` to `last_seq`; durable on return. The messages stay; `load` puts
        the last summary in their place if asked to. Most callers use `summarize_history`, which calls this.

        If cancelled, whether it is stored is unknown; storing it again does no harm.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: Receipt = self._door.call(lambda: self._target.summarise(thread, text, first_seq, last_seq))
        return found

    def summarize_history(
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
        found: ThreadSummary | None = self._door.call(
            lambda: self._target.summarize_history(
                thread,
                summariser,
                trigger_token_budget=trigger_token_budget,
                keep_recent_messages=keep_recent_messages,
                run=run,
                redact_tool_content=redact_tool_content,
                redact_roles=redact_roles,
            )
        )
        return found

    def clear(self, thread: str, *, actor: str = "") -> None:
        """Delete every message of a thread, and what it was encrypted with; durable on return. Other threads are
        untouched, and appending goes on in an empty one. An unknown thread is none. `actor`: who asked, for the event.

        If cancelled the clearing goes on; call again to learn how it went.
        Raises: `InvalidInput`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        self._door.call(lambda: self._target.clear(thread, actor=actor))

    def threads(self) -> list[ThreadId]:
        """The threads that hold something, in the order in which they began. The first call reads the log.

        Raises: `Closed`, `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be had).
        """
        found: list[ThreadId] = self._door.call(lambda: self._target.threads())
        return found


class EpisodicPort:
    """The events of runs; see `stepwell.EpisodicPort`."""

    def __init__(self, door: Door, target: TargetEpisodicPort):
        self._door, self._target = door, target

    def record(self, run: str, event: RunEvent) -> Receipt:
        """Record one event of a run: accepted on return (durable with `durability="commit"`). Waits while the mailbox
        of the run is full.

        If cancelled before it is accepted nothing is stored; in `durability="commit"`, behind that, it will be.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the run was deleted), `EpisodeUnavailable`, `Closed`,
        `LogFull`.
        """
        found: Receipt = self._door.call(lambda: self._target.record(run, event))
        return found

    def record_many(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        """Record events that are stored together or not at all. The receipt is that of the last one; see `record`."""
        found: Receipt = self._door.call(lambda: self._target.record_many(run, events))
        return found

    def replay(self, run: str) -> list[RunEvent]:
        """All events of a run, in order, as they were recorded; none if the run is unknown. For a long run use
        `iter_replay`. It sees everything accepted before the call.

        Raises: `InvalidInput`, `EpisodeUnavailable`, `Unavailable`, `Closed`.
        """
        found: list[RunEvent] = self._door.call(lambda: self._target.replay(run))
        return found

    def replay_many(self, runs: Iterable[str]) -> list[tuple[str, list[RunEvent]]]:
        """The events of several runs, in the order asked for; see `replay`."""
        found: list[tuple[str, list[RunEvent]]] = self._door.call(lambda: self._target.replay_many(runs))
        return found

    def iter_replay(self, run: str, after: int = 0) -> Items[RecordedEvent]:
        """The events of a run behind record `after`, oldest first, each with its number and time, in bounded memory:
        `for recorded in …`. An unknown run has none. It sees everything accepted before its first item is asked
        for; nothing has to be closed.

        Raises: `InvalidInput`; the iteration raises as `replay`.
        """
        return Items(self._door, self._target.iter_replay(run, after))

    def follow(self, run: str, after: int = 0) -> DoorScope[Channel[RecordedEvent]]:
        """The events of a run behind record `after`, then those to come, as they become durable:
        `with memory.episodic.follow(run) as events: for recorded in events: …`. The run may be unknown yet.
        A slow reader lags behind; nothing waits for it. It ends when the memory is closed or the run is deleted.

        Raises: `InvalidInput`; entering raises `Closed`, receiving as `replay`.
        """
        return DoorScope(self._door, self._target.follow(run, after))

    def list_runs(self, filter: RunFilter | None = None) -> list[RunSummary]:
        """The runs that a filter is met by: the latest started first, and of equal times the greater id first. It sees
        everything accepted before the call. The first call after opening reads the log.

        Raises: `InvalidInput`, `Closed`, `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be
        had).
        """
        found: list[RunSummary] = self._door.call(lambda: self._target.list_runs(filter))
        return found

    def usage(self, runs: Iterable[str], prices: Mapping[tuple[str, str], Price] | None = None) -> UsageReport:
        """What runs have used: calls, tokens, latency and, with `prices` by (provider, model), cost; per run, per agent
        and per model. Works on runs that have not ended. See `stepwell.model.usage`.

        Raises: `InvalidInput`, and as `replay`.
        """
        found: UsageReport = self._door.call(lambda: self._target.usage(runs, prices))
        return found


class LongTermPort:
    """Facts in scopes; see `stepwell.LongTermPort`."""

    def __init__(self, door: Door, target: TargetLongTermPort):
        self._door, self._target = door, target

    def remember(
        self,
        scope: Scope,
        fact: Fact,
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
        supersedes: str | None = None,
        deduplicate: bool = False,
    ) -> FactId:
        """Store a fact in one scope, and give its id.

        `time`: when what it says was so, if not now; it is searched as well. `expires_at`: from then on it is not
        found. `origin`: the run and the step it came from. `supersedes`: the id of a fact of the same scope in whose
        place it comes; that one is not found any more, but can still be read. `deduplicate`: if a fact that says the
        same (text and metadata) can be found in the scope, nothing is stored, and its id is given.
        Raises: `InvalidInput`, `TooLarge`, `NotFound` (nothing to supersede).
        """
        found: FactId = self._door.call(
            lambda: self._target.remember(
                scope,
                fact,
                time=time,
                expires_at=expires_at,
                origin=origin,
                supersedes=supersedes,
                deduplicate=deduplicate,
            )
        )
        return found

    def remember_many(
        self,
        scope: Scope,
        facts: Sequence[Fact],
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
        deduplicate: bool = False,
    ) -> list[FactId]:
        """Store facts together or not at all, and give their ids in the same order; see `remember`.

        With `deduplicate`, a fact that is there, or stands twice in `facts`, has the id of the first.
        Raises: `InvalidInput`, `TooLarge` (also for more than 16 MiB together), naming the fact.
        """
        found: list[FactId] = self._door.call(
            lambda: self._target.remember_many(
                scope, facts, time=time, expires_at=expires_at, origin=origin, deduplicate=deduplicate
            )
        )
        return found

    def recall(
        self,
        scope: Scope,
        query: str,
        k: int = 5,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        fall_through: Sequence[Scope] = (),
    ) -> list[Fact]:
        """The best `k` facts of a scope for a query, the best first; see `search`.

        Raises: `InvalidInput`, `TooLarge`.
        """
        found: list[Fact] = self._door.call(
            lambda: self._target.recall(
                scope, query, k, where=where, since=since, until=until, fall_through=fall_through
            )
        )
        return found

    def search(
        self,
        scope: Scope,
        query: str,
        k: int = 5,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        fall_through: Sequence[Scope] = (),
    ) -> list[Hit]:
        """The best `k` facts of a scope for a query, each with its id, its score, and why it was found.

        `ranking` says how it ranks. Of equal scores the newest comes first. Where no word of the query is found, what
        the query stands in as it is written; a query that is blank finds the newest. `where`: only facts whose metadata
        has these fields with these values (an object inside has to match in the same way, a list also matches each of
        its items). `since`, `until`: only facts of that time, bounds included. `fall_through`: if the scope gives fewer
        than `k`, what is missing comes from these, in turn.
        Raises: `InvalidInput`, `TooLarge`.
        """
        found: list[Hit] = self._door.call(
            lambda: self._target.search(
                scope, query, k, where=where, since=since, until=until, fall_through=fall_through
            )
        )
        return found

    def get(self, fact_id: str) -> StoredFact:
        """One fact, also if it was superseded or has expired. Raises: `NotFound` (it was forgotten, or never was)."""
        found: StoredFact = self._door.call(lambda: self._target.get(fact_id))
        return found

    def facts(
        self,
        scope: Scope,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> FactPage:
        """The facts of a scope that can be found, in the order of remembering, `limit` at a time.

        `cursor`: the `next_cursor` of the page before. Facts that come or go between two pages neither repeat nor hide
        others. Raises: `InvalidInput`.
        """
        found: FactPage = self._door.call(
            lambda: self._target.facts(scope, limit, cursor, where=where, since=since, until=until)
        )
        return found

    def scopes(self) -> list[Scope]:
        """The scopes that something was remembered in since they were last cleared, in the order in which they began.

        The first call reads the log. Raises: `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be
        had).
        """
        found: list[Scope] = self._door.call(lambda: self._target.scopes())
        return found

    def forget(self, fact_id: str) -> bool:
        """Remove a fact: from now on it is in no answer. False if there is none of that id.

        Its bytes stay in the log, as those of every record do, until its scope is cleared. Durable on return;
        cancelled, whether it was done is unknown: call again. Raises: as all of `memory.long_term`.
        """
        found: bool = self._door.call(lambda: self._target.forget(fact_id))
        return found

    def clear(self, scope: Scope, *, actor: str = "", purge: bool = False) -> DeletionReport | None:
        """Forget every fact of a scope, and what it was encrypted with. Other scopes are untouched. `actor`: who asked,
        for the event. With `purge` the bytes go too, and the report proves it (see `compact`).

        Raises: `InvalidInput`.
        """
        found: DeletionReport | None = self._door.call(lambda: self._target.clear(scope, actor=actor, purge=purge))
        return found

    @property
    def ranking(self) -> RecallSemantics:
        """How it ranks."""
        found: RecallSemantics = self._door.call_plain(lambda: self._target.ranking)
        return found


class Skills:
    """Procedural skills; see `stepwell.Skills`."""

    def __init__(self, door: Door, target: TargetSkills):
        self._door, self._target = door, target

    def store(
        self,
        name: str,
        description: str = "",
        *,
        steps: Sequence[str] = (),
        context: TaskContext | None = None,
        sources: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> Skill:
        """Store a skill under a name; one that is there under that name is replaced, and keeps its record of use.

        `steps`: what to do, in order. `sources`: ids of the episodes or patterns that it comes from. If cancelled,
        whether it was stored is unknown: store it again.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: Skill = self._door.call(
            lambda: self._target.store(
                name, description, steps=steps, context=context, sources=sources, metadata=metadata
            )
        )
        return found

    def get(self, skill_id: str) -> Skill:
        """The skill with an id. Raises: `InvalidInput`, `NotFound`, `Unavailable`, `Closed`."""
        found: Skill = self._door.call(lambda: self._target.get(skill_id))
        return found

    def find(self, task: str = "", context: TaskContext | None = None, *, limit: int = 5) -> list[SkillMatch]:
        """Skills for a task, best first: by the words that name, description and steps share with it, by context, and
        by how they did when they were used. Without a task and a context, all skills by how they did.

        `limit`: 1 to 1,000. Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`.
        """
        found: list[SkillMatch] = self._door.call(lambda: self._target.find(task, context, limit=limit))
        return found

    def used(self, skill_id: str, outcome: TaskOutcome | None = None) -> Skill:
        """Note that a skill was used, and how the task ended; durable on return. Gives the skill as it is known then.

        Without an outcome, or if the task was abstained from or interrupted, the use counts neither for nor against it.
        If cancelled, whether it was noted is unknown. Raises: `InvalidInput`, `NotFound`, `InvalidState` (it is being
        deleted), `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: Skill = self._door.call(lambda: self._target.used(skill_id, outcome))
        return found

    def delete(self, skill_id: str) -> None:
        """Delete a skill with what is known of its use; durable on return. Its name may be used again, its id is not.

        If cancelled the deletion goes on once it is queued. Raises: `InvalidInput`, `NotFound`, `Unavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        self._door.call(lambda: self._target.delete(skill_id))


class Memory:
    """An opened memory; see `stepwell.Memory`."""

    def __init__(self, door: Door, target: TargetMemory):
        self._door, self._target = door, target

    def stats(self) -> MemoryStats:
        """Counts since opening, and what waits where now. Looks at every episode that is awake; also after closing."""
        found: MemoryStats = self._door.call_plain(lambda: self._target.stats())
        return found

    def health(self) -> MemoryHealth:
        """Whether the memory works, and what is wrong. Looks at every episode that is awake; also after closing."""
        found: MemoryHealth = self._door.call_plain(lambda: self._target.health())
        return found

    def lifecycle(self) -> DoorScope[Channel[LifecycleEvent]]:
        """What happens to the memory and its episodes from now on, as it happens:
        `with memory.lifecycle() as events: for event in events: …`, with `LifecycleEvent`s.

        Nothing waits for the reader: 1,024 events are kept for it, and what comes on top is told by one event of kind
        "missed" with their number. Ends when the memory is closed. Nothing of it is stored; `follow` gives what is.
        Entering and receiving are checkpoints. Raises on entering: `Closed`, `InvalidState` (entered before).
        """
        return DoorScope(self._door, self._target.lifecycle())

    def delete_episode(self, episode_id: str, *, purge: bool = False, actor: str = "") -> DeletionReport | None:
        """Delete an episode: nothing reads it from now on, and its id is never used again; durable on return. With
        `purge` its bytes are removed from every file at once, and the report gives the proof; see `compact`.

        Works for one that is damaged or cannot be read as well. Its task stores what was accepted and ends first; steps
        and endings that come meanwhile are `InvalidState`. Its bytes stay in the log until they are compacted away; if
        they are encrypted, its key is destroyed at once. Deleting it again does nothing more. If cancelled the deletion
        goes on; call again to learn how it went. `actor`: who asked; it stands in the event.
        Raises: `InvalidInput`, `NotFound`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: DeletionReport | None = self._door.call(
            lambda: self._target.delete_episode(episode_id, purge=purge, actor=actor)
        )
        return found

    def compact(self, *, purge: bool = False) -> CompactionReport:
        """Give back the space of deleted episodes and merge small files of the log, now; by itself it happens in the
        background when enough is dead. Reading and writing go on meanwhile.

        With `purge` every file that holds something of a deleted episode is rewritten, whatever it costs, and the whole
        directory is searched for what may be left of it; the report is a `DeletionReport` that says what was looked at
        and what is out of reach (archives and other copies).
        If cancelled, what is under way is thrown away; nothing is lost. Raises: `Closed`, `OSError`.
        """
        found: CompactionReport = self._door.call(lambda: self._target.compact(purge=purge))
        return found

    def backup(self, target: str | os.PathLike[str]) -> ArchiveReport:
        """Copy the memory into an archive, a new directory, while logging and reading go on.

        The archive holds everything that is durable when this is called, and every byte of it is read back and
        compared. `stepwell restore`, or `stepstore.log.archive.restore_archive`, makes a memory of it again. Keys of
        encrypted episodes are not in it; keep the directory `keys` as well.
        If this is cancelled or fails, what is left at the target is no archive; backing up to it again begins anew.
        Raises: `Closed`, `InvalidInput` (the target is neither absent nor empty, or lies inside the memory; a memory
        without a path), `CorruptLog` (a file of the log is damaged), `Unavailable` (an I/O error).
        """
        found: ArchiveReport = self._door.call(lambda: self._target.backup(target))
        return found

    def retain(
        self, policy: RetentionPolicy, *, dry_run: bool = False, limit: int = 10000, actor: str = ""
    ) -> RetentionReport:
        """Delete the ended episodes that a policy does not keep, as `delete_episode` does: durable on return, and gone
        from everything that is derived from them. Never one that is open. With `dry_run` nothing is deleted, and the
        report says what would be.

        First those go that the rules of the policy name, the oldest first; then, if there are still more than
        `max_episodes`, the worst of the others. At most `limit` in one call: `has_more` tells that more are due.
        Everything that was durable before the call counts; what changes while it works may or may not. `actor`: who
        asked; it stands in the events. If cancelled, the deletions that are under way go on, and no more begin.
        Raises: `InvalidInput`, naming the field; `Unavailable` (the list of episodes is not kept up to date any more),
        `Closed`, `LogFull`, `OutcomeUnknown`; some may be deleted then, and calling again goes on.
        """
        found: RetentionReport = self._door.call(
            lambda: self._target.retain(policy, dry_run=dry_run, limit=limit, actor=actor)
        )
        return found

    def patterns(
        self,
        kind: PatternKind | None = None,
        *,
        domain: str | None = None,
        text: str | None = None,
        min_episodes: int = 1,
        limit: int = 50,
    ) -> list[Pattern]:
        """Patterns of all episodes, those with the most to say first: by the lower bound of success, of loops and dead
        ends that of failure, then by how many episodes show them.

        `kind`: one of "tool_sequence", "decision_point", "error_recovery", "context_pattern", "loop", "dead_end".
        `text`: only those that hold it, in whatever case. `min_episodes`: only those that so many episodes show.
        `limit`: 1 to 1,000.
        A checkpoint. Raises: `InvalidInput`, `Unavailable`, `Closed`.
        """
        found: list[Pattern] = self._door.call(
            lambda: self._target.patterns(kind, domain=domain, text=text, min_episodes=min_episodes, limit=limit)
        )
        return found

    def heuristics(self, context: TaskContext | None = None, *, limit: int = 20) -> list[Heuristic]:
        """Rules of thumb: patterns that at least two episodes show, read as "when this, then that", the most confident
        first. With a `context`, those of its domain.

        `limit`: 1 to 1,000. A checkpoint. Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`.
        """
        found: list[Heuristic] = self._door.call(lambda: self._target.heuristics(context, limit=limit))
        return found

    def explain(self, pattern_id: str) -> Explanation:
        """Why a pattern is believed: its figures beside the base rate of its domain, the newest episodes that show it
        with the numbers of their records, and what became of it as advice.

        A checkpoint. Raises: `InvalidInput`, `NotFound` (no episode shows it, or none does any more), `Unavailable`,
        `Closed`.
        """
        found: Explanation = self._door.call(lambda: self._target.explain(pattern_id))
        return found

    def recommend(
        self, task: str, context: TaskContext | None = None, limit: int = 3, **context_fields: Any
    ) -> Recommendation:
        """Advice for a task: what to do and what to avoid, each piece with its figures, why it stands where it does,
        and the very calls of an episode that shows it; and the episodes most like it that solved their task.

        Fields of `TaskContext` may be given as keywords as well; domain and tags say most. `limit`: 1 to 50.
        What was advised is stored, durable on return, so that `feedback` can say what became of it: that is what makes
        advice which helped rise and other advice fall. A memory opened for reading stores nothing; the `id` is "" then.
        If cancelled, whether it was stored is unknown, and does not matter.
        Raises: `InvalidInput`, `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: Recommendation = self._door.call(lambda: self._target.recommend(task, context, limit, **context_fields))
        return found

    def playbook(
        self, task: str, context: TaskContext | None = None, *, max_steps: int = 5, **context_fields: Any
    ) -> Playbook | None:
        """An ordered way to go about a task, put together from what was learned; None if nothing was that says what to
        do.

        `max_steps`: 1 to 100. Otherwise as `recommend`, of which it is made: `feedback` takes its `recommendation_id`.
        """
        found: Playbook | None = self._door.call(
            lambda: self._target.playbook(task, context, max_steps=max_steps, **context_fields)
        )
        return found

    def feedback(
        self,
        recommendation_id: str,
        *,
        applied: Sequence[str] = (),
        consulted: Sequence[str] = (),
        outcome: TaskOutcome | None = None,
        rating: float | None = None,
    ) -> FeedbackReceipt:
        """Say what became of a recommendation; durable on return. Given again, the newest counts.

        `applied`: ids of the patterns or skills in it that were followed; all others count as not followed.
        `consulted`: ids of the episodes that were looked at. `outcome`: how the task ended; without one, or if it was
        abstained from or interrupted, nothing is said for or against what was applied. `rating`: 0 to 1.
        If cancelled, whether it is stored is unknown: give it again.
        Raises: `InvalidInput` (something was applied that was not advised), `NotFound` (no such recommendation, or no
        such episode), `TooLarge`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: FeedbackReceipt = self._door.call(
            lambda: self._target.feedback(
                recommendation_id, applied=applied, consulted=consulted, outcome=outcome, rating=rating
            )
        )
        return found

    def recommendation_stats(self) -> RecommendationStats:
        """How all recommendations together did. A checkpoint. Raises: `Unavailable`, `Closed`."""
        found: RecommendationStats = self._door.call(lambda: self._target.recommendation_stats())
        return found

    def retrieve_relevant_context(
        self,
        query: str,
        context: TaskContext | None = None,
        limit: int = 5,
        *,
        filter: EpisodeFilter | None = None,
        diversity: float = DIVERSITY,
    ) -> RelevantEpisodes:
        """The finished episodes that are most relevant to a task, best first: by the words their tasks and labels share
        with `query`, and then by context, outcome, reward and age (see docs/retrieval.md). Every hit says what its
        score is made of, and an empty answer why it is. With an embedder in the settings vectors count too; if that
        fails, the answer is by words alone, and its `note` says so.

        `context`: that of the task at hand; episodes that share its domain, language, framework or tags rank higher.
        `limit`: 1 to 100. `diversity`: from 0 to 1, the share of its score that an episode loses which only repeats a
        better one. `filter`: only episodes that it lets through; without a word in it on archived ones, those
        are left out. Open and interrupted episodes are never in the answer, deleted ones never again after
        `delete_episode` returned. It sees every ending that was durable before the call. Cancelling breaks it off.
        Raises: `InvalidInput`, `TooLarge`, naming the argument; `Unavailable` (what is looked up is not kept up to date
        any more, see `health`, or cannot be read), `Closed`.
        """
        found: RelevantEpisodes = self._door.call(
            lambda: self._target.retrieve_relevant_context(query, context, limit, filter=filter, diversity=diversity)
        )
        return found

    def list_episodes(
        self,
        filter: EpisodeFilter | None = None,
        *,
        limit: int = 50,
        cursor: str | None = None,
        order: Literal["newest", "oldest"] = "newest",
        at_least: int | None = None,
    ) -> Page:
        """A page of the episodes that a filter lets through, by the time at which they started.

        `limit`: 1 to 1,000. `cursor`: the `next_cursor` of the page before, of a list with the same filter and order;
        over all pages each episode comes exactly once, whatever is added or deleted meanwhile.

        The list is kept up to date in the background and lags behind the log: by a fraction of a second, and while much
        is written by a few seconds. `at_least`: an lsn, `receipt.lsn` for instance, up to which it must be: the call
        waits until it is. Deleted episodes are gone from it when `delete_episode` returns. Cancelling breaks off the
        search.
        Raises: `InvalidInput`, `TooLarge`, naming the argument; `Unavailable` (the list is not kept up to date any
        more, see `health`, or cannot be read), `Closed`.
        """
        found: Page = self._door.call(
            lambda: self._target.list_episodes(filter, limit=limit, cursor=cursor, order=order, at_least=at_least)
        )
        return found

    def count_episodes(self, filter: EpisodeFilter | None = None, *, at_least: int | None = None) -> int:
        """How many episodes a filter lets through, all of them without one; as up to date as a list.

        It looks at all of them that the filter's best index leaves. Cancelling breaks off the count.
        Raises: as `list_episodes`.
        """
        found: int = self._door.call(lambda: self._target.count_episodes(filter, at_least=at_least))
        return found

    def tags(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        order: Literal["tag", "count"] = "tag",
        at_least: int | None = None,
    ) -> TagPage:
        """A page of all tags that episodes have, archived ones too, each with how many episodes have it.

        `order`: by "tag", without regard to case, or by "count", the most frequent first. `limit` and `cursor`: as for
        `list_episodes`. By tag each comes exactly once over all pages, whatever changes meanwhile; by count one whose
        count changes between two pages may come twice, or not. As up to date as a list; `at_least` as there. Cancelling
        breaks off the search.
        Raises: as `list_episodes`.
        """
        found: TagPage = self._door.call(
            lambda: self._target.tags(limit=limit, cursor=cursor, order=order, at_least=at_least)
        )
        return found

    def add_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Add tags to an episode, behind those it has. One that it has already, in whatever case, stays as it is.

        A tag has 1 to 100 bytes (`Limits.tag_bytes`) once blanks around it are gone, and no control characters; an
        episode has at most 1,000. Durable on return; cancelled, whether it was done is unknown: call again.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (the episode is being deleted),
        `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        self._door.call(lambda: self._target.add_tags(episode_id, tags, actor=actor))

    def remove_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Take tags away from an episode, in whatever case they are given. Those it does not have change nothing.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        self._door.call(lambda: self._target.remove_tags(episode_id, tags, actor=actor))

    def set_tags(self, episode_id: str, tags: Sequence[str], *, actor: str = "") -> None:
        """Give an episode these tags and no others, in this order and spelling.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        self._door.call(lambda: self._target.set_tags(episode_id, tags, actor=actor))

    def update_episode(
        self,
        episode_id: str,
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        remove_metadata: Sequence[str] = (),
        actor: str = "",
    ) -> None:
        """Replace the description of an episode (unless None), and lay `metadata` over its metadata, key by key, after
        taking the keys in `remove_metadata` away. The event `started` still says what it was started with.

        Durable on return; cancelled, whether it was done is unknown: call again.
        Raises: `InvalidInput`, `TooLarge` for a description or metadata that `start_episode` would refuse, otherwise as
        `add_tags`.
        """
        self._door.call(
            lambda: self._target.update_episode(
                episode_id, description=description, metadata=metadata, remove_metadata=remove_metadata, actor=actor
            )
        )

    def archive(self, episode_id: str, *, actor: str = "") -> None:
        """Put an episode away. It stays readable, and open if it is; `Episode.archived_at` says since when.

        Durable on return; is cancelled and raises as `add_tags`.
        """
        self._door.call(lambda: self._target.archive(episode_id, actor=actor))

    def restore(self, episode_id: str, *, actor: str = "") -> None:
        """Take an episode out of the archive. Durable on return; is cancelled and raises as `add_tags`."""
        self._door.call(lambda: self._target.restore(episode_id, actor=actor))

    def atomic(self) -> DoorScope[Transaction]:
        """A context manager; what is staged in its block is stored together or not at all. See `AtomicScope`."""
        return DoorScope(self._door, self._target.atomic())

    def log_step(self, episode_id: str, step: ExecutionStep, *, expected_seq: int | None = None) -> Receipt:
        """Log one step of the episode; see `EpisodeHandle.log_step`. Raises: `InvalidInput` for a bad id as well."""
        found: Receipt = self._door.call(
            lambda: self._target.log_step(episode_id, step, expected_seq=expected_seq),
            lambda: hot.memory_log_step(self._target, episode_id, step, expected_seq=expected_seq),
        )
        return found

    def log_steps(self, episode_id: str, steps: Sequence[ExecutionStep], *, expected_seq: int | None = None) -> Receipt:
        """Log steps as one atomic batch: all of them are stored or none. The receipt is that of the last one.

        `expected_seq` is the record that the first of them is to come behind. Otherwise it is cancelled, and raises, as
        `EpisodeHandle.log_step`; an `InvalidInput` names the step that is wrong.
        """
        found: Receipt = self._door.call(
            lambda: self._target.log_steps(episode_id, steps, expected_seq=expected_seq),
            lambda: hot.memory_log_steps(self._target, episode_id, steps, expected_seq=expected_seq),
        )
        return found

    def flush_steps(self, episode_id: str) -> None:
        """Return once everything accepted for the episode is durable.

        A write that failed earlier, and of which nobody was told by a receipt, flush, checkpoint or completion, is
        raised here, once, with the number of records that it concerns. Cancelled, nothing is told.

        Raises: `InvalidInput`, `NotFound`, `OutcomeUnknown` (the log failed or was closed first), `LogFull` (nothing of
        it is stored).
        """
        self._door.call(lambda: self._target.flush_steps(episode_id))

    def flush(self) -> None:
        """Return once everything accepted for any episode, thread or scope is durable.

        A write that failed earlier, and of which nobody was told by a receipt, flush, checkpoint or completion, is
        raised here, once: one error for all, which names the episodes and how many records of each. Cancelled, nothing
        is told.

        Raises: `OutcomeUnknown` (the log failed or was closed first), `LogFull` (nothing of it is stored).
        """
        self._door.call(lambda: self._target.flush())

    def relate(
        self,
        from_episode: str,
        to_episode: str,
        kind: RelationshipKind,
        *,
        priority: int = 5,
        reason: str = "",
        metadata: dict[str, Any] | None = None,
        actor: str = "",
    ) -> None:
        """Relate one episode to another: it is the parent of ("parent_child"), depends on, follows, is related to,
        blocks, duplicates, or references it. Durable on return; repeating it changes nothing.

        `priority`: 1 (lowest) to 10. If cancelled, whether they are related is unknown.
        Raises: `InvalidInput` (an unknown kind, an episode and itself), `TooLarge`, `NotFound`, `InvalidState` (they
        are related so already, with another priority, reason or metadata; or "parent_child", "depends_on" or "blocks"
        would lead in a circle, which is named; or the first one is being deleted), `EpisodeUnavailable`, `Unavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        self._door.call(
            lambda: self._target.relate(
                from_episode, to_episode, kind, priority=priority, reason=reason, metadata=metadata, actor=actor
            )
        )

    def unrelate(self, from_episode: str, to_episode: str, kind: RelationshipKind, *, actor: str = "") -> None:
        """Relate two episodes no longer in this way; durable on return. Nothing if they are not; the second one may be
        gone.

        Raises: as `relate`.
        """
        self._door.call(lambda: self._target.unrelate(from_episode, to_episode, kind, actor=actor))

    def related(
        self,
        episode_id: str,
        kind: RelationshipKind | None = None,
        *,
        direction: Literal["out", "in", "both"] = "out",
        depth: int = 1,
    ) -> list[Relationship]:
        """The relationships that lead from an episode ("out"), to it ("in"), or either, within `depth` steps, each
        once, the nearest first, then by priority and age; of one kind, or of all. `stepwell.graph` sorts and exports
        them.

        They are looked up in the catalog, which has everything that is durable at this call; where that is encrypted,
        the first call reads the whole log.
        Raises: `InvalidInput`, `NotFound`, `Closed`, `RecoveryFailed`, `Unavailable` (an I/O error, the key of an
        encrypted episode cannot be had, or the catalog is not kept up to date any more, see `health`).
        """
        found: list[Relationship] = self._door.call(
            lambda: self._target.related(episode_id, kind, direction=direction, depth=depth)
        )
        return found

    def get_episode(self, episode_id: str, *, partial: bool = False) -> Episode:
        """The episode with everything accepted for it before this call. With `partial`, what is sound of a damaged one.

        Takes time and memory in proportion to the episode; `events` reads one in bounded memory. Changes nothing, also
        when cancelled.
        Raises: `InvalidInput`, `TooLarge` (no id), `NotFound`, `EpisodeUnavailable` (also with `partial`, where not
        even its start is sound).
        """
        found: Episode = self._door.call(lambda: self._target.get_episode(episode_id, partial=partial))
        return found

    def get_episodes(self, episode_ids: Iterable[str]) -> list[Episode]:
        """Several episodes, in the order asked for. Raises: as `get_episode`, naming the first that is unknown."""
        found: list[Episode] = self._door.call(lambda: self._target.get_episodes(episode_ids))
        return found

    def events(self, episode_id: str, after: int = 0) -> Items[Event]:
        """The events of an episode behind seq `after`, oldest first, in bounded memory: `for event in …`.

        It sees everything accepted before its first item is asked for. Nothing has to be closed.
        Raises: `InvalidInput`; the iteration raises `NotFound`, `EpisodeUnavailable`.
        """
        return Items(self._door, self._target.events(episode_id, after))

    def follow(
        self, cursor: str | Place = START, *, kinds: Collection[str] | None = None
    ) -> DoorScope[Channel[Event | Gap]]:
        """Follow the durable events of all episodes, threads and scopes in log order, then those to come:
        `with memory.follow(cursor) as events: for event in events: …`.

        `cursor`: START, NOW, or the `cursor` of an event, behind which it goes on, also after a restart. `kinds`: only
        events of these kinds. Records whose bytes are damaged or cannot be decoded come as a `Gap`. A deleted episode
        comes as its "deleted" event alone, a cleared thread or scope as "cleared"; the `stream` of such an event is ""
        for a follower that has seen nothing else of it. A slow reader lags behind; nothing waits for it and nothing is
        dropped. Closing the memory ends it. A checkpoint once per slice of at most 256 events.
        Raises: `InvalidInput`; entering raises `InvalidInput` (no cursor, or one of another memory), `InvalidState`
        (the cursor's record was lost after a crash), `CorruptLog` (records that were durable have vanished), `Closed`.
        """
        return DoorScope(self._door, self._target.follow(cursor, kinds=kinds))

    def open_episodes(self) -> list[OpenEpisode]:
        """The episodes that were still open when the memory was last closed or its process died, and still are."""
        found: list[OpenEpisode] = self._door.call(lambda: self._target.open_episodes())
        return found

    def episode_ids(self) -> Items[EpisodeId]:
        """Every stored episode's id, in the order in which they were started.

        Left out is one whose first record cannot be read, since only that tells the id. Reads one record for each, so
        it may take seconds over a large memory: `list_episodes` looks into a catalog instead.
        """
        return Items(self._door, self._target.episode_ids())

    def start_episode(
        self,
        task: str,
        *,
        context: TaskContext | None = None,
        task_type: str = "other",
        agent: str = "",
        episode_id: str | None = None,
        parent: str | None = None,
        thread: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor: str = "",
        **context_fields: Any,
    ) -> EpisodeHandle:
        """Start an episode; it is durable on return. Fields of `TaskContext` may be given as keywords as well.

        `agent` runs it, and `actor` is who asked for it, which stands in its event.
        With the `episode_id` of an episode that exists and was started with the same arguments, gives a handle to it.
        If cancelled, whether it was started is unknown: call again with the same `episode_id`.
        Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the id exists, started otherwise), `Closed`, `LogFull`,
        `OutcomeUnknown`.
        """
        found: EpisodeHandle = self._door.call(
            lambda: self._target.start_episode(
                task,
                context=context,
                task_type=task_type,
                agent=agent,
                episode_id=episode_id,
                parent=parent,
                thread=thread,
                metadata=metadata,
                actor=actor,
                **context_fields,
            )
        )
        return found

    def episode(
        self,
        task: str,
        *,
        context: TaskContext | None = None,
        task_type: str = "other",
        agent: str = "",
        episode_id: str | None = None,
        parent: str | None = None,
        thread: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor: str = "",
        **context_fields: Any,
    ) -> DoorScope[RunningEpisode]:
        """The run scope: a context manager that starts an episode and writes its ending by itself.

        See `RunScope` for how the ending is decided. Arguments and errors are those of `start_episode`.
        """
        return DoorScope(
            self._door,
            self._target.episode(
                task,
                context=context,
                task_type=task_type,
                agent=agent,
                episode_id=episode_id,
                parent=parent,
                thread=thread,
                metadata=metadata,
                actor=actor,
                **context_fields,
            ),
        )

    def resume(self, episode_id: str) -> EpisodeHandle:
        """Continue an episode that has no ending, for instance one of `open_episodes()`.

        Raises: `NotFound`, `InvalidState` (it has ended), `EpisodeUnavailable`, `Closed`.
        """
        found: EpisodeHandle = self._door.call(lambda: self._target.resume(episode_id))
        return found

    def abandon(self, episode_id: str, reason: str = "", *, actor: str = "") -> CompletedEpisode:
        """End an episode that nobody will continue, with `Interrupted(reason, cause="abandoned")`; durable on return.

        Raises as `complete_episode`.
        """
        found: CompletedEpisode = self._door.call(lambda: self._target.abandon(episode_id, reason, actor=actor))
        return found

    def complete_episode(
        self, episode_id: str, outcome: TaskOutcome, *, metadata: dict[str, Any] | None = None, actor: str = ""
    ) -> CompletedEpisode:
        """End an episode: everything accepted for it, then its ending with reward, reflection and summary, durable.

        `metadata` is kept with the ending (`Episode.outcome_metadata`), and `actor`, who asked, in its event.
        Completing again with an equal outcome gives the same result. If cancelled the completion goes on; call again to
        learn how it went. Where records of the episode were lost, now or earlier, and nobody was told, this is raised
        once instead, and the episode stays open: called again it ends without them.
        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (it has another ending), `EpisodeUnavailable`,
        `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: CompletedEpisode = self._door.call(
            lambda: self._target.complete_episode(episode_id, outcome, metadata=metadata, actor=actor)
        )
        return found

    def checkpoint(self, episode_id: str, reason: str, *, note: str = "", actor: str = "") -> Checkpoint:
        """Note a place in an open episode to go on from, behind everything accepted for it, all of which is durable on
        return. If cancelled, whether it was noted is unknown; `Episode.checkpoints` tells. A write that failed earlier
        and of which nobody was told is raised, once, as by `flush_steps`; then nothing is noted.

        Raises: `InvalidInput`, `TooLarge`, `NotFound`, `InvalidState` (it has ended, or is being deleted),
        `EpisodeUnavailable`, `Unavailable`, `Closed`, `LogFull`, `OutcomeUnknown`.
        """
        found: Checkpoint = self._door.call(lambda: self._target.checkpoint(episode_id, reason, note=note, actor=actor))
        return found

    def handoff(self, checkpoint_id: str) -> HandoffPack:
        """What another agent needs to go on from a checkpoint: the task as it is now, the steps up to there, and what
        other episodes of its domain have taught. If the learner was parked the pack says so, and has the rest.

        Raises: `InvalidInput`, `NotFound` (no such checkpoint, or its episode was deleted), `EpisodeUnavailable`,
        `Unavailable`.
        """
        found: HandoffPack = self._door.call(lambda: self._target.handoff(checkpoint_id))
        return found

    def continue_from(
        self,
        pack: HandoffPack,
        *,
        agent: str | None = None,
        episode_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor: str = "",
    ) -> EpisodeHandle:
        """Start an episode that goes on from a checkpoint: the same task, context, type and thread, by the same agent
        unless `agent` says another. Its `parent` is the episode of the checkpoint, which it "follows" if that is in
        this memory. `metadata` and the checkpoint's id, as `continued_from`, are its metadata. The old episode stays as
        it is.

        Durable on return. With an `episode_id` it may be repeated. If cancelled, whether it was started, and whether it
        is related already, is unknown: call again with the same `episode_id`.
        Raises: as `start_episode` and `relate`.
        """
        found: EpisodeHandle = self._door.call(
            lambda: self._target.continue_from(pack, agent=agent, episode_id=episode_id, metadata=metadata, actor=actor)
        )
        return found

    def handle(self, episode_id: str) -> EpisodeHandle:
        """A handle to an episode by id. Free: an unknown id is `NotFound` at first use. Raises: `InvalidInput`."""
        found: EpisodeHandle = self._door.call_plain(lambda: self._target.handle(episode_id))
        return found

    @property
    def skills(self) -> Skills:
        """Procedural skills: what somebody wrote down under a name, to be found again; see `Skills`."""
        return Skills(self._door, self._target.skills)

    @property
    def short_term(self) -> ShortTermPort:
        """The conversation threads; see `ShortTermPort`."""
        return ShortTermPort(self._door, self._target.short_term)

    @property
    def long_term(self) -> LongTermPort:
        """Facts in scopes, found again by what they say; see `LongTermPort`."""
        return LongTermPort(self._door, self._target.long_term)

    @property
    def episodic(self) -> EpisodicPort:
        """The events of runs; see `EpisodicPort`."""
        return EpisodicPort(self._door, self._target.episodic)

    @property
    def recovery(self) -> MemoryRecovery:
        """What opening this memory found and did."""
        return self._target.recovery
