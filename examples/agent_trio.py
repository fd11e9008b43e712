"""An agent loop under Trio: three agents work at once, one of them fails, and the memory tells how each went.

python examples/agent_trio.py [DIRECTORY]
"""

from __future__ import annotations

import sys

import trio

from stepwell import ExecutionStep, Memory, StepError, StepSuccess, open_memory

TASKS = {"sum the column": [3, 4, 5], "divide the column": [8, 2, 0], "find the maximum": [9, 1, 7]}


def use_tool(task: str, values: list[int]) -> int:
    """What a tool of the agent does; one of them raises."""
    if task.startswith("sum"):
        return sum(values)
    if task.startswith("find"):
        return max(values)
    return values[0] // values[1] // values[2]


async def agent(memory: Memory, task: str, values: list[int]) -> None:
    """One run: the scope writes its ending, also when the tool raises."""
    with trio.move_on_after(10):
        try:
            async with memory.episode(task, domain="arithmetic", agent="calculator") as episode:
                await episode.log_step(ExecutionStep("planner", f"look at {values}", result=StepSuccess("one tool")))
                async with episode.step("calculator", task, parameters={"values": values}) as step:
                    step.output = use_tool(task, values)
                episode.succeed(f"the answer is {step.output}")
        except ZeroDivisionError:
            pass  # the episode ends as a failure and says so; this agent has nothing more to do


async def main(directory: str) -> None:
    """Open the memory, run the agents, and show what it kept."""
    async with open_memory(directory) as memory:
        async with trio.open_nursery() as nursery:
            for task, values in TASKS.items():
                nursery.start_soon(agent, memory, task, values)
        ids = [episode_id async for episode_id in memory.episode_ids()]
        for episode in sorted(await memory.get_episodes(ids), key=lambda episode: episode.task_description):
            failed = sum(isinstance(step.result, StepError) for step in episode.steps)
            ending = type(episode.outcome).__name__
            print(f"{episode.task_description}: {ending}, {len(episode.steps)} steps, {failed} failed")


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else ":memory:")
