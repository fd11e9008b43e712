"""The reflection on an episode: what went well, what to do better, what was noticed."""

from __future__ import annotations

from itertools import islice

from stepwell.learning.facts import Facts, facts_of
from stepwell.learning.improvements import improvements
from stepwell.learning.insights import insights
from stepwell.learning.successes import successes
from stepwell.model.analysis import Reflection
from stepwell.model.episode import Episode
from stepwell.model.outcome import Interrupted

MOST_LINES = 5
"""Longest list of a reflection. Basic lines come before advanced ones, so that these are cut first."""


def reflect(episode: Episode, *, patterns: int = 0, facts: Facts | None = None) -> Reflection | None:
    """The reflection on an episode whose outcome and end time are set; None if it was interrupted.

    `patterns` is how many patterns it showed that say what to do (`extraction.lessons`); `facts` are those of the same
    episode, if they are at hand.

    Conditions, numbers and order are those of the reference system (section 1.6). The wording is our own, and these
    things differ, each for a reason:

    - A step without a result, or an interrupted one, is unknown and not failed: rates are over known steps.
    - Among equals the one that appeared first is named, and the tools to start with are the three that succeeded most
      often. The reference system takes both in the order of a hash table, which changes from run to run.
    - Finishing quickly is a success, and a strategy worth repeating, only if the task was done at least in part.
    - Few tokens are listed as a success, not as something to improve.
    - A step without a latency is left out of the mean. "Less than half the expected steps" is exact: half of 5 is 2.5.
    - The same timeout twice is the same error twice; an error without visible text is never "the same error".
    - The line about recovery names the failure and the remedy, since it is the part worth keeping. The line with the
      number of patterns stands only where there is no recovery to name; the reference system never has it, extracting
      patterns only afterwards.
    - Calling again unchanged what has just failed is named among the improvements: real agents do it in every fourth
      step.
    """
    if isinstance(episode.outcome, Interrupted):
        return None
    facts = facts or facts_of(episode)
    return Reflection(
        successes=list(islice(successes(episode, facts), MOST_LINES)),
        improvements=list(islice(improvements(episode, facts), MOST_LINES)),
        insights=list(islice(insights(episode, facts, patterns), MOST_LINES)),
    )
