"""What an event says and the model would say otherwise: kept in metadata, and laid over the event on the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stepwell.cli.neutral_form.events import JsonObject

KEPT_APART = "neutral_form"
"""The metadata key that holds what writing an event from the model would get wrong."""

# Keys that an event has only where the model has the value: metadata of that name must not look like it.
_RESERVED: Mapping[str, tuple[str, ...]] = {
    "start": ("language", "framework", "complexity", "task_type", "parent", "thread"),
    "step": ("thought", "tokens_used"),
    "complete": ("outcome_detail",),
}


def same(a: object, b: object) -> bool:
    """Whether two JSON values are the very same, `1`, `1.0` and `true` being three different ones."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b and math.copysign(1.0, a) == math.copysign(1.0, b)
    return a == b


def with_difference(metadata: JsonObject, event: JsonObject, written: JsonObject) -> JsonObject:
    """The metadata, with what `written` would get wrong about `event` under `KEPT_APART`."""
    absent = [name for name in written if name not in event]
    values = {name: value for name, value in event.items() if name not in written or not same(written[name], value)}
    if not absent and not values:
        return metadata
    difference: JsonObject = {}
    if absent:
        difference["absent"] = absent
    if values:
        difference["values"] = values
    return {**metadata, KEPT_APART: difference}


def corrected(written: JsonObject, metadata: JsonObject) -> JsonObject:
    """The event as it was read, from what the model says of it and the difference in its metadata, if any."""
    difference = metadata.get(KEPT_APART)
    if not isinstance(difference, dict):
        return written
    absent, values = difference.get("absent", []), difference.get("values", {})
    if not isinstance(absent, list) or not isinstance(values, dict):
        return written
    for name in absent:
        if isinstance(name, str):
            written.pop(name, None)
    return {**written, **values}


def with_others(event: JsonObject, metadata: JsonObject) -> JsonObject:
    """The event with the metadata as further keys; what would hide a key of the form goes under `metadata`."""
    hidden: JsonObject = {}
    for name, value in metadata.items():
        if name == KEPT_APART or (name in event and event[name] is value):
            continue
        if name in event or name in _RESERVED.get(event["event"], ()):
            hidden[name] = value
        else:
            event[name] = value
    if hidden:
        if "metadata" in event:
            hidden["metadata"] = event["metadata"]
        event["metadata"] = hidden
    return event
