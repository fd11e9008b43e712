"""The idempotency keys of one episode: a resubmit under a known key gets the first receipt again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
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


class IdempotencyKeys:
    """The last `kept` keys of the episode, oldest first."""

    def __init__(self, episode_id: str, kept: int):
        self._episode_id, self._kept = episode_id, kept
        self._steps: OrderedDict[str, KeyedStep] = OrderedDict()

    def find(self, step: ExecutionStep) -> Receipt | None:
        """The receipt of the step logged before under the key of `step`, None if there is none.

        Raises: `InvalidState` if it was another step.
        """
        known = None if step.key is None else self._steps.get(step.key)
        if known is None:
            return None
        if known.digest != step_digest(step):
            raise InvalidState(
                f"step.key: {step.key!r} was used for another step (seq {known.seq}) of {self._episode_id!r}"
            )
        return Receipt(known.seq, known.commit)

    def remember(self, step: ExecutionStep, seq: int, commit: Commit) -> None:
        """Note that `step` was accepted as `seq`; until `commit` is stored, its failure makes the key free again."""
        if step.key is not None:
            self._add(step.key, KeyedStep(seq, step_digest(step), commit))
            commit.keys = [*(commit.keys or ()), step.key]

    def restore(self, steps: Iterable[tuple[ExecutionStep, int, int]]) -> None:
        """Take up stored steps with keys, as (step, seq, LSN), oldest first; keys known already stay as they are."""
        for step, seq, lsn in steps:
            if step.key is not None and step.key not in self._steps:
                self._add(step.key, KeyedStep(seq, step_digest(step), Commit.stored(seq, lsn)))

    def forget(self, commit: Commit) -> None:
        """The commit failed: its keys are free."""
        for key in commit.keys or ():
            self._steps.pop(key, None)

    def _add(self, key: str, step: KeyedStep) -> None:
        self._steps[key] = step
        while len(self._steps) > self._kept:
            self._steps.popitem(last=False)


def step_digest(step: ExecutionStep) -> bytes:
    """What makes two steps under one key the same: everything but the key."""
    fields = [getattr(step, name) for name in STEP_FIELDS]
    result = step.result
    fields[3] = (
        None if result is None else [type(result).__name__, *(getattr(result, f) for f in result.__struct_fields__)]
    )
    fields[8] = step.metadata or None
    return blake2b(cbor2.dumps(fields), digest_size=16).digest()
