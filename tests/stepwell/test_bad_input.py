"""Bad input through the public interface: each its typed error, nothing stored, nothing changed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.log.files import OsFile, OsFileSystem
from stepwell import (
    Abstained,
    BatchConfig,
    Busy,
    Closed,
    EpisodeHandle,
    ExecutionStep,
    Failure,
    Interrupted,
    InvalidInput,
    InvalidState,
    Limits,
    LogLocked,
    Memory,
    MemoryConfig,
    NotFound,
    RecoveryFailed,
    Rejected,
    StepError,
    StepSuccess,
    StepwellError,
    Success,
    TaskContext,
    TooLarge,
    open_memory,
)
from stepwell.memory.opening import OpenMemory

SMALL = MemoryConfig(segment_bytes=64 * 1024, batch=BatchConfig.manual())
"""Small files to compare, and no timer: a step goes to the log only when a test waits for it."""
GOOD = ExecutionStep("grep", "look", {"pattern": "x"}, StepSuccess("found"), 5)
LONE = "\ud800"
HUGE = 10**5000


def contents(directory: pathlib.Path) -> dict[str, bytes | None]:
    """Every name below `directory` with its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if not path.name.startswith(
            ("catalog.sqlite", "retrieval.sqlite", "learning.sqlite")
        )  # they follow the log in the background
    }


def check_sentence(error: BaseException) -> str:
    """The message of an error is a sentence for people, and not the repr of something."""
    text = str(error)
    assert len(text.split()) >= 5, text
    assert text != repr(error.args[0])
    assert not text.endswith((":", ",")), text
    assert "object at 0x" not in text
    return text


@contextlib.asynccontextmanager
async def one_open_episode(directory: pathlib.Path) -> AsyncIterator[tuple[Memory, EpisodeHandle]]:
    """A memory that holds the ended episode "ended" and the open one "open", which has one durable step."""
    async with open_memory(directory, config=SMALL) as memory:
        ended = await memory.start_episode("Done before", episode_id="ended")
        await ended.complete(Success("works"))
        handle = await memory.start_episode("Fix it", episode_id="open", domain="ci", metadata={"n": 1})
        await (await handle.log_step(GOOD)).wait_durable()
        yield memory, handle


# ---- every bad argument ----------------------------------------------------------------------------------------------

Call = Callable[[Memory, EpisodeHandle], Awaitable[object]]
CASES: dict[str, tuple[Call, type[StepwellError], str]] = {}


def case(name: str, call: Call, error: type[StepwellError], beginning: str) -> None:
    assert name not in CASES
    CASES[name] = call, error, beginning


def start(name: str, error: type[StepwellError], beginning: str, *task: Any, **arguments: Any) -> None:
    case(
        f"start_episode: {name}",
        lambda memory, _: memory.start_episode(*(task or ("t",)), **arguments),
        error,
        beginning,
    )

    async def enter_scope(memory: Memory, _handle: EpisodeHandle) -> None:
        async with memory.episode(*(task or ("t",)), **arguments):
            raise AssertionError("the body must not run")

    case(f"episode: {name}", enter_scope, error, beginning)


start("task none", InvalidInput, "task: must be text, not None", None)
start("task number", InvalidInput, "task: must be text, not int", 5)
start("task empty", InvalidInput, "task: must not be empty", "")
start("task blank", InvalidInput, "task: must not be empty", " \n\t")
start("task with a lone surrogate", InvalidInput, "task: surrogates not allowed at character 3", f"Fix{LONE}")
start("task over-long", TooLarge, "task: 10,001 bytes exceed the limit of 10,000", "x" * 10_001)
start("task over-long in multibyte text", TooLarge, "task: 10,002 bytes exceed the limit of 10,000", "漢" * 3334)
start("task_type empty", InvalidInput, "task_type: must not be empty", task_type="")
start("agent number", InvalidInput, "agent: must be text, not int", agent=7)
start("context a dict", InvalidInput, "context: must be a TaskContext, not dict", context={"domain": "ci"})
start("context field wrong", InvalidInput, "context.language: must be text", context=TaskContext(language=3))  # type: ignore[arg-type]
start("keyword unknown", InvalidInput, "langauge: not an argument of an episode", langauge="python")
start("complexity unknown", InvalidInput, "context.complexity: must be one of simple", complexity="hard")
start("tags a text", InvalidInput, "context.tags: must be a list of texts, not str", tags="ci")
start("tag blank", InvalidInput, "context.tags[1]: a tag must not be empty", tags=["ci", "  "])
start("tag with a control character", InvalidInput, "context.tags[0]: a tag must not", tags=["a\nb"])
start("tag over-long", TooLarge, "context.tags[0]: 102 bytes exceed", tags=["é" * 51])
start("metadata a list", InvalidInput, "metadata: must be a dict with text keys, not list", metadata=[])
start("metadata with NaN", InvalidInput, "metadata.a[0]: nan is not a JSON number", metadata={"a": [math.nan]})
start("metadata with a number for a key", InvalidInput, "metadata: the key 1 is int", metadata={1: 1})
start("metadata with a lone surrogate", InvalidInput, "metadata.a: surrogates not", metadata={"a": LONE})
start("metadata beyond a record", TooLarge, "episode: 16,", metadata={"a": "x" * (16 * 1024 * 1024)})
start("id empty", InvalidInput, "episode_id: an id must not be empty", episode_id="")
start("id a number", InvalidInput, "episode_id: an id is text, not int", episode_id=5)
start("id with NUL", InvalidInput, "episode_id: an id must not be text with NUL", episode_id="a\0b")
start("id over-long", TooLarge, "episode_id: 201 bytes exceed the 200", episode_id="x" * 201)
start("id with a lone surrogate", InvalidInput, "episode_id: surrogates not allowed", episode_id=LONE)
start(
    "id taken by another task",
    InvalidState,
    "episode 'open' exists and was started with another task",
    episode_id="open",
)
start("parent empty", InvalidInput, "parent: an id must not be empty", parent="")
start("thread a number", InvalidInput, "thread: an id is text, not int", thread=5)


