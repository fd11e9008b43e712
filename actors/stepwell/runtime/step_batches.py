"""Batches of nothing but steps, told apart from everything else that a follower of the log is given.

Nearly all of a log are steps that succeeded, and of these nobody who follows it needs more than how many there are. So
a batch is looked at once for all who follow, in the thread that reads it, and not cut into records: what is done for
each step costs an agent that logs them as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, repeat

import msgspec

from stepstore.catalog import LogReading
from stepstore.journal import Gap, Journal, Record, RecordBatch, Stored, StoredBatch
from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import PLAIN_STEP, is_failed_step, may_have_failed, plain_step_time_ns

_HEAD_BYTES = len(PLAIN_STEP) + 8
"""Up to the time; what is shorter is looked at by itself."""


class StepBatch(msgspec.Struct, gc=False):
    """A batch of plain steps."""

    stream: bytes
    first_seq: int
    last_seq: int
    steps: int
    """Those that can be decoded."""
    failed: int
    last_ns: int
    batch: StoredBatch | RecordBatch

    @property
    def payloads(self) -> list[bytes]:
        """The payloads of the steps; cut anew each time."""
        return self.batch.payloads

    def records(self) -> list[Record]:
        """The steps one by one."""
        return (self.batch.cut() if isinstance(self.batch, StoredBatch) else self.batch).records()


Told = StepBatch | RecordBatch | Gap
"""What a follower of the log that told steps apart is given."""


def log_reading(journal: Journal) -> LogReading:
    """Reads a journal for those who follow it, and tells its batches of steps apart."""
    return LogReading(journal, told_apart)


def told_apart(items: Sequence[Stored]) -> list[Told]:
    """The same with each batch of plain steps as a `StepBatch`, and everything else cut into records."""
    found: list[Told] = []
    take, plain, may_fail, shortest = found.append, PLAIN_STEP, may_have_failed, _HEAD_BYTES
    for item in items:
        if isinstance(item, Gap):
            take(item)
            continue
        if isinstance(item, RecordBatch):
            take(told(item))
            continue
        lengths, content, at, first_seq = item.lengths, item.content, item.at, item.first_seq
        count = len(lengths)
        if count == 1:
            last, end = at, at + lengths[0]
            is_plain = end - at >= shortest and content.startswith(plain, at)
        else:
            starts = [*accumulate(lengths, initial=at)]
            end = starts.pop()
            last = starts[-1]
            is_plain = min(lengths) >= shortest and all(map(content.startswith, repeat(plain), starts))
        if not is_plain:
            take(item.cut())
            continue
        steps, failed = count, 0
        if may_fail(content, at, end):
            steps, failed = count_steps(item.payloads)
        last_ns = int.from_bytes(content[last + shortest - 8 : last + shortest], "big")
        take(StepBatch(item.stream, first_seq, first_seq + count - 1, steps, failed, last_ns, item))
    return found


def told(batch: RecordBatch) -> StepBatch | RecordBatch:
    """As `told_apart`, one that is cut already."""
    payloads = batch.payloads
    if not payloads or False in [payload.startswith(PLAIN_STEP) for payload in payloads]:
        return batch
    steps, failed = len(payloads), 0
    if may_have_failed(b"".join(payloads)):
        steps, failed = count_steps(payloads)
    last_seq = batch.first_seq + len(payloads) - 1
    return StepBatch(batch.stream, batch.first_seq, last_seq, steps, failed, plain_step_time_ns(payloads[-1]), batch)


def count_steps(payloads: Sequence[bytes]) -> tuple[int, int]:
    """How many of these plain steps can be decoded, and how many of them failed."""
    steps = failed = 0
    for payload in payloads:
        try:
            failed += is_failed_step(payload)
        except EpisodeUnavailable:
            continue
        steps += 1
    return steps, failed
