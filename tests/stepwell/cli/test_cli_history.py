"""What `stepwell stats` draws: counts over time, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from stepwell import ExecutionStep, Failure, StepError, StepSuccess, StepTimeout, Success, open_memory
from stepwell.cli import history
from stepwell.cli.history import Series, sparkline
from tests.stepwell.cli.cli_support import run, run_json

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("history") / "memory"

    async def main() -> None:
        async with open_memory(directory) as memory:
            for number in range(6):
                handle = await memory.start_episode("task", episode_id=f"e{number}")
                for count in range(number):
                    await handle.log_step(ExecutionStep("hammer", "hit", result=StepSuccess(count)))
                await handle.log_step(ExecutionStep("saw", "cut", result=StepError("blunt")))
                await handle.log_step(ExecutionStep("saw", "cut", result=StepTimeout()))
                if number < 5:
                    await handle.complete(Success() if number % 2 else Failure("no"))

    trio.run(main)
    return directory


def test_people_see_steps_outcomes_and_tools(memory_at: Path) -> None:
    lines = run("stats", "--dir", memory_at).stdout.splitlines()

    def figures(label: str) -> list[str]:
        (line,) = [line for line in lines if line.startswith(f"  {label} ")]
        return line.removeprefix(f"  {label}").strip(f" {history.BARS}").split("  ")

    assert figures("episodes started") == ["6"]
    assert figures("steps")[0] == "27"
    assert figures("success") == ["2"]
    assert figures("failure") == ["3"]
    assert figures("hammer") == ["15"]
    assert figures("saw") == ["12", "100% failed"]
    assert "over time" not in run("stats", "--no-over-time", "--dir", memory_at).stdout


def test_programs_get_it_when_they_ask(memory_at: Path) -> None:
    assert "over_time" not in run_json("stats", "--dir", memory_at)
    told = run_json("stats", "--over-time", "--dir", memory_at)["over_time"]
    assert sum(told["steps"]) == 27
    assert {kind: sum(counts) for kind, counts in told["endings"].items()} == {"failure": 3, "success": 2}
    assert [(tool["tool"], tool["steps"], tool["failed"]) for tool in told["tools"]] == [
        ("hammer", 15, 0),
        ("saw", 12, 12),
    ]
    assert told["unread"] == 0


def test_an_empty_memory_has_nothing_to_draw(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "memory"):
            pass

    trio.run(main)
    assert "0 streams" in run("stats", "--dir", tmp_path / "memory").stdout


@given(st.lists(st.integers(0, 40 * 365 * 86_400 * SECOND), min_size=1, max_size=200), st.integers(10, 60))
def test_whatever_the_times_nothing_is_lost(times: list[int], columns: int) -> None:
    series = Series()
    for time in times:
        series.add(time)
    found = series.columns(min(times), max(times), columns)
    assert sum(found) == len(times) == series.total


def test_ever_longer_times_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_SPANS_KEPT", 64)
    series = Series()
    for number in range(10_000):
        series.add(number * SECOND)
        assert len(series.counts) <= 64
    columns = series.columns(0, 9_999 * SECOND, 10)
    assert sum(columns) == 10_000
    assert max(columns) - min(columns) < 400


def test_the_tools_that_are_counted_by_name_are_bounded(memory_at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_TOOLS_KEPT", 1)
    told = run_json("stats", "--over-time", "--dir", memory_at)["over_time"]
    assert sorted(tool["tool"] for tool in told["tools"]) == ["(other tools)", "saw"]


def test_bars() -> None:
    assert sparkline([0, 1, 50, 100]) == " ▁▄█"
    assert sparkline([0, 0]) == "  "
    assert sparkline([1_000_000, 1]) == "█▁"
