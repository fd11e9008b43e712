"""The channel that a follower of a journal holds.

It pulls: nothing runs between two calls of `receive`, nothing is read that nobody asked for, and an error of a read
leaves the very `receive` that met it, which may then be tried again.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from stepstore.log.records import Gap, Record, RecordBatch, Stored

T = TypeVar("T")


class FollowedSlices(trio.abc.ReceiveChannel[list[Record | Gap]]):
    """Slices of records in log order, for one task at a time. Closed by `close`, or by leaving it as an `async with`
    block; one that is dropped without that holds nothing."""

    def __init__(self) -> None:
        self._closed = False
        self._receiving: trio.CancelScope | None = None

    @property
    @abc.abstractmethod
    def position(self) -> int:
        """Everything up to this LSN was given, or is not for followers."""

    @abc.abstractmethod
    async def next_slice(self) -> list[Record | Gap] | None:
        """The next records, waiting for them if need be; may be empty; None at the end. A checkpoint. Cancelled or
        failed, the next call gives the same ones."""

    @abc.abstractmethod
    async def wait_for_more(self) -> bool:
        """Return True once something durable lies behind the position, False when nothing will any more. A checkpoint,
        and nothing is read."""

    async def next_batches(self, records: int) -> list[RecordBatch | Gap] | None:
        """As `next_slice`, batch by batch, and about so many records if there are."""
        found = await self.next_slice()
        if found is None:
            return None
        return [it if isinstance(it, Gap) else it.batch() for it in found]

    async def next_digest(self, records: int, digest: Callable[[Sequence[Stored]], T]) -> T | None:
        """What `digest` makes of the next records, about so many if there are: the cheapest way for who takes many. It
        may be given batches that are not cut into records yet; it is pure, and runs in the thread that reads, if one
        does. A follower gives either slices or digests, not both. A checkpoint; as `next_slice`."""
        found = await self.next_batches(records)
        return None if found is None else digest(found)

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> list[Record | Gap]:
        """The next records, at least one. A checkpoint; cancelled or failed, nothing is skipped.

        Raises: `trio.EndOfChannel`, `trio.ClosedResourceError`, `trio.BusyResourceError` (another task is receiving),
        `RecoveryFailed`, `Unavailable` or `InvalidInput` (the next record is encrypted and its key cannot be had).
        """
        if self._closed or self._receiving is not None:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this follower was closed")
            raise trio.BusyResourceError("another task is receiving from this follower")
        with trio.CancelScope() as scope:
            self._receiving = scope
            try:
                while (found := await self.next_slice()) is not None:
                    if found:
                        return found
            finally:
                self._receiving = None
        if self._closed:
            raise trio.ClosedResourceError("this follower was closed")
        raise trio.EndOfChannel

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Stop following; a task that waits in `receive` is woken with `trio.ClosedResourceError`."""
        self._closed = True
        if self._receiving is not None:
            self._receiving.cancel()

    async def aclose(self) -> None:
        """As `close`. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> FollowedSlices:
        await trio.lowlevel.checkpoint()
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close()
        if error is None:
            await trio.lowlevel.checkpoint()
        else:  # what the body raised is not replaced
            await trio.lowlevel.cancel_shielded_checkpoint()
