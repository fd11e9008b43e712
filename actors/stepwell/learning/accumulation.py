"""Patterns over many episodes: counts that add up, in any order, and come apart again when an episode is deleted."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell.learning.extraction import counts_of, domain_of, ended_ns, extract, success_of
from stepwell.learning.intervals import recency, success_interval
from stepwell.learning.wording import pattern_text
from stepwell.model.episode import Episode
from stepwell.model.event import utc
from stepwell.model.pattern import WARNINGS, WHOLE, Counts, Interval, Pattern, PatternContent, kind_of, pattern_id


class Accumulation:
    """What is known of every pattern, as plain data: the sum of what its episodes show.

    It is what the learner's tables hold, without the tables. Each episode counts once; `add` of one that is in it
    changes nothing, `remove` takes out exactly what `add` put in, and two of them with different episodes merge.
    """

    def __init__(self, episodes: Iterable[Episode] = ()):
        self._shown: dict[str, dict[tuple[str, PatternContent], Counts]] = {}
        for episode in episodes:
            self.add(episode)

    def add(self, episode: Episode) -> None:
        """Count an ended episode."""
        if episode.end_time is None or episode.episode_id in self._shown:
            return
        success = success_of(episode.outcome)
        at, domain = ended_ns(episode), domain_of(episode.context)
        self._shown[episode.episode_id] = {(domain, it.content): counts_of(it, success, at) for it in extract(episode)}

    def remove(self, episode_id: str) -> None:
        """Forget an episode and everything it showed."""
        self._shown.pop(episode_id, None)

    def merge(self, other: Accumulation) -> None:
        """Take over the episodes of another one that are not in this one."""
        self._shown = {**other._shown, **self._shown}

    def counts(self) -> dict[str, Counts]:
        """The counts of every pattern by its id."""
        found: dict[tuple[str, PatternContent], Counts] = {}
        for shown in self._shown.values():
            for key, counts in shown.items():
                found[key] = found.get(key, Counts()) + counts
        return {pattern_id(*key): counts for key, counts in found.items()}


def pattern_of(domain: str, content: PatternContent, counts: Counts, now_ns: int) -> Pattern:
    """A pattern with what its counts say at a time."""
    interval = success_interval(counts.wins, counts.trials)
    kind = kind_of(content)
    return Pattern(
        pattern_id=pattern_id(domain, content),
        kind=kind,
        domain=domain,
        content=content,
        text=pattern_text(content),
        episodes=counts.episodes,
        occurrences=counts.occurrences,
        ok=counts.ok,
        failed=counts.failed,
        trials=counts.trials,
        success=counts.wins / WHOLE / counts.trials if counts.trials else None,
        interval=interval,
        confidence=confidence(kind in WARNINGS, interval),
        recency=recency(counts.last_ns, now_ns),
        first_seen=None if counts.first_ns is None else utc(counts.first_ns),
        last_seen=None if counts.last_ns is None else utc(counts.last_ns),
    )


def confidence(is_warning: bool, interval: Interval) -> float:
    """What is believed of a pattern at least: of a warning the lower bound of failure, else that of success."""
    return 1.0 - interval.high if is_warning else interval.low