def step(name: str, error: type[StepwellError], beginning: str, bad: Any) -> None:
    async def nowait(_memory: Memory, handle: EpisodeHandle) -> object:
        return handle.log_step_nowait(bad)

    case(f"log_step: {name}", lambda _, handle: handle.log_step(bad), error, beginning)
    case(f"log_step_nowait: {name}", nowait, error, beginning)
    case(f"log_steps: {name}", lambda _, handle: handle.log_steps([GOOD, bad]), error, f"steps[1]: {beginning}")


def made(**fields: Any) -> ExecutionStep:
    defaults: dict[str, Any] = {"tool": "grep"}
    return ExecutionStep(**(defaults | fields))


LOOPED: dict[str, Any] = {}
LOOPED["again"] = LOOPED
DEEP: Any = {"v": 1}
for _ in range(32):
    DEEP = {"v": DEEP}

step("none", InvalidInput, "step: must be an ExecutionStep, not NoneType", None)
step("dict", InvalidInput, "step: must be an ExecutionStep, not dict", {"tool": "grep"})
step("tool blank", InvalidInput, "step.tool: must not be empty", made(tool=" "))
step("tool number", InvalidInput, "step.tool: must be text, not int", made(tool=5))
step("action over-long", TooLarge, "step.action: 1,048,577 bytes exceed", made(action="x" * (1024 * 1024 + 1)))
step("thought over-long in multibyte text", TooLarge, "step.thought: 1,048,578", made(thought="漢" * 349_526))
step("NaN deep inside", InvalidInput, "step.parameters.a[1].b: nan", made(parameters={"a": [1, {"b": math.nan}]}))
step("infinity", InvalidInput, "step.metadata.a: inf is not", made(metadata={"a": math.inf}))
step("key no text", InvalidInput, "step.parameters.a: the key 5 is int", made(parameters={"a": {5: 1}}))
step("bytes", InvalidInput, "step.parameters.a: bytes are not JSON", made(parameters={"a": b"raw"}))
step("bytes as output", InvalidInput, "step.result.output: bytes are not", made(result=StepSuccess(b"raw")))
step("33 levels", InvalidInput, f"step.parameters{'.v' * 32}: nested deeper", made(parameters=DEEP))
step("cycle", InvalidInput, f"step.parameters{'.again' * 32}: nested deeper", made(parameters=LOOPED))
step("lone surrogate", InvalidInput, "step.result.message: surrogates", made(result=StepError(LONE)))
step("lone surrogate in a key", InvalidInput, "step.parameters (a key): surr", made(parameters={LONE: 1}))
step("huge integer", InvalidInput, "step.parameters.a: an integer of", made(parameters={"a": 1 << 70_000}))
step("huge count", InvalidInput, "step.tokens_used: <int> does not fit", made(tokens_used=HUGE))
step("bool as number", InvalidInput, "step.latency_ms: must be a number, not bool", made(latency_ms=True))
step("negative latency", InvalidInput, "step.latency_ms: -1 is below 0", made(latency_ms=-1))
step("reward NaN", InvalidInput, "step.reward: nan is not a number", made(reward=math.nan))
step("result no result", InvalidInput, "step.result: must be StepSuccess", made(result="ok"))
step("key blank", InvalidInput, "step.key: must not be empty", made(key=""))
step("key over-long", TooLarge, "step.key: 201 bytes exceed", made(key="x" * 201))
step("beyond a record", TooLarge, "step: 16,", made(parameters={"a": "x" * (16 * 1024 * 1024)}))

