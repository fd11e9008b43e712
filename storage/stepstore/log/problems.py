"""What is wrong with a log, in a form that a program can read as well as a person: where, what it concerns, and what to
do next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stepstore.errors import CorruptLog

StreamName = Callable[[bytes], str | None]
"""What a stream is called, from the payload of its first record; None if that does not say."""

STREAMS_SHOWN = 5

SALVAGE = (
    "Restore the file from an archive or a backup; or let `stepwell salvage` write a new log with all that is sound, "
    "and a list of what is not"
)
NO_RECORD = "No record is concerned, and the memory opens. Restoring the file from an archive or a backup mends it"
UNREADABLE = (
    "Copy what can be read to a sound medium first. Then restore the file from an archive or a backup; `stepwell "
    "salvage` reads around the place as well"
)
REMOVE_SIDECAR = "No record is concerned. Remove the file; it is written again by itself"
_ADVICE = {
    5: f'{SALVAGE}; or open with MemoryConfig(tail="cut"), which gives up the last commit group and keeps a copy of it',
    7: "Bring the missing files back from an archive or a backup, or move out the one that does not belong there; "
    "`stepwell salvage` does with what is there",
    13: "Move the file out of the directory; it belongs to another log",
    15: "Restore FORMAT from a backup; `stepwell salvage` does without it",
}


@dataclass(kw_only=True)
class TouchedStream:
    """Records of one stream in a damaged place. `name`: what the stream is called, "" where that is not known."""

    stream: str
    first_seq: int
    last_seq: int
    name: str = ""

    def __str__(self) -> str:
        one = self.first_seq == self.last_seq
        numbers = f"record {self.first_seq}" if one else f"records {self.first_seq} to {self.last_seq}"
        return f"{numbers} of {self.name or self.stream}"


@dataclass(kw_only=True)
class Problem:
    """One thing that is wrong.

    `offset`: where it begins in `file`, None if it is not at one place. `first_lsn`, `last_lsn`: the records concerned;
    both None if none is, and `last_lsn` alone where it cannot be told how far they reach. `streams`: those known to be
    concerned, which are all of them if `streams_known`. `row`: of the decision table, 0 for what is in none.
    """

    file: str
    text: str
    advice: str
    offset: int | None = None
    first_lsn: int | None = None
    last_lsn: int | None = None
    streams: list[TouchedStream] = field(default_factory=list)
    streams_known: bool = False
    row: int = 0

    def __contains__(self, text: str) -> bool:
        """Whether the sentence that `str` gives contains `text`."""
        return text in str(self)

    @classmethod
    def of_error(cls, error: CorruptLog) -> Problem:
        """The problem that opening the log would raise."""
        return cls(
            file=error.file,
            text=str(error),
            advice=_ADVICE.get(error.row, SALVAGE),
            offset=error.offset or None,
            first_lsn=error.first_lsn or None,
            last_lsn=error.last_lsn,
            row=error.row,
        )

    def __str__(self) -> str:
        where = self.file if self.offset is None else f"{self.file} at offset {self.offset:,}"
        parts = [self.text if self.file and self.file in self.text else f"{where}: {self.text}"]
        if self.row and f"(row {self.row})" not in self.text:
            parts[0] += f" (row {self.row})"
        if self.first_lsn is not None:
            parts.append(f"Records concerned: {self._lsns()}{self._streams()}")
        parts.append(self.advice)
        return ". ".join(part.rstrip(".") for part in parts) + "."

    def _lsns(self) -> str:
        if self.last_lsn is None:
            return f"LSN {self.first_lsn} and on"
        return f"LSN {self.first_lsn}" + (f" to {self.last_lsn}" if self.last_lsn != self.first_lsn else "")

    def _streams(self) -> str:
        if not self.streams:
            return "" if self.streams_known else ", of streams that cannot be told"
        shown = ", ".join(str(stream) for stream in self.streams[:STREAMS_SHOWN])
        more = len(self.streams) - STREAMS_SHOWN
        others = "" if self.streams_known else ", as far as can be told"
        return f": {shown}" + (f" and {more:,} more" if more > 0 else "") + others


def advice_for(row: int) -> str:
    """What to do about damage of a row of the decision table."""
    return _ADVICE.get(row, SALVAGE)
