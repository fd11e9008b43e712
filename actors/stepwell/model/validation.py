"""The door: what comes in from a caller is checked here, before anything is accepted.

Each error names the path inside the value (`step.parameters.options[2]`) and says what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stepwell.errors import InvalidInput, TooLarge

MAX_DEPTH = 32
MAX_ITEMS = 500_000
"""Items one JSON value may hold, counted as often as they appear; a reader refuses to decode more."""
ACTOR_BYTES = 1_000
_PLAIN = frozenset({str, bool, type(None)})
_SMALL = 2**63
_SHOWN = 80
_MAX_INT_BITS = 64 * 1024  # a bignum is legal JSON; this only bounds what a reader must be ready for


def check_object(value: object, path: str) -> None:
    """Check that `value` is a JSON object: text keys, JSON values, finite numbers, at most 32 levels,
    no cycles, at most MAX_ITEMS items.

    Lone surrogates are not looked for here, encoding finds them; `find_bad_text` then says where.
    Raises: `InvalidInput`, `TooLarge`.
    """
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}: must be a dict with text keys, not {_name(value)}")
    _check_items(value, path, 1, None)


def check_json(value: object, path: str) -> None:
    """Check that `value` is a JSON value; see `check_object`."""
    _check(value, path, 1, [0])


def _count(items: int, path: str, counted: list[int]) -> None:
    counted[0] += items
    if counted[0] > MAX_ITEMS:
        raise TooLarge(f"{path}: more than {MAX_ITEMS:,} items in one value; store it elsewhere and name it here")


def _check_items(value: dict[Any, Any], path: str, depth: int, counted: list[int] | None) -> None:
    # Nothing is counted for the usual flat object: `counted` comes into being with the first value that may be nested.
    if counted is not None or len(value) > MAX_ITEMS:
        counted = counted or [0]
        _count(len(value), path, counted)
    for key, item in value.items():
        if type(key) is not str and not isinstance(key, str):
            raise InvalidInput(f"{path}: the key {shown(key)} is {_name(key)}; keys must be text")
        kind = type(item)
        if not (kind in _PLAIN or (kind is int and -_SMALL < item < _SMALL)):
            counted = counted or [len(value)]
            _check(item, f"{path}.{key}", depth + 1, counted)


def _check(value: object, path: str, depth: int, counted: list[int]) -> None:
    if isinstance(value, str | bool | None):
        return
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise InvalidInput(f"{path}: an integer of {value.bit_length()} bits; pass it as text")
        return
    if isinstance(value, float):
        if value - value != 0:  # NaN and the infinities
            raise InvalidInput(f"{path}: {value!r} is not a JSON number; use null or text")
        return
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{path}: nested deeper than {MAX_DEPTH} levels (or it contains itself)")
    if isinstance(value, dict):
        _check_items(value, path, depth, counted)
    elif isinstance(value, list | tuple):
        _count(len(value), path, counted)
        for position, item in enumerate(value):
            if type(item) is not str:
                _check(item, f"{path}[{position}]", depth + 1, counted)
    elif isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInput(f"{path}: bytes are not JSON; encode them as text (base64) or store them elsewhere")
    else:
        raise InvalidInput(f"{path}: {_name(value)} is not a JSON value")


def check_text(value: object, path: str, limit: int, *, empty: bool = True) -> None:
    """Check that `value` is text of at most `limit` bytes of UTF-8, and not blank where `empty` is False.

    Raises: `InvalidInput`, `TooLarge`.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{path}: must be text, not {_name(value)}")
    if not empty and not value.strip():
        raise InvalidInput(f"{path}: must not be empty")
    if len(value) * 4 > limit:
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > limit:
            raise TooLarge(f"{path}: {size:,} bytes exceed the limit of {limit:,} (MemoryConfig.limits)")


def check_optional_text(value: object, path: str, limit: int) -> None:
    """As `check_text`, or None."""
    if value is not None:
        check_text(value, path, limit)


def check_text_list(value: object, path: str, limit: int) -> None:
    """Check that `value` is a list of texts."""
    if not isinstance(value, list | tuple):
        raise InvalidInput(f"{path}: must be a list of texts, not {_name(value)}")
    for position, item in enumerate(value):
        check_text(item, f"{path}[{position}]", limit)


def check_number(value: object, path: str, *, minimum: float | None = None, whole: bool = False) -> None:
    """Check that `value` is a finite number (a bool is none), at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise InvalidInput(f"{path}: must be a {'whole ' if whole else ''}number, not {_name(value)}")
    if value - value != 0:
        raise InvalidInput(f"{path}: {value!r} is not a number that can be stored")
    if isinstance(value, int) and value.bit_length() > 63:
        raise InvalidInput(f"{path}: {shown(value)} does not fit in 64 bits; pass a smaller number")
    if minimum is not None and value < minimum:
        raise InvalidInput(f"{path}: {value} is below {minimum:g}")


def check_actor(actor: object) -> str:
    """Who asked for something, checked: text of at most 1,000 bytes. Raises: `InvalidInput`, `TooLarge`."""
    check_text(actor, "actor", ACTOR_BYTES)
    if bad_text := find_bad_text(actor, "actor"):
        raise InvalidInput(bad_text)
    return str(plain(actor))


def find_bad_text(value: object, path: str) -> str | None:
    """Where a text in `value` cannot be encoded as UTF-8 (a lone surrogate), None if nowhere."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"{path}: {error.reason} at character {error.start}; only valid Unicode can be stored, replace it"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inside = f"{path}.{key}" if path else str(key)
            found = find_bad_text(key, f"{path} (a key)") or find_bad_text(item, inside)
            if found:
                return found
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            found = find_bad_text(item, f"{path}[{position}]")
            if found:
                return found
    return None


def plain(value: Any) -> Any:
    """A checked JSON value made of nothing but dict, list, str, int, float, bool and None, as it will be read back."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return {str.__str__(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def same_json(one: object, other: object) -> bool:
    """Whether two JSON values are the same; unlike `==` it tells True from 1 and 1 from 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(same_json(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        assert isinstance(other, list)
        return len(one) == len(other) and all(map(same_json, one, other))
    return one == other


def is_one_of(value: object, names: Collection[str]) -> bool:
    """Whether `value` is one of these texts. What is no text is not compared: that may raise anything."""
    return isinstance(value, str) and value in names


def shown(value: object) -> str:
    """`value` for a message: its repr, shortened, or its type where it has none (integers of many digits)."""
    try:
        text = repr(value)
    except Exception:
        return f"<{_name(value)}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _name(value: object) -> str:
    return "None" if value is None else type(value).__name__
