"""The journal of one opening of a `MemoryJournal`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio

from stepstore.journal import Batch, InMemoryJournal, InMemoryStreams, Submission
from stepstore.log.frame import (
    HEADER_BYTES,
    body_is_sound,
    build_frame,
    parse_directory,
    parse_header,
    split_payloads,
)
from stepwell.errors import LogFull, OutcomeUnknown, StepwellError
from stepwell.testing.policies import Fate, Policies

HANG: tuple[Fate, ...] = ("hang",)
OTHERS: tuple[Fate, ...] = ("fail", "reject", "lose_ack")
_LENGTH_BYTES = 4


class JournalLife(InMemoryJournal):
    """A journal in memory that asks policies about each submission, and stores what a frame of the log gives back."""

    def __init__(
        self,
        kept: InMemoryStreams,
        policies: Policies,
        hang: Callable[[], trio.lowlevel.ParkingLot],
        on_release: Callable[[], None],
    ):
        super().__init__(kept)
        self._policies, self._hang, self._on_release = policies, hang, on_release

    def release(self) -> None:
        super().release()
        self._on_release()

    async def _commit_queued(self) -> None:
        while self._queue:
            batches = self._queue[0].batches  # it leaves the queue only when its fate is known: `run` resolves the rest
            hung = self._policies.take(HANG, batches, self._kept) is not None
            if hung:
                with trio.CancelScope(shield=True):  # no cancellation reaches a system call
                    await self._hang().park()
            policy = self._policies.take(OTHERS, batches, self._kept)
            error: StepwellError
            if policy is None:
                self._commit_next(None)
            elif policy.fate == "lose_ack":
                self._commit_next(OutcomeUnknown("the acknowledgement was lost (lose_ack_next)"))
            elif policy.fate == "fail":
                error = OutcomeUnknown("writing to the medium failed; whether it is stored cannot be told (fail_next)")
                self._refuse_next(error)
            else:
                error = policy.error or LogFull("the medium had no room for this write; it is not stored (reject_next)")
                self._refuse_next(error)
            if hung:
                self._advanced.unpark_all()
                await trio.lowlevel.checkpoint()  # cancelled meanwhile, what waits behind it is not stored
        self._advanced.unpark_all()

    @trio.lowlevel.enable_ki_protection
    def _commit_next(self, lost: OutcomeUnknown | None) -> None:
        batches = through_frame(self._queue[0].batches, len(self._kept.order) + 1)
        submission = self._queue.popleft()
        first_lsn = self._store(submission, batches)
        if lost is None:
            submission.resolve(first_lsn)
        else:
            submission.resolve(error=lost)

    @trio.lowlevel.enable_ki_protection
    def _refuse_next(self, error: StepwellError) -> None:
        """Refuse the next one, and all that continue a stream of what is refused: their numbers no longer fit."""
        refused = [self._queue.popleft()]
        streams = {batch.stream for batch in refused[0].batches}
        kept: deque[Submission] = deque()
        for submission in self._queue:
            if streams.isdisjoint(batch.stream for batch in submission.batches):
                kept.append(submission)
            else:
                refused.append(submission)
                streams.update(batch.stream for batch in submission.batches)
        self._queue = kept
        self._refuse(refused, error)


def through_frame(batches: Sequence[Batch], first_lsn: int) -> list[Batch]:
    """The batches as they read back from a frame of the segment log: CBOR on the way, with its checksums."""
    frame, _crc, _entries = build_frame(
        batches, offset=0, first_lsn=first_lsn, durable_lsn=first_lsn - 1, segment_tag=0, prev_crc=0
    )
    header = parse_header(frame)
    assert header is not None, "the header of a frame does not read back"
    body = bytes(frame[HEADER_BYTES:])
    assert body_is_sound(header, body), "the body of a frame does not read back"
    entries = parse_directory(header, body, 0)
    assert entries is not None, "the directory of a frame does not read back"
    read: list[Batch] = []
    for stream, first_seq, _first_lsn, count, size, _crc, flags, payload_at, lengths_at in entries:
        payloads = split_payloads(
            frame[lengths_at : lengths_at + count * _LENGTH_BYTES], frame[payload_at : payload_at + size]
        )
        assert payloads is not None, "the lengths in a frame do not read back"
        read.append(Batch(stream, first_seq, payloads, flags))
    return read
