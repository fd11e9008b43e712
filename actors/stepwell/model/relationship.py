"""How one episode stands to another."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, TypeAlias

import msgspec

RelationshipKind: TypeAlias = Literal[
    "parent_child", "depends_on", "follows", "related_to", "blocks", "duplicates", "references"
]
KINDS: tuple[str, ...] = RelationshipKind.__args__  # type: ignore[attr-defined]
ACYCLIC = frozenset({"parent_child", "depends_on", "blocks"})
"""Kinds whose relationships may not lead back to where they began."""


class Relationship(msgspec.Struct, frozen=True, kw_only=True):
    """A directed relationship: `from_episode` is the parent of, depends on, follows, is related to, blocks, duplicates,
    or references `to_episode`. `priority` is 1 (lowest) to 10; `actor` is who asked for it, and `created_at` UTC.
    """

    from_episode: str
    to_episode: str
    kind: RelationshipKind
    priority: int = 5
    reason: str = ""
    metadata: dict[str, Any] = {}
    actor: str = ""
    created_at: dt.datetime
