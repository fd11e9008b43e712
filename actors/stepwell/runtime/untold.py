"""Writes that failed and that nobody was told of.

A record is accepted before it is stored. If its write fails in between, its receipt says so, but perhaps nobody asks
it. So the failure is kept, as a number per stream, until somebody does, or until the next flush, checkpoint or
completion raises it, once. The numbers belong to the supervisor and not to the cell, which a stream loses when it
goes to sleep. Only what failed costs anything.

The start and the ending of an episode are not counted: whoever asked for one asks again, and learns what became of it.
"""

from __future__ import annotations

from threading import Lock

import trio

from stepwell.errors import Closed, LogFull, OutcomeUnknown, Rejected, StepwellError
from stepwell.runtime.receipt import Commit
from stepwell.runtime.right_loop import get_ident, wrong_loop

NAMED = 10
"""So many streams are named by one error; the others are counted."""


class Losses:
    """What failed of one stream and nobody was told of: the records that were refused, those whose fate is unknown,
    and the last error."""

    __slots__ = ("error", "refused", "stream", "unknown")

    def __init__(self, stream: str, error: StepwellError) -> None:
        self.refused = self.unknown = 0
        self.stream, self.error = stream, error

    @property
    def records(self) -> int:
        """All of them."""
        return self.refused + self.unknown

    def add(self, records: int, error: StepwellError) -> None:
        """Count records more, or fewer."""
        if isinstance(error, Rejected):
            self.refused += records
        else:
            self.unknown += records

    def __str__(self) -> str:
        count = f"{self.records:,} record{'' if self.records == 1 else 's'}"
        if not self.unknown:
            return f"{count} refused and not stored"
        return (
            f"{count} unknown" if not self.refused else f"{count} ({self.refused:,} refused, {self.unknown:,} unknown)"
        )


class Loss:
    """The records of one failed commit. A receipt that is asked takes them off what is untold."""

    __slots__ = ("error", "is_told", "losses", "records", "untold")

    def __init__(self, untold: UntoldFailures, losses: Losses, records: int, error: StepwellError):
        self.untold, self.losses, self.records, self.error = untold, losses, records, error
        self.is_told = False


def called(name: str, noun: str = "episode") -> str:
    """What an error calls a stream. No two streams are called the same."""
    return f"{noun} {name!r}"


class UntoldFailures:
    """See the module. Streams are named as they are called."""

    def __init__(self) -> None:
        self._of: dict[str, Losses] = {}
        # Receipts may be asked in another thread (`stepwell.sync`), but not be waited for.
        self._lock = Lock()
        self._thread = get_ident()

    def check_thread(self) -> None:
        """Raises: `WrongLoop` in another thread than that of the memory."""
        if get_ident() != self._thread:
            raise wrong_loop()

    @property
    def records(self) -> int:
        """How many records failed whose failure nobody was told of."""
        with self._lock:
            return sum(losses.records for losses in self._of.values())

    @trio.lowlevel.enable_ki_protection
    def note(self, stream: str, commit: Commit, error: StepwellError) -> None:
        """A commit of the stream has failed."""
        records = commit.records - commit.asked_again
        if not records:
            return
        with self._lock:
            losses = self._of.get(stream)
            if losses is None:
                losses = self._of[stream] = Losses(stream, error)
            losses.add(records, error)
            losses.error = error
        commit.losses = (Loss(self, losses, records, error),)

    @trio.lowlevel.enable_ki_protection
    def asked(self, loss: Loss) -> None:
        """A receipt was asked: its holder is told."""
        with self._lock:
            if not loss.is_told:
                loss.is_told = True
                losses = loss.losses
                losses.add(-loss.records, loss.error)
                if not losses.records and self._of.get(losses.stream) is losses:
                    del self._of[losses.stream]

    @trio.lowlevel.enable_ki_protection
    def tell(self, stream: str | None = None) -> None:
        """Raise what is untold of the stream, or of all, as one error; from then on it is told. A plain function.

        Raises: `OutcomeUnknown`; if all of it was refused, the `Rejected` that says why (`LogFull`, `Closed`).
        """
        with self._lock:
            if stream is None:
                found, self._of = self._of, {}
            else:
                losses = self._of.pop(stream, None)
                found = {} if losses is None else {stream: losses}
        told = {of: losses for of, losses in found.items() if losses.records}
        if told:
            raise _error_of(told) from next(iter(told.values())).error

    @trio.lowlevel.enable_ki_protection
    def tell_with(self, stream: str, error: BaseException) -> None:
        """As `tell`, if what failed last of the stream failed with this very error."""
        losses = self._of.get(stream)
        if losses is not None and losses.error is error:
            self.tell(stream)

    @trio.lowlevel.enable_ki_protection
    def forget(self, stream: str) -> None:
        """The stream is deleted: nobody misses its records."""
        with self._lock:
            self._of.pop(stream, None)


def _error_of(told: dict[str, Losses]) -> StepwellError:
    """One error for all of them."""
    named = "; ".join(f"{stream}: {losses}" for stream, losses in list(told.items())[:NAMED])
    more = "" if len(told) <= NAMED else f"; and {len(told) - NAMED:,} more"
    errors = [losses.error for losses in told.values()]
    text = f"accepted earlier, and their write failed: {named}{more} ({errors[0]})"
    if any(losses.unknown for losses in told.values()):
        return OutcomeUnknown(f"{text}; send them again under their keys, or read what is there")
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else Rejected
    return (kind if kind in (LogFull, Closed) else Rejected)(f"{text}; send them again")


@trio.lowlevel.enable_ki_protection
def share_telling(commits: list[Commit]) -> None:
    """These were stored together or not at all: asking a receipt of one tells about all."""
    losses = tuple(loss for commit in commits for loss in commit.losses)
    for commit in commits:
        commit.losses = losses
