"""Facts in plain memory, for tests of agents: no files, no tasks, all durable at once. Ranks as the real port."""

from __future__ import annotations

import datetime as dt
import time as clock
from collections.abc import Sequence
from typing import Any

import trio

from stepwell.errors import InvalidInput, NotFound
from stepwell.learning.recall.collection import FactCollection
from stepwell.memory.long_term import checked_scopes, checked_supersedes, checked_wanted, lexical_semantics, page_of
from stepwell.model import validation as check
from stepwell.model.fact import Fact, FactId, Hit, Origin, StoredFact
from stepwell.model.fact_page import FactPage, parse_fact_cursor
from stepwell.model.fact_records import (
    Change,
    Forgotten,
    Remembered,
    checked_fact,
    encode_change,
    fact_id,
    parse_fact_id,
)
from stepwell.model.limits import Limits
from stepwell.model.recall_semantics import RecallSemantics
from stepwell.model.scope import Scope, checked_scope

_LIMITS = Limits()


class InMemoryLongTerm:
    """A `LongTermMemory`. `kept`: what each scope holds, which may be given to another."""

    def __init__(self, kept: dict[Scope, FactCollection] | None = None):
        self.kept: dict[Scope, FactCollection] = {} if kept is None else kept

    def of(self, scope: Scope) -> FactCollection:
        """What a scope holds. Raises: `InvalidInput`."""
        known = checked_scope(scope)
        return self.kept.setdefault(known, FactCollection(known, 1))

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
        """See `LongTermPort.remember`."""
        await trio.lowlevel.checkpoint()
        kept = self.of(scope)
        number = None
        if supersedes is not None:
            generation, number = checked_supersedes(scope, supersedes)
            if generation != kept.generation or not kept.is_current(number):
                raise NotFound(f"supersedes: there is no fact {supersedes!r} that could be superseded")
        change = checked_fact(
            fact,
            path="fact",
            limits=_LIMITS,
            redaction=None,
            time=time,
            expires_at=expires_at,
            origin=origin,
            supersedes=number,
        )
        return self.store(kept, [change], deduplicate=deduplicate)[0]

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
        """See `LongTermPort.remember_many`."""
        await trio.lowlevel.checkpoint()
        kept = self.of(scope)
        if not isinstance(facts, list | tuple):
            raise InvalidInput(f"facts: must be a list of Fact, not {type(facts).__name__}")
        changes = [
            checked_fact(
                fact,
                path=f"facts[{place}]",
                limits=_LIMITS,
                redaction=None,
                time=time,
                expires_at=expires_at,
                origin=origin,
            )
            for place, fact in enumerate(facts)
        ]
        return self.store(kept, changes, deduplicate=deduplicate)

    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        """Store facts that were checked, unless they are there."""
        now_ns = clock.time_ns()
        for change in changes:
            encode_change(change, now_ns, None, _LIMITS)  # refuses what could not be stored
        ids = []
        for change in changes:
            number = kept.find_same(Fact(change.text, change.metadata), now_ns) if deduplicate else None
            if number is None:
                number = self.apply(kept, change)
            ids.append(fact_id(kept.scope, kept.generation, number))
        return ids

    def apply(self, kept: FactCollection, change: Change) -> int:
        """Make a change; gives its number."""
        number = kept.last_number + 1
        kept.apply(number, change, clock.time_ns())
        while kept.index_some():
            pass
        return number

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
        """See `LongTermPort.recall`."""
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
        """See `LongTermPort.search`."""
        await trio.lowlevel.checkpoint()
        check.check_text(query, "query", _LIMITS.text_bytes)
        check.check_number(k, "k", minimum=0, whole=True)
        wanted = checked_wanted(where, since, until)
        hits: list[Hit] = []
        for known in checked_scopes(scope, fall_through):
            hits += self.of(known).search(query, k - len(hits), wanted)
        return hits

    async def get(self, fact_id: str) -> StoredFact:
        """See `LongTermPort.get`."""
        await trio.lowlevel.checkpoint()
        found = self.find(fact_id)
        if found is None:
            raise NotFound(f"there is no fact {check.shown(fact_id)}")
        return found

    def find(self, fact_id: object) -> StoredFact | None:
        """One fact; None if there is none of that id."""
        place = parse_fact_id(fact_id) if isinstance(fact_id, str) else None
        kept = None if place is None else self.kept.get(place[0])
        if place is None or kept is None or kept.generation != place[1]:
            return None
        return kept.get(place[2])

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
        """See `LongTermPort.facts`."""
        await trio.lowlevel.checkpoint()
        check.check_number(limit, "limit", minimum=1, whole=True)
        after = 0 if cursor is None else parse_fact_cursor(cursor)[1]
        return page_of(self.of(scope), checked_wanted(where, since, until), after, limit)

    async def scopes(self) -> list[Scope]:
        """See `LongTermPort.scopes`."""
        await trio.lowlevel.checkpoint()
        return [scope for scope, kept in self.kept.items() if kept.last_number]

    async def forget(self, fact_id: str) -> bool:
        """See `LongTermPort.forget`."""
        await trio.lowlevel.checkpoint()
        place = parse_fact_id(fact_id) if isinstance(fact_id, str) else None
        if place is None or self.find(fact_id) is None:
            return False
        self.apply(self.of(place[0]), Forgotten(place[2]))
        return True

    @property
    def ranking(self) -> RecallSemantics:
        """See `LongTermPort.ranking`."""
        return lexical_semantics()
