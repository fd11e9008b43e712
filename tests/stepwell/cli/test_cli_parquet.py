"""`stepwell export` to a Parquet table."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet
import pytest
import trio

from stepwell import ExecutionStep, StepError, StepSuccess, Success, open_memory
from stepwell.cli import parquet
from tests.stepwell.cli.cli_support import run, run_json


@pytest.fixture
def memory_at(tmp_path: Path) -> Path:
    async def main() -> None:
        async with open_memory(tmp_path / "memory") as memory:
            for number in range(3):
                handle = await memory.start_episode(
                    f"task {number}", domain="d", tags=["x", "y"], episode_id=f"e{number}"
                )
                for count in range(number * 2):
                    result = StepError("no") if count else StepSuccess({"n": [1, None]})
                    await handle.log_step(ExecutionStep("tool", f"step {count}", {"p": count}, result, 1.5, reward=0.5))
                if number:
                    await handle.complete(Success())

    trio.run(main)
    return tmp_path / "memory"


def test_every_step_is_a_row(memory_at: Path, tmp_path: Path) -> None:
    report = run_json("export", tmp_path / "steps.parquet", "--dir", memory_at)
    assert (report["format"], report["episodes"], report["steps"]) == ("parquet", 3, 6)
    rows = pyarrow.parquet.read_table(tmp_path / "steps.parquet").to_pylist()
    assert [(row["episode_id"], row["seq"]) for row in rows] == [
        ("e0", None),
        ("e1", 2),
        ("e1", 3),
        *(("e2", seq) for seq in (2, 3, 4, 5)),
    ]
    first = rows[1]
    assert (first["task"], first["tags"], first["outcome"], first["domain"]) == ("task 1", ["x", "y"], "success", "d")
    assert (first["tool"], first["parameters"], first["status"], first["result"]) == (
        "tool",
        '{"p":0}',
        "success",
        '{"n":[1,null]}',
    )
    assert (first["latency_ms"], first["reward"], first["tokens_used"]) == (1.5, 0.5, None)
    assert first["time"].utcoffset().total_seconds() == 0
    assert first["started"] <= first["time"] <= first["ended"]
    assert (rows[2]["status"], rows[2]["result"]) == ("error", "no")
    assert rows[0]["outcome"] is None


def test_rows_go_out_in_groups(memory_at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    run_json("export", tmp_path / "few.parquet", "--dir", memory_at)
    assert pyarrow.parquet.ParquetFile(tmp_path / "few.parquet").num_row_groups == 3
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 1)
    run_json("export", tmp_path / "bytes", "--format", "parquet", "--dir", memory_at)
    assert pyarrow.parquet.ParquetFile(tmp_path / "bytes").num_row_groups == 7


def test_without_the_library_the_error_says_what_to_install(
    memory_at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", tmp_path / "steps.parquet", "--dir", memory_at)
    assert result.exit_code == 1
    assert "pip install 'stepwell[parquet]'" in result.stderr
    assert list(tmp_path.iterdir()) == [memory_at]
