"""What is to become of the next submissions to a journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

import msgspec

from stepstore.journal import Batch, InMemoryStreams
from stepwell.errors import InvalidInput, Rejected
from stepwell.model import validation as check
from stepwell.testing.stored_records import StoredRecord, name_of, read_record, stored_name

Fate = Literal["fail", "reject", "hang", "lose_ack"]


class Submitted(msgspec.Struct, frozen=True):
    """Records on their way to the journal, which stores them together or not at all; what a `when` looks at."""

    records: list[StoredRecord]

    @property
    def ids(self) -> frozenset[str]:
        """The streams it is for: the episode ids."""
        return frozenset(record.id for record in self.records)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of records: "started", "step", "ended", "deleted"."""
        return frozenset(record.kind for record in self.records)

    @property
    def keys(self) -> frozenset[str]:
        """The idempotency keys of the steps in it."""
        return frozenset(record.key for record in self.records if record.key is not None)


When = Callable[[Submitted], bool]
"""Whether a policy is meant for this submission. What it raises fails the journal, and so the memory on it."""


class Policy(msgspec.Struct):
    """The fate of the next `left` submissions that `when` is true of."""

    fate: Fate
    left: int
    when: When | None
    error: Rejected | None


class Policies:
    """Policies in the order in which they were asked for; the first that is meant for a submission decides."""

    def __init__(self) -> None:
        self._waiting: list[Policy] = []

    def add(self, fate: Fate, n: int, when: When | None, error: Rejected | None = None) -> None:
        """Ask for a fate. Raises: `InvalidInput`."""
        check.check_number(n, "n", minimum=1, whole=True)
        if when is not None and not callable(when):
            raise InvalidInput(f"when: must be a function of a Submitted, not {type(when).__name__}")
        self._waiting.append(Policy(fate, n, when, error))

    def clear(self) -> None:
        """Forget what was asked for and has not happened."""
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """How many submissions are still to meet a fate."""
        return sum(policy.left for policy in self._waiting)

    def take(self, fates: Collection[Fate], batches: Sequence[Batch], kept: InMemoryStreams) -> Policy | None:
        """The first policy of one of these fates that is meant for the submission, counted as used."""
        if not self._waiting:
            return None
        submitted: Submitted | None = None
        for policy in self._waiting:
            if policy.fate not in fates:
                continue
            if policy.when is not None:
                if submitted is None:
                    submitted = read_submission(batches, kept)
                if not policy.when(submitted):
                    continue
            policy.left -= 1
            if not policy.left:
                self._waiting.remove(policy)
            return policy
        return None


def read_submission(batches: Sequence[Batch], kept: InMemoryStreams) -> Submitted:
    """What is in a submission; `kept` is what is stored before it."""
    names: dict[bytes, str] = {}
    records: list[StoredRecord] = []
    for batch in batches:
        stream, first_seq, payloads = batch.stream, batch.first_seq, batch.payloads
        if stream not in names:
            names[stream] = stored_name(kept, stream) or (name_of(payloads[0]) if first_seq == 1 else "")
        records += [read_record(names[stream], first_seq + n, payload) for n, payload in enumerate(payloads)]
    return Submitted(records)
