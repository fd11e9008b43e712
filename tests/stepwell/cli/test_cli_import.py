"""`stepwell import`: nothing twice, nothing lost, and every bad line is named."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.stepwell.cli.cli_support import (
    JsonObject,
    by_episode,
    child_environment,
    complete,
    episode_events,
    exported,
    run,
    run_json,
    start,
    step,
    write_lines,
)


def some_episodes(count: int, steps: int = 4) -> list[JsonObject]:
    return [event for number in range(count) for event in episode_events(f"run/{number}", steps)]


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.jsonl.gz"])
def test_a_file_is_imported_and_exported_unchanged(tmp_path: Path, name: str) -> None:
    events = some_episodes(150)
    source, memory = write_lines(tmp_path / name, events), tmp_path / "memory"
    report = run_json("import", source, "--dir", memory)
    assert (report["episodes"], report["steps"], report["endings"]) == (150, 600, 150)
    assert (report["added"], report["present"], report["bad_lines"]) == (900, 0, 0)
    assert exported(memory, tmp_path / name.replace("runs", "out")) == events


def test_importing_again_adds_nothing(tmp_path: Path) -> None:
    events = [*some_episodes(5), *episode_events("open", 3, ended=False)]
    source, memory = write_lines(tmp_path / "runs.jsonl", events), tmp_path / "memory"
    run_json("import", source, "--dir", memory)
    for files in ((source,), (source, source)):
        report = run_json("import", *files, "--dir", memory)
        assert report["added"] == 0
        assert report["present"] == len(events) * len(files)
        assert report["bad_lines"] == 0
    assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(events)


def test_the_same_episodes_twice_in_one_file_are_stored_once(tmp_path: Path) -> None:
    events = some_episodes(3)
    source = write_lines(tmp_path / "runs.jsonl", events + events)
    report = run_json("import", source, "--dir", tmp_path / "memory")
    assert (report["added"], report["present"], report["bad_lines"]) == (len(events), len(events), 0)
    assert by_episode(exported(tmp_path / "memory", tmp_path / "out.jsonl")) == by_episode(events)


def test_an_import_cut_off_after_any_event_goes_on_there(tmp_path: Path) -> None:
    events = [*episode_events("a", 2), *episode_events("b", 0), *episode_events("c", 3, ended=False)]
    whole = write_lines(tmp_path / "whole.jsonl", events)
    for cut in range(1, len(events)):
        memory = tmp_path / f"memory-{cut}"
        run_json("import", write_lines(tmp_path / "part.jsonl", events[:cut]), "--dir", memory)
        report = run_json("import", whole, "--dir", memory)
        assert (report["present"], report["added"], report["bad_lines"]) == (cut, len(events) - cut, 0)
        assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(events)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_import_that_was_killed_is_finished_by_the_next(tmp_path: Path, seed: int) -> None:
    events = some_episodes(800, steps=10)
    source, memory = write_lines(tmp_path / "runs.jsonl.gz", events), tmp_path / "memory"
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwell", "import", source, "--dir", memory], env=child_environment()
    )
    deadline = time.monotonic() + 30
    while not list(memory.glob("*.seg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the import was over before it was killed"
    report = run_json("import", source, "--dir", memory)
    assert report["present"] > 0
    assert report["present"] + report["added"] == len(events)
    assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(events)


def test_episodes_may_be_mixed(tmp_path: Path) -> None:
    queues = [episode_events(f"run/{number}", number % 7) for number in range(200)]
    rng, events = random.Random(7), []
    while queues:
        queue = rng.choice(queues)
        events.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    source, memory = write_lines(tmp_path / "mixed.jsonl", events), tmp_path / "memory"
    half = write_lines(tmp_path / "half.jsonl", events[: len(events) // 2])
    first = run_json("import", half, "--dir", memory)
    second = run_json("import", source, "--dir", memory)
    assert (first["added"], second["present"]) == (len(events) // 2, len(events) // 2)
    assert first["bad_lines"] == second["bad_lines"] == 0
    assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(events)


def test_an_episode_longer_than_one_portion(tmp_path: Path) -> None:
    events = episode_events("long", 3_000)
    memory = tmp_path / "memory"
    run_json("import", write_lines(tmp_path / "long.jsonl", events), "--dir", memory)
    assert exported(memory, tmp_path / "out.jsonl") == events


BAD = [
    (2, "nonsense", "not JSON"),
    (4, '{"event": "step", "episode": "a", "tool": ""}', "tool: must not be empty"),
    (5, '{"event": "step", "episode": "a", "tool": "\\ud800"}', "surrogates"),
    (7, '{"event": "step", "episode": "unknown", "tool": "t"}', "no start line of episode 'unknown'"),
    (9, '{"event": "step", "episode": "a", "tool": "late"}', "has ended"),
    (10, '{"event": "complete", "episode": "a", "outcome": "failure"}', "has ended"),
    (11, '{"event": "start", "episode": "bad", "task": "t", "tags": ["\\u0001x"]}', "tag"),
    (12, '{"event": "step", "episode": "bad", "tool": "t"}', "start line of its episode 'bad' was refused"),
    (13, '{"query_id": 1}', 'no "event" field'),
]


def file_with_bad_lines(folder: Path) -> tuple[Path, list[JsonObject]]:
    good: dict[int, JsonObject] = {
        1: start("a"),
        3: step("a", 1),
        6: step("a", 2),
        8: complete("a", steps=5),
        14: start("b"),
        15: step("b", 1, result={"success": "x" * 2_000_000}),
        16: step("b", 2),
    }
    lines: dict[int, JsonObject | str] = {**good, **{number: line for number, line, _ in BAD}}
    del good[15]
    return write_lines(folder / "some-bad.jsonl", [lines[number] for number in sorted(lines)]), list(good.values())


def test_bad_lines_are_skipped_named_and_counted(tmp_path: Path) -> None:
    source, good = file_with_bad_lines(tmp_path)
    memory = tmp_path / "memory"
    for added, present in ((len(good), 0), (0, len(good))):
        report = run_json("import", source, "--dir", memory)
        assert (report["added"], report["present"], report["bad_lines"]) == (added, present, len(BAD) + 1)
        problems = {problem["line"]: problem for problem in report["files"][0]["problems"]}
        assert sorted(problems) == sorted([*(number for number, _, _ in BAD), 15])
        for number, _, reason in BAD:
            assert reason in problems[number]["reason"]
            assert problems[number]["file"] == str(source)
        assert "2,000,000 bytes exceed" in problems[15]["reason"]
    assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(good)


def test_people_see_the_bad_lines_on_stderr_and_exit_code_0(tmp_path: Path) -> None:
    source, _ = file_with_bad_lines(tmp_path)
    result = run("import", source, "--dir", tmp_path / "memory")
    assert result.exit_code == 0
    assert f"{source}:2: not JSON" in result.stderr
    assert f"skipped {len(BAD) + 1} bad lines" in result.stdout


def test_strict_stops_at_the_first_bad_line(tmp_path: Path) -> None:
    events = some_episodes(3)
    lines: list[JsonObject | str] = [*events[:8], "nonsense", *events[8:]]
    source, memory = write_lines(tmp_path / "runs.jsonl", lines), tmp_path / "memory"
    result = run("import", source, "--strict", "--dir", memory)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"{source}:9: not JSON" in result.stderr
    assert by_episode(exported(memory, tmp_path / "out.jsonl")) == by_episode(events[:8])
    report = run_json("import", source, "--strict", "--dir", memory, code=1)
    assert report["error"]["message"].startswith("stopped at a bad line")
    assert (report["added"], report["bad_lines"]) == (0, 1)
    assert run("import", write_lines(tmp_path / "good.jsonl", events), "--strict", "--dir", memory).exit_code == 0


def test_strict_stops_at_a_line_that_only_the_memory_refuses(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [start("a"), step("a", tool="\ud800"), step("a", 2), complete("a")])
    result = run("import", source, "--strict", "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert exported(tmp_path / "memory", tmp_path / "out.jsonl") == [start("a")]


def test_an_ending_that_is_refused_leaves_the_episode_open(tmp_path: Path) -> None:
    deep: JsonObject = {}
    for _ in range(40):
        deep = {"deeper": deep}
    good = [start("a"), step("a", 1), complete("a", steps=1)]
    source = write_lines(tmp_path / "runs.jsonl", [*good[:2], complete("a", meta=deep), good[2]])
    for added in (3, 0):
        report = run_json("import", source, "--dir", tmp_path / "memory")
        assert (report["added"], report["bad_lines"]) == (added, 1)
        assert report["files"][0]["problems"][0]["line"] == 3
    assert exported(tmp_path / "memory", tmp_path / "out.jsonl") == good


def test_an_episode_that_is_there_and_went_another_way_is_left_alone(tmp_path: Path) -> None:
    memory, events = tmp_path / "memory", episode_events("a", 3)
    run_json("import", write_lines(tmp_path / "first.jsonl", events), "--dir", memory)
    for changed, reason in (
        ([start("a", task="another"), *events[1:]], "began differently"),
        ([events[0], step("a", 1, action="another"), *events[1:]], "goes on differently"),
        ([*events[:4], complete("a", steps=3, reward=0.5)], "goes on differently"),
        ([*events[:3], complete("a", steps=3)], "goes on differently"),
    ):
        report = run_json("import", write_lines(tmp_path / "second.jsonl", changed), "--dir", memory)
        assert report["added"] == 0
        assert reason in report["files"][0]["problems"][0]["reason"]
    assert exported(memory, tmp_path / "out.jsonl") == events


def test_files_without_a_single_event_are_refused_before_anything_is_stored(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", some_episodes(2))
    for name, lines in (
        ("retrieval.jsonl.gz", ['{"query_id": "q", "query": "?"}'] * 30),
        ("empty.jsonl", []),
        ("almost.jsonl", ['{"event": "step", "episode": "e"}']),
    ):
        other = write_lines(tmp_path / name, list(lines))
        memory = tmp_path / f"memory-{name}"
        result = run("import", good, other, "--dir", memory)
        assert result.exit_code == 1
        assert str(other) in result.stderr
        assert "not a single event line" in result.stderr
        assert not memory.exists()
        failed = run_json("import", good, other, "--dir", memory, code=1)
        assert failed["file"] == str(other)
        assert not memory.exists()


def test_with_redact_no_secret_is_stored_and_importing_again_finds_all_of_it_there(tmp_path: Path) -> None:
    token = "sk-" + "a1B2" * 12
    events = [
        start("a", task=f"use {token} to log in"),
        step("a", 1, parameters={"api_key": "hunter2", "n": 5}, result={"success": f"logged in with {token}"}),
        complete("a", steps=1),
    ]
    file, memory = write_lines(tmp_path / "events.jsonl", events), tmp_path / "memory"
    report = run_json("import", file, "--redact", "--dir", memory)
    assert (report["added"], report["redacted"]) == (3, 3)
    text = json.dumps(exported(memory, tmp_path / "out.jsonl"))
    assert "hunter2" not in text
    assert token not in text
    assert text.count("[redacted]") == 3
    again = run_json("import", file, "--redact", "--dir", memory)
    assert (again["added"], again["present"], again["bad_lines"]) == (0, 3, 0)
    plain = run_json("import", file, "--dir", tmp_path / "plain")
    assert "redacted" not in plain
    assert "hunter2" in json.dumps(exported(tmp_path / "plain", tmp_path / "plain.jsonl"))


def test_with_redact_no_field_of_a_line_keeps_a_secret(tmp_path: Path) -> None:
    token = "sk-" + "a1B2" * 12
    events = [
        start("a", note=token, agent=f"agent {token}", db={"password": "hunter2"}, **{f"key {token}": 1}),
        step("a", 1, observation=f"got {token}", api_key="hunter2"),
        {"event": "organise", "episode": "a", "change": "updated", "metadata": {"cookie": "hunter2"}},
        complete("a", outcome="failure", steps=1, outcome_label=token, outcome_detail={"reason": f"no {token}"}),
    ]
    file, memory = write_lines(tmp_path / "events.jsonl", events), tmp_path / "memory"
    report = run_json("import", file, "--redact", "--dir", memory)
    assert (report["added"], report["bad_lines"], report["redacted"]) == (4, 0, 9)
    text = json.dumps(exported(memory, tmp_path / "out.jsonl"))
    assert "hunter2" not in text
    assert token not in text
    again = run_json("import", file, "--redact", "--dir", memory)
    assert (again["added"], again["present"], again["bad_lines"]) == (0, 4, 0)


def test_all_files_that_are_foreign_are_named_at_once(tmp_path: Path) -> None:
    good = write_lines(tmp_path / "good.jsonl", some_episodes(2))
    foreign = [write_lines(tmp_path / f"foreign{n}.jsonl", ['{"query": "?"}']) for n in range(3)]
    result = run("import", foreign[0], good, *foreign[1:], "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert f"leave these out as well: {foreign[1]}, {foreign[2]}." in result.stderr
    assert str(good) not in result.stderr
    result = run("import", tmp_path, "--dir", tmp_path / "memory")
    assert f"name the files in it, {tmp_path}/*.jsonl for instance" in result.stderr


@pytest.mark.parametrize("make", ["absent", "directory", "broken gzip"])
def test_files_that_cannot_be_read_are_refused_before_anything_is_stored(tmp_path: Path, make: str) -> None:
    bad = tmp_path / "bad.jsonl.gz"
    if make == "directory":
        bad.mkdir()
    elif make == "broken gzip":
        bad.write_bytes(b"\x1f\x8b" + bytes(50))
    good = write_lines(tmp_path / "good.jsonl", some_episodes(2))
    result = run("import", good, bad, "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert str(bad) in result.stderr
    assert not (tmp_path / "memory").exists()


def test_a_file_that_breaks_off_is_imported_as_far_as_it_goes_and_reported(tmp_path: Path) -> None:
    rng = random.Random(1)
    events = [start("a"), *(step("a", n, result={"success": rng.randbytes(200).hex()}) for n in range(1, 3_000))]
    whole = write_lines(tmp_path / "runs.jsonl.gz", events)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = run("import", whole, "--dir", tmp_path / "memory")
    assert result.exit_code == 1
    assert f"{whole}: cannot be read beyond line" in result.stderr
    there = exported(tmp_path / "memory", tmp_path / "out.jsonl")
    assert 500 < len(there) < len(events)
    assert there == events[: len(there)]


def test_a_memory_in_use_is_not_touched(tmp_path: Path) -> None:
    source, memory = write_lines(tmp_path / "runs.jsonl", some_episodes(1)), tmp_path / "memory"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, trio, stepwell\n"
            "async def hold():\n"
            "    async with stepwell.open_memory(sys.argv[1]):\n"
            "        print('open', flush=True)\n"
            "        await trio.sleep_forever()\n"
            "trio.run(hold)\n",
            memory,
        ],
        env=child_environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        result = run("import", source, "--dir", memory)
        assert result.exit_code == 1
        assert result.stderr.startswith("stepwell: ")
        assert run_json("import", source, "--dir", memory, code=1)["error"]["type"] == "LogLocked"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def test_the_directory_comes_from_the_environment(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "runs.jsonl", some_episodes(1))
    assert run("import", source, env={"STEPWELL_DIR": str(tmp_path / "from-env")}).exit_code == 0
    assert os.path.isdir(tmp_path / "from-env")
