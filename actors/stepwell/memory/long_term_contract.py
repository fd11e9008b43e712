"""What every store of facts promises."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from stepwell.model.fact import Fact, FactId, Hit, Origin, StoredFact
from stepwell.model.fact_page import FactPage
from stepwell.model.recall_semantics import RecallSemantics
from stepwell.model.scope import Scope


@runtime_checkable
class LongTermMemory(Protocol):
    """Facts in scopes, found again by what they say.

    What is remembered is found by the next call, and what is forgotten by none. Ids are never given twice, and stay the
    same as long as the fact is there. Scopes are exact: nothing falls through unless it is asked for.
    `stepwell.testing.ports_contract.long_term` holds an implementation to all of it.
    """

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
        """Store a fact in one scope, and give its id."""
        ...

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
        """Store facts together or not at all, and give their ids in the same order."""
        ...

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
        """The best `k` facts of a scope for a query, the best first."""
        ...

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
        """As `recall`, with the id and the score of each fact, and why it was found."""
        ...

    async def get(self, fact_id: str) -> StoredFact:
        """One fact. Raises: `NotFound`."""
        ...

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
        """The facts of a scope that can be found, oldest first, a page at a time."""
        ...

    async def scopes(self) -> list[Scope]:
        """The scopes that something was remembered in."""
        ...

    async def forget(self, fact_id: str) -> bool:
        """Remove a fact. False if there is none of that id."""
        ...

    @property
    def ranking(self) -> RecallSemantics:
        """How it ranks."""
        ...
