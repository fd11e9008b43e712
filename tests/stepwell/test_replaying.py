"""A recorded run serves its results in their order, and tells the first call that differs."""

from __future__ import annotations

import pytest

from stepwell import RecordedToolError, ReplayDiverged, ReplayedRun, events

RUN: list[events.RunEvent] = [
    events.Started("a"),
    events.LlmCall(9, 120, "p", "m"),
    events.ToolCall("search", {"q": "x"}, events.ToolOk([1])),
    events.Ops({"kind": "x"}),
    events.ToolCall("write", {"n": 1}, events.ToolErr("disk full")),
    events.SummaryCheckpoint(1, 2, 3, 4),
    events.LlmCall(7, 80),
    events.Completed(),
]


def test_what_is_done_again_in_the_same_order_gets_what_was_recorded() -> None:
    run = ReplayedRun(RUN)
    assert run.llm_call(provider="p", model="m") == RUN[1]
    assert run.tool("search", {"q": "x"}) == events.ToolOk([1])
    with pytest.raises(RecordedToolError, match="disk full"):
        run.tool_output("write", {"n": 1})
    assert run.summary() == RUN[5]
    assert run.left == [RUN[6]]
    assert run.llm_call(model="any, since none was recorded") == RUN[6]
    run.finish()


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (lambda run: run.tool("search", {"q": "y"}), r"event 2: .*\"q\":\"x\".* was recorded.*'q': 'y'"),
        (lambda run: run.tool("find", {"q": "x"}), "event 2: .*'find'"),
        (lambda run: run.tool("search", {"q": "x", "k": 1}), "event 2"),
        (lambda run: run.llm_call(), "event 2: .*a call of a model"),
        (lambda run: run.summary(), "event 2: .*a summary"),
        (lambda run: run.finish(), "event 2: .*the end"),
    ],
)
def test_the_first_divergence_is_told_and_told_again(attempt: object, told: str) -> None:
    run = ReplayedRun(RUN)
    run.llm_call()
    with pytest.raises(ReplayDiverged, match=told) as caught:
        attempt(run)  # type: ignore[operator]
    assert (caught.value.position, caught.value.recorded) == (2, RUN[2])
    with pytest.raises(ReplayDiverged) as again:
        run.tool("search", {"q": "x"})  # it would fit, but nothing is what it was any more
    assert again.value is caught.value is run.divergence
    with pytest.raises(ReplayDiverged):
        run.finish()


def test_another_model_is_a_divergence() -> None:
    with pytest.raises(ReplayDiverged, match="'other'"):
        ReplayedRun(RUN).llm_call(model="other")


def test_more_than_was_recorded_is_a_divergence() -> None:
    run = ReplayedRun(RUN[:2])
    run.llm_call()
    run.finish()
    with pytest.raises(ReplayDiverged, match="event 2: the run was over") as caught:
        run.tool("search", {"q": "x"})
    assert caught.value.recorded is None


def test_one_and_true_are_not_the_same_argument() -> None:
    run = ReplayedRun([events.ToolCall("t", {"n": 1}, events.ToolOk())])
    with pytest.raises(ReplayDiverged):
        run.tool("t", {"n": True})
