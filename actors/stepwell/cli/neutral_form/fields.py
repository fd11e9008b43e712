"""Taking the fields of an event one by one, and saying what is wrong with one."""

from __future__ import annotations

import json
from typing import Any

from stepwell.cli.neutral_form.difference import KEPT_APART
from stepwell.cli.neutral_form.events import MAX_INTEGER, BadLine, JsonObject
from stepwell.errors import InvalidInput, TooLarge
from stepwell.model.ids import checked_id


class Fields:
    """Takes the fields of an event one by one, checking each; `others` gives what nobody took."""

    def __init__(self, event: JsonObject):
        self._rest = dict(event)
        del self._rest["event"]

    def take(self, name: str) -> Any:
        """Any value; None where it is absent."""
        return self._rest.pop(name, None)

    def others(self) -> JsonObject:
        """The fields that were not taken."""
        self._rest.pop(KEPT_APART, None)
        return self._rest

    def text(self, name: str, *, required: bool = False, default: str = "") -> str:
        """Text; without `required` the default where it is absent or null."""
        value = self.take(name)
        if value is None and not required:
            return default
        if value is None:
            raise BadLine(f"{name}: missing")
        if not isinstance(value, str):
            raise BadLine(f"{name}: text is wanted, not {kind_of(value)}")
        if required and not value.strip():
            raise BadLine(f"{name}: must not be empty")
        return value

    def optional_text(self, name: str) -> str | None:
        """Text, or None where it is absent or null."""
        return self.text(name) if self._rest.get(name) is not None else self.take(name)

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty where it is absent or null."""
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadLine(f"{name}: a list of texts is wanted, not {shown(value)}")
        return value

    def mapping(self, name: str) -> JsonObject:
        """An object, empty where it is absent or null."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise BadLine(f"{name}: an object is wanted, not {kind_of(value)}")
        return value

    def number(self, name: str, *, least: float | None = None) -> float | None:
        """A number, or None where it is absent or null."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadLine(f"{name}: a number or null is wanted, not {kind_of(value)}")
        if abs(value) > 1e300:
            raise BadLine(f"{name}: {shown(value)} is out of range")
        if least is not None and value < least:
            raise BadLine(f"{name}: must be at least {least}, not {shown(value)}")
        return value

    def integer(self, name: str, *, least: int) -> int | None:
        """A whole number, or None where it is absent or null."""
        value = self.take(name)
        if value is None:
            return None
        if type(value) is not int:
            raise BadLine(f"{name}: a whole number is wanted, not {shown(value)}")
        if not least <= value <= MAX_INTEGER:
            raise BadLine(f"{name}: must be at least {least}, not {value}")
        return value


def is_id(value: object) -> bool:
    """Whether the memory would take it as an id."""
    try:
        checked_id(value)
    except (InvalidInput, TooLarge):
        return False
    return True


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "an object")


def shown(value: object) -> str:
    """A JSON value for a message, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
