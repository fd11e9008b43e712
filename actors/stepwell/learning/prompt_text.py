"""An episode told for the prompt of an agent that has a similar task."""

from __future__ import annotations

import json
from collections.abc import Iterator

from stepwell.learning.text import explained, name, shorten
from stepwell.model.episode import Episode
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success
from stepwell.model.step import EpisodeStep

TASK_CHARACTERS = 300
CALL_CHARACTERS = 300
MOST_WORKED, MOST_FAILED, MOST_LESSONS = 3, 2, 2
_ENDINGS = {
    Success: "solved",
    PartialSuccess: "solved in part",
    Failure: "failed",
    Abstained: "found infeasible",
    Interrupted: "interrupted",
}


def told_for_a_prompt(episode: Episode) -> str:
    """Its task, how it ended, the last calls that worked, the first errors, and lessons: about ten short lines. A pure
    function; nothing in an episode makes it fail."""
    return "\n   ".join(_lines(episode))


def _lines(episode: Episode) -> Iterator[str]:
    yield f"Task: {shorten(episode.task_description, TASK_CHARACTERS) or '(no description)'}"
    outcome = episode.outcome
    ending = "open" if outcome is None else _ENDINGS[type(outcome)]
    said = outcome.verdict if isinstance(outcome, Success | PartialSuccess) else getattr(outcome, "reason", "")
    yield explained(f"Outcome: {ending}", said, limit=TASK_CHARACTERS)
    worked = [step for step in episode.steps if step.succeeded]
    for step in worked[-MOST_WORKED:]:
        yield f"Worked: {_call(step)}"
    errors = dict.fromkeys(
        explained(f"Failed: {_call(step)}", step.error_text or "", limit=CALL_CHARACTERS)
        for step in episode.steps
        if step.failed
    )
    yield from list(errors)[:MOST_FAILED]
    if episode.reflection is not None:
        lessons = [*episode.reflection.insights, *episode.reflection.improvements]
        for lesson in lessons[:MOST_LESSONS]:
            yield f"Lesson: {shorten(lesson, CALL_CHARACTERS)}"


def _call(step: EpisodeStep) -> str:
    """A call with what it was called with: a single text is shown as it is."""
    values = list(step.parameters.values())
    if len(values) == 1 and isinstance(values[0], str):
        given = values[0]
    else:
        given = json.dumps(step.parameters, ensure_ascii=False, default=str) if values else ""
    called = explained(name(step.tool), step.action, limit=CALL_CHARACTERS)
    return f"{called} {shorten(given, CALL_CHARACTERS)}".rstrip()
