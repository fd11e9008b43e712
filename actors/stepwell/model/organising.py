"""How an episode is organised: its tags, description and metadata, whether it is archived, what it is related to, and
its checkpoints.

Each change is a record of the episode's own stream, also behind its ending, and never a rewrite. `Organisation` is the
fold of these records; a `Change` says what to record in view of it, or that there is nothing to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stepwell.errors import InvalidState, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import encode_record
from stepwell.model.event import ARCHIVED, CHECKPOINTED, RELATED, RESTORED, TAGGED, UNRELATED, UPDATED
from stepwell.model.limits import Limits
from stepwell.model.relationship import RelationshipKind
from stepwell.model.start import EpisodeStart
from stepwell.model.tags import tag_key, with_tags, without_tags

MAX_TAGS = 1_000
MAX_RELATIONSHIPS = 10_000
MAX_CHECKPOINTS = 10_000
REASON_BYTES = 5_000


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """Tags were taken away, and then others put behind those that stayed."""

    added: list[str] = []
    removed: list[str] = []
    actor: str = ""


class Updated(msgspec.Struct, frozen=True, kw_only=True):
    """The description was replaced (unless None); metadata were taken away, and others laid over those that stayed."""

    description: str | None = None
    metadata: dict[str, Any] = {}
    removed_metadata: list[str] = []
    actor: str = ""


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """The episode was put away."""

    actor: str = ""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The episode was taken out of the archive."""

    actor: str = ""


class Related(msgspec.Struct, frozen=True, kw_only=True):
    """The episode is related to another from now on."""

    from_episode: str
    to_episode: str
    kind: RelationshipKind
    priority: int = 5
    reason: str = ""
    metadata: dict[str, Any] = {}
    actor: str = ""


class Unrelated(msgspec.Struct, frozen=True, kw_only=True):
    """The episode is no longer related to another in this way."""

    from_episode: str
    to_episode: str
    kind: RelationshipKind
    actor: str = ""


