"""Facts a page at a time."""

from __future__ import annotations

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.fact import StoredFact


class FactPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some facts, and the cursor behind them: None at the end."""

    items: list[StoredFact]
    next_cursor: str | None


def fact_cursor(generation: int, number: int) -> str:
    """The place behind a fact."""
    return f"{generation}.{number}"


def parse_fact_cursor(cursor: object) -> tuple[int, int]:
    """Generation and number. Raises: `InvalidInput`."""
    if isinstance(cursor, str):
        generation, dot, number = cursor.partition(".")
        if dot and all(part.isascii() and part.isdigit() and len(part) < 20 for part in (generation, number)):
            return int(generation), int(number)
    raise InvalidInput(f"cursor: {check.shown(cursor)} is none; use the next_cursor of a page, or None to begin")
