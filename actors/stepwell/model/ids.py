"""Ids of episodes, and how a stream is named on disk."""

from __future__ import annotations

import secrets
import time
from functools import lru_cache
from hashlib import blake2b
from typing import NewType

import uuid_utils.compat

from stepwell.errors import InvalidInput, TooLarge

EpisodeId = NewType("EpisodeId", str)
"""The id of an episode: the caller's text, 1 to 200 bytes of UTF-8 without NUL, or a generated UUIDv7."""
ThreadId = NewType("ThreadId", str)
"""The name of a conversation thread: the caller's text, of the same kind as that of an episode."""
MAX_ID_BYTES = 200
EPISODE_STREAM = "episode"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_episode_id() -> EpisodeId:
    """A fresh UUIDv7 as text: unique, and sortable by the time it was made (ms)."""
    return EpisodeId(str(uuid_utils.compat.uuid7()))


def checked_id(value: object, name: str = "episode_id") -> EpisodeId:
    """`value` as an id: text of 1 to 200 bytes of UTF-8 without NUL.

    Raises: `InvalidInput`, `TooLarge`.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{name}: an id is text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name}: {error.reason} at character {error.start}; an id must be valid Unicode") from None
    if not value or "\0" in value:
        raise InvalidInput(f"{name}: an id must not be {'empty' if not value else 'text with NUL characters'}")
    if size > MAX_ID_BYTES:
        raise TooLarge(f"{name}: {size} bytes exceed the {MAX_ID_BYTES} an id may have")
    return EpisodeId(str.__str__(value))


@lru_cache(maxsize=4096)
def stream_id(kind: str, text: str) -> bytes:
    """The 16-byte name of a stream on disk: BLAKE2b-128 of kind NUL id. The text is in the stream's first record."""
    return hashed_stream_id(kind, text)


def hashed_stream_id(kind: str, text: str) -> bytes:
    """The same for names that do not come again soon: to remember each costs as much as to work it out."""
    return blake2b(f"{kind}\0{text}".encode(), digest_size=16).digest()


class RunId(str):
    """The id of a run: the same kind of id as that of an episode, text. `RunId.new()` makes a ULID: 26 characters that
    sort by the millisecond in which it was made."""

    __slots__ = ()

    @classmethod
    def new(cls) -> RunId:
        """A fresh ULID: 48 bits of milliseconds since 1970, 80 random bits, in Crockford's base 32."""
        number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        return cls("".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5)))
