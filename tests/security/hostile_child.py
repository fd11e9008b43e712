"""Opens a hostile log in a process of little memory and time, in which no code may be run, and tells what came of it.

    python -m tests.security.hostile_child SOUND ARCHIVE-TARGET HOSTILE…

Everything is done to a sound log first, so that all modules are loaded; then code is forbidden and the limits are set.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType

import trio

from stepstore.log.archive import archive_finished, restore_archive
from stepwell import EpisodeUnavailable, MemoryConfig, StepwellError, open_memory
from stepwell.cli import main as command_line
from tests.security.hostile_logs import BYSTANDER, VICTIM

MEMORY_BYTES = 400 * 1024**2
CPU_SECONDS = 20
FORBIDDEN = (
    "exec", "compile", "pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
    "os.spawn", "socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "marshal.loads",
)  # fmt: skip


OUR_MODULES = {*sys.stdlib_module_names, *(name.split(".")[0] for name in sys.modules)}
"""Modules that may still be imported while a log is read, because the source says so; what a log says is no module."""


def _is_importing() -> bool:
    """Whether the code that is about to run is that of a module being imported, or an annotation of one of our classes,
    which msgspec looks at when it first needs it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith("<frozen importlib") or name.endswith("msgspec/_utils.py"):
            return True
        frame = frame.f_back
    return False


class Forbidden(BaseException):
    """Something tried to run code."""


def through_the_api(directory: Path) -> None:
    """Read everything that can be read, opening for reading and then for writing."""

    async def read(read_only: bool) -> None:
        async with open_memory(directory, read_only=read_only, config=MemoryConfig(grace_seconds=1)) as memory:
            async for _ in memory.episode_ids():
                pass
            await memory.open_episodes()
            for name in (VICTIM, BYSTANDER):
                await memory.get_episode(name, partial=True)
            if read_only:  # where following ends with what there is
                async with memory.follow() as events:
                    async for event in events:
                        with suppress(EpisodeUnavailable):
                            getattr(event, "data", None)
            await memory.get_episode(VICTIM)

    trio.run(read, True)
    trio.run(read, False)


def the_bystander(directory: Path) -> None:
    """What is sound beside what is hostile stays readable."""

    async def main() -> None:
        async with open_memory(directory, read_only=True) as memory:
            assert len((await memory.get_episode(BYSTANDER)).steps) == 1

    trio.run(main)


def command(*arguments: str) -> Callable[[Path], None]:
    """A command of the command line, whose output no terminal would obey, and whose errors are all foreseen."""

    def run(directory: Path) -> None:
        code: str | int | None = None
        out, complaints = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with redirect_stdout(out), redirect_stderr(complaints):
            try:
                command_line([*arguments, "--dir", str(directory)])
            except SystemExit as left:
                code = left.code
        out.seek(0)
        said = out.buffer.getvalue().decode() + complaints.getvalue()
        assert "unexpected" not in said, said
        assert code in (0, 1), code
        if "--json" not in arguments and arguments[0] != "export":
            hurtful = [character for character in said if not character.isprintable() and character != "\n"]
            assert not hurtful, f"{hurtful[:5]!r} in the output"

    return run


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "list": command("list"),
    "show": command("show", VICTIM),
    "tail": command("tail"),
    "replay": command("replay", VICTIM, "--speed", "0"),
    "stats": command("stats"),
    "verify": command("verify"),
    "export": command("export", "/dev/null"),
    "search": command("search", "a task"),
    "recommend": command("recommend", "a task"),
    "the bystander": the_bystander,
    "the API": through_the_api,
}


def attempt(operation: Callable[[Path], None], directory: Path) -> str:
    """What came of it: "fine", or the name of the error, which must be one of ours."""
    try:
        operation(directory)
    except StepwellError as error:
        return type(error).__name__
    return "fine"


def main(sound: str, target: str, *hostile: str) -> None:
    archiving: dict[str, Callable[[Path], None]] = {
        "archive": lambda path: void(archive_finished(str(path), f"{target}/{path.name}-copy")),
        "restore": lambda path: void(restore_archive(str(path), f"{target}/{path.name}")),
    }
    operations = {**archiving, **OPERATIONS}
    for operation in operations.values():
        attempt(operation, Path(sound))
    allowed = [False]

    def forbid(event: str, arguments: tuple[object, ...]) -> None:
        if allowed[0]:
            return
        if event == "import" and str(arguments[0]).split(".")[0] not in OUR_MODULES:
            raise Forbidden(f"import {arguments[0]}")
        if event in FORBIDDEN and not _is_importing():
            raise Forbidden(event)

    sys.addaudithook(forbid)
    held = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    found = {}
    for directory in hostile:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        found[directory] = {name: attempt(operation, Path(directory)) for name, operation in operations.items()}
    allowed[0] = True
    sys.stdout.write(json.dumps(found) + "\n")


def void(_: object) -> None:
    """Only what is raised counts."""


if __name__ == "__main__":
    main(*sys.argv[1:])
