"""What of a fact is searched, and which conversation it is part of.

Its metadata is not searched, but for two things that people ask by and that often stand there alone: when it was, and
who said it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from stepwell.learning.recall.dates import date_words, days, with_plain_dates

CONVERSATION_FIELDS = (
    "conversation",
    "conversation_id",
    "thread",
    "thread_id",
    "session",
    "session_id",
    "chat",
    "chat_id",
    "dialogue",
    "dialog",
    "document",
    "document_id",
)
"""Fields of the metadata that facts of one conversation share, all that are there."""
_SHARED = frozenset(CONVERSATION_FIELDS)
SPEAKER_FIELDS = ("speaker", "author")
"""Fields that say who said it; what has one is a turn, as what begins with `Ann: `."""
_TIME_FIELD = re.compile(
    r"(?i:(?:^|[_-])(?:date|time|datetime|timestamp|when|day|at)$)|[a-z](?:Date|Time|Timestamp|At)$"
)
# "Ann: …", "[8 May 2023] Ann Lee: …"
_TURN = re.compile(r"\s*(?:[\[(][^\])]{0,60}[\])]\s*)?\w[\w.'’-]{0,30}(?: \w[\w.'’-]{0,30}){0,2}: ")

Key: TypeAlias = tuple[Any, ...]


class Membership(NamedTuple):
    """`shared`: what the facts of its conversation share, None if it does not say. `is_turn`: something that somebody
    says; those next to each other, of the same `days`, are a conversation although none says so."""

    shared: Key | None
    is_turn: bool
    days: tuple[str, ...]


_NO_MEMBER = Membership(None, False, ())


def membership(text: str, metadata: Any) -> Membership:
    """Which conversation a fact is part of."""
    is_turn = _TURN.match(text) is not None
    if not isinstance(metadata, dict):
        return Membership(None, True, ()) if is_turn else _NO_MEMBER
    if not _SHARED.isdisjoint(metadata):
        shared = tuple(
            (name, metadata[name]) for name in CONVERSATION_FIELDS if name in metadata and _is_name(metadata[name])
        )
        if shared:
            return Membership(shared, False, ())
    if not (is_turn or any(isinstance(metadata.get(name), str) for name in SPEAKER_FIELDS)):
        return _NO_MEMBER
    return Membership(None, True, days(_times(metadata)))


def searched_text(text: str, metadata: Any, time_words: str = "") -> str:
    """What of a fact is searched; `time_words`: its time in words, if the writer gave one."""
    searched = with_plain_dates(text)
    if isinstance(metadata, dict):
        searched += _times(metadata)
        for name in SPEAKER_FIELDS:
            speaker = metadata.get(name)
            if isinstance(speaker, str) and not text.startswith(speaker):
                searched += f" {speaker[:100]}"
    return f"{searched} {time_words}" if time_words else searched


def _times(metadata: dict[str, Any]) -> str:
    return "".join(f" {date_words(value)}" for name, value in metadata.items() if _holds_time(name))


@lru_cache(maxsize=1024)
def _holds_time(name: str) -> bool:
    return _TIME_FIELD.search(name) is not None


def _is_name(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""
