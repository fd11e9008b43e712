"""What the runtime has to be told of a kind of stream that is no episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepstore.journal import Journal


class StreamState(Protocol):
    """What the owner of a stream keeps in mind of it: a fold of its records, or as much of one as accepting needs.

    It is made anew, and restored from the log, whenever the stream wakes or something could not be stored.
    """

    async def restore(self, journal: Journal, stream: bytes, last_seq: int) -> None:
        """Take up what the log says, up to record `last_seq` (0: nothing). A checkpoint.

        Raises: as reading does, and `Unavailable` for what cannot be understood.
        """

    def encode(self, drafts: Sequence[Any], first_seq: int, time_ns: int, meta: dict[str, Any] | None) -> list[bytes]:
        """The records of drafts that come behind everything so far; changes nothing. `meta`: what the first one has to
        carry, if it begins the stream. A draft may make several records.

        Raises: `Rejected`, `InvalidState`; then nothing is accepted.
        """
        ...

    def apply(self, drafts: Sequence[Any], first_seq: int, time_ns: int) -> None:
        """They were accepted as they were encoded. Must not raise."""


@dataclass(frozen=True)
class StreamKind:
    """`name` stands in the first record of each stream; `noun` in messages. `batch_records`: what is stored together is
    cut into batches of so many records, since a batch is read and checked as a whole; for streams that are read from
    their end. None: it is one batch."""

    name: str
    noun: str
    new_state: Callable[[], StreamState]
    batch_records: int | None = None
