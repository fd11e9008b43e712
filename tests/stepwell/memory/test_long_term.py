"""The long-term port beyond its contract: on the log, in transactions, beside a writer, with vectors."""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio

from stepstore.journal import Batch
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    START,
    Closed,
    DeletionReport,
    Event,
    Fact,
    InvalidInput,
    InvalidState,
    LocalKeyProvider,
    LongTermMemory,
    Memory,
    MemoryConfig,
    Message,
    NotFound,
    Origin,
    OutcomeUnknown,
    Rejected,
    Role,
    Scope,
    TooLarge,
    Unavailable,
    default_redactor,
)
from stepwell.learning.recall import vectors
from stepwell.learning.recall.vectors import Vectors, packed
from stepwell.model.codec import encode_record
from stepwell.model.fact_records import moment, nanoseconds, parse_fact_id
from stepwell.model.streams import SCOPE_STREAM, generation_id, generation_meta
from stepwell.runtime import fact_scope
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import LOG, SEGMENT_BYTES, force_into_log, open_on, step

WS, AGENT = Scope.workspace("team"), Scope.agent("coder")
SKY, SEA = Fact("the sky is blue"), Fact("the sea is deep")


async def texts(memory: Memory, query: str, scope: Scope = WS) -> list[str]:
    return [fact.text for fact in await memory.long_term.recall(scope, query, 10)]


# ---- wire shapes and ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "wire"),
    [(Scope.workspace("w"), {"Workspace": "w"}), (Scope.agent("a"), {"Agent": "a"}), (Scope.global_(), "Global")],
)
def test_scopes_have_the_shapes_of_the_reference(scope: Scope, wire: object) -> None:
    assert scope.to_wire() == wire
    assert Scope.from_wire(json.loads(json.dumps(wire))) == scope
    assert Scope.from_stream_name(scope.stream_name) == scope


@pytest.mark.parametrize(
    "value",
    ["global", "Workspace", None, {}, {"Workspace": ""}, {"Planet": "x"}, {"Agent": 5}, {"Global": ""}, ["Agent"]],
)
def test_what_is_no_scope_on_the_wire_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        Scope.from_wire(value)


def test_facts_have_the_shape_of_the_reference() -> None:
    fact = Fact("the sky is blue", {"source": "obs"})
    assert fact.to_wire() == {"text": "the sky is blue", "metadata": {"source": "obs"}}
    assert Fact.from_wire(fact.to_wire()) == fact
    assert Fact.from_wire({"text": "bare"}) == Fact("bare", None)
    for bad in ({}, {"text": 5}, "text", {"text": "x", "metadata": float("nan")}):
        with pytest.raises(InvalidInput):
            Fact.from_wire(bad)


def test_facts_are_equal_that_say_the_same() -> None:
    assert Fact("x", {"n": 1}) == Fact("x", {"n": 1})
    assert Fact("x", {"n": 1}) != Fact("x", {"n": True})
    assert Fact("x") != "x"
    assert len({Fact("x", {"n": 1}), Fact("x", {"n": 1})}) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "global", "global/1", "global/1.", "global/.1", "global/0.1", "global/1.01", "global/1.-1"),
        *("global/1.٣", "workspace:/1.1", "planet:x/1.1", "global/1.1 ", "global/1." + "9" * 30),
    ],
)
def test_what_was_never_given_is_no_id(text: str) -> None:
    assert parse_fact_id(text) is None


def test_an_id_tells_its_scope_whatever_the_name() -> None:
    assert parse_fact_id("workspace:a/b.c:d/12.34") == (Scope.workspace("a/b.c:d"), 12, 34)


