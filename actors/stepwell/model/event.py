"""The envelope of every record: who it belongs to, where it stands, when it was accepted, and what it says."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

SCHEMA_VERSION = 1
STARTED, STEP, ENDED = "started", "step", "ended"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One durable record of a stream.

    `stream` is the id of the episode; `seq` its number there, `lsn` its number in the log; `cursor` a text to resume
    a reading behind it. `time` is when it was accepted, UTC, never going back within a stream; `time_ns` the same in
    nanoseconds since 1970. `kind` is "started", "step" or "ended", and `data` a JSON object of that kind.
    """

    stream: str
    kind: str
    seq: int
    lsn: int
    cursor: str
    time: dt.datetime
    time_ns: int
    schema_version: int
    data: dict[str, Any]


def utc(time_ns: int) -> dt.datetime:
    """Nanoseconds since 1970 as an aware UTC datetime (microseconds, rounded down)."""
    return _EPOCH + dt.timedelta(microseconds=time_ns // 1000)
