"""The words that matter most in an episode."""

from __future__ import annotations

import unicodedata
from collections import Counter

from stepwell.learning.facts import Facts
from stepwell.learning.text import NAME_CHARACTERS, clean, shorten
from stepwell.model.episode import Episode

MOST_CONCEPTS = 20
MIN_WORD_CHARACTERS = 4
LABEL_WEIGHT = 3
"""How many mentions in the description a label (language, framework, domain, tag, task type) is worth."""
SCANNED_CHARACTERS = 20_000
"""How much of a description is read for words."""
UNINFORMATIVE_DOMAIN = "general"
_STOP_WORDS = (
    "about after also been before being between could does each from have into just like made make more most must need "
    "needs only other over please same shall should some such than that their them then there these they this those "
    "through under until using very want were what when where which while will with without would your"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())


def key_concepts(episode: Episode, facts: Facts) -> list[str]:
    """At most 20 lower-case words: the most useful first.

    Candidates are those of the reference system (section 1.9): the labels of the context, the task type, the words of
    the description with more than three characters that are no stop words, and the tools. They are ranked by mentions:
    each occurrence in the description counts 1, a label 3 (once, however often it is given), because somebody chose it
    to describe the task, and a tool 1, however often it was called, or the tools of a long run would push out the words
    of the task. Equals stay in the order labels, words, tools, each by first appearance (tools by calls first).

    The reference system sorts them by alphabet and cuts at 20, which loses the end of the alphabet whatever it says.
    It counts bytes where this counts characters, and lists the domain `general`, which says nothing.
    """
    mentions: Counter[str] = Counter(dict.fromkeys(_labels(episode), LABEL_WEIGHT))
    mentions.update(_words(episode.task_description))
    mentions.update(_tools(facts))
    return sorted(mentions, key=lambda concept: -mentions[concept])[:MOST_CONCEPTS]


def _labels(episode: Episode) -> list[str]:
    context = episode.context
    labels = [context.language or "", context.framework or "", context.domain, *context.tags, episode.task_type]
    return [label for label in map(_normal, labels) if label and label != UNINFORMATIVE_DOMAIN]


def _words(description: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for raw, count in Counter(clean(description[:SCANNED_CHARACTERS]).lower().split()).items():
        word = _without_punctuation(raw)
        if len(word) >= MIN_WORD_CHARACTERS and word not in STOP_WORDS:
            word = shorten(word, NAME_CHARACTERS) if len(word) > NAME_CHARACTERS else word
            counts[word] = counts.get(word, 0) + count
    return counts


def _tools(facts: Facts) -> list[str]:
    most_called = sorted(facts.tools, key=lambda tool: -facts.tools[tool])[:MOST_CONCEPTS]
    # Each once, in this order: tools whose names differ only in case or far from the start are one concept.
    return list(dict.fromkeys(filter(None, map(_normal, most_called))))


def _normal(label: str) -> str:
    return shorten(label[:SCANNED_CHARACTERS].lower(), NAME_CHARACTERS)


def _without_punctuation(word: str) -> str:
    start, end = 0, len(word)
    while start < end and _is_punctuation(word[start]):
        start += 1
    while end > start and _is_punctuation(word[end - 1]):
        end -= 1
    return word[start:end]


def _is_punctuation(character: str) -> bool:
    # Not "anything but letters and digits": vowel signs and accents at the end of a word are marks and belong to it.
    return not character.isalnum() and unicodedata.category(character)[0] in "PSZC"
