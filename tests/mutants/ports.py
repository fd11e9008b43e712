"""Twins of the ports with one rule broken each, and the test of the published contract that has to notice.

Every test of the contract is here, and a test of this file says so: a rule that nothing can break is no rule.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from stepwell.errors import StepwellError
from stepwell.model.message import Message, Oversize, Role, ThreadSummary
from stepwell.model.run_event import Completed, Failed, RunEvent, Started, ToolCall, Unknown
from stepwell.model.run_filter import RunFilter, RunFold, RunSummary, select
from stepwell.model.run_record import RecordedEvent
from stepwell.runtime.receipt import Receipt
from stepwell.testing.long_term import InMemoryLongTerm
from stepwell.testing.ports import InMemoryEpisodic, InMemoryShortTerm
from stepwell.testing.ports_contract import PortsContract, PortsPlace
from tests.mutants.facts import BROKEN_FACTS

MICROSECOND = dt.timedelta(microseconds=1)


# ---- conversations ---------------------------------------------------------------------------------------------------


class NewestFirst(InMemoryShortTerm):
    async def load(self, *arguments: Any, **options: Any) -> list[Message]:
        return (await super().load(*arguments, **options))[::-1]


class LoadsNothing(InMemoryShortTerm):
    async def load(self, *arguments: Any, **options: Any) -> list[Message]:
        await super().load(*arguments, **options)
        return []


class LeavesGaps(InMemoryShortTerm):
    def newest(self, messages: list[Message], max_tokens: int) -> list[Message]:
        kept: list[Message] = []
        for message in reversed(messages):
            if self.cost_of([*kept, message]) <= max_tokens:
                kept.insert(0, message)
        return kept


class TakesTheOldest(InMemoryShortTerm):
    def newest(self, messages: list[Message], max_tokens: int) -> list[Message]:
        end = 0
        while end < len(messages) and self.cost_of(messages[: end + 1]) <= max_tokens:
            end += 1
        return messages[:end]


class OneTooMany(InMemoryShortTerm):
    def newest(self, messages: list[Message], max_tokens: int) -> list[Message]:
        kept = super().newest(messages, max_tokens)
        return messages[-len(kept) - 1 :] if kept else kept


class AlwaysTheLast(InMemoryShortTerm):
    async def load(self, thread: str, max_tokens: int, **options: Any) -> list[Message]:
        return await super().load(thread, max(max_tokens, 1), **options)


class ThreadsWithoutCase(InMemoryShortTerm):
    async def load(self, thread: str, max_tokens: int, **options: Any) -> list[Message]:
        return await super().load(thread.lower(), max_tokens, **options)


class OneThreadForAll(InMemoryShortTerm):
    def _store(self, thread: str, drafts: Sequence[Message | ThreadSummary]) -> Receipt:
        receipt = super()._store(thread, drafts)
        for other in self.kept:
            if other != thread:
                self.kept[other] = self.kept[thread]
        return receipt


class ClearsAll(InMemoryShortTerm):
    async def clear(self, thread: str) -> None:
        await super().clear(thread)
        self.kept.clear()


class ClearsOnce(InMemoryShortTerm):
    async def clear(self, thread: str) -> None:
        del self.kept[thread]
        await super().clear(thread)


class ClearedForEver(InMemoryShortTerm):
    def _store(self, thread: str, drafts: Sequence[Message | ThreadSummary]) -> Receipt:
        return super()._store(thread, [] if "cleared" in self.kept else drafts)

    async def clear(self, thread: str) -> None:
        await super().clear(thread)
        self.kept["cleared"] = []


class LosesToolCalls(InMemoryShortTerm):
    def _store(self, thread: str, drafts: Sequence[Message | ThreadSummary]) -> Receipt:
        bare = [Message(item.role, item.content) if isinstance(item, Message) else item for item in drafts]
        return super()._store(thread, bare)


class UnknownRolesAreUsers(InMemoryShortTerm):
    def _store(self, thread: str, drafts: Sequence[Message | ThreadSummary]) -> Receipt:
        known = [
            msgspec.structs.replace(item, role=Role.USER)
            if isinstance(item, Message) and item.role not in list(Role)
            else item
            for item in drafts
        ]
        return super()._store(thread, known)


class EmptyIsFree(InMemoryShortTerm):
    def cost(self, message: Message) -> int:
        return len(message.content) // 4


class CountsBytes(InMemoryShortTerm):
    def cost(self, message: Message) -> int:
        return max(1, len(message.content.encode()) // 4)


class KeepsTheLast(InMemoryShortTerm):
    def too_large(self, newest: Message, rule: Oversize, prefix: list[Message]) -> list[Message]:
        return super().too_large(newest, "keep_last", prefix)


class NeverKeepsTheLast(InMemoryShortTerm):
    def too_large(self, newest: Message, rule: Oversize, prefix: list[Message]) -> list[Message]:
        return super().too_large(newest, "strict" if rule == "keep_last" else rule, prefix)


class NeverRaises(InMemoryShortTerm):
    def too_large(self, newest: Message, rule: Oversize, prefix: list[Message]) -> list[Message]:
        return super().too_large(newest, "strict", prefix)


class KeepsOrphans(InMemoryShortTerm):
    def without_orphans(self, window: list[Message]) -> list[Message]:
        return window


class PinsNothing(InMemoryShortTerm):
    async def load(self, *arguments: Any, pin_system: bool = False, **options: Any) -> list[Message]:
        return await super().load(*arguments, **options)


class SplicesNothing(InMemoryShortTerm):
    async def load(self, *arguments: Any, with_summary: bool = False, **options: Any) -> list[Message]:
        return await super().load(*arguments, **options)


class StoresTheGoodOnes(InMemoryShortTerm):
    async def append_many(self, thread: str, messages: Sequence[Message]) -> Receipt:
        receipt = None
        for message in messages:
            receipt = await super().append_many(thread, [message])
        assert receipt is not None
        return receipt


class LosesConcurrent(InMemoryShortTerm):
    async def append(self, thread: str, message: Message) -> Receipt:
        before = list(self.kept.get(thread, []))
        await trio.lowlevel.checkpoint()
        self.kept[thread] = before
        return await super().append(thread, message)


# ---- runs ------------------------------------------------------------------------------------------------------------


class ReplaysNothing(InMemoryEpisodic):
    async def replay(self, run: str) -> list[RunEvent]:
        await super().replay(run)
        return []


class BatchesFirst(InMemoryEpisodic):
    def store(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        receipt = super().store(run, events)
        kept = self.kept[run]
        if len(kept) > 1 and len(events) == 1:
            kept[-2:] = kept[:-3:-1]
        return receipt


class RunsWithoutCase(InMemoryEpisodic):
    def store(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        return super().store(run.lower(), events)

    async def replay(self, run: str) -> list[RunEvent]:
        return await super().replay(run.lower())


class UnknownIsAnError(InMemoryEpisodic):
    async def replay(self, run: str) -> list[RunEvent]:
        if run not in self.kept:
            raise StepwellError(f"there is no run {run!r}")
        return await super().replay(run)


class ErrorsAreAnswers(InMemoryEpisodic):
    def store(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        drawn = [
            msgspec.structs.replace(event, args={}) if isinstance(event, ToolCall) and event.args == "text" else event
            for event in events
        ]
        return super().store(run, drawn)


class UnknownIsDropped(InMemoryEpisodic):
    async def replay(self, run: str) -> list[RunEvent]:
        return [event for event in await super().replay(run) if not isinstance(event, Unknown)]


class StoresWhatItCan(InMemoryEpisodic):
    async def record_many(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        receipt = None
        for event in events:
            receipt = await self.record(run, event)
        assert receipt is not None
        return receipt


class CountsAfterFromZero(InMemoryEpisodic):
    async def iter_replay(self, run: str, after: int = 0) -> AsyncIterator[RecordedEvent]:
        async for item in super().iter_replay(run, after - 1 if after else 0):
            yield item


class NeverFinishes(InMemoryEpisodic):
    def fold(self, run: str, kept: list[RecordedEvent]) -> RunFold:
        return super().fold(run, [item for item in kept if not isinstance(item.event, Failed)])


class DropsWhatIsLate(InMemoryEpisodic):
    def store(self, run: str, events: Sequence[RunEvent]) -> Receipt:
        if any(isinstance(item.event, Completed) for item in self.kept.get(run, ())):
            return Receipt(1, super().store("elsewhere", events)._commit)
        return super().store(run, events)


class AgentIsUnknown(InMemoryEpisodic):
    def fold(self, run: str, kept: list[RecordedEvent]) -> RunFold:
        fold = super().fold(run, kept)
        if not isinstance(kept[0].event, Started):
            fold.agent = "unknown"
        return fold


class CountsUpTo255(InMemoryEpisodic):
    def fold(self, run: str, kept: list[RecordedEvent]) -> RunFold:
        fold = super().fold(run, kept)
        fold.count = min(fold.count, 255)
        return fold


class Selects(InMemoryEpisodic):
    """Changes the filter, or what it gives."""

    def changed(self, run_filter: RunFilter) -> RunFilter:
        return run_filter

    def select(self, folds: list[RunFold], run_filter: RunFilter) -> list[RunSummary]:
        return select(folds, self.changed(run_filter))


class ListsByLastEvent(Selects):
    def select(self, folds: list[RunFold], run_filter: RunFilter) -> list[RunSummary]:
        last = {fold.run_id: fold.last_ns for fold in folds}
        return sorted(super().select(folds, run_filter), key=lambda item: last[item.run_id], reverse=True)


class NoneIsAll(Selects):
    def changed(self, run_filter: RunFilter) -> RunFilter:
        return msgspec.structs.replace(run_filter, limit=run_filter.limit or None)


class CursorIsIncluded(Selects):
    def changed(self, run_filter: RunFilter) -> RunFilter:
        after = run_filter.after
        return msgspec.structs.replace(run_filter, after=None if after is None else f"{after}\uffff")


class SinceIsExcluded(Selects):
    def changed(self, run_filter: RunFilter) -> RunFilter:
        since = run_filter.since
        return msgspec.structs.replace(run_filter, since=None if since is None else since + MICROSECOND)


class TurnsBoundsRound(Selects):
    def changed(self, run_filter: RunFilter) -> RunFilter:
        since, until = run_filter.since, run_filter.until
        if since is not None and until is not None and since > until:
            return msgspec.structs.replace(run_filter, since=until, until=since)
        return run_filter


class AgentByPattern(Selects):
    def select(self, folds: list[RunFold], run_filter: RunFilter) -> list[RunSummary]:
        part = run_filter.agent
        if part is None or not {"%", "_"} & set(part):
            return super().select(folds, run_filter)
        pieces = part.replace("_", "%").split("%")
        everything = super().select(folds, msgspec.structs.replace(run_filter, agent=None))
        return [item for item in everything if all(piece in item.agent for piece in pieces)]


class AnyPartOfAFilter(Selects):
    def changed(self, run_filter: RunFilter) -> RunFilter:
        return run_filter if run_filter.agent is None else msgspec.structs.replace(run_filter, since=None)


class TakesAnyFilter(InMemoryEpisodic):
    async def list_runs(self, filter: RunFilter | None = None) -> list[RunSummary]:
        try:
            return await super().list_runs(filter)
        except ValueError:
            return []


# ---- which test has to notice ----------------------------------------------------------------------------------------

BROKEN: dict[str, type[InMemoryShortTerm] | type[InMemoryEpisodic] | type[InMemoryLongTerm]] = {
    **BROKEN_FACTS,
    "test_messages_come_back_in_the_order_in_which_they_were_appended": NewestFirst,
    "test_one_message_appended_is_one_message_loaded": LoadsNothing,
    "test_what_is_loaded_is_the_newest_that_fits_in_one_piece": LeavesGaps,
    "test_a_smaller_budget_loads_the_end_of_what_a_larger_one_loads": TakesTheOldest,
    "test_what_is_loaded_costs_no_more_than_the_budget": OneTooMany,
    "test_a_budget_of_nothing_loads_nothing": AlwaysTheLast,
    "test_an_unknown_thread_is_empty": ThreadsWithoutCase,
    "test_threads_are_apart_and_named": OneThreadForAll,
    "test_clearing_a_thread_leaves_the_others": ClearsAll,
    "test_clearing_again_or_what_is_unknown_is_no_error": ClearsOnce,
    "test_a_cleared_thread_can_be_used_again": ClearedForEver,
    "test_tool_calls_and_their_ids_come_back_as_they_were": LosesToolCalls,
    "test_a_role_that_is_not_known_is_kept": UnknownRolesAreUsers,
    "test_an_empty_message_costs_one": EmptyIsFree,
    "test_characters_are_counted_and_not_bytes": CountsBytes,
    "test_a_newest_message_that_alone_is_too_large_loads_nothing": KeepsTheLast,
    "test_it_is_loaded_alone_if_asked_for": NeverKeepsTheLast,
    "test_or_it_is_an_error_if_asked_for": NeverRaises,
    "test_a_cut_never_begins_with_the_reply_of_a_tool": KeepsOrphans,
    "test_the_last_system_message_can_be_pinned": PinsNothing,
    "test_a_summary_stands_for_what_it_covers": SplicesNothing,
    "test_what_is_no_message_is_refused_and_nothing_is_stored": StoresTheGoodOnes,
    "test_of_concurrent_appends_none_is_lost_and_each_task_keeps_its_order": LosesConcurrent,
    "test_one_event_recorded_is_one_event_replayed": ReplaysNothing,
    "test_events_are_replayed_in_the_order_in_which_they_were_recorded": BatchesFirst,
    "test_runs_are_apart": RunsWithoutCase,
    "test_an_unknown_run_is_empty": UnknownIsAnError,
    "test_every_kind_of_event_comes_back_as_it_was": ErrorsAreAnswers,
    "test_what_is_not_known_comes_back_byte_for_byte": UnknownIsDropped,
    "test_events_recorded_together_are_stored_together_or_not_at_all": StoresWhatItCan,
    "test_a_replay_can_begin_behind_an_event": CountsAfterFromZero,
    "test_a_run_has_finished_once_it_has_an_ending": NeverFinishes,
    "test_what_comes_behind_an_ending_is_kept_and_counted": DropsWhatIsLate,
    "test_a_run_that_nobody_started_has_no_agent": AgentIsUnknown,
    "test_events_are_counted_exactly": CountsUpTo255,
    "test_runs_are_listed_from_the_latest_started": ListsByLastEvent,
    "test_a_list_can_be_limited_to_none_and_to_more_than_there_are": NoneIsAll,
    "test_a_list_goes_on_behind_a_cursor": CursorIsIncluded,
    "test_both_bounds_of_the_start_are_included": SinceIsExcluded,
    "test_bounds_the_wrong_way_round_list_nothing": TurnsBoundsRound,
    "test_an_agent_is_found_by_a_part_of_its_name_literally_and_by_case": AgentByPattern,
    "test_all_parts_of_a_filter_must_hold": AnyPartOfAFilter,
    "test_a_filter_that_is_none_is_refused": TakesAnyFilter,
}
"""By test of the contract, the twin with that rule broken."""


@dataclass(frozen=True)
class Verdict:
    """What became of one broken twin: `noticed` is what the test said, None if it passed."""

    rule: str
    twin: str
    noticed: str | None


class Broken:
    """Ports of which one kind is broken."""

    def __init__(self, short_term: InMemoryShortTerm, long_term: InMemoryLongTerm, episodic: InMemoryEpisodic):
        self.short_term, self.long_term, self.episodic = short_term, long_term, episodic


def place_of(*kinds: type) -> PortsPlace:
    """Where twins of these kinds live, sound ones for the others."""
    threads: dict[str, Any] = {}
    facts: dict[Any, Any] = {}
    runs: dict[str, Any] = {}
    short_term = next((kind for kind in kinds if issubclass(kind, InMemoryShortTerm)), InMemoryShortTerm)
    long_term = next((kind for kind in kinds if issubclass(kind, InMemoryLongTerm)), InMemoryLongTerm)
    episodic = next((kind for kind in kinds if issubclass(kind, InMemoryEpisodic)), InMemoryEpisodic)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Broken]:
        yield Broken(short_term(threads), long_term(facts), episodic(runs))

    return PortsPlace(opened)


def rules() -> Iterable[str]:
    """The names of the tests of the contract."""
    return [name for name, _test in inspect.getmembers(PortsContract, inspect.isfunction) if name.startswith("test_")]


def outcome(rule: str, *kinds: type) -> str | None:
    """What a test of the contract says of twins of these kinds; None if it passes."""
    test: Callable[..., Any] = getattr(PortsContract(), rule)
    given: list[dict[str, Any]] = [{}]
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "parametrize":
            given = [{mark.args[0]: value} for value in mark.args[1]]
    for arguments in given:
        try:
            trio.run(_call, test, place_of(*kinds), arguments)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return type(error).__name__
    return None


async def _call(test: Callable[..., Any], place: PortsPlace, arguments: dict[str, Any]) -> None:
    with trio.fail_after(60):
        if "facts" in inspect.signature(test).parameters:
            async with place.opened() as ports:
                await test(facts=ports.long_term, **arguments)
        else:
            await test(place=place, **arguments)


def try_ports(*, sound: bool = True) -> list[Verdict]:
    """Every rule with its broken twin; with `sound`, with a sound one as well, which no test may object to."""
    verdicts = []
    for rule in rules():
        twin = BROKEN.get(rule)
        noticed = outcome(rule, twin) if twin is not None else None
        verdicts.append(Verdict(rule, "none is there to break it" if twin is None else twin.__name__, noticed))
        objection = outcome(rule) if sound else None
        if objection is not None:
            verdicts.append(Verdict(rule, f"a sound twin is objected to ({objection})", None))
    return verdicts
