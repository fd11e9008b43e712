"""What a caller says of organising an episode, checked and redacted: the change it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from stepwell.errors import InvalidInput
from stepwell.model import organising as changes
from stepwell.model import validation as check
from stepwell.model.ids import EpisodeId, checked_id
from stepwell.model.limits import Limits
from stepwell.model.organising import REASON_BYTES, Change, Related, Unrelated
from stepwell.model.redaction import Redaction
from stepwell.model.relationship import KINDS, RelationshipKind
from stepwell.model.tags import checked_tags


class OrganisingChecks:
    """Each function gives a change, or raises `InvalidInput` or `TooLarge`, naming what is wrong."""

    def __init__(self, limits: Limits, redaction: Redaction | None):
        self._limits, self._redaction = limits, redaction

    def tags(self, tags: object, actor: object, change: Callable[[list[str], str], Change]) -> Change:
        """`change`: one of `adding_tags`, `removing_tags`, `setting_tags`."""
        checked = checked_tags(tags, "tags", self._limits)
        if self._redaction is not None:
            checked = checked_tags(self._redaction.value("tags", checked), "tags", self._limits)
        return change(checked, check.check_actor(actor))

    def update(
        self, description: str | None, metadata: dict[str, Any] | None, remove_metadata: Sequence[str], actor: object
    ) -> Change:
        """See `Organising.update_episode`."""
        self._check_update(description, metadata, remove_metadata)
        if self._redaction is not None:
            description = None if description is None else self._redaction.text("description", description)
            metadata = self._redaction.value("metadata", metadata or {})
            self._check_update(description, metadata, remove_metadata)
        return changes.updating(
            check.plain(description),
            check.plain(metadata or {}),
            check.plain(remove_metadata),
            check.check_actor(actor),
        )

    def _check_update(self, description: object, metadata: object, remove_metadata: Sequence[str]) -> None:
        if description is not None:
            check.check_text(description, "description", self._limits.task_bytes, empty=False)
        check.check_object({} if metadata is None else metadata, "metadata")
        check.check_text_list(remove_metadata, "remove_metadata", self._limits.text_bytes)
        named = (("description", description), ("metadata", metadata), ("remove_metadata", list(remove_metadata)))
        for path, value in named:
            if bad_text := check.find_bad_text(value, path):
                raise InvalidInput(bad_text)

    def checkpoint(self, reason: str, note: str, actor: object) -> Change:
        """See `HandingOver.checkpoint`."""
        for name, value in (("reason", reason), ("note", note)):
            check.check_text(value, name, REASON_BYTES, empty=name == "note")
            if bad_text := check.find_bad_text(value, name):
                raise InvalidInput(bad_text)
        if self._redaction is not None:
            reason, note = self._redaction.text("reason", reason), self._redaction.text("note", note)
        return changes.checkpointing(check.plain(reason), check.plain(note), check.check_actor(actor))

    def related(
        self,
        from_episode: object,
        to_episode: object,
        kind: object,
        priority: int,
        reason: str,
        metadata: dict[str, Any] | None,
        actor: object,
    ) -> Related:
        """See `Relationships.relate`."""
        begin, end = _checked_ends(from_episode, to_episode)
        check.check_number(priority, "priority", minimum=1, whole=True)
        if priority > 10:
            raise InvalidInput(f"priority: {priority} is above 10")
        check.check_text(reason, "reason", REASON_BYTES)
        check.check_object({} if metadata is None else metadata, "metadata")
        if bad_text := check.find_bad_text(reason, "reason") or check.find_bad_text(metadata, "metadata"):
            raise InvalidInput(bad_text)
        if self._redaction is not None:
            reason = self._redaction.text("reason", reason)
            metadata = self._redaction.value("metadata", metadata or {})
        return Related(
            from_episode=begin,
            to_episode=end,
            kind=checked_kind(kind),
            priority=int(priority),
            reason=check.plain(reason),
            metadata=check.plain(metadata or {}),
            actor=check.check_actor(actor),
        )

    def unrelated(self, from_episode: object, to_episode: object, kind: object, actor: object) -> Unrelated:
        """See `Relationships.unrelate`."""
        begin, end = _checked_ends(from_episode, to_episode)
        return Unrelated(from_episode=begin, to_episode=end, kind=checked_kind(kind), actor=check.check_actor(actor))


def _checked_ends(from_episode: object, to_episode: object) -> tuple[EpisodeId, EpisodeId]:
    begin, end = checked_id(from_episode, "from_episode"), checked_id(to_episode, "to_episode")
    if begin == end:
        raise InvalidInput(f"to_episode: episode {end!r} cannot be related to itself")
    return begin, end


def checked_kind(kind: object) -> RelationshipKind:
    """A kind of relationship. Raises: `InvalidInput`."""
    if not check.is_one_of(kind, KINDS):
        raise InvalidInput(f"kind: must be one of {', '.join(KINDS)}, not {check.shown(kind)}")
    return cast("RelationshipKind", str(kind))
