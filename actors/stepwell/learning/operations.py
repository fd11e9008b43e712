"""By what steps of different episodes are the same: the operation they are, the error they failed with, the call."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from stepwell.learning.text import clean, shorten
from stepwell.model.step import EpisodeStep

OPERATION_CHARACTERS = 64
WORD_CHARACTERS = 24
ERROR_CHARACTERS = 160
NAME_CHARACTERS = 64
SCANNED_CHARACTERS = 2_000
_IDENTITY_CHARACTERS = 256
_PARAMETERS_SHOWN = 4

_WORD = re.compile(rf"\s*([^\W\d_]{{1,{WORD_CHARACTERS}}})(?!\w)")
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"|`([^`\n]*)`")
_NUMBER = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b0x[0-9a-fA-F]+\b|(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)"
)
_TRACEBACK = "Traceback (most recent call last)"
ANYTHING = "'…'"
"""Stands for a quoted text that is no name."""
NO_TEXT = "(no message)"


def operation_of(step: EpisodeStep) -> str:
    """What a step does: its tool, and the first word of its action where that is a word.

    Many agents have one tool for everything (`bash`, `mysql`), whose name alone says nothing of what was done.
    """
    return _operation(step.tool[:_IDENTITY_CHARACTERS], step.action[:_IDENTITY_CHARACTERS])


@lru_cache(maxsize=4_096)
def _operation(tool: str, action: str) -> str:
    shown = shorten(tool, OPERATION_CHARACTERS - WORD_CHARACTERS - 1) or "(unnamed)"
    word = _first_word(action)
    return f"{shown} {word.lower()}" if word else shown


def _first_word(action: str) -> str:
    """The word that an action begins with, "" if it is none."""
    if action.isascii():
        found = _WORD.match(action)
        return "" if found is None else found[1]
    # To a pattern marks are no letters, but in many scripts they are vowels; and accents may be written apart.
    text = unicodedata.normalize("NFC", action).lstrip()
    end = 0
    while end < len(text) and (text[end].isalpha() or (end and unicodedata.category(text[end])[0] == "M")):
        end += 1
    behind = text[end : end + 1]
    return text[:end] if end <= WORD_CHARACTERS and not (behind.isalnum() or behind == "_") else ""


def error_of(text: str) -> str:
    """An error text as its kind: numbers, addresses and identifiers become #, quoted text that is no name `'…'`.

    Of a traceback only the last line counts. Names are kept: that it is the table `countries` that does not exist is
    the lesson.
    """
    window = text[:SCANNED_CHARACTERS]
    if _TRACEBACK in window:
        window = text[-SCANNED_CHARACTERS:].rstrip().rpartition("\n")[2]
    return _error(window)


@lru_cache(maxsize=2_048)
def _error(window: str) -> str:
    masked = _QUOTED.sub(_quoted_name, window)
    return shorten(_NUMBER.sub("#", masked), ERROR_CHARACTERS) or NO_TEXT


@lru_cache(maxsize=2_048)
def general_error(error: str) -> str:
    """The same without names: `Table '…' doesn't exist`. It is the lesson for names that were never seen."""
    return _QUOTED.sub(ANYTHING, error)


def _quoted_name(found: re.Match[str]) -> str:
    text = found[1] or found[2] or found[3] or ""
    is_name = 0 < len(text) <= NAME_CHARACTERS and not any(map(str.isspace, text)) and not text.isdigit()
    return f"'{text}'" if is_name else ANYTHING


def same_call(one: EpisodeStep, other: EpisodeStep) -> bool:
    """Whether two steps called the same tool with the same words and parameters."""
    return one.tool == other.tool and one.action == other.action and one.parameters == other.parameters


def call_text(step: EpisodeStep, limit: int = 240) -> str:
    """What was called, for a person: its only parameter where that is a text (a command, a query), else what it was
    called for and its parameters."""
    parameters = list(step.parameters.items())[:_PARAMETERS_SHOWN]
    if len(parameters) == 1 and isinstance(parameters[0][1], str) and shorten(parameters[0][1], 8):
        return shorten(parameters[0][1], limit)
    called = shorten(step.action, limit) or shorten(step.tool, limit)
    fields = ", ".join(
        f"{name}={value if isinstance(value, str) else repr(value)}"[:limit] for name, value in parameters
    )
    return shorten(f"{called} ({fields})", limit) if fields else called


def sentence_of(action: str, limit: int) -> str:
    """An action as text to compare by: one line, numbers as #."""
    return shorten(_NUMBER.sub("#", clean(action[: limit * 8])), limit)