case("log_steps: nothing", lambda _, h: h.log_steps([]), InvalidInput, "steps: must hold at least one step")
case("log_steps: a step", lambda _, h: h.log_steps(GOOD), InvalidInput, "steps: must be a list of ExecutionStep")  # type: ignore[arg-type]
case(
    "log_steps: a generator",
    lambda _, h: h.log_steps(GOOD for _ in range(2)),  # type: ignore[arg-type]
    InvalidInput,
    "steps: must be a list of ExecutionStep, not generator",
)
case(
    "log_steps: one key twice",
    lambda _, h: h.log_steps([made(key="k"), made(key="k")]),
    InvalidInput,
    "steps: the same key stands at two of them",
)
case(
    "log_steps: too much in one batch",
    lambda _, h: h.log_steps([made(parameters={"a": "x" * (9 * 1024 * 1024)})] * 2),
    TooLarge,
    "steps: 18,",
)


def ending(name: str, error: type[StepwellError], beginning: str, outcome: Any, **arguments: Any) -> None:
    case(f"complete: {name}", lambda _, handle: handle.complete(outcome, **arguments), error, beginning)


ending("none", InvalidInput, "outcome: must be one of Success", None)
ending("text", InvalidInput, "outcome: must be one of Success", "success")
ending("class", InvalidInput, "outcome: must be one of Success", Success)
ending("verdict number", InvalidInput, "outcome.verdict: must be text, not int", Success(5))  # type: ignore[arg-type]
ending("artifacts text", InvalidInput, "outcome.artifacts: must be a list of texts", Success("", "a"))  # type: ignore[arg-type]
ending("step negative", InvalidInput, "outcome.stopped_at_step: -1 is below 0", Abstained("x", -1))
ending("reason over-long", TooLarge, "outcome.reason: 1,048,577 bytes exceed", Failure("x" * (1024 * 1024 + 1)))
ending("lone surrogate", InvalidInput, "outcome.verdict: surrogates not allowed", Success(LONE))
ending("metadata a list", InvalidInput, "metadata: must be a dict with text keys", Success(), metadata=[])
ending("metadata with bytes", InvalidInput, "metadata.a: bytes are not JSON", Success(), metadata={"a": b""})
ending("metadata with a lone surrogate", InvalidInput, "metadata.a: surrogates", Success(), metadata={"a": LONE})
ending("metadata beyond a record", TooLarge, "outcome: 16,", Success(), metadata={"a": "x" * (16 * 1024 * 1024)})
case("abandon: reason number", lambda m, _: m.abandon("open", 5), InvalidInput, "outcome.reason: must be text, not int")  # type: ignore[arg-type]
case("abandon: id empty", lambda m, _: m.abandon(""), InvalidInput, "episode_id: an id must not be empty")
case("resume: id bytes", lambda m, _: m.resume(b"open"), InvalidInput, "episode_id: an id is text, not bytes")  # type: ignore[arg-type]
case("resume: ended", lambda m, _: m.resume("ended"), InvalidState, "episode 'ended' has ended and takes no more steps")
case(
    "abandon: ended",
    lambda m, _: m.abandon("ended"),
    InvalidState,
    "episode 'ended' ends with another outcome: Success",
)
case(
    "complete: ended with another outcome",
    lambda m, _: m.complete_episode("ended", Failure("no")),
    InvalidState,
    "episode 'ended' ends with another outcome: Success",
)
case("log_step: ended", lambda m, _: m.log_step("ended", GOOD), InvalidState, "episode 'ended' has ended and takes no")
case("log_steps: ended", lambda m, _: m.log_steps("ended", [GOOD]), InvalidState, "episode 'ended' has ended and takes")
case("log_step: id number", lambda m, _: m.log_step(5, GOOD), InvalidInput, "episode_id: an id is text, not int")  # type: ignore[arg-type]
case("log_step: id surrogate", lambda m, _: m.log_step(LONE, GOOD), InvalidInput, "episode_id: surrogates not allowed")
case("log_steps: id none", lambda m, _: m.log_steps(None, [GOOD]), InvalidInput, "episode_id: an id is text")  # type: ignore[arg-type]
case("flush_steps: id empty", lambda m, _: m.flush_steps(""), InvalidInput, "episode_id: an id must not be empty")
case("get_episode: id NUL", lambda m, _: m.get_episode("\0"), InvalidInput, "episode_id: an id must not be text with")


def plain(name: str, error: type[StepwellError], beginning: str, call: Callable[[Memory], object]) -> None:
    async def do(memory: Memory, _handle: EpisodeHandle) -> object:
        return call(memory)

    case(name, do, error, beginning)


