"""What starting an episode says of it, checked and as a record."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.codec import encode_record, first_record_meta
from stepwell.model.context import Complexity, TaskContext
from stepwell.model.event import STARTED
from stepwell.model.ids import checked_id
from stepwell.model.limits import Limits
from stepwell.model.redaction import Redaction
from stepwell.model.tags import checked_tags

_COMPLEXITIES = Complexity.__args__  # type: ignore[attr-defined]
_NAME_BYTES = 1000


class EpisodeStart(msgspec.Struct, frozen=True, kw_only=True):
    """The start of an episode, as given to `start_episode`."""

    task: str
    context: TaskContext
    task_type: str = "other"
    agent: str = ""
    parent: str | None = None
    thread: str | None = None
    metadata: dict[str, Any] = {}
    actor: str = ""


def checked_context(context: object, fields: dict[str, Any], limits: Limits) -> TaskContext:
    """The context of a task from a `TaskContext`, from keywords, or from both (keywords win).

    Raises: `InvalidInput`, `TooLarge`.
    """
    unknown = sorted(fields.keys() - set(TaskContext.__struct_fields__))
    if unknown:
        raise InvalidInput(
            f"{unknown[0]}: not an argument of an episode; a context has {', '.join(TaskContext.__struct_fields__)}"
        )
    if context is None:
        context = TaskContext()
    if type(context) is not TaskContext:
        raise InvalidInput(f"context: must be a TaskContext, not {type(context).__name__}")
    if fields:
        context = msgspec.structs.replace(context, **fields)
    check.check_optional_text(context.language, "context.language", _NAME_BYTES)
    check.check_optional_text(context.framework, "context.framework", _NAME_BYTES)
    check.check_text(context.domain, "context.domain", _NAME_BYTES)
    if not check.is_one_of(context.complexity, _COMPLEXITIES):
        raise InvalidInput(
            f"context.complexity: must be one of {', '.join(_COMPLEXITIES)}, not {check.shown(context.complexity)}"
        )
    texts = {name: check.plain(getattr(context, name)) for name in ("language", "framework", "domain", "complexity")}
    tags = checked_tags(context.tags, "context.tags", limits)
    return msgspec.structs.replace(context, **texts, tags=tags)


def checked_start(
    task: object,
    *,
    context: object,
    context_fields: dict[str, Any],
    task_type: object,
    agent: object,
    parent: object,
    thread: object,
    metadata: object,
    actor: object = "",
    limits: Limits,
) -> EpisodeStart:
    """Check the arguments of `start_episode`; what is given back equals what will be read back.

    Raises: `InvalidInput`, `TooLarge`, naming the argument.
    """
    check.check_text(task, "task", limits.task_bytes, empty=False)
    check.check_text(task_type, "task_type", _NAME_BYTES, empty=False)
    check.check_text(agent, "agent", _NAME_BYTES)
    metadata = {} if metadata is None else metadata
    check.check_object(metadata, "metadata")
    return EpisodeStart(
        task=check.plain(task),
        context=checked_context(context, context_fields, limits),
        task_type=check.plain(task_type),
        agent=check.plain(agent),
        parent=None if parent is None else checked_id(parent, "parent"),
        thread=None if thread is None else checked_id(thread, "thread"),
        metadata=check.plain(metadata),
        actor=check.check_actor(actor),
    )


def redacted_start(start: EpisodeStart, redaction: Redaction, limits: Limits) -> EpisodeStart:
    """A checked start as it is to be stored. Raises: `Rejected`."""
    redacted = redaction.fields("start", start, ("task", "task_type", "agent", "metadata"))
    context = redaction.fields("start.context", start.context, ("language", "framework", "domain", "tags"))
    return checked_start(
        redacted.task,
        context=context,
        context_fields={},
        task_type=redacted.task_type,
        agent=redacted.agent,
        parent=start.parent,
        thread=start.thread,
        metadata=redacted.metadata,
        actor=start.actor,
        limits=limits,
    )


def encode_start(start: EpisodeStart, episode_id: str, time_ns: int, limits: Limits) -> bytes:
    """The first record of an episode's stream.

    Raises: `InvalidInput`, `TooLarge`.
    """
    data = msgspec.to_builtins(start)
    if not start.actor:
        del data["actor"]
    return encode_record(
        STARTED, time_ns, data, first_record_meta(episode_id), path="episode", limit=limits.record_bytes
    )


def decode_start(data: dict[str, Any]) -> EpisodeStart:
    """The start of an episode from its record. Raises `msgspec.ValidationError`."""
    return msgspec.convert(data, EpisodeStart)
