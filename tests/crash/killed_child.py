"""The child of the kill -9 rounds; a module of its own, which the server that forks the children imports once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

import trio

from stepwell import MemoryConfig, Receipt, open_memory
from tests.crash.media import die_with_parent
from tests.crash.workload import Agent, Report, Work, go_on, run_agents

WORK = Work(agents=40, episodes=1_000_000, steps=60)
SEGMENT_BYTES = 1024 * 1024


async def _see_too_much(agent: Agent, episode: str, numbers: list[int], receipt: Receipt) -> None:
    """What agents do under --broken instead of waiting for a receipt: they take what is accepted for durable."""
    agent.report(["durable", episode, numbers, None])
    await trio.lowlevel.checkpoint()


def reporter(reports: Connection) -> Report:
    """Reports as lines of JSON down a pipe: what is in it outlives this process."""

    def report(text: Sequence[Any]) -> None:
        line = json.dumps(text).encode() + b"\n"
        while line:
            line = line[os.write(reports.fileno(), line) :]

    return report


def live(reports: Connection, directory: str, seed: str, broken: bool) -> None:
    """Log until killed."""
    die_with_parent()
    if broken:
        mock.patch.object(Agent, "_see", _see_too_much).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which then kills this process

    report = reporter(reports)

    async def logging() -> None:
        async with open_memory(directory, config=MemoryConfig(segment_bytes=SEGMENT_BYTES)) as memory:

            async def resume() -> None:
                await go_on(memory, report, seed=seed, work=WORK)

            async def begin() -> None:
                await run_agents(memory, report, seed=seed, work=WORK)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(resume)
                nursery.start_soon(begin)

    trio.run(logging)
