"""The demo's checker objects to every way in which a memory could break its promise."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from stepwell import EpisodeStep, ExecutionStep, StepError, StepSuccess
from stepwell.cli.demo.ledger import Ledger, Recovered, RecoveredEpisode, Verdict, acknowledgement, step_digest

STEPS = [Recovered(seq, seq - 1, f"digest-{seq}") for seq in range(2, 7)]


def ledger() -> Ledger:
    """Four of five steps of one episode were acknowledged; another episode ended."""
    taken = Ledger()
    taken.take(acknowledgement("started", "a"))
    for step in STEPS[:4]:
        taken.take(acknowledgement("step", "a", step.seq, step.digest))
    taken.take(acknowledgement("started", "b"))
    taken.take(acknowledgement("ended", "b", "success"))
    return taken


def compare(steps: list[Recovered], *, ended: str | None = "success") -> Verdict:
    return ledger().compare({"a": RecoveredEpisode(steps, None), "b": RecoveredEpisode([], ended)})


def test_all_is_well() -> None:
    verdict = compare(STEPS)
    assert verdict.ok
    assert (verdict.acknowledged, verdict.recovered, verdict.beyond) == (4, 5, 1)
    assert compare(STEPS[:4]).beyond == 0


@pytest.mark.parametrize("seq", [2, 3, 4, 5])
def test_a_missing_step(seq: int) -> None:
    verdict = compare([step for step in STEPS[:4] if step.seq != seq])
    assert verdict.missing == [f"a seq {seq}"]
    assert not verdict.ok


def test_a_changed_step() -> None:
    verdict = compare([STEPS[0], STEPS[1]._replace(digest="other"), *STEPS[2:]])
    assert verdict.changed == ["a seq 3"]
    assert not verdict.ok


def test_a_step_stored_twice() -> None:
    again = STEPS[1]._replace(seq=7)
    verdict = compare([*STEPS, again])
    assert verdict.duplicated == ["a step 2", "a content digest-3"]
    assert not verdict.ok
    assert not compare([*STEPS, STEPS[4]]).ok


def test_steps_out_of_order() -> None:
    swapped = [STEPS[1]._replace(seq=2), STEPS[0]._replace(seq=3), *STEPS[2:]]
    assert len(compare(swapped).out_of_order) == 1
    assert len(compare([STEPS[1], STEPS[0], *STEPS[2:]]).out_of_order) == 1


def test_a_gap_behind_what_was_acknowledged() -> None:
    verdict = compare([*STEPS[:4], Recovered(6, 6, "digest-7")])
    assert not verdict.missing
    assert verdict.out_of_order
    assert not verdict.ok


def test_a_lost_episode_and_a_lost_ending() -> None:
    verdict = ledger().compare({"a": RecoveredEpisode(STEPS, None)})
    assert verdict.lost_episodes == ["b"]
    assert not verdict.ok
    for ended in (None, "failure"):
        assert compare(STEPS, ended=ended).lost_endings == ["b"]
        assert not compare(STEPS, ended=ended).ok


def test_two_acknowledgements_that_contradict_each_other() -> None:
    taken = ledger()
    taken.take(acknowledgement("step", "a", 2, "another"))
    verdict = taken.compare({"a": RecoveredEpisode(STEPS, None), "b": RecoveredEpisode([], "success")})
    assert not verdict.ok


def test_the_digest_sees_every_field() -> None:
    logged = ExecutionStep("tool", "action", {"a": [1, 2.5]}, StepSuccess({"x": 1}), 3.25, thought="why", step_number=4)
    stored = EpisodeStep(
        seq=5,
        step_number=4,
        timestamp=dt.datetime.now(dt.UTC),
        time_ns=0,
        tool="tool",
        action="action",
        parameters={"a": [1, 2.5]},
        result=StepSuccess({"x": 1}),
        latency_ms=3.25,
        tokens_used=None,
        reward=None,
        thought="why",
        metadata={},
        key=None,
    )
    assert step_digest(logged) == step_digest(stored)
    for name, other in {
        "tool": "t",
        "action": "other",
        "parameters": {"a": [1, 2]},
        "result": StepError("x"),
        "latency_ms": 3.0,
        "thought": None,
        "step_number": 5,
    }.items():
        assert step_digest(msgspec.structs.replace(stored, **{name: other})) != step_digest(logged), name
