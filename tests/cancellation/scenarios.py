"""What is cancelled: scenarios in which every public async function is called at least once.

A scenario is what one task does with an open memory that holds the episodes of `prepare`. It is run untouched first, to
see which functions it calls; `python -m tests.cancellation --list` prints them. A public async function in no scenario
fails a test: write one here that calls it, through a `Caller`, so that what it promises is checked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import msgspec
import pytest
import trio

from stepstore.log.memory_files import MemoryFile
from stepwell import (
    NOW,
    BatchConfig,
    EpisodeFilter,
    Event,
    Fact,
    Failure,
    Interrupted,
    InvalidInput,
    InvalidState,
    LogFull,
    LogLocked,
    Memory,
    MemoryConfig,
    Message,
    NotFound,
    OutcomeUnknown,
    Role,
    RunFilter,
    Scope,
    Success,
    TooLarge,
    open_memory,
)
from stepwell import events as run_events
from tests.cancellation.caller import Caller, task_of
from tests.cancellation.told import Fate
from tests.support import LOG, open_on, step

SEGMENT_BYTES = 64 * 1024
MORE_THAN_A_SLICE = 300
"""Of events; they come in slices of 256."""


@dataclass(frozen=True)
class Scenario:
    """`settings`: of the memory, beside those of every run. `long`: steps of the episode of that name. `medium_fails`:
    then a receipt need not become durable. `needs_time`: what is meant happens on a medium that takes time only."""

    name: str
    body: Callable[[Caller], Awaitable[None]]
    settings: dict[str, Any] = field(default_factory=dict)
    long: int = 6
    medium_fails: bool = False
    needs_time: bool = False

    def config(self) -> MemoryConfig:
        return MemoryConfig(segment_bytes=SEGMENT_BYTES, scrub_bytes_per_second=0, **self.settings)

    @property
    def commit(self) -> bool:
        """Whether logging returns when the step is durable."""
        return self.settings.get("durability") == "commit"


class OwnError(Exception):
    """Raised in a body."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *, long: int = 6, medium_fails: bool = False, needs_time: bool = False, **settings: Any
) -> Callable[[Callable[[Caller], Awaitable[None]]], None]:
    """Make a scenario of a function; its name is that of the function."""

    def add(body: Callable[[Caller], Awaitable[None]]) -> None:
        name = body.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, body, settings, long, medium_fails, needs_time)

    return add


