"""What the tests of the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from bench.peers.process import Started, Worker
from bench.peers.rounds import Setup

Answers = dict[str, Any]


class FakeWorker:
    """Answers what it is given, one after the other, and notes in `asked` who was asked."""

    def __init__(self, name: str, answers: Iterator[Answers], asked: list[str]):
        self.name, self._answers, self._asked = name, answers, asked
        self.steps: list[int] = []

    def ask(self, **request: Any) -> Answers:
        self._asked.append(self.name)
        self.steps.append(request["steps"])
        return next(self._answers)

    def try_to_ask(self, **request: Any) -> Answers:
        return self.ask(**request)


def started(
    name: str,
    answer: Callable[[int], Answers],
    asked: list[str],
    *,
    durable: bool = True,
    batch: int = 1,
) -> Started:
    """A worker that is none; `answer` is given the number of the time it is asked, from 0."""

    def answers() -> Iterator[Answers]:
        number = 0
        while True:
            yield answer(number)
            number += 1

    hello = {"batch": batch, "durable": durable, "least_steps": 1, "most_steps": None}
    return cast(Worker, FakeWorker(name, answers(), asked)), hello


def ran(seconds: float, *, groups: int = 1, syncs: int = 1, written: int = 0) -> Answers:
    """The answer of a worker that did its work."""
    return {"seconds": seconds, "groups": groups, "syncs": syncs, "sync_seconds": syncs / 1000, "bytes": written}


def setup(parent: Path, episodes: int = 1) -> Setup:
    return Setup.of("nowhere", parent, 0, episodes, 300)
