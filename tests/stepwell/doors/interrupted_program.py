"""A plain or asyncio program that logs until Ctrl-C; it prints each acknowledged step.

python interrupted_program.py sync|aio DIRECTORY
"""

from __future__ import annotations

import asyncio
import signal
import sys

import stepwell.aio
import stepwell.sync
from stepwell import ExecutionStep, StepSuccess


def step(number: int) -> ExecutionStep:
    """The step that tells its number."""
    return ExecutionStep("tool", f"action {number}", result=StepSuccess("ok"))


def in_plain_code(path: str) -> None:
    """Log, and wait until each step is durable."""
    with stepwell.sync.open_memory(path) as memory, memory.episode("task", episode_id="e") as episode:
        for number in range(10**9):
            episode.log_step(step(number)).wait_durable()
            print(number, flush=True)


async def in_asyncio(path: str) -> None:
    """The same."""
    async with stepwell.aio.open_memory(path) as memory, memory.episode("task", episode_id="e") as episode:
        for number in range(10**9):
            await (await episode.log_step(step(number))).wait_durable()
            print(number, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if sys.argv[1] == "sync":
            in_plain_code(sys.argv[2])
        else:
            asyncio.run(in_asyncio(sys.argv[2]))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
