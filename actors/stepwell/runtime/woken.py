"""What `trio.lowlevel.reschedule` gives a task of ours that sleeps: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import outcome


class _Woken:
    """As `outcome.Value(None)`, which may be unwrapped once only, so that Trio makes one for each task it wakes.

    A group that has reached the medium wakes hundreds at once, and until they have had their turns the garbage
    collector would know all of them.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        """What `wait_task_rescheduled` returns."""


WOKEN = cast("outcome.Outcome[Any]", _Woken())