async def prepare(caller: Caller, long: int) -> None:
    """What every memory holds: `old`, that is open; `done`, that has ended; `long`, that is open too."""
    for name in ("old", "done", "long"):
        await caller.start(name)
    for _ in range(3):
        await caller.log("old", keyed=True)
        await caller.log("done")
    for _ in range(3):
        await caller.log("long", long // 3)
    await caller.end("done", Success("done"))


@scenario()
async def logging(caller: Caller) -> None:
    await caller.start("new")
    receipts = [await caller.log("new"), await caller.log("new", by_handle=True), caller.log_nowait("new")]
    await caller.wait(receipts[0])
    await caller.log("old", by_handle=True)
    await caller.wait(await caller.log("new"), reach_log=True)


@scenario(mailbox_size=2, batch=BatchConfig(max_batch_size=4))
async def full_mailboxes(caller: Caller) -> None:
    for by_handle in (False, True) * 3:
        await caller.log("old", by_handle=by_handle)
        await caller.log("long", by_handle=by_handle)


@scenario(mailbox_size=2)
async def batches(caller: Caller) -> None:
    await caller.start("new")
    for count in (2, 3, 2):
        await caller.log("new", count)
        await caller.log("old", count, by_handle=True)


@scenario(durability="commit")
async def commits(caller: Caller) -> None:
    await caller.log("old", keyed=True)
    await caller.log("old", 3, keyed=True)
    await caller.log("long", by_handle=True, keyed=True)
    await caller.log("long")


@scenario()
async def transactions(caller: Caller) -> None:
    """Over episodes that are asleep, awake and new; and one that is left with an error, which stores nothing."""
    await caller.commit("old", "long")
    await caller.start("new")
    await caller.log("new")
    await caller.commit("new", "old")
    with pytest.raises(OwnError):
        async with caller.entered(caller.memory.atomic()) as transaction:
            transaction.log_step("old", step(1))
            raise OwnError
    with pytest.raises(InvalidState):
        await caller.commit("old", "done")


@scenario()
async def waking(caller: Caller) -> None:
    """What was asleep is woken from the log by whatever asks first."""
    await caller.get("long", by_handle=True)
    await caller.flush("old")
    await caller.resume("old")
    await caller.log("long")
    await caller.log("old", keyed=True)
    with pytest.raises(InvalidState):
        await caller.log("done")


@scenario(batch=BatchConfig.manual())
async def flushing(caller: Caller) -> None:
    for _ in range(2):
        await caller.log("old")
        await caller.log("long")
    await caller.flush("old")
    await caller.log("old")
    await caller.flush("long", by_handle=True)
    await caller.flush()


@scenario()
async def idling(caller: Caller) -> None:
    """Time goes by: the flush interval, then the time after which the log is marked as idle."""
    await caller.log("old")
    await trio.sleep(0.2)
    await caller.log("long")
    await caller.flush()
    await trio.sleep(2)
    await caller.log("old", by_handle=True)


@scenario(medium_fails=True)
async def a_sync_that_fails(caller: Caller) -> None:
    """Once; the log goes on in another segment, and whether the steps of the group are stored is unknown."""
    await caller.log("old", keyed=True)
    await caller.flush()
    with _next_sync_fails():
        receipt = await caller.log("old", 2, keyed=True)
        with pytest.raises(OutcomeUnknown):
            await caller.wait(receipt)
    await caller.wait(await caller.log("old", keyed=True))


@scenario(medium_fails=True)
async def a_sync_that_fails_and_nobody_waits(caller: Caller) -> None:
    """It is told once, to the first who flushes or completes; cancelled there he may not have been told."""
    await caller.log("old", keyed=True)
    await caller.flush()
    await _lose_two_steps(caller)
    with pytest.raises(OutcomeUnknown):
        await caller.flush()
    await caller.flush("old", by_handle=True)
    await _lose_two_steps(caller)
    with pytest.raises(OutcomeUnknown):
        await caller.end("old", Success("done"))
    await caller.end("old", Success("done"))


@scenario(medium_fails=True)
async def a_completion_and_a_transaction_that_fail(caller: Caller) -> None:
    """Who waits for what fails is told, of all that it concerns."""
    await caller.log("old", keyed=True)
    await caller.flush()
    with _next_sync_fails():
        await caller.log("old", 2)
        with pytest.raises(OutcomeUnknown):
            await caller.end("old", Success("done"))
    with _next_sync_fails(), pytest.raises(OutcomeUnknown):
        await caller.commit("old", "long")
    await caller.flush()
    await caller.end("old", Success("done"))


async def _lose_two_steps(caller: Caller) -> None:
    with _next_sync_fails():
        await caller.log("old", 2)
        await trio.sleep(2)


@scenario(medium_fails=True)
async def a_medium_that_is_full_for_a_while(caller: Caller) -> None:
    await caller.log("old", keyed=True)
    await caller.flush()
    with _next_sync_fails(errno.ENOSPC):
        receipt = await caller.log("old", keyed=True)
        with pytest.raises(OutcomeUnknown):
            await caller.wait(receipt)
    with pytest.raises(LogFull):
        await caller.log("old", keyed=True)
    await trio.sleep(10)
    await caller.wait(await caller.log("old", keyed=True))


@contextmanager
def _next_sync_fails(number: int = errno.EIO) -> Iterator[None]:
    sync, failed = MemoryFile.datasync, False

    def failing(file: MemoryFile) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise OSError(number, os.strerror(number))
        sync(file)

    with mock.patch.object(MemoryFile, "datasync", failing):
        yield


@scenario(idle_seconds=1, resume_open=True)
async def passivation(caller: Caller) -> None:
    """Episodes fall asleep, and are woken by whatever is asked."""
    await caller.log("old")
    await trio.sleep(3)
    await caller.log("old")
    await trio.sleep(3)
    await caller.flush("old")
    await caller.end("long", Success("done"))


@scenario(needs_time=True, max_live_episodes=1)
async def more_episodes_than_may_be_awake(caller: Caller) -> None:
    for name in ("old", "long", "old", "old", "long"):
        await caller.log(name)
    await caller.commit("long", "old")
    async with trio.open_nursery() as nursery:
        for name in ("old", "long"):
            nursery.start_soon(_log_several, caller.beside(f"logger of {name}"), name, 3)
            nursery.start_soon(_resume_again_and_again, caller.beside(f"reader of {name}"), name)


async def _resume_again_and_again(caller: Caller, name: str) -> None:
    for _ in range(6):  # once or more while it is about to fall asleep, which that prevents
        await caller.resume(name)


@scenario()
async def starting(caller: Caller) -> None:
    for name in ("new", "old", "new", "done"):  # `old` and `done` are there already
        await caller.start(name)
    await caller.plain(lambda: _expect(InvalidState, lambda: caller.memory.start_episode("x", episode_id="old")))


@scenario()
async def completing(caller: Caller) -> None:
    await caller.log("old")
    await caller.end("old", Success("it works"))
    await caller.end("old", Success("it works"), by_handle=True)
    await caller.start("new")
    await caller.log("new", 2)
    await caller.end("new", Failure("it does not"), by_handle=True)


@scenario()
async def abandoning(caller: Caller) -> None:
    found = await caller.plain(lambda: caller.memory.open_episodes())
    assert {episode.episode_id for episode in found} == {"old", "long"}
    await caller.resume("old")
    await caller.end("long", Interrupted("nobody goes on", cause="abandoned"))


@scenario()
async def run_scopes(caller: Caller) -> None:
    async with caller.run("run") as episode:
        async with caller.step("run", episode):
            await trio.lowlevel.checkpoint()
        async with caller.run("inner", by_id=True) as inner:
            async with caller.step("inner", inner):
                pass


@scenario()
async def failing_runs(caller: Caller) -> None:
    with pytest.raises(OwnError):
        async with caller.run("run") as episode:
            async with caller.step("run", episode):
                await trio.lowlevel.checkpoint()
                raise OwnError


@scenario(mailbox_size=1, batch=BatchConfig.manual())
async def step_scopes(caller: Caller) -> None:
    """With a mailbox that is full while a batch is on its way, and tools that cannot be cancelled."""
    handle = await caller.start("new")
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            async with caller.step("new", handle):
                await trio.lowlevel.checkpoint()
            nursery.start_soon(caller.beside("flusher").flush, "new")
            async with caller.step("new", handle):
                await _tool()
                await caller.log("new", by_handle=True)
                await _tool()


@scenario(durability="commit")
async def step_scopes_that_wait_for_the_medium(caller: Caller) -> None:
    handle = await caller.start("new")
    for _ in range(2):
        async with caller.step("new", handle):
            await _tool()
            await trio.lowlevel.checkpoint()
        async with caller.step("new", handle):
            await _tool()


async def _tool() -> None:
    """Something that returns although it is cancelled meanwhile, as a call in a worker thread does."""
    with trio.CancelScope(shield=True):
        await trio.sleep(0.001)


@scenario()
async def reading(caller: Caller) -> None:
    await caller.log("old")
    await caller.get("old")
    await caller.get("done", by_handle=True)
    await caller.log("old", 2)
    await caller.plain(lambda: caller.memory.get_episodes(["done", "old"]))
    found: list[str] = []
    ids = caller.memory.episode_ids()
    with caller.call(ready=True):
        async for episode_id in ids:
            found.append(episode_id)
    assert found == ["old", "done", "long"]


@scenario(long=MORE_THAN_A_SLICE)
async def reading_events(caller: Caller) -> None:
    """Each event is asked for again where the iteration was cancelled, and none is skipped or doubled."""
    await caller.log("long")
    for events in (caller.memory.events("long"), caller.handle("long").events(after=2)):
        seqs: list[int] = []

        async def rest(events: Any = events, seqs: list[int] = seqs) -> None:
            async for event in events:
                seqs.append(event.seq)
            if seqs != list(range(seqs[0], MORE_THAN_A_SLICE + 3)):
                caller.watch.object_to(f"the events of an episode are seq {seqs}")

        try:
            with caller.call(ready=True):
                await rest()
        except trio.Cancelled:
            caller.again.append(rest)
            raise


@scenario()
async def following(caller: Caller) -> None:
    """From the start, then from the cursor of an event, then from now on."""
    await caller.log("old", keyed=True)
    await caller.flush()
    async with caller.entered(caller.memory.follow()) as events:
        seen = [await _next(caller, events) for _ in range(5)]
        while len(seen) < 10:
            with caller.call(ready=True):
                some = await events.receive_some(10 - len(seen))
            seen += [event for event in some if isinstance(event, Event)]
        await caller.plain(events.aclose)
    async with caller.entered(caller.memory.follow(seen[4].cursor)) as events:
        seen_again = [await _next(caller, events) for _ in range(8)]
    lsns, lsns_again = ([event.lsn for event in some] for some in (seen, seen_again))
    if lsns != list(range(1, 11)) or lsns_again != list(range(6, 14)):
        caller.watch.object_to(f"followers saw {lsns} and {lsns_again}")


@scenario()
async def following_live(caller: Caller) -> None:
    """Events that are logged meanwhile."""
    async with trio.open_nursery() as nursery:
        async with caller.entered(caller.memory.follow(NOW)) as events:
            nursery.start_soon(_log_several, caller.beside("other"), "old", 4)
            seen = [await _next(caller, events) for _ in range(4)]
    assert [event.stream for event in seen] == ["old"] * 4


@scenario()
async def watching(caller: Caller) -> None:
    """What happens to the memory, as it is told to whoever looks."""
    async with caller.entered(caller.memory.lifecycle()) as events:
        await caller.log("old")
        await caller.end("old", Success("done"))
        seen: list[str] = []
        while "ended" not in seen:
            with caller.call():
                seen.append((await events.receive()).kind)
        await caller.plain(events.aclose)
    await caller.plain(caller.memory.lifecycle().__aenter__)  # the closing ends that one


async def _next(caller: Caller, events: Any) -> Event:
    with caller.call(ready=True):
        event = await events.receive()
    assert isinstance(event, Event)
    return event


async def _log_several(caller: Caller, name: str, count: int) -> None:
    for _ in range(count):
        await caller.log(name, by_handle=True)
    await caller.flush(name)


@scenario()
async def deleting(caller: Caller) -> None:
    await caller.log("old")
    await caller.delete("old")
    await caller.delete("old")
    await caller.start("new")
    await caller.log("new")
    await caller.delete("new")
    await caller.delete("done")


@scenario()
async def purging(caller: Caller) -> None:
    await caller.delete("long", purge=True)
    await caller.plain(lambda: caller.memory.compact(purge=True))


@scenario()
async def compacting(caller: Caller) -> None:
    await caller.delete("long")
    await caller.log("old")
    await caller.plain(lambda: caller.memory.compact())
    await caller.log("old")


@scenario()
async def retaining(caller: Caller) -> None:
    """What has failed goes; what is open stays."""
    await caller.end("long", Failure("no"))
    await caller.retain_no_failures("long")
    await caller.log("old")


@scenario()
async def backing_up(caller: Caller) -> None:
    await caller.log("old", 2)
    await caller.plain(lambda: caller.memory.backup("/archive"))
    await caller.log("old")


@scenario(mailbox_size=2)
async def many_callers_of_one_episode(caller: Caller) -> None:
    """Tasks that log to it, flush it, end it."""
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(_until_it_ends, caller.beside(name))
        await caller.log("old")
        await caller.flush("old")
        await caller.log("old", 2)
        await caller.end("old", Success("done"))


async def _until_it_ends(caller: Caller) -> None:
    try:
        for count in (1, 2) * 4:
            await caller.log("old", count)
    except InvalidState:
        return


@scenario()
async def a_deletion_beside_a_logger(caller: Caller) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_it_ends, caller.beside("other"))
        await caller.log("old")
        await caller.delete("old")