def test_times_are_exact_to_the_microsecond() -> None:
    for given in (dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)):
        assert moment(nanoseconds(given, "time")) == given
    early = dt.datetime(2023, 5, 8, 1, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert moment(nanoseconds(early, "time")) == dt.datetime(2023, 5, 7, 23, tzinfo=dt.UTC)


# ---- the log ---------------------------------------------------------------------------------------------------------


async def test_what_was_remembered_survives_a_power_cut_and_what_was_forgotten_stays_forgotten() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        ids = await memory.long_term.remember_many(WS, [SKY, SEA])
        await memory.long_term.forget(ids[0])
        left = files.image({})
    async with open_on(left) as memory:
        assert await texts(memory, "sky sea") == [SEA.text]
        with pytest.raises(NotFound):
            await memory.long_term.get(ids[0])


async def test_every_change_is_an_event_that_is_json() -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]

    files = MemoryFileSystem()
    async with open_on(files, MemoryConfig(embedder=embed, segment_bytes=SEGMENT_BYTES)) as memory:
        fact_id = await memory.long_term.remember(WS, Fact("sky", {"n": 1}), origin=Origin("run", 2))
        await memory.long_term.forget(fact_id)
        async with memory.follow(START) as events:
            found = [await events.receive() for _ in range(2)]
    assert all(isinstance(event, Event) for event in found)
    kinds = [(event.kind, event.stream) for event in found if isinstance(event, Event)]
    assert kinds == [("remembered", "workspace:team"), ("forgotten", "workspace:team")]
    data = [json.loads(json.dumps(event.data)) for event in found if isinstance(event, Event)]
    assert (data[0]["text"], data[0]["metadata"], data[0]["run"], data[0]["step"]) == ("sky", {"n": 1}, "run", 2)
    assert data[1] == {"number": 1}


async def test_a_record_of_a_newer_writer_is_passed_over() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.long_term.remember(WS, SKY)
    payload = encode_record("weighed", 2**60, {"number": 1}, None, path="x", limit=1000)
    await force_into_log(files, Batch(generation_id(SCOPE_STREAM, WS.stream_name, 1), 2, [payload], 0))
    async with open_on(files) as memory:
        assert await texts(memory, "sky") == [SKY.text]
        assert await memory.long_term.remember(WS, SEA) == "workspace:team/1.3"
        assert await texts(memory, "sea") == [SEA.text]


async def test_a_scope_whose_records_are_unsound_hurts_no_other() -> None:
    files = MemoryFileSystem()
    meta = generation_meta(SCOPE_STREAM, WS.stream_name, 1)
    payload = encode_record("remembered", 2**60, {"text": 5}, meta, path="x", limit=1000)
    await force_into_log(files, Batch(generation_id(SCOPE_STREAM, WS.stream_name, 1), 1, [payload], 0))
    async with open_on(files) as memory:
        with pytest.raises(Unavailable, match="workspace:team"):
            await memory.long_term.recall(WS, "sky")
        await memory.long_term.remember(AGENT, SKY)
        assert await texts(memory, "sky", AGENT) == [SKY.text]


@pytest.mark.parametrize("policy", ["fail_next", "lose_ack_next", "reject_next"])
async def test_a_failed_write_is_told_and_what_is_found_is_what_the_log_says(
    policy: str, autojump_clock: trio.testing.MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        first = await memory.long_term.remember(WS, SKY)
        getattr(journal, policy)()
        with pytest.raises((OutcomeUnknown, Rejected)):
            await memory.long_term.remember(WS, SEA)
        there = policy == "lose_ack_next"
        assert await texts(memory, "sea") == ([SEA.text] if there else [])
        again = await memory.long_term.remember(WS, SEA, deduplicate=True)
        assert again == f"workspace:team/1.{2}"
        assert await memory.long_term.forget(first)
        assert await texts(memory, "sky sea") == [SEA.text]


async def test_reading_beside_a_writer_shows_what_it_has_written_by_then() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as writer:
        fact_id = await writer.long_term.remember(WS, SKY)
        async with open_on(files, read_only=True) as reader:
            assert await texts(reader, "sky") == [SKY.text]
            await writer.long_term.remember(WS, Fact("a sky of lead"))
            await writer.long_term.forget(fact_id)
            assert await texts(reader, "sky") == ["a sky of lead"]
            await writer.long_term.clear(WS)
            await writer.long_term.remember(WS, Fact("a new sky"))
            assert await texts(reader, "sky") == ["a new sky"]
            with pytest.raises(Closed):
                await reader.long_term.remember(WS, SEA)


async def test_scopes_that_were_let_go_come_back_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_scope, "FACTS_KEPT", 5)
    async with open_on(MemoryFileSystem()) as memory:
        readers = memory.long_term._readers
        for number in range(6):
            await memory.long_term.remember_many(Scope.agent(f"a{number}"), [Fact(f"sky {number}")] * 3)
            assert await texts(memory, "sky", Scope.agent(f"a{number}")) == [f"sky {number}"] * 3
            assert sum(len(reader.collection) for reader in readers._readers.values()) <= 5
        assert await texts(memory, "sky", Scope.agent("a0")) == ["sky 0"] * 3
        await memory.long_term.remember_many(WS, [SKY] * 20)
        assert len(await texts(memory, "sky")) == 10
        assert list(readers._readers) == [WS]


