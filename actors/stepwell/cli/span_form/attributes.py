"""Values of attributes, as OTLP's JSON encoding has them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

from stepwell.cli.neutral_form import BadLine, JsonObject

OPERATION = "gen_ai.operation.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
TOOL = "gen_ai.tool.name"
CALL_ID = "gen_ai.tool.call.id"
ARGUMENTS = "gen_ai.tool.call.arguments"
RESULT = "gen_ai.tool.call.result"
MODEL = "gen_ai.request.model"
INPUT = "gen_ai.input.messages"
OUTPUT = "gen_ai.output.messages"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"
EPISODE = "stepwell.episode.id"
START, STEP, COMPLETE = "stepwell.start", "stepwell.step", "stepwell.complete"


def encoded(attributes: Mapping[str, Any]) -> list[JsonObject]:
    """Attributes as a list of keys and values; those that are None are left out."""
    return [{"key": name, "value": _value(value)} for name, value in attributes.items() if value is not None]


def _value(value: Any) -> JsonObject:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits: a number of JSON would not be kept whole by every reader
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"stringValue": as_json(value)}


def as_json(value: Any) -> str:
    """Any JSON value as text, in one way only."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def decoded(attributes: object) -> JsonObject:
    """A list of keys and values as an object. Raises: `BadLine`."""
    if attributes is None:
        return {}
    if not isinstance(attributes, list):
        raise BadLine("attributes: a list is wanted")
    found: JsonObject = {}
    for attribute in attributes:
        if not isinstance(attribute, dict) or not isinstance(attribute.get("key"), str):
            raise BadLine("attributes: objects with a key are wanted")
        found[attribute["key"]] = _plain(attribute.get("value"))
    return found


def _plain(value: object) -> Any:
    if not isinstance(value, dict):
        return None
    for kind, inside in value.items():
        if kind in ("stringValue", "string_value"):
            return inside if isinstance(inside, str) else None
        if kind in ("boolValue", "bool_value"):
            return bool(inside)
        if kind in ("intValue", "int_value"):
            return whole_number(inside)
        if kind in ("doubleValue", "double_value"):
            return inside if isinstance(inside, int | float) else None
        if kind in ("arrayValue", "array_value"):
            return [_plain(item) for item in _listed(inside, "values")]
        if kind in ("kvlistValue", "kvlist_value"):
            return decoded(_listed(inside, "values"))
        if kind in ("bytesValue", "bytes_value"):
            return _text_of_bytes(inside)
    return None


def _listed(holder: object, name: str) -> list[Any]:
    values = holder.get(name, []) if isinstance(holder, dict) else []
    if not isinstance(values, list):
        raise BadLine(f"{name}: a list is wanted")
    return values


def _text_of_bytes(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        return value


def whole_number(value: object) -> int | None:
    """A 64-bit number, which OTLP writes as text; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, str) and (len(value) > 20 or not value.removeprefix("-").isascii()):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if number.bit_length() <= 64 else None


def from_json(text: object) -> Any:
    """What a text says if it is JSON, else the value itself: many write one where the conventions want the other."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> None:
    raise ValueError(name)


def without(event: JsonObject, names: Iterable[str]) -> JsonObject:
    """An event without some of its keys."""
    left_out = set(names)
    return {name: value for name, value in event.items() if name not in left_out}
