"""Cursors: how far a follower has come, in a form that outlives the process and notices a lost branch.

An LSN alone would not do: after a power cut the LSNs behind the end are given out again, to other records. So a cursor
names the log, its branch, and the epoch (the incarnation of the writer) in which its record was written.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple

from stepstore.log.directory import Identity

_TEXT = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9]{1,20})\.([0-9]{1,20})")

Verdict = Literal["valid", "another log", "another branch", "a lost branch", "beyond the end"]


class Cursor(NamedTuple):
    """Behind record `lsn`, written in `epoch`; 0 and 0 is before the first."""

    log_uuid: uuid.UUID
    branch_uuid: uuid.UUID
    epoch: int
    lsn: int

    def __str__(self) -> str:
        return f"{self.log_uuid.hex}.{self.branch_uuid.hex}.{self.epoch}.{self.lsn}"


def parse_cursor(text: str) -> Cursor | None:
    """The cursor that a text stands for, None if it is none."""
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    return Cursor(uuid.UUID(hex=match[1]), uuid.UUID(hex=match[2]), int(match[3]), int(match[4]))


def epoch_of(lsn: int, epoch_ends: Sequence[tuple[int, int]]) -> int:
    """The epoch in which a record was written: the first that reaches so far. `epoch_ends`: (epoch, its last LSN)."""
    return next((epoch for epoch, end in epoch_ends if lsn <= end), epoch_ends[-1][0]) if lsn and epoch_ends else 0


def judge_cursor(cursor: Cursor, identity: Identity, epoch_ends: Sequence[tuple[int, int]], end_lsn: int) -> Verdict:
    """What a cursor is worth in the log as it stands.

    "beyond the end" says that durable records have vanished: the follower saw them, and followers see only what is
    durable. "a lost branch": its record was cut off after a crash, and its LSN may be another record's now.
    """
    if cursor.log_uuid != identity.log_uuid:
        return "another log"
    if cursor.branch_uuid != identity.branch_uuid:
        return "another branch"
    if not cursor.lsn:
        return "valid"
    ends = dict(epoch_ends)
    newest = epoch_ends[-1][0] if epoch_ends else 0
    if cursor.lsn > end_lsn and cursor.epoch >= newest:
        return "beyond the end"
    if cursor.lsn > ends.get(cursor.epoch, 0):
        return "a lost branch"
    return "valid"