plain("handle: number", InvalidInput, "episode_id: an id is text, not int", lambda m: m.handle(5))  # type: ignore[arg-type]
plain("handle: empty", InvalidInput, "episode_id: an id must not be empty", lambda m: m.handle(""))
plain("handle: over-long", TooLarge, "episode_id: 202 bytes exceed the 200", lambda m: m.handle("é" * 101))
plain("events: id none", InvalidInput, "episode_id: an id is text", lambda m: m.events(None))  # type: ignore[arg-type]
plain("events: after negative", InvalidInput, "after: -1 is below 0", lambda m: m.events("open", after=-1))
plain("events: after float", InvalidInput, "after: must be a whole number", lambda m: m.events("open", after=1.0))  # type: ignore[arg-type]
plain("events: after bool", InvalidInput, "after: must be a whole number", lambda m: m.events("open", after=True))
plain("events: after text", InvalidInput, "after: must be a whole number", lambda m: m.events("open", after="1"))  # type: ignore[arg-type]
plain("events: after huge", InvalidInput, "after: <int> does not fit", lambda m: m.events("open", after=HUGE))


def unknown(name: str, call: Call) -> None:
    case(f"{name}: unknown episode", call, NotFound, "there is no episode 'nowhere' in this memory")


unknown("log_step", lambda m, _: m.log_step("nowhere", GOOD))
unknown("log_steps", lambda m, _: m.log_steps("nowhere", [GOOD]))
unknown("complete", lambda m, _: m.complete_episode("nowhere", Success()))
unknown("resume", lambda m, _: m.resume("nowhere"))
unknown("abandon", lambda m, _: m.abandon("nowhere", "gone"))
unknown("get_episode", lambda m, _: m.get_episode("nowhere"))
unknown("get_episodes", lambda m, _: m.get_episodes(["open", "nowhere"]))
unknown("events", lambda m, _: anext(m.events("nowhere")))
unknown("flush_steps", lambda m, _: m.flush_steps("nowhere"))
unknown("handle", lambda m, _: m.handle("nowhere").log_step(GOOD))


FAMILIES = sorted({name.partition(":")[0] for name in CASES})


@pytest.mark.parametrize("family", FAMILIES)
async def test_bad_input_is_refused_by_name_and_changes_nothing(family: str, tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path / "memory") as (memory, handle):
        seqs = [2]
        for name, (call, expected, beginning) in CASES.items():
            if not name.startswith(f"{family}:"):
                continue
            before = contents(tmp_path)
            try:
                with pytest.raises(expected) as refused:
                    await call(memory, handle)
                assert type(refused.value) is expected
                assert check_sentence(refused.value).startswith(beginning), str(refused.value)
                await trio.testing.wait_all_tasks_blocked()
                assert contents(tmp_path) == before
                receipt = await handle.log_step(GOOD)
                seqs.append(receipt.seq)
                assert receipt.seq == len(seqs) + 1
                await receipt.wait_durable()
            except BaseException as error:
                error.add_note(f"in the case {name!r}")
                raise
        assert len(seqs) > 1
        assert [item.seq for item in (await handle.get()).steps] == seqs == list(range(2, len(seqs) + 2))
        assert [episode_id async for episode_id in memory.episode_ids()] == ["ended", "open"]
        assert (await memory.get_episode("ended")).outcome == Success("works")
    async with open_memory(tmp_path / "memory", config=SMALL) as memory:
        assert [item.seq for item in (await memory.get_episode("open")).steps] == seqs


async def test_not_found_is_a_key_error_that_prints_a_sentence() -> None:
    async with open_memory(":memory:") as memory:
        try:
            await memory.get_episode("nowhere")
        except KeyError as error:
            assert isinstance(error, NotFound)
            assert str(error) == "there is no episode 'nowhere' in this memory; `stepwell list` shows those there are"
            assert not isinstance(error, Rejected)
        else:
            raise AssertionError("no error")


async def test_a_key_used_for_another_step_is_an_invalid_state_and_leaves_no_gap(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path) as (_memory, handle):
        first = await handle.log_step(made(key="k", action="one"))
        with pytest.raises(InvalidState, match=r"^step\.key: 'k' was used for another step \(seq 3\) of 'open'"):
            await handle.log_step(made(key="k", action="two"))
        assert await handle.log_step(made(key="k", action="one")) == first
        assert (await handle.log_step(GOOD)).seq == 4


