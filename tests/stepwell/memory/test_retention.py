"""Capacity and retention: who goes, who never does, and that who went is gone from everything."""

from __future__ import annotations

import datetime as dt
import json
import math
import pathlib
import sqlite3
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from stepwell import (
    Closed,
    EpisodeFilter,
    Failure,
    InvalidInput,
    Memory,
    MemoryConfig,
    NotFound,
    RetentionPolicy,
    Success,
    open_memory,
)
from stepwell.learning.retention import retention_relevance
from stepwell.model.limits import Limits
from stepwell.model.outcome import TaskOutcome
from stepwell.model.retention import EvictedEpisode, checked_policy
from stepwell.runtime import eviction
from stepwell.runtime.episode_catalog import SCHEMA
from stepwell.runtime.eviction import BATCH, Evictor, choose
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import step

NOW = dt.datetime.now(dt.UTC)


def aged(journal: MemoryJournal, name: str, days: float, outcome: TaskOutcome | None = None, **start: Any) -> None:
    journal.preload(name, [step(1)], task=f"task of {name}", outcome=outcome, at=NOW - dt.timedelta(days=days), **start)


def mixed() -> MemoryJournal:
    """Four that have ended, older and older; one open that is the oldest of all."""
    journal = MemoryJournal()
    aged(journal, "open", 400)
    aged(journal, "d", 300, Failure("no"))
    aged(journal, "c", 200, Success("fine"))
    aged(journal, "b", 100, Failure("no"))
    aged(journal, "a", 1, Success("fine"))
    return journal


async def names(memory: Memory) -> set[str]:
    page = await memory.list_episodes(at_least=memory._journal.durable_lsn)
    stored: set[str] = {name async for name in memory.episode_ids()}
    assert {item.episode_id for item in page.items} == stored
    return stored


@pytest.mark.parametrize(
    ("policy", "gone"),
    [
        (RetentionPolicy(max_age_days=150), ["d", "c"]),
        (RetentionPolicy(max_age_days=0), ["d", "c", "b", "a"]),
        (RetentionPolicy(outcomes=("failure",)), ["d", "b"]),
        (RetentionPolicy(outcomes=("failure",), max_age_days=150), ["d"]),
        (RetentionPolicy(max_episodes=3, eviction="lru"), ["d", "c"]),
        (RetentionPolicy(max_episodes=0, eviction="lru"), ["d", "c", "b", "a"]),
        (RetentionPolicy(max_episodes=5), []),
        (RetentionPolicy(max_age_days=250, max_episodes=3, eviction="lru"), ["d", "c"]),
        (RetentionPolicy(max_age_days=250, outcomes=("success",), max_episodes=4, eviction="lru"), ["d"]),
        (RetentionPolicy(reward_below=100.0), ["d", "c", "b", "a"]),
        (RetentionPolicy(reward_below=0.0), []),
    ],
)
async def test_who_goes_by_a_policy_and_a_dry_run_says_the_same_and_deletes_nothing(
    policy: RetentionPolicy, gone: list[str]
) -> None:
    journal = mixed()
    if policy.reward_below is not None:  # it is what completing gives
        journal = MemoryJournal()
        async with open_memory_on(journal) as memory:
            for name in ("open", "d", "c", "b", "a"):
                await memory.start_episode(f"task of {name}", episode_id=name)
                if name != "open":
                    await memory.complete_episode(name, Success("fine"))
    async with open_memory_on(journal) as memory:
        dry = await memory.retain(policy, dry_run=True)
        assert [item.episode_id for item in dry.episodes] == gone
        assert (dry.kept, dry.has_more, dry.dry_run) == (5 - len(gone), False, True)
        assert len(await names(memory)) == 5
        done = await memory.retain(policy)
        assert msgspec.structs.replace(done, dry_run=True) == dry
        assert sum(done.counts.values()) == len(gone)
        assert list(done.counts.values()) == sorted(done.counts.values(), reverse=True)
        assert await names(memory) == {"open", "a", "b", "c", "d"} - set(gone)
        assert (await memory.retain(policy)).episodes == []
    async with open_memory_on(journal) as memory:
        assert await names(memory) == {"open", "a", "b", "c", "d"} - set(gone)


