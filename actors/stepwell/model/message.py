"""What a conversation is made of: messages, and summaries of what came before, checked and as records."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, TypeAlias

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model import wire
from stepwell.model.codec import DecodedRecord, encode_record
from stepwell.model.limits import Limits
from stepwell.model.redaction import Redaction

MESSAGE, SUMMARY = "message", "summary"
Oversize: TypeAlias = Literal["strict", "keep_last", "raise"]


class Role(StrEnum):
    """Who speaks. Others are kept as the text they are."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Message(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """One message. `role` is one of `Role`, or any other text, which is kept as it is. `tool_calls` are JSON values, as
    the model gave them; `tool_call_id` says which of them a reply of a tool answers. `wire`: the line of JSON it was
    read from, where that is another than the message itself would be written as."""

    role: str
    content: str = ""
    tool_calls: list[Any] = []
    tool_call_id: str | None = None
    wire: str | None = None


class ThreadSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What stands for the messages `first_seq` to `last_seq` of a thread (their numbers, as in their receipts)."""

    text: str
    first_seq: int
    last_seq: int


TokenCounter: TypeAlias = Callable[[Message], int]
"""Gives what a message costs, in tokens."""


def chars_over_4(message: Message) -> int:
    """klieo's rule: the characters of the content, divided by four, and at least 1. Tool calls are free."""
    return len(message.content) // 4 or 1


def checked_message(message: object, limits: Limits, redaction: Redaction | None) -> Message:
    """A message as it is to be stored and will be read back. Raises: `InvalidInput`, `TooLarge`, `Rejected`."""
    if type(message) is not Message:
        raise InvalidInput(f"message: must be a Message, not {type(message).__name__}")
    check.check_text(message.role, "message.role", 1_000, empty=False)
    check.check_text(message.content, "message.content", limits.text_bytes)
    check.check_optional_text(message.tool_call_id, "message.tool_call_id", limits.text_bytes)
    if not isinstance(message.tool_calls, list | tuple):
        raise InvalidInput(
            f"message.tool_calls: must be a list of JSON values, not {type(message.tool_calls).__name__}"
        )
    if message.tool_calls:
        check.check_json(message.tool_calls, "message.tool_calls")
    check.check_optional_text(message.wire, "message.wire", limits.record_bytes)
    if redaction is not None:
        redacted = redaction.fields("message", message, ("content", "tool_calls"))
        if (redacted.content, redacted.tool_calls) != (message.content, list(message.tool_calls)):
            message = msgspec.structs.replace(redacted, wire=None)  # the line says what must not be stored
    return message


def checked_summary(text: object, first_seq: object, last_seq: object, limits: Limits) -> ThreadSummary:
    """Raises: `InvalidInput`, `TooLarge`."""
    check.check_text(text, "text", limits.text_bytes)
    check.check_number(first_seq, "first_seq", minimum=1, whole=True)
    check.check_number(last_seq, "last_seq", minimum=1, whole=True)
    summary = ThreadSummary(text=check.plain(text), first_seq=check.plain(first_seq), last_seq=check.plain(last_seq))
    if summary.last_seq < summary.first_seq:
        raise InvalidInput(f"last_seq: {last_seq} comes before first_seq {first_seq}")
    return summary


# ---- records ---------------------------------------------------------------------------------------------------------


def encode_message(message: Message, time_ns: int, meta: dict[str, Any] | None, limits: Limits) -> bytes:
    """The record of a checked message. Raises: `InvalidInput` (no valid Unicode), `TooLarge`."""
    data: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.tool_calls:
        data["tool_calls"] = message.tool_calls
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    if message.wire is not None:
        meta = {**(meta or {}), "wire": message.wire}
    return encode_record(MESSAGE, time_ns, data, meta, path="message", limit=limits.record_bytes)


def encode_summary(summary: ThreadSummary, time_ns: int, meta: dict[str, Any] | None, limits: Limits) -> bytes:
    """The record of a checked summary. Raises: `InvalidInput`, `TooLarge`."""
    data = msgspec.to_builtins(summary)
    return encode_record(SUMMARY, time_ns, data, meta, path="summary", limit=limits.record_bytes)


_ROLES: dict[str, str] = {role.value: role for role in Role}


def decode_message(record: DecodedRecord) -> Message:
    """A message from its record. Raises: `KeyError`, `TypeError`, `ValueError` for one that is not sound."""
    data, meta = record.data, record.meta
    role, content, tool_calls, call_id = data["role"], data["content"], data.get("tool_calls"), data.get("tool_call_id")
    if type(role) is not str or type(content) is not str or not (tool_calls is None or type(tool_calls) is list):
        raise ValueError("it is no message of our form")
    if call_id is not None and type(call_id) is not str:
        raise ValueError("its tool_call_id is no text")
    stored_wire = None if meta is None else meta.get("wire")
    return Message(_ROLES.get(role, role), content, tool_calls or [], call_id, stored_wire)


def decode_summary(record: DecodedRecord) -> ThreadSummary:
    """A summary from its record. Raises: `msgspec.ValidationError`."""
    return msgspec.convert(record.data, ThreadSummary)


# ---- klieo's JSON ----------------------------------------------------------------------------------------------------


def message_to_json(message: Message) -> str:
    """The message as one line of klieo's JSON; as it was read, if it was. Raises: `InvalidInput`."""
    checked_message(message, Limits(), None)
    return message.wire if message.wire is not None else _dumped(message)


def _dumped(message: Message) -> str:
    return wire.dump(
        {
            "role": str(message.role),
            "content": message.content,
            "tool_calls": message.tool_calls,
            "tool_call_id": message.tool_call_id,
        }
    )


def message_from_json(line: str) -> Message:
    """The message in a line of klieo's JSON; it is written again byte for byte. Unknown fields are kept in `wire`.

    Raises: `InvalidInput`.
    """
    text = line.strip(" \t\r\n") if isinstance(line, str) else line
    value = wire.load(text, "message")
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise InvalidInput("message: must be a map with a role")
    role, content, tool_calls = str(value["role"]), value.get("content"), value.get("tool_calls")
    call_id = value.get("tool_call_id")
    message = Message(
        _ROLES.get(role, role),
        content if isinstance(content, str) else "" if content is None else wire.dump(content),
        tool_calls if isinstance(tool_calls, list) else [],
        call_id if isinstance(call_id, str) else None,
    )
    checked_message(message, Limits(), None)
    return message if _dumped(message) == text else msgspec.structs.replace(message, wire=text)
