"""What the payloads of a log say, for commands that look at a log without opening it as a memory."""

from __future__ import annotations

import json
from typing import Any

from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import decode_record, step_data
from stepwell.model.event import STEP, utc


def describe_payload(payload: bytes) -> Any:
    """A record as a JSON object, None if it is no record of ours that JSON can hold."""
    try:
        record = decode_record(payload, "a record")
        described = {
            "kind": record.kind,
            "time": utc(record.time_ns).isoformat(),
            "schema_version": record.schema_version,
            "data": step_data(record.data) if record.kind == STEP else record.data,
            "meta": record.meta,
        }
        json.dumps(described, allow_nan=False)
    except (EpisodeUnavailable, ValueError, TypeError, OverflowError, LookupError):
        return None
    return described


def stream_name(payload: bytes) -> str | None:
    """What the first record of a stream calls it: the id of an episode, with its kind for other streams."""
    try:
        meta = decode_record(payload, "a first record").meta or {}
    except EpisodeUnavailable:
        return None
    kind, name = meta.get("stream"), meta.get("id")
    return f"{kind} {name}" if isinstance(kind, str) and isinstance(name, str) else None
