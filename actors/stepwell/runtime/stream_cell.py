"""The cell of a stream that is no episode: a conversation, or the facts of one scope.

It is that of an episode without an ending: the same mailbox, batches, receipts and sleep. What is accepted are drafts,
which the state of the stream turns into records in the same synchronous section that gives them their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import trio

from stepstore.journal import Batch, Journal
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from stepwell.errors import Closed, StepwellError, TooLarge
from stepwell.model.ids import EpisodeId
from stepwell.model.streams import generation_id, generation_meta
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.cell_mailbox import PER_RECORD, Flusher
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.receipt import Commit, Receipt
from stepwell.runtime.stream_kind import StreamKind, StreamState
from stepwell.runtime.untold import UntoldFailures, called

_LARGEST_CUT = MAX_BATCH_BYTES // 2
"""More than this is one batch, whatever its kind asks for: cut up, it could exceed what is stored at once."""


class StreamCell(EpisodeCell):
    """See the module. `generation`: the one in use, 0 before the log was asked; `contents`: the state of the stream,
    None while that has to be read; `stays_parked`: it failed too often, and says so until it is cleared."""

    __slots__ = ("contents", "generation", "kind", "stays_parked")

    def __init__(
        self,
        kind: StreamKind,
        name: str,
        journal: Journal,
        config: MemoryConfig,
        flusher: Flusher,
        uses: Iterator[int],
        untold: UntoldFailures,
    ):
        super().__init__(EpisodeId(name), journal, config, flusher, uses, untold)
        self.kind = kind
        self.generation = 0
        self.contents: StreamState | None = None
        self.stays_parked = False

    @property
    def name(self) -> str:
        """Its name within its kind."""
        return self.episode_id

    @property
    def called(self) -> str:
        """What an error calls it."""
        return called(self.name, self.kind.noun)

    @property
    def last_seq(self) -> int:
        """The number of the last record accepted; 0 if there is none."""
        return self._next_seq - 1

    def use_generation(self, generation: int) -> None:
        """What is accepted from now on goes there."""
        self.generation = generation
        self.stream = generation_id(self.kind.name, self.name, generation)

    def check_accepting(self) -> None:
        """Raises: `Closed`, `LogFull`."""
        if not self._gate.is_open:
            self._journal.check_open()
        if not self.accepting:
            raise Closed(f"{self.kind.noun} {self.name!r} takes nothing now")

    @trio.lowlevel.enable_ki_protection
    def accept(self, drafts: Sequence[Any]) -> Receipt:
        """Accept drafts that are stored together or not at all. The caller has seen that there is room.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState`, `Closed`, `LogFull`; then nothing is accepted.
        """
        self.check_accepting()
        assert self.contents is not None
        now = self.now_ns()
        payloads = self._encode(drafts, now)
        size = sum(map(len, payloads)) + PER_RECORD * len(payloads)
        if size + batch_cost(0, 0) > min(MAX_BATCH_BYTES, self._limits.record_bytes):
            raise TooLarge(f"{size:,} bytes in one batch exceed {self._limits.record_bytes:,}; split it")
        first_seq, self._last_ns = self._next_seq, now
        receipt = self._enqueue(payloads if len(payloads) > 1 else payloads[0], len(payloads), size)
        self.contents.apply(drafts, first_seq, now)
        return receipt

    def _encode(self, drafts: Sequence[Any], time_ns: int) -> list[bytes]:
        assert self.contents is not None
        begins = self._next_seq == 1
        meta = generation_meta(self.kind.name, self.name, self.generation) if begins else None
        return self.contents.encode(drafts, self._next_seq, time_ns, meta)

    def _batches_of(self, commit: Commit) -> Batch | Sequence[Batch]:
        most = self.kind.batch_records
        if most is None or commit.records <= most or commit.bytes > _LARGEST_CUT:
            return super()._batches_of(commit)
        payloads = tuple(self.in_hand[: commit.records])
        return tuple(
            Batch(self.stream, commit.first_seq + begin, payloads[begin : begin + most], commit.flags)
            for begin in range(0, commit.records, most)
        )

    def batch_of_drafts(self, drafts: Sequence[Any], time_ns: int) -> Batch:
        """The batch that stores drafts of a transaction behind everything accepted. Raises: as `accept`."""
        return self.batch_of(self._encode(drafts, time_ns))

    @trio.lowlevel.enable_ki_protection
    def accept_batch(self, batch: Batch, drafts: Sequence[Any], time_ns: int) -> Receipt:
        """Accept drafts whose batch was given to the journal by a transaction; see `accept_submitted`."""
        assert self.contents is not None
        receipt = self.accept_submitted(batch, (), time_ns)
        self.contents.apply(drafts, batch.first_seq, time_ns)
        return receipt

    @trio.lowlevel.enable_ki_protection
    def fail_pending(self, error: StepwellError) -> None:
        """As for an episode; what the state says rests on what is given up."""
        super().fail_pending(error)
        self.contents = None
