"""JSON as klieo writes it (serde_json): compact, keys in the order of the fields, only what must be escaped is."""

from __future__ import annotations

import json
import re
from typing import Any

from stepwell.errors import InvalidInput
from stepwell.model import validation as check

U32 = 2**32 - 1
_SURROGATE = re.compile(r"\\ud[89a-f][0-9a-f]{2}", re.IGNORECASE)


def dump(value: Any) -> str:
    """One line of JSON. The value was checked before."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def load(text: object, path: str) -> Any:
    """The value of one line of JSON. Raises: `InvalidInput`."""
    if not isinstance(text, str):
        raise InvalidInput(f"{path}: must be a line of JSON as text, not {type(text).__name__}")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: is no JSON: {error}") from None
    check.check_json(value, path)
    if not text.isascii() and (bad_line := check.find_bad_text(text, path)) is not None:
        raise InvalidInput(bad_line)
    bad_text = check.find_bad_text(value, path) if _SURROGATE.search(text) else None
    if bad_text is not None:
        raise InvalidInput(bad_text)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def check_u32(value: object, path: str) -> None:
    """Raises: `InvalidInput` if klieo could not read this number."""
    if value is not None and not (type(value) is int and 0 <= value <= U32):
        raise InvalidInput(f"{path}: {value!r} is beyond the 32 bits that this field has in klieo")
