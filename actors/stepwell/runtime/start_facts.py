"""What the catalogs keep of the start of an episode."""

from __future__ import annotations

import msgspec

from stepstore.journal import Record
from stepwell.model.codec import DecodedRecord
from stepwell.model.context import Complexity
from stepwell.model.ids import EPISODE_STREAM, hashed_stream_id


class StartContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The context of the task. Held by the thousand while a log is folded, so the garbage collector does not go through
    it: nothing in it refers back."""

    domain: str = "general"
    language: str | None = None
    framework: str | None = None
    complexity: Complexity = "moderate"
    tags: tuple[str, ...] = ()


class StartFacts(msgspec.Struct, frozen=True, gc=False):
    """The start itself."""

    task: str
    context: StartContext
    task_type: str = "other"
    agent: str = ""


def start_of(record: Record, decoded: DecodedRecord) -> tuple[str, StartFacts] | None:
    """The id of the episode that a record starts, and what it says of it; None if it is the start of something else.

    Raises: `msgspec.ValidationError`.
    """
    meta = decoded.meta or {}
    name = meta.get("id")
    if meta.get("stream") != EPISODE_STREAM or not isinstance(name, str):
        return None
    if hashed_stream_id(EPISODE_STREAM, name) != record.stream:
        return None  # their names collide on disk, or the record lies
    return name, msgspec.convert(decoded.data, StartFacts)
