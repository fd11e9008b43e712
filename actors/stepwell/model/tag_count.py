"""What a list of tags says of each."""

from __future__ import annotations

import msgspec


class TagCount(msgspec.Struct, frozen=True, kw_only=True):
    """A tag, as it is spelled in the newest episode that has it, and how many episodes have it, in whatever case."""

    tag: str
    episodes: int


class TagPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some tags, and the cursor behind them: None at the end."""

    items: list[TagCount]
    next_cursor: str | None
