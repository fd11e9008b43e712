"""Make the typed calls of `stepwell.aio` and `stepwell.sync` from those of `Memory`, `EpisodeHandle` and their kin.

    python tools/make_doors.py [--check]

Three modules are written: `aio/surface.py` from the signatures and docstrings of the classes themselves, and
`sync/surface.py` and `sync/wrappers.py` from their twins in `aio`, with `async` and `await` taken away. `--check`
writes nothing and exits with 1 if any of them is not what would be written; a test does that.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FunctionType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent / "actors" / "stepwell"
sys.path[:0] = [str(PACKAGE.parent), str(PACKAGE.parent.parent / "storage")]

from stepwell.memory.episodic import EpisodicPort  # noqa: E402
from stepwell.memory.handle import EpisodeHandle  # noqa: E402
from stepwell.memory.long_term import LongTermPort  # noqa: E402
from stepwell.memory.memory import Memory  # noqa: E402
from stepwell.memory.run_scope import RunningEpisode  # noqa: E402
from stepwell.memory.short_term import ShortTermPort  # noqa: E402
from stepwell.memory.skills import Skills  # noqa: E402

SURFACE: list[tuple[type, str, str]] = [
    (EpisodeHandle, "", "A handle to one episode; see `stepwell.EpisodeHandle`."),
    (RunningEpisode, "EpisodeHandle", "A handle inside a run scope; see `stepwell.Memory.episode`."),
    (ShortTermPort, "", "Conversation threads; see `stepwell.ShortTermPort`."),
    (EpisodicPort, "", "The events of runs; see `stepwell.EpisodicPort`."),
    (LongTermPort, "", "Facts in scopes; see `stepwell.LongTermPort`."),
    (Skills, "", "Procedural skills; see `stepwell.Skills`."),
    (Memory, "", "An opened memory; see `stepwell.Memory`."),
]
HOT = {
    "EpisodeHandle.log_step": "hot.log_step",
    "EpisodeHandle.log_steps": "hot.log_steps",
    "Memory.log_step": "hot.memory_log_step",
    "Memory.log_steps": "hot.memory_log_steps",
}
"""Calls that are first attempted without waiting."""
IN_ANY_THREAD = {
    "EpisodeHandle.episode_id",
    "Memory.recovery",
    *(f"RunningEpisode.{setter}" for setter in ("succeed", "partially", "fail", "abstain")),
}
"""What never changes, and what sets one attribute and nothing else, needs no crossing."""
WRAPPED = {
    "RunScope": "DoorScope[RunningEpisode]",
    "StepScope": "DoorScope[StepScope]",
    "Following": "DoorScope[Channel[Event | Gap]]",
    "Watching": "DoorScope[Channel[LifecycleEvent]]",
    "AtomicScope": "DoorScope[Transaction]",
    "RunFollowing": "DoorScope[Channel[RecordedEvent]]",
    "RunEvents": "Items[RecordedEvent]",
    "EpisodeEvents": "Items[Event]",
    "AsyncIterator[EpisodeId]": "Items[EpisodeId]",
}
"""What a call gives, and in what the door wraps it: made in the caller's thread, used in the Trio thread."""
PORTS = {"ShortTermPort", "LongTermPort", "EpisodicPort", "Skills"}
"""Parts of a memory with calls of their own: a property gives one, and needs no crossing."""
OWN = {*PORTS, "EpisodeHandle", "RunningEpisode", "Receipt", "DoorScope", "Items", "Channel", "Transaction"}
"""Names that mean something of the door itself there."""
IMPORTS = {
    "Any": "from typing import Any",
    "Event": "from stepwell.model.event import Event",
    "Gap": "from stepstore.journal import Gap",
    "RecordedEvent": "from stepwell.model.run_record import RecordedEvent",
    "LifecycleEvent": "from stepwell.runtime.lifecycle_events import LifecycleEvent",
    "StepScope": "from stepwell.memory.handle import StepScope",
}
HEADER = '''"""The calls of a memory, as asyncio makes them. Made by `tools/make_doors.py`; change what that reads."""

from __future__ import annotations

'''


