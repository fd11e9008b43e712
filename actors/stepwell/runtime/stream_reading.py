"""Streams of other kinds than episodes, read from the journal. Needs no actor: the log is the truth."""

from __future__ import annotations

from stepstore.journal import Journal, Record
from stepstore.journal.contract import SLICE_RECORDS
from stepwell.model.codec import envelope_of
from stepwell.model.streams import generation_id

_CHUNK = 64
_LARGEST_CHUNK = 1_024


async def find_generation(journal: Journal, kind: str, name: str) -> int:
    """The generation of a stream that is in use: the first that was not deleted. A checkpoint.

    Looks at as many as the logarithm of how often it was cleared. Raises: `Closed`, `RecoveryFailed`.
    """

    async def is_over(generation: int) -> bool:
        stream = generation_id(kind, name, generation)
        await journal.look_up(stream)
        return journal.is_deleted(stream)

    over, free = 0, 1
    while await is_over(free):
        over, free = free, 2 * free
    while free - over > 1:
        middle = (over + free) // 2
        if await is_over(middle):
            over = middle
        else:
            free = middle
    return free


async def last_time(journal: Journal, stream: bytes, last_seq: int) -> int:
    """The time of record `last_seq` of a stream, in nanoseconds; 0 if there is none. A checkpoint.

    Raises: as reading does.
    """
    found = await journal.read(stream, max(last_seq - 1, 0)).next_slice()
    return envelope_of(found[-1].payload, "the last record of a stream")[1] if found else 0


def _larger(chunk: int) -> int:
    """How many records come next. A little more than a slice would cost a turn of the reader's thread more, which reads
    ahead what was given before."""
    return SLICE_RECORDS if chunk < SLICE_RECORDS < 2 * chunk else min(2 * chunk, _LARGEST_CHUNK)


class BackwardRecords:
    """The records of a stream from `last_seq` backwards, in chunks that grow; each chunk oldest first.

    Only what is asked for is read: the index of the log leads to the first record of a chunk.
    """

    def __init__(self, journal: Journal, stream: bytes, last_seq: int, chunk: int = _CHUNK):
        self._journal, self._stream, self._upto, self._chunk = journal, stream, last_seq, chunk

    async def next_chunk(self) -> list[Record]:
        """The records before those given so far; none at the beginning of the stream. A checkpoint.

        Raises: `Damaged`, `Forked`, `KeyDestroyed`, `Unavailable`, `InvalidInput` (of the key), `RecoveryFailed`,
        `Closed`.
        """
        upto, after = self._upto, max(self._upto - self._chunk, 0)
        slices = self._journal.read(self._stream, after)
        found: list[Record] = []
        while not (found and found[-1].seq >= upto) and (more := await slices.next_slice()):
            found += more
        self._upto, self._chunk = after, _larger(self._chunk)
        return [record for record in found if record.seq <= upto]
