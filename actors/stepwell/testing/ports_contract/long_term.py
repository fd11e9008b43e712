"""What every `LongTermMemory` has to do: facts in scopes, found, filtered, paged, superseded and forgotten.

Where the reference leaves something open, the name of the test says what is decided here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints

from stepwell.errors import InvalidInput, NotFound
from stepwell.memory.long_term_contract import LongTermMemory
from stepwell.model.fact import Fact, FactId, Origin
from stepwell.model.scope import Scope
from stepwell.testing.ports_contract.place import PlaceOfPorts, PortsPlace

WS, AGENT, OTHER = Scope.workspace("team"), Scope.agent("team"), Scope.workspace("other")
ALL = (WS, AGENT, OTHER, Scope.GLOBAL)
DAY = dt.timedelta(days=1)
MAY_8 = dt.datetime(2023, 5, 8, 13, 56, tzinfo=dt.UTC)
SKY, GRASS, SEA = Fact("the sky is blue"), Fact("the grass is green"), Fact("the sea is deep and blue")

NESTED = {"a": {"b": [1, 2.5, None, True, {"c": ""}]}, "ä": "🪜"}
METADATA: list[Any] = [None, {}, [], 0, "text", False, NESTED, [[], {}], 2**60]

REFUSED: list[Callable[[Any], Awaitable[object]]] = [
    lambda facts: facts.remember("workspace", SKY),
    lambda facts: facts.remember(Scope("workspace", ""), SKY),
    lambda facts: facts.remember(Scope("planet", "x"), SKY),  # type: ignore[arg-type]
    lambda facts: facts.remember(Scope("global", "x"), SKY),
    lambda facts: facts.remember(WS, "the sky is blue"),
    lambda facts: facts.remember(WS, Fact("")),
    lambda facts: facts.remember(WS, Fact(" \n")),
    lambda facts: facts.remember(WS, Fact(5)),  # type: ignore[arg-type]
    lambda facts: facts.remember(WS, Fact("\ud800")),
    lambda facts: facts.remember(WS, Fact("x", {"a": float("nan")})),
    lambda facts: facts.remember(WS, Fact("x", {"a": b"bytes"})),
    lambda facts: facts.remember(WS, Fact("x", {1: "key"})),
    lambda facts: facts.remember(WS, SKY, time=dt.datetime(2023, 5, 8)),
    lambda facts: facts.remember(WS, SKY, expires_at="tomorrow"),
    lambda facts: facts.remember(WS, SKY, origin="run-1"),
    lambda facts: facts.remember(WS, SKY, origin=Origin("run-1", 0)),
    lambda facts: facts.remember_many(WS, SKY),
    lambda facts: facts.recall(WS, 5),
    lambda facts: facts.recall(WS, "sky", -1),
    lambda facts: facts.recall(WS, "sky", 1.5),
    lambda facts: facts.recall("global", "sky"),
    lambda facts: facts.search(WS, "sky", where=["a"]),
    lambda facts: facts.search(WS, "sky", since=dt.datetime(2023, 5, 8)),
    lambda facts: facts.search(WS, "sky", fall_through=Scope.GLOBAL),
    lambda facts: facts.facts(WS, 0),
    lambda facts: facts.facts(WS, 5, "nonsense"),
]

TOLD = ["text", "metadata", "seconds", "time"]
"""Where a fact may say when it was so."""
FILTERED: dict[str, Any] = {
    "a": {"n": 1, "tag": "x"},
    "b": {"n": True},
    "c": {"tag": "x", "nothing": None},
    "d": {"tag": ["x", "y"]},
    "e": {"in": {"deep": 1, "more": 2}},
    "f": None,
}
FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdef"),
    ({"n": 1}, "a"),
    ({"n": True}, "b"),
    ({"n": 1, "tag": "x"}, "a"),
    ({"tag": "x"}, "acd"),
    ({"tag": ["x", "y"]}, "d"),
    ({"tag": "y"}, "d"),
    ({"in": {"deep": 1}}, "e"),
    ({"in": {}}, "e"),
    ({"in": None}, ""),
    ({"missing": None}, ""),
    ({"nothing": None}, "c"),
]


async def texts(facts: LongTermMemory, query: str, scope: Scope = WS, k: int = 10, **only: Any) -> list[str]:
    """The texts that are recalled."""
    return [fact.text for fact in await facts.recall(scope, query, k, **only)]


async def listed(facts: LongTermMemory, scope: Scope = WS, limit: int = 100, **only: Any) -> list[str]:
    """The texts of all facts of a scope, by pages of `limit`."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await facts.facts(scope, limit, cursor, **only)
        assert len(page.items) <= limit
        found += [fact.text for fact in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


class LongTermContract(PlaceOfPorts):
    """The rules of facts."""

    @pytest.fixture
    async def facts(self, place: PortsPlace) -> AsyncIterator[LongTermMemory]:
        """Those of an empty place."""
        async with place.opened() as ports:
            yield ports.long_term

    # ---- remembering and recalling -----------------------------------------------------------------------------------

    async def test_what_is_remembered_is_recalled_by_a_word_in_it(self, facts: LongTermMemory) -> None:
        await facts.remember(WS, SKY)
        assert await facts.recall(WS, "sky", 1) == [SKY]

    async def test_it_is_a_long_term_memory_behind_the_protocol(self, facts: LongTermMemory) -> None:
        assert isinstance(facts, LongTermMemory)

    async def test_each_fact_has_an_id_of_its_own_also_if_it_says_the_same(self, facts: LongTermMemory) -> None:
        ids = [await facts.remember(scope, SKY) for scope in ALL for _ in range(2)]
        ids += await facts.remember_many(WS, [SKY, SKY])
        assert len(set(ids)) == 10
        assert all(isinstance(fact_id, str) and fact_id for fact_id in ids)

    async def test_scopes_are_exact_for_all_kinds_and_for_one_name_in_two_kinds(self, facts: LongTermMemory) -> None:
        for place, scope in enumerate(ALL):
            await facts.remember(scope, Fact(f"sky number {place}"))
        for place, scope in enumerate(ALL):
            assert await texts(facts, "sky number", scope) == [f"sky number {place}"]
            assert await listed(facts, scope) == [f"sky number {place}"]
        assert await texts(facts, "sky", Scope.agent("other")) == []

    async def test_scopes_are_listed_in_the_order_in_which_they_began(self, facts: LongTermMemory) -> None:
        assert await facts.scopes() == []
        for scope in (*ALL, WS):
            await facts.recall(Scope.agent("only asked"), "sky")
            await facts.remember(scope, SKY)
        assert await facts.scopes() == list(ALL)

    async def test_an_unknown_scope_is_empty(self, facts: LongTermMemory) -> None:
        assert await facts.recall(WS, "sky") == await facts.search(WS, "sky") == []
        page = await facts.facts(WS)
        assert page.items == []
        assert page.next_cursor is None

    async def test_at_most_k_facts_come_and_all_if_k_is_larger(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact(f"sky {number}") for number in range(7)])
        for k, count in ((0, 0), (1, 1), (6, 6), (7, 7), (8, 7), (1_000, 7)):
            assert len(await facts.recall(WS, "sky", k)) == count
            assert len(await facts.search(WS, "sky", k)) == count

    async def test_text_and_metadata_come_back_as_they_were(self, facts: LongTermMemory) -> None:
        for place, metadata in enumerate(METADATA):
            scope, fact = Scope.agent(f"agent {place}"), Fact("zig\nzag \t 🪜 ünïcode", metadata)
            found = await facts.get(await facts.remember(scope, fact))
            assert (found.text, found.metadata) == (fact.text, metadata)
            assert type(found.metadata) is type(metadata)
            assert await facts.recall(scope, "zag") == [fact]

    async def test_a_fact_without_metadata_has_none(self, facts: LongTermMemory) -> None:
        await facts.remember(WS, Fact("bare"))
        assert (await facts.recall(WS, "bare"))[0].metadata is None

    async def test_what_the_caller_does_with_its_values_changes_nothing(self, facts: LongTermMemory) -> None:
        metadata = {"tags": ["a"]}
        fact_id = await facts.remember(WS, Fact("mine", metadata))
        metadata["tags"].append("b")
        (await facts.get(fact_id)).metadata["tags"].append("c")
        (await facts.search(WS, "mine"))[0].fact.metadata["tags"].append("d")
        assert (await facts.get(fact_id)).metadata == {"tags": ["a"]}

    async def test_many_are_remembered_in_order_with_their_ids(self, facts: LongTermMemory) -> None:
        ids = await facts.remember_many(WS, [SKY, GRASS, SEA])
        assert [(await facts.get(fact_id)).fact for fact_id in ids] == [SKY, GRASS, SEA]
        assert await listed(facts) == [SKY.text, GRASS.text, SEA.text]
        assert await facts.remember_many(WS, []) == []

    async def test_many_are_remembered_together_or_not_at_all(self, facts: LongTermMemory) -> None:
        with pytest.raises(InvalidInput, match=r"facts\[1\]"):
            await facts.remember_many(WS, [SKY, Fact(""), GRASS])
        assert await listed(facts) == []

    async def test_facts_of_many_tasks_are_all_there_each_tasks_in_its_order(self, facts: LongTermMemory) -> None:
        ids: list[FactId] = []

        async def remember(task: int) -> None:
            for number in range(5):
                ids.append(await facts.remember(WS, Fact(f"task {task} number {number}")))

        async with trio.open_nursery() as nursery:
            for task in range(8):
                nursery.start_soon(remember, task)
        assert len(set(ids)) == 40
        found = await listed(facts)
        for task in range(8):
            mine = [text for text in found if text.startswith(f"task {task} ")]
            assert mine == [f"task {task} number {number}" for number in range(5)]

    async def test_what_cannot_be_stored_or_meant_is_refused_and_nothing_is_stored(self, facts: LongTermMemory) -> None:
        await facts.remember(WS, GRASS)
        for refused in REFUSED:
            with pytest.raises(InvalidInput):
                await refused(facts)
        assert await listed(facts) == [GRASS.text]
        assert await listed(facts, Scope.GLOBAL) == []

    # ---- ranking -----------------------------------------------------------------------------------------------------

    async def test_the_text_itself_ranks_first(self, facts: LongTermMemory) -> None:
        said = [
            Fact("blue"),
            Fact("blue sky blue sky blue sky"),
            Fact("Ann: the sky is blue, and the sea is blue"),
            Fact("Bob: the sky is blue"),
            Fact("Ann: the sky is blue, blue, and blue"),
        ]
        await facts.remember_many(WS, said)
        for fact in said:
            assert (await facts.recall(WS, fact.text))[0] == fact

    async def test_what_has_more_of_the_words_ranks_before_what_has_fewer(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [SEA, SKY, GRASS, Fact("nothing of it")])
        assert await texts(facts, "deep blue") == [SEA.text, SKY.text]

    async def test_a_rare_word_weighs_more_than_a_common_one(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact(f"common {name}") for name in ("ape", "bee", "cat")] + [Fact("rare dog")])
        assert (await texts(facts, "common rare"))[0] == "rare dog"

    async def test_other_forms_of_a_word_are_found(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact("Ann bought houses"), Fact("Bob sings")])
        for query in ("buying a house", "HOUSES", "who buys?", "Has Ann bought any house?", "Ann's house", "hóuse"):
            assert await texts(facts, query) == ["Ann bought houses"]

    async def test_of_equal_ones_the_newest_comes_first(self, facts: LongTermMemory) -> None:
        ids = [await facts.remember(WS, Fact("the same")) for _ in range(5)]
        assert [hit.id for hit in await facts.search(WS, "same", 10)] == ids[::-1]

    async def test_a_blank_query_finds_the_newest(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [SKY, GRASS, SEA])
        assert await texts(facts, " ", k=2) == [SEA.text, GRASS.text]

    async def test_what_shares_nothing_with_the_query_is_not_found(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [SKY, GRASS])
        assert await texts(facts, "submarine") == []

    async def test_where_no_word_is_found_a_piece_of_the_text_is(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact("error E-77001: disk"), GRASS])
        for piece in ("7700", "rROR"):
            assert await texts(facts, piece) == ["error E-77001: disk"]

    async def test_hits_have_id_score_and_reasons_best_first(self, facts: LongTermMemory) -> None:
        ids = await facts.remember_many(WS, [SKY, SEA, GRASS])
        hits = await facts.search(WS, "deep blue")
        assert [hit.id for hit in hits] == [ids[1], ids[0]]
        assert hits[0].score > hits[1].score > 0
        assert set(hits[0].why.words) == {"deep", "blue"}
        assert set(hits[1].why.words) == {"blue"}
        assert [hit.fact.fact for hit in hits] == await facts.recall(WS, "deep blue")
        assert "deep" in str(hits[0].why)

    async def test_it_says_how_it_ranks(self, facts: LongTermMemory) -> None:
        ranking = facts.ranking
        assert ranking.kind in ("lexical", "hybrid")
        assert ranking.description

    # ---- conversations and times -------------------------------------------------------------------------------------

    async def test_the_answer_is_found_by_the_words_of_its_question(self, facts: LongTermMemory) -> None:
        said = ["Ann: any plans for the holidays?", "Bob: camping at the lake", "Ann: nice", "Bob: and the dog?"]
        await facts.remember_many(WS, [Fact(text) for text in said])
        hits = await facts.search(WS, "holidays")
        assert [hit.fact.text for hit in hits][:2] == said[:2]
        assert hits[1].why.neighbours > 0
        assert hits[1].why.words == {}

    async def test_facts_that_are_no_conversation_lend_each_other_nothing(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact("any plans for the holidays"), Fact("camping at the lake")])
        assert await texts(facts, "holidays") == ["any plans for the holidays"]

    async def test_two_conversations_that_mix_lend_each_other_nothing(self, facts: LongTermMemory) -> None:
        for text, session in (("holidays", 1), ("stocks fell", 2), ("at the lake", 1), ("and bonds", 2)):
            await facts.remember(WS, Fact(text, {"session": session}))
        assert await texts(facts, "holidays") == ["holidays", "at the lake"]

    @pytest.mark.parametrize("told", TOLD)
    async def test_dates_are_found_in_any_form(self, facts: LongTermMemory, told: str) -> None:
        text = "a fire (2023-05-08)" if told == "text" else "a fire"
        metadata = {"metadata": {"session_date": "1:56 pm on 8 May, 2023"}, "seconds": {"created_at": 1683554160}}
        time = MAY_8 if told == "time" else None
        await facts.remember(WS, Fact(text, metadata.get(told)), time=time)
        await facts.remember(WS, Fact("a flood", {"date": "2021-11-30"}))
        for query in ("8 May 2023", "May 8th, 2023", "2023-05-08", "what happened in May?"):
            assert await texts(facts, query) == [text]

    async def test_a_time_range_includes_its_bounds(self, facts: LongTermMemory) -> None:
        for day in range(4):
            await facts.remember(WS, Fact(f"sky {day}"), time=MAY_8 + day * DAY)
        only: dict[str, Any] = {"since": MAY_8 + DAY, "until": MAY_8 + 2 * DAY}
        assert sorted(await texts(facts, "sky", **only)) == ["sky 1", "sky 2"]
        assert await listed(facts, **only) == ["sky 1", "sky 2"]
        assert await texts(facts, "sky", since=MAY_8 + 3 * DAY) == ["sky 3"]
        assert await texts(facts, "sky", until=MAY_8) == ["sky 0"]
        assert await texts(facts, "sky", since=MAY_8 + DAY, until=MAY_8) == []

    async def test_the_time_of_a_fact_is_now_unless_it_is_said(self, facts: LongTermMemory) -> None:
        before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
        now = await facts.get(await facts.remember(WS, SKY))
        then = await facts.get(await facts.remember(WS, SKY, time=MAY_8))
        assert before <= now.time <= dt.datetime.now(dt.UTC)
        assert then.time == MAY_8
        assert then.time.utcoffset() == dt.timedelta(0)

    # ---- filters -----------------------------------------------------------------------------------------------------

    async def test_metadata_is_filtered_by_value(self, facts: LongTermMemory) -> None:
        await facts.remember_many(WS, [Fact(f"letter {name}", metadata) for name, metadata in FILTERED.items()])
        for where, found in FILTERS:
            expected = [f"letter {name}" for name in found]
            assert sorted(await texts(facts, "letter", where=where)) == expected
            assert await listed(facts, where=where) == expected

    async def test_what_is_filtered_out_takes_no_place(self, facts: LongTermMemory) -> None:
        await facts.remember(WS, Fact("sky", {"n": 0}))
        await facts.remember_many(WS, [Fact("sky sky", {"n": number}) for number in range(1, 600)])
        assert await texts(facts, "sky", k=1, where={"n": 0}) == ["sky"]

    async def test_other_scopes_give_only_what_is_missing(self, facts: LongTermMemory) -> None:
        await facts.remember(AGENT, Fact("sky of the agent"))
        await facts.remember(WS, Fact("sky sky of the team"))
        await facts.remember(Scope.GLOBAL, Fact("sky sky sky of all"))
        wider = [WS, Scope.GLOBAL]
        everything = ["sky of the agent", "sky sky of the team", "sky sky sky of all"]
        for k in range(4):
            assert await texts(facts, "sky", AGENT, k, fall_through=wider) == everything[:k]
        assert await texts(facts, "sky", AGENT, fall_through=[AGENT, WS, WS]) == everything[:2]

    # ---- pages -------------------------------------------------------------------------------------------------------

    async def test_pages_show_every_fact_once_in_the_order_of_remembering(self, facts: LongTermMemory) -> None:
        said = [f"fact {number}" for number in range(7)]
        await facts.remember_many(WS, [Fact(text) for text in said])
        for limit in (1, 3, 7, 100):
            assert await listed(facts, limit=limit) == said

    async def test_what_comes_and_goes_between_two_pages_moves_nothing(self, facts: LongTermMemory) -> None:
        ids = await facts.remember_many(WS, [Fact(f"fact {number}") for number in range(6)])
        first = await facts.facts(WS, 3)
        for gone in (ids[0], ids[2], ids[3]):
            assert await facts.forget(gone)
        await facts.remember(WS, Fact("fact 6"))
        second = await facts.facts(WS, 10, first.next_cursor)
        assert [fact.id for fact in first.items] == ids[:3]
        assert [fact.text for fact in second.items] == ["fact 4", "fact 5", "fact 6"]
        assert second.next_cursor is None

    # ---- forgetting, superseding, expiring ---------------------------------------------------------------------------

    async def test_what_is_forgotten_is_in_no_answer(self, facts: LongTermMemory) -> None:
        ids = await facts.remember_many(WS, [SKY, SEA, GRASS])
        assert await texts(facts, "blue") != []
        assert await facts.forget(ids[0])
        assert await texts(facts, "blue") == [SEA.text]
        assert await texts(facts, "sky") == []
        assert await listed(facts) == [SEA.text, GRASS.text]
        with pytest.raises(NotFound):
            await facts.get(ids[0])

    async def test_forgetting_twice_or_what_never_was_is_false_and_no_error(self, facts: LongTermMemory) -> None:
        fact_id = await facts.remember(WS, SKY)
        other = await facts.remember(WS, GRASS)
        assert [await facts.forget(fact_id) for _ in range(3)] == [True, False, False]
        for unknown in ("", "x", "workspace:team/1.999", f"{other}0", "global/1.1", "\ud800", "workspace:team/0.1"):
            assert await facts.forget(unknown) is False
        assert await listed(facts) == [GRASS.text]

    async def test_an_id_is_never_given_again(self, facts: LongTermMemory) -> None:
        seen: set[str] = set()
        for _ in range(4):
            fact_id = await facts.remember(WS, SKY)
            assert fact_id not in seen
            seen.add(fact_id)
            assert await facts.forget(fact_id)

    async def test_of_two_that_forget_at_once_one_is_told_that_it_did(self, facts: LongTermMemory) -> None:
        fact_id = await facts.remember(WS, SKY)
        told: list[bool] = []

        async def forget() -> None:
            told.append(await facts.forget(fact_id))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(forget)
        assert sorted(told) == [False, False, True]

    async def test_an_unknown_id_is_not_found(self, facts: LongTermMemory) -> None:
        for unknown in ("", "x", "workspace:team/1.1", 5):
            with pytest.raises(NotFound):
                await facts.get(unknown)  # type: ignore[arg-type]

    async def test_what_is_superseded_is_read_but_not_found(self, facts: LongTermMemory) -> None:
        old = await facts.remember(WS, SKY)
        assert await texts(facts, "sky") == [SKY.text]
        new = await facts.remember(WS, Fact("the sky is grey"), supersedes=old)
        assert await texts(facts, "sky blue") == ["the sky is grey"]
        assert await listed(facts) == ["the sky is grey"]
        assert ((await facts.get(old)).superseded_by, (await facts.get(new)).supersedes) == (new, old)
        assert (await facts.get(new)).superseded_by is None
        assert await facts.forget(old)
        assert await texts(facts, "sky") == ["the sky is grey"]

    async def test_only_a_current_fact_of_the_same_scope_can_be_superseded(self, facts: LongTermMemory) -> None:
        old = await facts.remember(WS, SKY)
        with pytest.raises(InvalidInput):
            await facts.remember(AGENT, SEA, supersedes=old)
        await facts.remember(WS, SEA, supersedes=old)
        for gone in (old, "x", "workspace:team/1.999"):
            with pytest.raises(NotFound):
                await facts.remember(WS, GRASS, supersedes=gone)
        assert await listed(facts) == [SEA.text]
        assert await listed(facts, AGENT) == []

    async def test_what_has_expired_is_not_found(self, facts: LongTermMemory) -> None:
        past, future = dt.datetime.now(dt.UTC) - DAY, dt.datetime.now(dt.UTC) + DAY
        gone = await facts.remember(WS, Fact("sky of yesterday"), expires_at=past)
        kept = await facts.remember(WS, Fact("sky of today"), expires_at=future)
        assert await texts(facts, "sky") == ["sky of today"]
        assert await listed(facts) == ["sky of today"]
        assert (await facts.get(gone)).expires_at == past
        assert (await facts.get(kept)).expires_at == future

    async def test_where_a_fact_came_from_is_kept(self, facts: LongTermMemory) -> None:
        known = await facts.remember(WS, SKY, origin=Origin("run-1", 3))
        unknown = await facts.remember(WS, SEA)
        assert (await facts.get(known)).origin == Origin("run-1", 3)
        assert (await facts.get(unknown)).origin is None
        assert (await facts.search(WS, "sky"))[0].fact.origin == Origin("run-1", 3)

    # ---- duplicates --------------------------------------------------------------------------------------------------

    async def test_a_duplicate_is_stored_once_if_that_is_asked_for(self, facts: LongTermMemory) -> None:
        first = await facts.remember(WS, Fact("sky", {"n": 1}), deduplicate=True)
        assert await facts.remember(WS, Fact("sky", {"n": 1}), deduplicate=True) == first
        assert await facts.remember(WS, Fact("sky", {"n": 1})) != first
        assert await facts.remember(WS, Fact("sky", {"n": 2}), deduplicate=True) != first
        assert await facts.remember(WS, Fact("sky", {"n": True}), deduplicate=True) != first
        assert await facts.remember(AGENT, Fact("sky", {"n": 1}), deduplicate=True) != first
        assert await listed(facts) == ["sky"] * 4

    async def test_duplicates_among_many_are_stored_once(self, facts: LongTermMemory) -> None:
        (known,) = await facts.remember_many(WS, [SKY])
        ids = await facts.remember_many(WS, [GRASS, SKY, GRASS, SEA], deduplicate=True)
        assert ids[1] == known
        assert ids[0] == ids[2]
        assert await listed(facts) == [SKY.text, GRASS.text, SEA.text]

    async def test_what_was_forgotten_superseded_or_expired_is_no_duplicate(self, facts: LongTermMemory) -> None:
        ids = await facts.remember_many(WS, [SKY, GRASS])
        await facts.remember(WS, SEA, expires_at=MAY_8)
        await facts.forget(ids[0])
        await facts.remember(WS, Fact("the grass is brown"), supersedes=ids[1])
        again = await facts.remember_many(WS, [SKY, GRASS, SEA], deduplicate=True)
        assert len({*ids, *again}) == 5
        assert await listed(facts) == ["the grass is brown", SKY.text, GRASS.text, SEA.text]

    async def test_duplicates_remembered_at_once_are_stored_once(self, facts: LongTermMemory) -> None:
        ids: set[str] = set()

        async def remember() -> None:
            ids.add(await facts.remember(WS, SKY, deduplicate=True))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(remember)
        assert len(ids) == 1
        assert await listed(facts) == [SKY.text]

    # ---- reopening ---------------------------------------------------------------------------------------------------

    async def test_everything_is_the_same_after_reopening(self, place: PortsPlace) -> None:
        if not place.keeps:
            pytest.skip("these ports keep nothing for the next opening")
        async with place.opened() as ports:
            facts = ports.long_term
            ids = await facts.remember_many(WS, [SKY, SEA, GRASS, Fact("Ann: holidays?"), Fact("Bob: lake")])
            await facts.remember(AGENT, Fact("blue", {"n": [1]}), time=MAY_8, origin=Origin("r", 1))
            later = Fact("Bob: the lake, and the sea")
            await facts.remember(WS, later, supersedes=ids[4], expires_at=MAY_8 + 9999 * DAY)
            await texts(facts, "blue")  # indexed before, not after
            await facts.forget(ids[0])
            before = [await shown(facts, scope) for scope in ALL]
        async with place.opened() as ports:
            facts = ports.long_term
            assert [await shown(facts, scope) for scope in ALL] == before
            with pytest.raises(NotFound):
                await facts.get(ids[0])
            assert await facts.forget(ids[0]) is False
            assert await facts.remember(WS, SEA, deduplicate=True) == ids[1]
            assert await facts.remember(WS, SKY) not in ids
            assert await facts.forget(ids[1])
        async with place.opened() as ports:
            assert await texts(ports.long_term, "deep") == []

    # ---- Trio --------------------------------------------------------------------------------------------------------

    async def test_every_call_is_a_checkpoint(self, facts: LongTermMemory) -> None:
        fact_id = await facts.remember(WS, SKY)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: facts.remember(WS, SEA),
            lambda: facts.remember_many(WS, [SEA]),
            lambda: facts.remember_many(WS, []),
            lambda: facts.recall(WS, "sky", 0),
            lambda: facts.search(WS, "sky"),
            lambda: facts.get(fact_id),
            lambda: facts.facts(WS),
            lambda: facts.forget(fact_id),
            lambda: facts.forget("x"),
            facts.scopes,
        ]
        for call in calls:
            with assert_checkpoints():
                await call()

    async def test_a_caller_that_is_cancelled_already_stores_nothing(self, facts: LongTermMemory) -> None:
        fact_id = await facts.remember(WS, SKY)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: facts.remember(WS, SEA),
            lambda: facts.remember_many(WS, [SEA, GRASS]),
            lambda: facts.remember(WS, SEA, supersedes=fact_id),
            lambda: facts.forget(fact_id),
        ]
        for call in calls:
            with trio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught
        assert await listed(facts) == [SKY.text]


async def shown(facts: LongTermMemory, scope: Scope) -> list[object]:
    """What a scope shows, and how it ranks."""
    page = await facts.facts(scope, 100)
    hits = [await facts.search(scope, query) for query in ("blue sea", "holidays", "8 May 2023", "")]
    return [
        [(fact.id, fact.fact, fact.time, fact.origin, fact.expires_at, fact.supersedes) for fact in page.items],
        [[(hit.id, hit.score, hit.why) for hit in found] for found in hits],
    ]
