"""What a scope holds: the fold of its changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from stepwell.learning.recall.dates import day_words
from stepwell.learning.recall.fusion import Fused, fuse
from stepwell.learning.recall.index import FactIndex, Indexed
from stepwell.learning.recall.settings import DEFAULT_SETTINGS, RecallSettings
from stepwell.learning.recall.vectors import Vectors
from stepwell.model.fact import Fact, Hit, StoredFact, Why, content_hash
from stepwell.model.fact_records import Forgotten, Remembered, moment, stored_fact
from stepwell.model.scope import Scope
from stepwell.model.validation import same_json


class Entry(NamedTuple):
    """A fact that was not forgotten."""

    change: Remembered
    remembered_ns: int

    @property
    def time_ns(self) -> int:
        """When what it says was so."""
        return self.remembered_ns if self.change.said_ns is None else self.change.said_ns

    def indexed(self, number: int) -> Indexed:
        """What the index is told of it."""
        said = self.change.said_ns
        return Indexed(number, self.change.text, self.change.metadata, "" if said is None else day_words(moment(said)))


class Wanted(NamedTuple):
    """Which facts a caller asks for: with this metadata, and of this time, bounds included. `now_ns`: what had expired
    by then is not found."""

    now_ns: int
    where: dict[str, Any] | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether this fact is one of them."""
        expires = entry.change.expires_ns
        if expires is not None and expires <= self.now_ns:
            return False
        if self.since_ns is not None and entry.time_ns < self.since_ns:
            return False
        if self.until_ns is not None and entry.time_ns > self.until_ns:
            return False
        return self.where is None or matches(entry.change.metadata, self.where)