def public_members(cls: type) -> list[tuple[str, Any]]:
    """The public functions and properties of a class, those of its bases in this package first, in their order."""
    stop = EpisodeHandle if cls is RunningEpisode else object
    members: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base is stop or base is object or not base.__module__.startswith("stepwell."):
            continue
        if stop is EpisodeHandle and base is not cls:
            continue
        for name, member in vars(base).items():
            if not name.startswith("_") and isinstance(member, FunctionType | property):
                members[name] = member
    return list(members.items())


def node_of(function: Any) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The source of a function, parsed."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


def arguments_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """How a wrapper passes on what it was given."""
    given = [argument.arg for argument in node.args.args[1:]]
    given += [f"*{node.args.vararg.arg}"] if node.args.vararg else []
    given += [f"{argument.arg}={argument.arg}" for argument in node.args.kwonlyargs]
    given += [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    return ", ".join(given)


class Surface:
    """The text of one module, and the imports it needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.imports = {
            "from typing import Any",
            "from stepwell.aio.door import Door",
            "from stepwell.aio.wrappers import Channel, DoorScope, Items, Receipt, Transaction",
            "from stepwell.bridge import hot",
        }

    def add_class(self, cls: type, base: str, doc: str) -> None:
        """One class with a wrapper for each public member."""
        name = cls.__name__
        module = cls.__module__
        self.lines += [f"class {name}{f'({base})' if base else ''}:", f'    """{doc}"""', ""]
        if not base:
            self.imports.add(f"from {module} import {name} as Target{name}")
            self.lines += [
                f"    def __init__(self, door: Door, target: Target{name}):",
                "        self._door, self._target = door, target",
                "",
            ]
        else:
            self.imports.add(f"from {module} import {name} as Target{name}")
            self.lines += [f"    _target: Target{name}", ""]
        if cls is EpisodeHandle:
            self.lines += [
                "    @property",
                "    def id(self) -> EpisodeId:",
                '        """The id of the episode."""',
                "        return self._target.id",
                "",
                "    def __repr__(self) -> str:",
                "        return repr(self._target)",
                "",
            ]
        for member_name, member in public_members(cls):
            self.add_member(name, member_name, member)

    def add_member(self, cls: str, name: str, member: Any) -> None:
        """One wrapper."""
        function = member.fget if isinstance(member, property) else member
        node = node_of(function)
        self.take_imports(node, inspect.getmodule(function))
        returns = ast.unparse(node.returns) if node.returns else "None"
        signature = ast.unparse(node.args)
        target = f"self._target.{name}"
        passed = arguments_of(node)
        call = f"{target}({passed})"
        doc = ast.get_docstring(node) or ""
        body: list[str]
        given = WRAPPED.get(returns)
        if isinstance(member, property):
            self.lines.append("    @property")
            body = (
                [f"return {returns}(self._door, {target})"]
                if returns in PORTS
                else [f"return {target}"]
                if f"{cls}.{name}" in IN_ANY_THREAD
                else [
                    f"found: {returns} = self._door.call_plain(lambda: {target})",
                    "return found",
                ]
            )
            prefix = "def"
        elif given is not None:
            kind = given.split("[")[0]
            returns, body, prefix = given, [f"return {kind}(self._door, {call})"], "def"
        elif isinstance(node, ast.AsyncFunctionDef):
            attempt = HOT.get(f"{cls}.{name}")
            tail = f", lambda: {attempt}(self._target, {passed})" if attempt else ""
            result = f"await self._door.call(lambda: {call}{tail})"
            body = [result] if returns == "None" else [f"found: {returns} = {result}", "return found"]
            prefix = "async def"
        elif f"{cls}.{name}" in IN_ANY_THREAD:
            body, prefix = [call if returns == "None" else f"return {call}"], "def"
        else:
            result = f"self._door.call_plain(lambda: {call})"
            body = [result] if returns == "None" else [f"found: {returns} = {result}", "return found"]
            prefix = "def"
        self.lines += [
            f"    {prefix} {name}({signature}) -> {returns}:",
            textwrap.indent(f'"""{doc}\n"""' if "\n" in doc else f'"""{doc}"""', "        "),
            *(f"        {line}" for line in body),
            "",
        ]

    def take_imports(self, node: ast.FunctionDef | ast.AsyncFunctionDef, module: Any) -> None:
        """Import what the annotations and defaults of a signature name."""
        used = {item.id for item in ast.walk(node.args) if isinstance(item, ast.Name)}
        used |= {item.id for item in ast.walk(node.returns or ast.Constant(None)) if isinstance(item, ast.Name)}
        given = WRAPPED.get(ast.unparse(node.returns)) if node.returns else None
        if given is not None:
            used -= set(re.findall(r"\w+", ast.unparse(node.returns)))  # type: ignore[arg-type]
            used |= set(re.findall(r"\w+", given))
        source = ast.parse(inspect.getsource(module))
        known = dict(IMPORTS)
        for item in ast.walk(source):
            if isinstance(item, ast.ImportFrom):
                for alias in item.names:
                    known[alias.asname or alias.name] = f"from {item.module} import {ast.unparse(alias)}"
            elif isinstance(item, ast.Import):
                for alias in item.names:
                    known[alias.asname or alias.name] = f"import {ast.unparse(alias)}"
        self.imports |= {known[name] for name in used - OWN if name in known}

    def text(self) -> str:
        """The module."""
        return HEADER + "\n".join([*sorted(self.imports), "", *self.lines])


def without_async(text: str) -> str:
    """A module of `stepwell.aio` as `stepwell.sync` has it."""
    text = text.replace("as asyncio sees", "as plain code sees").replace("as asyncio makes", "as plain code makes")
    text = text.replace("stepwell.aio", "stepwell.sync").replace("async def", "def").replace("await ", "")
    text = text.replace("            asyncio.sleep(0)\n", "").replace("import asyncio\n", "")
    text = text.replace(", entered and left from asyncio", "").replace(", read from asyncio", "")
    text = text.replace("An async context manager", "A context manager").replace("An async iterator", "An iterator")
    for name in ("enter", "exit"):
        text = text.replace(f"def __a{name}__(", f"def __{name}__(")
    text = text.replace("__aiter__", "__iter__").replace("__anext__", "__next__")
    text = text.replace("StopAsyncIteration", "StopIteration").replace("async for", "for").replace("async with", "with")
    return text.replace("an async context manager", "a context manager").replace("an async iterator", "an iterator")


def formatted(text: str) -> str:
    """The text as ruff lays it out."""
    ruff = [sys.executable, "-m", "ruff"]
    root = PACKAGE.parent.parent
    for arguments in (["check", "--fix-only", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        command = [*ruff, *arguments, "--stdin-filename", str(PACKAGE / "made.py"), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=root).stdout
    return text


def make() -> dict[Path, str]:
    """The modules and what they should hold."""
    surface = Surface()
    for cls, base, doc in SURFACE:
        surface.add_class(cls, base, doc)
    aio = formatted(surface.text())
    made = "Made by `tools/make_doors.py`."
    wrappers = (PACKAGE / "aio" / "wrappers.py").read_text(encoding="utf-8")
    sync_wrappers = without_async(wrappers).replace('as plain code sees it."""', f'as plain code sees it. {made}"""', 1)
    return {
        PACKAGE / "aio" / "surface.py": aio,
        PACKAGE / "sync" / "surface.py": formatted(without_async(aio)),
        PACKAGE / "sync" / "wrappers.py": formatted(sync_wrappers),
    }


def main() -> int:
    """The command line; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python tools/make_doors.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything would be written")
    options = parser.parse_args()
    stale = [path for path, text in make().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{'stale' if options.check else 'written'}: {path.relative_to(PACKAGE)}")
        if not options.check:
            path.write_text(make()[path], encoding="utf-8")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
