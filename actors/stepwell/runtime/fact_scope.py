"""The facts of a scope as a stream: what its owner does, and how it is read.

The owner keeps nothing in mind, so waking it costs nothing, however many facts there are. What a scope holds is folded
from its durable records when somebody asks, and brought up to date at each further call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import trio

from stepstore.journal import Journal, Record
from stepwell.errors import Unavailable
from stepwell.learning.recall.collection import FactCollection
from stepwell.learning.recall.settings import RecallSettings
from stepwell.model.codec import decode_record, decode_records
from stepwell.model.fact_records import decode_change, encode_change
from stepwell.model.limits import Limits
from stepwell.model.scope import Scope
from stepwell.model.streams import SCOPE_STREAM, generation_id
from stepwell.runtime.reading import UNREADABLE
from stepwell.runtime.stream_kind import StreamKind
from stepwell.runtime.streams import Streams, unreadable

FACTS_KEPT = 500_000
"""Facts kept in memory for searching. Beyond it the scopes that were asked least recently are let go, but never the one
that is being asked; they come back from the log."""
SCOPE_FACTS = 4
"""A scope takes as much memory as so many facts, however few it holds."""
LARGEST_SCOPE_META = 300
"""Bytes that the first record of a scope may get beside its draft: the names of its kind and of the scope."""
INDEXED_AT_ONCE = 64
"""Facts indexed between two checkpoints."""


class ScopeState:
    """See the module; a `StreamState`."""

    def __init__(self, limits: Limits):
        self._limits = limits

    async def restore(self, journal: Journal, stream: bytes, last_seq: int) -> None:
        """See `StreamState`."""
        await trio.lowlevel.checkpoint()

    def encode(self, drafts: Sequence[Any], first_seq: int, time_ns: int, meta: dict[str, Any] | None) -> list[bytes]:
        """See `StreamState`. A draft is a checked change."""
        limits = self._limits
        payloads = [encode_change(drafts[0], time_ns, meta, limits)]
        payloads += [encode_change(draft, time_ns, None, limits) for draft in drafts[1:]]
        return payloads

    def apply(self, drafts: Sequence[Any], first_seq: int, time_ns: int) -> None:
        """See `StreamState`."""


def scope_kind(limits: Limits) -> StreamKind:
    """The kind of stream that a scope is."""
    return StreamKind(SCOPE_STREAM, "scope", lambda: ScopeState(limits))


class _Reader:
    """Folds one generation of one scope."""

    def __init__(self, scope: Scope, generation: int, settings: RecallSettings):
        self.stream = generation_id(SCOPE_STREAM, scope.stream_name, generation)
        self.collection = FactCollection(scope, generation, settings)
        self._lock = trio.Lock()
        self.counted = 0
        """How many facts it was last counted as."""

    async def catch_up(self, journal: Journal, last_seq: int) -> None:
        """Take up the records up to that number. A checkpoint. Raises: `Unavailable`, `Closed`."""
        async with self._lock:
            name = self.collection.scope.stream_name
            slices = journal.read(self.stream, self.collection.last_number)
            try:
                while self.collection.last_number < last_seq and (found := await slices.next_slice()):
                    self._take(found, f"a record of scope {name!r}")
            except UNREADABLE as error:
                raise unreadable("scope", name, error) from error

    @trio.lowlevel.enable_ki_protection
    def _take(self, found: Sequence[Record], what: str) -> None:
        decoded = decode_records([record.payload for record in found])
        if decoded is None:
            decoded = [decode_record(record.payload, what) for record in found]
        try:
            changes = [decode_change(item) for item in decoded]
        except msgspec.ValidationError as error:
            raise Unavailable(f"{what} is not sound: {error}") from error
        for record, item, change in zip(found, decoded, changes, strict=True):
            if change is None:  # a newer writer's
                self.collection.last_number = record.seq
            else:
                self.collection.apply(record.seq, change, item.time_ns)


class ScopeReaders:
    """What the scopes hold that were asked recently."""

    def __init__(self, streams: Streams, journal: Journal, kind: StreamKind, settings: RecallSettings):
        self._streams, self._journal, self._kind, self._settings = streams, journal, kind, settings
        self._readers: OrderedDict[Scope, _Reader] = OrderedDict()
        self._kept = 0

    async def collection(self, scope: Scope) -> FactCollection:
        """What a scope holds, with everything accepted before this call. A checkpoint.

        Raises: `Unavailable`, `RecoveryFailed`, `Closed`.
        """
        stream, last_seq = await self._streams.settled(self._kind, scope.stream_name)
        reader = self._reader(scope, stream)
        await reader.catch_up(self._journal, last_seq)
        self._make_room(scope, reader)
        return reader.collection

    async def indexed(self, scope: Scope) -> FactCollection:
        """As `collection`, and everything in it can be searched until the next checkpoint."""
        collection = await self.collection(scope)
        while index_some(collection):
            await trio.lowlevel.checkpoint()
        return collection

    @trio.lowlevel.enable_ki_protection
    def _reader(self, scope: Scope, stream: bytes) -> _Reader:
        reader = self._readers.get(scope)
        if reader is None or reader.stream != stream:
            if reader is not None:
                self._kept -= reader.counted
            name = scope.stream_name
            generation = next(number for number in count(1) if generation_id(SCOPE_STREAM, name, number) == stream)
            reader = self._readers[scope] = _Reader(scope, generation, self._settings)
        self._readers.move_to_end(scope)
        return reader

    @trio.lowlevel.enable_ki_protection
    def _make_room(self, scope: Scope, asked: _Reader) -> None:
        """Count what was asked anew, and let go who was asked least recently, as long as that is too much."""
        if self._readers.get(scope) is not asked:
            return  # another call let it go meanwhile, or the scope was cleared
        counts_as = len(asked.collection) + SCOPE_FACTS
        self._kept += counts_as - asked.counted
        asked.counted = counts_as
        self._readers.move_to_end(scope)
        while self._kept > FACTS_KEPT and len(self._readers) > 1:
            self._kept -= self._readers.popitem(last=False)[1].counted


@trio.lowlevel.enable_ki_protection
def index_some(collection: FactCollection) -> bool:
    """Index a few facts; False when all are."""
    return collection.index_some(INDEXED_AT_ONCE)
