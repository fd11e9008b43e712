"""`eventsourcing` on SQLite: an application that saves an aggregate for each step, and its recorder with batches."""

from __future__ import annotations

import importlib
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.load import BATCH, Load, NoDelete

application = importlib.import_module("eventsourcing.application")
domain = importlib.import_module("eventsourcing.domain")
persistence = importlib.import_module("eventsourcing.persistence")
utils = importlib.import_module("eventsourcing.utils")


Aggregate: Any = domain.Aggregate


class Episode(Aggregate):  # type: ignore[misc]
    """An aggregate with an event per step."""

    @domain.event("Started")  # type: ignore[untyped-decorator]
    def __init__(self, number: int) -> None:
        self.number = number
        self.steps = 0

    @staticmethod
    def create_id(number: int) -> uuid.UUID:
        """Its id, from its number."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"/episodes/{number}")

    @domain.event("StepLogged")  # type: ignore[untyped-decorator]
    def log_step(self, tool: str, action: str, parameters: dict[str, Any], output: str, latency_ms: int) -> None:
        """A step; the aggregate only counts them."""
        self.steps += 1


def _environment(path: Path) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path / "events.sqlite")}


class Application:
    """`episode.log_step(…)`, `app.save(episode)`, in one thread, which takes the episodes in turn."""

    batch = 1
    durable = True

    def _application(self, path: Path) -> Any:
        return application.Application(env=_environment(path))

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        app = self._application(path)
        try:
            episodes = [Episode(number) for number in range(load.episodes)]
            app.save(*episodes)
            with load.meter.running():
                for count in range(load.steps):
                    for number, episode in enumerate(episodes):
                        episode.log_step(**load.item(number, count))
                        app.save(episode)
            return load.steps * load.episodes
        finally:
            app.close()

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`. The events themselves, decoded."""
        app = self._application(path)
        try:
            seconds, found = [], 0
            for _ in range(times):
                began = time.perf_counter()
                found = sum(isinstance(each, Episode.StepLogged) for each in app.events.get(Episode.create_id(0)))
                seconds.append(time.perf_counter() - began)
            return seconds, found
        finally:
            app.close()

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        raise NoDelete("events are never deleted")


class Defaults(Application):
    """Without a persistence module: events are kept in memory."""

    durable = False

    def _application(self, path: Path) -> Any:
        return application.Application()


class Recorder:
    """`recorder.insert_events` with 64 events that the client gathered, encoded as JSON by the standard library."""

    batch = BATCH
    durable = True

    def _open(self, path: Path) -> tuple[Any, Any]:
        factory = persistence.InfrastructureFactory.construct(utils.Environment(env=_environment(path)))
        return factory, factory.application_recorder()

    def ingest(self, path: Path, load: Load) -> int:
        """See `Peer`."""
        factory, recorder = self._open(path)
        try:
            ids = [Episode.create_id(number) for number in range(load.episodes)]
            with load.meter.running():
                for first in range(0, load.steps, BATCH):
                    for number, episode in enumerate(ids):
                        recorder.insert_events(
                            [
                                persistence.StoredEvent(
                                    originator_id=episode,
                                    originator_version=count + 1,
                                    topic="step",
                                    state=json.dumps(load.item(number, count)).encode(),
                                )
                                for count in range(first, first + BATCH)
                            ]
                        )
            return load.steps * load.episodes // BATCH
        finally:
            factory.close()

    def read(self, path: Path, times: int) -> tuple[list[float], int]:
        """See `Peer`."""
        factory, recorder = self._open(path)
        try:
            seconds, found = [], 0
            for _ in range(times):
                began = time.perf_counter()
                found = len([json.loads(each.state) for each in recorder.select_events(Episode.create_id(0))])
                seconds.append(time.perf_counter() - began)
            return seconds, found
        finally:
            factory.close()

    def delete(self, path: Path, deleted: Callable[[], None]) -> None:
        """See `Peer`."""
        raise NoDelete("events are never deleted")
