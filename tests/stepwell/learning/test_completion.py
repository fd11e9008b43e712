"""What completing an episode works out of it, all together."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given

from stepwell.learning import analyse_completion
from stepwell.learning.facts import facts_of
from stepwell.learning.quality import quality_of
from stepwell.learning.reflection import reflect
from stepwell.learning.reward import reward_of
from stepwell.learning.salience import salient_features
from stepwell.learning.summary import summarise
from stepwell.model.analysis import FORMULA_VERSION, CompletionAnalysis
from stepwell.model.episode import Episode
from stepwell.model.outcome import Failure, Interrupted, Success
from stepwell.model.step import StepError, StepTimeout
from tests.stepwell.learning.builders import BAD, OK, START, calls_of, episode, step, steps_of
from tests.stepwell.learning.strategies import episodes

NOW = START + dt.timedelta(hours=1)


def test_patterns_are_found_first_so_that_every_other_term_can_count_them() -> None:
    ended = episode(steps_of(OK, BAD, OK), Success("done"))
    analysis = analyse_completion(ended, now=NOW)
    facts, reflection = facts_of(ended), reflect(ended, patterns=1)
    assert analysis == CompletionAnalysis(
        reward=reward_of(ended, patterns=1),  # one recovery
        reflection=reflection,
        summary=summarise(ended),
        quality=quality_of(ended, facts, reflection, patterns=1),
        salient_features=salient_features(ended, facts, reflection),
        formula_version=FORMULA_VERSION,
        created_at=NOW,
    )
    assert analysis.reward is not None
    assert analysis.quality is not None
    assert (analysis.quality.reflection, analysis.quality.novelty) == (0.8, 0.5)


def test_an_interrupted_episode_is_not_judged() -> None:
    analysis = analyse_completion(episode(steps_of(OK, BAD), Interrupted("SIGTERM")), now=NOW)
    assert analysis.reward is None
    assert analysis.reflection is None
    assert analysis.quality is None
    assert analysis.summary.summary_text.endswith("Interrupted (cancelled): SIGTERM.")


@pytest.mark.parametrize(
    "text", ["\0" * (1 << 20), "🏳️\u200d🌈e\u0301\n" * (1 << 16), " " * (1 << 20) + "x", "ß" * (1 << 20)]
)
def test_megabytes_of_text_are_quoted_shortly(text: str) -> None:
    steps = [
        step(result, text, action=text) for result in (StepError(text), StepTimeout(text), OK, StepError(text), OK)
    ]
    run = episode(steps, Failure(text), language=text, domain=text, tags=[text], description=text, task_type=text)
    assert len(msgspec.json.encode(analyse_completion(run, now=NOW))) < 20_000


def test_no_order_of_a_set_shows_in_the_result() -> None:
    # Text hashes differ between processes with different seeds; results must not.
    code = (
        "import datetime as dt, msgspec\n"
        "from stepwell.learning import analyse_completion\n"
        "from tests.stepwell.learning.builders import START, BAD, calls_of, episode, step\n"
        "steps = [*calls_of(*'qwertyuiop'), *[step(BAD, tool) for tool in 'zxcvbnmzxcvbnm']]\n"
        "run = episode(steps, description='alpha beta gamma delta epsilon zeta', tags=['x', 'y'])\n"
        "print(msgspec.json.encode(analyse_completion(run, now=START)).decode())\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(printed) == 1
    assert json.loads(printed.pop())["reward"]["base"] == 1.0


def test_the_episode_is_left_as_it_was() -> None:
    run = episode(calls_of("a", "b", "c"), tags=["x"], metadata={"test_coverage": "90"})
    before = msgspec.json.encode(run)
    analyse_completion(run, now=NOW)
    assert msgspec.json.encode(run) == before


@given(episodes)
def test_any_episode_can_be_completed_and_its_analysis_be_stored(run: Episode) -> None:
    analysis = analyse_completion(run, now=NOW)
    assert analysis == analyse_completion(run, now=NOW)
    assert (analysis.reward is None) is (analysis.reflection is None) is isinstance(run.outcome, Interrupted)
    assert msgspec.json.decode(msgspec.json.encode(analysis), type=CompletionAnalysis) == analysis
