"""Runs and threads go out and come in as klieo's lines, byte for byte, and an import can be repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import InvalidInput, InvalidState, Memory, MemoryConfig, Message, events, klieo
from stepwell.cli.app import cli
from tests.stepwell.model.test_run_events import MESSAGES, ODD, SHAPES
from tests.support import open_on

SHAPE_LINES = [line for line, _event in SHAPES]


def run_line(event: str, run: str = "r") -> str:
    return f'{{"run_id":{json.dumps(run, ensure_ascii=False)},"episode":{event}}}'


def thread_line(message: str, thread: str = "t") -> str:
    return f'{{"thread_id":{json.dumps(thread, ensure_ascii=False)},"message":{message}}}'


LINES = [
    *(run_line(line) for line in SHAPE_LINES),
    *(run_line(line, "Käse") for line in ODD),
    *(thread_line(line) for line, _message in MESSAGES),
    thread_line('{"content":"hi","role":"user","x":1}', "other"),
]


async def exported(memory: Memory) -> list[str]:
    return [line async for line in klieo.export_lines(memory)]


def bodies(lines: list[str]) -> list[str]:
    """The lines without the times of their events."""
    return [re.sub(',"recorded_at":"[^"]*"', "", line) for line in lines]


async def test_every_shape_goes_in_and_comes_out_byte_for_byte() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        done = await klieo.import_lines(memory, LINES)
        assert (done.events, done.messages, done.known) == (len(SHAPES) + len(ODD), len(MESSAGES) + 1, 0)
        assert bodies(await exported(memory)) == LINES
        assert [line for line, _event in SHAPES] == [
            events.to_json(event) for event in await memory.episodic.replay("r")
        ]
    async with open_on(files) as memory:
        again = await exported(memory)
        assert bodies(again) == LINES
    async with open_on(MemoryFileSystem()) as memory:
        await klieo.import_lines(memory, again)
        assert bodies(await exported(memory)) == LINES


@pytest.mark.parametrize("stored", [0, 1, len(SHAPES), len(SHAPES) + 3, len(LINES) - 1, len(LINES)])
async def test_an_import_that_was_cut_off_goes_on_where_it_stopped(stored: int) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await klieo.import_lines(memory, LINES[:stored])
        done = await klieo.import_lines(memory, ["", *LINES, "  \n"])
        assert (done.known, done.events + done.messages) == (stored, len(LINES) - stored)
        assert bodies(await exported(memory)) == LINES


async def test_lines_of_many_runs_mixed_come_out_run_by_run() -> None:
    mixed = [run_line(f'{{"Ops":{number}}}', f"r{number % 3}") for number in range(30)]
    async with open_on(MemoryFileSystem(), MemoryConfig(mailbox_size=1)) as memory:
        await klieo.import_lines(memory, mixed)
        for run in range(3):
            replayed = await memory.episodic.replay(f"r{run}")
            assert replayed == [events.Ops(number) for number in range(run, 30, 3)]


async def test_a_run_that_holds_something_else_is_not_mixed_up() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record("r", events.Ops("mine"))
        await memory.short_term.append("t", Message("user", "mine"))
        for line in (LINES[0], thread_line(MESSAGES[0][0])):
            with pytest.raises(InvalidState, match=r"line 1: .*something else"):
                await klieo.import_lines(memory, [line])
        assert await memory.episodic.replay("r") == [events.Ops("mine")]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"run_id":"r"}',
        '{"run_id":5,"episode":"Completed"}',
        '{"run_id":"r","episode":3}',
        '{"run_id":"r","episode":"Completed"} more',
        '{"run_id":"r","episode":"Completed"',
        '{"thread_id":"t","message":{"content":"x"}}',
        '{"run_id":"r","episode":{"Ops":"\udcff"}}',
    ],
)
async def test_a_line_that_is_none_stops_the_import_and_is_named(line: str) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(InvalidInput, match="line 2: "):
            await klieo.import_lines(memory, [LINES[0], line, LINES[1]])
        assert len(await memory.episodic.replay("r")) == 1


async def test_what_klieo_cannot_read_is_refused_if_asked_for() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.episodic.record("r", events.LlmCall(2**40, 1))
        assert len(await exported(memory)) == 1
        with pytest.raises(InvalidInput, match="32 bits"):
            _ = [line async for line in klieo.export_lines(memory, strict=True)]


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz"])
def test_the_command_line_imports_and_exports_them(name: str, tmp_path: Path) -> None:
    runner = CliRunner()
    source, target = tmp_path / "source.jsonl", tmp_path / name
    source.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    first, second = (["--dir", str(tmp_path / memory)] for memory in ("first", "second"))
    result = runner.invoke(cli, ["import", "--format", "klieo", str(source), *first])
    assert result.exit_code == 0, result.output
    assert f"{len(LINES)} lines" in result.output
    for directory in (first, second):
        result = runner.invoke(cli, ["export", "--format", "klieo", str(target), *first])
        assert result.exit_code == 0, result.output
        result = runner.invoke(cli, ["import", "--format", "klieo", str(target), *directory, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["lines"] == len(LINES)
    result = runner.invoke(cli, ["export", "--format", "klieo", "-", *second])
    assert bodies(result.stdout.splitlines()) == LINES


def test_the_command_line_names_a_bad_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"run_id":"r","episode":"Completed"}\n{"run_id":"r","episode":{"Ops":"\xff"}}\n')
    result = CliRunner().invoke(cli, ["import", "--format", "klieo", str(bad), "--dir", str(tmp_path / "memory")])
    assert result.exit_code == 1
    assert "line 2" in result.output
