"""The fast lane of the hot path: the bytes of an ordinary step, put together by hand.

They are the bytes that cbor2 makes of it, in less than half the time: a call of cbor2 takes as long as three short
texts do here. Ordinary is what has exact types and none of the rarely used fields. Everything else, and whatever has to
be refused, is left to `codec.encode_step`, which says why.
"""

from __future__ import annotations

from typing import Any

import cbor2

from stepwell.errors import Rejected
from stepwell.model import validation as check
from stepwell.model.event import SCHEMA_VERSION, STEP
from stepwell.model.step import ExecutionStep, StepError, StepInterrupted, StepSuccess, StepTimeout

STEP_HEAD = b"\x85" + bytes([SCHEMA_VERSION]) + cbor2.dumps(STEP) + b"\x1b"  # array of 5, version, kind, a u64 to come
RESULT_CODES: dict[type, int] = {StepSuccess: 0, StepError: 1, StepTimeout: 2, StepInterrupted: 3}

_SHORT = 256
"""A text of fewer characters is short."""
SHORT_TEXT_BYTES = 4 * _SHORT
"""What no short text exceeds."""
_DATA = b"\x85"  # an array of five
_SUCCESS = b"\x82" + bytes([RESULT_CODES[StepSuccess]])  # an array of two
_NULL = cbor2.dumps(None)  # for what is not there; and every ordinary step ends with one, for no meta
_TEXT_HEADS = tuple(cbor2.dumps("x" * size)[: -size or None] for size in range(SHORT_TEXT_BYTES))
_OUTPUT_HEADS = tuple(_SUCCESS + head for head in _TEXT_HEADS)
_SMALL = 1024
_TWO_BYTES = 1 << 16
_U16 = b"\x19"  # what precedes a number of two bytes
_NUMBERS = tuple(map(cbor2.dumps, range(_SMALL)))
_LAST_NUMBERS = tuple(number + _NULL for number in _NUMBERS)
_MAP_HEADS = tuple(bytes([0xA0 + size]) for size in range(24))
_dumps = cbor2.dumps


class _NotPlain(Exception):
    """This is no ordinary step, or none that is accepted."""


class _Names(dict[str, bytes]):
    """The bytes of short names behind `before`. There are few of them, and they come again and again."""

    def __init__(self, before: bytes, *, blank: bool):
        self._before, self._blank = before, blank

    def __missing__(self, name: str) -> bytes:
        if len(name) >= _SHORT or not (self._blank or name.strip()):
            raise _NotPlain
        if len(self) == 1000:
            self.clear()
        encoded = self[name] = self._before + _dumps(name)
        return encoded


_TOOLS = _Names(_DATA, blank=False)
_PARAMETERS = _Names(b"", blank=True)


def encode_plain_step(step: ExecutionStep, time_ns: int, text_bytes: int) -> bytes | None:
    """The record of `step`, None if it is no ordinary one. How long it is, the caller checks.

    A text may have `text_bytes`, at least SHORT_TEXT_BYTES.
    """
    tool, action, parameters, result = step.tool, step.action, step.parameters, step.result
    if not (
        type(tool) is type(action) is str
        and type(parameters) is dict
        and type(result) is StepSuccess
        and step.tokens_used is None
        and step.reward is None
        and step.thought is None
        and step.key is None
        and step.step_number is None
        and type(step.metadata) is dict
        and not step.metadata
    ):
        return None
    output = result.output
    latency_ms: Any = step.latency_ms
    try:
        if len(action) < _SHORT:
            text = action.encode()
            head = _TEXT_HEADS[len(text)]
        elif len(action) * 4 <= text_bytes:
            head, text = b"", _dumps(action)
        else:
            return None
        parts = [STEP_HEAD, time_ns.to_bytes(8, "big"), _TOOLS[tool], head, text]
        if len(parameters) < len(_MAP_HEADS):
            parts.append(_MAP_HEADS[len(parameters)])
            for name, value in parameters.items():
                kind = type(value)
                if type(name) is not str:
                    return None
                if kind is str and len(value) < _SHORT:
                    text = value.encode()
                    parts += (_PARAMETERS[name], _TEXT_HEADS[len(text)], text)
                elif kind is int and 0 <= value < _SMALL:
                    parts += (_PARAMETERS[name], _NUMBERS[value])
                elif kind is int and _SMALL <= value < _TWO_BYTES:
                    parts += (_PARAMETERS[name], _U16, value.to_bytes(2, "big"))
                else:
                    check.check_object(parameters, "")
                    parts[5:] = (_dumps(parameters),)
                    break
        else:
            check.check_object(parameters, "")
            parts.append(_dumps(parameters))
        if type(output) is str:
            if len(output) < _SHORT:
                text = output.encode()
                parts += (_OUTPUT_HEADS[len(text)], text)
            elif len(output) * 4 <= text_bytes:
                parts += (_SUCCESS, _dumps(output))
            else:
                return None
        else:
            check.check_json(output, "")
            parts += (_SUCCESS, _dumps(output))
        if type(latency_ms) is int and 0 <= latency_ms < _SMALL:
            parts.append(_LAST_NUMBERS[latency_ms])
        elif type(latency_ms) is int and _SMALL <= latency_ms < _TWO_BYTES:
            parts += (_U16, latency_ms.to_bytes(2, "big"), _NULL)
        elif latency_ms is None:
            parts += (_NULL, _NULL)
        else:
            check.check_number(latency_ms, "", minimum=0)
            parts += (_dumps(latency_ms), _NULL)
    except (_NotPlain, Rejected, UnicodeEncodeError, cbor2.CBOREncodeError, RecursionError):
        return None
    return b"".join(parts)
