"""Episodes that are relevant to a task, with what their scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import msgspec

from stepwell.learning.prompt_text import told_for_a_prompt
from stepwell.model.episode import Episode
from stepwell.model.ids import EpisodeId

RankedBy: TypeAlias = Literal["lexical", "semantic", "hybrid"]


class ScorePart(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for a score. `value` is how well the episode does, from 0 to 1, `weight` what that counts, and
    `points` what it adds to the score; `words` says it to a person."""

    name: str
    value: float
    weight: float
    points: float
    words: str


class ScoredEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode and how relevant it is: `score` from 0 to 1, the sum of the points of its `parts`."""

    episode_id: EpisodeId
    score: float
    parts: list[ScorePart]
    episode: Episode

    @property
    def why(self) -> str:
        """The score in words, the largest part first."""
        parts = sorted(self.parts, key=lambda part: -part.points)
        return "; ".join(f"{part.points:.2f} {part.words}" for part in parts if part.points >= 0.005)

    def to_text(self, *, max_tokens: int = 1_000) -> str:
        """The episode as text for a prompt: as many of its lines, from the first, as fit, counted as four characters a
        token. "" if not even the first fits. Of all that were found: `RelevantEpisodes.to_text`."""
        text = told_for_a_prompt(self.episode)
        while tokens_of(text) > max_tokens:
            text = text.rpartition("\n")[0]
            if not text:
                break
        return text


class RelevantEpisodes(list[ScoredEpisode]):
    """The answer to `retrieve_relevant_context`: a list, best first.

    `ranked_by`: by shared words ("lexical"), by the vectors of the embedder ("semantic"), or by both ("hybrid").
    `why_empty` says why there is nothing, and is "" otherwise. `note`: what could not be done, "" if nothing.
    """

    def __init__(
        self,
        found: Iterable[ScoredEpisode] = (),
        *,
        ranked_by: RankedBy = "lexical",
        why_empty: str = "",
        note: str = "",
        told: Callable[[ScoredEpisode], str] | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ):
        super().__init__(found)
        self.ranked_by, self.why_empty, self.note = ranked_by, why_empty, note
        self._told, self._count_tokens = told or str, count_tokens or tokens_of

    def to_text(self, *, max_tokens: int = 1_000) -> str:
        """The episodes as text for a prompt, best first: as many whole ones as fit, counted as four characters a token.
        "" if there is none, or not even the first fits."""
        told: list[str] = []
        room = max_tokens
        for place, hit in enumerate(self, 1):
            text = f"{place}. {self._told(hit)}"
            room -= self._count_tokens(text + "\n\n")
            if room < 0:
                break
            told.append(text)
        return "\n\n".join(told)


def tokens_of(text: str) -> int:
    """About how many tokens a text is: four characters each, rounded up."""
    return -(-len(text) // 4)
