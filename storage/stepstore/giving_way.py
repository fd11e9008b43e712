"""Threads that let an event loop have the interpreter's lock.

Python takes its lock from a thread five milliseconds after another one has asked for it. So a thread that computes
beside a busy event loop holds it up by that much each time the loop, or the thread that writes for it, comes back from
a call that let the lock go: a turn of six milliseconds becomes one of thirty. A thread that gives way sleeps for a
moment after each millisecond; whoever waits for the lock has it by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RUN_SECONDS = 0.001
"""So long a thread computes between two pauses, about."""
PAUSE_SECONDS = 0.000_05
"""Enough for one who waits for the lock to wake up and take it."""


class Hurry:
    """Whether somebody waits for what is computed: as long as that is so, nobody gives way."""

    def __init__(self) -> None:
        self.waiters = 0


class _Turn:
    """Of the threads that one task has called, one after the other."""

    def __init__(self, hurry: Hurry):
        self.hurry = hurry
        self.until = time.perf_counter() + RUN_SECONDS
        self.task_thread = threading.get_ident()


_turn: ContextVar[_Turn | None] = ContextVar("stepstore_turn", default=None)


@contextmanager
def giving_way(hurry: Hurry) -> Iterator[None]:
    """Threads that the calling task has work done in give way, where that work calls `give_way`: they inherit its
    context, as those of `trio.to_thread` do."""
    before = _turn.set(_Turn(hurry))
    try:
        yield
    finally:
        _turn.reset(before)


def give_way() -> None:
    """To be called in the loops of such work, every tenth of a millisecond or so. Does nothing in the thread of the
    task itself, nor outside of `giving_way`."""
    turn = _turn.get()
    if turn is None or turn.hurry.waiters or time.perf_counter() < turn.until:
        return
    if threading.get_ident() != turn.task_thread:
        time.sleep(PAUSE_SECONDS)
    turn.until = time.perf_counter() + RUN_SECONDS
