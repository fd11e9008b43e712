"""The facts of one scope, to be searched by words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from stepwell.learning.recall.conversations import Conversations
from stepwell.learning.recall.passage import membership, searched_text
from stepwell.learning.recall.postings import Postings
from stepwell.learning.recall.ranking import Ranked, Ranking
from stepwell.learning.recall.settings import DEFAULT_SETTINGS, RecallSettings
from stepwell.learning.recall.words import document_words, query_words


class Indexed(NamedTuple):
    """What the index is told of a fact, when it comes and when it goes: the same both times."""

    number: int
    text: str
    metadata: Any
    time_words: str = ""

    def words(self) -> list[str]:
        """The words it is found by."""
        return document_words(searched_text(self.text, self.metadata, self.time_words))


class FactIndex:
    """Facts are numbers. Each takes its place, in rising order, when it comes into being, and is indexed later, in
    rising order as well. One that was removed leaves nothing behind but its empty place in its conversation, whether it
    had been indexed or not; so an index that was rebuilt from the log ranks as one that was kept."""

    def __init__(self, settings: RecallSettings = DEFAULT_SETTINGS):
        self._settings = settings
        self._postings, self._conversations = Postings(), Conversations()

    @property
    def size(self) -> int:
        """How many facts are indexed."""
        return self._postings.size

    def place(self, number: int, text: str, metadata: Any) -> None:
        """Give a fact its place in its conversation."""
        self._conversations.add(number, membership(text, metadata))

    def add(self, fact: Indexed) -> None:
        """Index a fact that has its place."""
        self._postings.add(fact.number, fact.words())

    def displace(self, number: int) -> None:
        """Empty the place of a fact, which is not indexed, or not any more."""
        self._conversations.remove(number)

    def remove(self, fact: Indexed) -> None:
        """Index a fact no longer."""
        self._postings.remove(fact.number, fact.words())

    def rank(self, query: str) -> Ranking:
        """How a query ranks the facts."""
        return Ranking(self._postings, self._conversations, self._settings, query_words(query))

    @property
    def conversations(self) -> Conversations:
        """Which facts stand together."""
        return self._conversations

    def search(self, query: str, k: int, accepts: Callable[[int], bool] | None = None) -> list[Ranked]:
        """The best `k` of the facts that hold a word of the query, or stand beside one in a conversation."""
        return self.rank(query).best(k, accepts)