async def test_scopes_that_hold_nothing_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_scope, "FACTS_KEPT", 50)
    async with open_on(MemoryFileSystem()) as memory:
        readers = memory.long_term._readers
        for number in range(100):
            assert await memory.long_term.recall(Scope.workspace(f"w{number}"), "sky") == []
        assert len(readers._readers) <= 50 / fact_scope.SCOPE_FACTS
        scope = Scope.workspace("w99")
        for number in range(3):
            await memory.long_term.remember(scope, Fact(f"the sky is blue {number}"))
            await memory.long_term.clear(scope)
            await memory.long_term.remember(scope, Fact("the sky is grey"))
            assert len(await memory.long_term.recall(scope, "sky")) == 1
        assert readers._kept == sum(reader.counted for reader in readers._readers.values())


async def test_searching_lets_others_run_while_it_indexes() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        await memory.long_term.remember_many(WS, [Fact(f"sky {number}") for number in range(1_000)])
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            assert await texts(memory, "sky 7")
            nursery.cancel_scope.cancel()
        assert turns > 1_000 / fact_scope.INDEXED_AT_ONCE


# ---- clearing --------------------------------------------------------------------------------------------------------


async def test_clearing_forgets_a_whole_scope_and_no_id_comes_again() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        before = await memory.long_term.remember_many(WS, [SKY, SEA])
        other = await memory.long_term.remember(AGENT, SKY)
        page = await memory.long_term.facts(WS, 1)
        assert await memory.long_term.scopes() == [WS, AGENT]
        assert await memory.long_term.clear(WS) is None
        assert await memory.long_term.scopes() == [AGENT]
        assert await texts(memory, "sky sea") == []
        after = await memory.long_term.remember_many(WS, [SKY, SEA])
        assert not set(before) & set(after)
        assert [await memory.long_term.forget(fact_id) for fact_id in before] == [False, False]
        with pytest.raises(NotFound):
            await memory.long_term.remember(WS, SEA, supersedes=before[0])
        assert (await memory.long_term.get(other)).text == SKY.text
        again = await memory.long_term.facts(WS, 5, page.next_cursor)
        assert [fact.id for fact in again.items] == after
    async with open_on(files) as memory:
        assert await memory.long_term.get(after[0]) == SKY
        assert await memory.long_term.scopes() == [AGENT, WS]
        with pytest.raises(NotFound):
            await memory.long_term.get(before[0])


async def test_purging_a_scope_leaves_no_byte_of_it() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.long_term.remember(WS, Fact("a-secret-nobody-may-keep"))
        await memory.long_term.remember(AGENT, SKY)
        report = await memory.long_term.clear(WS, purge=True)
        assert isinstance(report, DeletionReport)
        assert report.found == ()
        assert await texts(memory, "sky", AGENT) == [SKY.text]
    segments = [name for name in files.list_names(LOG) if name.endswith(".seg")]
    for name in segments:
        file = files.open(f"{LOG}/{name}", write=False)
        assert b"a-secret-nobody-may-keep" not in file.read(0, file.size())
        file.close()
    assert segments


async def test_an_encrypted_scope_tells_nothing_on_disk_and_its_key_goes_with_it() -> None:
    files = MemoryFileSystem()
    config = MemoryConfig(
        segment_bytes=SEGMENT_BYTES, key_provider=LocalKeyProvider(b"a master key of 32 bytes for all")
    )
    async with open_on(files, config) as memory:
        await memory.long_term.remember(WS, Fact("a-secret-nobody-may-keep"))
        await memory.long_term.remember(AGENT, SKY)
    async with open_on(files, config) as memory:
        assert await texts(memory, "secret") == ["a-secret-nobody-may-keep"]
        await memory.long_term.clear(WS)
        assert await texts(memory, "secret") == []
        assert await texts(memory, "sky", AGENT) == [SKY.text]