async def test_an_open_episode_never_goes_whatever_the_policy_says() -> None:
    journal = mixed()
    async with open_memory_on(journal) as memory:
        await memory.retain(RetentionPolicy(max_age_days=0, max_episodes=0))
        assert await names(memory) == {"open"}
        await memory.log_step("open", step(2))
        await memory.complete_episode("open", Success("at last"))
        await memory.retain(RetentionPolicy(max_episodes=0))
        assert await names(memory) == set()


async def test_what_is_archived_or_has_a_tag_is_kept_and_counts(autojump_clock: MockClock) -> None:
    async with open_memory_on(mixed()) as memory:
        await memory.archive("d")
        await memory.add_tags("c", ["Gold:1"])
        policy = RetentionPolicy(max_episodes=2, eviction="lru", keep_tags=(" gold:1 ",))
        report = await memory.retain(policy, dry_run=True)
        assert [item.episode_id for item in report.episodes] == ["b", "a"]
        assert report.kept == 3
        report = await memory.retain(msgspec.structs.replace(policy, keep_archived=False, max_episodes=4))
        assert [item.episode_id for item in report.episodes] == ["b"], "archiving was an event, so it is not the oldest"


async def test_lru_goes_by_the_last_event_and_reading_is_none() -> None:
    journal = mixed()
    async with open_memory_on(journal) as memory:
        await memory.add_tags("d", ["touched"])
        await memory.get_episode("c")
        report = await memory.retain(RetentionPolicy(max_episodes=4, eviction="lru"))
        assert [(item.episode_id, item.reason) for item in report.episodes] == [("c", "capacity")]


async def test_the_least_relevant_goes_first_where_the_reward_counts_more_than_a_day() -> None:
    journal = MemoryJournal()
    aged(journal, "old", 30, Success("fine"))
    aged(journal, "young", 0.1, Success("fine"))
    async with open_memory_on(journal) as memory:
        await memory.start_episode("a task", episode_id="failed now")
        await memory.complete_episode("failed now", Failure("no"))
        policy = RetentionPolicy(max_episodes=0)
        order = [item.episode_id for item in (await memory.retain(policy, dry_run=True)).episodes]
        rewards = {item.episode_id: item.reward for item in (await memory.list_episodes()).items}
        hours = {"old": 720.0, "young": 2.4, "failed now": 0.0}
        assert order == sorted(order, key=lambda name: retention_relevance(rewards[name], hours[name]))
        assert order[0] != "young"


@given(
    reward=st.none() | st.floats(0, 10),
    other=st.none() | st.floats(0, 10),
    age=st.floats(0, 1e6),
    more=st.floats(0, 1e4),
)
def test_relevance_lies_between_0_and_1_and_falls_with_age(
    reward: float | None, other: float | None, age: float, more: float
) -> None:
    value = retention_relevance(reward, age)
    assert 0 <= value <= 1
    assert retention_relevance(reward, age + more) <= value
    if reward is not None and other is not None and other >= reward:
        assert retention_relevance(other, age) >= value


def test_relevance_is_the_formula() -> None:
    assert retention_relevance(None, 0) == pytest.approx(0.65)
    assert retention_relevance(1.0, 24) == pytest.approx(0.35 + 0.3 / math.e)
    assert retention_relevance(5.0, 1e9) == pytest.approx(0.7)


