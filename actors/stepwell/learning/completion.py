"""What completing an episode works out of it, in the order in which every term can matter."""

from __future__ import annotations

import datetime as dt

from stepwell.learning.extraction import extract, lessons
from stepwell.learning.facts import facts_of
from stepwell.learning.quality import quality_of
from stepwell.learning.reflection import reflect
from stepwell.learning.reward import reward_of
from stepwell.learning.salience import salient_features
from stepwell.learning.summary import summarise
from stepwell.model.analysis import CompletionAnalysis
from stepwell.model.episode import Episode


def analyse_completion(episode: Episode, *, now: dt.datetime) -> CompletionAnalysis:
    """Everything that is worked out of an episode whose outcome and end time the caller has set.

    In this order: patterns, reflection, salient features, reward, quality, and the summary. The reference system takes
    quality first and patterns last, so that terms of each of the others are constant.

    A pure function: equal arguments give equal results, and `now` (aware UTC) is only noted as `created_at`. Nothing
    in an episode makes it fail. An interrupted episode gets a summary and salient features, and nothing that judges it.
    """
    facts = facts_of(episode)
    patterns = lessons(extract(episode))
    reflection = reflect(episode, patterns=patterns, facts=facts)
    return CompletionAnalysis(
        reward=reward_of(episode, patterns=patterns, facts=facts),
        reflection=reflection,
        summary=summarise(episode, facts=facts),
        quality=quality_of(episode, facts, reflection, patterns),
        salient_features=salient_features(episode, facts, reflection),
        created_at=now,
    )
