"""Export and import of organised episodes: the same episodes and the same catalog in another memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from stepwell import Episode, ListedEpisode, Memory, Success, events, open_memory
from tests.stepwell.cli.cli_support import JsonObject, complete, exported, run, run_json, start, write_lines
from tests.support import step


async def organise(memory: Memory) -> None:
    """Three episodes: one that leads to a later one, one that was handed over, one that is organised behind its end."""
    for name in ("a", "b"):
        await memory.start_episode(f"task {name}", episode_id=name, tags=["net", "Straße"], metadata={"m": 1})
        await memory.log_step(name, step(1))
    await memory.add_tags("a", ["x", "y"], actor="ann")
    await memory.remove_tags("a", ["STRASSE"])
    await memory.set_tags("b", ["only", "ü"])
    await memory.update_episode("a", description="anders", metadata={"n": [1, 2.5]}, remove_metadata=["m"])
    place = await memory.checkpoint("a", "pause", note="ü\nhere", actor="ann")
    await memory.log_step("a", step(2))
    pack = await memory.handoff(place.checkpoint_id)
    await memory.continue_from(pack, episode_id="c", agent="bob")
    await memory.relate("a", "b", "related_to")
    await memory.unrelate("a", "b", "related_to")
    await memory.complete_episode("b", Success("done"))
    await memory.archive("b", actor="boss")
    await memory.relate("b", "a", "depends_on", priority=9, reason="why", metadata={"k": 1})
    await memory.update_episode("b", metadata={"late": True})
    await memory.archive("a")
    await memory.restore("a")
    await memory.relate("a", "c", "blocks")  # the later one; it is the last record


async def everything(directory: Path) -> tuple[list[Any], list[Any], list[Any]]:
    async with open_memory(directory) as memory:
        names = [name async for name in memory.episode_ids()]
        episodes = [await memory.get_episode(name) for name in names]
        edges = [edge for name in names for edge in await memory.related(name)]
        listed = (await memory.list_episodes(order="oldest", at_least=memory._journal.durable_lsn)).items
        return [plain(it) for it in episodes], [plain(it) for it in listed], [plain(it) for it in edges]


def plain(it: Any) -> dict[str, Any]:
    """What does not tell when it was stored, and from where."""
    found = msgspec.to_builtins(it)
    if isinstance(it, Episode):
        found["archived_at"] = it.archived_at is not None
    if isinstance(it, Episode | ListedEpisode):
        for name in ("start_time", "end_time", "last_time"):
            found.pop(name, None)
        found.pop("last_seq", None)  # a relationship that is there no more is not written
    steps = found["steps"] if isinstance(it, Episode) else []
    for part in (found, *found.get("checkpoints", ()), *steps):
        for name in ("created_at", "time", "time_ns", "timestamp", "lsn"):
            part.pop(name, None)
    for name in ("reflection", "summary", "reward", "outcome_metadata"):  # worked out anew, from how long it took
        found.pop(name, None)
    for name in ("source", "task_id", "trial"):  # of the form
        found.get("metadata", {}).pop(name, None)
    return dict(found)


@pytest.fixture
def organised(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with open_memory(tmp_path / "m") as memory:
            await organise(memory)

    trio.run(fill)
    return tmp_path / "m"


def test_what_is_exported_and_imported_is_the_same_episodes_and_the_same_catalog(
    organised: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    assert run("export", out, "--dir", organised).exit_code == 0
    result = run_json("import", out, "--dir", other)
    assert not result.get("bad_lines")
    assert trio.run(everything, other) == trio.run(everything, organised)
    again = tmp_path / "again.jsonl"
    assert run("export", again, "--dir", other).exit_code == 0
    lines = [sorted(path.read_text().splitlines()) for path in (out, again)]
    assert lines[0] == lines[1]


def test_importing_again_changes_nothing_also_behind_changes_of_ones_own(organised: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out.jsonl", tmp_path / "other"
    run("export", out, "--dir", organised)
    run("import", out, "--dir", other)

    async def change() -> None:
        async with open_memory(other) as memory:
            await memory.add_tags("a", ["own"])
            await memory.restore("b")

    trio.run(change)
    before = trio.run(everything, other)
    assert run("import", out, "--dir", other).exit_code == 0
    assert trio.run(everything, other) == before


def test_an_import_that_goes_on_makes_a_change_anew_that_was_made_and_undone_before(tmp_path: Path) -> None:
    archived: JsonObject = {"event": "organise", "episode": "a", "change": "archived"}
    restored: JsonObject = {"event": "organise", "episode": "a", "change": "restored"}
    lines = [start("a"), complete("a"), archived, restored, archived]
    once = tmp_path / "once"
    run("import", write_lines(tmp_path / "all.jsonl", lines), "--dir", once)
    for cut in range(1, len(lines)):
        memory = tmp_path / f"cut-{cut}"
        run("import", write_lines(tmp_path / f"{cut}.jsonl", lines[:cut]), "--dir", memory)
        for _ in range(2):
            run("import", tmp_path / "all.jsonl", "--dir", memory)
            assert exported(memory, tmp_path / "out.jsonl") == exported(once, tmp_path / "once.jsonl")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"change": "likes"}, "change:"),
        ({"change": "tagged", "added": "x"}, "tagged:"),
        ({"change": "related", "to_episode": "b", "kind": "likes"}, "related:"),
        ({"change": "related", "to_episode": "nobody", "kind": "follows"}, "nobody"),
        ({"change": "tagged", "added": [" "]}, "tag"),
    ],
)
def test_a_bad_change_is_reported_with_its_line(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    start = {"event": "start", "episode": "a", "task": "task"}
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(start) + "\n" + json.dumps({"event": "organise", "episode": "a", **line}) + "\n")
    result = run("import", path, "--dir", tmp_path / "m")
    assert f"{path}:2" in result.output.replace("\n", "")
    assert reason in result.output


@pytest.mark.parametrize("form", ["jsonl", "otlp"])
def test_runs_that_were_recorded_are_exported_and_imported(tmp_path: Path, form: str) -> None:
    async def record() -> None:
        async with open_memory(tmp_path / "m") as memory:
            call = events.ToolCall("search", {"q": "x"}, events.ToolOk(["a"]))
            await memory.episodic.record_many("run-1", [events.Started(agent="planner"), call, events.Completed()])
            await memory.episodic.record_many("run-2", [call, events.Failed("no money")])  # without a start
            await memory.episodic.record("run-3", events.Started(agent=""))
            await memory.add_tags("run-3", ["x"] if form == "jsonl" else [])

    trio.run(record)
    out, other, again = tmp_path / "out.jsonl", tmp_path / "other", tmp_path / "again.jsonl"
    run_json("export", out, "--format", form, "--dir", tmp_path / "m")
    report = run_json("import", out, "--dir", other)
    assert (report["episodes"], report["steps"], report["endings"], report["bad_lines"]) == (3, 2, 2, 0)
    assert run_json("import", out, "--dir", other)["added"] == 0
    if form == "jsonl":
        run_json("export", again, "--dir", other)
        assert sorted(again.read_text().splitlines()) == sorted(out.read_text().splitlines())


def test_an_episode_without_a_task_that_is_no_recorded_run_is_refused(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [start("a"), start("b") | {"task": ""}])
    problems = run_json("import", source, "--dir", tmp_path / "m")["files"][0]["problems"]
    assert [(problem["line"], problem["reason"]) for problem in problems] == [(2, "task: must not be empty")]
