"""The sessions of openai-agents on SQLite: a session for each episode, an item for each step."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.load import Load

agents = importlib.import_module("agents")


class Sessions:
    """`await session.add_items([item])`, a task for each session."""

    batch = 1
    durable = True

    def _session(self, number: int, path: Path) -> Any:
        return agents.SQLiteSession(f"episode-{number}", path / "sessions.sqlite")

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        sessions = [self._session(number, path) for number in range(load.episodes)]
        try:
            asyncio.run(self._ingest(sessions, load))
            return load.episodes * load.steps
        finally:
            for session in sessions:
                session.close()

    async def _ingest(self, sessions: list[Any], load: Load) -> None:
        async def agent(number: int, session: Any) -> None:
            for count in range(load.steps):
                await session.add_items([{"type": "function_call_output", "call_id": "", **load.item(number, count)}])

        with load.meter.running():
            await asyncio.gather(*(agent(number, session) for number, session in enumerate(sessions)))

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        return asyncio.run(self._read(path, times))

    async def _read(self, path: Path, times: int) -> tuple[list[float], int]:
        session = self._session(0, path)
        try:
            seconds, found = [], 0
            for _ in range(times):
                began = time.perf_counter()
                found = len(await session.get_items())
                seconds.append(time.perf_counter() - began)
            return seconds, found
        finally:
            session.close()

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        asyncio.run(self._delete(path, deleted))

    async def _delete(self, path: Path, deleted: Callable[[], None]) -> None:
        session = self._session(0, path)
        try:
            await session.clear_session()
            deleted()
        finally:
            session.close()


class Defaults(Sessions):
    """Without a path: each session is a database in memory."""

    durable = False

    def _session(self, number: int, path: Path) -> Any:
        return agents.SQLiteSession(f"episode-{number}")
