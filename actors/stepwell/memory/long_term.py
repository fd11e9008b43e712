"""The long-term port: facts in scopes, each scope a stream with an owner of its own."""

from __future__ import annotations

import datetime as dt
import time as clock
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stepstore.journal import DeletionReport
from stepwell.errors import InvalidInput, NotFound, Rejected, StepwellError
from stepwell.learning.recall.collection import FactCollection, Wanted
from stepwell.learning.recall.settings import DEFAULT_SETTINGS
from stepwell.learning.recall.vectors import packed
from stepwell.model import validation as check
from stepwell.model.fact import Fact, FactId, Hit, Origin, StoredFact
from stepwell.model.fact_page import FactPage, fact_cursor, parse_fact_cursor
from stepwell.model.fact_records import Forgotten, Remembered, checked_fact, fact_id, nanoseconds, parse_fact_id
from stepwell.model.recall_semantics import RecallSemantics
from stepwell.model.scope import Scope, checked_scope
from stepwell.runtime.embedding import Embedding
from stepwell.runtime.fact_scope import ScopeReaders, scope_kind
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.scope_locks import ScopeLocks

if TYPE_CHECKING:
    from stepwell.memory.core import MemoryCore

_QUERY_BYTES = 100_000


class LongTermPort:
    """`memory.long_term`: facts in scopes, found again by what they say.

    What changes something is durable on return; what reads sees everything accepted before. Cancelled, whether a change
    is stored is unknown. Every async function is a checkpoint, and raises `Unavailable`, `Closed`, and if it changes
    something `LogFull`, `OutcomeUnknown`, beside what it names itself.
    """

    def __init__(self, memory: MemoryCore):
        self._memory = memory
        self._kind = scope_kind(memory._config.limits)
        self._streams = memory._supervisor.streams
        self._readers = ScopeReaders(self._streams, memory._journal, self._kind, DEFAULT_SETTINGS)
        self._locks = ScopeLocks()
        embedder = memory._config.embedder
        self._embedding = None if embedder is None else Embedding(embedder)

    # ---- remembering -------------------------------------------------------------------------------------------------

    async def remember(
        self,
        scope: Scope,
        fact: Fact,
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
        supersedes: str | None = None,
        deduplicate: bool = False,
    ) -> FactId:
        """Store a fact in one scope, and give its id.

        `time`: when what it says was so, if not now; it is searched as well. `expires_at`: from then on it is not
        found. `origin`: the run and the step it came from. `supersedes`: the id of a fact of the same scope in whose
        place it comes; that one is not found any more, but can still be read. `deduplicate`: if a fact that says the
        same (text and metadata) can be found in the scope, nothing is stored, and its id is given.
        Raises: `InvalidInput`, `TooLarge`, `NotFound` (nothing to supersede).
        """
        try:
            known = checked_scope(scope)
            replaced = None if supersedes is None else checked_supersedes(known, supersedes)
            change = self._checked(
                fact, "fact", time=time, expires_at=expires_at, origin=origin, supersedes=replaced and replaced[1]
            )
        except StepwellError:
            await checkpoint()
            raise
        if replaced is None and not deduplicate and self._embedding is None:
            return (await self._store(known, [change]))[0]
        self._memory._supervisor.check_thread()
        async with self._locks.of(known):
            collection = await self._readers.collection(known)
            if deduplicate and (found := collection.find_same(_fact_of(change), clock.time_ns())) is not None:
                return fact_id(known, collection.generation, found)
            if replaced is not None and (
                replaced[0] != collection.generation or not collection.is_current(replaced[1])
            ):
                raise NotFound(f"supersedes: there is no fact {supersedes!r} that could be superseded")
            return (await self._store(known, await self._embedded([change], collection)))[0]

    async def remember_many(
        self,
        scope: Scope,
        facts: Sequence[Fact],
        *,
        time: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        origin: Origin | None = None,
        deduplicate: bool = False,
    ) -> list[FactId]:
        """Store facts together or not at all, and give their ids in the same order; see `remember`.

        With `deduplicate`, a fact that is there, or stands twice in `facts`, has the id of the first.
        Raises: `InvalidInput`, `TooLarge` (also for more than 16 MiB together), naming the fact.
        """
        try:
            known = checked_scope(scope)
            if not isinstance(facts, list | tuple):
                raise InvalidInput(f"facts: must be a list of Fact, not {type(facts).__name__}")
            changes = []
            for place, fact in enumerate(facts):
                changes.append(self._checked(fact, f"facts[{place}]", time=time, expires_at=expires_at, origin=origin))
        except StepwellError:
            await checkpoint()
            raise
        if not changes:
            await checkpoint()
            return []
        if not deduplicate and self._embedding is None:
            return await self._store(known, changes)
        self._memory._supervisor.check_thread()
        async with self._locks.of(known):
            collection = await self._readers.collection(known)
            if not deduplicate:
                return await self._store(known, await self._embedded(changes, collection))
            return await self._store_new(collection, changes)

    async def _embedded(self, changes: Sequence[Remembered], collection: FactCollection) -> Sequence[Remembered]:
        """The same with their vectors, if facts have any. The scope is locked."""
        if self._embedding is None:
            return changes
        vectors = await self._embedding.vectors([change.text for change in changes], collection.dimensions)
        return [
            msgspec.structs.replace(change, vector=packed(vector))
            for change, vector in zip(changes, vectors, strict=True)
        ]

    async def _store_new(self, collection: FactCollection, changes: list[Remembered]) -> list[FactId]:
        """Store what the scope does not have. The scope is locked."""
        scope = collection.scope
        now_ns = clock.time_ns()
        fresh: list[Remembered] = []
        places: dict[Fact, int] = {}
        found: list[int | None] = []
        for change in changes:
            fact = _fact_of(change)
            number = collection.find_same(fact, now_ns)
            found.append(number)
            if number is None and fact not in places:
                places[fact] = len(fresh)
                fresh.append(change)
        stored = await self._store(scope, await self._embedded(fresh, collection)) if fresh else []
        return [
            stored[places[_fact_of(change)]] if number is None else fact_id(scope, collection.generation, number)
            for change, number in zip(changes, found, strict=True)
        ]

    def _checked(self, fact: object, path: str, **fields: Any) -> Remembered:
        memory = self._memory
        return checked_fact(fact, path=path, limits=memory._config.limits, redaction=memory._redaction, **fields)

    async def _store(self, scope: Scope, changes: Sequence[Remembered | Forgotten]) -> list[FactId]:
        await checkpoint()
        try:
            cell = await self._streams.accepting(self._kind, scope.stream_name)
            receipt = cell.accept(changes)
        except Rejected as error:
            self._memory._supervisor.oversight.note_refused(error)
            raise
        generation, first = cell.generation, receipt.seq - len(changes) + 1
        await receipt.reach_log()
        return [fact_id(scope, generation, number) for number in range(first, receipt.seq + 1)]

    # ---- finding -----------------------------------------------------------------------------------------------------

    async def recall(
        self,
        scope: Scope,
        query: str,
        k: int = 5,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        fall_through: Sequence[Scope] = (),
    ) -> list[Fact]:
        """The best `k` facts of a scope for a query, the best first; see `search`.

        Raises: `InvalidInput`, `TooLarge`.
        """
        hits = await self.search(scope, query, k, where=where, since=since, until=until, fall_through=fall_through)
        return [hit.fact.fact for hit in hits]

    async def search(
        self,
        scope: Scope,
        query: str,
        k: int = 5,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        fall_through: Sequence[Scope] = (),
    ) -> list[Hit]:
        """The best `k` facts of a scope for a query, each with its id, its score, and why it was found.

        `ranking` says how it ranks. Of equal scores the newest comes first. Where no word of the query is found, what
        the query stands in as it is written; a query that is blank finds the newest. `where`: only facts whose metadata
        has these fields with these values (an object inside has to match in the same way, a list also matches each of
        its items). `since`, `until`: only facts of that time, bounds included. `fall_through`: if the scope gives fewer
        than `k`, what is missing comes from these, in turn.
        Raises: `InvalidInput`, `TooLarge`.
        """
        try:
            scopes = checked_scopes(scope, fall_through)
            check.check_text(query, "query", _QUERY_BYTES)
            check.check_number(k, "k", minimum=0, whole=True)
            wanted = checked_wanted(where, since, until)
        except StepwellError:
            await checkpoint()
            raise
        hits: list[Hit] = []
        for known in scopes:
            vector = None
            if self._embedding is not None and query.strip():
                dimensions = (await self._readers.collection(known)).dimensions
                if dimensions is not None:
                    (vector,) = await self._embedding.vectors([query], dimensions)
            collection = await self._readers.indexed(known)
            hits += collection.search(query, k - len(hits), wanted, vector)
            if len(hits) >= k:
                break
        return hits

    async def get(self, fact_id: str) -> StoredFact:
        """One fact, also if it was superseded or has expired. Raises: `NotFound` (it was forgotten, or never was)."""
        await checkpoint()
        found = await self._find(fact_id)
        if found is None:
            raise NotFound(f"there is no fact {check.shown(fact_id)}")
        return found

    async def _find(self, fact_id: object) -> StoredFact | None:
        place = parse_fact_id(fact_id) if isinstance(fact_id, str) else None
        if place is None:
            return None
        scope, generation, number = place
        collection = await self._readers.collection(scope)
        return collection.get(number) if collection.generation == generation else None

    async def facts(
        self,
        scope: Scope,
        limit: int = 50,
        cursor: str | None = None,
        *,
        where: dict[str, Any] | None = None,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> FactPage:
        """The facts of a scope that can be found, in the order of remembering, `limit` at a time.

        `cursor`: the `next_cursor` of the page before. Facts that come or go between two pages neither repeat nor hide
        others. Raises: `InvalidInput`.
        """
        try:
            known = checked_scope(scope)
            check.check_number(limit, "limit", minimum=1, whole=True)
            generation, after = (0, 0) if cursor is None else parse_fact_cursor(cursor)
            wanted = checked_wanted(where, since, until)
        except StepwellError:
            await checkpoint()
            raise
        collection = await self._readers.collection(known)
        if cursor is not None and generation != collection.generation:
            after = 0 if generation < collection.generation else collection.last_number
        return page_of(collection, wanted, after, limit)

    async def scopes(self) -> list[Scope]:
        """The scopes that something was remembered in since they were last cleared, in the order in which they began.

        The first call reads the log. Raises: `RecoveryFailed`, `Unavailable` (the key of something encrypted cannot be
        had).
        """
        await self._memory._supervisor.settle_all()
        index = self._memory._stream_index
        await index.catch_up()
        found = [Scope.from_stream_name(name) for name in index.scopes()]
        return [scope for scope in found if scope is not None]

    # ---- forgetting --------------------------------------------------------------------------------------------------

    async def forget(self, fact_id: str) -> bool:
        """Remove a fact: from now on it is in no answer. False if there is none of that id.

        Its bytes stay in the log, as those of every record do, until its scope is cleared. Durable on return;
        cancelled, whether it was done is unknown: call again. Raises: as all of `memory.long_term`.
        """
        await checkpoint()
        place = parse_fact_id(fact_id) if isinstance(fact_id, str) else None
        if place is None:
            return False
        scope, generation, number = place
        self._memory._supervisor.check_thread()
        async with self._locks.of(scope):
            collection = await self._readers.collection(scope)
            if collection.generation != generation or collection.get(number) is None:
                return False
            await self._store(scope, [Forgotten(number)])
            await self._readers.collection(scope)  # out of the index as well
        return True

    async def clear(self, scope: Scope, *, actor: str = "", purge: bool = False) -> DeletionReport | None:
        """Forget every fact of a scope, and what it was encrypted with. Other scopes are untouched. `actor`: who asked,
        for the event. With `purge` the bytes go too, and the report proves it (see `compact`).

        Raises: `InvalidInput`.
        """
        try:
            known, asked_by = checked_scope(scope), check.check_actor(actor)
        except StepwellError:
            await checkpoint()
            raise
        self._memory._supervisor.check_thread()
        async with self._locks.of(known):
            await self._streams.clear(self._kind, known.stream_name, asked_by)
        if not purge:
            return None
        report = await self._memory._whole.compact(purge=True)
        assert isinstance(report, DeletionReport)
        return report

    @property
    def ranking(self) -> RecallSemantics:
        """How it ranks."""
        return lexical_semantics() if self._embedding is None else hybrid_semantics()


def lexical_semantics() -> RecallSemantics:
    """How facts are ranked without a model."""
    return RecallSemantics(
        kind="lexical",
        description=(
            "by words: stemmed BM25, with dates, neighbouring facts of the same conversation and the conversation "
            "as a whole counted in; no model"
        ),
        settings=msgspec.structs.asdict(DEFAULT_SETTINGS),
    )


def hybrid_semantics() -> RecallSemantics:
    """How facts are ranked with an embedder."""
    return msgspec.structs.replace(
        lexical_semantics(),
        kind="hybrid",
        description=(
            "by words and vectors: the weighted mean of stemmed BM25 (with dates, neighbouring facts and "
            "conversations) and of the cosine of what the embedder gives (with neighbouring facts)"
        ),
    )


def checked_supersedes(scope: Scope, supersedes: object) -> tuple[int, int]:
    """Generation and number of the fact that is to be superseded. Raises: `NotFound`, `InvalidInput`."""
    place = parse_fact_id(supersedes) if isinstance(supersedes, str) else None
    if place is None:
        raise NotFound(f"supersedes: there is no fact {check.shown(supersedes)}")
    if place[0] != scope:
        raise InvalidInput(f"supersedes: {supersedes!r} is not in scope {scope}; a fact supersedes one of its scope")
    return place[1:]


def _fact_of(change: Remembered) -> Fact:
    return Fact(change.text, change.metadata)


def checked_scopes(scope: object, fall_through: object) -> list[Scope]:
    """Where to search, in turn, each once. Raises: `InvalidInput`, `TooLarge`."""
    if not isinstance(fall_through, list | tuple):
        raise InvalidInput(f"fall_through: must be a list of Scope, not {type(fall_through).__name__}")
    scopes = [checked_scope(scope)]
    scopes += [checked_scope(other, f"fall_through[{place}]") for place, other in enumerate(fall_through)]
    return list(dict.fromkeys(scopes))


def checked_wanted(where: dict[str, Any] | None, since: dt.datetime | None, until: dt.datetime | None) -> Wanted:
    """Which facts a caller asks for, now. Raises: `InvalidInput`, `TooLarge`."""
    if where is not None:
        check.check_object(where, "where")
        where = check.plain(where)
    return Wanted(
        clock.time_ns(),
        where,
        None if since is None else nanoseconds(since, "since"),
        None if until is None else nanoseconds(until, "until"),
    )


def page_of(collection: FactCollection, wanted: Wanted, after: int, limit: int) -> FactPage:
    """The page behind a fact."""
    items: list[StoredFact] = []
    for found in collection.facts(wanted, after):
        if len(items) == limit:
            place = parse_fact_id(items[-1].id)
            assert place is not None
            return FactPage(items=items, next_cursor=fact_cursor(*place[1:]))
        items.append(found)
    return FactPage(items=items, next_cursor=None)