async def test_one_step_more_than_an_episode_may_have_is_too_large(tmp_path: pathlib.Path) -> None:
    config = MemoryConfig(segment_bytes=64 * 1024, limits=Limits(steps_per_episode=3))
    async with open_memory(tmp_path, config=config) as memory:
        handle = await memory.start_episode("Fix it")
        await handle.log_steps([GOOD, GOOD])
        with pytest.raises(TooLarge, match="2 more steps would make 4; an episode may have 3"):
            await handle.log_steps([GOOD, GOOD])
        assert (await handle.log_step(GOOD)).seq == 4
        with pytest.raises(TooLarge, match="has 3 steps, the most an episode may have"):
            await handle.log_step(GOOD)
        await handle.complete(Success())


async def test_log_step_nowait_says_busy_where_it_would_have_to_wait(tmp_path: pathlib.Path) -> None:
    config = MemoryConfig(segment_bytes=64 * 1024, mailbox_size=2, batch=BatchConfig.manual())
    async with open_memory(tmp_path, config=config) as memory:
        handle = await memory.start_episode("Fix it")
        assert [handle.log_step_nowait(GOOD).seq for _ in range(2)] == [2, 3]
        with pytest.raises(Busy) as refused:
            handle.log_step_nowait(GOOD)
        assert isinstance(refused.value, Rejected)
        assert "use log_step, which waits for room" in check_sentence(refused.value)
        assert (await handle.log_step(GOOD)).seq == 4


async def test_a_bad_ending_set_in_a_run_scope_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    async with open_memory(tmp_path, config=SMALL) as memory:
        async with memory.episode("Fix it", episode_id="run") as episode:
            with pytest.raises(InvalidInput, match=r"^outcome\.verdict: must be text, not int"):
                episode.succeed(5)  # type: ignore[arg-type]
            with pytest.raises(InvalidInput, match=r"^outcome\.stopped_at_step: -1 is below 0"):
                episode.abstain("x", -1)
        assert (await memory.get_episode("run")).outcome == Success("")


# ---- a closed memory -------------------------------------------------------------------------------------------------


async def test_a_closed_memory_takes_nothing_and_says_so(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path) as (memory, handle):
        pass

    async def nowait() -> object:
        return handle.log_step_nowait(GOOD)

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "log_step": lambda: handle.log_step(GOOD),
        "log_steps": lambda: handle.log_steps([GOOD]),
        "log_step_nowait": nowait,
        "start_episode": lambda: memory.start_episode("Too late"),
        "complete": lambda: handle.complete(Success()),
        "resume": lambda: memory.resume("open"),
        "abandon": lambda: memory.abandon("open"),
        "get_episode": lambda: memory.get_episode("open"),
        "events": lambda: anext(memory.events("open")),
    }
    before = contents(tmp_path)
    for name, call in calls.items():
        with pytest.raises(Closed) as refused:
            await call()
        assert "open it again" in check_sentence(refused.value), name
        assert isinstance(refused.value, Rejected)
    assert contents(tmp_path) == before
    async with open_memory(tmp_path, config=SMALL) as memory:
        assert [step.seq for step in (await memory.get_episode("open")).steps] == [2]
        assert (await memory.log_step("open", GOOD)).seq == 3


async def test_a_memory_opened_for_reading_takes_nothing_and_says_so(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path):
        pass
    before = contents(tmp_path)
    async with open_memory(tmp_path, read_only=True) as memory:
        assert [step.seq for step in (await memory.get_episode("open")).steps] == [2]
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: memory.log_step("open", GOOD),
            lambda: memory.log_steps("open", [GOOD]),
            lambda: memory.start_episode("Another"),
            lambda: memory.complete_episode("open", Success()),
            lambda: memory.abandon("open"),
        ]
        for call in calls:
            with pytest.raises(Closed) as refused:
                await call()
            assert "read_only=True" in check_sentence(refused.value)
    assert contents(tmp_path) == before


# ---- settings --------------------------------------------------------------------------------------------------------

