"""Does advice help? Learn from ten agents, and ask for the tasks of six others that were not seen.

The question is the task of an agent that the memory has no episode of; the answer is three episodes. It is a hit if one
of them is a run of that very task that solved it; in the second column, a run that solved any task of the same
database. "Most recent" gives the last episodes of the memory, "random" three by chance. Tasks that none of the ten
solved cannot be a hit of the first kind, so its ceiling is told. Nothing of what the six did is known to the memory.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.learning import data
from stepwell import ExecutionStep, Failure, StepError, StepSuccess, Success, open_memory

LEARNED_FROM = 10
HITS = 3


class Run(NamedTuple):
    """One episode of an agent."""

    task: str
    database: str
    agent: str
    solved: bool
    lines: list[dict[str, Any]]


class Share(NamedTuple):
    """How many of how many, with Wilson's 95 % interval."""

    hits: int
    of: int

    def interval(self) -> tuple[float, float]:
        """From and to."""
        z, share = 1.96, self.hits / self.of
        centre = share + z * z / (2 * self.of)
        spread = z * math.sqrt(share * (1 - share) / self.of + z * z / (4 * self.of * self.of))
        whole = 1 + z * z / self.of
        return (centre - spread) / whole, (centre + spread) / whole

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.hits / self.of:.3f} [{low:.3f}, {high:.3f}]"


def runs() -> list[Run]:
    """All runs of the SQL agents, in the order of the file."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in data.read("intercode-sql"):
        lines[line["episode"]].append(line)
    found: list[Run] = []
    for events in lines.values():
        start, end = events[0], events[-1]
        database = next((tag for tag in start["tags"] if tag.startswith("db:")), "")
        solved = end["event"] == "complete" and end["outcome"] == "success"
        found.append(Run(start["task"], database, start["agent"], solved, events))
    return found


async def measure() -> dict[str, Any]:
    """The figures."""
    everything = runs()
    agents = sorted({run.agent for run in everything})
    known = [run for run in everything if run.agent in agents[:LEARNED_FROM]]
    asked = [(run.task, run.database) for run in everything if run.agent not in agents[:LEARNED_FROM]]
    solved_tasks = {run.task for run in known if run.solved}
    async with open_memory(":memory:") as memory:
        by_id: dict[str, Run] = {}
        for number, run in enumerate(known):
            start = run.lines[0]
            handle = await memory.start_episode(
                run.task, episode_id=f"r{number}", domain=start["domain"], tags=start["tags"], agent=run.agent
            )
            if steps := [_step(line) for line in run.lines if line["event"] == "step"]:
                await handle.log_steps(steps)
            await handle.complete(Success() if run.solved else Failure("the answer was wrong"))
            by_id[handle.episode_id] = run
        answers: dict[str, list[str]] = {}
        for task, _database in asked:
            if task not in answers:
                found = await memory.retrieve_relevant_context(task, limit=HITS)
                answers[task] = [hit.episode_id for hit in found]
    rng = random.Random(5)
    names = list(by_id)
    ways: dict[str, list[list[Run]]] = {
        "retrieve_relevant_context": [[by_id[name] for name in answers[task]] for task, _database in asked],
        "most recent": [known[-HITS:] for _ in asked],
        "random": [[by_id[name] for name in rng.sample(names, HITS)] for _ in asked],
    }
    return {
        "agents": {"learned from": agents[:LEARNED_FROM], "asked for": agents[LEARNED_FROM:]},
        "episodes": len(known),
        "questions": len(asked),
        "distinct tasks": len(answers),
        "ceiling": sum(task in solved_tasks for task, _database in asked) / len(asked),
        "ways": {name: _shares(asked, given) for name, given in ways.items()},
    }


def _shares(asked: Sequence[tuple[str, str]], given: Sequence[Sequence[Run]]) -> dict[str, Share]:
    pairs = list(zip(asked, given, strict=True))
    return {
        "task": Share(sum(any(r.solved and r.task == task for r in got) for (task, _), got in pairs), len(pairs)),
        "database": Share(sum(any(r.solved and r.database == db for r in got) for (_, db), got in pairs), len(pairs)),
    }


def _step(line: dict[str, Any]) -> ExecutionStep:
    result = line["result"]
    return ExecutionStep(
        line["tool"],
        line["action"],
        line["parameters"],
        StepSuccess(result["success"]) if "success" in result else StepError(result["error"]),
        reward=line["reward"],
    )
