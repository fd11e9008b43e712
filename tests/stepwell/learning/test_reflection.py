"""The reflection on an episode (reference system, section 1.6)."""

from __future__ import annotations

import pytest
from hypothesis import given

from stepwell.learning.facts import facts_of
from stepwell.learning.improvements import improvements
from stepwell.learning.insights import insights
from stepwell.learning.reflection import reflect
from stepwell.learning.successes import successes
from stepwell.model.analysis import Reflection
from stepwell.model.context import Complexity
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import StepError, StepResult, StepTimeout
from tests.stepwell.learning.builders import BAD, CUT, LATE, OK, calls_of, episode, step, steps_of
from tests.stepwell.learning.strategies import episodes


def reflection(reflected: Episode) -> Reflection:
    result = reflect(reflected)
    assert result is not None
    return result


def all_successes(reflected: Episode) -> list[str]:
    return list(successes(reflected, facts_of(reflected)))


def all_improvements(reflected: Episode) -> list[str]:
    return list(improvements(reflected, facts_of(reflected)))


def all_insights(reflected: Episode) -> list[str]:
    return list(insights(reflected, facts_of(reflected)))


def starting(lines: list[str], start: str) -> list[str]:
    return [line for line in lines if line.startswith(start)]


# --- the whole -------------------------------------------------------------------------------------------------------


def test_a_debugging_session_reads_well() -> None:
    session = episode(
        [
            step(OK, "grep"),
            step(StepError("AssertionError:\n  500 != 200"), "pytest"),
            step(OK, "edit"),
            step(OK, "pytest"),
        ],
        Success("all green", ["fix.patch"]),
        seconds=20,
        complexity="moderate",
        domain="web",
    )
    assert reflection(session) == Reflection(
        successes=[
            "Task done: all green",
            "Produced 1 artifact: fix.patch",
            "Tools that worked, in this order: grep → edit → pytest",
            "Finished quickly, in 20 s",
            "Diverse strategy: 3 tools, each used once with success (grep, edit, pytest)",
        ],
        improvements=["Reduce failed steps: 1 of 4 steps failed"],
        insights=[
            "Recovered from a failure with 'edit'",
            "A moderate task in the web domain",
            "Fewer steps than a moderate task usually takes: 4 against about 15",
            "Worth remembering: 'edit' worked after 'pytest' failed: AssertionError: 500 != 200",
            "For similar tasks, start with grep, edit, pytest",
        ],
    )


def test_an_interrupted_episode_has_no_reflection() -> None:
    assert reflect(episode(steps_of(OK, BAD), Interrupted("SIGINT"))) is None


@pytest.mark.parametrize("outcome", [Success(), PartialSuccess(), Failure(), Abstained(), None])
def test_an_episode_without_steps_has_a_reflection(outcome: TaskOutcome | None) -> None:
    reflected = reflection(episode([], outcome))
    assert reflected.insights == []
    assert len(reflected.successes) <= 1
    assert len(reflected.improvements) <= 1


def test_basic_lines_push_out_advanced_ones() -> None:
    busy = episode(
        [step(BAD, "pytest") for _ in range(60)],
        Failure("no idea"),
        seconds=400,
    )
    assert len(all_improvements(busy)) > 5
    assert reflection(busy).improvements == [
        "Task failed: no idea",
        "Reduce failed steps: 60 of 60 steps failed",
        "Look into 'pytest', which failed 60 times",
        "Save time: this took 6 min 40 s",
        "Look for a shorter path: this took 60 steps",
    ]


@pytest.mark.parametrize("unknown", [None, CUT])
def test_unknown_steps_are_not_failures(unknown: StepResult | None) -> None:
    quiet = episode(steps_of(unknown, OK, unknown, OK, unknown), PartialSuccess(), seconds=200)
    assert all_improvements(quiet) == [
        "Review the approach: no step shows why the task was not done in full",
        "'tool' was called 5 times; batching or another approach may need fewer calls",
        "Calls of the same tool follow each other; they might run in parallel",
    ]
    assert starting(all_insights(quiet), "Reliable") == ["Reliable: all 2 steps with a result succeeded"]
    assert not starting(all_insights(quiet), "Recovered")
    assert starting(all_successes(quiet), "High") == ["High success rate: 2 of 2 steps with a result succeeded (100%)"]


