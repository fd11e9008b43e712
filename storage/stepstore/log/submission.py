"""What is given to the writer, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio

from stepstore.errors import InvalidInput, InvalidState, StepwellError, afresh
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS, Batch

STREAM_ID_BYTES = 16
MAX_PLAIN_FLAGS = 0xFFFF
"""Above it stands what kind of entry a batch is, unless it is an ordinary one."""


def listed(given: Batch | Sequence[Batch]) -> Sequence[Batch]:
    """What is submitted, one batch or several, as a sequence."""
    return (given,) if isinstance(given, Batch) else given


def check_kind(first_seq: int, before: int, payloads: Sequence[bytes], flags: int) -> None:
    """Check a batch that is no ordinary one, behind number `before` of its stream.

    Raises: `InvalidInput`, `InvalidState`.
    """
    kind = flags & KIND_FLAGS
    if kind not in (FLAG_SNAPSHOT, FLAG_TOMBSTONE) or flags & ~KIND_FLAGS > MAX_PLAIN_FLAGS or len(payloads) != 1:
        raise InvalidInput("a snapshot and a tombstone are batches of one record, and a batch is one thing only")
    if kind == FLAG_SNAPSHOT and not 1 <= first_seq <= before:
        raise InvalidState(f"a snapshot covers seq {first_seq}, and its stream ends with seq {before}")


class Submission(msgspec.Struct, gc=False, eq=False):
    """Batches that are stored together or not at all, and what became of them.

    `done` turns True once the result is known; then either `error` is None and `first_lsn` says where the first record
    is, or `error` says why not: a `Rejected` means definitely not stored, `OutcomeUnknown` that it cannot be told.

    `given`: the batches as they were submitted; one batch needs no list.
    """

    # Thousands may wait at once, so the garbage collector does not know them (`gc=False`). That is safe because each is
    # resolved, and then lets go of whoever is told; and its error is nobody's who raises it, see `afresh`.

    given: Batch | Sequence[Batch]
    cost: int
    critical: bool
    on_done: Callable[[Submission], None] | None
    done: bool = False
    error: StepwellError | None = None
    first_lsn: int = 0
    _event: trio.Event | None = None

    @property
    def batches(self) -> Sequence[Batch]:
        """What is stored together."""
        given = self.given
        return (given,) if isinstance(given, Batch) else given

    def resolve(self, first_lsn: int = 0, error: StepwellError | None = None) -> None:
        """Say what became of it, once. Wakes the waiters; runs `on_done` in the caller's turn."""
        self.first_lsn, self.error, self.done = first_lsn, error and afresh(error), True
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done(self)
        if self._event is not None:
            self._event.set()

    def check(self) -> None:
        """Raises: what went wrong, if it did."""
        if self.error is not None:
            raise afresh(self.error)

    async def wait(self) -> None:
        """Return once `done`. Cancelling the waiter does not cancel the write."""
        if self.done:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


class Gate:
    """Whether submissions are taken, as one attribute for the hot path; `check_open` says why not."""

    __slots__ = ("is_open",)

    def __init__(self) -> None:
        self.is_open = True
