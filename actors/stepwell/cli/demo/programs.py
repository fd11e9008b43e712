"""The audits that the demo's agents run: each a real program that decides by what its tools answer.

A program is a generator: it yields the next tool call, is sent the result, and returns how the task ended. It sees
nothing but those results. That is what makes it resumable: sent the results that the log holds, it stands where the
killed process stood, without calling a single tool again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from stepwell.cli.demo.tools import DOCTESTED
from stepwell.cli.output import count_text
from stepwell.model.outcome import Abstained, Failure, PartialSuccess, Success, TaskOutcome
from stepwell.model.step import StepError, StepResult, StepSuccess


class Call(NamedTuple):
    """One tool call that a program asks for."""

    tool: str
    action: str
    parameters: dict[str, Any]
    thought: str | None = None


Program = Generator[Call, StepResult, TaskOutcome]


def audit_documentation(module: str, path: str) -> Program:
    """Are its public names documented, are they used, and do its examples run?"""
    if (problem := (yield from _readable(path))) is not None:
        return problem
    yield Call("check_lines", f"Measure the lines of {path}", {"path": path, "longest": 79})
    listed = output(
        (yield Call("list_definitions", f"List the public names of {module}", {"path": path})), default={"public": []}
    )
    for name in listed["public"][:20]:
        yield Call(
            "search",
            f"Is {name} used in its own module?",
            {"path": path, "pattern": rf"(?<!def )(?<!class )\b{re.escape(name)}\b"},
        )
    yield Call("search", "Look for admitted debts", {"path": path, "pattern": r"\b(XXX|TODO|FIXME)\b"})
    if module in DOCTESTED:
        examples = yield Call("run_doctests", f"Run the examples of {module}", {"module": module})
        if isinstance(examples, StepError):
            return Failure("its own examples fail", examples.message)
    bare = listed["undocumented"] if listed["public"] else []
    if not listed["public"]:
        return Abstained("nothing public in it to document", infeasibility_signals=["no public name"])
    if bare:
        documented = [name for name in listed["public"] if name not in bare]
        return PartialSuccess(
            f"{len(bare)} of {len(listed['public'])} public names have no docstring", documented[:8], bare[:8]
        )
    return Success(f"every public name ({len(listed['public'])}) is documented")


def audit_portability(module: str, path: str) -> Program:
    """Which is the oldest Python 3 that could still parse it?"""
    if (problem := (yield from _readable(path))) is not None:
        return problem
    oldest = None
    for minor in range(4, sys.version_info.minor + 1):
        parsed = yield Call(
            "parse",
            f"Parse {path} as Python 3.{minor}",
            {"path": path, "python": [3, minor]},
            thought=None if minor == 4 else f"3.{minor - 1} refused it, so try the next",
        )
        if isinstance(parsed, StepSuccess):
            oldest = minor
            break
    for what, pattern in (
        ("the walrus", r":="),
        ("f-strings", r"\bf['\"]"),
        ("match statements", r"^\s*match .*:$"),
        ("annotations", r"def .*->"),
        ("async functions", r"^\s*async def "),
    ):
        yield Call("search", f"Look for {what}", {"path": path, "pattern": pattern})
    imported = output((yield Call("find_imports", f"What does {module} import?", {"path": path})), default={})
    yield Call("compile_file", f"Compile {path} with this Python", {"path": path})
    if oldest is None:
        return Failure("this Python itself cannot parse it")
    if outside := imported.get("outside"):
        return PartialSuccess(f"parses since 3.{oldest}, but needs other packages", ["grammar"], outside[:8])
    return Success(f"parses since Python 3.{oldest}")


def audit_encoding(module: str, path: str) -> Program:
    """Is it plain ASCII, and if not, does it say what it is?"""
    plain = yield Call("read_file", f"Read {path} as ASCII", {"path": path, "encoding": "ascii"})
    declared = yield Call("detect_encoding", "Ask the file for its encoding", {"path": path})
    yield Call("check_lines", f"Measure the lines of {path}", {"path": path, "longest": 99})
    for what, pattern in (
        ("an encoding cookie", r"^[ \t\f]*#.*?coding[:=]"),
        ("escapes that hide other letters", r"\\[xuN]"),
        ("characters beyond ASCII", r"[^\x00-\x7f]"),
        ("tabs", r"\t"),
    ):
        yield Call("search", f"Look for {what}", {"path": path, "pattern": pattern})
    if isinstance(declared, StepError):
        return Failure("it does not say what it is", declared.message)
    if isinstance(plain, StepSuccess):
        yield Call("count_tokens", f"Count the tokens of {module}", {"path": path})
        return Success("plain ASCII")
    encoding = output(declared, default="utf-8")
    decoded = yield Call(
        "read_file",
        f"Read {path} as {encoding}",
        {"path": path, "encoding": encoding},
        thought=f"not ASCII; the file says it is {encoding}, so believe it",
    )
    if isinstance(decoded, StepError):
        return Failure(f"it is not {encoding} either", decoded.message)
    compiled = yield Call("compile_file", f"Compile {path}", {"path": path})
    if isinstance(compiled, StepError):
        return PartialSuccess(f"readable as {encoding}, but no Python", ["decoding"], ["compiling"])
    return Success(f"not ASCII, but honest {encoding}")


def audit_tests(module: str, path: str) -> Program:
    """Does its test file speak of every public name?"""
    tests = yield Call("find_tests", f"Find the tests of {module}", {"module": module})
    if isinstance(tests, StepError):
        yield Call("read_file", f"Is there anything to test in {path}?", {"path": path, "encoding": "utf-8"})
        yield Call("parse", f"Parse {path}", {"path": path, "python": None})
        yield Call("longest_function", "Find what would need a test most", {"path": path})
        return Abstained("there is no test file to compare with", 1, ["the test file is not installed"])
    test_path = output(tests, default="")
    yield Call("read_file", f"Read {test_path}", {"path": test_path, "encoding": "utf-8"})
    listed = yield Call("list_definitions", f"List the public names of {module}", {"path": path})
    if isinstance(listed, StepError):
        return Failure("the module cannot be parsed", listed.message)
    covered: list[str] = []
    missed: list[str] = []
    for name in output(listed, default={"public": []})["public"][:24]:
        found = yield Call(
            "search",
            f"Is {name} mentioned in {test_path}?",
            {"path": test_path, "pattern": rf"\b{re.escape(name)}\b"},
        )
        (covered if isinstance(found, StepSuccess) else missed).append(name)
    yield Call("search", "Count the test methods", {"path": test_path, "pattern": r"^\s+(async )?def test"})
    yield Call("search", "Look for skipped tests", {"path": test_path, "pattern": r"@.*\bskip"})
    if not covered and not missed:
        return Abstained("nothing public in it to test", infeasibility_signals=["no public name"])
    if missed:
        return PartialSuccess(f"{count_text(len(missed), 'public name')} never mentioned in its tests", covered, missed)
    return Success(f"every public name ({len(covered)}) is mentioned in {test_path}")


def audit_hazards(module: str, path: str) -> Program:
    """Does it do things that a reviewer would ask about?"""
    if (problem := (yield from _readable(path))) is not None:
        return problem
    found = []
    for what, pattern in (
        ("eval", r"\beval\("),
        ("exec", r"\bexec\("),
        ("bare except", r"except\s*:"),
        ("asserts that -O removes", r"^\s*assert\b"),
        ("shell commands", r"os\.system|shell=True"),
        ("unpickling", r"pickle\.loads?\("),
        ("global statements", r"^\s*global "),
        ("mutable defaults", r"def .*=\s*(\[\]|\{\})"),
        ("star imports", r"import \*"),
    ):
        answer = yield Call("search", f"Look for {what}", {"path": path, "pattern": pattern})
        if isinstance(answer, StepSuccess):
            found.append(what)
    yield Call("compile_file", f"Compile {path}", {"path": path})
    yield Call("longest_function", f"Find the longest function of {module}", {"path": path})
    if len(found) >= 4:
        return Failure("too many questions for one review", ", ".join(found))
    if found:
        return PartialSuccess("worth a second look", [], found)
    return Success("nothing to ask about")


def audit_names(module: str, path: str) -> Program:
    """Which names does it use, and does it hide builtins?"""
    if (problem := (yield from _readable(path))) is not None:
        return problem
    yield Call("count_tokens", f"Count the tokens of {module}", {"path": path})
    counted = output((yield Call("count_names", f"Count the names of {module}", {"path": path})), default={})
    for name, _ in counted.get("most_used", []):
        yield Call("search", f"Where is {name} used first?", {"path": path, "pattern": rf"\b{re.escape(name)}\b"})
    hidden = counted.get("hidden_builtins", [])
    for name in hidden[:6]:
        yield Call(
            "search",
            f"Is the hidden builtin {name} called afterwards?",
            {"path": path, "pattern": rf"(?<![.\w]){re.escape(name)}\("},
        )
    yield Call("find_imports", f"What does {module} import?", {"path": path})
    if hidden:
        return PartialSuccess(f"hides {count_text(len(hidden), 'builtin')}", ["names counted"], hidden[:8])
    return Success(f"{counted.get('names', 0)} names, none of them hides a builtin")


def _readable(path: str) -> Generator[Call, StepResult, TaskOutcome | None]:
    """Read and parse the file; the ending if that is impossible."""
    text = yield Call("read_file", f"Read {path}", {"path": path, "encoding": "utf-8"})
    if isinstance(text, StepError):
        declared = yield Call(
            "detect_encoding",
            "Ask the file for its encoding",
            {"path": path},
            thought="it is not UTF-8; perhaps it says what it is",
        )
        if isinstance(declared, StepError):
            return Failure("not even its encoding can be found out", declared.message)
        encoding = output(declared, default="utf-8")
        text = yield Call("read_file", f"Read {path} as {encoding}", {"path": path, "encoding": encoding})
        if isinstance(text, StepError):
            return Failure("it is not in the encoding it declares", text.message)
    parsed = yield Call("parse", f"Parse {path}", {"path": path, "python": None})
    if isinstance(parsed, StepError):
        yield Call("check_lines", f"Look at the lines of {path} at least", {"path": path, "longest": 79})
        yield Call("search", "Is it Python 2?", {"path": path, "pattern": r"^\s*(print |exec )|\bexcept .*, \w+:"})
        return Failure("it does not parse", parsed.message)
    return None


def output(result: StepResult, *, default: Any) -> Any:
    """What a tool answered, or the default where it failed."""
    return result.output if isinstance(result, StepSuccess) else default


PROGRAMS: dict[str, Callable[[str, str], Program]] = {
    "documentation": audit_documentation,
    "portability": audit_portability,
    "encoding": audit_encoding,
    "tests": audit_tests,
    "hazards": audit_hazards,
    "names": audit_names,
}
