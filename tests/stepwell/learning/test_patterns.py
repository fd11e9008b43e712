"""Which patterns an episode shows, and that their counts are sums: in any order, each episode once, and reversible."""

from __future__ import annotations

import random
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning import analyse_completion
from stepwell.learning.accumulation import Accumulation, pattern_of
from stepwell.learning.extraction import MOST_OF_A_KIND, extract, lessons, success_of
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.pattern import (
    ContextPattern,
    Counts,
    DeadEnd,
    DecisionPoint,
    ErrorRecovery,
    Loop,
    PatternContent,
    Sighting,
    ToolSequence,
    pattern_id,
)
from stepwell.model.step import EpisodeStep, StepError, StepResult
from tests.stepwell.learning.builders import BAD, CUT, LATE, OK, START, episode, step
from tests.stepwell.learning.strategies import episodes

NO_TABLE = StepError("Table 'shop.orders' doesn't exist at line 7")
GENERAL = "Table '…' doesn't exist at line #"
NAMED = "Table 'shop.orders' doesn't exist at line #"


def call(result: StepResult | None, action: str = "", tool: str = "sql", **parameters: str) -> EpisodeStep:
    return msgspec.structs.replace(step(result, tool, action=action), parameters=parameters)


def run(
    *steps: EpisodeStep, outcome: TaskOutcome | None = None, name: str = "e-1", tags: tuple[str, ...] = ()
) -> Episode:
    numbered = [msgspec.structs.replace(it, seq=seq) for seq, it in enumerate(steps, 2)]
    ended = episode(numbered, outcome or Success("done"), domain="shop", tags=list(tags))
    return msgspec.structs.replace(ended, episode_id=name)


def shown(found: Episode, kind: type[PatternContent]) -> list[Sighting]:
    return [it for it in extract(found) if isinstance(it.content, kind)]


# --- what an episode shows -------------------------------------------------------------------------------------------


def test_the_operations_that_succeeded_are_a_sequence_each_run_of_one_once() -> None:
    found = run(
        call(OK, "SHOW TABLES"), call(BAD, "SELECT 1"), call(OK, "SELECT 2"), call(OK, "SELECT 3"), call(OK, "submit")
    )
    [sequence] = shown(found, ToolSequence)
    assert sequence == Sighting(ToolSequence(("sql show", "sql select", "sql submit")), 1, 4, 1, (2, 4, 6))


def test_one_operation_alone_is_no_sequence_and_more_than_five_are_cut() -> None:
    assert not shown(run(call(OK, "SELECT"), call(OK, "SELECT again")), ToolSequence)
    [long] = shown(run(*[call(OK, tool=tool) for tool in "abcdefg"]), ToolSequence)
    assert long.content == ToolSequence(("a", "b", "c", "d", "e"))


def test_what_succeeds_behind_failures_is_the_remedy_of_each_of_them_with_and_without_names() -> None:
    found = run(call(LATE, "ping"), call(NO_TABLE, "SELECT"), call(OK, "SHOW"))
    assert shown(found, ErrorRecovery) == [
        Sighting(ErrorRecovery("timeout", "sql ping", "sql show"), 1, 1, 0, (2, 4)),
        Sighting(ErrorRecovery(NAMED, "sql select", "sql show"), 1, 1, 0, (3, 4)),
        Sighting(ErrorRecovery(GENERAL, "sql select", "sql show"), 1, 1, 0, (3, 4)),
    ]


def test_behind_a_step_without_a_known_result_nothing_is_a_remedy() -> None:
    assert not shown(run(call(BAD), call(None), call(OK)), ErrorRecovery)
    assert not shown(run(call(BAD), call(CUT), call(OK)), ErrorRecovery)


def test_the_same_failing_call_again_is_a_loop_and_a_changed_one_is_none() -> None:
    same = call(NO_TABLE, "SELECT", command="SELECT * FROM orders")
    other = call(NO_TABLE, "SELECT", command="SELECT id FROM orders")
    [loop] = shown(run(same, same, same, other), Loop)
    assert loop == Sighting(Loop("sql select", GENERAL), 2, 0, 2, (2, 3, 4))
    assert not shown(run(same, other, same), Loop)
    assert not shown(run(same, call(OK, "SELECT", command="SELECT * FROM orders")), Loop)


def test_an_error_behind_which_nothing_succeeds_is_a_dead_end_and_one_that_was_passed_says_so() -> None:
    stuck = run(call(OK), call(NO_TABLE, "SELECT"), call(NO_TABLE, "SELECT"), outcome=Failure("no"))
    passed = run(call(NO_TABLE, "SELECT"), call(OK))
    assert shown(stuck, DeadEnd) == [Sighting(DeadEnd("sql select", NAMED), 2, 0, 1, (4,))]
    assert shown(passed, DeadEnd) == [Sighting(DeadEnd("sql select", NAMED), 1, 1, 0, (2,))]


def test_a_decision_is_told_by_whole_words_and_says_what_was_done_next() -> None:
    found = run(call(BAD, "Check whether table 17 exists"), call(OK, "CREATE it"), call(OK, "this list has hashes"))
    [decision] = shown(found, DecisionPoint)
    assert decision == Sighting(DecisionPoint("Check whether table # exists", "sql check", "sql create"), 1, 0, 1, (2,))


