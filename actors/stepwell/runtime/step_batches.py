"""Batches of nothing but steps, told apart from everything else that a follower of the log is given.

Nearly all of a log are steps that succeeded, and of these nobody who follows it needs more than how many there are. So
a batch is looked at once for all who follow, in the thread that reads it, and not cut into records: what is done for
each step costs an agent that logs them as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, repeat

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
    together: list[StoredBatch] = []
    content, end = b"", -1
    for item in items:
        if isinstance(item, StoredBatch):
            if item.at != end or item.content is not content:
                found += _told_together(together)
                together, content, end = [], item.content, item.at
            together.append(item)
            end += sum(item.lengths)
            continue
        found += _told_together(together)
        together, end = [], -1
        found.append(item if isinstance(item, Gap) else told(item))
    return found + _told_together(together)


def _told_together(batches: list[StoredBatch]) -> list[Told]:
    """Batches that lie one behind the other. Hundreds do, and looking at each by itself would take twice as long."""
    if not batches:
        return []
    content, shortest = batches[0].content, _HEAD_BYTES
    lengths = list(chain.from_iterable([batch.lengths for batch in batches]))
    starts = [*accumulate(lengths, initial=batches[0].at)]
    end = starts.pop()
    if min(lengths) < shortest and len(batches) > 1:  # what lies behind it could make a short record look like a step
        return [told for batch in batches for told in _told_together([batch])]
    are_steps = list(map(content.startswith, repeat(PLAIN_STEP), starts))
    if lengths[-1] < shortest:
        are_steps[-1] = False
    may_fail = may_have_failed(content, starts[0], end) is not None
    found: list[Told] = []
    last = -1
    for batch in batches:
        first, last = last + 1, last + len(batch.lengths)
        if False in are_steps[first : last + 1]:
            found.append(batch.cut())
            continue
        steps, failed, at = last + 1 - first, 0, starts[last]
        if may_fail and may_have_failed(content, starts[first], at + lengths[last]):
            steps, failed = count_steps(batch.payloads)
        last_ns = int.from_bytes(content[at + shortest - 8 : at + shortest], "big")
        last_seq = batch.first_seq + last - first
        found.append(StepBatch(batch.stream, batch.first_seq, last_seq, steps, failed, last_ns, batch))
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