class Checkpointed(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the episode from which another run may go on: behind its first `steps` steps."""

    reason: str
    note: str = ""
    steps: int
    actor: str = ""


OrganisingRecord = Tagged | Updated | Archived | Restored | Related | Unrelated | Checkpointed

_KINDS: dict[str, type[OrganisingRecord]] = {
    TAGGED: Tagged,
    UPDATED: Updated,
    ARCHIVED: Archived,
    RESTORED: Restored,
    RELATED: Related,
    UNRELATED: Unrelated,
    CHECKPOINTED: Checkpointed,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
ORGANISING = frozenset(_KINDS)
"""The kinds of events that organise an episode."""


class Organisation:
    """The state that organising records make, from the start of an episode on.

    `related` holds the relationships that begin at this episode, by kind and other end. `checkpoints` are (seq, time in
    ns, record), oldest first.
    """

    __slots__ = ("archived_ns", "checkpoints", "description", "metadata", "related", "tags")

    def __init__(self, start: EpisodeStart):
        self.tags: list[str] = start.context.tags
        self.description, self.metadata = start.task, start.metadata
        self.archived_ns: int | None = None
        self.related: dict[tuple[str, str], Related] = {}
        self.checkpoints: list[tuple[int, int, Checkpointed]] = []

    def copy(self) -> Organisation:
        """The same once more; what is applied to one of the two changes the other not."""
        same = object.__new__(Organisation)
        same.tags, same.description, same.metadata = self.tags, self.description, self.metadata
        same.archived_ns = self.archived_ns
        same.related, same.checkpoints = dict(self.related), list(self.checkpoints)
        return same

    def apply(self, record: OrganisingRecord, seq: int, time_ns: int) -> None:
        """Take up one record, in order."""
        # Lists and dicts are replaced, not changed: they may be those of a start record, or of an episode given out.
        if isinstance(record, Tagged):
            self.tags = with_tags(without_tags(self.tags, record.removed), record.added)
        elif isinstance(record, Updated):
            if record.description is not None:
                self.description = record.description
            self.metadata = _merged(self.metadata, record.metadata, record.removed_metadata)
        elif isinstance(record, Archived):
            self.archived_ns = time_ns
        elif isinstance(record, Restored):
            self.archived_ns = None
        elif isinstance(record, Related):
            self.related[record.kind, record.to_episode] = record
        elif isinstance(record, Unrelated):
            self.related.pop((record.kind, record.to_episode), None)
        else:
            self.checkpoints.append((seq, time_ns, record))


def _merged(metadata: dict[str, Any], others: dict[str, Any], removed: list[str]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in removed} | others


def decode_organising(kind: str, data: dict[str, Any]) -> OrganisingRecord:
    """The data of an organising record. Raises: `msgspec.ValidationError`."""
    return msgspec.convert(data, _KINDS[kind])


def organising_kind(record: OrganisingRecord) -> str:
    """The kind of its event."""
    return _NAMES[type(record)]


def encode_organising(record: OrganisingRecord, time_ns: int, limits: Limits) -> bytes:
    """An organising record as bytes. Raises: `InvalidInput`, `TooLarge`."""
    kind = _NAMES[type(record)]
    return encode_record(kind, time_ns, msgspec.to_builtins(record), None, path=kind, limit=limits.record_bytes)


Change = Callable[[Organisation, int], OrganisingRecord | None]
"""What to record in view of what an episode is organised like, and how many steps it has; None if nothing changes. It
may refuse with `InvalidState` or `TooLarge`."""


def adding_tags(tags: list[str], actor: str) -> Change:
    """Put tags behind those there are."""

    def change(now: Organisation, _steps: int) -> Tagged | None:
        return _retagged(now.tags, with_tags(now.tags, tags), actor)

    return change


def removing_tags(tags: list[str], actor: str) -> Change:
    """Take tags away."""

    def change(now: Organisation, _steps: int) -> Tagged | None:
        return _retagged(now.tags, without_tags(now.tags, tags), actor)

    return change


def setting_tags(tags: list[str], actor: str) -> Change:
    """Have these tags, in this order and spelling, and no others."""
    wanted = with_tags([], tags)

    def change(now: Organisation, _steps: int) -> Tagged | None:
        if now.tags == wanted:
            return None
        _check_count(wanted)
        return Tagged(added=wanted, removed=now.tags, actor=actor)

    return change


def _retagged(before: list[str], after: list[str], actor: str) -> Tagged | None:
    """The record for tags that were only put behind those there were, or only taken away."""
    if before == after:
        return None
    _check_count(after)
    kept = {tag_key(tag) for tag in after}
    return Tagged(added=after[len(before) :], removed=[tag for tag in before if tag_key(tag) not in kept], actor=actor)


def _check_count(tags: list[str]) -> None:
    if len(tags) > MAX_TAGS:
        raise TooLarge(f"tags: {len(tags):,} are more than the {MAX_TAGS:,} an episode may have")


def updating(description: str | None, metadata: dict[str, Any], removed_metadata: list[str], actor: str) -> Change:
    """Replace the description (unless None), take metadata away and lay others over."""

    def change(now: Organisation, _steps: int) -> Updated | None:
        described = description is not None and description != now.description
        merged = _merged(now.metadata, metadata, removed_metadata)
        if not described and check.same_json(merged, now.metadata):
            return None
        return Updated(
            description=description if described else None,
            metadata=metadata,
            removed_metadata=[name for name in removed_metadata if name in now.metadata],
            actor=actor,
        )

    return change


def archiving(actor: str) -> Change:
    """Put the episode away, unless it is."""
    return lambda now, _steps: Archived(actor=actor) if now.archived_ns is None else None


def restoring(actor: str) -> Change:
    """Take the episode out of the archive, if it is there."""
    return lambda now, _steps: None if now.archived_ns is None else Restored(actor=actor)


def relating(wanted: Related) -> Change:
    """Relate the episode to another, unless it is related just so. Refuses one that is related otherwise."""

    def change(now: Organisation, _steps: int) -> Related | None:
        known = now.related.get((wanted.kind, wanted.to_episode))
        if known is None:
            if len(now.related) >= MAX_RELATIONSHIPS:
                raise TooLarge(f"an episode may have {MAX_RELATIONSHIPS:,} relationships, and this one has as many")
            return wanted
        if msgspec.structs.replace(known, actor=wanted.actor) != wanted:
            raise InvalidState(
                f"episode {wanted.from_episode!r} is related to {wanted.to_episode!r} as {wanted.kind!r} already, with "
                "another priority, reason or metadata; unrelate them first"
            )
        return None

    return change


def unrelating(wanted: Unrelated) -> Change:
    """Relate the episode no longer to another."""
    return lambda now, _steps: wanted if (wanted.kind, wanted.to_episode) in now.related else None


def checkpointing(reason: str, note: str, actor: str) -> Change:
    """Note a place to go on from."""

    def change(now: Organisation, steps: int) -> Checkpointed:
        if len(now.checkpoints) >= MAX_CHECKPOINTS:
            raise TooLarge(f"an episode may have {MAX_CHECKPOINTS:,} checkpoints, and this one has as many")
        return Checkpointed(reason=reason, note=note, steps=steps, actor=actor)

    return change
