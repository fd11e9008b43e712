"""The circumstances of a task: what retrieval and learning compare episodes by."""

from __future__ import annotations

from typing import Literal

import msgspec

Complexity = Literal["simple", "moderate", "complex"]


class TaskContext(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Language, framework, domain, complexity and tags of a task; all optional."""

    language: str | None = None
    framework: str | None = None
    domain: str = "general"
    complexity: Complexity = "moderate"
    tags: list[str] = []
