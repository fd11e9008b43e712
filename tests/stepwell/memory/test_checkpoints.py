"""Every public async function is a checkpoint on every path, success and error alike.

A public async function without a case that succeeds and one that fails makes a test fail: add it to CALLS if all that
it needs is the memory that `prepared` gives, else to SITUATIONS.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    NOW,
    Closed,
    EpisodeFilter,
    ExecutionStep,
    Fact,
    HandoffPack,
    InvalidInput,
    InvalidState,
    LogLocked,
    Memory,
    NotFound,
    OutcomeUnknown,
    RetentionPolicy,
    Scope,
    StepwellError,
    Success,
    Unavailable,
)
from tests.public_surface import public_async_functions
from tests.stepwell.memory.fact_calls import FACT_CALLS
from tests.stepwell.memory.port_calls import PORT_CALLS
from tests.support import LOG, HookedFileSystem, cancelled_at_step, open_on, step

BAD = ExecutionStep(tool="")
NEVER_FAIL = {
    "EventChannel.aclose",
    "LifecycleChannel.aclose",
    "Watching.__aexit__",
    "RunChannel.aclose",
    "RunFollowing.__aexit__",
    "Following.__aexit__",  # it raises nothing of its own; what the body raised leaves
}
"""Public async functions that raise nothing."""


class Call(NamedTuple):
    """A call of a public function, by its name, and what it raises."""

    function: str
    make: Callable[[Memory], Awaitable[object]]
    raises: type[BaseException] | None = None


@asynccontextmanager
async def prepared() -> AsyncIterator[Memory]:
    """A memory with an episode that is live ("e"), one that has ended ("ended"), and one that was deleted ("gone")."""
    async with open_on(MemoryFileSystem()) as memory:
        await fill(memory)
        yield memory


async def fill(memory: Memory) -> None:
    await (await memory.start_episode("task", episode_id="e")).log_step(step(1, key="k"))
    await (await memory.start_episode("task", episode_id="ended")).complete(Success())
    await memory.start_episode("task", episode_id="gone")
    await memory.delete_episode("gone")


async def drain(iterator: AsyncIterator[object]) -> None:
    async for _ in iterator:
        pass


async def first_event(memory: Memory) -> None:
    async with memory.follow() as events:
        await events.receive()


async def transact(memory: Memory, *steps: ExecutionStep, episode_id: str = "e") -> None:
    async with memory.atomic() as tx:
        for item in steps:
            tx.log_step(episode_id, item)


async def hand_over(memory: Memory) -> HandoffPack:
    place = await memory.checkpoint("e", "why")
    return await memory.handoff(place.checkpoint_id)


async def go_on(memory: Memory, episode_id: str | None = None) -> None:
    pack = await hand_over(memory)
    with assert_checkpoints():
        await memory.continue_from(pack, episode_id=episode_id)


async def give_feedback(memory: Memory, *, applied: tuple[str, ...] = ()) -> None:
    found = await memory.recommend("task")
    with assert_checkpoints():
        await memory.feedback(found.id, applied=applied, outcome=Success())


async def without_learner(memory: Memory) -> None:
    memory._runtime.projections.learning.projector.park(OSError("no space"))
    await memory.recommendation_stats()


async def with_skill(memory: Memory, call: Callable[[str], Awaitable[object]]) -> None:
    skill = await memory.skills.store("a way", "to do it")
    with assert_checkpoints():
        await call(skill.skill_id)


async def explain_something(memory: Memory) -> None:
    [found] = await memory.patterns("context_pattern", limit=1)
    with assert_checkpoints():
        await memory.explain(found.pattern_id)


async def first_thing_told(memory: Memory) -> None:
    async with memory.lifecycle() as events:
        memory._runtime.lifecycle.tell("woken")
        with assert_checkpoints():
            await events.receive()


_START, _LOG, _BATCH = "Memory.start_episode", "Memory.log_step", "Memory.log_steps"
_FLUSH, _COMPLETE, _RESUME = "Memory.flush_steps", "Memory.complete_episode", "Memory.resume"
_GET, _MANY, _EVENTS, _DELETE = (
    "Memory.get_episode",
    "Memory.get_episodes",
    "EpisodeEvents.__anext__",
    "Memory.delete_episode",
)
_COMMIT, _LIST, _RETAIN = "AtomicScope.__aexit__", "Memory.list_episodes", "Memory.retain"
_RETRIEVE = "Memory.retrieve_relevant_context"
_FOLLOW, _RUN, _STEP = "Following.__aenter__", "RunScope.__aenter__", "StepScope.__aenter__"

CALLS: dict[str, Call] = {
    "start_episode": Call(_START, lambda m: m.start_episode("new")),
    "start_episode, again": Call(_START, lambda m: m.start_episode("task", episode_id="e")),
    "start_episode, bad task": Call(_START, lambda m: m.start_episode(""), InvalidInput),
    "start_episode, bad id": Call(_START, lambda m: m.start_episode("task", episode_id=""), InvalidInput),
    "start_episode, other arguments": Call(_START, lambda m: m.start_episode("other", episode_id="e"), InvalidState),
    "start_episode, deleted": Call(_START, lambda m: m.start_episode("task", episode_id="gone"), InvalidState),
    "log_step": Call(_LOG, lambda m: m.log_step("e", step(2))),
    "log_step, known key": Call(_LOG, lambda m: m.log_step("e", step(1, key="k"))),
    "log_step, key of another": Call(_LOG, lambda m: m.log_step("e", step(2, key="k")), InvalidState),
    "log_step, bad step": Call(_LOG, lambda m: m.log_step("e", BAD), InvalidInput),
    "log_step, unknown id": Call(_LOG, lambda m: m.log_step("nope", step(2)), NotFound),
    "log_step, bad id": Call(_LOG, lambda m: m.log_step(5, step(2)), InvalidInput),  # type: ignore[arg-type]
    "log_step, ended": Call(_LOG, lambda m: m.log_step("ended", step(2)), InvalidState),
    "log_step, deleted": Call(_LOG, lambda m: m.log_step("gone", step(2)), NotFound),
    "handle.log_step": Call("EpisodeHandle.log_step", lambda m: m.handle("e").log_step(step(2))),
    "handle.log_step, bad step": Call("EpisodeHandle.log_step", lambda m: m.handle("e").log_step(BAD), InvalidInput),
    "handle.log_step, unknown": Call("EpisodeHandle.log_step", lambda m: m.handle("nope").log_step(step(2)), NotFound),
    "log_steps": Call(_BATCH, lambda m: m.log_steps("e", [step(2), step(3)])),
    "log_steps, bad step": Call(_BATCH, lambda m: m.log_steps("e", [step(2), BAD]), InvalidInput),
    "log_steps, none": Call(_BATCH, lambda m: m.log_steps("e", []), InvalidInput),
    "log_steps, no list": Call(_BATCH, lambda m: m.log_steps("e", 5), InvalidInput),  # type: ignore[arg-type]
    "log_steps, bad id": Call(_BATCH, lambda m: m.log_steps(5, [step(2)]), InvalidInput),  # type: ignore[arg-type]
    "handle.log_steps": Call("EpisodeHandle.log_steps", lambda m: m.handle("e").log_steps([step(2), step(3)])),
    "handle.log_steps, none": Call("EpisodeHandle.log_steps", lambda m: m.handle("e").log_steps([]), InvalidInput),
    "log_step, expected_seq": Call(_LOG, lambda m: m.log_step("e", step(2), expected_seq=2)),
    "log_step, another expected_seq": Call(_LOG, lambda m: m.log_step("e", step(2), expected_seq=1), InvalidState),
    "log_steps, another expected_seq": Call(
        _BATCH, lambda m: m.log_steps("e", [step(2)], expected_seq=1), InvalidState
    ),
    "atomic": Call(_COMMIT, lambda m: transact(m, step(2))),
    "atomic, known key": Call(_COMMIT, lambda m: transact(m, step(1, key="k"))),
    "atomic, nothing staged": Call(_COMMIT, lambda m: transact(m)),
    "atomic, bad step": Call(_COMMIT, lambda m: transact(m, BAD), InvalidInput),
    "atomic, ended": Call(_COMMIT, lambda m: transact(m, step(2), episode_id="ended"), InvalidState),
    "atomic, deleted": Call(_COMMIT, lambda m: transact(m, step(2), episode_id="gone"), NotFound),
    "atomic, unknown id": Call(_COMMIT, lambda m: transact(m, step(2), episode_id="nope"), NotFound),
    "atomic, entering": Call("AtomicScope.__aenter__", lambda m: m.atomic().__aenter__()),
    "atomic, leaving": Call(_COMMIT, lambda m: m.atomic().__aexit__(None, None, None)),
    "flush": Call("Memory.flush", lambda m: m.flush()),
    "flush_steps": Call(_FLUSH, lambda m: m.flush_steps("e")),
    "flush_steps, ended": Call(_FLUSH, lambda m: m.flush_steps("ended")),
    "flush_steps, unknown": Call(_FLUSH, lambda m: m.flush_steps("nope"), NotFound),
    "flush_steps, deleted": Call(_FLUSH, lambda m: m.flush_steps("gone"), NotFound),
    "handle.flush": Call("EpisodeHandle.flush", lambda m: m.handle("e").flush()),
    "handle.flush, unknown": Call("EpisodeHandle.flush", lambda m: m.handle("nope").flush(), NotFound),
    "complete": Call(_COMPLETE, lambda m: m.complete_episode("e", Success())),
    "complete, again": Call(_COMPLETE, lambda m: m.complete_episode("ended", Success())),
    "complete, other outcome": Call(_COMPLETE, lambda m: m.complete_episode("ended", Success("x")), InvalidState),
    "complete, bad outcome": Call(
        _COMPLETE,
        lambda m: m.complete_episode("e", "done"),  # type: ignore[arg-type]
        InvalidInput,
    ),
    "complete, unknown": Call(_COMPLETE, lambda m: m.complete_episode("nope", Success()), NotFound),
    "complete, deleted": Call(_COMPLETE, lambda m: m.complete_episode("gone", Success()), NotFound),
    "handle.complete": Call("EpisodeHandle.complete", lambda m: m.handle("e").complete(Success())),
    "handle.complete, unknown": Call(
        "EpisodeHandle.complete", lambda m: m.handle("nope").complete(Success()), NotFound
    ),
    "abandon": Call("Memory.abandon", lambda m: m.abandon("e", "why")),
    "abandon, ended": Call("Memory.abandon", lambda m: m.abandon("ended", "why"), InvalidState),
    "resume": Call(_RESUME, lambda m: m.resume("e")),
    "resume, ended": Call(_RESUME, lambda m: m.resume("ended"), InvalidState),
    "resume, deleted": Call(_RESUME, lambda m: m.resume("gone"), NotFound),
    "get_episode": Call(_GET, lambda m: m.get_episode("e")),
    "get_episode, ended": Call(_GET, lambda m: m.get_episode("ended")),
    "get_episode, unknown": Call(_GET, lambda m: m.get_episode("nope"), NotFound),
    "get_episode, deleted": Call(_GET, lambda m: m.get_episode("gone"), NotFound),
    "handle.get": Call("EpisodeHandle.get", lambda m: m.handle("e").get()),
    "handle.get, unknown": Call("EpisodeHandle.get", lambda m: m.handle("nope").get(), NotFound),
    "get_episodes": Call(_MANY, lambda m: m.get_episodes(["e", "ended"])),
    "get_episodes, none": Call(_MANY, lambda m: m.get_episodes([])),
    "get_episodes, unknown": Call(_MANY, lambda m: m.get_episodes(["e", "nope"]), NotFound),
    "get_episodes, text": Call(_MANY, lambda m: m.get_episodes("e"), InvalidInput),
    "open_episodes": Call("Memory.open_episodes", lambda m: m.open_episodes()),
    "episode_ids": Call("Memory.episode_ids", lambda m: drain(m.episode_ids())),
    "list_episodes": Call(_LIST, lambda m: m.list_episodes()),
    "list_episodes, up to a record": Call(_LIST, lambda m: m.list_episodes(at_least=m._journal.durable_lsn)),
    "list_episodes, by text": Call(_LIST, lambda m: m.list_episodes(EpisodeFilter(text="task"))),
    "list_episodes, bad filter": Call(_LIST, lambda m: m.list_episodes(5), InvalidInput),  # type: ignore[arg-type]
    "list_episodes, bad limit": Call(_LIST, lambda m: m.list_episodes(limit=0), InvalidInput),
    "list_episodes, bad cursor": Call(_LIST, lambda m: m.list_episodes(cursor="nonsense"), InvalidInput),
    "list_episodes, no such record": Call(_LIST, lambda m: m.list_episodes(at_least=10**9), InvalidInput),
    "tags": Call("Memory.tags", lambda m: m.tags()),
    "tags, bad cursor": Call("Memory.tags", lambda m: m.tags(cursor="x"), InvalidInput),
    "count_episodes": Call("Memory.count_episodes", lambda m: m.count_episodes()),
    "count_episodes, bad filter": Call("Memory.count_episodes", lambda m: m.count_episodes(5), InvalidInput),  # type: ignore[arg-type]
    "retrieve": Call(_RETRIEVE, lambda m: m.retrieve_relevant_context("task")),
    "retrieve, nothing": Call(_RETRIEVE, lambda m: m.retrieve_relevant_context("zebra")),
    "retrieve, bad query": Call(_RETRIEVE, lambda m: m.retrieve_relevant_context(5), InvalidInput),  # type: ignore[arg-type]
    "retrieve, bad limit": Call(_RETRIEVE, lambda m: m.retrieve_relevant_context("task", limit=0), InvalidInput),
    "events": Call(_EVENTS, lambda m: drain(m.events("e"))),
    "events, unknown": Call(_EVENTS, lambda m: drain(m.events("nope")), NotFound),
    "events, deleted": Call(_EVENTS, lambda m: drain(m.events("gone")), NotFound),
    "delete_episode": Call(_DELETE, lambda m: m.delete_episode("e")),
    "delete_episode, purging": Call(_DELETE, lambda m: m.delete_episode("e", purge=True)),
    "delete_episode, ended": Call(_DELETE, lambda m: m.delete_episode("ended")),
    "delete_episode, deleted": Call(_DELETE, lambda m: m.delete_episode("gone")),
    "delete_episode, unknown": Call(_DELETE, lambda m: m.delete_episode("nope"), NotFound),
    "delete_episode, bad id": Call(_DELETE, lambda m: m.delete_episode(5), InvalidInput),  # type: ignore[arg-type]
    "retain": Call(_RETAIN, lambda m: m.retain(RetentionPolicy(max_age_days=1))),
    "retain, nothing": Call(_RETAIN, lambda m: m.retain(RetentionPolicy(max_age_days=1), dry_run=True)),
    "retain, all": Call(_RETAIN, lambda m: m.retain(RetentionPolicy(max_episodes=0))),
    "retain, bad policy": Call(_RETAIN, lambda m: m.retain(RetentionPolicy()), InvalidInput),
    "compact": Call("Memory.compact", lambda m: m.compact()),
    "compact, purging": Call("Memory.compact", lambda m: m.compact(purge=True)),
    "backup": Call("Memory.backup", lambda m: m.backup("/archive")),
    "backup, into itself": Call("Memory.backup", lambda m: m.backup(LOG), InvalidInput),
    "backup, bad target": Call("Memory.backup", lambda m: m.backup(5), InvalidInput),  # type: ignore[arg-type]
    "add_tags": Call("Memory.add_tags", lambda m: m.add_tags("e", ["new"])),
    "add_tags, ended": Call("Memory.add_tags", lambda m: m.add_tags("ended", ["new"])),
    "add_tags, nothing new": Call("Memory.add_tags", lambda m: m.add_tags("e", [])),
    "add_tags, bad tag": Call("Memory.add_tags", lambda m: m.add_tags("e", [""]), InvalidInput),
    "add_tags, bad id": Call("Memory.add_tags", lambda m: m.add_tags("", ["new"]), InvalidInput),
    "add_tags, unknown": Call("Memory.add_tags", lambda m: m.add_tags("nope", ["new"]), NotFound),
    "add_tags, deleted": Call("Memory.add_tags", lambda m: m.add_tags("gone", ["new"]), NotFound),
    "remove_tags": Call("Memory.remove_tags", lambda m: m.remove_tags("e", ["old"])),
    "remove_tags, unknown": Call("Memory.remove_tags", lambda m: m.remove_tags("nope", ["old"]), NotFound),
    "set_tags": Call("Memory.set_tags", lambda m: m.set_tags("e", ["new"])),
    "set_tags, ended": Call("Memory.set_tags", lambda m: m.set_tags("ended", ["new"])),
    "set_tags, no list": Call("Memory.set_tags", lambda m: m.set_tags("e", "new"), InvalidInput),
    "update_episode": Call(
        "Memory.update_episode", lambda m: m.update_episode("e", description="other", metadata={"a": 1})
    ),
    "update_episode, ended": Call("Memory.update_episode", lambda m: m.update_episode("ended", description="other")),
    "update_episode, bad description": Call(
        "Memory.update_episode", lambda m: m.update_episode("e", description=""), InvalidInput
    ),
    "update_episode, unknown": Call(
        "Memory.update_episode", lambda m: m.update_episode("nope", description="other"), NotFound
    ),
    "archive": Call("Memory.archive", lambda m: m.archive("e")),
    "archive, ended": Call("Memory.archive", lambda m: m.archive("ended")),
    "archive, bad actor": Call("Memory.archive", lambda m: m.archive("e", actor=5), InvalidInput),  # type: ignore[arg-type]
    "restore": Call("Memory.restore", lambda m: m.restore("e")),
    "restore, unknown": Call("Memory.restore", lambda m: m.restore("nope"), NotFound),
    "relate": Call("Memory.relate", lambda m: m.relate("e", "ended", "depends_on")),
    "relate, ended": Call("Memory.relate", lambda m: m.relate("ended", "e", "references")),
    "relate, itself": Call("Memory.relate", lambda m: m.relate("e", "e", "follows"), InvalidInput),
    "relate, unknown": Call("Memory.relate", lambda m: m.relate("e", "nope", "follows"), NotFound),
    "relate, deleted": Call("Memory.relate", lambda m: m.relate("gone", "e", "follows"), NotFound),
    "unrelate": Call("Memory.unrelate", lambda m: m.unrelate("e", "ended", "depends_on")),
    "unrelate, bad kind": Call("Memory.unrelate", lambda m: m.unrelate("e", "ended", "likes"), InvalidInput),  # type: ignore[arg-type]
    "related": Call("Memory.related", lambda m: m.related("e")),
    "related, bad depth": Call("Memory.related", lambda m: m.related("e", depth=0), InvalidInput),
    "related, unknown": Call("Memory.related", lambda m: m.related("nope"), NotFound),
    "checkpoint": Call("Memory.checkpoint", lambda m: m.checkpoint("e", "why")),
    "checkpoint, ended": Call("Memory.checkpoint", lambda m: m.checkpoint("ended", "why"), InvalidState),
    "checkpoint, no reason": Call("Memory.checkpoint", lambda m: m.checkpoint("e", ""), InvalidInput),
    "handoff": Call("Memory.handoff", lambda m: hand_over(m)),
    "handoff, bad id": Call("Memory.handoff", lambda m: m.handoff("e"), InvalidInput),
    "handoff, unknown": Call("Memory.handoff", lambda m: m.handoff("1@e"), NotFound),
    "continue_from": Call("Memory.continue_from", lambda m: go_on(m)),
    "continue_from, repeated": Call("Memory.continue_from", lambda m: go_on(m, "next")),
    "continue_from, no pack": Call("Memory.continue_from", lambda m: m.continue_from(5), InvalidInput),  # type: ignore[arg-type]
    "patterns": Call("Memory.patterns", lambda m: m.patterns()),
    "patterns, bad kind": Call("Memory.patterns", lambda m: m.patterns("nonsense"), InvalidInput),  # type: ignore[arg-type]
    "heuristics": Call("Memory.heuristics", lambda m: m.heuristics()),
    "heuristics, bad limit": Call("Memory.heuristics", lambda m: m.heuristics(limit=0), InvalidInput),
    "explain": Call("Memory.explain", lambda m: explain_something(m)),
    "explain, unknown": Call("Memory.explain", lambda m: m.explain("nope"), NotFound),
    "explain, bad id": Call("Memory.explain", lambda m: m.explain(""), InvalidInput),
    "recommend": Call("Memory.recommend", lambda m: m.recommend("task")),
    "recommend, bad limit": Call("Memory.recommend", lambda m: m.recommend("task", limit=51), InvalidInput),
    "playbook": Call("Memory.playbook", lambda m: m.playbook("task")),
    "playbook, bad task": Call("Memory.playbook", lambda m: m.playbook(5), InvalidInput),  # type: ignore[arg-type]
    "feedback": Call("Memory.feedback", lambda m: give_feedback(m)),
    "feedback, not advised": Call("Memory.feedback", lambda m: give_feedback(m, applied=("x",)), InvalidInput),
    "feedback, unknown": Call("Memory.feedback", lambda m: m.feedback("nope"), NotFound),
    "feedback, bad rating": Call("Memory.feedback", lambda m: m.feedback("nope", rating=2), InvalidInput),
    "recommendation_stats": Call("Memory.recommendation_stats", lambda m: m.recommendation_stats()),
    "recommendation_stats, parked": Call("Memory.recommendation_stats", without_learner, Unavailable),
    "skills.store": Call("Skills.store", lambda m: m.skills.store("a way")),
    "skills.store, bad steps": Call("Skills.store", lambda m: m.skills.store("a way", steps="x"), InvalidInput),
    "skills.get": Call("Skills.get", lambda m: with_skill(m, m.skills.get)),
    "skills.get, unknown": Call("Skills.get", lambda m: m.skills.get("nope"), NotFound),
    "skills.find": Call("Skills.find", lambda m: m.skills.find()),
    "skills.find, bad limit": Call("Skills.find", lambda m: m.skills.find(limit=0), InvalidInput),
    "skills.used": Call("Skills.used", lambda m: with_skill(m, m.skills.used)),
    "skills.used, unknown": Call("Skills.used", lambda m: m.skills.used("nope"), NotFound),
    "skills.delete": Call("Skills.delete", lambda m: with_skill(m, m.skills.delete)),
    "skills.delete, bad id": Call("Skills.delete", lambda m: m.skills.delete(""), InvalidInput),
    "follow": Call("EventChannel.receive", lambda m: first_event(m)),
    "follow, entering": Call(_FOLLOW, lambda m: m.follow().__aenter__()),
    "follow, bad cursor": Call(_FOLLOW, lambda m: m.follow("nonsense").__aenter__(), InvalidInput),
    "lifecycle": Call("LifecycleChannel.receive", lambda m: first_thing_told(m)),
    "lifecycle, entering": Call("Watching.__aenter__", lambda m: m.lifecycle().__aenter__()),
    "the run scope, entering": Call(_RUN, lambda m: m.episode("x").__aenter__()),
    "the run scope, bad task": Call(_RUN, lambda m: m.episode("").__aenter__(), InvalidInput),
    "the run scope, ended": Call(_RUN, lambda m: m.episode("other", episode_id="ended").__aenter__(), InvalidState),
    "the step scope, entering": Call(_STEP, lambda m: m.handle("e").step("tool").__aenter__()),
    "the step scope, bad tool": Call(_STEP, lambda m: m.handle("e").step("").__aenter__(), InvalidInput),
}


CALLS.update({name: Call(*call) for name, call in (PORT_CALLS | FACT_CALLS).items()})


@pytest.mark.parametrize("name", CALLS)
async def test_is_a_checkpoint(name: str) -> None:
    call = CALLS[name]
    async with prepared() as memory:
        with entering(call.function), assert_checkpoints():
            if call.raises is None:
                await call.make(memory)
            else:
                with pytest.raises(call.raises):
                    await call.make(memory)


@pytest.mark.parametrize("name", [name for name in CALLS if "," not in name])
async def test_is_cancelled_before_anything_happens_if_the_caller_is_cancelled_already(name: str) -> None:
    async with prepared() as memory:
        before = [event.seq async for event in memory.events("e")]
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name].make(memory)
        assert scope.cancelled_caught
        assert [event.seq async for event in memory.events("e")] == before


@pytest.mark.parametrize("name", CALLS)
async def test_cancelled_at_any_point_it_leaves_a_sound_memory_and_can_be_repeated(
    name: str, autojump_clock: MockClock
) -> None:
    """At each step of the calling task in turn, until the call gets through."""
    steps, cancelled = 0, True
    while cancelled:
        files = MemoryFileSystem()
        with trio.fail_after(100):
            async with open_on(files) as memory:
                await fill(memory)

                async def call(memory: Memory = memory) -> None:
                    with suppress(StepwellError):
                        await CALLS[name].make(memory)

                cancelled = await cancelled_at_step(steps, call)
                await call()
                other = await memory.start_episode("another task", episode_id="other")
                receipts = [await other.log_step(step(1))]
                with suppress(InvalidState, NotFound):  # it may have been completed, or deleted
                    receipts.append(await memory.log_step("e", step(99)))
                await memory.flush()
                assert all(receipt.is_durable for receipt in receipts)
        async with open_on(files) as memory:
            for episode_id in [item async for item in memory.episode_ids()]:
                found = await memory.get_episode(episode_id)
                events = [event async for event in memory.events(episode_id)]
                assert [event.seq for event in events] == list(range(1, found.last_seq + 1))
                assert [item.seq for item in found.steps] == [event.seq for event in events if event.kind == "step"]
        steps += 1
    assert steps > 1


# ---- what needs more than an open memory -----------------------------------------------------------------------------


class Stage:
    """A memory that a situation opens, closes and breaks by hand. On entering, an earlier opening has left the episode
    "old" open in it."""

    def __init__(self) -> None:
        self._plain = MemoryFileSystem()
        self.files = HookedFileSystem(self._plain, self._hook)
        self.opening = open_on(self.files)
        self.is_closed = self.fails_once = self.fails_for_good = False
        self.memory: Memory

    def _hook(self, call: str, _path: str) -> None:
        if call == "datasync" and (self.fails_once or self.fails_for_good):
            self.fails_once = False
            raise OSError(errno.EIO, "Input/output error")

    async def __aenter__(self) -> Stage:
        async with open_on(self._plain) as memory:
            await memory.start_episode("task", episode_id="old")
        self.memory = await self.opening.__aenter__()
        await self.memory.start_episode("task", episode_id="e")
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.fails_for_good = False
        await self.close()

    async def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self.opening.__aexit__(None, None, None)


Situation = AsyncIterator[Callable[[], Awaitable[object]]]


async def opening(stage: Stage) -> Situation:
    other = open_on(MemoryFileSystem())
    yield other.__aenter__
    await other.__aexit__(None, None, None)


async def opening_twice(stage: Stage) -> Situation:
    yield stage.opening.__aenter__


async def opening_what_is_locked(stage: Stage) -> Situation:
    yield open_on(stage.files).__aenter__


async def opening_with_bad_settings(stage: Stage) -> Situation:
    yield open_on(stage.files, 5).__aenter__  # type: ignore[arg-type]


async def closing(stage: Stage) -> Situation:
    yield stage.close


async def closing_a_memory_whose_log_is_lost(stage: Stage) -> Situation:
    stage.fails_for_good = True
    receipt = await stage.memory.log_step("e", step(1))
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()
    yield stage.close


async def waiting(stage: Stage) -> Situation:
    yield (await stage.memory.log_step("e", step(1))).wait_durable


async def waiting_for_what_is_durable(stage: Stage) -> Situation:
    receipt = await stage.memory.log_step("e", step(1))
    await receipt.wait_durable()
    yield receipt.wait_durable


async def waiting_behind_the_closing(stage: Stage) -> Situation:
    receipt = await stage.memory.log_step("e", step(1))
    await stage.close()
    yield receipt.wait_durable


async def waiting_for_what_fails(stage: Stage) -> Situation:
    stage.fails_once = True
    yield (await stage.memory.log_step("e", step(1))).wait_durable


async def waiting_for_what_has_failed(stage: Stage) -> Situation:
    stage.fails_once = True
    receipt = await stage.memory.log_step("e", step(1))
    with pytest.raises(OutcomeUnknown):
        await receipt.wait_durable()
    yield receipt.wait_durable


async def reaching_the_log(stage: Stage) -> Situation:
    yield (await stage.memory.log_step("e", step(1))).reach_log


async def not_reaching_the_log(stage: Stage) -> Situation:
    stage.fails_once = True
    yield (await stage.memory.log_step("e", step(1))).reach_log


async def flushing_what_fails(stage: Stage) -> Situation:
    stage.fails_once = True
    await stage.memory.log_step("e", step(1))
    yield stage.memory.flush


async def looking_for_ids_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield lambda: drain(stage.memory.episode_ids())


async def looking_for_open_episodes_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield stage.memory.open_episodes


async def listing_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield stage.memory.short_term.threads


async def listing_scopes_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield stage.memory.long_term.scopes


async def forgetting_behind_the_closing(stage: Stage) -> Situation:
    fact_id = await stage.memory.long_term.remember(Scope.GLOBAL, Fact("the sky is blue"))
    await stage.close()
    yield lambda: stage.memory.long_term.forget(fact_id)


async def entering_a_run_twice(stage: Stage) -> Situation:
    following = stage.memory.episodic.follow("e")
    await following.__aenter__()
    yield following.__aenter__


async def leaving_a_run(stage: Stage) -> Situation:
    following = stage.memory.episodic.follow("e")
    await following.__aenter__()
    yield lambda: following.__aexit__(None, None, None)


async def not_following_a_run_any_more(stage: Stage) -> Situation:
    events = await stage.memory.episodic.follow("e").__aenter__()
    await events.receive()
    yield events.aclose


async def receiving_from_a_run_behind_leaving(stage: Stage) -> Situation:
    events = await stage.memory.episodic.follow("e").__aenter__()
    await events.receive()
    await events.aclose()
    yield events.receive


async def replaying_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield stage.memory.episodic.iter_replay("e").__anext__


async def compacting_behind_the_closing(stage: Stage) -> Situation:
    await stage.close()
    yield stage.memory.compact


async def asking_for_the_next_event_at_the_end(stage: Stage) -> Situation:
    events = stage.memory.events("e")
    await events.__anext__()
    yield events.__anext__


async def receiving_some(stage: Stage) -> Situation:
    events = await stage.memory.follow().__aenter__()
    yield lambda: events.receive_some(10)


async def receiving_some_behind_leaving(stage: Stage) -> Situation:
    events = await stage.memory.follow().__aenter__()
    await events.aclose()
    yield lambda: events.receive_some(10)


async def receiving_behind_leaving(stage: Stage) -> Situation:
    following = stage.memory.follow()
    events = await following.__aenter__()
    await following.__aexit__(None, None, None)
    yield events.receive


async def receiving_behind_the_closing(stage: Stage) -> Situation:
    events = await stage.memory.follow(NOW).__aenter__()
    await stage.close()
    yield events.receive


async def closing_a_channel(stage: Stage) -> Situation:
    yield (await stage.memory.follow().__aenter__()).aclose


async def leaving_a_follower(stage: Stage) -> Situation:
    following = stage.memory.follow()
    await following.__aenter__()
    yield lambda: following.__aexit__(None, None, None)


async def entering_a_follower_twice(stage: Stage) -> Situation:
    following = stage.memory.follow()
    await following.__aenter__()
    yield following.__aenter__


async def entering_a_transaction_twice(stage: Stage) -> Situation:
    transaction = stage.memory.atomic()
    await transaction.__aenter__()
    yield transaction.__aenter__


async def watching_twice(stage: Stage) -> Situation:
    watching = stage.memory.lifecycle()
    await watching.__aenter__()
    yield watching.__aenter__


async def watching_no_more(stage: Stage) -> Situation:
    watching = stage.memory.lifecycle()
    await watching.__aenter__()
    yield lambda: watching.__aexit__(None, None, None)


async def watching_behind_the_closing(stage: Stage) -> Situation:
    events = await stage.memory.lifecycle().__aenter__()
    await stage.close()
    while (await events.receive()).kind != "closing":
        pass
    yield events.receive


async def watching_through_a_closed_channel(stage: Stage) -> Situation:
    events = await stage.memory.lifecycle().__aenter__()
    await events.aclose()
    yield events.receive


async def closing_the_channel_of_a_watcher(stage: Stage) -> Situation:
    yield (await stage.memory.lifecycle().__aenter__()).aclose


async def leaving_a_run_scope(stage: Stage) -> Situation:
    scope = stage.memory.episode("task")
    await scope.__aenter__()
    yield lambda: scope.__aexit__(None, None, None)


async def leaving_a_run_scope_with_an_error(stage: Stage) -> Situation:
    scope = stage.memory.episode("task")
    await scope.__aenter__()
    yield lambda: scope.__aexit__(ValueError, ValueError("of the body"), None)


async def leaving_a_run_scope_behind_the_closing(stage: Stage) -> Situation:
    scope = stage.memory.episode("task")
    await scope.__aenter__()
    await stage.close()
    yield lambda: scope.__aexit__(None, None, None)


async def entering_a_run_scope_twice(stage: Stage) -> Situation:
    scope = stage.memory.episode("task")
    await scope.__aenter__()
    yield scope.__aenter__


async def leaving_a_step_scope(stage: Stage) -> Situation:
    scope = stage.memory.handle("e").step("tool")
    await scope.__aenter__()
    yield lambda: scope.__aexit__(None, None, None)


async def leaving_a_step_scope_with_an_error(stage: Stage) -> Situation:
    scope = stage.memory.handle("e").step("tool")
    await scope.__aenter__()
    yield lambda: scope.__aexit__(ValueError, ValueError("of the body"), None)


async def leaving_a_step_scope_of_an_episode_that_has_ended(stage: Stage) -> Situation:
    scope = stage.memory.handle("e").step("tool")
    await scope.__aenter__()
    await stage.memory.complete_episode("e", Success())
    yield lambda: scope.__aexit__(None, None, None)


SITUATIONS: list[tuple[str, Callable[[Stage], Situation], type[BaseException] | None]] = [
    ("OpenMemory.__aenter__", opening, None),
    ("OpenMemory.__aenter__", opening_twice, InvalidState),
    ("OpenMemory.__aenter__", opening_what_is_locked, LogLocked),
    ("OpenMemory.__aenter__", opening_with_bad_settings, InvalidInput),
    ("OpenMemory.__aexit__", closing, None),
    ("OpenMemory.__aexit__", closing_a_memory_whose_log_is_lost, OSError),
    ("Receipt.wait_durable", waiting, None),
    ("Receipt.wait_durable", waiting_for_what_is_durable, None),
    ("Receipt.wait_durable", waiting_behind_the_closing, None),
    ("Receipt.wait_durable", waiting_for_what_fails, OutcomeUnknown),
    ("Receipt.wait_durable", waiting_for_what_has_failed, OutcomeUnknown),
    ("Receipt.reach_log", reaching_the_log, None),
    ("Receipt.reach_log", not_reaching_the_log, OutcomeUnknown),
    ("Memory.flush", flushing_what_fails, OutcomeUnknown),
    ("Memory.episode_ids", looking_for_ids_behind_the_closing, Closed),
    ("Memory.open_episodes", looking_for_open_episodes_behind_the_closing, Closed),
    ("Memory.compact", compacting_behind_the_closing, Closed),
    ("ShortTermPort.threads", listing_behind_the_closing, Closed),
    ("LongTermPort.scopes", listing_scopes_behind_the_closing, Closed),
    ("LongTermPort.forget", forgetting_behind_the_closing, Closed),
    ("RunFollowing.__aenter__", entering_a_run_twice, InvalidState),
    ("RunFollowing.__aexit__", leaving_a_run, None),
    ("RunChannel.aclose", not_following_a_run_any_more, None),
    ("RunChannel.receive", receiving_from_a_run_behind_leaving, trio.ClosedResourceError),
    ("RunEvents.__anext__", replaying_behind_the_closing, Closed),
    ("EpisodeEvents.__anext__", asking_for_the_next_event_at_the_end, StopAsyncIteration),
    ("EventChannel.receive_some", receiving_some, None),
    ("EventChannel.receive_some", receiving_some_behind_leaving, trio.ClosedResourceError),
    ("EventChannel.receive", receiving_behind_leaving, trio.ClosedResourceError),
    ("EventChannel.receive", receiving_behind_the_closing, trio.EndOfChannel),
    ("EventChannel.aclose", closing_a_channel, None),
    ("Following.__aenter__", entering_a_follower_twice, InvalidState),
    ("Following.__aexit__", leaving_a_follower, None),
    ("AtomicScope.__aenter__", entering_a_transaction_twice, InvalidState),
    ("Watching.__aenter__", watching_twice, InvalidState),
    ("Watching.__aexit__", watching_no_more, None),
    ("LifecycleChannel.receive", watching_behind_the_closing, trio.EndOfChannel),
    ("LifecycleChannel.receive", watching_through_a_closed_channel, trio.ClosedResourceError),
    ("LifecycleChannel.aclose", closing_the_channel_of_a_watcher, None),
    ("RunScope.__aenter__", entering_a_run_scope_twice, InvalidState),
    ("RunScope.__aexit__", leaving_a_run_scope, None),
    ("RunScope.__aexit__", leaving_a_run_scope_with_an_error, None),
    ("RunScope.__aexit__", leaving_a_run_scope_behind_the_closing, Closed),
    ("StepScope.__aexit__", leaving_a_step_scope, None),
    ("StepScope.__aexit__", leaving_a_step_scope_with_an_error, None),
    ("StepScope.__aexit__", leaving_a_step_scope_of_an_episode_that_has_ended, InvalidState),
]


@pytest.mark.parametrize(
    ("function", "situation", "raises"), SITUATIONS, ids=[situation.__name__ for _, situation, _ in SITUATIONS]
)
async def test_is_a_checkpoint_when(
    function: str, situation: Callable[[Stage], Situation], raises: type[BaseException] | None
) -> None:
    async with Stage() as stage:
        asked = situation(stage)
        call = await anext(asked)
        with entering(function), assert_checkpoints():
            if raises is None:
                await call()
            else:
                with pytest.raises(raises):
                    await call()
        await drain(asked)


@contextmanager
def entering(function: str) -> Iterator[None]:
    """The block calls the public function it is said to call."""
    code, seen = public_async_functions()[function], False

    def note(frame: FrameType, what: str, _argument: Any) -> None:
        nonlocal seen
        seen = seen or (what == "call" and frame.f_code is code)

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert seen, f"{function} was not called"


def test_every_public_async_function_has_a_case_that_succeeds_and_one_that_fails() -> None:
    cases = [(call.function, call.raises) for call in CALLS.values()]
    cases += [(function, raises) for function, _, raises in SITUATIONS]
    succeeding = {function for function, raises in cases if raises is None}
    failing = {function for function, raises in cases if raises is not None}
    functions = public_async_functions().keys()
    assert not functions - succeeding, "add a case that succeeds"
    assert not functions - failing - NEVER_FAIL, "add a case that fails, or say in NEVER_FAIL that none can"
    assert succeeding | failing | NEVER_FAIL <= functions


async def test_events_are_a_checkpoint_once_per_slice() -> None:
    """The one documented exception: what has been read already is given at once, and nothing is skipped."""
    async with open_on(MemoryFileSystem()) as memory:
        handle = await memory.start_episode("task", episode_id="e")
        for first in range(0, 600, 100):
            await handle.log_steps([step(number) for number in range(first, first + 100)])
        await handle.flush()
        async with memory.follow() as followed:
            for ask in (memory.events("e").__anext__, followed.receive):
                assert 2 <= await checkpoints_among(ask, 601) <= 8


class _Steps(trio.abc.Instrument):
    """How often a task went on after it had let others run. Another task that counts turns would not do: the scheduler
    shuffles, so it may come before and behind a checkpoint and see none."""

    def __init__(self) -> None:
        self._task, self.count = trio.lowlevel.current_task(), 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


async def checkpoints_among(ask: Callable[[], Awaitable[object]], count: int) -> int:
    """How many of `count` calls let other tasks run."""
    steps, found = _Steps(), 0
    trio.lowlevel.add_instrument(steps)
    for _ in range(count):
        before = steps.count
        await ask()
        found += steps.count > before
    trio.lowlevel.remove_instrument(steps)
    return found
