"""The tools of the demo's agents: small real programs that look at one file of the standard library.

A tool takes JSON parameters and returns a JSON value, or raises. Paths are relative to the library's directory.
"""

from __future__ import annotations

import ast
import builtins
import collections
import doctest
import hashlib
import importlib
import io
import re
import sys
import sysconfig
import time
import tokenize
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.model.step import StepError, StepResult, StepSuccess

LIBRARY = Path(sysconfig.get_path("stdlib"))

DOCTESTED = frozenset(
    {
        "_pydecimal",
        "_threading_local",
        "collections",
        "difflib",
        "distutils.versionpredicate",
        "doctest",
        "enum",
        "fractions",
        "hashlib",
        "heapq",
        "http.cookies",
        "importlib.metadata._functools",
        "ipaddress",
        "json",
        "json.encoder",
        "pickle",
        "pickletools",
        "secrets",
        "shutil",
        "statistics",
        "textwrap",
        "uuid",
        "zipfile",
    }
)
"""Modules of which it is known that importing them and running their examples touches nothing outside the process."""


class AuditFinding(Exception):
    """What a tool reports by failing, as `grep` does by its exit status."""


def call_tool(tool: str, parameters: dict[str, Any]) -> tuple[StepResult, float]:
    """Call a tool; its result, or its error as a result, and the milliseconds it took."""
    began = time.perf_counter()
    result: StepResult
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler thinks of the library's style is not asked here
            result = StepSuccess(TOOLS[tool](**parameters))
    except AuditFinding as finding:
        result = StepError(str(finding))
    except Exception as error:
        result = StepError(f"{type(error).__name__}: {error}"[:500])
    return result, round((time.perf_counter() - began) * 1000, 3)


def read_file(path: str, encoding: str = "utf-8") -> dict[str, Any]:
    """Read a file as text in the given encoding."""
    data = (LIBRARY / path).read_bytes()
    text = data.decode(encoding)
    return {"bytes": len(data), "lines": text.count("\n"), "sha256": hashlib.sha256(data).hexdigest()[:16]}


def detect_encoding(path: str) -> str:
    """The encoding that a file's first two lines declare (PEP 263)."""
    with open(LIBRARY / path, "rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def parse(path: str, python: list[int] | None = None) -> dict[str, int]:
    """Parse a file, if asked with the grammar of an older Python, and count what is in it."""
    tree = _tree(path, None if python is None else (python[0], python[1]))
    kinds = collections.Counter(type(node) for node in ast.walk(tree))
    return {
        "nodes": sum(kinds.values()),
        "functions": kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        "classes": kinds[ast.ClassDef],
        "lambdas": kinds[ast.Lambda],
    }


def compile_file(path: str) -> dict[str, int]:
    """Compile a file and measure the bytecode."""
    pending = [compile((LIBRARY / path).read_bytes(), path, "exec", dont_inherit=True)]
    objects = size = 0
    while pending:
        code = pending.pop()
        objects += 1
        size += len(code.co_code)
        pending += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return {"code_objects": objects, "bytecode_bytes": size}


def search(path: str, pattern: str) -> dict[str, Any]:
    """The lines of a file that match a regular expression; no match is a failure, as with grep."""
    expression = re.compile(pattern)
    text = (LIBRARY / path).read_text(encoding="utf-8", errors="replace")
    found = [number for number, line in enumerate(text.splitlines(), 1) if expression.search(line)]
    if not found:
        raise AuditFinding(f"no line matches /{pattern}/")
    return {"matches": len(found), "first_lines": found[:5]}


def list_definitions(path: str) -> dict[str, Any]:
    """The public functions and classes of a module, and those of them without a docstring."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in _tree(path).body if isinstance(node, kinds) and not node.name.startswith("_")]
    bare = [node.name for node in public if ast.get_docstring(node, clean=False) is None]
    return {"public": [node.name for node in public][:40], "undocumented": bare[:40]}


def count_names(path: str) -> dict[str, Any]:
    """The names a module uses most, and the builtins it hides by assigning to their names."""
    used: collections.Counter[str] = collections.Counter()
    hidden = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Name):
            used[node.id] += 1
            if isinstance(node.ctx, ast.Store) and hasattr(builtins, node.id):
                hidden.add(node.id)
        elif isinstance(node, ast.arg) and hasattr(builtins, node.arg):
            hidden.add(node.arg)
    most = sorted(used.items(), key=lambda item: (-item[1], item[0]))[:5]
    return {"names": len(used), "most_used": [list(item) for item in most], "hidden_builtins": sorted(hidden)[:12]}


def find_imports(path: str) -> dict[str, list[str]]:
    """The modules a file imports, and those of them that are not in the standard library."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    outside = [name for name in found if name.split(".")[0] not in sys.stdlib_module_names]
    return {"imports": sorted(found), "outside": sorted(outside)}


def check_lines(path: str, longest: int = 79) -> dict[str, int]:
    """How many lines are too long, end in blanks, or hold a tab."""
    lines = (LIBRARY / path).read_text(encoding="utf-8", errors="replace").splitlines()
    return {
        "lines": len(lines),
        "too_long": sum(len(line) > longest for line in lines),
        "trailing_blanks": sum(line != line.rstrip() for line in lines),
        "tabs": sum("\t" in line for line in lines),
    }


def count_tokens(path: str) -> dict[str, int]:
    """Tokens by kind."""
    kinds: collections.Counter[str] = collections.Counter()
    for token in tokenize.tokenize(io.BytesIO((LIBRARY / path).read_bytes()).readline):
        kinds[tokenize.tok_name[token.type].lower()] += 1
    return {name: kinds[name] for name in ("name", "op", "number", "string", "comment")}


def longest_function(path: str) -> dict[str, Any]:
    """The function with the most lines."""
    functions = [
        (node.end_lineno - node.lineno + 1, node.name)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    ]
    if not functions:
        raise AuditFinding("no function in it")
    lines, name = max(functions)
    return {"name": name, "lines": lines, "functions": len(functions)}


def find_tests(module: str) -> str:
    """The path of the file that tests a module."""
    path = test_file(module)
    if path is None:
        raise FileNotFoundError(f"no test/test_{module.replace('.', '_')}.py in this Python")
    return path


def test_file(module: str) -> str | None:
    """The path of the file that tests a module, None where there is none; many Pythons come without their tests."""
    for name in (module.replace(".", "_"), module.split(".")[-1]):
        path = f"test/test_{name}.py"
        if (LIBRARY / path).is_file():
            return path
    return None


def run_doctests(module: str) -> dict[str, int]:
    """Run the examples in a module's docstrings; a failing one is a failure."""
    if module not in DOCTESTED:
        raise AuditFinding(f"{module} is not on the list of modules whose examples are safe to run")
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module):
        runner.run(test, out=said.append)
    tries, failures = runner.tries, runner.failures or 0
    if failures:
        first = next((line for text in said for line in text.splitlines() if line.startswith("File ")), "")
        place = re.search(r"line \d+, in .*", first)
        raise AuditFinding(f"{failures} of {tries} examples fail" + (f", first {place.group()}" if place else ""))
    return {"examples": tries}


def _tree(path: str, python: tuple[int, int] | None = None) -> ast.Module:
    return ast.parse((LIBRARY / path).read_bytes(), path, feature_version=python)


TOOLS: dict[str, Callable[..., Any]] = {
    tool.__name__: tool
    for tool in (
        read_file,
        detect_encoding,
        parse,
        compile_file,
        search,
        list_definitions,
        count_names,
        find_imports,
        check_lines,
        count_tokens,
        longest_function,
        find_tests,
        run_doctests,
    )
}
