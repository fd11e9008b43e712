"""Where the time of ingest goes: a child logs steps, py-spy looks at it 200 times a second.

Only threads that hold the interpreter are counted, so that what waits does not show. The stacks go to the report; the
pictures are drawn from it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from bench import setting
from bench.workload import start_episodes, step
from stepwell import EpisodeHandle, open_memory

EPISODES, SECONDS, PER_SECOND = 100, 10.0, 200
LOADS = {"log_step": False, "log_step and wait_durable": True}
"""Title, and whether each receipt is awaited."""
LEAST = 0.001
"""A stack with a smaller share of all samples is left out of the report."""


async def _load(path: str, seconds: float, acknowledged: bool) -> None:
    """The child: agents that log steps for so many seconds."""
    async with open_memory(path) as memory:
        handles = await start_episodes(memory, EPISODES)
        end = time.monotonic() + seconds

        async def agent(number: int, handle: EpisodeHandle) -> None:
            count = 0
            while time.monotonic() < end:
                receipt = await handle.log_step(step(number, count))
                count += 1
                if acknowledged:
                    await receipt.wait_durable()

        async with trio.open_nursery() as nursery:
            for number, handle in enumerate(handles):
                nursery.start_soon(agent, number, handle)
        await memory.flush()


def stacks(collapsed: str) -> dict[str, int]:
    """Samples by stack, outermost first, from what py-spy writes: a line has a stack and a number.
    Importing is left out."""
    found: Counter[str] = Counter()
    for line in collapsed.splitlines():
        frames, _, count = line.rpartition(" ")
        if frames and "<frozen importlib" not in frames:
            found[";".join(_named(frame) for frame in frames.split(";"))] += int(count)
    total = sum(found.values())
    return {stack: count for stack, count in found.most_common() if count >= LEAST * total}


def _named(frame: str) -> str:
    """`function (package/module)` of a frame that py-spy calls `function (path:line)`."""
    function, _, place = frame.partition(" (")
    path = place.rstrip(")").partition(":")[0].removesuffix(".py")
    return f"{function} ({path})" if path else function


def shares(by_stack: dict[str, int]) -> tuple[dict[str, float], dict[str, float]]:
    """Of each function the share of samples in which it was at work itself, and in which it was on the stack."""
    total = sum(by_stack.values())
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for stack, count in by_stack.items():
        frames = stack.split(";")
        own[frames[-1]] += count
        whole.update(dict.fromkeys(frames, count))
    return (
        {name: count / total for name, count in own.most_common()},
        {name: count / total for name, count in whole.most_common()},
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One flame graph for each load, on tmpfs if there is one."""
    spy = Path(sys.executable).with_name("py-spy")
    if not spy.exists():
        found = shutil.which("py-spy")
        if found is None:
            print("NOT MEASURED: py-spy is not installed; `pip install --group bench` installs it", file=sys.stderr)
            return {}
        spy = Path(found)
    seconds = SECONDS / 10 if options.quick else SECONDS
    report: dict[str, Any] = {}
    for title, acknowledged in LOADS.items():
        if options.only not in title:
            continue
        with setting.scratch(setting.media()[0][1]) as path:
            raw = path / "stacks"
            child = [sys.executable, "-m", "bench.flame", str(path / "memory"), str(seconds), str(int(acknowledged))]
            command = [str(spy), "record", "--gil", "--function", "--format", "raw", "--rate", str(PER_SECOND)]
            done = subprocess.run([*command, "--output", str(raw), "--", *child], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"py-spy: {done.stderr[-500:]}")
            by_stack = stacks(raw.read_text(encoding="utf-8"))
        own, whole = shares(by_stack)
        report[title] = {"stacks": by_stack, "own": own, "whole": whole}
        rows = [[name, f"{share:.1%}", f"{whole[name]:.1%}"] for name, share in list(own.items())[:15]]
        setting.show(f"{title}: share of the interpreter's time", ["", "by itself", "with what it calls"], rows)
    return report


if __name__ == "__main__":
    trio.run(_load, sys.argv[1], float(sys.argv[2]), sys.argv[3] == "1")