async def test_what_must_not_be_stored_is_redacted_before() -> None:
    config = MemoryConfig(redact=default_redactor, segment_bytes=SEGMENT_BYTES)
    async with open_on(MemoryFileSystem(), config) as memory:
        key = "sk-" + "a1b2c3d4" * 4
        fact_id = await memory.long_term.remember(WS, Fact(f"the key is {key}", {"api_key": "x", "n": 1}))
        found = await memory.long_term.get(fact_id)
        assert (found.text, found.metadata) == ("the key is [redacted]", {"api_key": "[redacted]", "n": 1})
        assert (
            await memory.long_term.remember(WS, Fact(f"the key is {key}", {"api_key": "y", "n": 1}), deduplicate=True)
            == fact_id
        )


async def test_a_fact_that_was_said_twice_is_still_there_when_the_newer_one_is_not_found_any_more() -> None:
    with_end = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        port = memory.long_term
        await port.remember(WS, Fact("first"), deduplicate=True)
        sea = await port.remember(WS, SEA)
        again = await port.remember(WS, SEA)
        assert await port.remember(WS, SEA, deduplicate=True) == again
        await port.remember(WS, Fact("the sea is grey"), supersedes=again)
        assert await port.remember(WS, SEA, deduplicate=True) == sea
        assert await port.remember_many(WS, [SEA, SEA], deduplicate=True) == [sea, sea]
        brief = await port.remember(WS, SEA, expires_at=with_end)
        assert await port.remember(WS, SEA, deduplicate=True) == brief
        collection = await port._readers.collection(WS)
        assert collection.find_same(SEA, int(with_end.timestamp() + 1) * 10**9) == int(sea.rpartition(".")[2])
        await port.forget(brief)
        assert await port.remember(WS, SEA, deduplicate=True) == sea
    async with open_on(files) as memory:
        assert await memory.long_term.remember(WS, SEA, deduplicate=True) == sea


# ---- transactions ----------------------------------------------------------------------------------------------------


async def test_facts_messages_and_steps_are_committed_together() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.start_episode("task", episode_id="e")
        async with memory.atomic() as tx:
            tx.log_step("e", step(1))
            tx.append("t", Message(Role.USER, "hi"))
            tx.remember(WS, SKY, origin=Origin("e", 2))
            tx.remember(AGENT, SEA)
            tx.remember(WS, Fact("the sky is wide"))
            with pytest.raises(InvalidState):
                tx.fact_ids(WS)
        assert tx.receipt is not None
        assert tx.receipt.is_durable
        assert tx.fact_ids(WS) == ["workspace:team/1.1", "workspace:team/1.2"]
        assert tx.fact_ids(AGENT) == ["agent:coder/1.1"]
        with pytest.raises(NotFound):
            tx.fact_ids(Scope.GLOBAL)
        left = files.image({})
    async with open_on(left) as memory:
        assert (await memory.long_term.get("workspace:team/1.1")).origin == Origin("e", 2)
        assert await texts(memory, "sea", AGENT) == [SEA.text]
        assert len((await memory.get_episode("e")).steps) == 1
        assert len(await memory.short_term.load("t", 100)) == 1


async def test_a_transaction_that_is_left_with_an_error_stores_no_fact() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        transactions = [memory.atomic(), memory.atomic()]
        with pytest.raises(ZeroDivisionError):
            async with transactions[0] as tx:
                tx.remember(WS, SKY)
                raise ZeroDivisionError
        with pytest.raises(InvalidInput):
            async with transactions[1] as tx:
                tx.remember(WS, SEA)
                tx.remember(WS, Fact(""))
        for left in transactions:
            with pytest.raises(InvalidState):
                left.fact_ids(WS)
        assert (await memory.long_term.facts(WS)).items == []


