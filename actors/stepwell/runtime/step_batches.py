"""Batches of nothing but steps, told apart from everything else that a follower of the log is given.

Nearly all of a log are steps that succeeded, and of these nobody who follows it needs more than how many there are. So
a batch is looked at once for all who follow, in the thread that reads it, and not cut into records: what is done for
each step costs an agent that logs them as much.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, islice, pairwise, repeat

import msgspec

from stepstore.catalog import LogReading
from stepstore.giving_way import give_way
from stepstore.journal import Gap, Journal, Record, RecordBatch, Stored, StoredBatch
from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import PLAIN_STEP, failures_in, is_failed_step, may_have_failed, plain_step_time_ns

_TIME = struct.Struct(">Q")
_TIME_AT = len(PLAIN_STEP)
_HEAD_BYTES = _TIME_AT + _TIME.size
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
    for item in items:
        if isinstance(item, StoredBatch):
            together.append(item)
            continue
        found += _told_stored(together)
        together = []
        found.append(item if isinstance(item, Gap) else told(item))
    return found + _told_stored(together)


def _told_stored(batches: list[StoredBatch]) -> list[Told]:
    """Looks at those together that lie one behind the other, as those of a frame do: at each by itself would take twice
    as long."""
    found: list[Told] = []
    sizes = [sum(batch.lengths) for batch in batches]
    cuts = [
        number
        for number, (before, size, batch) in enumerate(zip(batches, sizes, islice(batches, 1, None), strict=False), 1)
        if batch.at != before.at + size or batch.content is not before.content
    ]
    for first, behind in pairwise([0, *cuts, len(batches)]):
        give_way()
        found += _told_together(batches[first:behind])
    return found


def _told_together(batches: list[StoredBatch]) -> list[Told]:
    """Batches that lie one behind the other. What can be done for all of them in one call is."""
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
    if True not in are_steps:
        return [batch.cut() for batch in batches]
    only_steps, time_at = False not in are_steps, _TIME.unpack_from
    behind = [*accumulate([len(batch.lengths) for batch in batches])]  # each: the number of its last record, and one
    found: list[Told] = []
    last = 0
    for batch, following in zip(batches, behind, strict=True):
        if only_steps or False not in are_steps[last:following]:
            first_seq, steps = batch.first_seq, following - last
            (last_ns,) = time_at(content, starts[following - 1] + _TIME_AT)
            found.append(StepBatch(batch.stream, first_seq, first_seq + steps - 1, steps, 0, last_ns, batch))
        else:
            found.append(batch.cut())
        last = following
    # A number or a time may look like a failure, so among thousands of steps there is always one: each is put down to
    # its batch.
    places = [bisect_right(starts, it.start()) - 1 for it in failures_in(content, starts[0], end)]
    for number in {bisect_right(behind, place) for place in places}:
        told = found[number]
        if isinstance(told, StepBatch):
            told.steps, told.failed = count_steps(told.payloads)
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
