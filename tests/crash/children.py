"""Child processes of the suites: how they are started, how they report, and what their deaths mean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

TIMEOUT = 600.0


FORKING = threading.Lock()
"""Held while a child is started, and while a thread of this process has a log open: until it runs its own program, a
child holds a copy of every descriptor, so of the lock of that log too, and the log could not be opened again."""


class ChildFailedError(Exception):
    """A child ended as none of this suite may; the message shows what it said."""


def child_command(module: str, *arguments: object) -> list[str]:
    """The command that has `module` run its part of a child, with these arguments (any JSON values)."""
    return [sys.executable, "-m", f"tests.crash.{module}", "--child", json.dumps(arguments)]


def start_child(command: Sequence[str], errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a child; it reports through a pipe and complains to `errors`."""
    # In a session of its own, so that a Ctrl-C reaches only the parent, which then takes things down in order.
    with FORKING:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)


def run_child(command: Sequence[str], *, may_die: bool = False) -> bytes:
    """Run a child to its end; gives what it reported. It may have been killed with SIGKILL only if `may_die`.

    Raises: `ChildFailedError`.
    """
    with start_child(command, subprocess.PIPE) as process:
        try:
            reported, said = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ChildFailedError(f"a child was still running after {TIMEOUT:.0f} s") from error
        except BaseException:
            process.kill()
            raise
    if process.returncode not in ((0, -signal.SIGKILL) if may_die else (0,)):
        raise ChildFailedError(f"a child ended with status {process.returncode}: {said.decode(errors='replace')}")
    return reported


def report_to_parent(report: Sequence[Any]) -> None:
    """Report one thing, as one line. It is with the parent when this returns, whatever becomes of the child."""
    line = json.dumps(report).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]