@scenario()
async def memories_in_one_another(caller: Caller) -> None:
    """One that keeps nothing, and the same one again, which is locked."""
    async with caller.entered(open_memory(":memory:")) as other:
        with caller.call():
            handle = await other.start_episode("task")
        with caller.call():
            await handle.log_step(step(1))
    async with caller.entered(open_memory(":memory:", config=MemoryConfig(idle_seconds=1))) as other:
        with caller.call():
            await other.episode("a run that is asleep when its memory is closed").__aenter__()
        await trio.sleep(3)
    await caller.plain(lambda: _expect(LogLocked, lambda: open_on(caller.files).__aenter__()))
    await caller.log("old")


@scenario()
async def refused_calls(caller: Caller) -> None:
    """Errors are checkpoints too."""
    memory = caller.memory
    refused: list[tuple[type[Exception], Callable[[], Awaitable[object]]]] = [
        (InvalidState, lambda: memory.resume("done")),
        (TooLarge, lambda: memory.start_episode("x" * 20_000)),
        (KeyError, lambda: memory.get_episode("nope")),
        (KeyError, lambda: memory.flush_steps("nope")),
        (ValueError, lambda: memory.get_episodes("text")),
        (KeyError, lambda: memory.delete_episode("nope")),
        (ValueError, lambda: memory.backup(LOG)),
    ]
    for kind, call in refused:
        await caller.plain(partial(_expect, kind, call))


