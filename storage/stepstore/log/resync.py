"""Follow the frames of a segment across damage: where the chain breaks, search for the next sound header.

Nothing of this is used to open a log, which refuses damage; `salvage` and `verify` use it to say what is left. A header
counts if it carries the tag of the segment and its LSNs rise: a payload may hold a copy of earlier frames of its own
segment, and those have lower ones. Payloads of a frame whose header is sound are stepped over and never searched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from stepstore.log import frame as fr
from stepstore.log.frame import KIND_CLOSE, KIND_DATA, KIND_FOOTER, KIND_MARK, FrameHeader
from stepstore.log.scan import Window, header_places, sound_headers
from stepstore.log.segment_header import HEADER_BYTES


class FoundFrame(NamedTuple):
    """A frame whose header is sound; nothing is said about what follows it."""

    at: int
    head: FrameHeader


class Break(NamedTuple):
    """Bytes from `offset` to `end` that are not what was written, and the LSNs that are due there.

    `last_lsn` is `first_lsn - 1` where no record is concerned, None where it cannot be told how far they reach.
    """

    offset: int
    end: int
    first_lsn: int
    last_lsn: int | None


class End(NamedTuple):
    """Where the walk ended: behind the last frame found. `end_offset`, `chain`: behind the last data frame or mark."""

    offset: int
    next_lsn: int
    end_offset: int
    chain: int | None
    sealed: bool
    closed: bool


def walk(
    window: Window, tag: int, *, first_lsn: int, chain: int | None, align: int, last_lsn: int | None
) -> Iterator[FoundFrame | Break | End]:
    """Every frame of a segment that can be found, in order, with the breaks between them; an `End` comes last.

    `chain`: the CRC of the segment's header, None where that is not known. `last_lsn`: the last LSN of the segment, as
    far as something else tells it; headers beyond it are not believed.
    Raises: `RecoveryFailed`.
    """
    offset, lsn = HEADER_BYTES, first_lsn
    end_offset, end_chain = offset, chain
    sealed = closed = False
    while not closed:
        found = _in_place(window, tag, offset, lsn, chain, align, last_lsn)
        if found is None:
            found = _next(window, tag, offset, lsn, last_lsn, sealed)
            if found is None:
                break
            at, head = found
            yield Break(offset, at, lsn, head.first_lsn - 1)
        else:
            at, head = found
            if not window.is_zero(offset, at):
                yield Break(offset, at, lsn, lsn - 1)
        yield FoundFrame(at, head)
        offset, lsn, chain = at + head.frame_len, head.last_lsn + 1, head.header_crc
        sealed = sealed or head.kind == KIND_FOOTER
        closed = head.kind == KIND_CLOSE
        if head.kind in (KIND_DATA, KIND_MARK):
            end_offset, end_chain = offset, chain
    yield End(offset, lsn, end_offset, end_chain, sealed, closed)


def _in_place(
    window: Window, tag: int, offset: int, lsn: int, chain: int | None, align: int, last_lsn: int | None
) -> tuple[int, FrameHeader] | None:
    """The header that continues the chain where it is due, but none behind the end of the segment: what was never
    acknowledged may stand there whole. Of a rewritten file the LSNs may leave some out."""
    for at in header_places(align, offset):
        head = fr.parse_header(window.at(at, fr.HEADER_BYTES))
        if head is None or head.segment_tag != tag or head.first_lsn < lsn:
            continue
        if last_lsn is not None and head.last_lsn > last_lsn:
            continue
        if (head.prev_crc == chain) if chain is not None else (head.first_lsn == lsn):
            return at, head
    return None


def _next(
    window: Window, tag: int, offset: int, lsn: int, last_lsn: int | None, sealed: bool
) -> tuple[int, FrameHeader] | None:
    for at, head in sound_headers(window, tag, offset):
        if head.first_lsn < lsn or head.durable_lsn >= head.first_lsn or (sealed and head.kind != KIND_CLOSE):
            continue
        if last_lsn is None or head.last_lsn <= last_lsn:
            return at, head
    return None


def guess_tag(window: Window) -> int | None:
    """The tag of a segment whose header and footer are lost: that of the frame in its first place, or else the one that
    most headers in the file carry."""
    first = fr.parse_header(window.at(HEADER_BYTES, fr.HEADER_BYTES))
    if first is not None:
        return first.segment_tag
    seen = Counter(head.segment_tag for _at, head in sound_headers(window, None, HEADER_BYTES))
    return seen.most_common(1)[0][0] if seen else None
