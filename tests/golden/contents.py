"""What a log holds, in a form that JSON keeps: what the golden logs are compared by."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import trio

from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.files import OsFileSystem
from stepstore.log.frame_reader import FramePosition, FrameReader
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.opening import LogOptions, OpenLog, open_log, open_log_read_only
from stepstore.log.records import Gap
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import Position, StreamReader
from stepwell import MemoryConfig, open_memory

HERE = Path(__file__).parent
VERSIONS = ("v1",)
MASTER_KEY = bytes(range(32))
OPTIONS = LogOptions(
    segment_bytes=64 * 1024,
    key_provider=LocalKeyProvider(MASTER_KEY),
    compaction_bytes_per_second=0,
)
_SHOWN = 120


def payload_text(payload: bytes) -> str:
    """A payload in base64, of a long one its length and its digest."""
    if len(payload) <= _SHOWN:
        return base64.b64encode(payload).decode()
    return f"{len(payload)} bytes, blake2b {hashlib.blake2b(payload, digest_size=16).hexdigest()}"


def log_contents(path: Path, *, write: bool = False) -> dict[str, Any]:
    """Everything that can be read from a log: stream by stream, in log order, and what is known about streams."""
    files = OsFileSystem()
    log = open_log(files, str(path), OPTIONS) if write else open_log_read_only(files, str(path), OPTIONS)
    try:
        return _contents(log)
    finally:
        log.release()


def _contents(log: OpenLog) -> dict[str, Any]:
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    frame_reader = FrameReader(log.reading, log.index, log.codec.decode)
    streams: dict[str, Any] = {}
    for stream in streams_of(log.index):
        records: list[list[Any]] = []
        position = Position(0)
        while True:
            found, position = reader.read_slice(stream, position, log.end_lsn, 1_000, 2**24)
            records += [[record.seq, record.lsn, payload_text(record.payload)] for record in found]
            if not found:
                break
        snapshot = reader.read_snapshot(stream)
        streams[stream.hex()] = {
            "records": records,
            "snapshot": None if snapshot is None else [snapshot.seq, snapshot.lsn, payload_text(snapshot.payload)],
        }
    order: list[Any] = []
    place = FramePosition(0)
    while True:
        items, place = frame_reader.read_frames(place, log.end_lsn, 1_000)
        if not items:
            break
        order += [
            ["gap", item.first_lsn, item.last_lsn] if isinstance(item, Gap) else [item.stream.hex(), item.seq, item.lsn]
            for item in items
        ]
    return {
        "end_lsn": log.end_lsn,
        "streams": streams,
        "order": order,
        "open": [stream.hex() for stream in log.index.streams_still_open()],
        "deleted": sorted(stream.hex() for stream in log.index.deleted_streams()),
    }


def memory_contents(path: Path) -> dict[str, Any]:
    """Everything that a memory says of its episodes, and every event of each."""

    async def main() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with open_memory(path, read_only=True) as memory:
            async for episode_id in memory.episode_ids():
                episode = await memory.get_episode(episode_id)
                events = [
                    [event.seq, event.kind, event.time_ns, msgspec.to_builtins(event.data)]
                    async for event in memory.events(episode_id)
                ]
                found[episode_id] = {
                    "task": episode.task_description,
                    "status": episode.status,
                    "outcome": msgspec.to_builtins(episode.outcome),
                    "steps": len(episode.steps),
                    "reward": msgspec.to_builtins(episode.reward),
                    "events": events,
                }
            found["open"] = [episode.episode_id for episode in await memory.open_episodes()]
        return found

    return trio.run(main)


def journal(path: Path) -> SegmentLogJournal:
    """The log as a journal, for writing."""
    return SegmentLogJournal.open(str(path), OPTIONS)


MEMORY_CONFIG = MemoryConfig(segment_bytes=64 * 1024)
