"""An event as a line of text."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from stepwell.cli.neutral_form.events import BadLine, JsonObject
from stepwell.cli.neutral_form.fields import kind_of, shown


def parse_line(line: bytes) -> JsonObject:
    """One line as the JSON object it is.

    Raises:
        BadLine: it is not UTF-8, not JSON, not an object, or holds NaN, an infinity or one key twice.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None
    try:
        event = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object_of)
    except BadLine:
        raise
    except json.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON that can be read: {error}") from None
    if not isinstance(event, dict):
        raise BadLine(f"a JSON object is wanted, not {kind_of(event)}")
    return event


def to_line(event: JsonObject) -> bytes:
    """An event as one line of UTF-8, its newline included."""
    return json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8") + b"\n"


def _object_of(pairs: list[tuple[str, Any]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadLine(f"the key {shown(twice)} stands twice in one object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise BadLine(f"not JSON: {name} is no JSON number")
