"""The idempotency keys of one episode: a resubmit under a known key gets the first receipt again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import cbor2

from stepwell.errors import InvalidState
from stepwell.model.codec import STEP_FIELDS
from stepwell.model.step import ExecutionStep
from stepwell.runtime.receipt import Commit, Receipt


class KeyedStep(NamedTuple):
    """A step logged under a key: its seq, what it was, and the commit it is in."""

    seq: int
    digest: bytes
    commit: Commit


class StagedStep(NamedTuple):
    """A step that is encoded and waits for its transaction; the digest (if it has a key) is of what was encoded."""

    payload: bytes
    key: str | None
    digest: bytes


_NO_STEPS: OrderedDict[str, KeyedStep] = OrderedDict()
"""Stays empty; most episodes have no keys, and one of their own would take 128 bytes."""


class IdempotencyKeys:
    """The last `kept` keys of the episode, oldest first."""

    __slots__ = ("_episode_id", "_kept", "_steps")

    def __init__(self, episode_id: str, kept: int):
        self._episode_id, self._kept = episode_id, kept
        self._steps = _NO_STEPS

    def find(self, step: ExecutionStep) -> Receipt | None:
        """The receipt of the step logged before under the key of `step`, None if there is none.

        Raises: `InvalidState` if it was another step.
        """
        known = None if step.key is None else self._steps.get(step.key)
        return None if known is None else self._receipt(known, step.key, step_digest(step))

    def find_all(self, staged: Sequence[StagedStep]) -> Receipt | None:
        """The receipt of the last of these steps if all were logged before under their keys, None if none was.

        Raises: `InvalidState` if some were and some not, or one of them was another step.
        """
        known = [self._steps.get(step.key) if step.key is not None else None for step in staged]
        if not any(known):
            return None
        receipt = None
        for step, found in zip(staged, known, strict=True):
            if found is None:
                raise InvalidState(
                    f"some steps for {self._episode_id!r} were logged before under their keys and some were not"
                )
            receipt = self._receipt(found, step.key, step.digest)
        return receipt

    def _receipt(self, known: KeyedStep, key: str | None, digest: bytes) -> Receipt:
        if known.digest != digest:
            raise InvalidState(f"step.key: {key!r} was used for another step (seq {known.seq}) of {self._episode_id!r}")
        return Receipt(known.seq, known.commit)

    def remember(self, step: ExecutionStep, seq: int, commit: Commit) -> None:
        """Note that `step` was accepted as `seq`; until `commit` is stored, its failure makes the key free again."""
        if step.key is not None:
            self._note(step.key, step_digest(step), seq, commit)

    def remember_staged(self, step: StagedStep, seq: int, commit: Commit) -> None:
        """As `remember`, for a step that a transaction has staged."""
        if step.key is not None:
            self._note(step.key, step.digest, seq, commit)

    def _note(self, key: str, digest: bytes, seq: int, commit: Commit) -> None:
        self._add(key, KeyedStep(seq, digest, commit))
        if commit.keys is None:
            commit.keys = []
        commit.keys.append(key)

    def restore(self, steps: Iterable[tuple[ExecutionStep, int, int]]) -> None:
        """Take up stored steps with keys, as (step, seq, LSN), oldest first; those accepted and not stored come behind
        them, so that the oldest keys leave first, as ever. What is known already stays as it is.
        """
        known, self._steps = self._steps, _NO_STEPS
        for step, seq, lsn in steps:
            if step.key is not None:
                found = known.get(step.key)
                if found is None or found.seq != seq:
                    found = KeyedStep(seq, step_digest(step), Commit.stored(seq, lsn))
                self._add(step.key, found)
        for key, keyed in known.items():
            if not keyed.commit.done:
                self._add(key, keyed)

    def forget(self, commit: Commit) -> None:
        """The commit failed: its keys are free."""
        for key in commit.keys or ():
            self._steps.pop(key, None)

    def _add(self, key: str, step: KeyedStep) -> None:
        if self._steps is _NO_STEPS:
            self._steps = OrderedDict()
        self._steps.pop(key, None)  # used before in an earlier life, which kept fewer
        self._steps[key] = step
        while len(self._steps) > self._kept:
            self._steps.popitem(last=False)


def step_digest(step: ExecutionStep) -> bytes:
    """What makes two steps under one key the same: everything but the key. Objects are the same in any order."""
    fields = [getattr(step, name) for name in STEP_FIELDS]
    result = step.result
    fields[3] = (
        None if result is None else [type(result).__name__, *(getattr(result, f) for f in result.__struct_fields__)]
    )
    fields[8] = step.metadata or None
    return blake2b(cbor2.dumps(fields, canonical=True), digest_size=16).digest()
