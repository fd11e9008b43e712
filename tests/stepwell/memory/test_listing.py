"""Lists of episodes: all combinations of conditions against plain Python, pages, cursors, the life of a catalog."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Abstained,
    CorruptLog,
    EpisodeFilter,
    ExecutionStep,
    Failure,
    InvalidInput,
    ListedEpisode,
    Memory,
    MemoryConfig,
    PartialSuccess,
    StepError,
    StepSuccess,
    Success,
    Unavailable,
    open_memory,
)
from stepwell.model.outcome import outcome_kind
from tests.catalog_contents import catalog_contents
from tests.support import open_on

WORDS = ["fix", "Über", "test", "net", "retest"]
TAGS = ["db:world_1", "DB:World_1", "net", "Straße", "STRASSE"]
OUTCOMES = [Success("ok"), PartialSuccess("half"), Failure("no"), Abstained("cannot", 1), None]

episodes_drawn = st.lists(
    st.fixed_dictionaries(
        {
            "words": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
            "agent": st.sampled_from(["", "a", "A"]),
            "task_type": st.sampled_from(["other", "debugging"]),
            "domain": st.sampled_from(["general", "web"]),
            "language": st.sampled_from([None, "python"]),
            "tags": st.lists(st.sampled_from(TAGS), max_size=2),
            "steps": st.lists(st.booleans(), max_size=3),
            "outcome": st.sampled_from([*OUTCOMES, "abandon"]),
            "later": st.lists(
                st.one_of(
                    st.tuples(
                        st.sampled_from(["add_tags", "remove_tags", "set_tags"]), st.lists(st.sampled_from(TAGS))
                    ),
                    st.tuples(st.just("update_episode"), st.sampled_from(WORDS)),
                    st.tuples(st.sampled_from(["archive", "restore", "catch up"]), st.none()),
                ),
                max_size=4,
            ),
            "deleted": st.booleans(),
        }
    ),
    max_size=8,
)
filters_drawn = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["open", "ended"]),
        "outcomes": st.lists(
            st.sampled_from(["success", "partial_success", "failure", "abstained", "interrupted"]),
            min_size=1,
            max_size=3,
        ),
        "agent": st.sampled_from(["", "a", "A", "none"]),
        "task_type": st.sampled_from(["other", "debugging"]),
        "domain": st.sampled_from(["general", "web"]),
        "language": st.just("python"),
        "tags_any": st.lists(st.sampled_from(TAGS), min_size=1, max_size=3),
        "tags_all": st.lists(st.sampled_from(TAGS), min_size=1, max_size=3),
        "started_from": st.integers(0, 8),
        "started_before": st.integers(0, 8),
        "ended_from": st.integers(0, 8),
        "ended_before": st.integers(0, 8),
        "reward_from": st.sampled_from([0, 0.1, 0.5, 1.2]),
        "reward_to": st.sampled_from([0, 0.5, 1.2, 2.0]),
        "archived": st.booleans(),
        "text": st.sampled_from(
            ["fix", "TEST fix", "uber", "est", "*", '"fix" OR', "Über", "fix test", "test", "fix net"]
        ),
        "text_match": st.sampled_from(["words", "substring", "exact"]),
    },
)


def plain(text: str) -> list[str]:
    """The words of the vocabulary in use here as the full text has them."""
    return re.findall(r"\w+", text.casefold().replace("ü", "u"))


def lets_through(wanted: EpisodeFilter, it: ListedEpisode) -> bool:
    """What a filter means, said once more."""
    tags = {tag.casefold() for tag in it.tags}
    checks: list[tuple[Any, Callable[[Any], bool]]] = [
        (wanted.status, lambda value: it.status == value),
        (wanted.outcomes, lambda value: it.outcome in value),
        (wanted.agent, lambda value: it.agent == value),
        (wanted.task_type, lambda value: it.task_type == value),
        (wanted.domain, lambda value: it.domain == value),
        (wanted.language, lambda value: it.language == value),
        (wanted.tags_any, lambda value: bool(tags & {tag.casefold() for tag in value})),
        (wanted.tags_all, lambda value: tags >= {tag.casefold() for tag in value}),
        (wanted.started_from, lambda value: it.start_time >= value),
        (wanted.started_before, lambda value: it.start_time < value),
        (wanted.ended_from, lambda value: it.end_time is not None and it.end_time >= value),
        (wanted.ended_before, lambda value: it.end_time is not None and it.end_time < value),
        (wanted.reward_from, lambda value: it.reward is not None and it.reward >= value),
        (wanted.reward_to, lambda value: it.reward is not None and it.reward <= value),
        (wanted.archived, lambda value: it.archived == value),
    ]
    if not all(value is None or check(value) for value, check in checks):
        return False
    if wanted.text is None:
        return True
    if wanted.text_match == "exact":
        return it.task_description == wanted.text
    if wanted.text_match == "substring":
        return wanted.text.casefold() in it.task_description.casefold()
    asked = plain(wanted.text)
    return bool(asked) and set(asked) <= set(plain(it.task_description))


async def expected(memory: Memory) -> list[ListedEpisode]:
    """What should be listed of every episode, from the log."""
    found = []
    async for episode_id in memory.episode_ids():
        it = await memory.get_episode(episode_id)
        last = [event.time async for event in memory.events(episode_id)][-1]
        found.append(
            ListedEpisode(
                episode_id=episode_id,
                status=it.status,
                outcome=None if it.outcome is None else outcome_kind(it.outcome),
                task_description=it.task_description,
                task_type=it.task_type,
                agent=it.agent,
                domain=it.context.domain,
                language=it.context.language,
                framework=it.context.framework,
                complexity=it.context.complexity,
                tags=it.tags,
                start_time=it.start_time,
                end_time=it.end_time,
                last_time=last,
                steps=len(it.steps),
                failed_steps=it.failed_steps,
                reward=None if it.reward is None else it.reward.total,
                archived=it.archived_at is not None,
            )
        )
    return found


async def fill(memory: Memory, drawn: list[dict[str, Any]]) -> None:
    for number, it in enumerate(drawn):
        named = {name: it[name] for name in ("agent", "task_type", "domain", "language", "tags")}
        handle = await memory.start_episode(" ".join(it["words"]), episode_id=f"e{number}", **named)
        for ok in it["steps"]:
            await handle.log_step(ExecutionStep("t", "a", {}, StepSuccess("x") if ok else StepError("x")))
        if it["outcome"] == "abandon":
            await memory.abandon(handle.id)
        elif it["outcome"] is not None:
            await handle.complete(it["outcome"])
        for what, argument in it["later"]:
            if what == "catch up":  # what comes behind it is a change of a row that is there
                await memory.list_episodes(at_least=memory._journal.durable_lsn)
            elif what == "update_episode":
                await memory.update_episode(handle.id, description=argument)
            elif argument is None:
                await getattr(memory, what)(handle.id)
            else:
                await getattr(memory, what)(handle.id, argument)
        if it["deleted"]:
            await memory.delete_episode(handle.id)


async def all_pages(memory: Memory, wanted: EpisodeFilter, limit: int, order: Any) -> list[ListedEpisode]:
    found: list[ListedEpisode] = []
    cursor = None
    while True:
        page = await memory.list_episodes(wanted, limit=limit, cursor=cursor, order=order)
        assert len(page.items) <= limit
        found += page.items
        if (cursor := page.next_cursor) is None:
            return found


def placed(drawn: dict[str, Any], times: list[dt.datetime]) -> EpisodeFilter:
    """A drawn filter, with times that lie among those of the episodes."""
    chosen = dict(drawn)
    for name in ("started_from", "started_before", "ended_from", "ended_before"):
        if name in chosen:
            chosen[name] = times[chosen[name] % len(times)]
    return EpisodeFilter(**chosen)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=episodes_drawn, wanted=st.lists(filters_drawn, min_size=1, max_size=12), limit=st.integers(1, 4))
def test_every_combination_of_conditions_finds_what_plain_python_finds(
    drawn: list[dict[str, Any]], wanted: list[dict[str, Any]], limit: int
) -> None:
    async def main() -> None:
        async with open_on(MemoryFileSystem()) as memory:
            await fill(memory, drawn)
            await memory.flush()
            await memory.list_episodes(at_least=memory._journal.durable_lsn)
            truth = await expected(memory)
            times = [time for it in truth for time in (it.start_time, it.end_time) if time] or [dt.datetime.now(dt.UTC)]
            everything = await memory.list_episodes()
            assert sorted(everything.items, key=lambda it: it.episode_id) == sorted(truth, key=lambda it: it.episode_id)
            for conditions in wanted:
                filter = placed(conditions, times)
                right = [it.episode_id for it in everything.items if lets_through(filter, it)]
                assert [it.episode_id for it in await all_pages(memory, filter, limit, "newest")] == right
                assert [it.episode_id for it in await all_pages(memory, filter, limit, "oldest")] == right[::-1]
                assert await memory.count_episodes(filter) == len(right)

    trio.run(main)


async def test_words_that_a_new_description_keeps_are_still_found() -> None:
    """The words of the old text were taken out of the full text behind those of the new one, or before, as it came."""
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("mend the net", episode_id="e")
        await memory.list_episodes(at_least=1)
        await memory.update_episode("e", description="sell the net")
        found = {
            word: (await memory.list_episodes(EpisodeFilter(text=word), at_least=2)).items
            for word in ("mend", "sell", "the", "net")
        }
        assert {word: len(items) for word, items in found.items()} == {"mend": 0, "sell": 1, "the": 1, "net": 1}


async def test_a_range_with_many_rows_finds_the_same_as_one_with_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways in which a range of rewards or endings is read."""
    async with open_on(MemoryFileSystem()) as memory:
        for number in range(12):
            handle = await memory.start_episode(f"task {number}")
            await handle.complete(OUTCOMES[number % 3])  # type: ignore[arg-type]
        end = (await memory.list_episodes(at_least=memory._journal.durable_lsn)).items[3].end_time
        filters = [EpisodeFilter(reward_from=0.1), EpisodeFilter(ended_before=end), EpisodeFilter(ended_from=end)]
        sparse = [await all_pages(memory, filter, 2, "newest") for filter in filters]
        monkeypatch.setattr("stepwell.runtime.episode_query.SPARSE", 0)
        assert [await all_pages(memory, filter, 2, "newest") for filter in filters] == sparse
        assert [len(found) for found in sparse] == [8, 8, 4]


