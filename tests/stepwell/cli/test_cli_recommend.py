"""`stepwell recommend`: what a memory has learned, asked for on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from stepwell import Success, open_memory
from stepwell.errors import NotFound
from tests.stepwell.cli.cli_support import complete, run, run_json, start, step, write_lines

MISSING = {"error": "Table 'orders' doesn't exist"}


@pytest.fixture(scope="module")
def memory_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("learned")
    events = []
    for number in range(6):
        name = f"e{number}"
        events += [start(name, task="List the orders of March", domain="sql", tags=["db:shop"])]
        events += [step(name, 1, tool="sql", action="SELECT", parameters={"q": "SELECT * FROM orders"}, result=MISSING)]
        if number % 2:
            events += [step(name, 2, tool="sql", action="SHOW", parameters={"q": "SHOW TABLES"})]
            events += [step(name, 3, tool="sql", action="SELECT", parameters={"q": "SELECT * FROM order_list"})]
            events += [complete(name, steps=3)]
        else:
            again = step(name, 2, tool="sql", action="SELECT", parameters={"q": "SELECT * FROM orders"}, result=MISSING)
            events += [again, complete(name, steps=2, outcome="failure", reward=0.0)]
    memory = directory / "memory"
    assert run("import", write_lines(directory / "runs.jsonl", events), "--dir", memory).exit_code == 0
    return memory


ASKED = ("recommend", "List the orders of April", "--domain", "sql", "--tag", "db:shop")


def test_the_answer_says_what_to_do_what_to_avoid_and_how_it_was_solved_before(memory_at: Path) -> None:
    result = run(*ASKED, "--dir", memory_at)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "domain:sql, tag:db:shop: 50 % of 6 tasks solved (95 % interval 19–81 %)" in lines
    assert "failed: SELECT * FROM orders" in lines
    assert "worked: SHOW TABLES" in lines
    assert any(
        line.endswith("Do not call 'sql select' again unchanged after «Table '…' doesn't exist»") for line in lines
    )
    assert lines[lines.index("Solved before") + 2] == "SELECT * FROM order_list"


def test_for_programs_it_is_one_json_value_and_nothing_is_stored(memory_at: Path) -> None:
    found = run_json(*ASKED, "--limit", "2", "--dir", memory_at)
    assert len(found["advice"]) == 2
    assert found["id"] == ""
    for advice in found["advice"]:
        assert advice["score"] == pytest.approx(sum(advice["parts"].values()))
    assert found == run_json(*ASKED, "--limit", "2", "--dir", memory_at) | {
        name: found[name] for name in ("created_at", "advice")
    }


def test_what_was_recorded_takes_feedback(memory_at: Path) -> None:
    found = run_json(*ASKED, "--record", "--dir", memory_at)
    assert f"Stored as {found['id']}" not in run(*ASKED, "--dir", memory_at).stdout

    async def tell() -> None:
        async with open_memory(memory_at) as memory:
            await memory.feedback(found["id"], applied=[found["advice"][0]["pattern"]["pattern_id"]], outcome=Success())
            with pytest.raises(NotFound):
                await memory.feedback("other")

    trio.run(tell)
    assert "applied as advice 1 times, and helped 1" in run(*ASKED, "--limit", "10", "--dir", memory_at).stdout


def test_where_nothing_was_learned_it_says_why(memory_at: Path) -> None:
    result = run("recommend", "zzz", "--domain", "cooking", "--dir", memory_at)
    assert result.exit_code == 0
    assert "Nothing was learned in the domain 'cooking'" in " ".join(result.stdout.split())
