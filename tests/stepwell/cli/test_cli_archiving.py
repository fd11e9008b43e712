"""`stepwell backup` and `stepwell restore`."""

from __future__ import annotations

import json
from pathlib import Path

import trio

from stepwell import ExecutionStep, MemoryConfig, StepSuccess, open_memory
from tests.stepwell.cli.cli_support import run, run_json
from tests.support import step


def fill(directory: Path) -> None:
    async def main() -> None:
        async with open_memory(directory) as memory:
            handle = await memory.start_episode("a task", episode_id="e")
            for number in range(5):
                await handle.log_step(step(number))

    trio.run(main)


def test_a_memory_is_backed_up_and_restored(tmp_path: Path) -> None:
    fill(tmp_path / "memory")
    done = run("backup", str(tmp_path / "archive"), "--dir", str(tmp_path / "memory"))
    assert done.exit_code == 0, done.stderr
    assert "6 records up to LSN 6" in done.stdout
    done = run("restore", str(tmp_path / "archive"), str(tmp_path / "restored"))
    assert done.exit_code == 0, done.stderr
    assert "6 records up to LSN 6" in done.stdout
    shown = run("show", "e", "--json", "--dir", str(tmp_path / "restored"))
    assert len(json.loads(shown.stdout)["steps"]) == 5


def test_reports_for_programs(tmp_path: Path) -> None:
    fill(tmp_path / "memory")
    report = run_json("backup", str(tmp_path / "archive"), "--dir", str(tmp_path / "memory"))
    assert (report["records"], report["end_lsn"]) == (6, 6)
    report = run_json("restore", str(tmp_path / "archive"), str(tmp_path / "restored"))
    assert (report["records"], report["path"]) == (6, str(tmp_path / "restored"))


def test_a_memory_that_is_not_there_is_not_made_in_order_to_be_backed_up(tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "archive"), "--dir", str(tmp_path / "nothing"))
    assert done.exit_code == 1
    assert "there is no memory" in done.stderr
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_archive_is_refused_and_makes_no_memory(tmp_path: Path) -> None:
    fill(tmp_path / "memory")
    assert run("backup", str(tmp_path / "archive"), "--dir", str(tmp_path / "memory")).exit_code == 0
    (segment,) = (tmp_path / "archive").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[700] ^= 1
    segment.write_bytes(data)
    done = run("restore", str(tmp_path / "archive"), str(tmp_path / "restored"))
    assert done.exit_code == 1
    assert "damaged" in done.stderr
    assert not (tmp_path / "restored" / "FORMAT").exists()


def test_a_memory_in_use_is_archived_as_far_as_its_files_are_finished(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "memory", config=MemoryConfig(segment_bytes=64 * 1024)) as memory:
            handle = await memory.start_episode("a task", episode_id="e")
            early = await trio.to_thread.run_sync(
                run, "export", "--archive", tmp_path / "early", "--dir", tmp_path / "memory"
            )
            assert early.exit_code == 1
            assert "no file of the log" in early.stderr
            for number in range(300):
                await (
                    await handle.log_step(ExecutionStep("tool", f"{number}", result=StepSuccess("x" * 900)))
                ).wait_durable()
            report = await trio.to_thread.run_sync(
                run_json, "export", "--archive", tmp_path / "archive", "--dir", tmp_path / "memory"
            )
            assert 100 < report["records"] < 301
            assert report["records"] == report["end_lsn"]

    trio.run(main)
    assert run_json("verify", "--dir", tmp_path / "archive")["ok"] is True
    assert run("restore", tmp_path / "archive", tmp_path / "restored").exit_code == 0
    steps = run_json("show", "e", "--dir", tmp_path / "restored")["steps"]
    assert [step["action"] for step in steps] == [str(number) for number in range(len(steps))]
    assert len(steps) > 100


def test_an_archive_has_no_format(tmp_path: Path) -> None:
    fill(tmp_path / "memory")
    done = run("export", "--archive", tmp_path / "a", "--format", "otlp", "--dir", tmp_path / "memory")
    assert done.exit_code == 2
    assert not (tmp_path / "a").exists()