async def test_a_scope_with_the_longest_name_begins_in_a_transaction() -> None:
    longest = Scope.workspace("ä" * 90)
    with pytest.raises(TooLarge):
        Scope.workspace("ä" * 90 + "b")
    async with open_on(MemoryFileSystem()) as memory:
        async with memory.atomic() as tx:
            tx.remember(longest, SKY)
        assert await texts(memory, "sky", longest) == [SKY.text]


async def test_staging_behind_the_block_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        async with memory.atomic() as tx:
            pass
        with pytest.raises(InvalidState):
            tx.remember(WS, SKY)


# ---- time ------------------------------------------------------------------------------------------------------------


async def test_a_fact_expires_at_its_time_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    async with open_on(MemoryFileSystem()) as memory:
        await memory.long_term.remember(WS, SKY, expires_at=expires)
        at = nanoseconds(expires, "expires_at")
        for now_ns, found in ((at - 1, [SKY.text]), (at, []), (at + 1, [])):
            monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns: now_ns)
            assert await texts(memory, "sky") == found
            assert [fact.text for fact in (await memory.long_term.facts(WS)).items] == found


# ---- vectors ---------------------------------------------------------------------------------------------------------

MEANINGS = {
    "car": (1.0, 0.0, 0.1),
    "automobile": (0.9, 0.0, 0.2),
    "banana": (0.0, 1.0, 0.1),
    "nothing": (0.0, 0.0, 0.0),
}


def embed(texts: list[str]) -> list[tuple[float, ...]]:
    """The meaning of the last word that has one."""
    return [
        next((MEANINGS[word] for word in reversed(text.split()) if word in MEANINGS), (0.1, 0.1, 1.0)) for text in texts
    ]


async def embed_async(texts: list[str]) -> list[tuple[float, ...]]:
    await trio.lowlevel.checkpoint()
    return embed(texts)


