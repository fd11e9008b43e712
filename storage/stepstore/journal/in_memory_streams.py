"""What a journal in memory has stored."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import trio

from stepstore.journal.contract import Batch, Record
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, KIND_FLAGS


class InMemoryStreams:
    """Streams and their order. It outlives the journal that stores here, if somebody keeps it for the next one."""

    def __init__(self) -> None:
        # Per stream (lsn, payload), seq is the position; the payloads of a deleted stream but its last are None.
        self.records: dict[bytes, list[tuple[int, bytes | None]]] = {}
        self.order: list[tuple[bytes, int]] = []  # (stream, seq) by LSN; seq 0 stands for a snapshot
        self.snapshots: dict[bytes, Record] = {}
        self.deleted: set[bytes] = set()
        self.open: dict[bytes, None] = {}
        self.log_uuid = uuid.uuid4()

    @trio.lowlevel.enable_ki_protection
    def store(self, batches: Sequence[Batch]) -> int:
        """Store batches that continue their streams, and give the LSN of the first record."""
        order = self.order
        first_lsn = len(order) + 1
        for batch in batches:
            stream, payloads, flags = batch.stream, batch.payloads, batch.flags
            if flags & KIND_FLAGS == FLAG_SNAPSHOT:
                order.append((stream, 0))
                self.snapshots[stream] = Record(stream, batch.first_seq, len(order), payloads[0])
                continue
            records = self.records.setdefault(stream, [])
            if flags & KIND_FLAGS == FLAG_TOMBSTONE:
                # Another list: a reader that has begun goes on in the old one, as it would in a file.
                records = self.records[stream] = [(lsn, None) for lsn, _payload in records]
                self.snapshots.pop(stream, None)
                self.deleted.add(stream)
            for payload in payloads:
                order.append((stream, len(records) + 1))
                records.append((len(order), payload))
            if flags & FLAG_CLOSES:
                self.open.pop(stream, None)
            elif flags & FLAG_OPENS:
                self.open[stream] = None
        return first_lsn

    def last_seq(self, stream: bytes) -> int:
        """The last sequence number of a stream; 0 if it has no record."""
        return len(self.records.get(stream, ()))

    def copy(self) -> InMemoryStreams:
        """The same streams; what is stored in one of the two from now on is not in the other."""
        other = InMemoryStreams()
        other.records = {stream: list(records) for stream, records in self.records.items()}
        other.order, other.snapshots = list(self.order), dict(self.snapshots)
        other.deleted, other.open, other.log_uuid = set(self.deleted), dict(self.open), self.log_uuid
        return other