@scenario()
async def organising(caller: Caller) -> None:
    """Behind an ending, and what was asleep; each call may be repeated."""
    memory = caller.memory
    for name in ("done", "old"):
        caller.of(name).organised = True
        calls: list[Callable[[], Awaitable[object]]] = [
            partial(memory.add_tags, name, ["a", "b"]),
            partial(memory.remove_tags, name, ["A"]),
            partial(memory.set_tags, name, ["b", "c"]),
            partial(memory.update_episode, name, metadata={"n": 1}),
            partial(memory.archive, name),
            partial(memory.restore, name),
            partial(memory.relate, name, "long", "depends_on"),
            partial(memory.related, name),
            partial(memory.unrelate, name, "long", "depends_on"),
        ]
        for call in calls:
            await caller.plain(call)
    await caller.plain(partial(memory.relate, "done", "long", "related_to"))
    await caller.plain(partial(memory.related, "done"))
    await caller.delete("long")
    await caller.plain(partial(memory.related, "done"))  # its deletion takes the relationship with it


@scenario()
async def organising_in_transactions(caller: Caller) -> None:
    """Beside steps and behind an ending, of several episodes at once; a checkpoint may be noted again."""
    memory = caller.memory
    for name in ("done", "old", "long"):
        caller.of(name).organised = True

    async def organise() -> None:
        async with memory.atomic() as tx:
            tx.add_tags("done", ["a"])
            tx.update_episode("old", metadata={"n": 1})
            tx.checkpoint("old", "why")
            tx.archive("long")
            tx.relate("done", "old", "depends_on")

    async def take_back() -> None:
        async with memory.atomic() as tx:
            tx.set_tags("done", [])
            tx.remove_tags("old", ["a"])
            tx.restore("long")
            tx.unrelate("done", "old", "depends_on")
            tx.relate("old", "done", "depends_on")

    await caller.plain(organise)
    await caller.commit("old", "long")
    await caller.plain(take_back)
    await caller.plain(partial(memory.related, "old"))
    with pytest.raises(InvalidState):
        async with caller.entered(memory.atomic()) as transaction:
            transaction.add_tags("done", ["x"])
            transaction.relate("done", "old", "depends_on")


