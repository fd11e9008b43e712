"""What the commands look like where there is little room, another encoding, or nobody who takes the output."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from rich.console import Console
from rich.progress import Progress
from trio.testing import MockClock

from stepwell import ExecutionStep, StepError, StepSuccess, Success, open_memory
from stepwell.cli.app import cli
from stepwell.cli.options import _SECTIONS
from stepwell.cli.output import progress_bar
from stepwell.cli.waiting import answered
from stepwell.memory.fold_progress import FoldProgress, fold_progress
from tests.stepwell.cli.cli_support import child_environment, run

UUID = "01930b5c-7a3e-7c41-9d2f-3b1c5a7e9f10"
TRACEBACK = (
    "Traceback (most recent call last):\n  File \"agent.py\", line 3, in <module>\n    run()\nKeyError: 'colour'\n"
)


async def fill(directory: Path) -> None:
    async with open_memory(directory) as memory:
        handle = await memory.start_episode("Paint the fence, “twice”", episode_id=UUID)
        await handle.log_step(ExecutionStep("painter", "choose " + "a colour " * 6, {}, StepError(TRACEBACK)))
        await handle.log_step(ExecutionStep("painter", "paint", {}, StepSuccess("done")))
        await handle.complete(Success("painted"))
        await memory.start_episode("Still at it", episode_id="open")
        await memory.log_step("open", ExecutionStep("brush", "dip", {}, StepSuccess("wet")))


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("terminals") / "memory"
    trio.run(fill, directory)
    return directory


def in_a_process(*arguments: str | Path, stdout: int = subprocess.PIPE, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stepwell", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**child_environment(), **env},
        timeout=280,
    )


def test_help_lists_every_command_once_under_what_it_is_for_and_cuts_no_line() -> None:
    listed = [name for names in _SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(cli.commands)
    told = run("--help", env={"COLUMNS": "80"}).stdout
    for name in listed:
        assert f"\n  {name} " in told
    assert "..." not in told.replace("[ARGS]...", "")


def test_in_a_narrow_terminal_an_id_can_still_be_copied(memory_at: Path) -> None:
    for columns in ("80", "100", "140"):
        assert UUID in run("list", "--dir", memory_at, env={"COLUMNS": columns}).stdout
    narrow = run("list", "--dir", memory_at, env={"COLUMNS": "80"}).stdout.splitlines()
    assert all(len(line) <= 80 for line in narrow)
    assert "Paint the fence" in narrow[[UUID in line for line in narrow].index(True) + 1]


def test_an_error_that_does_not_fit_has_lines_of_its_own(memory_at: Path) -> None:
    narrow = run("show", UUID, "--dir", memory_at, env={"COLUMNS": "80"}).stdout
    wide = run("show", UUID, "--dir", memory_at, env={"COLUMNS": "200"}).stdout
    error = "KeyError: 'colour' (and its traceback)"
    assert f"→ {error}" in wide
    assert "→ KeyError" not in narrow
    assert error in " ".join(narrow.split())


def test_an_open_episode_says_how_long_it_has_been_silent(memory_at: Path) -> None:
    shown = run("show", "open", "--dir", memory_at).stdout
    assert "still open: 1 step, the last " in shown
    assert " ago" in shown


def test_tail_names_the_day(memory_at: Path) -> None:
    lines = run("tail", "--dir", memory_at).stdout.splitlines()
    days = [line for line in lines if line.endswith(" (UTC)")]
    assert lines[0] == days[0]
    assert len(days) == len(set(days))


@pytest.mark.parametrize("bytes_unit", [False, True])
def test_a_bar_stays_on_one_line(bytes_unit: bool) -> None:
    console = Console(file=io.StringIO(), width=50, force_terminal=True)
    with progress_bar(bytes_unit=bytes_unit, console=console) as progress:
        for name in ("one.jsonl.gz", "intercode-bash.jsonl.gz"):
            progress.update(progress.add_task(name, total=682_248), completed=153_600)
        assert len(console.render_lines(progress.get_renderable())) == 2


@pytest.mark.parametrize("arguments", [["list"], ["show", UUID], ["tail"], ["stats"], ["search", "Paint the fence"]])
def test_a_terminal_that_is_not_utf_8_shows_what_it_can(memory_at: Path, arguments: list[str]) -> None:
    done = in_a_process(*arguments, "--dir", memory_at, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "?" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_output_that_nobody_takes_is_one_line(memory_at: Path, more: list[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = in_a_process("list", "--dir", memory_at, *more, stdout=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    assert done.stderr == "stepwell: No space left on device (is the disk full?)\n"


def directory_commands() -> list[list[str]]:
    positional = {"show": ["x"], "replay": ["x"], "search": ["x"], "recommend": ["x"], "delete": ["x"]}
    positional |= {"export": ["out.jsonl"], "backup": ["copy"], "retain": ["--max-episodes", "1"]}
    named = [name for name, command in cli.commands.items() if any(p.name == "directory" for p in command.params)]
    return [[name, *positional.get(name, [])] for name in sorted(set(named) - {"demo", "import"})]


@pytest.mark.parametrize("arguments", directory_commands(), ids=lambda words: words[0])
def test_an_empty_directory_is_no_memory_and_stays_empty(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, "--dir", empty)
    assert done.exit_code == 1
    assert (
        done.stderr
        == f"stepwell: there is no memory in {str(empty)!r}; name its directory with --dir or STEPWELL_DIR\n"
    )
    assert list(tmp_path.iterdir()) == [empty]
    assert list(empty.iterdir()) == []


async def test_a_question_that_takes_its_time_shows_how_far_the_log_is_read(
    memory_at: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    shown: list[tuple[float, float | None]] = []

    @contextmanager
    def noted(*, quiet: bool) -> Iterator[Progress]:
        assert not quiet
        bar = Progress(disable=True)
        try:
            yield bar
        finally:
            shown.extend((task.completed, task.total) for task in bar.tasks)

    monkeypatch.setattr("stepwell.cli.waiting.progress_bar", noted)
    monkeypatch.setattr("stepwell.cli.waiting.fold_progress", lambda _memory: FoldProgress(3, 9))

    async def at_once() -> str:
        await trio.lowlevel.checkpoint()
        return "answer"

    async def in_a_while() -> str:
        await trio.sleep(2)
        return "answer"

    async with open_memory(":memory:") as memory:
        assert await answered(memory, at_once, quiet=False) == "answer"
        assert shown == []
        assert await answered(memory, in_a_while, quiet=False) == "answer"
        assert shown == [(3, 9)]


async def test_how_far_a_catalog_is_counts_the_records_it_has_taken_up(tmp_path: Path) -> None:
    await fill(tmp_path / "memory")
    async with open_memory(tmp_path / "memory", read_only=True) as memory:
        before = fold_progress(memory)
        assert before.records == 6
        await memory.list_episodes()
        assert fold_progress(memory) == FoldProgress(0, 6)  # nothing is being made
        (catalog, *_others) = memory._runtime.projections
        catalog.projector.position, catalog.projector.looked_at = 0, 4
        assert fold_progress(memory) == FoldProgress(4, 6)
