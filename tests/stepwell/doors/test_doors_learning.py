"""What was learned, through the doors of asyncio and of plain code."""

from __future__ import annotations

import asyncio
from pathlib import Path

import stepwell.aio
import stepwell.sync
from stepwell import ExecutionStep, Failure, StepError, StepSuccess, Success, TaskContext

STEPS = [
    ExecutionStep("sql", "SELECT", {"q": "SELECT 1 FROM a"}, StepError("Table 'a' doesn't exist")),
    ExecutionStep("sql", "SHOW", {"q": "SHOW TABLES"}, StepSuccess("b")),
]
CONTEXT = TaskContext(domain="shop")


def test_plain_code_asks_for_advice_and_says_what_became_of_it(tmp_path: Path) -> None:
    with stepwell.sync.open_memory(tmp_path) as memory:
        for outcome in (Success(), Failure()):
            handle = memory.start_episode("List the orders", context=CONTEXT)
            handle.log_steps(STEPS)
            handle.complete(outcome)
        found = memory.recommend("List the orders", CONTEXT)
        memory.feedback(found.id, applied=[found.advice[0].pattern_id], outcome=Success())
        assert memory.explain(found.advice[0].pattern_id).advice.helped == 1.0
        skill = memory.skills.store("list orders", steps=["SHOW TABLES"])
        assert memory.skills.find("list the orders")[0].skill == skill


def test_asyncio_asks_for_advice_too(tmp_path: Path) -> None:
    async def ask() -> None:
        async with stepwell.aio.open_memory(tmp_path) as memory:
            handle = await memory.start_episode("List the orders", context=CONTEXT)
            await handle.log_steps(STEPS)
            await handle.complete(Success())
            assert (await memory.recommend("List the orders", CONTEXT)).advice
            assert await memory.playbook("List the orders", CONTEXT) is not None
            assert (await memory.skills.store("list orders")).uses == 0

    asyncio.run(ask())