async def test_an_exact_text_is_the_same_text_and_not_the_same_words() -> None:
    texts = ["fix it", "Fix it", "fix  it", "fix, it", "fix it now", "…", '"', "ü", " ".join(["fix it"] * 20)]
    async with open_on(MemoryFileSystem()) as memory:
        for text in texts:
            await memory.start_episode(text)
        for text in texts:
            page = await memory.list_episodes(EpisodeFilter(text=text, text_match="exact"), at_least=len(texts))
            assert [it.task_description for it in page.items] == [text]


async def test_one_that_took_long_is_found_by_when_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of endings is read from the start of the earliest that may lie in it."""
    monkeypatch.setattr("stepwell.runtime.episode_query.SPARSE", 0)
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("early", episode_id="long")
        for number in range(5):
            handle = await memory.start_episode("short", episode_id=f"short-{number}")
            await handle.complete(Success())
        receipt = (await memory.complete_episode("long", Success())).receipt
        assert receipt is not None
        end = (await memory.get_episode("long")).end_time
        page = await memory.list_episodes(EpisodeFilter(ended_from=end), at_least=receipt.lsn)
        assert [it.episode_id for it in page.items] == ["long"]


async def test_pages_cover_each_episode_once_while_others_come_and_go() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for number in range(20):
            await memory.start_episode("old", episode_id=f"old-{number}")
        seen: list[str] = []
        cursor: str | None = None
        for number in itertools.count():
            page = await memory.list_episodes(limit=3, cursor=cursor, at_least=memory._journal.durable_lsn)
            seen += [it.episode_id for it in page.items]
            if (cursor := page.next_cursor) is None:
                break
            await memory.start_episode("new", episode_id=f"new-{number}")
            await memory.delete_episode(seen[-1])
        assert seen == [f"old-{number}" for number in reversed(range(20))]


async def test_what_is_deleted_is_shown_no_more_although_the_catalog_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.catalog.projector.LINGER_SECONDS", 3600.0)
    async with open_on(MemoryFileSystem()) as memory:
        await memory.start_episode("x", episode_id="gone")
        await memory.start_episode("x", episode_id="kept")
        assert len((await memory.list_episodes(at_least=2)).items) == 2
        await memory.delete_episode("gone")
        assert [it.episode_id for it in (await memory.list_episodes()).items] == ["kept"]
        assert await memory.count_episodes() == 1


async def test_a_cursor_of_another_list_is_refused() -> None:
    async with open_on(MemoryFileSystem()) as memory:
        for _ in range(2):
            await memory.start_episode("x", agent="a")
        receipt = await (await memory.start_episode("x", agent="a")).log_step(ExecutionStep("t"))
        await receipt.wait_durable()
        page = await memory.list_episodes(EpisodeFilter(agent="a"), limit=1, at_least=receipt.lsn)
        for filter, order in [
            (EpisodeFilter(agent="b"), "newest"),
            (None, "newest"),
            (EpisodeFilter(agent="a"), "oldest"),
        ]:
            with pytest.raises(InvalidInput, match="another filter"):
                await memory.list_episodes(filter, cursor=page.next_cursor, order=order)  # type: ignore[arg-type]
        assert page.next_cursor is not None
        for text in ("", "nonsense", page.next_cursor[:-4], "ä"):
            with pytest.raises(InvalidInput, match="cursor"):
                await memory.list_episodes(EpisodeFilter(agent="a"), cursor=text)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"status": "done"}, "filter.status"),
        ({"outcomes": "success"}, "filter.outcomes"),
        ({"outcomes": ["success", "won"]}, r"filter.outcomes\[1\]"),
        ({"outcomes": []}, "filter.outcomes"),
        ({"tags_any": ["a", 5]}, r"filter.tags_any\[1\]"),
        ({"tags_all": [" "]}, r"filter.tags_all\[0\]"),
        ({"agent": 5}, "filter.agent"),
        ({"domain": "\ud800"}, "filter.domain"),
        ({"started_from": dt.datetime(2026, 1, 1)}, "filter.started_from"),
        ({"ended_before": "today"}, "filter.ended_before"),
        ({"reward_from": float("nan")}, "filter.reward_from"),
        ({"reward_to": True}, "filter.reward_to"),
        ({"archived": 1}, "filter.archived"),
        ({"text": ""}, "filter.text"),
        ({"text": "x", "text_match": "fuzzy"}, "filter.text_match"),
    ],
)
async def test_a_bad_condition_is_refused_by_name(fields: dict[str, Any], path: str) -> None:
    async with open_on(MemoryFileSystem()) as memory:
        with pytest.raises(InvalidInput, match=f"^{path}"):
            await memory.list_episodes(EpisodeFilter(**fields))


def image_of(path: Path) -> dict[str, bytes]:
    """Every file in a directory."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


