"""Whether the log takes writes, and why not: it has failed or is closing, its medium is full, or this is a fork."""

from __future__ import annotations

import logging

import trio

from stepstore.errors import Closed, LogFull
from stepstore.log.opening import OpenLog
from stepstore.log.submission import Gate
from stepstore.notices import Notices

RETRY_FULL_SECONDS = 5.0

_logger = logging.getLogger("stepstore.log")


class Admission:
    """What submissions are admitted by. `failed`: why the writer is lost for good, None while it works.
    `is_finishing`: whether it was told to finish, or has ended."""

    def __init__(self, log: OpenLog, notices: Notices):
        self._log, self._notices = log, notices
        self._full_since_error: OSError | None = None
        self.failed: BaseException | None = None
        self.is_finishing = False
        self.gate = Gate()

    @property
    def is_full(self) -> bool:
        """Whether the medium had no room at the last attempt."""
        return self._full_since_error is not None

    @property
    def is_open(self) -> bool:
        """Whether the writer works and was not told to finish."""
        return self.failed is None and not self.is_finishing and not self._log.is_forked

    def check_open(self, *, critical: bool = False) -> None:
        """Raises: `Closed`, `LogFull` as `submit` would now."""
        if self.failed is not None:
            raise Closed(
                f"the log in {self._log.path!r} takes no more writes after an error ({self.failed}). What is on disk "
                "can be read; close the memory and open it again."
            ) from self.failed
        if self._log.is_forked:
            raise Closed(
                f"this process was forked from the one that opened the memory in {self._log.path!r}; only that one may "
                "write to it. Open memories after forking."
            )
        if self.is_finishing:
            raise Closed(f"the log in {self._log.path!r} is closed")
        if self._full_since_error is not None and (not critical or self._log.pending_repair is not None):
            raise LogFull(
                f"no room for the log in {self._log.path!r} ({self._full_since_error.strerror}). Make room; writing "
                f"goes on by itself within {RETRY_FULL_SECONDS:.0f} s."
            ) from self._full_since_error

    @trio.lowlevel.enable_ki_protection
    def set_full(self, error: OSError | None) -> None:
        """The medium has no room, or (None) has room again."""
        was_full, self._full_since_error = self.is_full, error
        self.gate.is_open = error is None and self.failed is None and not self.is_finishing
        if error is not None and not was_full:
            sentence = (
                f"the log in {self._log.path} is full ({error.strerror}); only endings are taken until there is room"
            )
            _logger.error("%s", sentence)
            self._notices.tell("log_full", sentence)
        elif error is None and was_full:
            sentence = f"the log in {self._log.path} has room again, and takes writes"
            _logger.warning("%s", sentence)
            self._notices.tell("log_has_room", sentence)

    @trio.lowlevel.enable_ki_protection
    def fail(self, error: BaseException) -> None:
        """The writer is lost, because of this."""
        self.failed = error
        self.gate.is_open = False

    @trio.lowlevel.enable_ki_protection
    def finish(self) -> None:
        """Nothing is admitted any more."""
        self.is_finishing = True
        self.gate.is_open = False
