"""What completing an episode works out of it, in the order in which an ending needs it."""

from __future__ import annotations

import datetime as dt

from stepwell.learning.facts import facts_of
from stepwell.learning.reflection import reflect
from stepwell.learning.reward import reward_of
from stepwell.learning.summary import summarise
from stepwell.model.analysis import CompletionAnalysis
from stepwell.model.episode import Episode


def analyse_completion(episode: Episode, *, now: dt.datetime) -> CompletionAnalysis:
    """Reward, reflection and summary of an episode whose outcome and end time the caller has set.

    A pure function: equal arguments give equal results, and `now` (aware UTC) is only noted as `created_at`. Nothing
    in an episode makes it fail. An interrupted episode gets a summary and neither reward nor reflection.
    """
    facts = facts_of(episode)
    return CompletionAnalysis(
        reward=reward_of(episode, facts=facts),
        reflection=reflect(episode, facts=facts),
        summary=summarise(episode, facts=facts),
        created_at=now,
    )