async def listed(path: Path, **settings: Any) -> list[ListedEpisode]:
    async with open_memory(path, config=MemoryConfig(**settings)) as memory:
        return (await memory.list_episodes(at_least=memory._journal.durable_lsn)).items


async def make_log(path: Path) -> None:
    async with open_memory(path) as memory:
        for number in range(6):
            handle = await memory.start_episode(f"task {number}", episode_id=f"e{number}", tags=["a", f"t{number}"])
            await handle.log_step(ExecutionStep("t", result=StepError("x")))
            if number % 2:
                await handle.complete(Success())
        await memory.delete_episode("e5")


@pytest.mark.parametrize("spoil", ["removed", "no database", "torn", "another declaration"])
async def test_a_catalog_that_cannot_be_trusted_is_folded_anew_to_the_same_content(tmp_path: Path, spoil: str) -> None:
    await make_log(tmp_path)
    before = await listed(tmp_path)
    content, file = catalog_contents(tmp_path), tmp_path / "catalog.sqlite"
    if spoil == "removed":
        file.unlink()
    elif spoil == "no database":
        file.write_bytes(b"no database at all" * 1000)
    elif spoil == "torn":
        file.write_bytes(file.read_bytes()[:4096] + bytes(8192))
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE catalog SET value = 'x' WHERE name = 'digest'")
            connection.execute("DELETE FROM episode")
        connection.close()
    assert await listed(tmp_path) == before
    assert catalog_contents(tmp_path) == content
    assert len(content["episodes"]) == 5