SETTINGS: list[tuple[type, dict[str, Any], str]] = [
    (
        MemoryConfig,
        {"durablity": "commit"},
        "MemoryConfig: there is no setting 'durablity'; did you mean 'durability'?",
    ),
    (
        MemoryConfig,
        {"segment_byte": 1},
        "MemoryConfig: there is no setting 'segment_byte'; did you mean 'segment_bytes'?",
    ),
    (MemoryConfig, {"xyzzy": 1}, "MemoryConfig: there is no setting 'xyzzy'; it has durability, batch, "),
    (
        BatchConfig,
        {"max_batchsize": 5},
        "BatchConfig: there is no setting 'max_batchsize'; did you mean 'max_batch_size'?",
    ),
    (BatchConfig, {"autoflush": True}, "BatchConfig: there is no setting 'autoflush'; did you mean 'auto_flush'?"),
    (MemoryConfig, {"durability": "always"}, "durability: must be one of 'receipt', 'commit', not 'always'"),
    (MemoryConfig, {"durability": None}, "durability: must be one of 'receipt', 'commit', not None"),
    (MemoryConfig, {"tail": "loose"}, "tail: must be one of 'strict', 'cut', not 'loose'"),
    (MemoryConfig, {"on_failure": "ignore"}, "on_failure: must be one of 'raise', 'cancel', not 'ignore'"),
    (MemoryConfig, {"align": 513}, "align: must be one of 0, 512, 4096, not 513"),
    (MemoryConfig, {"align": False}, "align: must be one of 0, 512, 4096, not False"),
    (MemoryConfig, {"batch": {"max_batch_size": 5}}, "batch: must be a BatchConfig, not {'max_batch_size': 5}"),
    (MemoryConfig, {"limits": None}, "limits: must be a Limits, not None"),
    (MemoryConfig, {"mailbox_size": 0}, "mailbox_size: 0 is below 1"),
    (MemoryConfig, {"mailbox_size": True}, "mailbox_size: must be a whole number, not bool"),
    (MemoryConfig, {"mailbox_size": math.inf}, "mailbox_size: must be a whole number, not float"),
    (MemoryConfig, {"keys_kept": -1}, "keys_kept: -1 is below 0"),
    (MemoryConfig, {"keys_kept": "all"}, "keys_kept: must be a whole number, not str"),
    (MemoryConfig, {"segment_bytes": 1024}, "segment_bytes: 1024 is below 65536"),
    (MemoryConfig, {"grace_seconds": -1}, "grace_seconds: -1 is below 0"),
    (MemoryConfig, {"grace_seconds": math.nan}, "grace_seconds: nan is not a number that can be stored"),
    (MemoryConfig, {"grace_seconds": "5"}, "grace_seconds: must be a number, not str"),
    (BatchConfig, {"max_batch_size": 0}, "max_batch_size: 0 is below 1"),
    (BatchConfig, {"max_batch_size": 5.0}, "max_batch_size: must be a whole number, not 5.0"),
    (BatchConfig, {"max_batch_size": True}, "max_batch_size: must be a whole number, not True"),
    (BatchConfig, {"flush_interval_ms": -1}, "flush_interval_ms: -1 is below 0"),
    (BatchConfig, {"flush_interval_ms": math.inf}, "flush_interval_ms: inf is not a number that can be stored"),
    (BatchConfig, {"flush_interval_ms": None}, "flush_interval_ms: must be a number, not None"),
    (BatchConfig, {"auto_flush": 1}, "auto_flush: must be True or False, not 1"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), SETTINGS, ids=[message[:50] for _, _, message in SETTINGS])
