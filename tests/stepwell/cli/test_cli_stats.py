"""`stepwell stats` tells from the indexes what is in a memory that nobody has open here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import trio

from stepstore.log.survey import survey_log
from stepwell import ExecutionStep, Fact, MemoryConfig, Message, Scope, StepSuccess, Success, open_memory
from tests.stepwell.cli.cli_support import run, run_json
from tests.support import step

STEPS, BYTES = 30, 2_000


def fill(directory: Path, *, deleted: int = 0) -> None:
    """Five episodes, the last one open, and the first `deleted` of them deleted."""

    async def main() -> None:
        async with open_memory(directory, config=MemoryConfig(segment_bytes=64 * 1024)) as memory:
            for number in range(5):
                handle = await memory.start_episode("task", episode_id=f"e{number}")
                for count in range(STEPS):
                    await handle.log_step(ExecutionStep("tool", str(count), result=StepSuccess("x" * BYTES)))
                if number < 4:
                    await handle.complete(Success())
                await memory.flush()
        async with open_memory(directory, config=MemoryConfig(segment_bytes=64 * 1024)) as memory:
            for number in range(deleted):
                await memory.delete_episode(f"e{number}")

    trio.run(main)


def test_everything_is_counted_and_nothing_is_changed(tmp_path: Path) -> None:
    fill(tmp_path / "m")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "m").rglob("*")) if path.is_file()}
    told = run_json("stats", "--dir", tmp_path / "m")
    assert (told["streams"], told["open_streams"], told["deleted_streams"]) == (5, 1, 0)
    assert told["records"] == 5 + 5 * STEPS + 4
    assert 5 * STEPS * BYTES < told["payload_bytes"] < told["log_bytes"]
    assert told["segments"] == len(list((tmp_path / "m").glob("*.seg")))
    assert told["log_bytes"] == sum(path.stat().st_size for path in (tmp_path / "m").glob("*.seg"))
    assert (told["dead_batches"], told["dead_bytes"], told["worth_compacting"]) == (0, 0, [])
    after = {path: path.read_bytes() for path in sorted((tmp_path / "m").rglob("*")) if path.is_file()}
    assert after == before


def test_deleted_episodes_are_counted_as_such(tmp_path: Path) -> None:
    fill(tmp_path / "m", deleted=4)
    told = run_json("stats", "--dir", tmp_path / "m")
    assert (told["streams"], told["open_streams"], told["deleted_streams"]) == (1, 1, 4)
    assert "1 stream (1 open), 4 deleted" in run("stats", "--dir", tmp_path / "m").stdout


def test_what_is_no_episode_is_not_counted_as_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory:
            await memory.start_episode("task")
            await memory.short_term.append("thread", Message(role="user", content="hello"))
            await memory.long_term.remember(Scope.agent("a"), Fact("a fact"))

    trio.run(main)
    told = run_json("stats", "--dir", tmp_path / "m")
    assert told["streams"] == 3
    assert not [name for name in told if "episode" in name]
    assert "3 streams" in run("stats", "--dir", tmp_path / "m").stdout


def test_a_survey_of_a_log_that_is_not_compacted_finds_what_is_worth_it(tmp_path: Path) -> None:
    from stepstore.journal import SegmentLogJournal
    from stepstore.journal.contract import append, delete
    from stepstore.log.opening import LogOptions

    async def main() -> None:
        options = LogOptions(segment_bytes=64 * 1024, compaction_bytes_per_second=0)
        journal = SegmentLogJournal.open(str(tmp_path / "m"), options)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for stream in (b"a" * 16, b"b" * 16):
                await append(journal, stream, [b"x" * 30_000], expected_seq=0)
            await journal.rotate()
            await delete(journal, b"a" * 16, b"gone")
            await append(journal, b"b" * 16, [b"y" * 100], expected_seq=1)
            journal.finish()
        journal.release()

    trio.run(main)
    found = survey_log(str(tmp_path / "m"))
    assert (found.streams, found.deleted_streams, found.dead_batches, found.dead_bytes) == (1, 1, 1, 30_000)
    assert [Path(path).name[:8] for path in found.worth_compacting] == ["00000001"]
    told = run_json("stats", "--dir", tmp_path / "m")
    assert told["worth_compacting"] == list(found.worth_compacting)
    assert len(told) == len(dataclasses.fields(found)) + 1
    assert "30,000 bytes in 1 batch; 1 file worth compacting" in run("stats", "--dir", tmp_path / "m").stdout


def test_it_looks_beside_a_process_that_writes(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_memory(tmp_path / "m") as memory:
            handle = await memory.start_episode("task")
            await (await handle.log_step(step(1))).wait_durable()
            told = await trio.to_thread.run_sync(lambda: run_json("stats", "--dir", tmp_path / "m"))
            assert (told["streams"], told["records"]) == (1, 2)
            await handle.complete(Success())

    trio.run(main)


def test_there_is_no_memory(tmp_path: Path) -> None:
    assert run("stats", "--dir", tmp_path / "nothing").exit_code == 1
