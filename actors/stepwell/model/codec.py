"""Records as bytes, and back.

A record is the CBOR array `[schema_version, kind, time_ns, data, meta]`, encoded once, at the door, in the caller's
task. `data` of a step is an array (an array is a fifth cheaper than a map on the hot path), of every other kind a map.
`meta` is null or a map: `key` (idempotency), and in the first record of a stream `stream` (its kind) and `id`.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cbor2

from stepwell.errors import EpisodeUnavailable, InvalidInput, TooLarge
from stepwell.model import validation as check
from stepwell.model.event import DELETED, SCHEMA_VERSION, STEP
from stepwell.model.ids import EPISODE_STREAM, MAX_ID_BYTES
from stepwell.model.item_count import COUNTED_FROM, MAX_ITEMS, has_too_many_items
from stepwell.model.limits import MAX_RECORD_BYTES, Limits
from stepwell.model.plain_step import RESULT_CODES as _RESULT_CODES
from stepwell.model.plain_step import SHORT_TEXT_BYTES, encode_plain_step
from stepwell.model.plain_step import STEP_HEAD as _STEP_HEAD
from stepwell.model.step import ExecutionStep, StepError, StepInterrupted, StepResult, StepSuccess, StepTimeout

STEP_FIELDS = (
    "tool",
    "action",
    "parameters",
    "result",
    "latency_ms",
    "tokens_used",
    "reward",
    "thought",
    "metadata",
    "step_number",
)
_STEP_HEAD_BYTES = len(_STEP_HEAD)
PLAIN_FIELDS = 5
"""So many fields stand in every step; the others only where one of them is set."""
_NOTHING_ELSE = (None,) * (len(STEP_FIELDS) - PLAIN_FIELDS)
_MAX_DEPTH = 2 * check.MAX_DEPTH
_ALLOWED_TAGS = frozenset({2, 3})  # bignums


def _refuse_tag(*_of_the_decoder: object) -> Any:
    raise ValueError("a CBOR tag that no record of ours holds")


_INT64 = 2**63
NUMBERS = frozenset({int, float, type(None)})
"""The types of a number in a record that may be left out."""
_REFUSED = {tag: _refuse_tag for tag in range(64) if tag not in _ALLOWED_TAGS}
_REFUSED |= dict.fromkeys((100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse_tag)


STRICTLY: dict[str, Any] = {
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "max_depth": _MAX_DEPTH,
    "semantic_decoders": _REFUSED,
    "tag_hook": _refuse_tag,
}
"""How cbor2 decodes a record: only what a record of ours may hold."""
_STRICTLY_WITHIN = {**STRICTLY, "max_depth": _MAX_DEPTH + 1}
"""The same within one more array."""
_TOGETHER_BYTES = 256 * 1024
"""Records are decoded together up to this; larger ones are counted and decoded one by one."""
MARK = b"\x1b" + secrets.token_bytes(8)
"""Stands behind each record that is decoded together with others. Nobody can have written it into one, so a record that
holds more or fewer items than it should moves a mark from its place."""
MARK_VALUE = int.from_bytes(MARK[1:], "big")
"""What it is decoded to."""


class DecodedRecord(NamedTuple):
    """The envelope of a record as it stands in the log."""

    schema_version: int
    kind: str
    time_ns: int
    data: Any
    meta: dict[str, Any] | None


_make_decoded: Callable[[Iterable[Any]], DecodedRecord] = partial(tuple.__new__, DecodedRecord)


def encode_record(
    kind: str, time_ns: int, data: object, meta: dict[str, Any] | None, *, path: str, limit: int
) -> bytes:
    """The bytes of one record.

    Raises: `InvalidInput` (a text that is not valid Unicode, with its path below `path`), `TooLarge`.
    """
    try:
        encoded = cbor2.dumps([SCHEMA_VERSION, kind, time_ns, data, meta])
    except UnicodeEncodeError:
        named, root = (_named_step(data), path) if isinstance(data, tuple) else (data, "")
        raise InvalidInput(check.find_bad_text(named, root) or check.find_bad_text(meta, root) or path) from None
    except (cbor2.CBOREncodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: {error}") from error
    _check_size(encoded, path, limit)
    return encoded


def _check_size(encoded: bytes, path: str, limit: int) -> None:
    limit = min(limit, MAX_RECORD_BYTES)
    if len(encoded) > limit:
        raise TooLarge(f"{path}: {len(encoded):,} bytes encoded exceed the limit of {limit:,} a record may have")
    if len(encoded) > COUNTED_FROM and has_too_many_items(encoded):
        raise TooLarge(f"{path}: more than {MAX_ITEMS:,} items in one record; store some of them elsewhere")


def encode_step(step: ExecutionStep, time_ns: int, limits: Limits) -> bytes:
    """Check one step and encode it.

    Raises: `InvalidInput`, `TooLarge`, naming the path inside the step.
    """
    if type(step) is not ExecutionStep:
        raise InvalidInput(f"step: must be an ExecutionStep, not {type(step).__name__}")
    limit = limits.text_bytes
    if limit >= SHORT_TEXT_BYTES:
        encoded = encode_plain_step(step, time_ns, limit)
        if encoded is not None:
            if len(encoded) > COUNTED_FROM or len(encoded) > limits.record_bytes:
                _check_size(encoded, "step", limits.record_bytes)
            return encoded
    tool, action, parameters, result = step.tool, step.action, step.parameters, step.result
    check.check_text(tool, "step.tool", limit, empty=False)
    check.check_text(action, "step.action", limit)
    check.check_object(parameters, "step.parameters")
    coded = None if result is None else _encode_result(result, limit)
    latency_ms, tokens_used, reward = step.latency_ms, step.tokens_used, step.reward
    thought, metadata, key, step_number = step.thought, step.metadata, step.key, step.step_number
    if latency_ms is not None:
        check.check_number(latency_ms, "step.latency_ms", minimum=0)
    data: tuple[Any, ...] = (tool, action, parameters, coded, latency_ms)
    if tokens_used is not None:
        check.check_number(tokens_used, "step.tokens_used", minimum=0, whole=True)
    if reward is not None:
        check.check_number(reward, "step.reward")
    if thought is not None:
        check.check_text(thought, "step.thought", limit)
    check.check_object(metadata, "step.metadata")
    meta = None
    if key is not None:
        check.check_text(key, "step.key", MAX_ID_BYTES, empty=False)
        meta = {"key": key}
    if step_number is not None:
        check.check_number(step_number, "step.step_number", minimum=0, whole=True)
    rest = (tokens_used, reward, thought, metadata or None, step_number)
    if rest != _NOTHING_ELSE:
        data += rest
    return encode_record(STEP, time_ns, data, meta, path="step", limit=limits.record_bytes)


UNSTAMPED_NS = 2**62
"""The time of a record that is encoded before it is accepted; as long as any other that `stamped` puts there."""


def stamped(payload: bytes, time_ns: int) -> bytes:
    """A record that was encoded with UNSTAMPED_NS, with its time."""
    at = 3 + (payload[2] & 0x1F)  # behind the head of the array, the version, and the kind, a text of under 24 bytes
    assert payload[at : at + 9] == _UNSTAMPED
    return b"".join((payload[: at + 1], time_ns.to_bytes(8, "big"), payload[at + 9 :]))


_UNSTAMPED = cbor2.dumps(UNSTAMPED_NS)


def step_fields(data: list[Any]) -> list[Any]:
    """The data of a step record with all of STEP_FIELDS; a record leaves the last five out where none is set."""
    return data[:10] if len(data) > 5 else data + [None] * 5


def _named_step(data: tuple[Any, ...]) -> dict[str, Any]:
    """The data of a step under the names a caller knows them by."""
    named: dict[str, Any] = dict(zip(STEP_FIELDS, data, strict=False))
    if named["result"] is not None:
        code, value = named["result"]
        named["result"] = {"message" if code else "output": value}
    return named


def _encode_result(result: object, limit: int) -> tuple[int, Any]:
    kind = type(result)
    if kind is StepSuccess:
        output = result.output  # type: ignore[attr-defined]
        if isinstance(output, str):
            if len(output) * 4 > limit:
                check.check_text(output, "step.result.output", limit)
        else:
            check.check_json(output, "step.result.output")
        return 0, output
    code = _RESULT_CODES.get(kind)
    if code is None:
        raise InvalidInput(
            f"step.result: must be StepSuccess, StepError, StepTimeout, StepInterrupted or None, not {kind.__name__}"
        )
    message = result.message  # type: ignore[attr-defined]
    check.check_text(message, "step.result.message", limit)
    return code, message


_RESULT_TYPES = (StepSuccess, StepError, StepTimeout, StepInterrupted)
_STATUSES = tuple(kind.__struct_config__.tag for kind in _RESULT_TYPES)


def decode_result(coded: list[Any] | None) -> StepResult | None:
    """The result of a step from its two-item form on disk."""
    return None if coded is None else _RESULT_TYPES[coded[0]](coded[1])


def decode_step(data: list[Any], meta: dict[str, Any] | None) -> ExecutionStep:
    """The step as its caller gave it, from the data and the meta of its record."""
    tool, action, parameters, coded, latency_ms, tokens_used, reward, thought, metadata, step_number = step_fields(data)
    return ExecutionStep(
        tool,
        action,
        parameters,
        decode_result(coded),
        latency_ms,
        tokens_used,
        reward,
        thought,
        metadata or {},
        None if meta is None else meta.get("key"),
        step_number,
    )


def step_data(data: list[Any]) -> dict[str, Any]:
    """The data of a step record as the JSON object that `Event.data` shows."""
    tool, action, parameters, coded, latency_ms, tokens_used, reward, thought, metadata, step_number = step_fields(data)
    result = None if coded is None else {"status": _STATUSES[coded[0]], "message" if coded[0] else "output": coded[1]}
    return {
        "tool": tool,
        "action": action,
        "parameters": parameters,
        "result": result,
        "latency_ms": latency_ms,
        "tokens_used": tokens_used,
        "reward": reward,
        "thought": thought,
        "metadata": metadata or {},
        "step_number": step_number,
    }


def decode_record(payload: bytes, what: str) -> DecodedRecord:
    """The envelope of a record. `what` names the place in the error.

    Raises: `EpisodeUnavailable` (reason "undecodable") if the bytes are not one record of ours.
    """
    if len(payload) > COUNTED_FROM and has_too_many_items(payload):
        raise EpisodeUnavailable(
            f"{what} cannot be decoded: it has more than {MAX_ITEMS:,} items", reason="undecodable"
        )
    stream = io.BytesIO(payload)
    try:
        fields = cbor2.CBORDecoder(stream, **STRICTLY).decode()
        if stream.tell() != len(payload):
            raise ValueError("bytes follow the record")
        if type(fields) is not list or len(fields) != 5:
            raise ValueError("it is not an array of five items")
        schema_version, kind, time_ns, data, meta = fields
        if type(kind) is not str or not _is_int64(time_ns) or not _is_int64(schema_version):
            raise ValueError("its envelope is not of our form")
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError) as error:
        raise EpisodeUnavailable(f"{what} cannot be decoded: {error}", reason="undecodable") from error
    if schema_version > SCHEMA_VERSION:
        raise EpisodeUnavailable(
            f"{what} has schema version {schema_version}, this Stepwell knows {SCHEMA_VERSION}; use a newer one",
            reason="undecodable",
        )
    if not _is_body(kind, data, meta):
        raise EpisodeUnavailable(f"{what} is no sound {kind!r}: its data is not of our form", reason="undecodable")
    return DecodedRecord(schema_version, kind, time_ns, data, meta)


def _is_body(kind: str, data: object, meta: object) -> bool:
    return (is_step(data) if kind == STEP else type(data) is dict) and (meta is None or is_meta(meta))


def decode_records(payloads: Sequence[bytes]) -> list[DecodedRecord] | None:
    """Many records at once, which takes half the time of one by one; None if not all of them are sound, so that
    `decode_record` has to say which is not.

    They are decoded as the items of one array, each with a mark behind it that shows that it is one item.
    """
    if not payloads:
        return []
    if sum(map(len, payloads)) > _TOGETHER_BYTES:
        return None
    head = b"\x9a" + (2 * len(payloads)).to_bytes(4, "big")
    try:
        items = cbor2.loads(b"".join((head, MARK.join(payloads), MARK)), **_STRICTLY_WITHIN)
        if items[1::2] != [MARK_VALUE] * len(payloads):
            return None
        found = items[::2]
        return list(map(_make_decoded, found)) if all(map(_is_record, found)) else None
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError):
        return None


def envelope_of(payload: bytes, what: str) -> tuple[str, int, int]:
    """(kind, time in ns, schema version) of a record. Those of an ordinary step are read off its first bytes.

    Raises: `EpisodeUnavailable` (reason "undecodable").
    """
    if payload.startswith(_STEP_HEAD):
        return STEP, int.from_bytes(payload[_STEP_HEAD_BYTES : _STEP_HEAD_BYTES + 8], "big"), SCHEMA_VERSION
    record = decode_record(payload, what)
    return record.kind, record.time_ns, record.schema_version


def kind_head(kind: str) -> bytes:
    """How every record of this kind begins."""
    return b"\x85" + bytes([SCHEMA_VERSION]) + cbor2.dumps(kind)


PLAIN_STEP = _STEP_HEAD
"""How the record of a step begins that this version writes, and every other record does not."""


def plain_step_time_ns(payload: bytes) -> int:
    """When such a step was accepted. Decodes nothing."""
    return int.from_bytes(payload[_STEP_HEAD_BYTES : _STEP_HEAD_BYTES + 8], "big")


_FAILURE = re.compile(rb"\x82[\x01\x02]")
may_have_failed = _FAILURE.search
"""Finds the head of a failed result (an array of two, and its code) in steps; in nearly all that have it, it is one."""
failures_in = _FAILURE.finditer
"""Finds all of them."""


def is_failed_step(payload: bytes) -> bool:
    """Whether a step failed or timed out. Decodes those only that may have.

    Raises: `EpisodeUnavailable` (reason "undecodable").
    """
    if not may_have_failed(payload):
        return False
    coded = step_fields(decode_record(payload, "a step").data)[3]
    return coded is not None and coded[0] in (_RESULT_CODES[StepError], _RESULT_CODES[StepTimeout])


def event_data(payload: bytes, what: str) -> dict[str, Any]:
    """What `Event.data` shows of a record. Raises: `EpisodeUnavailable` (reason "undecodable")."""
    record = decode_record(payload, what)
    return step_data(record.data) if record.kind == STEP else record.data


def encode_deleted(time_ns: int, actor: str = "") -> bytes:
    """The last record of a deleted stream. It does not name the stream: after a purge nothing may."""
    return encode_record(
        DELETED, time_ns, {"actor": actor} if actor else {}, None, path="deletion", limit=MAX_RECORD_BYTES
    )


def _is_int64(value: object) -> bool:
    return type(value) is int and value.bit_length() <= 63


def is_meta(meta: object) -> bool:
    """Whether this is the meta of a record."""
    return meta is None or (type(meta) is dict and type(meta.get("key", "")) is str)


def _is_record(fields: object) -> bool:
    """Whether this is what `decode_record` takes. For many at once, so it makes no more calls than it must."""
    if type(fields) is not list or len(fields) != 5:
        return False
    schema_version, kind, time_ns, data, meta = fields
    return (
        (type(time_ns) is int and -_INT64 < time_ns < _INT64)
        and (type(schema_version) is int and -_INT64 < schema_version <= SCHEMA_VERSION)
        and type(kind) is str
        and (is_step(data) if kind == STEP else type(data) is dict)
        and (meta is None or is_meta(meta))
    )


def is_step(data: object) -> bool:
    """Whether `data` has the shape of a step. Items behind the ones known here are a newer writer's."""
    if type(data) is not list:
        return False
    if len(data) == 5:
        tool, action, parameters, coded, latency_ms = data
    elif len(data) >= len(STEP_FIELDS):
        tool, action, parameters, coded, latency_ms = data[:5]
    else:
        return False
    if type(tool) is not str or type(action) is not str or type(parameters) is not dict:
        return False
    if type(latency_ms) not in NUMBERS or not (coded is None or is_result(coded)):
        return False
    if len(data) == 5:
        return True
    tokens_used, reward, thought, metadata, step_number = data[5:10]
    return (
        (tokens_used is None or type(tokens_used) is int)
        and type(reward) in NUMBERS
        and (thought is None or type(thought) is str)
        and (metadata is None or type(metadata) is dict)
        and (step_number is None or type(step_number) is int)
    )


def is_result(coded: object) -> bool:
    """Whether this is the two-item form of a result."""
    if type(coded) is not list or len(coded) != 2 or type(coded[0]) is not int:
        return False
    code, value = coded
    return code == 0 or (0 < code < len(_RESULT_TYPES) and type(value) is str)


def first_record_meta(episode_id: str) -> dict[str, Any]:
    """The meta of the first record of an episode's stream: what the 16 bytes on disk stand for."""
    return {"stream": EPISODE_STREAM, "id": episode_id}