@scenario()
async def finding(caller: Caller) -> None:
    """A list shows what was told before it, and never what is deleted."""
    memory = caller.memory
    await caller.log("old")
    await caller.plain(memory.flush)
    await caller.plain(lambda: memory.list_episodes(EpisodeFilter(text="task"), at_least=memory._journal.durable_lsn))
    await caller.plain(partial(memory.list_episodes, limit=1))
    await caller.plain(memory.count_episodes)
    await caller.plain(partial(memory.tags, order="count"))
    await caller.delete("long")
    await caller.plain(memory.list_episodes)
    await caller.plain(lambda: _expect(InvalidInput, lambda: memory.list_episodes(cursor="x")))


@scenario()
async def retrieving(caller: Caller) -> None:
    """What has ended is found, and never what is deleted."""
    memory = caller.memory
    await caller.plain(lambda: memory.retrieve_relevant_context("a task"))
    await caller.plain(lambda: memory.retrieve_relevant_context("task", limit=1, filter=EpisodeFilter(domain="x")))
    await caller.delete("done")
    await caller.plain(lambda: memory.retrieve_relevant_context("a task"))
    await caller.plain(lambda: _expect(InvalidInput, lambda: memory.retrieve_relevant_context("task", limit=0)))


@scenario()
async def learning(caller: Caller) -> None:
    """What was learned, advice and what became of it, skills. Whatever was cut off may be asked for or told again."""
    memory = caller.memory
    await caller.end("old", Success("done"))
    patterns = await caller.plain(memory.patterns)
    await caller.plain(lambda: memory.explain(patterns[0].pattern_id))
    await caller.plain(memory.heuristics)
    await caller.plain(lambda: memory.playbook("task"))
    found = await caller.plain(lambda: memory.recommend("task"))
    await caller.plain(lambda: memory.feedback(found.id, consulted=["done"], outcome=Success()))
    await caller.plain(lambda: _expect(InvalidInput, lambda: memory.feedback(found.id, applied=["x"])))
    await caller.delete("done")
    await caller.plain(memory.recommendation_stats)
    skill = await caller.plain(lambda: memory.skills.store("a way", "to do it"))
    await caller.plain(lambda: memory.skills.store("a way", "to do it well"))
    await caller.plain(lambda: memory.skills.used(skill.skill_id, Success()))
    await caller.plain(lambda: memory.skills.get(skill.skill_id))
    await caller.plain(memory.skills.find)
    other = await caller.plain(lambda: memory.skills.store("another way"))
    await caller.plain(lambda: _deleted(memory, other.skill_id))


