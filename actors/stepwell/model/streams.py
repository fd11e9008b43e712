"""Streams of other kinds than episodes: how they are named on disk.

A stream that was deleted takes nothing any more, and its name is never used again. What can be cleared and used again,
such as a conversation, is therefore a row of streams, its *generations*: clearing it deletes the one in use, and the
next record begins another. At most the last of them holds records.
"""

from __future__ import annotations

from typing import Any

from stepwell.model.ids import stream_id

THREAD_STREAM = "thread"
SCOPE_STREAM = "scope"
OTHER_STREAMS = (THREAD_STREAM, SCOPE_STREAM)


def generation_id(kind: str, name: str, generation: int) -> bytes:
    """The 16-byte name on disk of one generation, from 1; names of streams hold no NUL, so no two of them are alike."""
    return stream_id(kind, name if generation == 1 else f"{name}\0{generation}")


def generation_meta(kind: str, name: str, generation: int) -> dict[str, Any]:
    """The meta of the first record of a generation: what the 16 bytes on disk stand for."""
    meta: dict[str, Any] = {"stream": kind, "id": name}
    if generation > 1:
        meta["generation"] = generation
    return meta


def is_named(meta: dict[str, Any], stream: bytes) -> bool:
    """Whether a first record with this meta belongs to the stream of that name on disk."""
    kind, name, generation = meta.get("stream"), meta.get("id"), meta.get("generation", 1)
    return (
        isinstance(kind, str)
        and isinstance(name, str)
        and type(generation) is int
        and generation_id(kind, name, generation) == stream
    )
