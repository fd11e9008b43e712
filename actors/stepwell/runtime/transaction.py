"""A transaction: batches of several streams that are stored together or not at all.

It knows no kind of stream, only parts: what is staged for one stream, and the cell that it goes through. Committing

1. wakes what is asleep, and finds out what takes no records;
2. locks the cells, all transactions in the same order, so that none waits for one that waits for it; whoever else would
   add to a locked stream waits;
3. waits until everything that was accepted for these streams before has a result;
4. in one synchronous section checks everything, takes the numbers and gives all batches to the journal as one
   submission, which goes into one frame;
5. unlocks. What is accepted from now on comes behind.

Until 4 nothing is accepted: an error or a cancellation leaves no trace. From 4 on each cell holds its part like any
other batch at the journal, so closing waits for it, a failure makes the cell rebuild from the log, and no cancellation
takes it back.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import trio

from stepstore.journal import Batch, Journal, Submission
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from stepwell.errors import StepwellError, TooLarge
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.untold import share_telling


class Part(Protocol):
    """What is staged for one stream, and the cell that it goes through. Never empty when it is committed."""

    @property
    def place(self) -> tuple[str, str]:
        """Kind and id of the stream; cells are locked in this order."""
        ...

    @property
    def receipt(self) -> Receipt | None:
        """That of the last record, once the part is accepted or known to be stored already; None, too, if there was
        nothing to store."""
        ...

    async def wake(self) -> None:
        """Return once the stream takes records. A checkpoint. Raises: why it never will."""

    async def lock(self) -> None:
        """As `wake`, and then keep all others from adding to the stream. A checkpoint; not locked if it raises."""

    def unlock(self) -> None:
        """Let others add to the stream; nothing if it is not locked."""

    async def settle(self) -> None:
        """Return once everything accepted for the stream has a result. A checkpoint."""

    def is_ready(self) -> bool:
        """Whether the stream still takes records, and everything accepted for it has a result."""
        ...

    def prepare(self, now_ns: int) -> Batch | None:
        """The batch to store at this time, None if there is nothing to store. Accepts nothing.

        Raises: why it cannot be stored.
        """
        ...

    def accept(self) -> None:
        """The prepared batch is at the journal: its numbers are taken, and its result will come through `finish`."""

    def finish(self, first_lsn: int, error: StepwellError | None) -> None:
        """What became of the batch. Runs in the writer's turn; nobody may be refused by an exception of it."""


class Transaction:
    """What is staged for several streams, until it is committed, once."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._parts: dict[tuple[str, str], Part] = {}
        self._submitted: list[Part] = []
        self._bytes = 0
        self.committed = False
        """Whether everything is accepted, or was stored before."""

    def admit(self, part: Part, sizes: Sequence[int]) -> None:
        """Count records of these bytes that are about to be staged in `part`; the parts go into the frame in the order
        of their first record.

        Raises: `TooLarge` if the transaction would not fit into one frame; then it is not counted.
        """
        size = self._bytes + batch_cost(sum(sizes), len(sizes))
        if part.place in self._parts:
            size -= batch_cost(0, 0)
        check_frame(size)
        self._bytes = size
        self._parts[part.place] = part

    @property
    def receipt(self) -> Receipt | None:
        """That of its last record in the log, once everything is accepted; None before, or if there is nothing."""
        if not self.committed:
            return None
        found = [part.receipt for part in self._submitted or self._parts.values() if part.receipt is not None]
        if not found:
            return None
        return found[-1] if self._submitted else max(found, key=lambda receipt: receipt.lsn or 0)

    @trio.lowlevel.enable_ki_protection
    async def commit(self) -> None:
        """Store everything; durable on return. A checkpoint. Cancelled once it is submitted, it is stored all the same
        unless the log fails.

        Raises: `OutcomeUnknown` (all of it is stored or nothing); `Closed`, `LogFull`, and whatever a part raises:
        nothing is stored.
        """
        in_order = [self._parts[place] for place in sorted(self._parts)]
        await trio.lowlevel.checkpoint()
        for part in in_order:
            await part.wake()
        try:
            while not await self._lock(in_order):
                for part in in_order:
                    part.unlock()
            self._submit()
        finally:
            for part in in_order:
                part.unlock()
        for part in in_order:
            if part.receipt is not None:  # else there was nothing to change
                await part.receipt.reach_log()

    async def _lock(self, in_order: Sequence[Part]) -> bool:
        """Lock all parts with nothing before them. False if one of them has failed meanwhile: begin anew."""
        for part in in_order:
            await part.lock()
        for part in in_order:
            await part.settle()
        await self._journal.wait_room()
        return all(part.is_ready() for part in in_order)

    @trio.lowlevel.enable_ki_protection
    def _submit(self) -> None:
        now_ns = time.time_ns()
        prepared = [(part, part.prepare(now_ns)) for part in self._parts.values()]
        fresh = [(part, batch) for part, batch in prepared if batch is not None]
        if fresh:
            batches = tuple(batch for _part, batch in fresh)
            # What organises an episode has its size now that it is known how that is organised.
            check_frame(sum(batch_cost(sum(map(len, batch.payloads)), len(batch.payloads)) for batch in batches))
            self._submitted = [part for part, _batch in fresh]
            self._journal.submit(batches, on_done=self._on_done)
            for part in self._submitted:
                part.accept()
        self.committed = True

    @trio.lowlevel.enable_ki_protection
    def _on_done(self, submission: Submission) -> None:
        lsn = submission.first_lsn
        for part, batch in zip(self._submitted, submission.batches, strict=True):
            part.finish(lsn, submission.error)
            lsn += len(batch.payloads)
        if submission.error is not None:
            share_telling([part.receipt._commit for part in self._submitted if part.receipt is not None])


def check_frame(size: int) -> None:
    """Raises: `TooLarge` if a transaction of so many bytes does not fit into one frame."""
    if size > MAX_BATCH_BYTES:
        raise TooLarge(f"the transaction would have {size:,} bytes, the most is {MAX_BATCH_BYTES:,}; split it")
