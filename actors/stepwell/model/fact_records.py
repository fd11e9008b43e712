"""Changes of a scope as records of its stream, and back.

A fact is the record "remembered"; its number is that of the record. "forgotten" names one by its number. Everything a
scope says is the fold of these in order.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import msgspec

from stepwell.errors import InvalidInput, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import DecodedRecord, encode_record
from stepwell.model.fact import Fact, FactId, Origin, StoredFact
from stepwell.model.ids import checked_id
from stepwell.model.limits import Limits
from stepwell.model.redaction import Redaction
from stepwell.model.scope import Scope

REMEMBERED, FORGOTTEN = "remembered", "forgotten"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MAX_VECTOR = 65_536


class Remembered(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fact that was remembered.

    `said_ns`: when what it says was so, if the writer gave that; `expires_ns`: from when it is not found; both in ns
    since 1970. `run`, `step`: where it came from. `supersedes`: the number of the fact it takes the place of. `vector`:
    what an embedder made of the text, as 32-bit floats, least significant byte first, in base64.
    """

    text: str
    metadata: Any = None
    said_ns: int | None = None
    expires_ns: int | None = None
    run: str | None = None
    step: int | None = None
    supersedes: int | None = None
    vector: str | None = None


class Forgotten(msgspec.Struct, frozen=True):
    """The fact of that number was forgotten."""

    number: int


Change: TypeAlias = Remembered | Forgotten


def checked_fact(
    fact: object,
    *,
    path: str,
    limits: Limits,
    redaction: Redaction | None,
    time: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    origin: Origin | None = None,
    supersedes: int | None = None,
) -> Remembered:
    """A fact as it is to be stored, equal to what will be read back.

    Raises: `InvalidInput`, `TooLarge`, naming the argument; `Rejected` (the redactor failed).
    """
    if not isinstance(fact, Fact):
        raise InvalidInput(f"{path}: must be a Fact, not {check.shown(fact)}")
    text, metadata = fact.text, fact.metadata
    if not (type(text) is str and text and not text.isspace() and len(text) * 4 <= limits.text_bytes):
        check.check_text(text, f"{path}.text", limits.text_bytes, empty=False)
        text = str.__str__(text)
    if metadata is not None:
        check.check_json(metadata, f"{path}.metadata")
        metadata = check.plain(metadata)
    if redaction is not None:
        text, metadata = redaction.text(f"{path}.text", text), redaction.value(f"{path}.metadata", metadata)
    if time is None and expires_at is None and origin is None and supersedes is None:
        return Remembered(text, metadata)
    run, step = (None, None) if origin is None else _checked_origin(origin)
    return Remembered(
        text,
        metadata,
        said_ns=None if time is None else nanoseconds(time, "time"),
        expires_ns=None if expires_at is None else nanoseconds(expires_at, "expires_at"),
        run=run,
        step=step,
        supersedes=supersedes,
    )


def _checked_origin(origin: object) -> tuple[str, int | None]:
    if not isinstance(origin, Origin):
        raise InvalidInput(f"origin: must be an Origin, not {check.shown(origin)}")
    if origin.step is not None:
        check.check_number(origin.step, "origin.step", minimum=1, whole=True)
    return checked_id(origin.run, "origin.run"), origin.step


def nanoseconds(time: object, path: str) -> int:
    """An aware time as nanoseconds since 1970. Raises: `InvalidInput`."""
    if not isinstance(time, dt.datetime):
        raise InvalidInput(f"{path}: must be a datetime, not {check.shown(time)}")
    if time.utcoffset() is None:
        raise InvalidInput(f"{path}: {time.isoformat()} has no time zone; use an aware datetime, such as one in UTC")
    return (time - _EPOCH) // dt.timedelta(microseconds=1) * 1000


