"""Ctrl-C at every line of a plain call on its way to the Trio thread, and of closing there.

The bug: where it came before the call was in the queue, or between that and the wake, the caller waited for ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import stepwell.sync
from stepwell.bridge import crossing, memory_thread
from stepwell.sync import door
from tests.support import step

WATCHED = {module.__file__ for module in (crossing, memory_thread, door)}


class Interruption:
    """Raises KeyboardInterrupt, once, at the k-th line that this thread runs of the watched modules."""

    def __init__(self, at: int):
        self.left = at

    def trace(self, frame: FrameType, event: str, _value: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.trace


@contextmanager
def interrupted(at: int) -> Iterator[Interruption]:
    interruption, before = Interruption(at), sys.gettrace()
    sys.settrace(interruption.trace)
    try:
        yield interruption
    finally:
        sys.settrace(before)


def test_ctrl_c_at_any_line_of_a_call_ends_it_and_the_next_one_works(tmp_path: Path) -> None:
    with stepwell.sync.open_memory(tmp_path / "m") as memory:
        handle = memory.start_episode("task", episode_id="e")
        at = 0
        came = True
        while came:
            at, came = at + 1, False
            with interrupted(at) as interruption:
                try:
                    handle.log_step(step(at, key=f"k{at}"))
                except KeyboardInterrupt:
                    came = True
            assert handle.log_step(step(at, key=f"k{at}")).seq == at + 1  # stored once, whether it was or not
            assert came == (interruption.left <= 0)
        assert at > 10
        assert [item.action for item in handle.get().steps] == [f"action {n}" for n in range(1, at + 1)]


def test_ctrl_c_at_any_line_of_closing_stores_what_was_accepted_and_ends_the_thread(tmp_path: Path) -> None:
    at = 0
    came = True
    while came:
        at, came = at + 1, False
        path = tmp_path / str(at)
        opening = stepwell.sync.open_memory(path)
        memory = opening.__enter__()
        memory.start_episode("task", episode_id="e").log_step(step(1))
        with interrupted(at) as interruption:
            try:
                opening._thread.close(None)
            except KeyboardInterrupt:
                came = True
        assert came == (interruption.left <= 0)
        if at <= 3:  # before its `try`, which no plain function can prevent: nothing is done, and it can be done again
            opening._thread.close(None)
        assert not [thread for thread in threading.enumerate() if thread.name == "stepwell"]
        with stepwell.sync.open_memory(path) as again:
            assert len(again.get_episode("e").steps) == 1
    assert at > 5