def test_a_bad_setting_is_refused_by_name(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        kind(**settings)
    assert type(refused.value) is InvalidInput
    assert check_sentence(refused.value).startswith(message)


@pytest.mark.parametrize("kind", [MemoryConfig, BatchConfig])
def test_settings_are_given_by_name_and_stay_as_they_are(kind: type) -> None:
    with pytest.raises(InvalidInput, match="settings are given by name"):
        kind(50)
    made = kind()
    with pytest.raises(AttributeError):
        made.batch = None


def test_the_presets_are_those_of_the_interface() -> None:
    presets = (BatchConfig(), BatchConfig.high_frequency(), BatchConfig.low_frequency(), BatchConfig.manual())
    assert [(one.max_batch_size, one.flush_interval_ms) for one in presets[:3]] == [(50, 50), (20, 2000), (100, 10000)]
    assert [one.auto_flush for one in presets] == [True, True, True, False]


# ---- where the memory is ---------------------------------------------------------------------------------------------

PATHS: list[tuple[Any, str]] = [
    (None, "path: must be text or a path, not NoneType"),
    (5, "path: must be text or a path, not int"),
    (b"memory", "path: must be text or a path, not bytes"),
    (["memory"], "path: must be text or a path, not list"),
    ("", "path: must name a directory as text"),
    ("a\0b", "path: must name a directory as text"),
]


@pytest.mark.parametrize(("path", "message"), PATHS)
async def test_what_is_no_path_is_refused(
    path: Any, message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput) as refused:
        async with open_memory(path):
            raise AssertionError("the body must not run")
    assert str(refused.value) == message
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("config", [{}, "receipt", BatchConfig(), MemoryConfig, 5], ids=str)
async def test_what_is_no_config_is_refused_and_nothing_is_created(config: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InvalidInput, match=r"^config: must be a MemoryConfig, not "):
        async with open_memory(tmp_path / "memory", config=config):
            raise AssertionError("the body must not run")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("below", ["", "memory", "a/b/c"])
async def test_a_path_that_is_a_file_or_leads_through_one_is_invalid(
    below: str, read_only: bool, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with pytest.raises(InvalidInput) as refused:
        async with open_memory(tmp_path / "notes.txt" / below, read_only=read_only):
            raise AssertionError("the body must not run")
    assert "is a file" in check_sentence(refused.value)
    assert "Name another place." in str(refused.value)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "inside",
    [
        {"notes.txt": b"mine"},
        {".git": None, "README.md": b"# mine"},
        {"LOCK": b"held by another program"},
        {"memory.sqlite": b"SQLite format 3\0"},
        {"one": b"", "two": b"", "three": b"", "four": b""},
    ],
    ids=lambda inside: " ".join(inside),
)
async def test_a_directory_of_something_else_is_invalid_and_nothing_is_created(
    inside: dict[str, bytes | None], read_only: bool, tmp_path: pathlib.Path
) -> None:
    for name, content in inside.items():
        if content is None:
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        async with open_memory(tmp_path, read_only=read_only):
            raise AssertionError("the body must not run")
    assert "is a directory of something else (it holds " in check_sentence(refused.value)
    assert "Name an empty or a new directory; nothing was created." in str(refused.value)
    assert contents(tmp_path) == inside


async def test_reading_where_there_is_no_memory_is_not_found_and_creates_nothing(tmp_path: pathlib.Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NotFound) as refused:
            async with open_memory(path, read_only=True):
                raise AssertionError("the body must not run")
        assert "open it for writing once to create one" in check_sentence(refused.value)
        assert isinstance(refused.value, KeyError)
    assert contents(tmp_path) == {}


async def test_a_log_of_a_newer_format_is_not_touched(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path):
        pass
    line = (tmp_path / "FORMAT").read_bytes()
    (tmp_path / "FORMAT").write_bytes(line.replace(b"log v1", b"log v2"))
    before = contents(tmp_path)
    with pytest.raises(RecoveryFailed) as refused:
        async with open_memory(tmp_path):
            raise AssertionError("the body must not run")
    assert "open it with a newer Stepwell" in check_sentence(refused.value)
    assert contents(tmp_path) == before


class WithoutPermission(OsFileSystem):
    """A file system on which this process may not change anything, or not even look.

    The tests may run as root, whom permissions do not hold back; so the errors are made here.
    """

    def __init__(self, number: int, *, readable: bool = True):
        self.number, self.readable = number, readable

    def refuse(self, path: str) -> OSError:
        return OSError(self.number, os.strerror(self.number), path)

    def open(self, path: str, *, create: bool = False, write: bool = True) -> OsFile:
        if create and os.path.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if create or write or not self.readable:
            raise self.refuse(path)
        return super().open(path, write=False)

    def list_names(self, path: str) -> list[str]:
        if not self.readable:
            raise self.refuse(path)
        return super().list_names(path)

    def make_directory(self, path: str) -> None:
        raise self.refuse(path)

    def rename(self, source: str, target: str) -> None:
        raise self.refuse(target)

    def unlink(self, path: str) -> None:
        raise self.refuse(path)


@pytest.mark.parametrize("readable", [True, False], ids=["readable", "not even readable"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
@pytest.mark.parametrize("state", ["absent", "empty", "a memory"])
async def test_a_read_only_directory_is_a_failed_recovery_with_its_errno_and_changes_nothing(
    state: str, number: int, readable: bool, tmp_path: pathlib.Path
) -> None:
    directory = tmp_path / "memory"
    if state == "empty":
        directory.mkdir()
    elif state == "a memory":
        async with one_open_episode(directory):
            pass
    before = contents(tmp_path)
    with pytest.raises(RecoveryFailed) as refused:
        async with OpenMemory(directory, SMALL, False, WithoutPermission(number, readable=readable)):
            raise AssertionError("the body must not run")
    error = refused.value
    assert error.errno == number
    assert isinstance(error.__cause__, OSError)
    assert os.strerror(number) in check_sentence(error)
    assert "Nothing was changed; mend the cause and open again." in str(error)
    assert str(directory) in str(error)
    assert contents(tmp_path) == before
    async with open_memory(directory, config=SMALL) as memory:  # the lock was given back
        assert [episode.episode_id for episode in await memory.open_episodes()] == (
            ["open"] if state == "a memory" else []
        )


async def test_a_memory_on_a_read_only_medium_can_still_be_read(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path):
        pass
    async with OpenMemory(tmp_path, None, True, WithoutPermission(errno.EROFS)) as memory:
        assert len((await memory.get_episode("open")).steps) == 1


# ---- a second opener -------------------------------------------------------------------------------------------------


async def test_a_second_opener_in_the_same_process_is_told_who_has_the_memory(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path) as (_memory, handle):
        before = contents(tmp_path)
        caught = None
        try:
            async with open_memory(tmp_path):
                raise AssertionError("the body must not run")
        except LogLocked as error:
            caught = error
        assert caught is not None
        assert (caught.pid, caught.host) == (os.getpid(), socket.gethostname())
        assert caught.since is not None
        assert caught.since.startswith("20")
        assert caught.since.endswith("+00:00")
        assert f"is open for writing in process {os.getpid()} on {socket.gethostname()} since " in check_sentence(
            caught
        )
        assert "Close it there, or open with read_only=True." in str(caught)
        assert contents(tmp_path) == before
        async with open_memory(tmp_path, read_only=True) as reader:
            assert len((await reader.get_episode("open")).steps) == 1
        assert (await handle.log_step(GOOD)).seq == 3
    async with open_memory(tmp_path):
        pass


CHILD = """
import json, sys, trio
from stepwell import LogLocked, open_memory

async def main():
    try:
        async with open_memory(sys.argv[1]) as memory:
            await memory.start_episode("Held by the child", episode_id="child")
            print(json.dumps("open"), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
    except LogLocked as error:
        print(json.dumps([str(error), error.pid, error.host, error.since]), flush=True)

trio.run(main)
"""


def child(directory: pathlib.Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def test_a_second_opener_in_another_process_is_told_who_has_the_memory(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path):
        before = contents(tmp_path)
        answer, _ = await trio.to_thread.run_sync(child(tmp_path).communicate, "\n")
        message, pid, host, since = json.loads(answer)
        assert (pid, host) == (os.getpid(), socket.gethostname())
        assert since.endswith("+00:00")
        assert f"process {os.getpid()} on {host} since {since}" in message
        after = contents(tmp_path)
        assert after.keys() == before.keys()
        for name, content in before.items():
            now = after[name]
            if name.endswith(".seg"):  # who has it marks the end of its log after a second without writing
                assert content is not None
                assert now is not None
                assert now.startswith(content.rstrip(b"\0"))
            else:
                assert now == content


async def test_the_memory_of_another_process_is_locked_until_that_process_ends(tmp_path: pathlib.Path) -> None:
    with child(tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert json.loads(await trio.to_thread.run_sync(holder.stdout.readline)) == "open"
        try:
            async with open_memory(tmp_path):
                raise AssertionError("the body must not run")
        except LogLocked as error:
            assert error.pid == holder.pid
        else:
            raise AssertionError("no error")
        finally:
            holder.kill()
        await trio.to_thread.run_sync(holder.wait)
    async with open_memory(tmp_path) as memory:
        assert [episode.episode_id for episode in await memory.open_episodes()] == ["child"]


# ---- what the body raises --------------------------------------------------------------------------------------------


async def test_a_key_error_of_the_body_is_caught_by_a_plain_except(tmp_path: pathlib.Path) -> None:
    raised = KeyError("mine")
    try:
        async with open_memory(tmp_path, config=SMALL) as memory:
            handle = await memory.start_episode("Fix it", episode_id="e")
            await handle.log_step(GOOD)
            raise raised
    except KeyError as error:
        assert error is raised
        assert error.args == ("mine",)
        assert not getattr(error, "__notes__", [])
    else:
        raise AssertionError("no error")
    async with open_memory(tmp_path, config=SMALL) as memory:
        assert len((await memory.get_episode("e")).steps) == 1


async def test_a_key_error_of_a_run_is_caught_by_a_plain_except_and_ends_it_as_a_failure(
    tmp_path: pathlib.Path,
) -> None:
    raised = KeyError("mine")
    async with open_memory(tmp_path, config=SMALL) as memory:
        try:
            async with memory.episode("Fix it", episode_id="e") as episode:
                await episode.log_step(GOOD)
                episode.succeed("not so")
                raise raised
        except KeyError as error:
            assert error is raised
            assert not getattr(error, "__notes__", [])
        else:
            raise AssertionError("no error")
        assert (await memory.get_episode("e")).outcome == Failure("KeyError: 'mine'")


async def test_an_error_of_the_memory_itself_leaves_the_body_bare(tmp_path: pathlib.Path) -> None:
    try:
        async with open_memory(tmp_path, config=SMALL) as memory:
            await memory.get_episode("nowhere")
    except NotFound as error:
        assert str(error) == "there is no episode 'nowhere' in this memory; `stepwell list` shows those there are"
    else:
        raise AssertionError("no error")


async def test_an_interrupted_outcome_may_be_given_by_hand_like_any_other(tmp_path: pathlib.Path) -> None:
    async with one_open_episode(tmp_path) as (_memory, handle):
        done = await handle.complete(Interrupted("pulled the plug", cause="abandoned"))
        assert (done.reward, done.reflection) == (None, None)
