"""Runs pytest again and again, in forks of a process that has imported what never changes: most of the time of a short
test is the import of pytest, Trio and Hypothesis.

Started in a copy of the source tree. A request is one line of JSON on stdin, `{"arguments": […], "seconds": …}`; the
answer one line on stdout, `{"code": …, "output": …}`, with the code null if the time was up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from types import FrameType
from typing import IO

import hypothesis
import pytest
import trio.testing

_PRELOADED = (hypothesis, trio.testing)
_NO_FUSS = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
"""The second: pytest would like to rewrite the asserts of plugins that are imported here already."""


class _Stopped(BaseException):
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _child(arguments: list[str], output: IO[bytes]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (output.fileno(), 1), (output.fileno(), 2)):
            os.dup2(source, target)
        code = int(pytest.main([*_NO_FUSS, *arguments]))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(arguments: list[str], seconds: float, output: IO[bytes]) -> int | None:
    process = os.fork()
    if not process:
        _child(arguments, output)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                process = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        return None
    finally:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)


def main() -> None:
    """Answer until stdin ends."""
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(_Stopped, KeyboardInterrupt):
        for line in sys.stdin:
            request = json.loads(line)
            with tempfile.TemporaryFile() as output:
                code = _run(request["arguments"], request["seconds"], output)
                output.seek(0)
                text = output.read().decode(errors="replace")
            print(json.dumps({"code": code, "output": text}), flush=True)


if __name__ == "__main__":
    main()
