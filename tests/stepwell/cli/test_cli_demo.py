"""`stepwell demo` from end to end, with a few agents, and with fleets that do not do their part."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from stepwell import Episode, ExecutionStep, Memory, StepSuccess, open_memory
from stepwell.cli.demo import crash, story
from stepwell.cli.demo.agent import work
from stepwell.cli.demo.crash import kill_after, run_and_kill
from stepwell.cli.demo.ledger import Ledger
from stepwell.cli.demo.plan import plan_fleet
from stepwell.cli.demo.programs import PROGRAMS
from stepwell.cli.demo.tools import LIBRARY, call_tool
from stepwell.cli.output import CommandFailed
from stepwell.model.outcome import outcome_kind
from tests.stepwell.cli.cli_support import child_environment, run, run_json


def test_the_demo_with_a_few_agents(tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    report = run_json("demo", "--agents", "8", "--seed", "3", "--dir", directory)
    assert report["ok"] is True
    assert report["episodes"] == sum(report["outcomes"].values()) == 8
    assert "open" not in report["outcomes"]
    for name in ("verdict", "final"):
        verdict = report[name]
        assert verdict["acknowledged"] == report["crash"]["acknowledged"] >= kill_after(8, 3)
        for problem in ("missing", "changed", "duplicated", "out_of_order", "lost_episodes", "lost_endings"):
            assert verdict[problem] == []
    assert report["reopened"]["open_episodes"] == report["resumed"]["episodes"] > 0
    assert report["final"]["recovered"] == report["steps"] > report["verdict"]["recovered"]
    rows = run_json("list", "--dir", directory)["episodes"]
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"ended"}
    assert run_json("verify", "--dir", directory)["ok"] is True


def test_the_demo_tells_its_story_and_leaves_nothing_behind(tmp_path: Path) -> None:
    result = run("demo", "--agents", "4", env={"TMPDIR": str(tmp_path)})
    assert result.exit_code == 0, result.output
    for words in (
        "SIGKILL",
        "0 missing, 0 changed, 0 duplicated, 0 out of order ✓",
        "slowest tools",
        "Nothing that was",
    ):
        assert words in result.stdout
    assert re.search(r"log +\d+ steps acknowledged as durable", result.stdout)
    assert "steps/s" in result.stdout
    assert "kill -9 ───" in result.stdout


def test_one_agent_is_a_fleet() -> None:
    assert run_json("demo", "--agents", "1")["ok"] is True


@pytest.mark.parametrize("kept", [False, True])
def test_a_temporary_directory_is_kept_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = run_json("demo", "--agents", "2", *(["--keep"] if kept else []))
    assert bool(os.listdir(tmp_path)) == kept
    assert (report["directory"] is not None) == kept
    if kept:
        assert len(run_json("list", "--dir", report["directory"])["episodes"]) == 2


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    for place, reason in ((tmp_path, "is not empty"), (tmp_path / "thesis.txt", "is not a directory")):
        result = run("demo", "--dir", place, "--agents", "1")
        assert result.exit_code == 1
        assert reason in result.stderr
        assert "--dir" in result.stderr or "name one" in result.stderr
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_directory_is_fine(tmp_path: Path) -> None:
    assert run_json("demo", "--dir", tmp_path, "--agents", "1")["ok"] is True


# ── a memory that loses something is found out ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("harm", ["lose", "change", "double", "swap"])
def test_the_demo_fails_when_the_log_gives_back_something_else(monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    real = story._all_episodes

    async def harmed(memory: Memory, on_progress: Any) -> list[Episode]:
        episodes = await real(memory, on_progress)
        steps = next(episode.steps for episode in episodes if len(episode.steps) >= 3)
        if harm == "lose":
            del steps[0]
        elif harm == "change":
            steps[0] = _with(steps[0], result=StepSuccess("something else"))
        elif harm == "double":
            steps.insert(1, steps[0])
        else:
            steps[0], steps[1] = _with(steps[1], seq=steps[0].seq), _with(steps[0], seq=steps[1].seq)
        return episodes

    monkeypatch.setattr(story, "_all_episodes", harmed)
    result = run("demo", "--agents", "4")
    assert result.exit_code == 1
    assert "✗" in result.stdout
    assert "broke a promise" in result.stdout


def _with(step: Any, **fields: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(step, **fields)


# ── fleets that do not do their part ─────────────────────────────────────────────────────────────────────────────────


async def kill_fleet(directory: Path) -> Ledger:
    ledger, _ = await run_and_kill(directory, agents=3, seed=1, after=5, on_progress=lambda done: None)
    return ledger


def use_program(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(crash, "fleet_command", lambda *_: [sys.executable, "-c", program])


async def test_a_fleet_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "fleet_command", lambda *_: [str(tmp_path / "no-such-program")])
    with pytest.raises(CommandFailed, match="could not be started"):
        await kill_fleet(tmp_path)


async def test_a_fleet_that_dies_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_program(monkeypatch, "raise RuntimeError('no disk today')")
    with pytest.raises(CommandFailed, match=r"exit code 1.*0 acknowledged steps.*no disk today"):
        await kill_fleet(tmp_path)


async def test_a_fleet_that_ends_by_itself_too_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_program(monkeypatch, """print('["step","a",2,"d"]', flush=True)""")
    with pytest.raises(CommandFailed, match=r"exit code 0.*1 acknowledged step,"):
        await kill_fleet(tmp_path)


async def test_a_fleet_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crash, "_PATIENCE_SECONDS", 0.3)
    use_program(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(CommandFailed, match="fell silent"):
        await kill_fleet(tmp_path)


async def test_half_a_line_at_the_moment_of_death_is_no_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_program(
        monkeypatch,
        "import sys, time\n"
        'for n in range(5): print(f\'["step","a",{n},"d"]\')\n'
        'sys.stdout.write(\'["step","a",99,"d\')\n'
        "sys.stdout.flush(); time.sleep(60)",
    )
    ledger = await kill_fleet(tmp_path)
    assert sorted(seq for _, seq in ledger.steps) == [0, 1, 2, 3, 4]


def test_a_fleet_does_not_outlive_its_parent(tmp_path: Path) -> None:
    command = crash.fleet_command(tmp_path / "memory", 2, 1)
    process = subprocess.Popen(command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'["started"')
    process.stdin.close()
    assert process.wait(timeout=200) == 1
    process.stdout.close()


# ── plans, programs and tools ────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    assert plan_fleet(50, 7) == plan_fleet(50, 7)
    assert plan_fleet(50, 7) != plan_fleet(50, 8)
    plan = plan_fleet(700, 1)
    assert len({assignment.episode_id for assignment in plan}) == 700
    assert {assignment.program for assignment in plan} == set(PROGRAMS)
    assert {assignment.scoped for assignment in plan} == {True, False}


def results_of(assignment: Any) -> tuple[list[Any], Any]:
    program, results = assignment.start_program(), []
    try:
        call = next(program)
        while True:
            results.append(call_tool(call.tool, call.parameters)[0])
            call = program.send(results[-1])
    except StopIteration as stop:
        return results, stop.value


def test_a_fleet_meets_real_failures_and_ends_in_every_way() -> None:
    failures, kinds = set(), set()
    for assignment in plan_fleet(200, 1):
        results, outcome = results_of(assignment)
        assert len(results) >= 3
        kinds.add(outcome_kind(outcome))
        failures |= {result.message.split(":")[0].split(" /")[0] for result in results if hasattr(result, "message")}
    assert {"no line matches", "SyntaxError", "FileNotFoundError", "UnicodeDecodeError"} <= failures
    assert {"success", "partial_success", "abstained"} <= kinds


def test_tools_tell_the_truth() -> None:
    code = (LIBRARY / "heapq.py").read_text(encoding="utf-8")
    result, latency = call_tool("read_file", {"path": "heapq.py"})
    assert isinstance(result, StepSuccess)
    assert result.output["lines"] == code.count("\n")
    assert latency > 0
    found, _ = call_tool("search", {"path": "heapq.py", "pattern": "^def heappush"})
    assert isinstance(found, StepSuccess)
    assert found.output["first_lines"][0] == code[: code.index("def heappush")].count("\n") + 1
    missing, _ = call_tool("read_file", {"path": "no/such/file.py"})
    assert "FileNotFoundError" in getattr(missing, "message", "")


async def test_an_agent_goes_on_behind_what_the_log_holds_without_calling_a_tool_again() -> None:
    assignment = plan_fleet(1, 5)[0]
    whole, outcome = results_of(assignment)
    async with open_memory(":memory:") as memory:
        first = await memory.start_episode("whole")
        assert await work(first, assignment.start_program(), (), lambda *_: None) == outcome
        steps = (await first.get()).steps
        assert len(steps) == len(whole)
        for held in (0, 1, len(whole) // 2, len(whole)):
            rest = await memory.start_episode("the rest")
            said: list[int] = []

            def on_step(_episode_id: str, seq: int, _digest: str, said: list[int] = said) -> None:
                said.append(seq)

            assert await work(rest, assignment.start_program(), steps[:held], on_step) == outcome
            logged = (await rest.get()).steps
            assert [step.step_number for step in logged] == list(range(held + 1, len(whole) + 1))
            assert said == [step.seq for step in logged]


async def test_an_agent_objects_to_a_past_that_is_not_its_own() -> None:
    assignment = plan_fleet(1, 5)[0]
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("audit")
        await handle.log_step(ExecutionStep("another_tool", result=StepSuccess("x")))
        with pytest.raises(CommandFailed, match="another_tool"):
            await work(handle, assignment.start_program(), (await handle.get()).steps, lambda *_: None)


async def test_the_kill_waits_for_enough_acknowledgements(tmp_path: Path) -> None:
    seen: list[int] = []
    began = time.monotonic()
    ledger, life = await run_and_kill(tmp_path / "memory", agents=6, seed=2, after=12, on_progress=seen.append)
    assert len(ledger.steps) == life.acknowledged >= 12
    assert seen == sorted(seen)
    assert time.monotonic() - began < 30
    with trio.fail_after(100):
        async with open_memory(tmp_path / "memory") as memory:
            assert memory.recovery.records >= 12
