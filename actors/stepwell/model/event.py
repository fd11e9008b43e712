"""The envelope of every record: who it belongs to, where it stands, when it was accepted, and what it says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

SCHEMA_VERSION = 1
STARTED, STEP, ENDED, DELETED = "started", "step", "ended", "deleted"
TAGGED, UPDATED, ARCHIVED, RESTORED = "tagged", "updated", "archived", "restored"
RELATED, UNRELATED, CHECKPOINTED = "related", "unrelated", "checkpointed"
RECORDED = "recorded"
"""An event of a run that is no start, no step and no ending."""
CLEARED = "cleared"
"""The last record of a stream that is no episode: it was cleared, and may begin anew under another name on disk."""
_EXACT = 2**32 * 1_000_000
"""Below this, a float of seconds is nearer to its microsecond than to any other (2**32 s have steps of 0.5 µs)."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Event(msgspec.Struct, frozen=True, dict=True, eq=False):
    """One durable record of a stream.

    `stream` is the id of the episode, or the name of the thread or scope ("" where it was deleted and nothing tells it
    any more); `seq` its number there, `lsn` its number in the log; `cursor` a text to resume a reading behind it.
    `time` is when it was accepted, UTC, never going back within a stream; `time_ns` the same in nanoseconds since 1970.
    `kind` is "started", "step", "ended" or "deleted" (the last of its stream); "recorded" is any other event of a run
    (`stepwell.events`); or it says how the episode was organised, which may come behind its ending: "tagged",
    "updated", "archived", "restored", "related", "unrelated", "checkpointed". A thread has "message" and "summary", and
    "cleared" is the last of a thread or scope. `data` is a JSON object of that kind.

    `data` is decoded when it is first asked for; where the stored bytes are not sound, that raises
    `EpisodeUnavailable` (reason "undecodable").
    """

    stream: str
    kind: str
    seq: int
    lsn: int
    time_ns: int
    schema_version: int
    _payload: bytes
    _decode: Callable[[bytes, str], dict[str, Any]]
    _cursor: Callable[[int], str]

    @cached_property
    def data(self) -> dict[str, Any]:
        return self._decode(self._payload, f"record {self.seq} of episode {self.stream!r}")

    @property
    def cursor(self) -> str:
        return self._cursor(self.lsn)

    @property
    def time(self) -> dt.datetime:
        return utc(self.time_ns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return (self.stream, self.lsn, self._payload) == (other.stream, other.lsn, other._payload)

    def __ne__(self, other: object) -> bool:
        """As `__eq__` says: a Struct would compare by identity."""
        return not self == other

    def __hash__(self) -> int:
        return hash((self.stream, self.lsn))

    def __repr__(self) -> str:
        return (
            f"Event({self.kind!r}, stream={self.stream!r}, seq={self.seq}, lsn={self.lsn}, time={self.time:%FT%T.%fZ})"
        )


def utc(time_ns: int) -> dt.datetime:
    """Nanoseconds since 1970 as an aware UTC datetime (microseconds, rounded down)."""
    microseconds = time_ns // 1000
    if 0 <= microseconds < _EXACT:
        return dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.UTC)
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def utc_of_each(times_ns: Sequence[int]) -> list[dt.datetime]:
    """The same of several that are not negative, without a call in Python for each."""
    if max(times_ns, default=0) // 1000 >= _EXACT:
        return list(map(utc, times_ns))
    seconds = [time_ns // 1000 / 1_000_000 for time_ns in times_ns]
    return msgspec.convert(seconds, list[dt.datetime], strict=False)  # in a fifth of the time of `fromtimestamp`