def moment(time_ns: int) -> dt.datetime:
    """The inverse of `nanoseconds`."""
    return _EPOCH + dt.timedelta(microseconds=time_ns // 1000)


def encode_change(change: Change, time_ns: int, meta: dict[str, Any] | None, limits: Limits) -> bytes:
    """The record of a change. Raises: `InvalidInput` (text that is not valid Unicode), `TooLarge`."""
    if isinstance(change, Forgotten):
        data: dict[str, Any] = {"number": change.number}
        return encode_record(FORGOTTEN, time_ns, data, meta, path="forgotten", limit=limits.record_bytes)
    data = {"text": change.text}
    for name in Remembered.__struct_fields__[1:]:
        value = getattr(change, name)
        if value is not None:
            data[name] = value
    return encode_record(REMEMBERED, time_ns, data, meta, path="fact", limit=limits.record_bytes)


def decode_change(record: DecodedRecord) -> Change | None:
    """The change that a record stands for; None if it is of another kind. Raises: `msgspec.ValidationError`."""
    if record.kind == REMEMBERED:
        return msgspec.convert(record.data, Remembered)
    return msgspec.convert(record.data, Forgotten) if record.kind == FORGOTTEN else None


def checked_vector(vector: Any, dimensions: int | None, path: str) -> list[float]:
    """What an embedder gave for one text. Raises: `InvalidInput`, `TooLarge`."""
    if not isinstance(vector, list | tuple):
        try:
            vector = list(vector)  # an array of numpy, for instance
        except TypeError:
            raise InvalidInput(f"{path}: the embedder must give lists of numbers, not {check.shown(vector)}") from None
    numbers: list[float] = []
    for item in vector:
        try:
            number = float(item)
        except (TypeError, ValueError):
            raise InvalidInput(f"{path}: the embedder gave {check.shown(item)} for a number") from None
        if number - number != 0:
            raise InvalidInput(f"{path}: the embedder gave {number!r}, which is no number to compare")
        numbers.append(number)
    if not numbers:
        raise InvalidInput(f"{path}: the embedder gave no numbers")
    if len(numbers) > _MAX_VECTOR:
        raise TooLarge(f"{path}: {len(numbers):,} numbers exceed the {_MAX_VECTOR:,} of a vector")
    if dimensions is not None and len(numbers) != dimensions:
        raise InvalidInput(
            f"{path}: the embedder gave {len(numbers)} numbers, the facts of this scope have {dimensions}; one scope "
            "takes one embedder"
        )
    return numbers


# ---- ids -------------------------------------------------------------------------------------------------------------


def fact_id(scope: Scope, generation: int, number: int) -> FactId:
    """The id of a fact. It tells the scope, so that an id is enough to find it, and is never given twice: when a scope
    is cleared its numbers begin anew in the next generation."""
    return FactId(f"{scope.stream_name}/{generation}.{number}")


def parse_fact_id(text: str) -> tuple[Scope, int, int] | None:
    """Scope, generation and number of a fact; None if that is no id that was ever given."""
    stream_name, slash, place = text.rpartition("/")
    generation, dot, number = place.partition(".")
    scope = Scope.from_stream_name(stream_name)
    if scope is None or not (slash and dot) or not (_is_count(generation) and _is_count(number)):
        return None
    return scope, int(generation), int(number)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0" and len(text) < 20


def stored_fact(
    scope: Scope, generation: int, number: int, change: Remembered, time_ns: int, superseded_by: int | None
) -> StoredFact:
    """A fact as a caller sees it."""
    superseded = change.supersedes
    return StoredFact(
        change.text,
        check.plain(change.metadata),  # the caller's own: it may do with it what it likes
        id=fact_id(scope, generation, number),
        scope=scope,
        time=moment(time_ns if change.said_ns is None else change.said_ns),
        origin=None if change.run is None else Origin(change.run, change.step),
        expires_at=None if change.expires_ns is None else moment(change.expires_ns),
        supersedes=None if superseded is None else fact_id(scope, generation, superseded),
        superseded_by=None if superseded_by is None else fact_id(scope, generation, superseded_by),
    )