async def _deleted(memory: Memory, skill_id: str) -> None:
    with suppress(NotFound):  # it was deleted, although its caller was cancelled
        await memory.skills.delete(skill_id)


@scenario()
async def handing_over(caller: Caller) -> None:
    memory = caller.memory
    for name in ("old", "long", "next"):
        caller.of(name).organised = True
    await caller.plain(lambda: memory.checkpoint("old", "why"))
    with caller.call():
        place = await memory.checkpoint("long", "why")
    with caller.call():
        handed = await memory.handoff(place.checkpoint_id)
    pack = msgspec.structs.replace(handed, task_description=task_of("next"))
    known = caller.of("next")
    await caller.plain(lambda: memory.continue_from(pack, episode_id="next"))
    known.start = Fate.STORED


@scenario()
async def conversations(caller: Caller) -> None:
    """Threads, their summaries and their clearing; each call may be repeated."""
    short_term = caller.memory.short_term
    call = {"id": "c", "name": "tool"}
    said = [Message(Role.SYSTEM, "be nice"), Message(Role.ASSISTANT, "", [call]), Message(Role.TOOL, "42" * 40)]
    await caller.plain(partial(short_term.append, "t", Message(Role.USER, "hi")))
    for _ in range(3):
        await caller.plain(partial(short_term.append_many, "t", said))
    await caller.plain(partial(short_term.load, "t", 20))
    await caller.plain(partial(short_term.summarise, "t", "hello", 1, 4))
    await caller.plain(partial(short_term.window, "t", 30, pin_system=True, with_summary=True))

    async def summariser(_messages: list[Message]) -> str:
        await trio.lowlevel.checkpoint()
        return "nothing was said"

    caller.of("old").organised = True
    summarize = partial(short_term.summarize_history, "t", summariser, trigger_token_budget=1, keep_recent_messages=1)
    await caller.plain(summarize)
    await caller.plain(partial(summarize, run="old", keep_recent_messages=0))
    await caller.plain(partial(short_term.append, "other", Message(Role.USER, "mine")))
    await caller.plain(partial(short_term.clear, "t"))
    await caller.plain(partial(short_term.append, "t", Message(Role.USER, "again")))
    await caller.plain(short_term.threads)
    await caller.plain(partial(short_term.clear, "never used"))


@scenario(mailbox_size=2, idle_seconds=1, max_live_episodes=3)
async def many_callers_of_one_thread(caller: Caller) -> None:
    """Tasks that append to it, commit to it and clear it, while it falls asleep in between."""
    caller.of("r").recorded = True
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(_converse, caller.beside(name))
        await caller.plain(partial(_commit_to_ports, caller.memory, "r"))
        await caller.plain(partial(caller.memory.short_term.clear, "t"))
    await trio.sleep(5)
    await caller.plain(partial(caller.memory.short_term.append, "t", Message(Role.USER, "awake")))
    await caller.plain(partial(caller.memory.short_term.load, "t", 5))


async def _converse(caller: Caller) -> None:
    for number in range(4):
        await caller.plain(partial(caller.memory.short_term.append, "t", Message(Role.USER, str(number))))


async def _commit_to_ports(memory: Memory, run: str) -> None:
    async with memory.atomic() as tx:
        tx.append("t", Message(Role.USER, "hi"))
        tx.record(run, run_events.ToolCall("t", {}, run_events.ToolOk()))


