"""The whole error family on one screen.

StepwellError
├ Rejected               definitely not stored; retrying is safe
│  ├ InvalidInput        (also a ValueError) names the path inside the value
│  ├ TooLarge
│  ├ Closed
│  ├ LogFull
│  └ Busy                only from the `…_nowait` calls
├ NotFound               (also a KeyError, but prints as a sentence)
├ InvalidState           contradicts what is stored
├ OutcomeUnknown         may or may not be stored; resubmit with the same key
├ Fenced, LogLocked      somebody else owns the log
├ CorruptLog ← Damaged, Forked
├ KeyDestroyed           the key of an encrypted stream was destroyed
├ RecoveryFailed         opening could not find out what the log holds
├ Unavailable ← EpisodeUnavailable
└ WrongLoop              called from an event loop this door does not serve
"""

from __future__ import annotations

from typing import Literal

from stepstore.errors import Closed as Closed
from stepstore.errors import CorruptLog as CorruptLog
from stepstore.errors import Damaged as Damaged
from stepstore.errors import Fenced as Fenced
from stepstore.errors import Forked as Forked
from stepstore.errors import InvalidInput as InvalidInput
from stepstore.errors import InvalidState as InvalidState
from stepstore.errors import KeyDestroyed as KeyDestroyed
from stepstore.errors import LogFull as LogFull
from stepstore.errors import LogLocked as LogLocked
from stepstore.errors import NotFound as NotFound
from stepstore.errors import OutcomeUnknown as OutcomeUnknown
from stepstore.errors import RecoveryFailed as RecoveryFailed
from stepstore.errors import Rejected as Rejected
from stepstore.errors import StepwellError as StepwellError
from stepstore.errors import TooLarge as TooLarge
from stepstore.errors import Unavailable as Unavailable


class Busy(Rejected):
    """A `…_nowait` call would have had to wait. Not stored; use the awaiting form, or try again later."""


class EpisodeUnavailable(Unavailable):
    """One episode cannot be served while all others can; `reason` says why.

    `parked`: its task failed too often in a row; `damaged`, `forked`, `undecodable`: its stored records are not sound.
    """

    def __init__(self, message: str, *, reason: Literal["parked", "damaged", "forked", "undecodable"]):
        super().__init__(message)
        self.reason = reason


class WrongLoop(StepwellError):
    """Called from outside the event loop that opened the memory, or entered in one of another kind; the message names
    the right door."""