class Counting:
    """An embedder that is an object."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def __call__(self, texts: list[str]) -> list[tuple[float, ...]]:
        self.texts += texts
        return embed(texts)


def config(embedder: Any) -> MemoryConfig:
    return MemoryConfig(embedder=embedder, segment_bytes=SEGMENT_BYTES)


@pytest.mark.parametrize("embedder", [embed, embed_async, Counting()], ids=["plain", "async", "object"])
@pytest.mark.parametrize("numpy", [True, False])
async def test_what_means_the_same_is_found_although_no_word_is_shared(
    embedder: Any, numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not numpy:
        monkeypatch.setattr(vectors, "_numpy", lambda: None)
    files = MemoryFileSystem()
    async with open_on(files, config(embedder)) as memory:
        await memory.long_term.remember_many(WS, [Fact("a ripe banana"), Fact("a fast car")])
        await memory.long_term.remember(WS, Fact("of no automobile"), deduplicate=True)
        hits = await memory.long_term.search(WS, "automobile", 10)
        assert [hit.fact.text for hit in hits][:2] == ["of no automobile", "a fast car"]
        assert hits[1].why.words == {}
        assert hits[1].why.similarity == pytest.approx(hits[1].score)
        assert "similar" in str(hits[1].why)
        assert memory.long_term.ranking.kind == "hybrid"
        assert await memory.long_term.forget(hits[1].id)
        assert "a fast car" not in await texts(memory, "automobile")
    async with open_on(files, config(embedder)) as memory:
        assert (await texts(memory, "automobile"))[0] == "of no automobile"
        assert "a fast car" not in await texts(memory, "automobile")
    async with open_on(files) as memory:
        assert await texts(memory, "automobile") == ["of no automobile"]
        assert memory.long_term.ranking.kind == "lexical"


async def test_each_text_is_embedded_once_and_not_again_after_opening() -> None:
    files, embedder = MemoryFileSystem(), Counting()
    async with open_on(files, config(embedder)) as memory:
        await memory.long_term.remember_many(WS, [Fact("car"), Fact("banana"), Fact("car")], deduplicate=True)
        assert embedder.texts == ["car", "banana"]
    async with open_on(files, config(embedder)) as memory:
        assert await memory.long_term.recall(WS, "automobile", 1) == [Fact("car")]
        assert await memory.long_term.recall(WS, " ", 1) == [Fact("banana")]
    assert embedder.texts == ["car", "banana", "automobile"]


async def test_facts_from_before_the_embedder_are_found_by_their_words() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await memory.long_term.remember(WS, Fact("an old automobile"))
    async with open_on(files, config(embed)) as memory:
        assert await texts(memory, "automobile") == ["an old automobile"]
        await memory.long_term.remember(WS, Fact("car"))
        assert await texts(memory, "automobile") == ["an old automobile", "car"]


@pytest.mark.parametrize(
    ("gives", "raises"),
    [
        (lambda texts: [[1.0, 2.0]] * len(texts), InvalidInput),
        (lambda texts: [], InvalidInput),
        (lambda texts: None, InvalidInput),
        (lambda texts: [[]] * len(texts), InvalidInput),
        (lambda texts: [["x"]] * len(texts), InvalidInput),
        (lambda texts: [5] * len(texts), InvalidInput),
        (lambda texts: [[math.nan, 0.0, 0.0]] * len(texts), InvalidInput),
        (lambda texts: [[1e400, 0.0, 0.0]] * len(texts), InvalidInput),
        (lambda texts: 1 / 0, Unavailable),
    ],
    ids=["length", "too few", "nothing", "empty", "text", "number", "nan", "infinite", "raises"],
)
async def test_what_an_embedder_may_not_give_is_refused_and_nothing_is_stored(
    gives: Any, raises: type[Exception]
) -> None:
    files = MemoryFileSystem()
    async with open_on(files, config(embed)) as memory:
        await memory.long_term.remember(WS, Fact("car"))
    async with open_on(files, config(gives)) as memory:
        with pytest.raises(raises, match="embedder"):
            await memory.long_term.remember(WS, Fact("banana"))
        with pytest.raises(raises, match="embedder"):
            await memory.long_term.remember_many(WS, [Fact("banana"), Fact("x")], deduplicate=True)
        with pytest.raises(raises, match="embedder"):
            await memory.long_term.search(WS, "banana")
        assert len((await memory.long_term.facts(WS)).items) == 1


async def test_cancelling_while_an_embedder_thinks_stores_nothing() -> None:
    async def thinking(texts: list[str]) -> list[list[float]]:
        await trio.sleep_forever()
        raise AssertionError

    async with open_on(MemoryFileSystem(), config(thinking)) as memory:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(memory.long_term.remember, WS, SKY)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert (await memory.long_term.facts(WS)).items == []


def test_an_embedder_is_a_function() -> None:
    with pytest.raises(InvalidInput, match="embedder"):
        MemoryConfig(embedder="wordllama")  # type: ignore[arg-type]


def vectors_of(*kept: Sequence[float]) -> Vectors:
    made = Vectors()
    for number, vector in enumerate(kept, 1):
        made.add(number, packed(vector))
    return made


def test_many_facts_without_numpy_are_compared_where_words_found_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_numpy", lambda: None)
    monkeypatch.setattr(vectors, "COMPARED_WITHOUT_NUMPY", 2)
    made = vectors_of((1, 0), (0, 1), (1, 1))
    assert made.similarities((1, 0), [3, 99]) == {3: pytest.approx(math.sqrt(0.5))}
    made.remove(3)
    assert made.similarities((1, 0), []) == {1: pytest.approx(1), 2: 0}


def test_vectors_that_cannot_be_compared_are_left_out() -> None:
    made = vectors_of((3, 4))
    for stored in (packed((1, 2, 3)), packed(()), "no base64!", "AAA"):
        made.add(9, stored)
    assert 9 not in made
    assert made.similarities((0, 0), []) == {}
    assert made.similarities((3, 4), []) == {1: pytest.approx(1)}


async def test_the_port_and_its_hits_are_what_the_protocol_says() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        port: LongTermMemory = memory.long_term
        fact_id = await port.remember(WS, Fact("sky", {"n": 1}))
        (hit,) = await port.search(WS, "sky")
        assert hit.id == hit.fact.id == fact_id
        assert hit.fact.fact == await port.get(fact_id) == Fact("sky", {"n": 1})
        assert msgspec.structs.asdict(port.ranking)["settings"]["k1"] == 0.9
