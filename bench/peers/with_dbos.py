"""DBOS on SQLite, its own default, with a rollback journal: a workflow for each episode, a step for each step."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.load import Load

dbos = importlib.import_module("dbos")
_loads: list[Load] = []
"""The work at hand: an argument of a workflow would be stored with it."""


@dbos.DBOS.step()  # type: ignore[untyped-decorator]
async def _log_step(number: int, count: int) -> dict[str, Any]:
    """What a step returns is recorded."""
    return _loads[-1].item(number, count)


@dbos.DBOS.workflow()  # type: ignore[untyped-decorator]
async def _episode(number: int) -> None:
    for count in range(_loads[-1].steps):
        await _log_step(number, count)


class Workflows:
    """`@DBOS.workflow`, `@DBOS.step`; starting and ending the workflows is part of the time."""

    batch = 1
    durable = True
    least_steps = 10
    """In an episode, so that what the workflow itself costs does not count as much as its steps."""

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        _loads.append(load)
        asyncio.run(self._ingest(path, load))
        return load.episodes * load.steps

    def _launch(self, path: Path) -> None:
        url = f"sqlite:///{path / 'dbos.sqlite'}"
        dbos.DBOS(
            config={
                "name": "bench",
                "system_database_url": url,
                "log_level": "ERROR",
                "run_admin_server": False,
            }
        )
        dbos.DBOS.launch()

    async def _ingest(self, path: Path, load: Load) -> None:
        self._launch(path)
        try:
            with load.meter.running():
                await asyncio.gather(*(self._run(number) for number in range(load.episodes)))
        finally:
            dbos.DBOS.destroy()

    async def _run(self, number: int) -> None:
        with dbos.SetWorkflowID(f"episode-{number}"):
            handle = await dbos.DBOS.start_workflow_async(_episode, number)
        await handle.get_result()

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        return asyncio.run(self._read(path, times))

    async def _read(self, path: Path, times: int) -> tuple[list[float], int]:
        self._launch(path)
        try:
            seconds, found = [], 0
            for _ in range(times):
                began = time.perf_counter()
                found = len(await dbos.DBOS.list_workflow_steps_async("episode-0"))
                seconds.append(time.perf_counter() - began)
            return seconds, found
        finally:
            dbos.DBOS.destroy()

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        asyncio.run(self._delete(path, deleted))

    async def _delete(self, path: Path, deleted: Callable[[], None]) -> None:
        self._launch(path)
        try:
            await dbos.DBOS.delete_workflow_async("episode-0")
            deleted()
        finally:
            dbos.DBOS.destroy()
