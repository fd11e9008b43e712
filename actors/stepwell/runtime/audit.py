"""The audit file: one JSON line for every durable event of an episode that is no step, in the order of the log.

    {"time": …, "kind": "tagged", "episode_id": …, "stream": …, "seq": …, "lsn": …, "actor": …, "detail": {…}, …}

`stream` is the name of the episode on disk (`stepwell.model.ids.stream_id`, in hex), which is all that the event
"deleted" tells of an episode that was started before this file knew of it; `detail` holds no text of the task.

The file is a follower of the log and keeps its own place in it: the cursor of its last line. So a crash, a full disk or
a memory that was opened without it for a while leaves no hole and no line twice; the lines come when it can be written.
Only of an episode that was deleted before that, no follower sees anything but its deletion.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from typing import Any

import trio

from stepstore.journal import Gap, Journal, Record
from stepwell.errors import Damaged, EpisodeUnavailable, Forked, InvalidInput, KeyDestroyed
from stepwell.model.codec import DecodedRecord, decode_record, kind_head
from stepwell.model.event import CHECKPOINTED, ENDED, RELATED, STARTED, STEP, TAGGED, UNRELATED, UPDATED, utc
from stepwell.model.ids import EPISODE_STREAM
from stepwell.runtime.reading import first_record

_NAMES_KEPT = 100_000
_TAIL_BYTES = 64 * 1024
_STEP = kind_head(STEP)


def _private(path: str, flags: int) -> int:
    """Open a file that, if it is new, only its owner may read."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


class AuditFile:
    """The lines of an audit file, in the threads that write them."""

    def __init__(self, path: str):
        self._path = path

    def resume(self) -> str | None:
        """Cut off a line that was torn by a crash, and give the cursor of the last one; None if there is none.

        Raises: `OSError`, `InvalidInput` (it is no audit file).
        """
        with open(self._path, "a+b", opener=_private) as file:
            end = file.seek(0, os.SEEK_END)
            tail = b""
            begin = end
            # The last whole line lies between the last two line ends, or between the first byte and the only one.
            while begin and tail.count(b"\n") < 2:
                begin = max(0, begin - _TAIL_BYTES)
                file.seek(begin)
                tail = file.read(end - begin)
            whole = tail.rfind(b"\n") + 1
            file.truncate(begin + whole)
            last = tail[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        if not last:
            return None
        try:
            cursor = json.loads(last)["cursor"]
        except (ValueError, KeyError, TypeError):
            cursor = None
        if not isinstance(cursor, str):
            raise InvalidInput(f"audit: {self._path!r} is no audit file of a memory; name another")
        return cursor

    def append(self, lines: bytes) -> None:
        """Write lines, and have them on the medium. Raises: `OSError`."""
        with open(self._path, "ab", opener=_private) as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


class AuditTrail:
    """Follows the log into an audit file. `run` is the work of a service."""

    def __init__(self, journal: Journal, path: str | os.PathLike[str]):
        self._journal, self._file = journal, AuditFile(os.fspath(path))
        self._names: OrderedDict[bytes, str] = OrderedDict()
        self.written = 0
        """The LSN up to which the file says everything."""

    async def run(self) -> None:
        """Write what is durable, then what comes, until the journal ends.

        Raises: `OSError`, `InvalidInput`, `InvalidState`, `CorruptLog` (the place of its last line is not in this
        log), `RecoveryFailed`, `Unavailable` (an event is encrypted and its key cannot be had).
        """
        cursor = await trio.to_thread.run_sync(self._file.resume)
        self.written = 0 if cursor is None else self._journal.check_cursor(cursor)
        async with self._journal.follow(self.written) as slices:
            while (found := await slices.next_slice()) is not None:
                lines = [line for item in found if (line := await self._line(item)) is not None]
                if lines:
                    # Cancelled here, the thread finishes; what it wrote is behind the cursor of the next opening.
                    await trio.to_thread.run_sync(self._file.append, b"".join(lines))
                self.written = slices.position

    async def _line(self, item: Record | Gap) -> bytes | None:
        if isinstance(item, Gap) or item.payload.startswith(_STEP):
            return None
        try:
            record = decode_record(item.payload, "a record")
        except EpisodeUnavailable:
            return None  # it hurts its own episode only, and reading that tells
        name = await self._name_of(item, record)
        if record.kind == STEP or name is None:
            return None
        data = record.data
        line = {
            "time": utc(record.time_ns).isoformat(),
            "kind": record.kind,
            "episode_id": name,
            "stream": item.stream.hex(),
            "seq": item.seq,
            "lsn": item.lsn,
            "actor": data.get("actor", ""),
            "detail": _detail(record.kind, data),
            "cursor": self._journal.cursor(item.lsn),
        }
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    async def _name_of(self, item: Record, record: DecodedRecord) -> str | None:
        """The id of the episode; "" once it is deleted and nothing tells it any more, None if it is no episode."""
        if item.stream in self._names:
            return self._names[item.stream]
        if item.seq == 1:
            meta = record.meta or {}
            kind, name = meta.get("stream"), meta.get("id")
        else:
            try:
                found = await first_record(self._journal, item.stream)
            except (EpisodeUnavailable, Damaged, Forked, KeyDestroyed):
                return ""
            if found is None:
                return ""
            kind, name = found[:2]
        if kind != EPISODE_STREAM or not isinstance(name, str):
            return None
        self._names[item.stream] = name
        if len(self._names) > _NAMES_KEPT:
            self._names.popitem(last=False)
        return name


_TOLD = {
    STARTED: ("agent", "task_type", "parent"),
    TAGGED: ("added", "removed"),
    RELATED: ("to_episode", "kind", "priority"),
    UNRELATED: ("to_episode", "kind"),
    CHECKPOINTED: ("steps",),
}
"""What is told of an event beside who asked for it."""


def _detail(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    if kind == ENDED:
        outcome = data.get("outcome")
        return {"outcome": outcome.get("kind") if isinstance(outcome, dict) else None}
    if kind == UPDATED:
        metadata = data.get("metadata")
        changed = sorted(metadata) if isinstance(metadata, dict) else []
        return {"description": data.get("description") is not None, "metadata": changed}
    return {name: data.get(name) for name in _TOLD.get(kind, ())}