async def test_a_call_takes_at_most_so_many_and_says_that_more_are_due() -> None:
    async with open_memory_on(mixed()) as memory:
        policy = RetentionPolicy(max_age_days=50, max_episodes=0, eviction="lru")
        taken = []
        for has_more in (True, True, True, False):
            report = await memory.retain(policy, limit=1)
            taken += [(item.episode_id, item.reason) for item in report.episodes]
            assert report.has_more == has_more
        assert taken == [("d", "policy"), ("c", "policy"), ("b", "policy"), ("a", "capacity")]


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (RetentionPolicy(), "says nothing"),
        (RetentionPolicy(max_age_days=-1), "policy.max_age_days"),
        (RetentionPolicy(max_age_days=math.nan), "policy.max_age_days"),
        (RetentionPolicy(reward_below="1"), "policy.reward_below"),  # type: ignore[arg-type]
        (RetentionPolicy(max_episodes=1.5), "policy.max_episodes"),  # type: ignore[arg-type]
        (RetentionPolicy(max_episodes=1, eviction="fifo"), "policy.eviction"),  # type: ignore[arg-type]
        (RetentionPolicy(outcomes=()), "policy.outcomes: must name at least one"),
        (RetentionPolicy(outcomes="failure"), "policy.outcomes: must be a tuple"),  # type: ignore[arg-type]
        (RetentionPolicy(outcomes=("failed",)), "policy.outcomes"),
        (RetentionPolicy(max_episodes=1, keep_tags=("",)), "policy.keep_tags"),
        (RetentionPolicy(max_episodes=1, keep_tags="gold"), "policy.keep_tags"),  # type: ignore[arg-type]
        (RetentionPolicy(max_episodes=1, keep_archived=1), "policy.keep_archived"),  # type: ignore[arg-type]
        ("everything", "policy"),
    ],
)
async def test_a_policy_that_is_none_is_refused_by_name_before_anything_goes(policy: Any, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        checked_policy(policy, Limits())
    async with open_memory_on(mixed()) as memory:
        with pytest.raises(InvalidInput, match=named):
            await memory.retain(policy)
        assert len(await names(memory)) == 5


async def test_many_go_in_several_batches_and_are_all_reported(autojump_clock: MockClock) -> None:
    journal = MemoryJournal()
    for number in range(3 * BATCH + 5):
        aged(journal, f"e{number}", number + 1, Success("fine"))
    async with open_memory_on(journal) as memory:
        report = await memory.retain(RetentionPolicy(max_age_days=0))
        assert [item.episode_id for item in report.episodes] == [
            f"e{number}" for number in range(3 * BATCH + 4, -1, -1)
        ]
        assert await names(memory) == set()


async def test_what_somebody_else_deletes_meanwhile_has_gone_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_memory_on(mixed()) as memory:
        evict = Evictor._evict

        async def too_late(self: Evictor, batch: list[EvictedEpisode], actor: str) -> list[EvictedEpisode]:
            await memory.delete_episode("c")
            return await evict(self, batch, actor)

        monkeypatch.setattr(Evictor, "_evict", too_late)
        report = await memory.retain(RetentionPolicy(max_age_days=150))
        assert [item.episode_id for item in report.episodes] == ["d", "c"]
        assert await names(memory) == {"open", "a", "b"}
        assert (report.kept, report.has_more) == (3, False)


async def test_beside_a_writer_a_dry_run_works_and_deleting_is_refused(tmp_path: pathlib.Path) -> None:
    async with open_memory(tmp_path / "m") as memory:
        await memory.start_episode("a task", episode_id="e")
        await memory.complete_episode("e", Success("fine"))
        async with open_memory(tmp_path / "m", read_only=True) as beside:
            policy = RetentionPolicy(max_episodes=0)
            assert len((await beside.retain(policy, dry_run=True)).episodes) == 1
            with pytest.raises(Closed):
                await beside.retain(policy)
        assert await names(memory) == {"e"}


async def test_what_went_is_gone_from_every_place_that_is_derived_from_it_at_once(tmp_path: pathlib.Path) -> None:
    audit = tmp_path / "audit.jsonl"
    secret = "zanzibar"
    async with open_memory(tmp_path / "m", config=MemoryConfig(audit=audit)) as memory:
        await memory.start_episode(f"Find {secret}", episode_id="gone", agent="a", domain="d")
        await memory.start_episode("Something else", episode_id="stays", agent="a", domain="d")
        await memory.log_step("gone", step(1))
        await memory.add_tags("gone", [secret])
        await memory.relate("stays", "gone", "depends_on")
        await memory.checkpoint("gone", "here")
        checkpoint_id = (await memory.get_episode("gone")).checkpoints[0].checkpoint_id
        await memory.complete_episode("gone", Failure("no"))
        await names(memory)
        assert (await memory.list_episodes(EpisodeFilter(text=secret, text_match="words"))).items

        async with memory.lifecycle() as happened:
            report = await memory.retain(RetentionPolicy(outcomes=("failure",)), actor="cleaner")
            told = []
            with trio.move_on_after(1):
                async for event in happened:
                    told.append((event.kind, event.episode_id, event.detail))
        assert [item.episode_id for item in report.episodes] == ["gone"]
        assert ("deleted", "gone", "") in told
        assert told[-1] == ("evicted", "gone", "by policy")

        # The log, the list and its filters, the full text, the edges, handles and checkpoints.
        for name, call in {
            "get": memory.get_episode("gone"),
            "events": memory.events("gone").__anext__(),
            "log": memory.handle("gone").log_step(step(2)),
            "related": memory.related("gone"),
            "handoff": memory.handoff(checkpoint_id),
            "tags": memory.add_tags("gone", ["x"]),
        }.items():
            with pytest.raises(NotFound):
                await call
                pytest.fail(name)
        for by in (
            EpisodeFilter(text=secret, text_match="words"),
            EpisodeFilter(text=secret, text_match="substring"),
            EpisodeFilter(tags_any=[secret]),
            EpisodeFilter(outcomes=["failure"]),
        ):
            assert (await memory.list_episodes(by)).items == []
        assert [item.episode_id for item in (await memory.list_episodes()).items] == ["stays"]
        assert await memory.related("stays") == []
        assert [name async for name in memory.episode_ids()] == ["stays"]
    # On disk: nothing of it in the catalogs, and the audit says who asked.
    for file in (tmp_path / "m").rglob("*.sqlite"):
        with sqlite3.connect(file) as connection:
            text = "\n".join(connection.iterdump())
        assert secret not in text, file.name
    lines = [json.loads(line) for line in audit.read_text("utf-8").splitlines()]
    assert [(line["kind"], line["actor"]) for line in lines if line["kind"] == "deleted"] == [("deleted", "cleaner")]


# ---- the limit of a memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["relevance", "lru"])
async def test_with_a_limit_the_background_deletes_what_is_too_many_and_never_what_is_open(
    way: Any, autojump_clock: MockClock
) -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal, MemoryConfig(max_episodes=10, eviction=way)) as memory:
        for number in range(8):
            await memory.start_episode("a task that goes on", episode_id=f"open {number}")
        for number in range(100):
            await memory.start_episode("a task", episode_id=f"e{number}")
            await memory.complete_episode(f"e{number}", Success("fine"))
        await trio.sleep(60)
        left = await names(memory)
        assert len(left) == 10
        assert {f"open {number}" for number in range(8)} <= left
        if way == "lru":
            assert {"e98", "e99"} <= left
        for number in range(8, 20):
            await memory.start_episode("a task that goes on", episode_id=f"open {number}")
        await trio.sleep(60)
        assert await names(memory) == {f"open {number}" for number in range(20)}, "more than the limit, and all open"
        for number in range(20):
            await memory.complete_episode(f"open {number}", Success("fine"))
        await trio.sleep(60)
        assert len(await names(memory)) == 10
        service = next(service for service in memory.health().services if service.name == "retention")
        assert (service.state, service.restarts) == ("running", 0)


