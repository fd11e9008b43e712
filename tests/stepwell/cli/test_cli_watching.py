"""`stepwell tail` and `stepwell replay`: events as they came, and as they come."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from stepstore.journal import SegmentLogJournal
from stepwell import (
    START,
    Event,
    ExecutionStep,
    Fact,
    Failure,
    Message,
    Role,
    Scope,
    StepError,
    StepSuccess,
    Success,
    events,
    open_memory,
)
from stepwell.cli import watching
from stepwell.cli.replaying import play
from tests.stepwell.cli.cli_support import child_environment, run


async def fill(directory: Path) -> None:
    async with open_memory(directory) as memory:
        for name in ("first", "second"):
            handle = await memory.start_episode(f"the {name} task", episode_id=name)
            for number in range(10):
                result = StepError("no") if number == 4 else StepSuccess(number)
                await handle.log_step(ExecutionStep("tool", f"{name} step {number}", result=result))
            await handle.flush()
            await handle.complete(Success("done") if name == "first" else Failure("broken"))
        await memory.add_tags("first", ["late"])


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("watched") / "memory"
    trio.run(fill, directory)
    return directory


def lines_of(*arguments: str | Path) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_tail_gives_the_newest_in_the_order_of_the_log(memory_at: Path) -> None:
    told = lines_of("tail", "-n", "4", "--dir", memory_at)
    assert [event["lsn"] for event in told] == [22, 23, 24, 25]
    assert [event["kind"] for event in told] == ["step", "step", "ended", "tagged"]
    assert [event["episode_id"] for event in told] == ["second", "second", "second", "first"]
    assert len(lines_of("tail", "--dir", memory_at)) == 20
    assert lines_of("tail", "-n", "0", "--dir", memory_at) == []
    assert len(lines_of("tail", "-n", "1000", "--dir", memory_at)) == 25


def test_tail_looks_further_back_for_what_is_wanted(memory_at: Path) -> None:
    started = lines_of("tail", "-n", "1", "--kind", "started", "--episode", "first", "--dir", memory_at)
    assert [(event["lsn"], event["data"]["task"]) for event in started] == [(1, "the first task")]
    of_both = lines_of("tail", "-n", "3", "--kind", "started", "--kind", "ended", "--dir", memory_at)
    assert [event["lsn"] for event in of_both] == [12, 13, 24]


def test_a_kind_of_events_that_there_is_not_is_wrong_usage(memory_at: Path) -> None:
    for arguments in ((), ("--json",), ("-f",)):
        result = run("tail", "--kind", "step", "--kind", "strated", *arguments, "--dir", memory_at)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "there are no events of the kind 'strated'" in result.stderr
        assert "Did you mean 'started'?" in " ".join(result.stderr.split())
    assert run("tail", "--kind", "tagged", "--dir", memory_at).exit_code == 0


async def test_every_kind_of_events_may_be_asked_for() -> None:
    async with open_memory(":memory:") as memory:
        for name in ("a", "b", "last"):
            handle = await memory.start_episode("task", episode_id=name)
            await handle.log_step(ExecutionStep("tool", "act", result=StepSuccess("done")))
        await memory.checkpoint("a", "why")
        await memory.episodic.record("a", events.LlmCall(tokens=1, latency_ms=1))
        await memory.add_tags("a", ["late"])
        await memory.update_episode("a", description="another")
        await memory.relate("a", "b", "follows")
        await memory.unrelate("a", "b", "follows")
        await memory.archive("a")
        await memory.restore("a")
        for name in ("a", "b"):
            await memory.complete_episode(name, Success("done"))
        await memory.short_term.append("t", Message(Role.USER, "hi"))
        await memory.short_term.summarise("t", "it was said hi", 1, 1)
        await memory.short_term.append("cleared", Message(Role.USER, "hi"))
        await memory.short_term.clear("cleared")
        fact = await memory.long_term.remember(Scope.agent("a"), Fact("it rains"))
        await memory.long_term.forget(fact)
        await memory.delete_episode("b")
        end = await memory.log_step("last", ExecutionStep("tool", "act"))
        await end.wait_durable()
        written = set()
        async with memory.follow(START) as channel:
            async for event in channel:
                assert isinstance(event, Event)
                if event.lsn == end.lsn:
                    break
                written.add(event.kind)
    assert written == set(watching.KINDS)


def test_tail_for_people(memory_at: Path) -> None:
    lines = run("tail", "-n", "12", "--kind", "step", "--kind", "ended", "--dir", memory_at).stdout.splitlines()[1:]
    assert "second  ✗ tool  second step 4 → no" in lines[5]
    assert "second  ✓ tool  second step 5 → 5" in lines[6]
    assert "■ failure: broken" in lines[11]
    assert "tagged" in run("tail", "-n", "1", "--dir", memory_at).stdout


def test_what_cannot_be_read_stands_in_the_tail_as_such(tmp_path: Path) -> None:
    trio.run(fill, tmp_path / "memory")
    (segment,) = (tmp_path / "memory").glob("*.seg")
    data = bytearray(segment.read_bytes())
    place = data.index(b"second step 3")
    data[place] ^= 1
    segment.write_bytes(data)
    told = lines_of("tail", "-n", "1000", "--dir", tmp_path / "memory")
    (gap,) = [item for item in told if item.get("gap")]
    assert gap["first_lsn"] <= 17 <= gap["last_lsn"]
    assert "cannot be read" in run("tail", "-n", "1000", "--dir", tmp_path / "memory").stdout


async def test_following_goes_on_with_what_another_writes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory(tmp_path / "memory") as writer:
        handle = await writer.start_episode("a task", episode_id="e")
        journal = SegmentLogJournal.open_read_only(str(tmp_path / "memory"))
        found, end = await watching.newest(journal, 10, lambda _item: True)
        assert [item.kind for item in found if isinstance(item, Event)] == ["started"]
        assert end == 1
        given, items = trio.open_memory_channel[watching.Item](10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watching.follow_on, journal, end, given.send_nowait)
            for number in range(3):
                await (await handle.log_step(ExecutionStep("tool", f"step {number}"))).wait_durable()
                item = await items.receive()
                assert isinstance(item, Event)
                assert (item.lsn, item.data["action"]) == (number + 2, f"step {number}")
            nursery.cancel_scope.cancel()
        journal.release()


async def test_following_survives_that_the_writer_goes_comes_deletes_and_compacts(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_memory(tmp_path / "memory") as writer:
        await writer.start_episode("the first", episode_id="e0")
    journal = SegmentLogJournal.open_read_only(str(tmp_path / "memory"))
    given, items = trio.open_memory_channel[watching.Item](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watching.follow_on, journal, 0, given.send_nowait)
        for number in range(1, 5):
            async with open_memory(tmp_path / "memory") as writer:
                await writer.start_episode("another", episode_id=f"e{number}")
                await writer.delete_episode(f"e{number - 1}")
                await writer.compact(purge=True)
        seen = []
        while "e4" not in seen:
            item = await items.receive()
            assert isinstance(item, Event)
            seen.append(item.stream if item.kind == "started" else item.kind)
        nursery.cancel_scope.cancel()
    journal.release()
    assert seen.count("e4") == 1
    assert "deleted" in seen


def test_tail_dash_f_shows_a_living_memory_until_ctrl_c(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "memory") as memory:
            handle = await memory.start_episode("a task", episode_id="e")
            command = [sys.executable, "-m", "stepwell", "tail", "-f", "--json", "--dir", str(tmp_path / "memory")]
            with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
                assert process.stdout is not None
                first = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
                assert first["kind"] == "started"
                await (await handle.log_step(ExecutionStep("tool", "written later"))).wait_durable()
                later = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
                assert later["data"]["action"] == "written later"
                process.send_signal(signal.SIGINT)
                assert await trio.to_thread.run_sync(process.wait) == 0

    trio.run(main)


def test_replay_tells_an_episode_from_its_start_to_its_end(memory_at: Path) -> None:
    told = lines_of("replay", "second", "--speed", "0", "--dir", memory_at)
    assert [event["seq"] for event in told] == list(range(1, 13))
    assert told[0]["data"]["task"] == "the second task"
    assert told[-1]["data"]["outcome"]["kind"] == "failure"
    lines = run("replay", "fir", "--speed", "0", "--dir", memory_at).stdout.splitlines()
    assert "▶ the first task" in lines[0]
    assert "first step 4 → no" in lines[5]
    assert "tagged" in lines[12]


class TimedMemory:
    """Five events: 5 s, 5 s, a clock that goes back, and 60 s between them."""

    async def events(self, _episode_id: str) -> AsyncIterator[SimpleNamespace]:
        for seconds in (0, 5, 10, 9, 69):
            yield SimpleNamespace(time_ns=seconds * 1_000_000_000)


async def test_replay_keeps_the_pauses_divided_by_the_speed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def when(speed: float, longest: float) -> list[float]:
        began = trio.current_time()
        found: list[float] = []

        def give(_event: object) -> None:
            found.append(trio.current_time() - began)

        await play(TimedMemory(), "e", give, speed=speed, longest=longest)  # type: ignore[arg-type]
        return found

    assert await when(speed=2, longest=100) == pytest.approx([0, 2.5, 5, 5, 35])
    assert await when(speed=2, longest=1) == pytest.approx([0, 1, 2, 2, 3])
    assert await when(speed=0, longest=1) == [0, 0, 0, 0, 0]


def test_replay_of_an_unknown_episode(memory_at: Path) -> None:
    result = run("replay", "nobody", "--dir", memory_at)
    assert result.exit_code == 1
    assert "nobody" in result.stderr
