"""Facts: what an agent knows, beyond the run in which it learned it."""

from __future__ import annotations

import datetime as dt
import json
from hashlib import blake2b
from typing import Any, NewType

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.scope import Scope

FactId = NewType("FactId", str)
"""The id of a fact, made when it is remembered; never given twice."""


class Fact(msgspec.Struct, eq=False, frozen=True):
    """Something worth knowing: a text, and any JSON beside it that is stored, filtered by and given back.

    Two facts are equal that say the same, whatever else is known of them.
    """

    text: str
    metadata: Any = None

    def to_wire(self) -> dict[str, Any]:
        """`{"text": …, "metadata": …}`."""
        return {"text": self.text, "metadata": self.metadata}

    @classmethod
    def from_wire(cls, value: object) -> Fact:
        """The fact that `to_wire` gave; without "metadata" that is None. Raises: `InvalidInput`."""
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise InvalidInput(f"fact: must be an object with a text, not {check.shown(value)}")
        check.check_json(value.get("metadata"), "fact.metadata")
        return Fact(value["text"], value.get("metadata"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fact):
            return NotImplemented
        return self.text == other.text and check.same_json(self.metadata, other.metadata)

    def __ne__(self, other: object) -> bool:
        """As `__eq__` says: a Struct would compare by identity."""
        return not self == other

    def __hash__(self) -> int:
        return hash(self.text)


class Origin(msgspec.Struct, frozen=True):
    """Where a fact came from: a run, and its step of that number (`seq`) if it came from one."""

    run: str
    step: int | None = None


class StoredFact(Fact, eq=False, frozen=True):
    """A fact as a memory holds it.

    `time`: when what it says was so, by its writer; when it was remembered if that was not said. `origin`: where it
    came from. `expires_at`: from then on it is not found. `supersedes`: the fact it took the place of; `superseded_by`:
    the one that took its place, and then it is not found. All times are UTC.
    """

    id: FactId = FactId("")
    scope: Scope = Scope.GLOBAL
    time: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    origin: Origin | None = None
    expires_at: dt.datetime | None = None
    supersedes: FactId | None = None
    superseded_by: FactId | None = None

    @property
    def fact(self) -> Fact:
        """The fact alone."""
        return Fact(self.text, self.metadata)


class Why(msgspec.Struct, frozen=True):
    """What a score is made of: `words`, the share of each word of the query that stands in the fact, as it is
    compared (stemmed); `neighbours`, what the facts next to it in its conversation gave; `conversation`, what the
    conversation as a whole gave; `similarity`, what the vectors gave. `whole_text`: the query is the text of the fact,
    or, where no word was found, stands in it; `newest`: the query holds nothing to look for.
    """

    words: dict[str, float] = {}
    neighbours: float = 0.0
    conversation: float = 0.0
    similarity: float | None = None
    whole_text: bool = False
    newest: bool = False

    def __str__(self) -> str:
        parts = [f"{word} {share:.2f}" for word, share in self.words.items()]
        if self.neighbours:
            parts.append(f"the turns next to it {self.neighbours:.2f}")
        if self.conversation:
            parts.append(f"its conversation {self.conversation:.2f}")
        if self.similarity is not None:
            parts.append(f"similar {self.similarity:.2f}")
        if self.whole_text:
            parts.append("it holds the query word for word")
        if self.newest:
            parts.append("the query names nothing: the newest first")
        return ", ".join(parts)


class Hit(msgspec.Struct, frozen=True):
    """A fact that was found. `score` compares hits of one search only; `why` says what it is made of."""

    id: FactId
    fact: StoredFact
    score: float
    why: Why


def content_hash(fact: Fact) -> bytes:
    """16 bytes that two facts share which say the same: text and metadata."""
    metadata = json.dumps(fact.metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(f"{fact.text}\0{metadata}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
