"""A forked child must not write to its parent's log: it has a copy of everything, the lock included."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _Watched(Protocol):
    def forked(self) -> None:
        """This process is a fork of the one that opened the log."""


_watched: weakref.WeakSet[_Watched] = weakref.WeakSet()


def watch_forks(log: _Watched) -> None:
    """Have `log.forked()` called in every child that is forked from this process while the log exists."""
    _watched.add(log)


def _tell_all() -> None:
    for log in list(_watched):
        log.forked()


os.register_at_fork(after_in_child=_tell_all)
