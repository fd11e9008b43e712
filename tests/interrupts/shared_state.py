"""Sync functions that change more than one thing and carry no protection from Ctrl-C.

    python -m tests.interrupts --unprotected

KeyboardInterrupt can tear a plain function in two. So one that changes more than one attribute must be protected, or be
called only where its caller is (which is seen in the scenarios), or stand in REASONS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FrameType

from trio._core._ki import ki_protection_enabled

from tests.cancellation.scenarios import SCENARIOS
from tests.interrupts.interrupting import Interrupter
from tests.interrupts.lines import Function, Line, functions

CHANGING = {
    *("add", "append", "appendleft", "cancel", "clear", "discard", "extend", "extendleft", "insert", "move_to_end"),
    *("pop", "popitem", "popleft", "remove", "set", "setdefault", "unpark_all", "update"),
}
"""Methods that change what they are called on."""

REASONS: dict[str, str] = {
    "stepstore/journal/in_memory_streams.py InMemoryStreams.copy": "nobody else has the copy yet",
    "stepwell/runtime/episode_fold.py _end": "a fold that fails is forgotten, and its records are folded again",
    "stepwell/runtime/episode_query.py _Reading._also": "nobody else has it",
}
"""Of those that run unprotected: why nothing is torn."""


def changed_by(function: ast.FunctionDef) -> set[str]:
    """The attributes, as they are written there, that a function changes."""
    changed: set[str] = set()
    for node in _own_nodes(function):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign | ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            targets = [node.func.value]
        for target in targets:
            changed |= {ast.unparse(part) for part in _attributes_of(target)}
    return changed


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield node
            waiting += ast.iter_child_nodes(node)


def _attributes_of(target: ast.expr) -> Iterator[ast.Attribute]:
    if isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _attributes_of(part)
    elif isinstance(target, ast.Starred | ast.Subscript):
        yield from _attributes_of(target.value)
    elif isinstance(target, ast.Attribute):
        yield target


def candidates() -> dict[tuple[str, str], Function]:
    """Plain functions without protection that change more than one thing, by path and name."""
    return {
        (function.path, function.name): function
        for function in functions()
        if isinstance(function.node, ast.FunctionDef)
        and not function.is_protected
        and function.node.name not in ("__init__", "__new__")  # nobody else has the object yet
        and len(changed_by(function.node)) > 1
    }


def run_unprotected(interrupter: Interrupter) -> dict[str, set[str]]:
    """Of the candidates, those that some scenario runs unprotected, or that none runs at all; with what they change."""
    waiting = candidates()
    found: dict[tuple[str, str], Function] = {}
    seen: set[tuple[str, str]] = set()

    def note(line: Line, frame: FrameType) -> None:
        key = (line.path, line.function)
        if key in waiting:
            seen.add(key)
            if key not in found and not ki_protection_enabled(frame):
                found[key] = waiting[key]

    for scenario in SCENARIOS.values():
        interrupter.lines_of(scenario, note)
    found |= {key: function for key, function in waiting.items() if key not in seen}
    result: dict[str, set[str]] = {}
    for (path, name), function in found.items():
        assert isinstance(function.node, ast.FunctionDef)
        result[f"{path} {name}"] = changed_by(function.node) | (set() if (path, name) in seen else {"(in no scenario)"})
    return result
