"""Calls of the ports for `test_checkpoints`: what they are, and what they raise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from trio.testing import assert_checkpoints

from stepwell import (
    InvalidInput,
    InvalidState,
    Memory,
    Message,
    Role,
    RunFilter,
    TooLarge,
    events,
)

HI = Message(Role.USER, "hi")
CALLED = events.ToolCall("search", {"q": 1}, events.ToolOk([1]))
BAD_EVENT = events.LlmCall(tokens=-1, latency_ms=0)


class PortCall(NamedTuple):
    """A call of a public function, by its name, and what it raises."""

    function: str
    make: Callable[[Memory], Awaitable[object]]
    raises: type[BaseException] | None = None


async def load(memory: Memory, **arguments: object) -> None:
    await memory.short_term.append_many("t", [Message(Role.SYSTEM, "be nice"), HI, HI])
    await memory.short_term.summarise("t", "hello", 1, 2)
    with assert_checkpoints():
        await memory.short_term.load("t", 2, **arguments)  # type: ignore[arg-type]


async def summarize(memory: Memory, *, run: str | None = None) -> None:
    await memory.short_term.append_many("t", [HI] * 5)

    async def summariser(_messages: list[Message]) -> str:
        return "hello"

    with assert_checkpoints():
        await memory.short_term.summarize_history(
            "t", summariser, trigger_token_budget=1, keep_recent_messages=1, run=run
        )


async def clear(memory: Memory) -> None:
    await memory.short_term.append("t", HI)
    with assert_checkpoints():
        await memory.short_term.clear("t")


async def commit(memory: Memory, run: str) -> None:
    async with memory.atomic() as tx:
        tx.append("t", HI)
        tx.record(run, CALLED)


async def first_of_run(memory: Memory, run: str = "e") -> None:
    async with memory.episodic.follow(run) as found:
        await found.receive()


async def drain(memory: Memory, run: str) -> None:
    async for _ in memory.episodic.iter_replay(run):
        pass


_APPEND, _LOAD, _RECORD = "ShortTermPort.append", "ShortTermPort.load", "EpisodicPort.record"
_MANY, _SUMMARIZE = "EpisodicPort.record_many", "ShortTermPort.summarize_history"

PORT_CALLS: dict[str, PortCall] = {
    "append": PortCall(_APPEND, lambda m: m.short_term.append("t", HI)),
    "append, bad message": PortCall(_APPEND, lambda m: m.short_term.append("t", "hi"), InvalidInput),  # type: ignore[arg-type]
    "append, bad thread": PortCall(_APPEND, lambda m: m.short_term.append("", HI), InvalidInput),
    "append_many": PortCall("ShortTermPort.append_many", lambda m: m.short_term.append_many("t", [HI, HI])),
    "append_many, none": PortCall(
        "ShortTermPort.append_many", lambda m: m.short_term.append_many("t", []), InvalidInput
    ),
    "load": PortCall(_LOAD, lambda m: m.short_term.load("t", 10)),
    "load, a window": PortCall(_LOAD, lambda m: load(m, pin_system=True, with_summary=True)),
    "load, oversize": PortCall(_LOAD, lambda m: _oversize(m), TooLarge),
    "load, bad budget": PortCall(_LOAD, lambda m: m.short_term.load("t", -1), InvalidInput),
    "window": PortCall("ShortTermPort.window", lambda m: m.short_term.window("t", 10)),
    "window, bad budget": PortCall("ShortTermPort.window", lambda m: m.short_term.window("t", -1), InvalidInput),
    "summarise, of nothing": PortCall(
        "ShortTermPort.summarise", lambda m: m.short_term.summarise("t", "x", 1, 1), InvalidInput
    ),
    "summarise, bad range": PortCall(
        "ShortTermPort.summarise", lambda m: m.short_term.summarise("t", "x", 2, 1), InvalidInput
    ),
    "summarise, a thread": PortCall("ShortTermPort.summarise", load),
    "summarize_history": PortCall(
        _SUMMARIZE,
        lambda m: m.short_term.summarize_history("t", str, trigger_token_budget=5),
    ),
    "summarize_history, a thread": PortCall(_SUMMARIZE, summarize),
    "summarize_history, with a run": PortCall(_SUMMARIZE, lambda m: summarize(m, run="r")),
    "summarize_history, bad budget": PortCall(
        _SUMMARIZE,
        lambda m: m.short_term.summarize_history("t", str, trigger_token_budget=-1),
        InvalidInput,
    ),
    "summarize_history, deleted": PortCall(_SUMMARIZE, lambda m: summarize(m, run="gone"), InvalidState),
    "clear": PortCall("ShortTermPort.clear", lambda m: m.short_term.clear("t")),
    "clear, a thread": PortCall("ShortTermPort.clear", clear),
    "clear, bad thread": PortCall("ShortTermPort.clear", lambda m: m.short_term.clear(""), InvalidInput),
    "threads": PortCall("ShortTermPort.threads", lambda m: m.short_term.threads()),
    "record": PortCall(_RECORD, lambda m: m.episodic.record("e", CALLED)),
    "record, a new run": PortCall(_RECORD, lambda m: m.episodic.record("r", events.Started("a"))),
    "record, without a start": PortCall(_RECORD, lambda m: m.episodic.record("r", CALLED)),
    "record, ending it": PortCall(_RECORD, lambda m: m.episodic.record("e", events.Completed())),
    "record, ended": PortCall(_RECORD, lambda m: m.episodic.record("ended", events.Failed("late"))),
    "record, bad event": PortCall(_RECORD, lambda m: m.episodic.record("e", BAD_EVENT), InvalidInput),
    "record, bad id": PortCall(_RECORD, lambda m: m.episodic.record("", CALLED), InvalidInput),
    "record, deleted": PortCall(_RECORD, lambda m: m.episodic.record("gone", CALLED), InvalidState),
    "record_many": PortCall(_MANY, lambda m: m.episodic.record_many("e", [CALLED, events.Completed()])),
    "record_many, a whole run": PortCall(
        _MANY, lambda m: m.episodic.record_many("r", [events.Started("a"), CALLED, events.Completed()])
    ),
    "record_many, none": PortCall(_MANY, lambda m: m.episodic.record_many("e", []), InvalidInput),
    "record_many, bad event": PortCall(_MANY, lambda m: m.episodic.record_many("e", [CALLED, BAD_EVENT]), InvalidInput),
    "handle.record": PortCall("EpisodeHandle.record", lambda m: m.handle("e").record(CALLED)),
    "handle.record, many": PortCall("EpisodeHandle.record", lambda m: m.handle("e").record(CALLED, CALLED)),
    "handle.record, none": PortCall("EpisodeHandle.record", lambda m: m.handle("e").record(), InvalidInput),
    "replay": PortCall("EpisodicPort.replay", lambda m: m.episodic.replay("e")),
    "replay, unknown": PortCall("EpisodicPort.replay", lambda m: m.episodic.replay("nope")),
    "replay, bad id": PortCall("EpisodicPort.replay", lambda m: m.episodic.replay(""), InvalidInput),
    "replay_many": PortCall("EpisodicPort.replay_many", lambda m: m.episodic.replay_many(["e", "nope"])),
    "replay_many, text": PortCall("EpisodicPort.replay_many", lambda m: m.episodic.replay_many("e"), InvalidInput),
    "iter_replay": PortCall("RunEvents.__anext__", lambda m: drain(m, "e")),
    "iter_replay, unknown": PortCall("RunEvents.__anext__", lambda m: drain(m, "nope")),
    "follow a run": PortCall("RunChannel.receive", lambda m: first_of_run(m)),
    "follow a run, entering": PortCall("RunFollowing.__aenter__", lambda m: m.episodic.follow("e").__aenter__()),
    "list_runs": PortCall("EpisodicPort.list_runs", lambda m: m.episodic.list_runs()),
    "list_runs, none": PortCall("EpisodicPort.list_runs", lambda m: m.episodic.list_runs(RunFilter(limit=0))),
    "list_runs, bad filter": PortCall(
        "EpisodicPort.list_runs", lambda m: m.episodic.list_runs(RunFilter(limit=-1)), InvalidInput
    ),
    "usage": PortCall("EpisodicPort.usage", lambda m: m.episodic.usage(["e"])),
    "usage, text": PortCall("EpisodicPort.usage", lambda m: m.episodic.usage("e"), InvalidInput),
    "atomic, a thread and a run": PortCall("AtomicScope.__aexit__", lambda m: commit(m, "e")),
    "atomic, a new run": PortCall("AtomicScope.__aexit__", lambda m: commit(m, "r")),
    "atomic, a deleted run": PortCall("AtomicScope.__aexit__", lambda m: commit(m, "gone"), InvalidState),
}


async def _oversize(memory: Memory) -> None:
    await memory.short_term.append("t", Message(Role.USER, "x" * 100))
    await memory.short_term.load("t", 10, oversize="raise")
