"""Finding what is relevant: what is found and in which order, what never is, and that a rebuilt index says the same."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Abstained,
    EpisodeFilter,
    ExecutionStep,
    Failure,
    InvalidInput,
    Memory,
    PartialSuccess,
    RelevantEpisodes,
    StepError,
    StepSuccess,
    Success,
    TaskContext,
    TooLarge,
    Unavailable,
    open_memory,
)
from stepwell.learning.ranking import CorpusStatistics
from stepwell.learning.relevance import Described, Relevance
from stepwell.memory import retrieving
from stepwell.runtime import lexical_index
from stepwell.runtime.lexical_index import LABEL_WEIGHT, stored_terms
from tests.support import open_on

NOW_NS = 4_000_000_000_000_000_000


@pytest.fixture(autouse=True)
def one_moment() -> Iterator[None]:
    """Ages are reckoned from one moment, so that two answers can be compared."""
    with patch.object(retrieving, "time", types.SimpleNamespace(time_ns=lambda: NOW_NS)):
        yield


async def put(memory: Memory, name: str, task: str, outcome: Any = None, **arguments: Any) -> None:
    handle = await memory.start_episode(task, episode_id=name, **arguments)
    if outcome is not None:
        await handle.complete(outcome)


def ids(found: RelevantEpisodes) -> list[str]:
    return [hit.episode_id for hit in found]


async def test_the_words_of_the_query_decide_and_every_hit_says_why() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "dogs", "How many dogs are there?", Success())
        await put(memory, "flights", "Count the flights that go to Boston", Success("eleven"))
        await put(memory, "airports", "List all airports in Boston", Success())
        found = await memory.retrieve_relevant_context("flights arriving in Boston")
        assert ids(found) == ["flights", "airports"]
        assert found.ranked_by == "lexical"
        assert (found.why_empty, found.note) == ("", "")
        first = found[0]
        assert first.why.split("; ")[0].endswith("it shares the words flights, boston")
        assert sum(part.points for part in first.parts) == pytest.approx(first.score)
        assert first.episode == await memory.get_episode("flights")


async def test_the_same_task_is_a_full_match_and_among_its_runs_the_one_that_solved_it_is_first() -> None:
    async with open_memory(":memory:") as memory:
        for name, outcome in (("failed", Failure("no")), ("solved", Success()), ("half", PartialSuccess("some"))):
            await put(memory, name, "Fix the flaky test of the parser", outcome)
        found = await memory.retrieve_relevant_context("Fix the flaky test of the parser")
        assert ids(found) == ["solved", "half", "failed"]
        assert [part.value for part in found[0].parts if part.name == "relevance"] == [1.0]


async def test_what_the_context_shares_ranks_higher() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "java", "write a parser", Success(), language="java", tags=["Net"])
        await put(memory, "python", "write a parser", Success(), language="python", tags=["cli"])
        found = await memory.retrieve_relevant_context("a parser", TaskContext(language="python", tags=["CLI", "net"]))
        assert ids(found) == ["python", "java"]
        assert "it shares the language python and tags" in found[0].why
        found = await memory.retrieve_relevant_context("a parser", TaskContext(language="java"))
        assert ids(found) == ["java", "python"]


async def test_labels_and_tools_are_found_too_but_count_less_than_the_task() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "label", "mend it", Success(), tags=["db:world_1"])
        await put(memory, "task", "mend the world", Success())
        handle = await memory.start_episode("mend all", episode_id="tool")
        await handle.log_step(ExecutionStep("world_reader", "look", {}, StepSuccess("x")))
        await handle.complete(Success())
        assert ids(await memory.retrieve_relevant_context("the world"))[0] == "task"
        assert set(ids(await memory.retrieve_relevant_context("the world"))) == {"label", "task", "tool"}


async def test_open_interrupted_and_archived_episodes_are_not_found_and_deleted_ones_never_again() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "open", "count the flights")
        await put(memory, "abandoned", "count the flights")
        await memory.abandon("abandoned", "why not")
        for name in ("archived", "deleted", "there"):
            await put(memory, name, "count the flights", Success())
        await memory.archive("archived")
        assert set(ids(await memory.retrieve_relevant_context("flights"))) == {"deleted", "there"}
        await memory.delete_episode("deleted")
        assert ids(await memory.retrieve_relevant_context("flights")) == ["there"]
        found = await memory.retrieve_relevant_context("flights", filter=EpisodeFilter(archived=True))
        assert ids(found) == ["archived"]
        await memory.restore("archived")
        await memory.complete_episode("open", Abstained("cannot", 0))
        assert set(ids(await memory.retrieve_relevant_context("flights"))) == {"archived", "open", "there"}


async def test_what_is_changed_afterwards_is_found_as_it_is_now() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "a", "count the flights", Success(), tags=["old"])
        await memory.update_episode("a", description="list the dogs")
        await memory.set_tags("a", ["new"])
        for query, expected in (("flights", []), ("old", []), ("dogs", ["a"]), ("new", ["a"])):
            assert ids(await memory.retrieve_relevant_context(query)) == expected


async def test_an_empty_answer_says_why() -> None:
    async with open_memory(":memory:") as memory:

        async def why(query: str, **arguments: Any) -> str:
            found = await memory.retrieve_relevant_context(query, **arguments)
            assert not found
            assert found.to_text() == ""
            return found.why_empty

        assert await why("flights") == "no episode has been finished yet"
        await put(memory, "open", "count the flights")
        assert await why("flights") == "no episode has been finished yet; 1 episode still open"
        await put(memory, "ended", "count the flights", Success())
        assert await why("zebras and gnus") == (
            "none of 1 finished episode has any of the words of the query: zebras, gnus"
        )
        assert await why("…!") == "the query has no words to look for"
        assert await why("flights", filter=EpisodeFilter(domain="x")) == (
            "1 finished episode with words of the query, but none passes the filter"
        )


async def test_bad_arguments_are_refused_by_name() -> None:
    async with open_memory(":memory:") as memory:
        call = memory.retrieve_relevant_context
        refused: list[tuple[dict[str, Any], str]] = [
            ({"query": 5}, "query"),
            ({"query": "\ud800"}, "query"),
            ({"query": "x", "limit": 0}, "limit"),
            ({"query": "x", "limit": 101}, "limit"),
            ({"query": "x", "limit": 2.5}, "limit"),
            ({"query": "x", "context": "python"}, "context"),
            ({"query": "x", "context": TaskContext(domain=5)}, "context.domain"),  # type: ignore[arg-type]
            ({"query": "x", "filter": {}}, "filter"),
            ({"query": "x", "filter": EpisodeFilter(text="y")}, "filter.text"),
        ]
        for arguments, named in refused:
            with pytest.raises(InvalidInput, match=rf"^{named}\b"):
                await call(**arguments)
        with pytest.raises(TooLarge, match=r"^query"):
            await call("x" * 100_001)


async def test_the_answer_as_text_fits_a_prompt() -> None:
    async with open_memory(":memory:") as memory:
        for number in range(3):
            handle = await memory.start_episode("Count the flights to Boston", episode_id=f"e{number}")
            await handle.log_step(ExecutionStep("mysql", "ask", {"command": "SELECT 1"}, StepError("no such table")))
            await handle.log_step(ExecutionStep("mysql", "ask", {"command": "SELECT 2", "n": 1}, StepSuccess("12")))
            await handle.complete(Success("there are 12"))
        found = await memory.retrieve_relevant_context("flights to Boston")
        text = found.to_text()
        assert text.startswith("1. Task: Count the flights to Boston\n   Outcome: solved: there are 12\n")
        assert '   Worked: mysql: ask {"command": "SELECT 2", "n": 1}\n' in text
        assert "   Failed: mysql: ask SELECT 1: no such table\n" in text
        assert "\n\n3. Task:" in text
        for most in range(0, 400, 7):
            short = found.to_text(max_tokens=most)
            assert len(short) <= 4 * most
            assert text.startswith(short)


async def test_one_of_the_episodes_as_text_fits_a_prompt() -> None:
    async with open_memory(":memory:") as memory:
        handle = await memory.start_episode("Count the flights to Boston")
        await handle.log_step(ExecutionStep("mysql", "ask", {"command": "SELECT 2", "n": 1}, StepSuccess("12")))
        await handle.complete(Success("there are 12"))
        found = await memory.retrieve_relevant_context("flights to Boston")
        text = found[0].to_text()
        assert found.to_text() == f"1. {text}"
        assert text.startswith("Task: Count the flights to Boston\n   Outcome: solved: there are 12\n")
        shorter = {found[0].to_text(max_tokens=most) for most in range(200)}
        lines = text.split("\n")
        assert shorter == {"\n".join(lines[:count]) for count in range(len(lines) + 1)}
        for most in range(200):
            assert len(found[0].to_text(max_tokens=most)) <= 4 * most


async def test_it_sees_every_ending_that_was_durable_and_nothing_deleted(tmp_path: Path) -> None:
    """On the disk, where a task in the background keeps the index."""
    async with open_memory(tmp_path) as memory:
        for number in range(30):
            await put(memory, f"e{number}", f"count the flights {number}", Success())
            assert f"e{number}" in ids(await memory.retrieve_relevant_context(f"flights {number}", limit=100))
            if number % 3 == 0:
                await memory.delete_episode(f"e{number}")
                assert f"e{number}" not in ids(await memory.retrieve_relevant_context("flights", limit=100))
    async with open_memory(tmp_path, read_only=True) as memory:
        assert len(await memory.retrieve_relevant_context("flights", limit=100)) == 20


async def test_without_a_projector_it_is_unavailable_and_logging_goes_on() -> None:
    async with open_memory(":memory:") as memory:
        memory._runtime.projections.retrieval.projector.park(OSError("broken"))
        with pytest.raises(Unavailable, match="not kept up to date"):
            await memory.retrieve_relevant_context("flights")
        await put(memory, "a", "count the flights", Success())


async def test_a_hit_that_is_deleted_before_it_is_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "a", "count the flights", Success())
        await put(memory, "b", "count the flights to Boston", Success())
        read_now = memory._runtime.projections.retrieval.read_now

        async def deleting(reading: Any) -> Any:
            found = await read_now(reading)
            await memory.delete_episode("a")
            return found

        monkeypatch.setattr(memory._runtime.projections.retrieval, "read_now", deleting)
        found = await memory.retrieve_relevant_context("flights")
        assert ids(found) == ["b"]
        assert found.note == "1 episode left out: deleted meanwhile, or damaged"


# ---- an index against plain Python, and against one that is rebuilt --------------------------------------------------

WORDS = ["flight", "Boston", "Über", "count", "犬", "dogs", "the", "2"]
OUTCOMES = [Success("ok"), PartialSuccess("half"), Failure("no"), Abstained("cannot", 1), None, "abandon"]
TAGS = ["net", "db:world_1", "Boston"]
lives = st.lists(
    st.fixed_dictionaries(
        {
            "words": st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
            "domain": st.sampled_from(["general", "web"]),
            "tags": st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
            "outcome": st.sampled_from(OUTCOMES),
            "later": st.lists(st.sampled_from(["archive", "restore", "retag", "update", "delete", "look"]), max_size=3),
        }
    ),
    max_size=8,
)
queries = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)


async def live(memory: Memory, drawn: list[dict[str, Any]]) -> None:
    for number, it in enumerate(drawn):
        name = f"e{number}"
        await put(memory, name, " ".join(it["words"]), domain=it["domain"], tags=it["tags"])
    for number, it in enumerate(drawn):
        name = f"e{number}"
        if it["outcome"] == "abandon":
            await memory.abandon(name, "why not")
        elif it["outcome"] is not None:
            await memory.complete_episode(name, it["outcome"])
        for what in it["later"]:
            if what == "look":
                await memory.retrieve_relevant_context("flight")
            elif what == "retag":
                await memory.set_tags(name, ["späte", "net"])
            elif what == "update":
                await memory.update_episode(name, description="dogs and cats")
            elif what == "delete":
                await memory.delete_episode(name)
                break
            else:
                await (memory.archive if what == "archive" else memory.restore)(name)


def said(found: RelevantEpisodes) -> list[tuple[str, float, str]]:
    return [(hit.episode_id, hit.score, hit.why) for hit in found]


async def expected_of(memory: Memory, query: str) -> dict[str, float]:
    """The scores of all episodes, worked out over all of them by plain Python."""
    episodes = [await memory.get_episode(name) async for name in memory.episode_ids()]
    evidence = [it for it in episodes if it.outcome is not None and it.reward is not None]
    described = {}
    for it in evidence:
        terms = stored_terms(it.task_description)
        labels = stored_terms(" ".join([*({it.context.domain} - {"general"}), *it.tags]))
        assert it.summary is not None
        assert not it.summary.key_steps
        assert it.end_time is not None
        assert it.reward is not None
        described[it.episode_id] = Described(
            it.episode_id, terms, list(dict.fromkeys(labels)), it.context.domain, None, None, it.tags,
            it.outcome.__struct_config__.tag, it.reward.total, NOW_NS / 1e9 - it.end_time.timestamp(),  # type: ignore[union-attr,arg-type]
        )  # fmt: skip
    lengths = [len(it.terms) for it in described.values()]
    corpus = CorpusStatistics(
        len(described),
        sum(lengths) / len(lengths) if lengths else 0.0,
        {
            term: sum(term in (*it.terms, *it.labels) for it in described.values())
            for it in described.values()
            for term in (*it.terms, *it.labels)
        },
    )
    relevance = Relevance(stored_terms(query), corpus, None, label_weight=LABEL_WEIGHT, spelled={})
    archived = {it.episode_id for it in episodes if it.archived}
    scores = {name: relevance.score(it) for name, it in described.items() if name not in archived}
    return {name: score for name, score in scores.items() if score > 0}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives, queries)
def test_the_scores_are_those_of_plain_python_and_a_rebuilt_index_says_the_same(
    drawn: list[dict[str, Any]], query: str
) -> None:
    async def main() -> None:
        files = MemoryFileSystem()
        async with open_on(files) as memory:
            await live(memory, drawn)
            found = await memory.retrieve_relevant_context(query, limit=100)
            assert {hit.episode_id: pytest.approx(hit.score) for hit in found} == await expected_of(memory, query)
            assert said(await memory.retrieve_relevant_context(query, limit=100)) == said(found)
            assert said(await memory.retrieve_relevant_context(query, limit=2)) == said(found)[:2]
            filtered = await memory.retrieve_relevant_context(
                query, limit=100, filter=EpisodeFilter(tags_any=["NET"], outcomes=["success", "failure"])
            )
            durable = memory._journal.durable_lsn
            passing = {
                it.episode_id
                for it in (await memory.list_episodes(EpisodeFilter(tags_any=["net"]), at_least=durable)).items
                if it.outcome in ("success", "failure")
            }
            assert set(ids(filtered)) == set(ids(found)) & passing
        async with open_on(files) as memory:  # here the catalog is in memory, and so is made anew
            assert said(await memory.retrieve_relevant_context(query, limit=100)) == said(found)

    with patch.object(retrieving, "time", types.SimpleNamespace(time_ns=lambda: NOW_NS)):
        trio.run(main)


# ---- more than can be looked at --------------------------------------------------------------------------------------


async def test_of_frequent_words_the_newest_with_most_of_them_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lists of words are longer than what is read of them, what has the rare words is found all the same, and
    what has all of the frequent ones."""
    monkeypatch.setattr(lexical_index, "READ_ROWS", 10)
    monkeypatch.setattr(lexical_index, "ENOUGH_COMMON", 5)
    async with open_memory(":memory:") as memory:
        for number in range(60):
            words = "count students" if number in (3, 50) else ("count", "students")[number % 2]
            rare = " zebra" if number in (1, 2) else ""
            await put(memory, f"e{number}", f"{words}{rare}", Success())
        found = ids(await memory.retrieve_relevant_context("count the students", limit=5))
        assert set(found[:2]) == {"e3", "e50"}
        assert len(found) == 5
        assert all(int(name[1:]) > 40 for name in found[2:])
        found = ids(await memory.retrieve_relevant_context("count the zebra students", limit=4))
        assert set(found[:2]) == {"e1", "e2"}
        assert set(found[2:]) == {"e3", "e50"}
        found = ids(await memory.retrieve_relevant_context("students", limit=9))
        assert set(found) == {"e51", "e53", "e55", "e57", "e59"}


async def test_a_filter_that_few_pass_is_answered_however_many_come_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stepwell.runtime.retrieval.RERANKED", 4)
    async with open_memory(":memory:") as memory:
        await put(memory, "wanted", "flights", Success(), domain="rare")
        for number in range(20):
            await put(memory, f"e{number}", "flights to Boston", Success())
        found = await memory.retrieve_relevant_context("flights to Boston", filter=EpisodeFilter(domain="rare"))
        assert ids(found) == ["wanted"]


async def test_the_best_is_found_behind_many_that_are_newer() -> None:
    async with open_memory(":memory:") as memory:
        await put(memory, "best", "count the flights to Boston", Success())
        for number in range(40):
            await put(memory, f"e{number}", f"flights {number}", Success())
        assert ids(await memory.retrieve_relevant_context("flights to Boston", limit=1)) == ["best"]