def test_the_context_counts_as_the_domain_each_tag_once_and_as_a_whole() -> None:
    found = run(tags=("db:Shop", "DB:shop", "hard"))
    assert [it.content for it in shown(found, ContextPattern)] == [
        ContextPattern(("domain:shop",)),
        ContextPattern(("domain:shop", "tag:db:shop")),
        ContextPattern(("domain:shop", "tag:hard")),
        ContextPattern(("domain:shop", "complexity:simple"), "debugging"),
    ]


def test_an_interrupted_or_an_open_episode_shows_nothing() -> None:
    steps = [call(BAD), call(OK)]
    assert extract(run(*steps, outcome=Interrupted("SIGTERM"))) == []
    assert extract(msgspec.structs.replace(run(*steps), outcome=None, end_time=None)) == []


@pytest.mark.parametrize(
    ("outcome", "success"),
    [
        (Success(), 1_000),
        (Failure(), 0),
        (PartialSuccess("", ["a"], ["b", "c"]), 333),
        (PartialSuccess(), 500),
        (Abstained(), None),
        (Interrupted(), None),
        (None, None),
    ],
)
def test_how_a_task_ended_weighs_its_patterns(outcome: TaskOutcome | None, success: int | None) -> None:
    assert success_of(outcome) == success


def test_of_an_agent_that_fails_in_a_thousand_ways_only_so_many_patterns_are_taken() -> None:
    found = run(
        *[call(StepError(f"no such thing as '{chr(97 + n // 26)}{chr(97 + n % 26)}'"), f"t{n}") for n in range(600)]
    )
    assert len(shown(found, DeadEnd)) == MOST_OF_A_KIND


def test_a_recovery_told_twice_with_and_without_names_is_one_lesson() -> None:
    assert lessons(extract(run(call(NO_TABLE, "SELECT"), call(OK, "SHOW")))) == 1


# --- counts are sums -------------------------------------------------------------------------------------------------


def _named(found: list[Episode]) -> list[Episode]:
    return [msgspec.structs.replace(it, episode_id=f"e-{place}") for place, it in enumerate(found)]


some = st.lists(episodes, max_size=6).map(_named)


@given(some, st.randoms(use_true_random=False))
def test_any_order_of_the_same_episodes_gives_the_same_patterns(found: list[Episode], dice: random.Random) -> None:
    shuffled = list(found)
    dice.shuffle(shuffled)
    assert _counts(Accumulation(shuffled)) == _counts(Accumulation(found))


@given(some, st.integers(0, 6))
def test_parts_that_are_merged_are_the_whole(found: list[Episode], cut: int) -> None:
    one, other = Accumulation(found[cut:]), Accumulation(found[:cut])
    one.merge(other)
    one.merge(other)
    assert _counts(one) == _counts(Accumulation(found))


@given(some)
def test_an_episode_counts_once(found: list[Episode]) -> None:
    assert _counts(Accumulation([*found, *found])) == _counts(Accumulation(found))


@given(some, st.integers(0, 5))
def test_deleting_an_episode_takes_out_exactly_what_it_put_in(found: list[Episode], place: int) -> None:
    with_all = Accumulation(found)
    with_all.remove(f"e-{place}")
    assert _counts(with_all) == _counts(Accumulation(it for it in found if it.episode_id != f"e-{place}"))


def _counts(found: Accumulation) -> dict[str, Counts]:
    return found.counts()


@given(episodes)
def test_any_episode_can_be_learned_from_and_its_patterns_be_stored(found: Episode) -> None:
    sightings = extract(found)
    assert sightings == extract(found)
    assert len({it.content for it in sightings}) == len(sightings)
    seqs = {it.seq for it in found.steps}
    for it in sightings:
        assert msgspec.json.decode(msgspec.json.encode(it), type=Sighting) == it
        assert len(pattern_id("general", it.content)) == 24
        assert set(it.seqs) <= seqs
        assert it.occurrences >= 1
        assert min(it.ok, it.failed) >= 0


@given(some)
def test_every_figure_of_a_pattern_stays_in_its_bounds(found: list[Episode]) -> None:
    for counts in Accumulation(found).counts().values():
        pattern = pattern_of("general", Loop("a", "b"), counts, time.time_ns())
        assert 0 <= pattern.interval.low <= pattern.interval.high <= 1
        assert pattern.success is None or pattern.interval.low <= pattern.success <= pattern.interval.high
        assert 0 <= pattern.confidence <= 1
        assert 0 <= pattern.recency <= 1
        assert counts.wins <= 1_000 * counts.trials <= 1_000 * counts.episodes


def test_completing_an_episode_of_a_thousand_steps_finds_what_it_shows() -> None:
    steps = [call((OK, NO_TABLE, BAD)[n % 3], ("SHOW", "SELECT")[n % 2], command=f"c{n // 7}") for n in range(1_000)]
    analysis = analyse_completion(run(*steps), now=START)
    assert analysis.quality is not None
    assert analysis.quality.novelty == 0.75  # 4 recoveries, each with and without names, and a sequence