# --- successes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        (Success("works"), ["Task done: works"]),
        (Success(" \0 "), ["Task done"]),
        (Success("", ["a", "b"]), ["Task done", "Produced 2 artifacts: a, b"]),
        (Success("", [*"abcd"]), ["Task done", "Produced 4 artifacts: a, b, c, …"]),
        (PartialSuccess("half", ["parse"], ["write"]), ["Task partly done: half", "Completed 1 subtask: parse"]),
        (PartialSuccess("half"), ["Task partly done: half"]),
        (Failure("no"), []),
        (Abstained("no"), []),
        (None, []),
    ],
)
def test_the_outcome_comes_first(outcome: TaskOutcome | None, lines: list[str]) -> None:
    assert all_successes(episode([], outcome)) == lines


@pytest.mark.parametrize(
    ("results", "lines"),
    [
        ([OK] * 4 + [BAD], ["High success rate: 4 of 5 steps succeeded (80%)"]),
        ([OK] * 199 + [BAD], ["High success rate: 199 of 200 steps succeeded (99%)"]),
        ([OK], ["High success rate: 1 of 1 step succeeded (100%)"]),
        ([OK] * 3 + [BAD], []),
        ([None], []),
        ([BAD], []),
    ],
)
def test_four_of_five_steps_are_a_high_rate(results: list[StepResult | None], lines: list[str]) -> None:
    assert starting(all_successes(episode(steps_of(*results))), "High success rate") == lines


def test_three_succeeded_steps_make_a_sequence() -> None:
    assert not starting(all_successes(episode(calls_of("a", "b"))), "Tools that worked")
    mixed = [step(OK, "a"), step(BAD, "x"), step(OK, "b"), step(None, "y"), step(OK, "a"), step(OK, "c")]
    assert starting(all_successes(episode(mixed)), "Tools that worked") == [
        "Tools that worked, in this order: a → b → a"
    ]


@pytest.mark.parametrize(
    ("outcome", "seconds", "quick"),
    [
        (Success(), 29.9, True),
        (Success(), 30, False),
        (PartialSuccess(), 1, True),
        (Failure(), 1, False),
        (Abstained(), 1, False),
        (Success(), None, False),
    ],
)
def test_being_quick_is_a_success_only_if_something_was_done(
    outcome: TaskOutcome, seconds: float | None, quick: bool
) -> None:
    assert bool(starting(all_successes(episode(steps_of(OK), outcome, seconds=seconds)), "Finished quickly")) is quick


@pytest.mark.parametrize(
    ("tools", "lines"),
    [
        ("ab", []),
        ("abc", ["Diverse strategy: 3 tools, each used once with success (a, b, c)"]),
        ("dcba", ["Diverse strategy: 4 tools, each used once with success (d, c, b, …)"]),
        ("aba", ["Focused strategy: 3 successful steps with 2 tools (a, b)"]),
        ("aaa", ["Focused strategy: 3 successful steps with 1 tool (a)"]),
    ],
)
def test_a_strategy_is_diverse_or_focused(tools: str, lines: list[str]) -> None:
    reflected = all_successes(episode(calls_of(*tools)))
    assert starting(reflected, "Diverse") + starting(reflected, "Focused") == lines


@pytest.mark.parametrize(
    ("results", "start"),
    [
        ([OK] * 10 + [BAD], "Smooth flow"),
        ([BAD, OK] * 2 + [OK] * 16, "Iterative refinement"),  # .9 is not more than .9
        ([BAD, OK] * 2, "Iterative refinement: a failure was followed by a success 2 times"),
        ([BAD, OK], None),
        ([None], None),
    ],
)
def test_the_flow_is_smooth_or_refined(results: list[StepResult | None], start: str | None) -> None:
    flow = [line for line in all_successes(episode(steps_of(*results))) if "flow" in line or "refinement" in line]
    assert [line.startswith(start or "?") for line in flow] == ([True] if start else [])


def test_the_context_of_a_success() -> None:
    home, knowledge = "At home with python in the web domain", "Knowledge that applied: api, retry"
    context = [
        (episode(steps_of(*[OK] * 6), language="python", domain="web"), home),
        (episode(steps_of(*[OK] * 6), language="python", domain="web", tags=["api", "retry"]), home),
        (episode(steps_of(*[OK] * 5), language="python", tags=["api", "retry"]), knowledge),
        (episode(steps_of(OK), tags=["api", "retry"]), knowledge),
    ]
    for reflected, line in context:
        assert [shown for shown in all_successes(reflected) if shown in (home, knowledge)] == [line]
    assert not starting(all_successes(episode(steps_of(*[OK] * 5), language="python")), "At home")


