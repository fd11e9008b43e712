"""LangGraph's checkpoint savers, without a graph: a checkpoint per step, whose state is that step alone.

That is the best case for a saver: a state that accumulates is written anew with every step.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.load import Load

base = importlib.import_module("langgraph.checkpoint.base")
memory = importlib.import_module("langgraph.checkpoint.memory")
sqlite = importlib.import_module("langgraph.checkpoint.sqlite")
sqlite_async = importlib.import_module("langgraph.checkpoint.sqlite.aio")


def _thread(number: int) -> dict[str, Any]:
    return {"configurable": {"thread_id": f"episode-{number}", "checkpoint_ns": ""}}


def _arguments(load: Load, number: int, count: int) -> tuple[Any, dict[str, Any], dict[str, str]]:
    versions = {"step": str(count + 1)}
    checkpoint = base.empty_checkpoint()
    checkpoint["channel_values"] = {"step": load.item(number, count)}
    checkpoint["channel_versions"] = versions
    return checkpoint, {"source": "loop", "step": count}, versions


class Saver:
    """`SqliteSaver.put`, in one thread, which takes the threads of conversation in turn."""

    batch = 1
    durable = True

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        with sqlite.SqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            saver.setup()
            self._put_all(saver, load)
        return load.episodes * load.steps

    def _put_all(self, saver: Any, load: Load) -> None:
        configs = [_thread(number) for number in range(load.episodes)]
        with load.meter.running():
            for count in range(load.steps):
                for number in range(load.episodes):
                    configs[number] = saver.put(configs[number], *_arguments(load, number, count))

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        seconds, found = [], 0
        with sqlite.SqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            for _ in range(times):
                began = time.perf_counter()
                found = len([each.checkpoint["channel_values"]["step"] for each in saver.list(_thread(0))])
                seconds.append(time.perf_counter() - began)
        return seconds, found

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        with sqlite.SqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            saver.delete_thread("episode-0")
            deleted()


class GrowingState(Saver):
    """As a graph does whose state is the list of its steps: every checkpoint has all of them."""

    most_steps = 1_100

    def _put_all(self, saver: Any, load: Load) -> None:
        configs = [_thread(number) for number in range(load.episodes)]
        states: list[list[dict[str, Any]]] = [[] for _ in configs]
        with load.meter.running():
            for count in range(load.steps):
                for number, state in enumerate(states):
                    checkpoint, metadata, versions = _arguments(load, number, count)
                    state.append(checkpoint["channel_values"]["step"])
                    checkpoint["channel_values"] = {"step": list(state)}
                    configs[number] = saver.put(configs[number], checkpoint, metadata, versions)

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`. The last checkpoint has all."""
        seconds, found = [], 0
        with sqlite.SqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            for _ in range(times):
                began = time.perf_counter()
                found = len(saver.get_tuple(_thread(0)).checkpoint["channel_values"]["step"])
                seconds.append(time.perf_counter() - began)
        return seconds, found


class AsyncSaver(Saver):
    """`AsyncSqliteSaver.aput`, a task for each thread of conversation."""

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        asyncio.run(self._ingest(path, load))
        return load.episodes * load.steps

    async def _ingest(self, path: Path, load: Load) -> None:
        async with sqlite_async.AsyncSqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            await saver.setup()

            async def agent(number: int) -> None:
                config = _thread(number)
                for count in range(load.steps):
                    config = await saver.aput(config, *_arguments(load, number, count))

            with load.meter.running():
                await asyncio.gather(*(agent(number) for number in range(load.episodes)))

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        asyncio.run(self._delete(path, deleted))

    async def _delete(self, path: Path, deleted: Callable[[], None]) -> None:
        async with sqlite_async.AsyncSqliteSaver.from_conn_string(str(path / "checkpoints.sqlite")) as saver:
            await saver.adelete_thread("episode-0")
            deleted()


class InMemory(Saver):
    """`InMemorySaver.put`: nothing is written anywhere."""

    durable = False

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        self._put_all(memory.InMemorySaver(), load)
        return 0

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`. There is nothing to open."""
        return [0.0], 0

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`. There is nothing to open."""
        deleted()
