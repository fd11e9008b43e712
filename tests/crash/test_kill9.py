"""The checker of the kill -9 rounds objects to each thing that can be wrong; a short run passes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from stepwell import Episode, EpisodeStep, StepSuccess, TaskContext
from tests.crash import kill9

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def recovered(numbers: list[int], name: str = "e") -> Episode:
    steps = []
    for place, number in enumerate(numbers):
        sent = kill9.step_of(name, number)
        steps.append(
            EpisodeStep(
                seq=place + 2,
                step_number=place + 1,
                timestamp=NOW,
                time_ns=0,
                tool=sent.tool,
                action=sent.action,
                parameters=sent.parameters,
                result=sent.result,
                latency_ms=None,
                tokens_used=None,
                reward=None,
                thought=None,
                metadata={},
                key=None,
            )
        )
    return Episode(
        episode_id=name,
        task_description="t",
        task_type="other",
        context=TaskContext(),
        agent="",
        start_time=NOW,
        last_seq=len(steps) + 1,
        steps=steps,
    )


def changed(episode: Episode, place: int, **fields: Any) -> Episode:
    steps = list(episode.steps)
    steps[place] = msgspec.structs.replace(steps[place], **fields)
    return msgspec.structs.replace(episode, steps=steps)


def test_acknowledged_and_recovered_alike_is_sound() -> None:
    assert kill9.check({"e": 3}, [recovered([0, 1, 2])]).sound
    assert kill9.check({"e": 3}, [recovered([0, 1, 2, 3, 4])]).sound  # accepted, not acknowledged: may be there


@pytest.mark.parametrize(
    ("acknowledged", "episodes", "complaint"),
    [
        ({"e": 3}, [recovered([0, 1])], "lost"),
        ({"e": 3}, [], "lost"),
        ({"e": 3}, [recovered([0, 1, 1, 2])], "duplicated"),
        ({"e": 3}, [recovered([0, 2, 1])], "out_of_order"),
        ({"e": 3}, [recovered([0, 1, 2, 4])], "invented"),
        ({"e": 3}, [changed(recovered([0, 1, 2]), 1, result=StepSuccess("other"))], "invented"),
        ({"e": 3}, [changed(recovered([0, 1, 2]), 1, parameters={"n": 77})], "lost"),
    ],
)
def test_the_checker_objects(acknowledged: dict[str, int], episodes: list[Episode], complaint: str) -> None:
    assert getattr(kill9.check(acknowledged, episodes), complaint)


def test_two_rounds_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert kill9.main(["--rounds", "2", "--seed", "7"]) == 0
    assert "0 acknowledged steps lost" in capsys.readouterr().out