@pytest.mark.parametrize(
    ("steps", "seconds", "line"),
    [
        (14, 59.9, "Efficient: 14 steps in 59 s"),
        (15, 59.9, None),
        (14, 60, None),
        (4, 60, "Short path: 4 steps sufficed"),
        (4, 119.9, "Short path: 4 steps sufficed"),
        (5, 60, None),
        (4, 120, None),
        (1, None, None),
    ],
)
def test_little_time_and_few_steps_are_an_achievement(steps: int, seconds: float | None, line: str | None) -> None:
    reflected = all_successes(episode(steps_of(*[BAD] * steps), seconds=seconds))
    assert starting(reflected, "Efficient") + starting(reflected, "Short path") == ([line] if line else [])


@pytest.mark.parametrize("outcome", [Failure(), Abstained(), None])
def test_advanced_successes_need_something_done(outcome: TaskOutcome | None) -> None:
    lines = all_successes(episode(calls_of(*"abcdef"), outcome, seconds=5, language="python", tags=["x"]))
    assert lines == ["High success rate: 6 of 6 steps succeeded (100%)", "Tools that worked, in this order: a → b → c"]


@pytest.mark.parametrize(
    ("tokens", "success", "improvement"),
    [
        ([None], [], []),
        ([0], [], []),
        ([1], ["Sparing with tokens: 1 in all"], []),
        ([900, None, 99], ["Sparing with tokens: 999 in all"], []),
        ([1000], [], []),
        ([10_000], [], []),
        ([10_000, 1], [], ["High token use: 10,001; narrower prompts or caching may need fewer"]),
    ],
)
def test_tokens_are_praised_or_blamed_in_the_right_list(
    tokens: list[int | None], success: list[str], improvement: list[str]
) -> None:
    used = episode([step(OK, tokens_used=count) for count in tokens])
    assert starting(all_successes(used), "Sparing") == success
    assert starting(all_improvements(used), "High token use") == improvement


# --- improvements ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "lines"),
    [
        (Failure("no network"), ["Task failed: no network"]),
        (Failure(), ["Task failed"]),
        (PartialSuccess("", ["a"], ["b", "c"]), ["2 subtasks failed: b, c"]),
        (PartialSuccess("", ["a"]), ["Review the approach: no step shows why the task was not done in full"]),
        (Success(), []),
        (Abstained("no"), []),
        (None, []),
    ],
)
def test_what_failed_comes_first(outcome: TaskOutcome | None, lines: list[str]) -> None:
    assert all_improvements(episode([], outcome)) == lines


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ("a", None),
        ("ab", None),
        ("aa", "Look into 'a', which failed 2 times"),
        ("baab", "Look into 'b', which failed 2 times"),  # as often as a, but first
        ("baaab", "Look into 'a', which failed 3 times"),
    ],
)
def test_the_tool_that_failed_most_is_named(tools: str, line: str | None) -> None:
    failing = episode([step(LATE, tool) for tool in tools])
    assert starting(all_improvements(failing), "Look into") == ([line] if line else [])


@pytest.mark.parametrize(("seconds", "lines"), [(300, []), (300.5, ["Save time: this took 5 min 0 s"]), (None, [])])
def test_more_than_five_minutes_are_long(seconds: float | None, lines: list[str]) -> None:
    assert all_improvements(episode(seconds=seconds)) == lines


@pytest.mark.parametrize(("steps", "long"), [(50, False), (51, True)])
def test_more_than_fifty_steps_are_many(steps: int, long: bool) -> None:
    assert bool(starting(all_improvements(episode(steps_of(*[OK] * steps))), "Look for a shorter path")) is long


@pytest.mark.parametrize(
    ("results", "line"),
    [
        ([StepError("x"), StepError("y")], None),
        ([StepError("x"), StepError("y"), StepError("x")], "Same error 2 times: x"),
        ([StepError("y"), StepError("x"), StepError("x"), StepError("y")], "Same error 2 times: y"),
        ([LATE, LATE], "Same error 2 times: timeout"),
        ([StepTimeout("slow disk"), StepError("slow disk")], "Same error 2 times: slow disk"),
        ([StepError(""), StepError("")], None),
        ([StepError("x" * 999 + "y"), StepError("x" * 999 + "z")], None),
        ([StepError("x" * 1_000 + "y"), StepError("x" * 1_000 + "z")], f"Same error 2 times: {'x' * 79}…"),
        ([StepError(" \n"), StepError(" \n")], None),
    ],
)
def test_an_error_that_comes_back_is_quoted(results: list[StepResult | None], line: str | None) -> None:
    assert starting(all_improvements(episode(steps_of(*results))), "Same error") == ([line] if line else [])


