"""What a salvage does not find: damaged places, and the streams that are not whole because of them."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from stepstore.log.names import SALVAGED
from stepstore.log.problems import TouchedStream
from stepstore.log.salvage_findings import FoundBatch, Lost
from stepstore.log.salvage_report import DamagedPlace, SalvagedStream, SalvageReport
from stepstore.log.set_aside import SetAside


@dataclass(slots=True)
class _Trouble:
    """A stream that is not whole: what was found behind its first hole, and what is known to be lost, as (first, last)
    seqs."""

    found: list[tuple[int, int]] = field(default_factory=list)
    lost: list[tuple[int, int]] = field(default_factory=list)
    why: str = ""


class Losses:
    """Keeps account of them in a report. `kept`: of each stream in the new log its last seq there, and the LSN of that
    in the old one; `deleted`: the streams that were deleted."""

    def __init__(self, report: SalvageReport, kept: dict[bytes, tuple[int, int]], deleted: set[bytes]):
        self._report, self._kept, self._deleted = report, kept, deleted
        self._trouble: dict[bytes, _Trouble] = {}
        self._seen: list[tuple[int, int]] = []  # the LSNs that were found

    def note_found(self, first_lsn: int, last_lsn: int) -> None:
        """These records were found: what is lost of them elsewhere is not lost."""
        seen = self._seen
        if seen and seen[-1][1] + 1 == first_lsn:
            seen[-1] = seen[-1][0], last_lsn
        else:
            seen.append((first_lsn, last_lsn))

    def note_lost(self, lost: Lost) -> None:
        """A place is damaged."""
        parts = [part for part in lost.parts or () if not self._is_there(part)]
        concerns = lost.concerns_records and (lost.parts is None or bool(parts))
        text = lost.what if lost.what.endswith("missing") else f"{lost.what} is not what was written"
        self._report.places.append(
            DamagedPlace(
                file=lost.path,
                offset=lost.offset,
                end=lost.end,
                first_lsn=lost.first_lsn if concerns else None,
                last_lsn=lost.last_lsn if concerns else None,
                lost=concerns,
                text=text,
                streams=[TouchedStream(stream=stream.hex(), first_seq=a, last_seq=b) for stream, a, b in parts],
                streams_known=lost.parts is not None,
            )
        )
        for stream, first, last in parts:
            self._trouble.setdefault(stream, _Trouble()).lost.append((first, last))

    def _is_there(self, part: tuple[bytes, int, int]) -> bool:
        """Whether records that are lost in one place are in the new log already, or are of a deleted stream."""
        stream, _first, last = part
        return stream in self._deleted or self._kept.get(stream, (0, 0))[0] >= last

    def note_behind_a_hole(self, batch: FoundBatch) -> None:
        """A batch was found that the new log cannot take."""
        trouble = self._trouble.setdefault(batch.stream, _Trouble())
        trouble.found.append((batch.first_seq, batch.last_seq))
        if len(trouble.found) > 1:
            trouble.found = list(_joined(trouble.found))

    def note_fault(self, stream: bytes, why: str) -> None:
        """Something else than a hole is wrong with a stream."""
        self._trouble.setdefault(stream, _Trouble()).why = why

    def attribute(self, stream: bytes, first: int, last: int, after_lsn: int, before_lsn: int) -> None:
        """Records of a stream are missing between two LSNs: say so at every damaged place there that does not know
        which streams it held."""
        if stream in self._trouble:
            return  # only the first hole is looked for; all of them are in the list of streams
        for place in reversed(self._report.places):
            if place.streams_known or place.first_lsn is None:
                continue
            if place.last_lsn is not None and place.last_lsn <= after_lsn:
                break
            if place.first_lsn < before_lsn:
                place.streams.append(TouchedStream(stream=stream.hex(), first_seq=first, last_seq=last))

    def judge_streams(self, name: Callable[[bytes], str]) -> None:
        """All was read: list the streams that are not whole, and tell of which places that is. `name`: what a stream is
        called whose first records were kept."""
        for stream, trouble in self._trouble.items():
            kept = self._kept.get(stream, (0, 0))[0]
            found = [(first, last) for first, last in _joined(trouble.found) if last > kept]
            highest = max([last for _first, last in (*trouble.lost, *found)], default=0)
            missing = list(_gaps(kept, highest, found))
            if not (missing or found or trouble.why):
                continue  # another file had it
            behind = sum(last - max(first, kept + 1) + 1 for first, last in found)
            aside = posixpath.join(SALVAGED, SetAside.name(stream)) if trouble.found else ""
            self._report.streams.append(
                SalvagedStream(
                    stream=stream.hex(),
                    name=name(stream) if kept else "",
                    kept=kept,
                    missing=missing,
                    behind=behind,
                    file=aside,
                    why=trouble.why,
                )
            )
        named = {stream.stream: stream.name for stream in self._report.streams}
        seen = list(_joined(self._seen))
        for place in self._report.places:
            if place.first_lsn is not None and place.last_lsn is not None and not place.streams_known:
                lsns = place.first_lsn, place.last_lsn
                place.lost = not any(first <= lsns[0] and lsns[1] <= last for first, last in seen)
            elif place.lost and place.streams:
                place.lost = any(part.stream in named for part in place.streams)  # else another file had them
            for part in place.streams:
                part.name = named.get(part.stream, "")


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same numbers as few ranges as will do, in order."""
    current: tuple[int, int] | None = None
    for first, last in sorted(ranges):
        if current is not None and first <= current[1] + 1:
            current = current[0], max(current[1], last)
            continue
        if current is not None:
            yield current
        current = first, last
    if current is not None:
        yield current


def _gaps(kept: int, highest: int, found: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The numbers behind `kept` up to `highest` that are in none of the ranges."""
    expected = kept + 1
    for first, last in found:
        if first > expected:
            yield expected, first - 1
        expected = max(expected, last + 1)
    if expected <= highest:
        yield expected, highest
