"""Twins of the long-term memory with one rule broken each; see `ports`."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from stepwell.errors import InvalidInput, NotFound
from stepwell.learning.recall.collection import FactCollection
from stepwell.model.fact import Fact, FactId, Hit, StoredFact
from stepwell.model.fact_page import FactPage
from stepwell.model.fact_records import Change, Forgotten, Remembered, fact_id, parse_fact_id
from stepwell.model.recall_semantics import RecallSemantics
from stepwell.model.scope import Scope
from stepwell.testing.ports import InMemoryLongTerm


class ByWholeTextOnly(InMemoryLongTerm):
    async def search(self, scope: Scope, query: str, *rest: Any, **only: Any) -> list[Hit]:
        return [hit for hit in await super().search(scope, query, *rest, **only) if hit.fact.text == query]


class HasNoPages(InMemoryLongTerm):
    facts = None  # type: ignore[assignment]


class IdOfTheText(InMemoryLongTerm):
    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        return super().store(kept, changes, deduplicate=True)


class OneScopePerName(InMemoryLongTerm):
    def of(self, scope: Scope) -> FactCollection:
        return super().of(scope if scope.kind == "global" else Scope.workspace(scope.name))


class ListsWhatWasAsked(InMemoryLongTerm):
    async def scopes(self) -> list[Scope]:
        await trio.lowlevel.checkpoint()
        return list(self.kept)


class UnknownScopeIsAnError(InMemoryLongTerm):
    async def search(self, scope: Scope, *rest: Any, **only: Any) -> list[Hit]:
        if scope not in self.kept:
            raise NotFound(f"there is no scope {scope}")
        return await super().search(scope, *rest, **only)


class AtLeastOne(InMemoryLongTerm):
    async def search(self, scope: Scope, query: str, k: int = 5, **only: Any) -> list[Hit]:
        return await super().search(scope, query, max(k, 1), **only)


class MetadataAsText(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered) and change.metadata is False:
            change = msgspec.structs.replace(change, metadata=0)
        return super().apply(kept, change)


class MetadataIsAnObject(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered) and change.metadata is None:
            change = msgspec.structs.replace(change, metadata={})
        return super().apply(kept, change)


class GivesItsOwnValues(InMemoryLongTerm):
    def find(self, fact_id: object) -> StoredFact | None:
        found = super().find(fact_id)
        place = parse_fact_id(str(fact_id))
        if found is None or place is None:
            return found
        return msgspec.structs.replace(found, metadata=self.kept[place[0]]._entries[place[2]].change.metadata)


class IdsBackwards(InMemoryLongTerm):
    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        return super().store(kept, changes, deduplicate=deduplicate)[::-1]


class StoresTheGoodOnes(InMemoryLongTerm):
    async def remember_many(self, scope: Scope, facts: Sequence[Fact], **options: Any) -> list[FactId]:
        if not isinstance(facts, list):
            return await super().remember_many(scope, facts, **options)
        ids: list[FactId] = []
        for place, fact in enumerate(facts):
            try:
                ids += await super().remember_many(scope, [fact], **options)
            except InvalidInput as error:
                raise InvalidInput(f"facts[{place}]: {error}") from error
        return ids


class LosesConcurrent(InMemoryLongTerm):
    async def remember(self, scope: Scope, fact: Fact, **options: Any) -> FactId:
        kept = self.of(scope)
        number = kept.last_number
        await trio.lowlevel.checkpoint()
        kept.last_number = number
        return await super().remember(scope, fact, **options)


class TakesNaiveTimes(InMemoryLongTerm):
    async def remember(self, scope: Scope, fact: Fact, *, time: dt.datetime | None = None, **options: Any) -> FactId:
        aware = None if time is None else time.replace(tzinfo=time.tzinfo or dt.UTC)
        return await super().remember(scope, fact, time=aware, **options)


class Changed(InMemoryLongTerm):
    """Changes what a search gives."""

    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return hits

    async def search(self, scope: Scope, query: str, *rest: Any, **only: Any) -> list[Hit]:
        return self.changed(query, await super().search(scope, query, *rest, **only))


class LongestFirst(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        whole = sorted((hit for hit in hits if hit.why.whole_text), key=lambda hit: -len(hit.fact.text))
        return [*(hit for hit in hits if not hit.why.whole_text), *whole]


class ByOneWord(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return sorted(hits, key=lambda hit: len(hit.why.words))


class EveryWordWeighsTheSame(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return sorted(hits, key=lambda hit: (-len(hit.why.words), hit.id))


class ByTheVeryWords(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return [hit for hit in hits if set(query.split()) & set(hit.fact.text.split())]


class OldestFirst(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        oldest_first = list(reversed(hits))
        return sorted(oldest_first, key=lambda hit: -hit.score)


class BlankFindsNothing(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return hits if query.strip() else []


class AlwaysFindsSomething(InMemoryLongTerm):
    async def search(self, scope: Scope, query: str, *rest: Any, **only: Any) -> list[Hit]:
        return await super().search(scope, query, *rest, **only) or await super().search(scope, "", *rest, **only)


class WholeWordsOnly(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return [hit for hit in hits if hit.why.words]


class GivesNoReason(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return [msgspec.structs.replace(hit, why=type(hit.why)()) for hit in hits]


class SaysNothingOfItsRanking(InMemoryLongTerm):
    @property
    def ranking(self) -> RecallSemantics:
        return msgspec.structs.replace(super().ranking, description="")


class NeighboursDoNotCount(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return [hit for hit in hits if hit.why.words or not hit.why.neighbours]


class Speaks(InMemoryLongTerm):
    """Stores facts as if they were said."""

    def said(self, change: Remembered) -> dict[str, Any]:
        return {"speaker": "somebody"}

    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered):
            change = msgspec.structs.replace(change, metadata=self.said(change))
        return super().apply(kept, change)


class OneConversation(Speaks):
    def said(self, change: Remembered) -> dict[str, Any]:
        return {"conversation": 1, **(change.metadata or {})} if not isinstance(change.metadata, dict) else {}


class SessionsMix(Speaks):
    def said(self, change: Remembered) -> dict[str, Any]:
        return {"session": 1}


class TimesAreNotSearched(Changed):
    def changed(self, query: str, hits: list[Hit]) -> list[Hit]:
        return [hit for hit in hits if any(word in hit.fact.text for word in hit.why.words)]


class UntilIsExcluded(InMemoryLongTerm):
    async def search(self, *rest: Any, until: dt.datetime | None = None, **only: Any) -> list[Hit]:
        before = None if until is None else until - dt.timedelta(microseconds=1)
        return await super().search(*rest, until=before, **only)


class TimeIsAlwaysNow(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered):
            change = msgspec.structs.replace(change, said_ns=time.time_ns())
        return super().apply(kept, change)


class OneIsTrue(InMemoryLongTerm):
    async def search(self, *rest: Any, where: dict[str, Any] | None = None, **only: Any) -> list[Hit]:
        hits = await super().search(*rest, where=where, **only)
        if where == {"n": 1}:
            hits += await super().search(*rest, where={"n": True}, **only)
        return hits


class FiltersBehindK(InMemoryLongTerm):
    async def search(self, *rest: Any, where: dict[str, Any] | None = None, **only: Any) -> list[Hit]:
        hits = await super().search(*rest, **only)
        return [hit for hit in hits if where is None or hit.fact.metadata == where]


class ScopesMix(InMemoryLongTerm):
    async def search(
        self, scope: Scope, query: str, k: int = 5, *, fall_through: Sequence[Scope] = (), **only: Any
    ) -> list[Hit]:
        hits: list[Hit] = []
        for one in (scope, *fall_through):
            hits += await super().search(one, query, k, **only)
        return sorted(hits, key=lambda hit: -hit.score)[:k]


class LastPageIsEmpty(InMemoryLongTerm):
    async def facts(self, scope: Scope, limit: int = 50, cursor: str | None = None, **only: Any) -> FactPage:
        page = await super().facts(scope, limit, cursor, **only)
        return msgspec.structs.replace(page, items=page.items[:-1]) if limit == 3 else page


class CursorsCount(InMemoryLongTerm):
    async def facts(self, scope: Scope, limit: int = 50, cursor: str | None = None, **only: Any) -> FactPage:
        skipped = 0 if cursor is None else int(cursor.partition(".")[2])
        page = await super().facts(scope, skipped + limit, None, **only)
        items = page.items[skipped:]
        return FactPage(items=items, next_cursor=f"1.{skipped + limit}" if page.next_cursor else None)


class ForgetsInTheIndexOnly(InMemoryLongTerm):
    async def facts(self, *rest: Any, **only: Any) -> FactPage:
        page = await super().facts(*rest, **only)
        return msgspec.structs.replace(page, items=[*getattr(self, "gone", []), *page.items])

    async def forget(self, fact_id: str) -> bool:
        found = self.find(fact_id)
        self.gone = [found] if found is not None else []
        return await super().forget(fact_id)


class ForgetsAlways(InMemoryLongTerm):
    async def forget(self, fact_id: str) -> bool:
        await super().forget(fact_id)
        return True


class UsesNumbersAgain(InMemoryLongTerm):
    async def forget(self, fact_id: str) -> bool:
        forgotten = await super().forget(fact_id)
        place = parse_fact_id(fact_id)
        if forgotten and place is not None:
            self.kept[place[0]] = FactCollection(place[0], 1)
        return forgotten


class BothForget(InMemoryLongTerm):
    async def forget(self, fact_id: str) -> bool:
        there = self.find(fact_id) is not None
        return await super().forget(fact_id) or there


class UnknownIsNone(InMemoryLongTerm):
    async def get(self, fact_id: str) -> StoredFact:
        await trio.lowlevel.checkpoint()
        return self.find(fact_id)  # type: ignore[return-value]


class SupersedesNothing(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered):
            change = msgspec.structs.replace(change, supersedes=None)
        return super().apply(kept, change)


class SupersedesAnything(InMemoryLongTerm):
    async def remember(self, scope: Scope, fact: Fact, *, supersedes: str | None = None, **options: Any) -> FactId:
        try:
            return await super().remember(scope, fact, supersedes=supersedes, **options)
        except NotFound:
            return await super().remember(scope, fact, **options)


class NothingExpires(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered) and change.expires_ns is not None:
            change = msgspec.structs.replace(change, expires_ns=max(change.expires_ns, time.time_ns() + 10**12))
        return super().apply(kept, change)


class ForgetsTheOrigin(InMemoryLongTerm):
    def apply(self, kept: FactCollection, change: Change) -> int:
        if isinstance(change, Remembered):
            change = msgspec.structs.replace(change, run=None, step=None)
        return super().apply(kept, change)


class SameTextIsTheSame(InMemoryLongTerm):
    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        if deduplicate:
            for number, entry in kept._entries.items():
                if entry.change.text == changes[0].text:
                    return [fact_id(kept.scope, kept.generation, number)]
        return super().store(kept, changes, deduplicate=deduplicate)


class LooksOnceForAll(InMemoryLongTerm):
    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        found = [kept.find_same(Fact(change.text, change.metadata), 0) if deduplicate else None for change in changes]
        return [
            super(LooksOnceForAll, self).store(kept, [change], deduplicate=False)[0]
            if number is None
            else fact_id(kept.scope, kept.generation, number)
            for change, number in zip(changes, found, strict=True)
        ]


class ExpiredIsADuplicate(InMemoryLongTerm):
    def store(self, kept: FactCollection, changes: Sequence[Remembered], *, deduplicate: bool) -> list[FactId]:
        ids = []
        for change in changes:
            same = [
                number
                for number, entry in kept._entries.items()
                if entry.change.expires_ns is not None and entry.change.text == change.text
            ]
            if deduplicate and same:
                ids.append(fact_id(kept.scope, kept.generation, same[0]))
            else:
                ids += super().store(kept, [change], deduplicate=deduplicate)
        return ids


class LooksBeforeItWaits(InMemoryLongTerm):
    async def remember(self, scope: Scope, fact: Fact, *, deduplicate: bool = False, **options: Any) -> FactId:
        known = self.of(scope).find_same(fact, time.time_ns()) if deduplicate else None
        await trio.lowlevel.checkpoint()
        if known is not None:
            return fact_id(scope, 1, known)
        return await super().remember(scope, fact, **options)


class KeepsNoForgetting(InMemoryLongTerm):
    def __init__(self, kept: dict[Scope, FactCollection] | None = None):
        super().__init__(kept)
        for scope, collection in self.kept.items():
            again = FactCollection(scope, 1)
            for number, entry in collection._entries.items():
                change = msgspec.structs.replace(entry.change, said_ns=None)
                again.apply(number, change, entry.remembered_ns)
            while again.index_some():
                pass
            self.kept[scope] = again


class ReadsAtOnce(InMemoryLongTerm):
    async def get(self, fact_id: str) -> StoredFact:
        found = self.find(fact_id)
        if found is None:
            raise NotFound("there is none")
        return found


class StoresBeforeItLooks(InMemoryLongTerm):
    async def forget(self, fact_id: str) -> bool:
        place = parse_fact_id(fact_id)
        there = self.find(fact_id) is not None
        if there and place is not None:
            self.apply(self.of(place[0]), Forgotten(place[2]))
        await trio.lowlevel.checkpoint()
        return there


BROKEN_FACTS: dict[str, type[InMemoryLongTerm]] = {
    "test_what_is_remembered_is_recalled_by_a_word_in_it": ByWholeTextOnly,
    "test_it_is_a_long_term_memory_behind_the_protocol": HasNoPages,
    "test_each_fact_has_an_id_of_its_own_also_if_it_says_the_same": IdOfTheText,
    "test_scopes_are_exact_for_all_kinds_and_for_one_name_in_two_kinds": OneScopePerName,
    "test_scopes_are_listed_in_the_order_in_which_they_began": ListsWhatWasAsked,
    "test_an_unknown_scope_is_empty": UnknownScopeIsAnError,
    "test_at_most_k_facts_come_and_all_if_k_is_larger": AtLeastOne,
    "test_text_and_metadata_come_back_as_they_were": MetadataAsText,
    "test_a_fact_without_metadata_has_none": MetadataIsAnObject,
    "test_what_the_caller_does_with_its_values_changes_nothing": GivesItsOwnValues,
    "test_many_are_remembered_in_order_with_their_ids": IdsBackwards,
    "test_many_are_remembered_together_or_not_at_all": StoresTheGoodOnes,
    "test_facts_of_many_tasks_are_all_there_each_tasks_in_its_order": LosesConcurrent,
    "test_what_cannot_be_stored_or_meant_is_refused_and_nothing_is_stored": TakesNaiveTimes,
    "test_the_text_itself_ranks_first": LongestFirst,
    "test_what_has_more_of_the_words_ranks_before_what_has_fewer": ByOneWord,
    "test_a_rare_word_weighs_more_than_a_common_one": EveryWordWeighsTheSame,
    "test_other_forms_of_a_word_are_found": ByTheVeryWords,
    "test_of_equal_ones_the_newest_comes_first": OldestFirst,
    "test_a_blank_query_finds_the_newest": BlankFindsNothing,
    "test_what_shares_nothing_with_the_query_is_not_found": AlwaysFindsSomething,
    "test_where_no_word_is_found_a_piece_of_the_text_is": WholeWordsOnly,
    "test_hits_have_id_score_and_reasons_best_first": GivesNoReason,
    "test_it_says_how_it_ranks": SaysNothingOfItsRanking,
    "test_the_answer_is_found_by_the_words_of_its_question": NeighboursDoNotCount,
    "test_facts_that_are_no_conversation_lend_each_other_nothing": OneConversation,
    "test_two_conversations_that_mix_lend_each_other_nothing": SessionsMix,
    "test_dates_are_found_in_any_form": TimesAreNotSearched,
    "test_a_time_range_includes_its_bounds": UntilIsExcluded,
    "test_the_time_of_a_fact_is_now_unless_it_is_said": TimeIsAlwaysNow,
    "test_metadata_is_filtered_by_value": OneIsTrue,
    "test_what_is_filtered_out_takes_no_place": FiltersBehindK,
    "test_other_scopes_give_only_what_is_missing": ScopesMix,
    "test_pages_show_every_fact_once_in_the_order_of_remembering": LastPageIsEmpty,
    "test_what_comes_and_goes_between_two_pages_moves_nothing": CursorsCount,
    "test_what_is_forgotten_is_in_no_answer": ForgetsInTheIndexOnly,
    "test_forgetting_twice_or_what_never_was_is_false_and_no_error": ForgetsAlways,
    "test_an_id_is_never_given_again": UsesNumbersAgain,
    "test_of_two_that_forget_at_once_one_is_told_that_it_did": BothForget,
    "test_an_unknown_id_is_not_found": UnknownIsNone,
    "test_what_is_superseded_is_read_but_not_found": SupersedesNothing,
    "test_only_a_current_fact_of_the_same_scope_can_be_superseded": SupersedesAnything,
    "test_what_has_expired_is_not_found": NothingExpires,
    "test_where_a_fact_came_from_is_kept": ForgetsTheOrigin,
    "test_a_duplicate_is_stored_once_if_that_is_asked_for": SameTextIsTheSame,
    "test_duplicates_among_many_are_stored_once": LooksOnceForAll,
    "test_what_was_forgotten_superseded_or_expired_is_no_duplicate": ExpiredIsADuplicate,
    "test_duplicates_remembered_at_once_are_stored_once": LooksBeforeItWaits,
    "test_everything_is_the_same_after_reopening": KeepsNoForgetting,
    "test_every_call_is_a_checkpoint": ReadsAtOnce,
    "test_a_caller_that_is_cancelled_already_stores_nothing": StoresBeforeItLooks,
}
"""By test of the contract, the twin with that rule broken."""