async def test_a_catalog_ahead_of_its_log_is_a_witness_that_records_have_vanished(tmp_path: Path) -> None:
    await make_log(tmp_path)
    before = await listed(tmp_path)
    with sqlite3.connect(tmp_path / "catalog.sqlite") as connection:
        cursor = connection.execute("SELECT value FROM catalog WHERE name = 'cursor'").fetchone()[0]
        log, branch, epoch, _lsn = cursor.split(".")
        connection.execute("UPDATE catalog SET value = ? WHERE name = 'cursor'", (f"{log}.{branch}.{epoch}.999",))
    connection.close()
    with pytest.raises(CorruptLog) as caught:
        await listed(tmp_path)
    assert caught.value.row == 2
    assert await listed(tmp_path, tail="cut") == before
    assert await listed(tmp_path) == before


async def test_opened_for_reading_it_lists_what_the_catalog_lacks_and_changes_nothing(tmp_path: Path) -> None:
    await make_log(tmp_path)
    before = await listed(tmp_path)
    with sqlite3.connect(tmp_path / "catalog.sqlite") as connection:
        connection.execute("UPDATE catalog SET value = '' WHERE name = 'cursor'")
        connection.execute("DELETE FROM episode")
    connection.close()
    image = image_of(tmp_path)
    async with open_memory(tmp_path, read_only=True) as memory:
        assert (await memory.list_episodes()).items == before
    assert image_of(tmp_path) == image


