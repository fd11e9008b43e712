"""How large things may be. Every limit is checked before anything is accepted."""

from __future__ import annotations

import msgspec

from stepwell.model import validation as check

MAX_RECORD_BYTES = 16 * 1024 * 1024 - 64
"""What the log takes as one record: its bound for a batch, less what it adds to a record. No limit goes above it."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Upper bounds, in bytes of UTF-8 or counts.

    `record_bytes`: one encoded record, and one atomic batch. `text_bytes`: one text field (tool, action, thought,
    a textual result). `steps_per_episode`: steps of one episode. `task_bytes`: the task description.
    `tag_bytes`: one tag after trimming.
    """

    record_bytes: int = 16 * 1024 * 1024
    text_bytes: int = 1024 * 1024
    steps_per_episode: int = 100_000
    task_bytes: int = 10_000
    tag_bytes: int = 100

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check.check_number(getattr(self, name), f"limits.{name}", minimum=1, whole=True)

    @classmethod
    def reference(cls) -> Limits:
        """The numbers of the reference system (1,000 steps, 10,000-byte observations, 1 MB of parameters)."""
        return cls(record_bytes=1_000_000, text_bytes=10_000, steps_per_episode=1_000, task_bytes=10_000)


DEFAULT_LIMITS = Limits()
