"""How a store of facts ranks."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class RecallSemantics(msgspec.Struct, frozen=True, kw_only=True):
    """How a store of facts ranks what it finds, so that nobody takes an order for a ranking that is none.

    `kind`: "lexical" (by words), or "hybrid" (by words and vectors). `description`: the same in a sentence.
    `settings`: the numbers it uses.
    """

    kind: Literal["lexical", "hybrid"]
    description: str
    settings: dict[str, Any]
