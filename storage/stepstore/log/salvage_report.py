"""What a salvage found and did: as an object, as JSON, and as a text for people."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from stepstore.log.files import FileSystem, write_all
from stepstore.log.problems import TouchedStream

STREAMS_IN_TEXT = 1_000
"""Streams that REPORT.txt lists; REPORT.json has all of them."""


@dataclass(kw_only=True)
class DamagedPlace:
    """A place that is not what was written: bytes `offset` to `end` of `file`, and the LSNs of what lay there.

    `first_lsn` is None where no record lay there; `last_lsn` is None as well where it cannot be told how far they
    reach. `lost`: whether a record is lost there, or may be. `streams`: those known to have lost records there;
    `streams_known`: whether these are all.
    """

    file: str
    offset: int
    end: int
    first_lsn: int | None
    last_lsn: int | None
    lost: bool
    text: str
    streams: list[TouchedStream] = field(default_factory=list)
    streams_known: bool = True

    def __str__(self) -> str:
        where = f"{self.file} offset {self.offset:,} to {self.end:,}" if self.end else self.file
        if not self.lost:
            return f"{where}: {self.text}; no record is lost by it"
        if self.last_lsn is None:
            lsns = f"from LSN {self.first_lsn} on"
        else:
            lsns = f"LSN {self.first_lsn}" + (f" to {self.last_lsn}" if self.last_lsn != self.first_lsn else "")
        return f"{where}: {self.text}; lost there: {lsns}"


@dataclass(kw_only=True)
class SalvagedStream:
    """A stream that is not whole. `kept`: its last seq in the new log. `missing`: the (first, last) seqs that were not
    found anywhere. `behind`: records found behind the first hole, in `file`. `why`: what else is wrong with it."""

    stream: str
    name: str = ""
    kept: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    behind: int = 0
    file: str = ""
    why: str = ""

    def __str__(self) -> str:
        kept = f"records 1 to {self.kept} are in the new log" if self.kept else "nothing of it is in the new log"
        parts = [f"{self.name or self.stream}: {kept}"]
        if self.missing:
            numbers = [f"{first}" if first == last else f"{first} to {last}" for first, last in self.missing]
            parts.append(f"missing: {', '.join(numbers)}")
        if self.behind:
            parts.append(f"{self.behind:,} behind that are in {self.file}")
        if self.why:
            parts.append(self.why)
        return "; ".join(parts)


@dataclass(kw_only=True)
class SalvageReport:
    """See the module. `lost`: whether anything is missing from the new log that was, or may have been, in the old one.

    `kept_records`, `kept_streams`: what is in the new log. `behind_records`: what was found behind a hole and went to
    `salvaged/`. `duplicates`: records found twice, equal. `streams`: those that are not whole.
    """

    source: str
    target: str
    source_log: str | None = None
    target_log: str = ""
    segments: int = 0
    bytes_read: int = 0
    kept_records: int = 0
    kept_streams: int = 0
    behind_records: int = 0
    deleted_streams: int = 0
    duplicates: int = 0
    places: list[DamagedPlace] = field(default_factory=list)
    streams: list[SalvagedStream] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lost(self) -> bool:
        return bool(self.streams) or any(place.lost for place in self.places)

    def fields(self) -> dict[str, Any]:
        """The report as JSON values."""

        def plain(value: Any) -> Any:
            if isinstance(value, list):
                return [plain(item) for item in value]
            return {key: plain(item) for key, item in vars(value).items()} if hasattr(value, "__dict__") else value

        fields: dict[str, Any] = plain(self)
        return {"lost": self.lost, **fields}

    def lines(self) -> Iterator[str]:
        """The report for people."""
        yield f"Salvage of the log in {self.source}"
        yield f"into a new one in {self.target} (log {self.target_log})"
        yield ""
        yield f"read:       {_count(self.segments, 'segment')}, {_count(self.bytes_read, 'byte')}"
        yield f"kept:       {_count(self.kept_records, 'record')} in {_count(self.kept_streams, 'stream')}"
        if self.behind_records:
            yield f"set aside:  {_count(self.behind_records, 'record')} behind a hole, in salvaged/*.jsonl"
        if self.deleted_streams:
            yield f"deleted:    {_count(self.deleted_streams, 'stream')}, before; they stay so"
        if self.duplicates:
            yield f"twice:      {_count(self.duplicates, 'record')}, equal; one of each is kept"
        yield ""
        yield "SOMETHING IS LOST." if self.lost else "Nothing is lost."
        yield ""
        yield f"Damaged places: {len(self.places):,}"
        for place in self.places:
            yield f"  - {place}"
            for part in place.streams:
                yield f"      {part}"
            if place.lost and not place.streams_known:
                yield "      which streams it held is known only as far as something is missing from them"
        yield ""
        yield f"Streams that are not whole: {len(self.streams):,}"
        for stream in self.streams[:STREAMS_IN_TEXT]:
            yield f"  - {stream}"
        if len(self.streams) > STREAMS_IN_TEXT:
            yield f"  … and {len(self.streams) - STREAMS_IN_TEXT:,} more, in REPORT.json"
        if any(place.lost and place.last_lsn is None for place in self.places):
            yield "  What was last in a stream can be missing without a trace where the end of the log is damaged."
        if any(place.lost and not place.streams_known for place in self.places):
            yield "  A deletion that lay in a damaged place is lost like anything else: look for what should be gone."
        if self.notes:
            yield ""
            yield "Notes:"
            for note in self.notes:
                yield f"  - {note}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def write_text(files: FileSystem, path: str, parts: Iterator[str]) -> None:
    """Write a new file from pieces of text, durable."""
    file = files.open(path, create=True)
    try:
        offset = 0
        for part in parts:
            data = part.encode("utf-8", "backslashreplace")
            write_all(file, offset, data)
            offset += len(data)
        file.datasync()
    finally:
        file.close()


def write_report(files: FileSystem, folder: str, report: SalvageReport, kept: Iterator[tuple[bytes, int]]) -> None:
    """Write REPORT.json and REPORT.txt into a folder. `kept`: every stream of the new log and its last seq, which are
    too many to be held as objects."""

    def as_json() -> Iterator[str]:
        text = json.dumps(report.fields(), ensure_ascii=False, indent=1)
        yield text.removesuffix("\n}") + ',\n "kept": {'
        comma = ""
        for stream, last_seq in kept:
            yield f'{comma}\n  "{stream.hex()}": {last_seq}'
            comma = ","
        yield "\n }\n}\n"

    write_text(files, posixpath.join(folder, "REPORT.json"), as_json())
    write_text(files, posixpath.join(folder, "REPORT.txt"), (f"{line}\n" for line in report.lines()))
    files.sync_directory(folder)