async def test_a_purge_leaves_no_word_of_a_deleted_episode_in_any_catalog(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        for number in range(50):
            await memory.start_episode(f"ordinary task {number}", tags=["kept"])
        handle = await memory.start_episode("the xylophone affair", episode_id="gone", tags=["marimba"])
        await handle.complete(Success())
        assert len((await memory.list_episodes(EpisodeFilter(text="xylophone"), at_least=52)).items) == 1
        assert len(await memory.retrieve_relevant_context("xylophone")) == 1
        report = await memory.delete_episode("gone", purge=True)
        assert report is not None
        assert report.is_proven
        assert not any("catalog" in place for place in report.out_of_reach)
        assert not (await memory.list_episodes(EpisodeFilter(text="xylophone"))).items
        for name, content in image_of(tmp_path).items():
            if ".sqlite" in name:
                assert b"xylophone" not in content
                assert b"marimba" not in content


async def test_a_purge_over_a_parked_projector_proves_nothing(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        await memory.start_episode("x", episode_id="gone")
        memory._runtime.projections.episodes.projector.park(OSError("broken"))
        with pytest.raises(Unavailable, match="not kept up to date"):
            await memory.list_episodes()
        receipt = await (await memory.start_episode("logging goes on")).log_step(ExecutionStep("t"))
        await receipt.wait_durable()
        report = await memory.delete_episode("gone", purge=True)
        assert report is not None
        assert not report.is_proven
        assert "catalog.sqlite" in str(report.unreadable)


async def test_a_word_that_a_new_description_shares_with_the_old_one_is_still_found() -> None:
    """Of two triggers for one update, SQLite ran the one that put the new words first, and then took the old ones."""
    async with open_memory(":memory:") as memory:
        await memory.start_episode("mend the parser", episode_id="e")
        assert len((await memory.list_episodes(EpisodeFilter(text="mend"), at_least=1)).items) == 1
        await memory.update_episode("e", description="mend the printer")
        lsn = memory._journal.durable_lsn
        assert len((await memory.list_episodes(EpisodeFilter(text="mend printer"), at_least=lsn)).items) == 1
        assert not (await memory.list_episodes(EpisodeFilter(text="parser"), at_least=lsn)).items