@pytest.mark.parametrize(
    ("latencies", "line"),
    [
        ([100, 100, 100, 9_700], "Bottleneck: 'tool-3' took 9.7 s, 3.9 times the mean"),  # mean 2,500
        ([1, 1, 1, 1_000], None),  # not more than a second
        ([1, 1, 1, 1_001], "Bottleneck: 'tool-3' took 1.0 s, 4.0 times the mean"),
        ([0, 0, 0, 9_700], "Bottleneck: 'tool-3' took 9.7 s, 4.0 times the mean"),  # zero is a latency
        ([5_000, 0, 0], None),  # three times the mean is not more than that
        ([None, None, None, 9_700], None),  # unknown is not zero
        ([None, None], None),
        ([float("nan"), -1, float("inf"), 2_000], None),
        ([], None),
    ],
)
def test_a_step_far_slower_than_the_mean_is_a_bottleneck(latencies: list[float | None], line: str | None) -> None:
    slow = episode([step(OK, f"tool-{position}", latency_ms=latency) for position, latency in enumerate(latencies)])
    assert starting(all_improvements(slow), "Bottleneck") == ([line] if line else [])


@pytest.mark.parametrize(("tools", "tool"), [("aaaa", None), ("aaaaa", "a"), ("ababababab", "a"), ("bababababa", "b")])
def test_five_calls_of_a_tool_are_repetitive(tools: str, tool: str | None) -> None:
    lines = [line for line in all_improvements(episode(calls_of(*tools))) if "was called" in line]
    assert [line[:3] for line in lines] == ([f"'{tool}'"] if tool else [])


@pytest.mark.parametrize(
    ("tools", "start"),
    [
        ("aa", None),
        ("aaa", "Systematic trouble with 'a': all 3 failures"),
        ("aab", "Failures in 2 tools (a, b)"),
        ("dcba", "Failures in 4 tools (d, c, b, …)"),
    ],
)
def test_three_failures_have_one_cause_or_several(tools: str, start: str | None) -> None:
    lines = all_improvements(episode([step(BAD, tool) for tool in tools]))
    found = starting(lines, "Systematic") + starting(lines, "Failures in")
    assert [line.startswith(start or "?") for line in found] == ([True] if start else [])


@pytest.mark.parametrize(("tools", "parallel"), [("aaa", False), ("aabc", False), ("aaab", True), ("aabb", True)])
def test_neighbouring_calls_of_a_tool_might_run_in_parallel(tools: str, parallel: bool) -> None:
    assert bool(starting(all_improvements(episode(calls_of(*tools))), "Calls of the same tool")) is parallel


# --- insights --------------------------------------------------------------------------------------------------------


def test_insights_need_two_steps() -> None:
    assert all_insights(episode(steps_of(OK))) == []
    assert all_insights(episode(steps_of(OK, OK))) != []


@pytest.mark.parametrize(
    ("results", "line"),
    [
        ([OK, OK], "Reliable: all 2 steps succeeded"),
        ([OK, None], "Reliable: all 1 step with a result succeeded"),
        ([OK] * 4 + [BAD], "Mostly reliable: 4 of 5 steps succeeded (80%)"),
        ([OK] * 3 + [BAD], None),
        ([OK, BAD], None),
        ([OK, BAD, BAD], "Unreliable: only 1 of 3 steps succeeded (33%)"),
        ([OK, BAD, BAD, None], "Unreliable: only 1 of 3 steps with a result succeeded (33%)"),
        ([None, CUT], None),
    ],
)
def test_how_reliable_the_steps_were(results: list[StepResult | None], line: str | None) -> None:
    found = [shown for shown in all_insights(episode(steps_of(*results))) if "eliable" in shown]
    assert found == ([line] if line else [])


def test_a_recovery_names_the_remedy_and_the_error() -> None:
    recovered = episode(
        [step(OK, "a"), step(StepError("disk full"), "b"), step(OK, "c"), step(BAD, "d"), step(OK, "e")]
    )
    lines = all_insights(recovered)
    assert "Recovered from a failure with 'c'" in lines
    assert "Worth remembering: 'c' worked after 'b' failed: disk full" in lines


def test_the_same_tool_may_be_the_remedy() -> None:
    lines = all_insights(episode([step(LATE, "fetch"), step(OK, "fetch")]))
    assert "Worth remembering: 'fetch' failed, and worked when called again: timeout" in lines