async def test_without_a_limit_nothing_goes_and_no_task_looks() -> None:
    async with open_memory_on(mixed()) as memory:
        assert "retention" not in {service.name for service in memory.health().services}


async def test_a_limit_is_kept_by_a_memory_that_was_filled_before(autojump_clock: MockClock) -> None:
    async with open_memory_on(mixed(), MemoryConfig(max_episodes=2, eviction="lru")) as memory:
        evicted = []
        async with memory.lifecycle() as happened:
            with trio.move_on_after(60):
                async for event in happened:
                    if event.kind == "evicted":
                        evicted.append((event.episode_id, event.detail))
        assert evicted == [("d", "by capacity"), ("c", "by capacity"), ("b", "by capacity")]
        assert await names(memory) == {"open", "a"}


async def test_the_background_does_not_wait_between_one_choice_and_the_next_while_there_are_more(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(eviction, "MOST_AT_ONCE", 5)
    journal = MemoryJournal()
    for number in range(30):
        aged(journal, f"e{number}", number + 1, Success("fine"))
    async with open_memory_on(journal, MemoryConfig(max_episodes=2, eviction="lru")) as memory:
        await trio.sleep(eviction.PERIOD / 2)
        assert await names(memory) == {"e0", "e1"}


async def test_the_background_goes_on_behind_an_error(autojump_clock: MockClock) -> None:
    journal = mixed()
    journal.fail_next(when=lambda submitted: "deleted" in submitted.kinds)
    async with open_memory_on(journal, MemoryConfig(max_episodes=2, eviction="lru")) as memory:
        await trio.sleep(60)
        assert await names(memory) == {"open", "a"}
        service = next(service for service in memory.health().services if service.name == "retention")
        assert (service.state, service.restarts) == ("running", 1)


@pytest.mark.parametrize("value", [0, -1, 1.5, "10", True])
def test_a_limit_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="max_episodes"):
        MemoryConfig(max_episodes=value)
    with pytest.raises(InvalidInput, match="eviction"):
        MemoryConfig(eviction="fifo")  # type: ignore[arg-type]


