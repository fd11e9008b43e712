"""What a user can await: every public async function of Stepwell, found by looking, so that a new one is noticed.

From the names that `stepwell` exports, everything is followed that their public functions say they return: run scopes,
step scopes, iterators of events, channels. Entering and leaving an `async with` block and asking for the next item of
an `async for` count as functions.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import stepwell

DOORS = ("stepwell.cli", "stepwell.sync", "stepwell.aio", "stepwell.testing", "stepwell.__main__")
"""What serves no Trio task, or only tests."""
AWAITED_BY_SYNTAX = ("__aenter__", "__aexit__", "__anext__")


def public_async_functions() -> dict[str, CodeType]:
    """By name (`Memory.log_step`), the code of each. One that is inherited stands under the class that defines it, or
    the first public one that has it."""
    named = _classes_by_name()
    found: dict[str, CodeType] = {}
    exported = [getattr(stepwell, name) for name in dir(stepwell) if not name.startswith("_")]
    seen: set[type] = set()
    waiting = deque(thing for thing in exported if inspect.isclass(thing))
    for thing in exported:
        if inspect.isfunction(thing):
            waiting.extend(_returned(thing, named))
            _note(found, thing.__name__, thing)
    while waiting:
        cls = waiting.popleft()
        if cls in seen or getattr(cls, "_is_protocol", False):  # the class that keeps to it is there as well
            continue
        seen.add(cls)
        for name, function in _public_functions(cls):
            waiting.extend(_returned(function, named))
            _note(found, f"{cls.__name__}.{name}", function)
    return found


def _note(found: dict[str, CodeType], name: str, function: Callable[..., Any]) -> None:
    plain = inspect.unwrap(function)
    if (inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain)) and (
        plain.__code__ not in found.values()
    ):
        found[name] = plain.__code__


def _classes_by_name() -> dict[str, list[type]]:
    named: dict[str, list[type]] = defaultdict(list)
    for module in pkgutil.walk_packages(stepwell.__path__, "stepwell."):
        if module.name.startswith(DOORS):
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(thing) and thing.__module__ == module.name:
                named[name].append(thing)
    return named


def _public_functions(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(cls):
        if name.startswith("_") and name not in AWAITED_BY_SYNTAX:
            continue
        member = inspect.getattr_static(cls, name)
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, staticmethod | classmethod):
            member = member.__func__
        if inspect.isfunction(member) and member.__module__.split(".")[0] in ("stepwell", "stepstore"):
            yield name, member


def _returned(function: Callable[..., Any], named: dict[str, list[type]]) -> list[type]:
    text = str(inspect.unwrap(function).__annotations__.get("return", ""))
    return [cls for word in re.findall(r"\w+", text) for cls in named.get(word, ())]
