"""Which steps of an episode were choices."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stepwell.model.episode import Episode

# Whole words, so that "selector" or "undecidable" is no decision.
_STEMS = ("choos", "chose", "decid", "select", "opt")
_DECISION = re.compile(
    r"\b(?:choos(?:e|es|ing)|chose|chosen|decid(?:e|es|ed|ing)|select(?:s|ed|ing)?|opt(?:s|ed|ing)? for)\b"
)
_CHARACTERS = 1_000


def decision_places(episode: Episode) -> Iterator[int]:
    """The positions of the steps whose action speaks of a choice. The name of SQL's statement, alone, is none."""
    for position, step in enumerate(episode.steps):
        action = step.action[:_CHARACTERS].lower()
        # Most actions are no decision, and looking for a part is five times as fast as the expression.
        if any(stem in action for stem in _STEMS) and _DECISION.search(action) and action.strip() != "select":
            yield position