@pytest.mark.parametrize("results", [[BAD, None, OK], [None, OK], [CUT, OK], [OK, BAD]])
def test_no_recovery_where_none_is_known(results: list[StepResult | None]) -> None:
    lines = all_insights(episode(steps_of(*results)))
    assert not starting(lines, "Recovered")
    assert not starting(lines, "Worth remembering")


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ("abcde", None),
        ("abcdef", "The task needed a broad set of tools (6)"),
        ("aaa", None),
        ("aaaa", "One tool, 'a', did all the steps: a candidate for automation"),
        ("aaab", None),
    ],
)
def test_many_tools_or_a_single_one(tools: str, line: str | None) -> None:
    lines = all_insights(episode(calls_of(*tools)))
    assert starting(lines, "The task needed") + starting(lines, "One tool") == ([line] if line else [])


@pytest.mark.parametrize(
    ("latencies", "lines"),
    [
        ([5_000, 5_000], []),
        ([5_000, 5_001], ["Slow steps: 5.0 s on average"]),
        ([None, 12_000], ["Slow steps: 12 s on average"]),
        ([None, None], []),
    ],
)
def test_more_than_five_seconds_a_step_are_slow(latencies: list[float | None], lines: list[str]) -> None:
    slow = episode([step(OK, latency_ms=latency) for latency in latencies])
    assert starting(all_insights(slow), "Slow steps") == lines


@pytest.mark.parametrize(
    ("complexity", "steps", "start"),
    [
        ("simple", 2, "Fewer"),
        ("simple", 3, None),
        ("simple", 10, None),
        ("simple", 11, "More"),
        ("moderate", 7, "Fewer"),
        ("moderate", 8, None),
        ("moderate", 30, None),
        ("moderate", 31, "More"),
        ("complex", 14, "Fewer"),
        ("complex", 15, None),
        ("complex", 60, None),
        ("complex", 61, "More"),
    ],
)
def test_steps_are_compared_with_what_the_complexity_suggests(
    complexity: Complexity, steps: int, start: str | None
) -> None:
    lines = [
        line.split()[0]
        for line in all_insights(episode(steps_of(*[OK] * steps), complexity=complexity))
        if "usually takes" in line
    ]
    assert lines == ([start] if start else [])


@pytest.mark.parametrize(
    ("results", "outcome", "seconds", "start"),
    [
        ([OK, OK], Success(), 119, "A strategy to repeat: a success rate of 100% in 1 min 59 s"),
        ([OK, OK], PartialSuccess(), 119, "A strategy to repeat"),
        ([OK, OK], Success(), 120, None),
        ([OK, OK], Failure(), 119, None),  # every step went well and the task failed: nothing to repeat
        ([OK] * 4 + [BAD], Success(), 1, None),  # .8 is not more than .8
        ([OK, BAD, BAD], Success(), 1, "Try another strategy next time: a success rate of 33% is low"),
        ([OK, BAD, BAD], Failure(), 9_999, "Try another strategy"),
        ([OK, BAD], Failure(), 1, None),
        ([OK, OK], Success(), None, None),
        ([None, None], Success(), 1, None),
    ],
)
def test_a_strategy_to_repeat_or_to_change(
    results: list[StepResult | None], outcome: TaskOutcome, seconds: float | None, start: str | None
) -> None:
    lines = [line for line in all_insights(episode(steps_of(*results), outcome, seconds=seconds)) if "strategy" in line]
    assert [line.startswith(start or "?") for line in lines] == ([True] if start else [])


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ("ab", "For similar tasks, start with a, b"),
        ("dcba", "For similar tasks, start with d, c, b"),
        ("abcdd", "For similar tasks, start with d, a, b"),
    ],
)
def test_a_success_advises_the_tools_that_worked_most(tools: str, line: str) -> None:
    assert all_insights(episode([*calls_of(*tools), step(BAD, "x")]))[-1] == line
    assert not starting(all_insights(episode(calls_of(*tools), PartialSuccess())), "For similar tasks")


# --- any episode -----------------------------------------------------------------------------------------------------


@given(episodes)
def test_every_reflection_is_short_and_on_one_line_and_the_same_twice(reflected: Episode) -> None:
    result = reflect(reflected)
    assert result == reflect(reflected)
    if isinstance(reflected.outcome, Interrupted):
        assert result is None
        return
    assert result is not None
    for lines in (result.successes, result.improvements, result.insights):
        assert len(lines) <= 5
        assert len(set(lines)) == len(lines)
        for line in lines:
            line.encode()  # no lone surrogate
            assert line == " ".join(line.split())
            assert 0 < len(line) < 400
