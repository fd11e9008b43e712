"""Which runs, threads and scopes there are: a fold of the log, brought up to date when somebody asks.

Nothing of it is stored. It holds some 300 bytes for each run; the first call after opening reads the log.
"""

from __future__ import annotations

import msgspec
import trio

from stepstore.journal import Gap, Journal, Record
from stepwell.errors import Closed, EpisodeUnavailable
from stepwell.model.codec import DecodedRecord, decode_record, envelope_of, kind_head
from stepwell.model.event import CLEARED, DELETED, STEP
from stepwell.model.ids import EPISODE_STREAM, ThreadId, stream_id
from stepwell.model.run_event import Completed, Failed, Started
from stepwell.model.run_filter import RunFold
from stepwell.model.run_record import RUN_KINDS, event_of_record
from stepwell.model.streams import SCOPE_STREAM, THREAD_STREAM, is_named

_STEP = kind_head(STEP)
_LAST = (kind_head(DELETED), kind_head(CLEARED))


class StreamIndex:
    """See the module. Knows what was durable at the last `catch_up`; what was deleted or cleared is not in it."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._slices = journal.follow()
        self._lock = trio.Lock()
        self._runs: dict[bytes, RunFold] = {}
        self._threads: dict[bytes, str] = {}
        self._scopes: dict[bytes, str] = {}

    @trio.lowlevel.enable_ki_protection
    async def catch_up(self) -> None:
        """Take up everything that is durable now. A checkpoint; cancelled, the next call goes on where it was.

        Raises: `Closed`, `RecoveryFailed`, `Unavailable` or `InvalidInput` (the key of something encrypted cannot be
        had).
        """
        await self._journal.catch_up()
        upto = self._journal.durable_lsn
        async with self._lock:
            while self._slices.position < upto:
                found = await self._slices.next_slice()
                if found is None:
                    raise Closed("the memory is closed; open it again to read")
                for item in found:
                    if not isinstance(item, Gap):
                        self._take(item)

    def runs(self) -> list[RunFold]:
        """Every run."""
        return list(self._runs.values())

    def threads(self) -> list[ThreadId]:
        """Every thread, in the order in which they began."""
        return [ThreadId(name) for name in self._threads.values()]

    def scopes(self) -> list[str]:
        """Every scope, in the order in which they began."""
        return list(self._scopes.values())

    @trio.lowlevel.enable_ki_protection
    def _take(self, record: Record) -> None:
        if record.payload.startswith(_LAST):
            self._runs.pop(record.stream, None)
            self._threads.pop(record.stream, None)
            self._scopes.pop(record.stream, None)
            return
        try:
            if record.seq == 1:
                self._begin(record)
            fold = self._runs.get(record.stream)
            if fold is not None:
                _add(fold, record)
        except (EpisodeUnavailable, msgspec.ValidationError, KeyError, TypeError, ValueError):
            return  # it hurts its own stream only, and reading that tells

    def _begin(self, record: Record) -> None:
        meta = decode_record(record.payload, "the first record of a stream").meta or {}
        kind, name = meta.get("stream"), meta.get("id")
        if not isinstance(name, str) or self._journal.is_deleted(record.stream):
            return
        if kind == EPISODE_STREAM and stream_id(EPISODE_STREAM, name) == record.stream:
            self._runs[record.stream] = RunFold(name)
        elif kind == THREAD_STREAM and is_named(meta, record.stream):
            self._threads[record.stream] = name
        elif kind == SCOPE_STREAM and is_named(meta, record.stream):
            self._scopes[record.stream] = name


def _add(fold: RunFold, record: Record) -> None:
    if record.payload.startswith(_STEP):
        fold.add(envelope_of(record.payload, "a step")[1])
        return
    decoded = decode_record(record.payload, "an event of a run")
    if decoded.kind in RUN_KINDS:
        _add_event(fold, decoded)


def _add_event(fold: RunFold, decoded: DecodedRecord) -> None:
    event = event_of_record(decoded)
    if event is None:
        return
    fold.add(decoded.time_ns)
    if isinstance(event, Started):
        fold.start(event.agent)
    elif isinstance(event, Completed | Failed):
        fold.end(decoded.time_ns, "completed" if isinstance(event, Completed) else "failed")
