"""What a memory learns of its episodes, and that it learns the same whenever and however often it reads them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from stepstore.catalog import CatalogOptions, Change
from stepstore.journal import Record, RecordBatch
from stepstore.log.memory_files import MemoryFileSystem
from stepwell import (
    Abstained,
    ErrorRecovery,
    ExecutionStep,
    Failure,
    InvalidInput,
    Loop,
    Memory,
    MemoryConfig,
    NotFound,
    OutcomeUnknown,
    PartialSuccess,
    Pattern,
    StepError,
    StepSuccess,
    Success,
    TaskContext,
    ToolSequence,
    Unavailable,
    open_memory,
)
from stepwell.learning.accumulation import Accumulation
from stepwell.model.codec import encode_step
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.pattern import Counts, pattern_id
from stepwell.runtime import learning_tables as tables
from stepwell.runtime.learner import RECORDS_A_TURN, LearningFold, learning_projection
from stepwell.runtime.recommending import append_next
from stepwell.testing import MemoryJournal, open_memory_on
from tests.support import HookedFileSystem, open_on
from tests.support import step as numbered

SHOP = TaskContext(domain="shop", tags=["db:shop"])
NO_TABLE = StepError("Table 'orders' doesn't exist")


def call(action: str, result: StepSuccess | StepError | None = None, **parameters: str) -> ExecutionStep:
    return ExecutionStep("sql", action, dict(parameters), result or StepSuccess("rows"))


SELECT = call("SELECT", NO_TABLE, command="SELECT * FROM orders")
WAYS: list[list[ExecutionStep]] = [
    [SELECT, call("SHOW", command="SHOW TABLES"), call("SELECT", command="SELECT * FROM order_list")],
    [SELECT, SELECT, SELECT],
    [call("SHOW"), call("DESCRIBE"), call("SELECT")],
    [call("Check whether the table exists"), call("SELECT")],
    [],
]
ENDINGS: list[TaskOutcome] = [Success("done"), Failure("no"), PartialSuccess("", ["a"], ["b", "c"]), Abstained("why")]


async def run(memory: Memory, name: str, steps: Sequence[ExecutionStep], outcome: TaskOutcome, task: str = "") -> None:
    handle = await memory.start_episode(task or f"List the orders of {name}", episode_id=name, context=SHOP)
    for step in steps:
        await handle.log_step(step)
    await handle.complete(outcome)


def files_of_the_learner(directory: Path) -> list[Path]:
    return list(directory.glob(f"{tables.FILE}*"))


def forget_what_was_learned(directory: Path) -> None:
    """So that all of it is learned again."""
    found = files_of_the_learner(directory)
    assert found
    for file in found:
        file.unlink()


async def fill(memory: Memory, dice: random.Random, count: int) -> None:
    for number in range(count):
        await run(memory, f"e-{number}", dice.choice(WAYS), dice.choice(ENDINGS))


async def learned(memory: Memory) -> tuple[dict[str, Counts], dict[tuple[str, str], Any]]:
    """All that the tables hold, without the keys of rows: counts of patterns, and evidence."""
    await memory.patterns()

    def reading(connection: Any) -> Any:
        columns = "episodes, trials, wins, occurrences, ok, failed, first_ns, last_ns"
        counts = {
            row[0]: Counts(**dict(zip(columns.split(", "), row[1:], strict=True)))
            for row in connection.execute(f"SELECT pattern_id, {columns} FROM pattern")
        }
        evidence = {
            (row[0], row[1]): row[2:]
            for row in connection.execute(
                "SELECT p.pattern_id, e.episode_id, v.occurrences, v.ok, v.failed, v.success, v.seqs FROM evidence v "
                "JOIN pattern p ON p.id = v.pattern JOIN episode e ON e.id = v.episode"
            )
        }
        return counts, evidence

    found: tuple[dict[str, Counts], dict[tuple[str, str], Any]] = await memory._runtime.projections.learning.read_now(
        reading
    )
    return found


async def accumulated(memory: Memory) -> dict[str, Counts]:
    """The same counts worked out by plain functions from the episodes as they can be read."""
    ids = [name async for name in memory.episode_ids()]
    return Accumulation(await memory.get_episodes(ids)).counts()


# --- the learner -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_the_tables_hold_the_sum_of_what_the_episodes_show(seed: int) -> None:
    async with open_memory(":memory:") as memory:
        await fill(memory, random.Random(seed), 12)
        counts, _evidence = await learned(memory)
        assert counts == await accumulated(memory)
        assert len(counts) > 5


async def test_what_was_learned_bit_by_bit_over_restarts_is_what_a_rebuild_learns(tmp_path: Path) -> None:
    dice = random.Random(7)
    before: tuple[dict[str, Counts], dict[tuple[str, str], Any]] = ({}, {})
    for life in range(3):
        async with open_memory(tmp_path) as memory:
            for number in range(4):
                await run(memory, f"{life}-{number}", dice.choice(WAYS), dice.choice(ENDINGS))
                if number == 1:
                    before = await learned(memory)
            # This one is open while the memory is closed, so at its end it is no longer in hand.
            handle = await memory.start_episode("long", episode_id=f"long-{life}", context=SHOP)
            await handle.log_steps(WAYS[0][:2])
            if life:
                earlier = await memory.resume(f"long-{life - 1}")
                await earlier.log_step(WAYS[0][2])
                await earlier.complete(Success("at last"))
            before = await learned(memory)
    assert "long-0" in {name for _pattern, name in before[1]}
    forget_what_was_learned(tmp_path)
    async with open_memory(tmp_path) as memory:
        assert await learned(memory) == before
        assert before[0] == await accumulated(memory)


async def test_deleting_an_episode_removes_its_evidence_and_nothing_else() -> None:
    async with open_memory(":memory:") as memory:
        await fill(memory, random.Random(3), 10)
        before = await learned(memory)
        await run(memory, "gone", [*WAYS[0], *WAYS[1]], Success("done"))
        assert await learned(memory) != before
        await memory.delete_episode("gone")
        assert await learned(memory) == before


async def test_an_episode_that_was_deleted_before_the_learner_came_to_it_teaches_nothing(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        await run(memory, "kept", WAYS[0], Success())
        await run(memory, "gone", WAYS[1], Failure())
        await memory.delete_episode("gone")
    forget_what_was_learned(tmp_path)
    async with open_memory(tmp_path) as memory:
        assert {name for _pattern, name in (await learned(memory))[1]} == {"kept"}


async def test_what_organises_an_episode_behind_its_ending_changes_nothing_of_what_it_taught() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[0], Success())
        before = await learned(memory)
        await memory.add_tags("e", ["another"])
        await memory.update_episode("e", description="another")
        assert await learned(memory) == before


async def test_of_two_endings_the_first_one_teaches_whenever_the_second_comes(tmp_path: Path) -> None:
    """No call writes a second one; another writer, or a repair, may."""
    stream = stream_id(EPISODE_STREAM, "e")
    async with open_memory(tmp_path) as memory:
        await run(memory, "e", WAYS[2], Success())
        before = await learned(memory)
        records = await memory._journal.read(stream).next_slice()
        for payload in (records[1].payload, encode_step(call("OPEN"), 1, memory._config.limits), records[-1].payload):
            await append_next(memory._journal, stream, payload)
        assert (await learned(memory))[1] == before[1]
        assert await memory.patterns("tool_sequence") != []
    forget_what_was_learned(tmp_path)
    async with open_memory(tmp_path) as memory:
        assert await learned(memory) == before


async def test_an_episode_that_does_not_fit_in_hand_is_read_from_the_log() -> None:
    async with open_memory(":memory:") as memory:
        await fill(memory, random.Random(5), 6)
        expected = (await learned(memory))[0]
        for number in range(6):
            await memory.add_tags(f"e-{number}", ["late"])  # it comes behind the ending, which is all that was learned
        options = CatalogOptions(in_threads=False)
        projection = learning_projection(memory._journal, options)
        fold = LearningFold(memory._journal, in_hand_bytes=0)
        projection.projector._make_fold = lambda: fold
        async with trio.open_nursery() as nursery:
            nursery.start_soon(projection.run)
            rows = await projection.read_now(
                lambda connection: connection.execute("SELECT pattern_id, episodes FROM pattern").fetchall()
            )
            nursery.cancel_scope.cancel()
        assert dict(rows) == {name: counts.episodes for name, counts in expected.items()}
        assert not fold._in_hand


async def test_the_same_records_again_change_nothing() -> None:
    async with open_memory(":memory:") as memory:
        await fill(memory, random.Random(1), 6)
        before = await learned(memory)
        fold = LearningFold(memory._journal)
        async with memory._journal.follow() as follower:
            batches = await follower.next_batches(1_000)
        assert batches is not None
        await fold.prepare(batches)
        catalog = memory._runtime.projections.learning.catalog
        await catalog.write(catalog.store.apply, fold.changes(), catalog.store.cursor)
        assert await learned(memory) == before


class _Steps(trio.abc.Instrument):
    """How often a task went on after it had let others run."""

    def __init__(self) -> None:
        self._task, self.count = trio.lowlevel.current_task(), 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


async def test_taking_in_a_large_piece_of_the_log_lets_others_run() -> None:
    async with open_memory(":memory:") as memory:
        for name in ("e-0", "e-1"):
            handle = await memory.start_episode("a task", episode_id=name)
            for _ in range(2 * RECORDS_A_TURN // 1_000 + 1):
                await handle.log_steps([numbered(number) for number in range(1_000)])
        await memory.flush()
        async with memory._journal.follow() as follower:
            batches = []
            while follower.position < memory._journal.durable_lsn:
                batches += await follower.next_batches(100_000) or []
        steps = _Steps()
        trio.lowlevel.add_instrument(steps)
        await LearningFold(memory._journal).prepare(batches)
        trio.lowlevel.remove_instrument(steps)
        assert steps.count >= 3


async def test_batches_of_steps_are_taken_in_without_looking_at_one_record_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_memory(":memory:") as memory:
        for number, way in enumerate(WAYS[:3]):
            await run(memory, f"e-{number}", way, Success("done"))
        async with memory._journal.follow() as follower:
            batches = await follower.next_batches(1_000)
        assert batches is not None
        together: dict[bytes, RecordBatch] = {}
        for batch in batches:
            assert isinstance(batch, RecordBatch)
            together.setdefault(batch.stream, batch._replace(payloads=[])).payloads.extend(batch.payloads)
        took: list[int] = []
        take_one = LearningFold._took

        def taking(fold: LearningFold, record: Record) -> Record | None:
            took.append(record.seq)
            return take_one(fold, record)

        monkeypatch.setattr(LearningFold, "_took", taking)
        fold = LearningFold(memory._journal)
        other = LearningFold(memory._journal)
        for stream, batch in together.items():
            *before, last = batch.payloads
            cut = 2
            await fold.prepare([RecordBatch(stream, 1, 1, before[:1])])
            await fold.prepare([RecordBatch(stream, 2, 2, before[1 : cut + 1])])
            await fold.prepare([RecordBatch(stream, cut, cut, before[cut - 1 :])])  # some of them twice (row 10)
            await fold.prepare([RecordBatch(stream, len(before) + 1, len(before) + 1, [last])])
            assert took == [1, *range(cut, len(before) + 1), len(before) + 1]
            await other.prepare([batch])
            took.clear()
        assert fold.changes() == other.changes()


async def test_an_encrypted_memory_learns_without_a_file(tmp_path: Path) -> None:
    from stepwell import LocalKeyProvider

    config = MemoryConfig(key_provider=LocalKeyProvider(bytes(32)))
    async with open_memory(tmp_path, config=config) as memory:
        await run(memory, "e", WAYS[0], Success())
        assert await memory.patterns("error_recovery")
        assert not files_of_the_learner(tmp_path)


async def test_a_learner_that_failed_is_restarted_and_learns_everything_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_memory(":memory:") as memory:
        store = memory._runtime.projections.learning.catalog.store
        apply, fails = store.apply, [False, True, False, True, True, False]

        def failing(changes: Sequence[Change], cursor: str) -> None:
            if fails and fails.pop(0):
                raise sqlite3.OperationalError("disk I/O error")
            apply(changes, cursor)

        monkeypatch.setattr(store, "apply", failing)
        open_meanwhile = await memory.start_episode("long", episode_id="long", context=SHOP)
        for number in range(6):
            await open_meanwhile.log_step(WAYS[0][number % 3])
            await run(memory, f"e-{number}", WAYS[number % len(WAYS)], ENDINGS[number % len(ENDINGS)])
            await memory.patterns()
        await open_meanwhile.complete(Success())
        counts, _evidence = await learned(memory)
        assert not fails
        assert counts == await accumulated(memory)
        assert memory._runtime.projections.learning.service.restarts == 3


async def test_with_the_learner_parked_its_calls_are_unavailable_and_logging_goes_on() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[0], Success())
        memory._runtime.projections.learning.projector.park(OSError("no space"))
        for asked in (memory.patterns, lambda: memory.recommend("x"), memory.skills.find):
            with pytest.raises(Unavailable, match="no space"):
                await asked()
        await run(memory, "f", WAYS[0], Success())


async def test_beside_a_writer_patterns_are_read_and_nothing_is_stored(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        await run(memory, "e", WAYS[0], Success())
        await run(memory, "f", WAYS[0], Success())
        lsn = memory._journal.durable_lsn
        async with open_memory(tmp_path, read_only=True) as reader:
            assert {it.pattern_id for it in await reader.patterns()} == {
                it.pattern_id for it in await memory.patterns()
            }
            found = await reader.recommend("List the orders", SHOP)
            assert found.id == ""
            assert found.advice
            with pytest.raises(InvalidInput):
                await reader.feedback(found.id)
        assert memory._journal.durable_lsn == lsn


# --- patterns --------------------------------------------------------------------------------------------------------


async def test_an_episode_that_was_just_completed_counts() -> None:
    async with open_memory(":memory:") as memory:
        for number in range(19):
            await run(memory, f"e-{number}", WAYS[2], Success())
            assert [it.episodes for it in await memory.patterns("tool_sequence")] == [number + 1]
        await run(memory, "e-19", WAYS[2], Success())
        [sequence] = await memory.patterns("tool_sequence")
        assert sequence.episodes == 20
        assert sequence.content == ToolSequence(("sql show", "sql describe", "sql select"))
        assert sequence.success == 1.0
        assert sequence.interval.low == pytest.approx(0.8389, abs=1e-4)


async def test_an_ending_that_was_accepted_and_is_not_stored_yet_counts() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory, trio.open_nursery() as nursery:
        handle = await memory.start_episode("x", episode_id="e", context=SHOP)
        await handle.log_steps(WAYS[2])
        await handle.flush()
        journal.hang_next()
        nursery.start_soon(handle.complete, Success())
        await journal.wait_hanging()
        found: list[Pattern] = []

        async def ask() -> None:
            found.extend(await memory.patterns("tool_sequence"))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert found == []
        journal.release()
        with trio.fail_after(100):
            while not found:
                await trio.testing.wait_all_tasks_blocked()


async def test_how_the_task_ended_weighs_a_pattern_and_not_whether_its_steps_succeeded() -> None:
    async with open_memory(":memory:") as memory:
        endings: list[TaskOutcome] = [Success(), Failure(), PartialSuccess("", ["a"], ["b"]), Abstained()]
        for number, outcome in enumerate(endings):
            await run(memory, f"e-{number}", WAYS[2], outcome)
        [sequence] = await memory.patterns("tool_sequence")
        assert (sequence.episodes, sequence.trials, sequence.success) == (4, 3, 0.5)


async def test_patterns_are_listed_by_kind_domain_text_and_evidence() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[0], Success())
        await run(memory, "f", WAYS[1], Failure())
        [loop] = await memory.patterns("loop")
        assert loop.content == Loop("sql select", "Table '…' doesn't exist")
        assert loop.confidence > 0
        assert await memory.patterns(domain="elsewhere") == []
        assert {it.kind for it in await memory.patterns(text="DOESN'T")} == {"error_recovery", "dead_end", "loop"}
        assert [it.episodes for it in await memory.patterns("dead_end", min_episodes=2)] == [2]
        assert await memory.patterns("dead_end", min_episodes=3) == []
        assert len(await memory.patterns(limit=2)) == 2


async def test_patterns_are_searched_by_what_they_say_and_not_by_how_they_are_stored() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", [*WAYS[0], call('check whether "a\\b" is there')], Success())
        assert await memory.patterns(text="remedy") == await memory.patterns(text="error_recovery") == []
        assert {it.kind for it in await memory.patterns(text='WHETHER "A\\B"')} == {"decision_point"}
        assert [it.text for it in await memory.patterns(text="show → sql")] == ["sql show → sql select → sql check"]


async def test_an_explanation_says_what_a_pattern_rests_on() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[0], Success())
        await run(memory, "f", WAYS[1], Failure())
        [recovery] = [it for it in await memory.patterns("error_recovery") if "'orders'" in it.text]
        explained = await memory.explain(recovery.pattern_id)
        assert explained.base_success == 0.5
        assert [(it.episode_id, it.seqs, it.success) for it in explained.evidence] == [("e", (2, 3), 1.0)]
        assert "e (records 2, 3)" in explained.text
        assert "It was not recommended yet." in explained.text
        await memory.delete_episode("e")
        with pytest.raises(NotFound):
            await memory.explain(recovery.pattern_id)


async def test_rules_of_thumb_need_two_episodes() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[0], Success())
        assert await memory.heuristics() == []
        await run(memory, "f", WAYS[0], Failure())
        assert {it.action for it in await memory.heuristics(SHOP)} == {"use 'sql show'"}
        assert {(it.samples, it.success) for it in await memory.heuristics()} == {(2, 0.5)}
        assert await memory.heuristics(TaskContext(domain="elsewhere")) == []


# --- recommendations and feedback ------------------------------------------------------------------------------------


async def taught(memory: Memory) -> None:
    for number in range(4):
        await run(memory, f"good-{number}", WAYS[0], Success())
        await run(memory, f"bad-{number}", WAYS[1], Failure())


async def test_advice_names_the_very_calls_that_failed_and_that_worked() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        found = await memory.recommend("List the orders of good customers", SHOP, 4)
        assert [it.score for it in found.advice] == sorted((it.score for it in found.advice), reverse=True)
        assert all(it.score == pytest.approx(it.parts.total) for it in found.advice)
        [recovery] = [it for it in found.advice if isinstance(it.pattern.content, ErrorRecovery)]
        assert recovery.example is not None
        assert recovery.example.failed == "SELECT * FROM orders"
        assert recovery.example.worked == "SHOW TABLES"
        assert found.episodes[0].answer == "SELECT * FROM order_list"
        assert {it.features: it.success for it in found.base_rates}["domain:shop, tag:db:shop"] == 0.5
        assert "SHOW TABLES" in found.to_text()
        assert len(found.to_text(max_tokens=50)) <= 200


async def test_an_example_is_taken_from_an_episode_that_solved_its_task() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "failed", WAYS[0], Failure())
        await run(memory, "solved", WAYS[0], Success())
        await run(memory, "failed-later", WAYS[0], Failure())
        found = await memory.recommend("List the orders", SHOP)
        assert {it.example.episode_id for it in found.advice if it.example is not None} == {"solved"}


async def test_where_nothing_was_learned_it_is_said_why() -> None:
    async with open_memory(":memory:") as memory:
        assert "no episode of this memory has ended" in (await memory.recommend("x")).note
        await taught(memory)
        found = await memory.recommend("zzz", TaskContext(domain="elsewhere"))
        assert found.advice == []
        assert "'elsewhere'" in found.note
        assert await memory.playbook("zzz", TaskContext(domain="elsewhere")) is None


async def test_applied_advice_that_helped_rises_and_advice_that_did_not_falls() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        first = await memory.recommend("List the orders", SHOP, 3)
        helped, failed, ignored = first.advice
        for _ in range(8):
            for advice, outcome in ((helped, Success()), (failed, Failure())):
                found = await memory.recommend("List the orders", SHOP, 50)
                receipt = await memory.feedback(found.id, applied=[advice.pattern_id], outcome=outcome)
                assert (receipt.seq, receipt.replaced) == (2, False)
        again = {it.pattern_id: it for it in (await memory.recommend("List the orders", SHOP, 50)).advice}
        assert again[helped.pattern_id].parts.boost > 0.1
        assert again[failed.pattern_id].parts.boost < -0.1
        assert again[ignored.pattern_id].parts.boost == 0
        assert again[helped.pattern_id].score > helped.score
        assert again[failed.pattern_id].score < failed.score
        explained = await memory.explain(helped.pattern_id)
        assert (explained.advice.applied, explained.advice.judged, explained.advice.helped) == (8, 8, 8.0)
        assert explained.advice.ignored == 8
        assert explained.boost == again[helped.pattern_id].parts.boost
        assert "of 8 applications with a known outcome 8 helped" in explained.text


async def test_the_newest_feedback_counts_and_all_of_it_survives_a_restart(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        await taught(memory)
        found = await memory.recommend("List the orders", SHOP)
        name = found.advice[0].pattern_id
        await memory.feedback(found.id, applied=[name], outcome=Failure("no"), rating=0.0)
        second = await memory.feedback(found.id, applied=[name], outcome=Success(), rating=1.0)
        assert (second.seq, second.replaced) == (3, True)
        stats = await memory.recommendation_stats()
        assert (stats.recommendations, stats.with_feedback, stats.applied, stats.ignored) == (1, 1, 1, 2)
        assert (stats.success_after_adoption, stats.mean_rating) == (1.0, 1.0)
    forget_what_was_learned(tmp_path)
    async with open_memory(tmp_path) as memory:
        assert await memory.recommendation_stats() == stats
        assert (await memory.explain(name)).advice.helped == 1.0


async def test_feedback_for_what_was_not_advised_or_is_not_there_is_refused() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        found = await memory.recommend("List the orders", SHOP)
        with pytest.raises(InvalidInput, match="was not advised"):
            await memory.feedback(found.id, applied=["other"])
        with pytest.raises(NotFound):
            await memory.feedback("other")
        with pytest.raises(NotFound):
            await memory.feedback(found.id, consulted=["no-such-episode"])
        await memory.feedback(found.id, consulted=["good-1"])
        assert (await memory.recommendation_stats()).success_after_adoption is None


async def test_an_interrupted_task_says_nothing_for_or_against_advice() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        found = await memory.recommend("List the orders", SHOP)
        await memory.feedback(found.id, applied=[found.advice[0].pattern_id], outcome=Abstained("too hard"))
        advice = (await memory.explain(found.advice[0].pattern_id)).advice
        assert (advice.applied, advice.judged) == (1, 0)


async def test_when_the_disk_fails_nobody_is_told_that_a_recommendation_was_stored() -> None:
    files, failing = MemoryFileSystem(), False

    def hook(call: str, _path: str) -> None:
        if failing and call in ("write", "datasync"):
            raise OSError(5, "broken")

    with pytest.raises(OutcomeUnknown):
        async with open_on(HookedFileSystem(files, hook)) as memory:
            await run(memory, "e", WAYS[0], Success())
            failing = True
            await memory.recommend("x")
    async with open_on(files) as memory:
        assert (await memory.recommendation_stats()).recommendations == 0


async def test_what_was_acknowledged_is_there_after_a_power_cut_at_the_worst_moment() -> None:
    files = MemoryFileSystem()
    async with open_on(files) as memory:
        await taught(memory)
        found = await memory.recommend("List the orders", SHOP)
        name = found.advice[0].pattern_id
        recommended = files.durable_copy()
        await memory.feedback(found.id, applied=[name], outcome=Success())
        judged = files.durable_copy()
        skill = await memory.skills.store("deploy")
        used = await memory.skills.used(skill.skill_id, Success())
        stored = files.durable_copy()
        await memory.skills.delete(skill.skill_id)
        deleted = files.durable_copy()
    async with open_on(recommended) as memory:
        assert (await memory.recommendation_stats()).recommendations == 1
        await memory.feedback(found.id, applied=[name], outcome=Success())
    async with open_on(judged) as memory:
        assert (await memory.explain(name)).advice.helped == 1.0
    async with open_on(stored) as memory:
        assert await memory.skills.get(skill.skill_id) == used
    async with open_on(deleted) as memory:
        assert await memory.skills.find() == []


async def test_two_who_give_feedback_at_once_take_two_numbers() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        found = await memory.recommend("List the orders", SHOP)
        seqs: list[int] = []

        async def tell(outcome: TaskOutcome) -> None:
            seqs.append((await memory.feedback(found.id, outcome=outcome)).seq)

        async with trio.open_nursery() as nursery:
            for outcome in (Success(), Failure(), Success()):
                nursery.start_soon(tell, outcome)
        assert sorted(seqs) == [2, 3, 4]


async def test_a_playbook_is_an_order_of_steps_with_pitfalls() -> None:
    async with open_memory(":memory:") as memory:
        await taught(memory)
        found = await memory.playbook("List the orders", SHOP, max_steps=5)
        assert found is not None
        assert [it.order for it in found.steps] == list(range(1, len(found.steps) + 1))
        assert [it.tool_hint for it in found.steps][:2] == ["sql show", "sql select"]
        assert any("again unchanged" in it.warning for it in found.pitfalls)
        assert 0 < found.confidence <= 1
        assert 0 < found.match <= 1
        receipt = await memory.feedback(found.recommendation_id, applied=found.pattern_ids[:1], outcome=Success())
        assert receipt.seq == 2
        assert "Beware: " in found.to_text()


async def test_a_playbook_tells_of_one_similar_task_in_a_whole_sentence() -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[2], Success())
        found = await memory.playbook("List the orders", SHOP)
        assert found is not None
        assert found.why.startswith("1 similar task was solved before; domain:shop: ")


@pytest.mark.parametrize("task", ["Tuning", "coding", "Scraping!", "tune", "Studying"])
async def test_an_episode_of_the_very_same_word_is_similar_however_the_word_ends(task: str) -> None:
    async with open_memory(":memory:") as memory:
        await run(memory, "e", WAYS[2], Success(), task)
        assert [it.episode_id for it in (await memory.recommend(task, SHOP)).episodes] == ["e"]


async def test_of_more_patterns_than_are_considered_those_that_are_do_not_depend_on_what_was_deleted() -> None:
    letters = [chr(ord("a") + number) for number in range(26)]
    pairs = [[call(f"o{one}{other}"), call("done")] for one in letters[:5] for other in letters[:24]]
    advised = []
    for early in (pairs[-20:], []):
        async with open_memory(":memory:") as memory:
            for number, steps in enumerate(early):
                await run(memory, f"early-{number}", steps, Success(), "zzz")
            await memory.patterns()  # the learner has taken them up
            for number, steps in enumerate(pairs):
                await run(memory, f"e-{number}", steps, Success(), "zzz")
                await run(memory, f"f-{number}", steps, Success(), "zzz")
            for number in range(len(early)):
                await memory.delete_episode(f"early-{number}")
            found = await memory.recommend("something else", domain="shop", limit=50)
            advised.append([it.pattern_id for it in found.advice])
    assert len(advised[0]) == 50
    assert advised[0] == advised[1]


# --- skills ----------------------------------------------------------------------------------------------------------


async def test_a_skill_is_found_by_what_it_is_for_and_ranked_by_how_it_did() -> None:
    async with open_memory(":memory:") as memory:
        deploy = await memory.skills.store("deploy", "Deploy the shop to staging", steps=["build", "push"])
        other = await memory.skills.store("deploy by hand", "Deploy the shop to staging", steps=["copy"])
        await memory.skills.store("bake", "Bake a cake")
        for _ in range(5):
            await memory.skills.used(other.skill_id, Success())
            await memory.skills.used(deploy.skill_id, Failure())
        used = await memory.skills.get(deploy.skill_id)
        assert (used.uses, used.judged, used.helped) == (5, 5, 0.0)
        found = await memory.skills.find("deploy the shop")
        assert [it.skill.name for it in found] == ["deploy by hand", "deploy"]
        assert len(await memory.skills.find()) == 3


async def test_a_skill_is_replaced_under_its_name_and_keeps_its_record(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        first = await memory.skills.store("deploy", "old", steps=["a"], sources=["e-1"])
        await memory.skills.used(first.skill_id, Success())
        second = await memory.skills.store("deploy", "new", steps=["b"], context=SHOP, metadata={"n": 1})
        assert second.skill_id == first.skill_id
        assert second.created_at == first.created_at
        assert second.updated_at >= first.updated_at
    forget_what_was_learned(tmp_path)
    async with open_memory(tmp_path) as memory:
        [match] = await memory.skills.find()
        assert match.skill == second
        assert (match.skill.steps, match.skill.context, match.skill.metadata, match.skill.uses) == (
            ["b"],
            SHOP,
            {"n": 1},
            1,
        )
        await memory.skills.delete(second.skill_id)
        with pytest.raises(NotFound):
            await memory.skills.get(second.skill_id)
        assert await memory.skills.find() == []
        assert (await memory.skills.store("deploy")).skill_id != second.skill_id


async def test_two_who_store_one_name_at_once_store_one_skill() -> None:
    async with open_memory(":memory:") as memory:
        ids: set[str] = set()

        async def store(description: str) -> None:
            ids.add((await memory.skills.store("deploy", description)).skill_id)

        async with trio.open_nursery() as nursery:
            for description in ("one", "other", "third"):
                nursery.start_soon(store, description)
        assert len(ids) == len(await memory.skills.find()) == 1


async def test_recommendations_and_skills_are_no_episodes(tmp_path: Path) -> None:
    async with open_memory(tmp_path) as memory:
        await taught(memory)
        before = {name async for name in memory.episode_ids()}
        await memory.recommend("x", SHOP)
        await memory.skills.store("deploy")
        assert {name async for name in memory.episode_ids()} == before
        assert len((await memory.list_episodes()).items) == len(before)
        assert await memory.open_episodes() == []


def test_the_id_of_a_pattern_is_the_same_everywhere() -> None:
    content = ToolSequence(("sql show", "sql select"))
    assert pattern_id("shop", content) == "5bb9e2c14703f98aed68c653"
    assert pattern_id("shop", content) != pattern_id("other", content)


async def test_a_skill_is_stored_behind_its_deletion_that_was_cancelled() -> None:
    journal = MemoryJournal()
    async with open_memory_on(journal) as memory:
        old = await memory.skills.store("deploy", steps=["old"])
        journal.hang_next(when=lambda batch: "deleted" in batch.kinds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(memory.skills.delete, old.skill_id)
            await journal.wait_hanging()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(memory.skills.store, "deploy", steps=["new"]))
            try:
                await trio.testing.wait_all_tasks_blocked()
            finally:
                journal.release()
        assert [found.skill.steps for found in await memory.skills.find()] == [["new"]]


async def test_a_deletion_of_a_skill_that_was_cancelled_before_it_was_queued_is_none() -> None:
    async with open_memory(":memory:") as memory:
        old = await memory.skills.store("deploy", steps=["old"])
        with trio.CancelScope() as scope:
            scope.cancel()
            await memory.skills.delete(old.skill_id)
        assert (await memory.skills.store("deploy", steps=["new"])).skill_id == old.skill_id


@pytest.mark.parametrize("first", ["store", "delete"])
async def test_a_skill_that_is_stored_while_it_is_deleted_is_stored_behind_or_anew(first: str) -> None:
    async with open_memory(":memory:") as memory:
        old = await memory.skills.store("deploy", steps=["old"])

        async def store() -> None:
            await memory.skills.store("deploy", steps=["new"])

        async def delete() -> None:
            await memory.skills.delete(old.skill_id)

        in_order = [store, delete] if first == "store" else [delete, store]
        async with trio.open_nursery() as nursery:
            for call in in_order:
                nursery.start_soon(call)
                await trio.lowlevel.checkpoint()  # it is there first
        found = await memory.skills.find()
        assert [it.skill.steps for it in found] == ([["new"]] if first == "delete" else [])
