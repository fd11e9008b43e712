"""What `verify` tells of a log."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepstore.log.problems import Problem


@dataclass(kw_only=True)
class VerifyReport:
    """What a log holds, and what is wrong with it.

    `problems`: each thing that is damaged; empty means sound. `notes`: what a crash left and the next opening cleans
    up; nothing acknowledged is in it. `live_tail`: what was not judged because a process has the log open and may be
    writing there, None otherwise.
    """

    segments: int = 0
    sealed: int = 0
    frames: int = 0
    records: int = 0
    streams: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    live_tail: str | None = None

    def add(self, part: VerifyReport) -> None:
        """Take up what was found of one more segment; streams are counted elsewhere."""
        self.segments += part.segments
        self.sealed += part.sealed
        self.frames += part.frames
        self.records += part.records
        self.bytes += part.bytes
        self.problems += part.problems
        self.notes += part.notes
        self.live_tail = part.live_tail or self.live_tail
