"""Records of a journal as a test reads them."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstore.journal import InMemoryStreams
from stepwell.errors import EpisodeUnavailable
from stepwell.model.codec import decode_record, decode_step, encode_step, event_data
from stepwell.model.event import STEP
from stepwell.model.limits import Limits
from stepwell.model.step import ExecutionStep


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record, decoded from its bytes.

    `id` names its stream (of an episode: the episode id; "" where nothing tells it), `seq` is its number there. `kind`
    and `data` are those of `Event`; of bytes that are no record of ours they are "" and empty. `key` is the idempotency
    key of a step, `time_ns` the time in nanoseconds since 1970.
    """

    id: str
    seq: int
    kind: str
    data: dict[str, Any]
    key: str | None
    time_ns: int
    payload: bytes

    def step(self) -> ExecutionStep:
        """The step as its caller gave it. Raises: `ValueError` if this is no step."""
        if self.kind != STEP:
            raise ValueError(f"record {self.seq} of {self.id!r} is no step but {self.kind!r}")
        decoded = decode_record(self.payload, "a record")
        return decode_step(decoded.data, decoded.meta)


def read_record(name: str, seq: int, payload: bytes) -> StoredRecord:
    """The record that these bytes are."""
    try:
        decoded = decode_record(payload, "a record")
    except EpisodeUnavailable:
        return StoredRecord(id=name, seq=seq, kind="", data={}, key=None, time_ns=0, payload=payload)
    return StoredRecord(
        id=name,
        seq=seq,
        kind=decoded.kind,
        data=event_data(payload, "a record"),
        key=None if decoded.meta is None else decoded.meta.get("key"),
        time_ns=decoded.time_ns,
        payload=payload,
    )


def name_of(first_payload: bytes | None) -> str:
    """The id of a stream as text, from its first record; "" if that does not say it, or is gone."""
    if first_payload is None:
        return ""
    try:
        meta = decode_record(first_payload, "a record").meta
    except EpisodeUnavailable:
        return ""
    name = None if meta is None else meta.get("id")
    return name if isinstance(name, str) else ""


def stored_name(kept: InMemoryStreams, stream: bytes) -> str:
    """The id of a stored stream as text."""
    records = kept.records.get(stream)
    return name_of(records[0][1]) if records else ""


def as_stored(step: ExecutionStep) -> ExecutionStep:
    """The step as it reads back: a tuple in it, for instance, is a list then. Raises: `InvalidInput`, `TooLarge`."""
    decoded = decode_record(encode_step(step, 0, Limits()), "a step")
    return decode_step(decoded.data, decoded.meta)
