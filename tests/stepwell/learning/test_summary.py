"""The summary of an episode (reference system, section 1.9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.summary import summarise
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import StepError, StepResult, StepTimeout
from tests.stepwell.learning.builders import BAD, CUT, LATE, OK, calls_of, episode, step, steps_of
from tests.stepwell.learning.strategies import episodes, texts


def numbers(summarised: Episode) -> list[int]:
    """The numbers of the key steps."""
    return [int(told.split()[1].rstrip(":")) for told in summarise(summarised).key_steps]


def test_a_debugging_session_reads_well() -> None:
    session = episode(
        [
            step(OK, "grep", action="find the test", step_number=1),
            step(StepError("AssertionError:\n  500 != 200"), "pytest", action="run it", step_number=2),
            step(OK, "edit", action="decide to wait longer", step_number=3),
            step(None, "ls", step_number=4),
            step(OK, "pytest", action="run it", step_number=5),
        ],
        Success("all green.", ["fix.patch", "log.txt"]),
        seconds=80,
        description="Repair the login form",
        language="python",
        framework="django",
        domain="web",
    )
    summary = summarise(session)
    assert summary.key_steps == [
        "Step 1: grep – find the test",
        "Step 2: pytest – run it (failed: AssertionError: 500 != 200)",
        "Step 3: edit – decide to wait longer",
        "Step 5: pytest – run it",
    ]
    assert summary.summary_text == (
        "Task: Repair the login form. Context: python, django, web. "
        "5 steps: 3 succeeded, 1 failed, 1 without a result, in 1 min 20 s. "
        f"Key steps: {'; '.join(summary.key_steps)}. "
        "Decision: decide to wait longer. Recovery: 'edit' worked after 'pytest' failed. "
        "Produced: fix.patch, log.txt. Ended in success: all green."
    )
    assert summary.key_concepts == [
        "python", "django", "web", "debugging", "repair", "login", "form", "pytest", "grep", "edit", "ls",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (None, "Not ended yet."),
        (Success(), "Ended in success."),
        (Success("good!"), "Ended in success: good!"),
        (PartialSuccess("half"), "Ended in partial success: half."),
        (PartialSuccess("half", ["a"], ["b", "c"]), "Ended in partial success, with 1 done and 2 failed: half."),
        (PartialSuccess("", ["a"]), "Ended in partial success, with 1 done and 0 failed."),
        (Failure("no network"), "Ended in failure: no network."),
        (Abstained("no access", 4), "Abstained at step 4: no access."),
        (Abstained("no access"), "Abstained: no access."),
        (Abstained("no access", 10**5000), "Abstained at step (a huge number): no access."),
        (Interrupted("SIGINT"), "Interrupted (cancelled): SIGINT."),
        (Interrupted("", "abandoned"), "Interrupted (abandoned)."),
    ],
)
def test_every_outcome_is_told(outcome: TaskOutcome | None, ending: str) -> None:
    text = summarise(episode([], outcome, seconds=5)).summary_text
    assert text == f"Task: Repair the login form. No steps, in 5.0 s. {ending}"


def test_five_artifacts_are_named() -> None:
    text = summarise(episode([], Success("", [*"abcdef"]))).summary_text
    assert "Produced: a, b, c, d, e, …" in text


def test_the_domain_general_is_no_context() -> None:
    assert "Context" not in summarise(episode(domain="general")).summary_text
    assert "Context: web." in summarise(episode(domain="web")).summary_text


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (OK, "Step 1: tool"),
        (StepError("disk full"), "Step 1: tool (failed: disk full)"),
        (StepError(""), "Step 1: tool (failed)"),
        (LATE, "Step 1: tool (timed out)"),
        (StepTimeout("after 5 s"), "Step 1: tool (timed out: after 5 s)"),
        (CUT, "Step 1: tool (interrupted)"),
        (None, "Step 1: tool (no result)"),
    ],
)
def test_a_step_is_told_with_its_result(result: StepResult | None, told: str) -> None:
    assert summarise(episode(steps_of(result))).key_steps == [told]


@pytest.mark.parametrize(
    ("results", "key_steps"),
    [
        ([], []),
        ([OK], [1]),
        ([BAD], [1]),
        ([OK] * 2, [1, 2]),
        ([OK] * 9, [1, 9]),
        ([None] * 9, [1, 9]),  # unknown steps are not failures
        ([OK, CUT, OK, BAD, OK], [1, 4, 5]),
        ([BAD] * 9, [1, 2, 3, 4, 9]),  # the last one keeps its place
        ([OK, OK, *[BAD] * 6, OK], [1, 3, 4, 5, 9]),
    ],
)
def test_first_failed_and_last_steps_are_key_steps(results: list[StepResult | None], key_steps: list[int]) -> None:
    assert numbers(episode(steps_of(*results))) == key_steps


@pytest.mark.parametrize(
    ("action", "decision"),
    [
        ("Choose a library", True),
        ("we decided on trio", True),
        ("selecting rows", True),
        ("opt for retries", True),
        ("CHOSE the second", True),
        ("write the selector", False),
        ("option parsing", False),
        ("undecided", False),
        ("look at it", False),
        ("x" * 10_000 + " decide", False),  # a decision far into a text is not looked for
    ],
)
def test_a_choice_makes_a_key_step(action: str, decision: bool) -> None:
    steps = [*steps_of(OK, OK), step(OK, action=action, step_number=3), step(OK, step_number=4)]
    summarised = episode(steps)
    assert (3 in numbers(summarised)) is decision
    assert ("Decision:" in summarise(summarised).summary_text) is decision


def test_failed_steps_go_before_decisions() -> None:
    steps = [step(OK, action="decide", step_number=number) for number in range(1, 8)]
    failed = [step(BAD, step_number=number) for number in range(8, 10)]
    assert numbers(episode([*steps, *failed, step(OK, step_number=10)])) == [1, 2, 8, 9, 10]


def test_more_than_two_hundred_words_are_cut_before_the_outcome() -> None:
    long = "so " * 70
    steps = [step(StepError(long), "tool " * 8, action=long, step_number=number) for number in range(1, 10)]
    text = summarise(episode(steps, Failure("the very end"), description="so " * 300)).summary_text
    assert len(text.split()) == 200
    assert text.endswith("… Ended in failure: the very end.")
    assert text.startswith("Task: so so so")


def test_a_long_description_leaves_room_for_the_rest() -> None:
    text = summarise(episode(steps_of(OK, BAD), Failure("no"), description="word " * 2_000)).summary_text
    assert "Key steps: Step 1" in text
    assert text.endswith("Ended in failure: no.")


def test_a_script_without_blanks_is_cut_by_characters() -> None:
    text = summarise(episode(description="数据库迁移" * 2_000)).summary_text
    assert len(text) < 1_000


# --- key concepts ----------------------------------------------------------------------------------------------------


def concepts(description: str, **context: object) -> list[str]:
    return summarise(episode(description=description, task_type="", **context)).key_concepts  # type: ignore[arg-type]


def test_words_are_ranked_by_mentions_and_then_by_appearance() -> None:
    assert concepts("zebra apple zebra, mango (apple) zebra!") == ["zebra", "apple", "mango"]


def test_the_end_of_the_alphabet_is_not_lost() -> None:
    words = [f"word{letter}" for letter in "zyxwvutsrqponmlkjihgfedcba"]
    assert concepts(" ".join(words)) == words[:20]


def test_short_words_and_stop_words_are_no_concepts() -> None:
    assert concepts("Fix the bug that this code with them would have: cache") == ["code", "cache"]


def test_labels_come_before_words_mentioned_less_than_three_times() -> None:
    found = concepts(
        "parser parser lexer lexer lexer lexer", language="Python", framework="Trio", domain="ci", tags=["io"]
    )
    assert found == ["lexer", "python", "trio", "ci", "io", "parser"]


def test_a_label_that_is_given_twice_counts_once() -> None:
    assert concepts("cache cache cache cache", language="python", tags=["Python", "python "]) == ["cache", "python"]


def test_the_domain_general_is_no_concept() -> None:
    assert concepts("cache", domain="general") == ["cache"]


def test_a_tool_counts_once_however_often_it_was_called() -> None:
    run = episode(calls_of(*["ls"] * 50, "GREP"), description="cache the parser", task_type="testing")
    assert summarise(run).key_concepts == ["testing", "cache", "parser", "ls", "grep"]


def test_the_tools_called_most_are_concepts() -> None:
    run = episode(calls_of(*[f"tool{n}" for n in range(30)], "tool29"), description="", task_type="")
    assert summarise(run).key_concepts == ["tool29", *[f"tool{n}" for n in range(19)]]


def test_marks_at_the_end_of_a_word_are_part_of_it() -> None:
    assert concepts("हिन्दी, cafe\u0301s naive\u0301!") == ["हिन्दी", "cafe\u0301s", "naive\u0301"]


def test_a_thousand_tools_give_twenty_concepts() -> None:
    run = episode(calls_of(*[f"tool{n}" for n in range(1_000)]))
    assert len(summarise(run).key_concepts) == 20


# --- any episode -----------------------------------------------------------------------------------------------------


@given(episodes)
def test_every_summary_is_within_its_bounds_and_the_same_twice(summarised: Episode) -> None:
    summary = summarise(summarised)
    assert summary == summarise(summarised)
    assert len(summary.summary_text.split()) <= 200
    assert len(summary.summary_text) <= 4_000
    assert len(summary.key_concepts) <= 20
    assert len(set(summary.key_concepts)) == len(summary.key_concepts)
    assert len(summary.key_steps) == min(len(summarised.steps), len(summary.key_steps)) <= 5
    assert bool(summary.key_steps) is bool(summarised.steps)
    for text in (summary.summary_text, *summary.key_concepts, *summary.key_steps):
        text.encode()  # no lone surrogate
        assert text == " ".join(text.split())
        assert text
        assert "\0" not in text


@given(texts, st.integers(min_value=0, max_value=3))
def test_the_outcome_is_always_told_in_the_end(description: str, steps: int) -> None:
    run = episode([step(BAD, description, action=description)] * steps, Failure("out of luck"), description=description)
    assert summarise(run).summary_text.endswith(" Ended in failure: out of luck.")