class FactCollection:
    """The facts of one scope, in one generation of its stream. `last_number`: of the last change that was applied."""

    def __init__(self, scope: Scope, generation: int, settings: RecallSettings = DEFAULT_SETTINGS):
        self.scope, self.generation = scope, generation
        self.last_number = 0
        self._settings = settings
        self._entries: dict[int, Entry] = {}
        self._successor: dict[int, int] = {}
        """The fact that took the place of another."""
        self._index = FactIndex(settings)
        self._unindexed: deque[int] = deque()
        self._indexed_upto = 0
        self._vectors = Vectors()
        self._hashes: dict[bytes, int] | None = None
        """The newest fact that says something."""
        self._said_before: dict[int, int] = {}
        """The next older one that says the same."""
        self._may_expire = 0

    # ---- changes -----------------------------------------------------------------------------------------------------

    def apply(self, number: int, change: Remembered | Forgotten, time_ns: int) -> None:
        """Take up a change with a number above all before."""
        self.last_number = number
        if isinstance(change, Forgotten):
            self._forget(change.number)
            return
        self._entries[number] = Entry(change, time_ns)
        self._index.place(number, change.text, change.metadata)
        self._unindexed.append(number)
        if change.vector is not None:
            self._vectors.add(number, change.vector)
        self._may_expire += change.expires_ns is not None
        if change.supersedes in self._entries and change.supersedes not in self._successor:
            self._successor[change.supersedes] = number
            self._leave_index(change.supersedes)
        if self._hashes is not None:
            self._note_content(self._hashes, number, change)

    def _forget(self, number: int) -> None:
        entry = self._entries.get(number)
        if entry is None:
            return
        if number not in self._successor:
            self._leave_index(number)
        self._successor.pop(number, None)
        self._may_expire -= entry.change.expires_ns is not None
        del self._entries[number]
        if self._hashes is not None:
            self._hashes = None

    def _leave_index(self, number: int) -> None:
        if number <= self._indexed_upto:
            self._index.remove(self._entries[number].indexed(number))
        self._index.displace(number)
        self._vectors.remove(number)

    def index_some(self, most: int = 256) -> bool:
        """Index up to so many facts that are not; False when all are."""
        for _ in range(min(most, len(self._unindexed))):
            number = self._indexed_upto = self._unindexed.popleft()
            if number in self._entries and number not in self._successor:
                self._index.add(self._entries[number].indexed(number))
        return bool(self._unindexed)

    # ---- what it holds -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, number: int) -> StoredFact | None:
        """A fact that was not forgotten."""
        entry = self._entries.get(number)
        if entry is None:
            return None
        return stored_fact(
            self.scope, self.generation, number, entry.change, entry.remembered_ns, self._successor.get(number)
        )

    def is_current(self, number: int) -> bool:
        """Whether there is such a fact, and none took its place."""
        return number in self._entries and number not in self._successor

    def find_same(self, fact: Fact, now_ns: int) -> int | None:
        """The number of a fact that is found and says the same, None if there is none."""
        if self._hashes is None:
            self._hashes, self._said_before = {}, {}
            for known, entry in self._entries.items():
                if known not in self._successor:
                    self._note_content(self._hashes, known, entry.change)
        number = self._hashes.get(content_hash(fact))
        while number is not None and (number in self._successor or not Wanted(now_ns).takes(self._entries[number])):
            number = self._said_before.get(number)
        return number

    def _note_content(self, hashes: dict[bytes, int], number: int, change: Remembered) -> None:
        content = content_hash(Fact(change.text, change.metadata))
        if content in hashes:
            self._said_before[number] = hashes[content]
        hashes[content] = number

    def facts(self, wanted: Wanted, after: int = 0) -> Iterator[StoredFact]:
        """The facts behind a number that are found, in the order of remembering."""
        for number, entry in self._entries.items():
            if number > after and number not in self._successor and wanted.takes(entry):
                found = self.get(number)
                assert found is not None
                yield found

    # ---- searching ---------------------------------------------------------------------------------------------------

    @property
    def dimensions(self) -> int | None:
        """How long the vectors of its facts are; None if there is none."""
        return self._vectors.dimensions

    def search(self, query: str, k: int, wanted: Wanted, vector: Sequence[float] | None = None) -> list[Hit]:
        """The best `k` hits, the best first. Everything must be indexed.

        First comes what holds nothing but the query, word for word. Where no word is found, what the query stands in as
        it is written; and where the query holds nothing to look for, the newest. `vector`: that of the query, if facts
        are to be found by theirs as well.
        """
        assert not self._unindexed, "indexed first"
        if k <= 0:
            return []
        literal = _literal(query)
        if not literal:
            return [self._hit(number, 0.0, Why(newest=True)) for number in self._newest(wanted, "", k)]
        ranked = self._ranked(query, k, self._accepting(wanted), vector)
        if not ranked:
            return [self._hit(number, 0.0, Why(whole_text=True)) for number in self._newest(wanted, literal, k)]
        hits = []
        for item, similarity in ranked:
            is_whole = _literal(self._entries[item.number].change.text) == literal
            why = Why(item.words, item.neighbours, item.conversation, similarity, is_whole)
            hits.append(self._hit(item.number, item.score, why))
        return sorted(hits, key=lambda hit: not hit.why.whole_text)

    def _ranked(
        self, query: str, k: int, accepts: Callable[[int], bool] | None, vector: Sequence[float] | None
    ) -> list[Fused]:
        if vector is None or not self._vectors:
            return [Fused(item, None) for item in self._index.search(query, k, accepts)]
        by_words = self._index.search(query, max(self._settings.candidates, 2 * k), accepts)
        similar = self._vectors.similarities(vector, [item.number for item in by_words])
        return fuse(by_words, similar, self._index.conversations, self._settings, k, accepts)

    def _accepting(self, wanted: Wanted) -> Callable[[int], bool] | None:
        """Which of the facts in the index are wanted; None for all."""
        if not self._may_expire and wanted == Wanted(wanted.now_ns):
            return None
        return lambda number: wanted.takes(self._entries[number])

    def _newest(self, wanted: Wanted, literal: str, k: int) -> list[int]:
        """The newest facts in which this stands."""
        found = []
        for number in reversed(self._entries):
            entry = self._entries[number]
            if number not in self._successor and wanted.takes(entry) and literal in _literal(entry.change.text):
                found.append(number)
                if len(found) == k:
                    break
        return found

    def _hit(self, number: int, score: float, why: Why) -> Hit:
        fact = self.get(number)
        assert fact is not None
        return Hit(fact.id, fact, score, why)


def _literal(text: str) -> str:
    return " ".join(text.split()).casefold()


def matches(metadata: Any, where: dict[str, Any]) -> bool:
    """Whether the metadata has all these fields with these values; an object inside has to match in the same way, and a
    list also matches each of its items."""
    if not isinstance(metadata, dict):
        return not where
    return all(name in metadata and _is(metadata[name], value) for name, value in where.items())


def _is(held: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return matches(held, wanted)
    if isinstance(held, list) and not isinstance(wanted, list):
        return any(same_json(item, wanted) for item in held)
    return same_json(held, wanted)