@scenario()
async def recording(caller: Caller) -> None:
    """Runs as events: with a start and without, ended and gone on, alone, in batches and in transactions."""
    episodic, memory = caller.memory.episodic, caller.memory
    called = run_events.ToolCall("search", {"q": 1}, run_events.ToolErr("no"))
    caller.of("done").organised = True
    for run in ("r", "whole", "new", "never"):
        caller.of(run).recorded = True
    await caller.plain(partial(episodic.record, "r", run_events.Started("agent")))
    await caller.plain(partial(episodic.record, "r", run_events.LlmCall(tokens=1, latency_ms=2)))
    await caller.plain(partial(episodic.record_many, "r", [called, run_events.Completed()]))
    await caller.plain(partial(episodic.record, "r", run_events.Ops({"late": True})))
    await caller.plain(partial(episodic.record_many, "whole", [run_events.LlmCall(1, 2), run_events.Failed("no")]))
    await caller.plain(partial(memory.handle("done").record, run_events.Ops(1), run_events.Ops(2)))
    await caller.plain(partial(_commit_to_ports, memory, "whole"))
    await caller.plain(partial(_commit_to_ports, memory, "new"))
    with pytest.raises(InvalidState):
        async with caller.entered(memory.atomic()) as transaction:
            transaction.record("never", run_events.Started("agent"))
            transaction.log_step("old", step(1), expected_seq=1)
    await caller.plain(partial(episodic.replay_many, ["r", "never", "old"]))
    await caller.plain(partial(episodic.replay, "r"))
    recorded = episodic.iter_replay("r")
    with caller.call(ready=True):
        await recorded.__anext__()
    await caller.plain(partial(episodic.list_runs, RunFilter(agent="age", limit=5)))
    await caller.plain(partial(episodic.usage, ["r"]))
    async with caller.entered(episodic.follow("r")) as found:
        for _ in range(4):
            with caller.call(ready=True):
                await found.receive()
        await caller.plain(found.aclose)


@scenario(medium_fails=True)
async def ports_on_a_medium_that_fails(caller: Caller) -> None:
    """Once; threads and runs go on from what the log holds."""
    memory = caller.memory
    caller.of("new").recorded = True
    await caller.plain(partial(memory.short_term.append, "t", Message(Role.USER, "hi")))
    await caller.plain(memory.flush)
    with _next_sync_fails():
        with pytest.raises(OutcomeUnknown):
            with caller.call():
                await memory.short_term.summarise("t", "hello", 1, 1)
    await caller.plain(partial(memory.short_term.load, "t", 5))
    with _next_sync_fails():
        await caller.plain(
            partial(memory.episodic.record_many, "new", [run_events.Started("a"), run_events.Completed()])
        )
        with pytest.raises(OutcomeUnknown):
            with caller.call():
                await memory.flush()
    await caller.plain(partial(memory.episodic.record, "new", run_events.Started("a")))
    await caller.plain(partial(memory.short_term.clear, "t"))


async def _expect(kind: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(kind):
        await call()


@scenario(idle_seconds=1, max_live_episodes=2)
async def facts(caller: Caller) -> None:
    """Scopes that are new, awake, asleep and cleared; each call may be repeated."""
    long_term, scope = caller.memory.long_term, Scope.workspace("team")
    with caller.call():
        known = await long_term.remember(scope, Fact("the sky is blue", {"n": 1}))
    many = [Fact(f"Ann: fact number {number}") for number in range(MORE_THAN_A_SLICE)]
    await caller.plain(partial(long_term.remember_many, scope, many))
    await caller.plain(partial(long_term.remember_many, scope, many[:3], deduplicate=True))
    await caller.plain(partial(long_term.search, scope, "sky", where={"n": 1}, fall_through=[Scope.GLOBAL]))
    await caller.plain(partial(long_term.recall, scope, "number", 3))
    await caller.plain(partial(long_term.get, known))
    await trio.sleep(2)
    with caller.call():
        grey = await long_term.remember(scope, Fact("the sky is grey"), supersedes=known)
    await caller.plain(partial(long_term.forget, grey))
    await caller.plain(partial(long_term.remember, Scope.GLOBAL, Fact("once"), deduplicate=True))
    await caller.plain(partial(long_term.facts, scope, 5))
    async with caller.entered(caller.memory.atomic()) as transaction:
        transaction.remember(scope, Fact("together"))
        transaction.remember(Scope.GLOBAL, Fact("with this"))
    await caller.plain(partial(long_term.clear, scope))
    await caller.plain(partial(long_term.remember, scope, Fact("again")))
    await caller.plain(partial(long_term.search, scope, "again"))
    await caller.plain(long_term.scopes)
