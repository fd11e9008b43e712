"""Every error the storage floor raises, and the root of the whole family.

A message says what happened, to what, and what to do next; its wording is not part of the interface, the class is.
`stepwell.errors` re-exports all of these and adds the few that only the actor runtime can raise.
"""

from __future__ import annotations

import copy
import os
from typing import TypeVar

E = TypeVar("E", bound=BaseException)


class StepwellError(Exception):
    """Root of every error raised on purpose by `stepwell` and `stepstore`."""


class Rejected(StepwellError):
    """The request was refused and *nothing of it is stored*. Retrying is always safe."""


class InvalidInput(Rejected, ValueError):
    """A value the caller passed is not acceptable; the message names the path inside the value."""


class TooLarge(Rejected):
    """A value exceeds a limit; the message names the field, its size and the limit."""


class Closed(Rejected):
    """The memory (or its log) takes no more writes: it was closed, or it failed and names the cause."""


class LogFull(Rejected):
    """The medium has no room for another commit group. Reading goes on; writing does again once room appears."""


class NotFound(StepwellError, KeyError):
    """Nothing is stored under this id. The caller's fault, usually a wrong id or a wrong directory."""

    def __str__(self) -> str:  # a KeyError prints the repr of its key; a sentence is wanted here
        return str(self.args[0]) if self.args else ""


class InvalidState(StepwellError):
    """The request contradicts what is stored: an ended episode, a reused key, an unexpected sequence number."""


class OutcomeUnknown(StepwellError):
    """Whether the write reached the medium cannot be told. Reopen and look, or resubmit with the same key."""


class Fenced(StepwellError):
    """The LOCK file was replaced under this process: somebody else may own the log now. Close and reopen."""


class LogLocked(StepwellError):
    """Another process, or another `open_memory` in this one, has the log open for writing."""

    def __init__(self, message: str, *, pid: int | None = None, host: str | None = None, since: str | None = None):
        super().__init__(message)
        self.pid, self.host, self.since = pid, host, since


class CorruptLog(StepwellError):
    """Bytes that were durable are not what was written. Nothing was changed; the message names the place.

    Attributes: `file` (path), `offset` (bytes into it), `first_lsn` and `last_lsn` (the records concerned, `last_lsn`
    is None where the end is not known), `streams` (ids known to be touched).
    """

    def __init__(
        self,
        message: str,
        *,
        file: str = "",
        offset: int = 0,
        first_lsn: int = 0,
        last_lsn: int | None = None,
        streams: tuple[bytes, ...] = (),
        row: int = 0,
    ):
        super().__init__(message)
        self.file, self.offset, self.first_lsn, self.last_lsn, self.streams = file, offset, first_lsn, last_lsn, streams
        self.row = row


class Damaged(CorruptLog):
    """One stream's stored bytes fail their checksum; every other stream is fine."""


class KeyDestroyed(StepwellError):
    """A stream's records are encrypted and its key is gone; deleting the stream destroyed it. Not damage: the bytes are
    what was written, and nobody can read them any more. `stream` is the stream's 16-byte id."""

    def __init__(self, message: str, *, stream: bytes = b""):
        super().__init__(message)
        self.stream = stream


class Forked(CorruptLog):
    """Two different records carry the same sequence number of one stream; it is readable up to the fork."""


class RecoveryFailed(StepwellError):
    """Opening could not find out what the log holds (an I/O error, a newer format). Nothing was changed."""

    def __init__(self, message: str, *, file: str = "", offset: int = 0, errno: int | None = None):
        super().__init__(message)
        self.file, self.offset, self.errno = file, offset, errno

    @classmethod
    def from_os_error(cls, doing: str, error: OSError, *, file: str = "", offset: int = 0) -> RecoveryFailed:
        """Wrap the `OSError` met while *doing* something during opening, keeping its number and place."""
        name = file or str(error.filename or "")
        reason = os.strerror(error.errno) if error.errno else str(error)
        place = f" at offset {offset}" if offset else ""
        failed = cls(
            f"cannot {doing} {name!r}{place}: {reason}. Nothing was changed; mend the cause and open again.",
            file=name,
            offset=offset,
            errno=error.errno,
        )
        failed.__cause__ = error
        return failed


class Unavailable(StepwellError):
    """The thing asked for exists but cannot be served now; the message says why."""


def afresh(error: E) -> E:
    """The same error, and its causes, as if nobody had raised them yet.

    Whoever keeps an error to raise it later keeps such a one, and raises another: a traceback holds the frames, and
    with them everything that these know. Where something in that is not known to the garbage collector (`Submission`),
    and has the error, none of it would ever be freed.
    """
    kind = type(error)
    try:
        # Not by copying: that would call constructors, and ours have keywords that `args` does not know.
        found = copy.copy(error) if isinstance(error, OSError) else kind.__new__(kind, *error.args)
    except Exception:  # a cause of somebody else's class, which is made in another way
        return error
    found.__dict__.update(error.__dict__)
    cause = error.__cause__
    if cause is not None:
        found.__cause__ = afresh(cause)
    found.__suppress_context__ = error.__suppress_context__
    return found
