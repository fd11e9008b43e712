"""`list`, `show`, `export`, `verify`, and what holds for every command: exit codes, --json, --help, no tracebacks."""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from stepwell import (
    Abstained,
    ExecutionStep,
    Failure,
    Interrupted,
    PartialSuccess,
    StepError,
    StepSuccess,
    StepTimeout,
    Success,
    __version__,
    events,
    open_memory,
)
from stepwell.cli.app import cli
from stepwell.cli.output import CommandFailed, count_text, duration_text, one_line, printable, reporting_errors
from stepwell.model.outcome import TaskOutcome
from tests.stepwell.cli.cli_support import child_environment, episode_events, exported, run, run_json, write_lines

COMMANDS = tuple(cli.commands)


async def _fill(directory: Path) -> None:
    async with open_memory(directory) as memory:
        outcomes: tuple[TaskOutcome, ...] = (
            Success("it works", ["client.py"]),
            PartialSuccess("half", ["a"], ["b"]),
            Failure("no", "why"),
            Abstained("x"),
        )
        for number, outcome in enumerate(outcomes):
            handle = await memory.start_episode(
                f"Task number {number}",
                agent=f"agent-{number}",
                domain="testing",
                tags=["t"],
                episode_id=f"ended-{number}",
            )
            await handle.log_step(
                ExecutionStep("read", "Read config.toml", {"path": "c"}, StepSuccess("1024 bytes"), 5)
            )
            await handle.log_step(
                ExecutionStep("run", "", {"cmd": "make"}, StepError("exit 1\n\x1b[31mred\0"), 2_500.0)
            )
            await handle.log_step(ExecutionStep("wait", "Wait", {}, StepTimeout("60 s"), reward=0.25))
            await handle.complete(outcome)
        await memory.start_episode("Still at it [bold]markup[/] " + "long " * 100, episode_id="open-0")
        handle = await memory.start_episode("To be cut off", episode_id="cut-0")
        await handle.complete(Interrupted("no power", "cancelled"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory with an episode of every kind."""
    directory = tmp_path_factory.mktemp("filled") / "memory"
    trio.run(_fill, directory)
    return directory


@pytest.fixture
def damaged(filled: Path, tmp_path: Path) -> Path:
    """The same with one bit flipped in the middle of a segment."""
    directory = tmp_path / "damaged"
    shutil.copytree(filled, directory)
    segment = next(directory.glob("*.seg"))
    data = bytearray(segment.read_bytes())
    data[1_500] ^= 0x10
    segment.write_bytes(data)
    return directory


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# ── list ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_list_shows_the_newest_first(filled: Path) -> None:
    result = run("list", "--dir", filled)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == ["cut-0", "open-0", "ended-3", "ended-2", "ended-1", "ended-0"]
    assert "interrupted" in lines[1]
    assert "open" in lines[2]
    assert "[bold]markup[/]" in lines[2]
    assert "partial" in lines[5]
    assert lines[6].split()[1:3] == ["success", "3"]
    assert "agent-0" in lines[6]
    assert "6 episodes" in lines[7]


def test_list_takes_limit_and_status(filled: Path) -> None:
    assert [row["episode_id"] for row in run_json("list", "--dir", filled, "--limit", "2")["episodes"]] == [
        "cut-0",
        "open-0",
    ]
    opened = run_json("list", "--dir", filled, "--status", "open")
    assert [row["episode_id"] for row in opened["episodes"]] == ["open-0"]
    assert opened["episodes"][0]["outcome"] is None
    ended = run_json("list", "--dir", filled, "--status", "ended", "--limit", "1")
    assert [row["episode_id"] for row in ended["episodes"]] == ["cut-0"]
    assert "2 of 6 episodes" in run("list", "--dir", filled, "--limit", "2").stdout


def test_list_gives_programs_what_people_see(filled: Path) -> None:
    row = run_json("list", "--dir", filled)["episodes"][-1]
    assert row["episode_id"] == "ended-0"
    assert row["status"] == "ended"
    assert row["outcome"] == "success"
    assert (row["steps"], row["failed_steps"]) == (3, 2)
    assert row["duration_seconds"] >= 0
    assert row["started"].endswith("+00:00")
    assert row["tags"] == ["t"]


def test_list_of_a_memory_without_episodes(tmp_path: Path) -> None:
    async def create() -> None:
        async with open_memory(tmp_path / "empty"):
            pass

    trio.run(create)
    result = run("list", "--dir", tmp_path / "empty")
    assert (result.exit_code, result.stdout) == (0, "no episodes\n")
    assert run_json("list", "--dir", tmp_path / "empty") == {"episodes": [], "total": 0}
    assert exported(tmp_path / "empty", tmp_path / "out.jsonl") == []


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_is_a_timeline(filled: Path) -> None:
    result = run("show", "ended-0", "--dir", filled)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "ended-0"
    assert lines[1] == "Task number 0"
    assert "agent agent-0 · domain testing · tags t" in lines[2]
    assert [line.split()[2] for line in lines[4:7]] == ["✓", "✗", "✗"]
    assert "read  Read config.toml → 1024 bytes" in lines[4]
    assert "5.0 ms" in lines[4]
    assert "run   cmd make → exit 1 ·[31mred·" in lines[5]
    assert "2.5 s" in lines[5]
    assert "timeout: 60 s  reward 0.25" in lines[6]
    assert lines[8] == "Success: it works (made client.py)"
    assert "3 steps · 2 failed" in lines[9]
    assert "reward" in lines[9]
    assert any(line.startswith("  + Task done") for line in lines)


@pytest.mark.parametrize(
    ("episode_id", "words"),
    [
        ("ended-1", "Partial success: half (not done: b)"),
        ("ended-2", "Failure: no: why"),
        ("ended-3", "Abstained: x"),
        ("cut-0", "Interrupted: cancelled: no power"),
        ("open-0", "still open"),
    ],
)
def test_show_says_how_it_ended(filled: Path, episode_id: str, words: str) -> None:
    assert words in run("show", episode_id, "--dir", filled).stdout.splitlines()


def test_show_gives_programs_the_episode(filled: Path) -> None:
    episode = run_json("show", "ended-0", "--dir", filled)
    assert episode["status"] == "ended"
    assert episode["outcome"] == {"kind": "success", "verdict": "it works", "artifacts": ["client.py"]}
    assert [step["tool"] for step in episode["steps"]] == ["read", "run", "wait"]
    assert episode["steps"][1]["result"] == {"status": "error", "message": "exit 1\n\x1b[31mred\0"}


def test_show_leaves_the_middle_of_a_very_long_episode_out_unless_asked(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "long.jsonl", episode_events("long", 500))
    run_json("import", source, "--dir", tmp_path / "memory")
    short = run("show", "long", "--dir", tmp_path / "memory").stdout
    assert "400 steps left out" in short
    assert short.count("✓") == 100
    assert run("show", "long", "--all", "--dir", tmp_path / "memory").stdout.count("✓") == 500


def test_show_tells_what_a_tool_was_called_with_where_the_action_is_one_word(tmp_path: Path) -> None:
    step = ExecutionStep("user", "message", {"content": "Hi there!"}, StepSuccess(""))

    async def fill() -> None:
        async with open_memory(tmp_path / "memory") as memory, memory.episode("talk", episode_id="e") as episode:
            await episode.log_step(step)

    trio.run(fill)
    assert "user  message  content Hi there!" in run("show", "e", "--dir", tmp_path / "memory").stdout


def test_show_of_a_run_that_was_recorded_has_no_blank_line_for_its_task(tmp_path: Path) -> None:
    async def fill() -> None:
        async with open_memory(tmp_path / "memory") as memory:
            await memory.episodic.record("run", events.Started(agent="planner"))

    trio.run(fill)
    lines = run("show", "run", "--dir", tmp_path / "memory").stdout.splitlines()
    assert lines[0] == "run"
    assert lines[1].startswith("started ")


def test_show_of_an_unknown_episode(filled: Path) -> None:
    result = run("show", "nobody", "--dir", filled)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "nobody" in result.stderr
    assert run_json("show", "nobody", "--dir", filled, code=1)["error"]["type"] == "NotFound"


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_export_of_what_was_not_imported_can_be_imported(filled: Path, tmp_path: Path) -> None:
    events = exported(filled, tmp_path / "out.jsonl")
    report = run_json("import", tmp_path / "out.jsonl", "--strict", "--dir", tmp_path / "copy")
    assert (report["episodes"], report["endings"]) == (6, 5)
    assert exported(tmp_path / "copy", tmp_path / "again.jsonl") == events


def test_export_to_stdout_is_nothing_but_events(filled: Path) -> None:
    result = run("export", "-", "--dir", filled)
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events[:5]] == ["start", "step", "step", "step", "complete"]
    assert "exported 6 episodes (1 of them open) with 12 steps to standard output" in result.stderr
    as_json = run("export", "-", "--dir", filled, "--json")
    assert as_json.stdout == result.stdout
    assert json.loads(as_json.stderr)["episodes"] == 6


def test_export_leaves_an_existing_file_alone_until_it_is_whole(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    out.chmod(0o640)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        result = run("export", out, "--dir", filled)
    assert result.exit_code == 1
    assert "disk full" in result.stderr
    assert out.read_text() == "precious"
    assert os.listdir(tmp_path) == ["out.jsonl"]
    assert run("export", out, "--dir", filled).exit_code == 0
    assert os.listdir(tmp_path) == ["out.jsonl"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert len(out.read_text().splitlines()) == 23


def test_export_through_a_link_and_into_a_device(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real.jsonl")
    assert run("export", tmp_path / "link", "--dir", filled).exit_code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real.jsonl").is_file()
    assert run("export", "/dev/null", "--dir", filled).exit_code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("target", ["folder", "no/such/folder/out.jsonl"])
def test_export_to_where_it_cannot_go(filled: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    result = run("export", tmp_path / target, "--dir", filled)
    assert result.exit_code == 1
    assert str(tmp_path / target.split("/")[0]) in result.stderr


def test_the_same_export_gives_the_same_bytes(filled: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        run("export", tmp_path / name, "--dir", filled)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verify_of_a_sound_log(filled: Path) -> None:
    result = run("verify", "--dir", filled)
    assert result.exit_code == 0
    assert result.stdout.startswith("sound")
    assert "in 6 streams" in result.stdout
    report = run_json("verify", "--dir", filled)
    assert report["ok"] is True
    assert report["records"] == 23
    assert report["problems"] == []


def test_verify_of_a_damaged_log(damaged: Path) -> None:
    before = files_of(damaged)
    result = run("verify", "--dir", damaged)
    assert result.exit_code == 1
    assert result.stdout.startswith("DAMAGED")
    assert "✗" in result.stdout
    report = run_json("verify", "--dir", damaged, code=1)
    assert report["ok"] is False
    assert report["problems"]
    assert files_of(damaged) == before


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["show", "ended-0"],
        ["export", "-"],
        ["verify"],
        ["stats"],
        ["tail"],
        ["replay", "ended-0", "--speed", "0"],
    ],
)
def test_reading_commands_change_nothing(filled: Path, arguments: list[str]) -> None:
    before = files_of(filled)
    assert run(*arguments, "--dir", filled).exit_code == 0
    assert files_of(filled) == before


async def test_reading_commands_work_while_another_writes(tmp_path: Path) -> None:
    async with open_memory(tmp_path / "memory") as memory:
        handle = await memory.start_episode("a task", episode_id="e")
        for number in range(30):
            await (await handle.log_step(ExecutionStep("tool", f"step {number}"))).wait_durable()
            if number % 10:
                continue
            for arguments in (
                ["list"],
                ["show", "e"],
                ["export", "-"],
                ["verify"],
                ["stats"],
                ["tail"],
                ["replay", "e", "--speed", "0"],
            ):
                call = functools.partial(run, *arguments, "--dir", tmp_path / "memory")
                result = await trio.to_thread.run_sync(call)
                assert result.exit_code == 0, (arguments, result.output)
    shown = await trio.to_thread.run_sync(functools.partial(run_json, "show", "e", "--dir", tmp_path / "memory"))
    assert len(shown["steps"]) == 30


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "x"], ["export", "out.jsonl"], ["verify"], ["stats"], ["tail"], ["replay", "x"]]
)
def test_a_directory_without_a_memory_is_one_line_and_stays_absent(tmp_path: Path, arguments: list[str]) -> None:
    for place in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").write_text("no directory")
        result = run(*arguments, "--dir", place)
        assert result.exit_code == 1
        assert result.stderr.startswith("stepwell: ")
        assert result.stderr.count("\n") == 1
        assert set(run_json(*arguments, "--dir", place, code=1)) == {"error"}
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--limit", "0"],
        ["list", "--status", "odd"],
        ["show"],
        ["import"],
        ["export"],
        ["demo", "--agents", "0"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: stepwell" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example:\n    stepwell " + command in result.stdout
    assert "--json" in result.stdout
    # Two of them name two directories, and one has to do with none.
    assert ("--dir" in result.stdout) == (command not in ("salvage", "restore", "completion"))
    assert ("--yes" in result.stdout) == (command in ("delete", "compact", "retain", "salvage"))


def test_version() -> None:
    assert run("--version").stdout == f"stepwell, version {__version__}\n"


def stepwell(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stepwell", *map(str, arguments)],
        env={**child_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_dash_m(filled: Path) -> None:
    assert stepwell("list", "--dir", filled).returncode == 0
    assert stepwell("show", "nobody", "--dir", filled).returncode == 1
    assert stepwell("nonsense").returncode == 2


def test_no_color_is_respected(filled: Path) -> None:
    coloured = stepwell("list", "--dir", filled, FORCE_COLOR="1")
    assert "\x1b[32m" in coloured.stdout
    plain = stepwell("list", "--dir", filled, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[32m" not in plain.stdout
    assert "\x1b" not in stepwell("list", "--dir", filled).stdout


def test_a_reader_that_goes_away_is_no_error_to_talk_about(filled: Path, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "many.jsonl", [e for n in range(300) for e in episode_events(f"e{n}", 20)])
    run_json("import", source, "--dir", tmp_path / "memory")
    command = f"{sys.executable} -m stepwell export - --dir {tmp_path / 'memory'} | head -n 1"
    result = subprocess.run(
        ["bash", "-c", command], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert result.stdout.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_import_stepwell_imports_neither_click_nor_rich_nor_the_cli() -> None:
    program = (
        "import sys, stepwell\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('click', 'rich') or 'cli' in name.split('.')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=child_environment(), capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


# ── errors and words ─────────────────────────────────────────────────────────────────────────────────────────────────


def raising(error: BaseException) -> Any:
    @reporting_errors
    def command(*, as_json: bool) -> None:
        raise error

    return command


def test_groups_are_flattened_and_surprises_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    inner = ExceptionGroup("inner", [CommandFailed("first\nthing"), ValueError("second")])
    with pytest.raises(SystemExit) as left:
        raising(ExceptionGroup("outer", [inner]))(as_json=False)
    assert left.value.code == 1
    assert capsys.readouterr().err == "stepwell: first thing\nstepwell: and 1 more of the same run\n"
    with pytest.raises(SystemExit):
        raising(ZeroDivisionError("oops"))(as_json=False)
    assert "unexpected ZeroDivisionError: oops" in capsys.readouterr().err


def test_a_keyboard_interrupt_leaves_its_group() -> None:
    with pytest.raises(KeyboardInterrupt):
        raising(BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("also")]))(as_json=False)


def test_debugging_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError("oops"))(as_json=False)


def test_words() -> None:
    assert [count_text(number, "episode") for number in (0, 1, 1_200)] == ["0 episodes", "1 episode", "1,200 episodes"]
    assert count_text(2, "entry") == "2 entries"
    assert [duration_text(seconds) for seconds in (None, 0.0004, 0.0123, 1.44, 125.2, 11_400)] == [
        "",
        "0.4 ms",
        "12 ms",
        "1.4 s",
        "2 min 5 s",
        "3 h 10 min",
    ]
    assert printable("a\n b\tc\x1b\0", 20) == "a b c··"
    assert printable("word " * 1_000_000, 10) == "word word…"
    assert len(printable("x" * 50, 10)) == 10
    assert one_line(FileNotFoundError(2, "No such file or directory", "here")) == "here: No such file or directory"
