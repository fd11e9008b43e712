"""The same agent loop in plain code: three threads work at once, one of them fails, and the memory tells how each went.

python examples/agent_sync.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from stepwell import ExecutionStep, StepError, StepSuccess
from stepwell.sync import Memory, open_memory

TASKS = {"sum the column": [3, 4, 5], "divide the column": [8, 2, 0], "find the maximum": [9, 1, 7]}


def use_tool(task: str, values: list[int]) -> int:
    """What a tool of the agent does; one of them raises."""
    if task.startswith("sum"):
        return sum(values)
    if task.startswith("find"):
        return max(values)
    return values[0] // values[1] // values[2]


def agent(memory: Memory, task: str, values: list[int]) -> None:
    """One run: the scope writes its ending, also when the tool raises."""
    try:
        with memory.episode(task, domain="arithmetic", agent="calculator") as episode:
            episode.log_step(ExecutionStep("planner", f"look at {values}", result=StepSuccess("one tool")))
            with episode.step("calculator", task, parameters={"values": values}) as step:
                step.output = use_tool(task, values)
            episode.succeed(f"the answer is {step.output}")
    except ZeroDivisionError:
        pass  # the episode ends as a failure and says so; this agent has nothing more to do


def main(directory: str) -> None:
    """Open the memory, run the agents, and show what it kept."""
    with open_memory(directory) as memory:
        with ThreadPoolExecutor() as pool:
            running = [pool.submit(agent, memory, task, values) for task, values in TASKS.items()]
        for run in running:
            run.result()
        ids = list(memory.episode_ids())
        for episode in sorted(memory.get_episodes(ids), key=lambda episode: episode.task_description):
            failed = sum(isinstance(step.result, StepError) for step in episode.steps)
            ending = type(episode.outcome).__name__
            print(f"{episode.task_description}: {ending}, {len(episode.steps)} steps, {failed} failed")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ":memory:")
