"""Scopes: who a fact is for."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias, cast

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.ids import checked_id

ScopeKind: TypeAlias = Literal["workspace", "agent", "global"]
_WIRE = {"workspace": "Workspace", "agent": "Agent"}
_KINDS = {wire: kind for kind, wire in _WIRE.items()}
_MAX_NAME_BYTES = 180  # with its kind before it, it is the name of a stream


class Scope(msgspec.Struct, frozen=True):
    """Who a fact is for: the agents of one workspace, one agent alone, or everybody. Matching is exact, by kind and
    name: what an agent recalls does not fall through to its workspace unless it asks for that.

    Make one with `Scope.workspace("name")`, `Scope.agent("name")` or `Scope.global_()`.
    """

    kind: ScopeKind
    name: str = ""

    GLOBAL: ClassVar[Scope]

    @classmethod
    def workspace(cls, name: str) -> Scope:
        """Shared by the agents of a workspace. Raises: `InvalidInput`, `TooLarge`."""
        return cls("workspace", _checked_name(name))

    @classmethod
    def agent(cls, name: str) -> Scope:
        """Private to one agent. Raises: `InvalidInput`, `TooLarge`."""
        return cls("agent", _checked_name(name))

    @classmethod
    def global_(cls) -> Scope:
        """For everybody; also `Scope.GLOBAL`."""
        return cls.GLOBAL

    def to_wire(self) -> Any:
        """`{"Workspace": name}`, `{"Agent": name}` or `"Global"`."""
        return "Global" if self.kind == "global" else {_WIRE[self.kind]: self.name}

    @classmethod
    def from_wire(cls, value: object) -> Scope:
        """The scope that `to_wire` gave. Raises: `InvalidInput`, `TooLarge`."""
        if value == "Global":
            return cls.GLOBAL
        if isinstance(value, dict) and len(value) == 1:
            ((wire, name),) = value.items()
            if wire in _KINDS:
                return cls(cast("ScopeKind", _KINDS[wire]), _checked_name(name))
        raise InvalidInput(
            f'scope: {check.shown(value)} is none; it must be {{"Workspace": name}}, {{"Agent": name}} or "Global"'
        )

    @property
    def stream_name(self) -> str:
        """The name of the stream that holds its facts."""
        return self.kind if self.kind == "global" else f"{self.kind}:{self.name}"

    @classmethod
    def from_stream_name(cls, text: str) -> Scope | None:
        """The scope whose facts are in the stream of that name; None if there is none."""
        if text == "global":
            return cls.GLOBAL
        kind, colon, name = text.partition(":")
        return cls(cast("ScopeKind", kind), name) if kind in _WIRE and colon and name else None

    def __str__(self) -> str:
        return self.stream_name


Scope.GLOBAL = Scope("global")


def checked_scope(value: object, path: str = "scope") -> Scope:
    """A scope as one may be given. Raises: `InvalidInput`, `TooLarge`."""
    if type(value) is not Scope:
        raise InvalidInput(f"{path}: must be a Scope, such as Scope.agent('planner'), not {check.shown(value)}")
    if value.kind == "global":
        if value.name:
            raise InvalidInput(f"{path}: the global scope has no name, not {check.shown(value.name)}")
    elif value.kind not in _WIRE:
        raise InvalidInput(f"{path}: must be a workspace, an agent or global, not {check.shown(value.kind)}")
    else:
        _checked_name(value.name)
    return value


def _checked_name(name: object) -> str:
    known = checked_id(name, "scope name")
    check.check_text(known, "scope name", _MAX_NAME_BYTES)
    return known