# ---- choosing, against a plain list ----------------------------------------------------------------------------------

ROWS = st.lists(
    st.tuples(
        st.none() | st.sampled_from(["success", "failure", "abstained"]),
        st.none() | st.floats(0, 3),
        st.integers(0, 400),
        st.booleans(),
    ),
    max_size=12,
)
DAY = 86_400 * 10**9


@given(
    rows=ROWS,
    age=st.none() | st.integers(0, 400),
    outcomes=st.none() | st.lists(st.sampled_from(["success", "failure"]), min_size=1, max_size=2).map(tuple),
    reward=st.none() | st.floats(0, 3),
    most=st.none() | st.integers(0, 12),
    eviction=st.sampled_from(["relevance", "lru"]),
    keep_archived=st.booleans(),
    limit=st.integers(1, 12),
)
def test_the_chosen_are_those_of_a_plain_list(
    rows: list[tuple[str | None, float | None, int, bool]],
    age: int | None,
    outcomes: tuple[str, ...] | None,
    reward: float | None,
    most: int | None,
    eviction: Any,
    keep_archived: bool,
    limit: int,
) -> None:
    policy = RetentionPolicy(
        max_age_days=age,
        outcomes=outcomes,
        reward_below=reward,
        max_episodes=most,
        eviction=eviction,
        keep_archived=keep_archived,
    )
    now = 1_000 * DAY
    connection = sqlite3.connect(":memory:")
    for table in SCHEMA.tables:
        columns = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
        connection.execute(f"CREATE TABLE {table.name} ({columns})")
    for place, (outcome, value, days, archived) in enumerate(rows):
        connection.execute(
            "INSERT INTO episode (id, stream, episode_id, task, task_type, agent, domain, complexity, tags, started_ns,"
            " last_ns, last_seq, steps, failed_steps, outcome, reward, archived)"
            " VALUES (?, ?, ?, '', '', '', '', '', '[]', 0, ?, 1, 0, 0, ?, ?, ?)",
            (place, str(place).encode(), str(place), now - days * DAY, outcome, value, archived),
        )
    may_go = [n for n, row in enumerate(rows) if row[0] is not None and not (keep_archived and row[3])]
    ruled = [
        n
        for n in may_go
        if policy.has_rule
        and (age is None or rows[n][2] > age)
        and (outcomes is None or rows[n][0] in outcomes)
        and (reward is None or (rows[n][1] is not None and rows[n][1] < reward))  # type: ignore[operator]
    ]
    ruled.sort(key=lambda n: (-rows[n][2], n))
    others = [n for n in may_go if n not in ruled]
    if eviction == "lru":
        others.sort(key=lambda n: (-rows[n][2], n))
    else:
        others.sort(key=lambda n: (retention_relevance(rows[n][1], rows[n][2] * 24), -rows[n][2], n))
    due = 0 if most is None else max(0, len(rows) - len(ruled) - most)
    wanted = ruled + others[:due]
    chosen, has_more, kept = choose(connection, policy, limit, now)
    assert [int(item.episode_id) for item in chosen] == wanted[:limit]
    assert has_more == (len(wanted) > limit)
    assert kept == len(rows) - len(chosen)
