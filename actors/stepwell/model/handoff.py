"""What one agent hands to the next so that it can go on from a checkpoint."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model.checkpoint import Checkpoint
from stepwell.model.context import TaskContext
from stepwell.model.pattern import Pattern
from stepwell.model.recommendation import Heuristic
from stepwell.model.step import EpisodeStep

HANDOFF_VERSION = 1


class HandoffPack(msgspec.Struct, frozen=True, kw_only=True):
    """An episode up to a checkpoint, complete: the task and its circumstances, every step, and what is to be learned
    of them in lines for a person or a prompt.

    `what_worked` and `what_failed` name tools with what they were called for; `salient_facts` are the recoveries and
    the note of the checkpoint; `suggested_next_steps` what to look at first, five at the most.

    `relevant_patterns` and `relevant_heuristics` are what other episodes of the domain have taught, five of each at the
    most: patterns of what to do, and rules whose condition shares a word with the task. `not_learned` says why there
    are none if the learner could not be asked.
    """

    version: int = HANDOFF_VERSION
    checkpoint: Checkpoint
    task_description: str
    task_type: str
    context: TaskContext
    agent: str
    thread: str | None = None
    metadata: dict[str, Any] = {}
    steps: list[EpisodeStep]
    what_worked: list[str] = []
    what_failed: list[str] = []
    salient_facts: list[str] = []
    suggested_next_steps: list[str] = []
    relevant_patterns: list[Pattern] = []
    relevant_heuristics: list[Heuristic] = []
    not_learned: str = ""

    def to_json(self) -> str:
        """The pack as a JSON object; `from_json` makes an equal one of it."""
        return json.dumps(msgspec.to_builtins(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> HandoffPack:
        """The pack that `to_json`, or `msgspec.json.encode`, has written. Raises: `InvalidInput`."""
        try:
            return checked_pack(msgspec.convert(json.loads(text), cls))
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise InvalidInput(f"pack: this is no HandoffPack in JSON: {error}") from error


def checked_pack(pack: object) -> HandoffPack:
    """A pack that this version understands. Raises: `InvalidInput`."""
    if not isinstance(pack, HandoffPack):
        raise InvalidInput(
            f"pack: must be a HandoffPack, not {type(pack).__name__}; memory.handoff(checkpoint_id) gives one"
        )
    if pack.version != HANDOFF_VERSION:
        raise InvalidInput(f"pack: has version {pack.version}, this Stepwell knows {HANDOFF_VERSION}; use a newer one")
    return pack
