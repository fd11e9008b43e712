"""`stepwell search`, for people and for programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stepwell import ExecutionStep, Failure, StepSuccess, Success, open_memory
from tests.stepwell.cli.cli_support import run, run_json


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("search") / "memory"

    async def fill() -> None:
        async with open_memory(directory) as memory:
            for name, task, agent, outcome in (
                ("solved", "Count the flights to Boston", "a", Success("eleven")),
                ("failed", "Count the flights to Boston", "b", Failure("no\x1b[31m such table")),
                ("dogs", "How many dogs are there?", "a", Success()),
            ):
                handle = await memory.start_episode(task, episode_id=name, agent=agent, domain="sql")
                await handle.log_step(ExecutionStep("mysql", "ask", {"command": "SELECT 1"}, StepSuccess("11")))
                await handle.complete(outcome)

    trio.run(fill)
    return directory


def test_hits_come_best_first_and_say_why(filled: Path) -> None:
    shown = run("search", "flights arriving in Boston", "--dir", filled)
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].endswith("solved  success")
    assert lines[1] == "      Count the flights to Boston"
    assert "      Worked: mysql: ask SELECT 1" in lines
    assert any("why: " in line and "it shares the words boston, flights" in line for line in lines)
    assert "dogs" not in shown.output
    assert "\x1b[31m" not in shown.output


def test_for_programs_and_with_conditions(filled: Path) -> None:
    found = run_json("search", "flights", "--outcome", "failure", "--domain", "sql", "--dir", filled)
    assert [hit["episode_id"] for hit in found["hits"]] == ["failed"]
    hit = found["hits"][0]
    assert hit["outcome"] == "failure"
    assert sum(part["points"] for part in hit["parts"]) == pytest.approx(hit["score"])
    assert {part["name"] for part in hit["parts"]} == {"relevance", "context", "outcome", "reward", "recency"}
    assert (found["ranked_by"], found["why_empty"], found["note"]) == ("lexical", "", "")
    found = run_json("search", "flights", "--agent", "a", "--dir", filled)
    assert [hit["episode_id"] for hit in found["hits"]] == ["solved"]


def test_nothing_found_says_why(filled: Path) -> None:
    shown = run("search", "zebra", "--dir", filled)
    assert shown.exit_code == 0
    assert shown.output == ("nothing found: none of 3 finished episodes has any of the words of the query: zebra\n")
