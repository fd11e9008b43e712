"""Conversation threads as streams: what their owner keeps in mind, and how their newest records are read.

Each record says in its meta where the last system message and the last summary before it stand ("at"). So all that has
to be known of a thread stands in its last record, and waking one of a hundred thousand messages reads one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from stepstore.journal import Journal, Record
from stepwell.errors import Unavailable
from stepwell.model.codec import DecodedRecord, decode_record, decode_records
from stepwell.model.limits import Limits
from stepwell.model.message import (
    MESSAGE,
    SUMMARY,
    Message,
    Role,
    ThreadSummary,
    decode_message,
    decode_summary,
    encode_message,
    encode_summary,
)
from stepwell.model.streams import THREAD_STREAM
from stepwell.runtime.reading import UNREADABLE
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.stream_reading import BackwardRecords
from stepwell.runtime.streams import unreadable

ThreadDraft = Message | ThreadSummary
LARGEST_META = 64
"""Bytes that a record of a thread may get beside its draft, as a rule."""

BATCH_MESSAGES = 128
"""Messages in one batch at most. A burst of appends is one commit of up to 4 MiB; to find its last messages in one
batch of that size took 20 ms."""


class Landmarks(NamedTuple):
    """Where the last system message and the last summary of a thread stand; 0 if there is none."""

    system_seq: int = 0
    summary_seq: int = 0

    def behind(self, seq: int, draft: object) -> Landmarks:
        """What they are behind a record."""
        if isinstance(draft, ThreadSummary):
            return Landmarks(self.system_seq, seq)
        if isinstance(draft, Message) and draft.role == Role.SYSTEM:
            return Landmarks(seq, self.summary_seq)
        return self

    @classmethod
    def before(cls, record: DecodedRecord) -> Landmarks:
        """What a record says they were before it."""
        at = None if record.meta is None else record.meta.get("at")
        return cls() if at is None else cls(*map(int, at))


class ThreadState:
    """What the owner of a thread keeps in mind of it."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self.landmarks = Landmarks()

    async def restore(self, journal: Journal, stream: bytes, last_seq: int) -> None:
        """See `StreamState`."""
        found = await BackwardRecords(journal, stream, last_seq, 1).next_chunk()
        if found:
            self.landmarks = landmarks_behind(found[-1])

    def encode(self, drafts: Sequence[Any], first_seq: int, time_ns: int, meta: dict[str, Any] | None) -> list[bytes]:
        """See `StreamState`. A draft is a checked message or summary."""
        landmarks, payloads = self.landmarks, []
        for seq, draft in enumerate(drafts, first_seq):
            if landmarks != (0, 0):
                meta = {**(meta or {}), "at": list(landmarks)}
            if isinstance(draft, ThreadSummary):
                payloads.append(encode_summary(draft, time_ns, meta, self._limits))
            else:
                payloads.append(encode_message(draft, time_ns, meta, self._limits))
            landmarks, meta = landmarks.behind(seq, draft), None
        return payloads

    def apply(self, drafts: Sequence[Any], first_seq: int, time_ns: int) -> None:
        """See `StreamState`."""
        for seq, draft in enumerate(drafts, first_seq):
            self.landmarks = self.landmarks.behind(seq, draft)


def thread_kind(limits: Limits) -> StreamKind:
    """The kind of stream that a thread is."""
    return StreamKind(THREAD_STREAM, "thread", lambda: ThreadState(limits), BATCH_MESSAGES)


def landmarks_behind(record: Record) -> Landmarks:
    """What a thread's last record says. Raises: `EpisodeUnavailable` (undecodable)."""
    decoded = decode_record(record.payload, "the last record of a thread")
    return Landmarks.before(decoded).behind(record.seq, draft_of(decoded))


def draft_of(record: DecodedRecord) -> ThreadDraft | None:
    """What a record of a thread holds; None for a kind that is not known here. Raises: `Unavailable`."""
    try:
        if record.kind == MESSAGE:
            return decode_message(record)
        return decode_summary(record) if record.kind == SUMMARY else None
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(f"a record of a thread is no sound {record.kind!r}: {error}") from error


class ThreadReader:
    """The records of a thread from the last one backwards, decoded, chunk by chunk; each chunk newest first."""

    def __init__(self, journal: Journal, thread: str, stream: bytes, last_seq: int, chunk: int):
        self._thread = thread
        self._records = BackwardRecords(journal, stream, last_seq, chunk)
        self.landmarks: Landmarks | None = None
        """Those behind the last record, once it was read."""

    async def next_chunk(self) -> list[tuple[int, DecodedRecord]]:
        """(seq, record) of those before; none at the beginning. A checkpoint. Raises: `Unavailable`, `Closed`."""
        try:
            found = await self._records.next_chunk()
            decoded = decode_records([record.payload for record in found])
            if decoded is None:
                what = f"a record of thread {self._thread!r}"
                decoded = [decode_record(record.payload, what) for record in found]
        except UNREADABLE as error:
            raise unreadable("thread", self._thread, error) from error
        if found and self.landmarks is None:
            self.landmarks = Landmarks.before(decoded[-1]).behind(found[-1].seq, draft_of(decoded[-1]))
        return [(record.seq, item) for record, item in zip(reversed(found), reversed(decoded), strict=True)]


async def read_one(journal: Journal, thread: str, stream: bytes, seq: int) -> ThreadDraft | None:
    """What one record of a thread holds. A checkpoint. Raises: `Unavailable`, `Closed`."""
    found = await ThreadReader(journal, thread, stream, seq, 1).next_chunk()
    return draft_of(found[0][1]) if found and found[0][0] == seq else None
