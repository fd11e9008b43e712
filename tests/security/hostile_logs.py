"""Logs that somebody has made in order to hurt whoever opens them: one of each class in SECURITY.md.

Their checksums are right: the bytes were written by the log itself, or made so by hand. Each maker gets the directory
of a sound memory with an episode "victim" and one "bystander".
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2
import trio
import zstandard

from stepstore.journal import Batch, SegmentLogJournal
from stepstore.log.batch_codec import FLAG_ZSTD
from stepwell import ExecutionStep, StepSuccess, Success, open_memory
from stepwell.model.ids import stream_id

Maker = Callable[[Path], None]
VICTIM, BYSTANDER = "victim", "bystander"
GIB = 1024**3
_ENDLESS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers"


def make_sound(directory: Path) -> None:
    """A small memory to begin with."""

    async def main() -> None:
        async with open_memory(directory) as memory:
            for name in (VICTIM, BYSTANDER):
                handle = await memory.start_episode("a task", episode_id=name)
                await (await handle.log_step(ExecutionStep("tool", "act", result=StepSuccess("fine")))).wait_durable()
            await memory.complete_episode(BYSTANDER, Success())

    trio.run(main)


def _append(directory: Path, payloads: Sequence[bytes], encode: Callable[..., tuple[bytes, int]] | None = None) -> None:
    """Put records of any bytes behind those of the victim, as the journal writes them."""

    async def main() -> None:
        journal = SegmentLogJournal.open(str(directory))
        if encode is not None:
            journal._log.codec.encode = encode  # type: ignore[method-assign]
        stream = stream_id("episode", VICTIM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            first = journal.last_seq(stream) + 1
            submission = journal.submit([Batch(stream, first, list(payloads), 0)])
            await submission.wait()
            journal.finish()
        journal.release()

    trio.run(main)


def record(data: bytes, kind: str = "step") -> bytes:
    """The bytes of a record with anything as its data."""
    return b"\x85" + cbor2.dumps(1) + cbor2.dumps(kind) + cbor2.dumps(10**18) + data + b"\xf6"


def _payload(data: bytes, kind: str = "step") -> Maker:
    return lambda directory: _append(directory, [record(data, kind)])


def _row(value: bytes) -> bytes:
    """The data of a step whose parameters are any bytes."""
    return b"\x85" + cbor2.dumps("tool") + cbor2.dumps("act") + value + cbor2.dumps([0, "x"]) + b"\xf6"


def _zstd(claimed: bool) -> Maker:
    """A batch of some kilobytes that becomes a gigabyte; with the size in its head, or without."""

    def make(directory: Path) -> None:
        compressor = zstandard.ZstdCompressor(write_content_size=claimed)
        if claimed:
            bomb = compressor.compress(bytes(GIB // 4))
        else:
            streaming = compressor.compressobj()
            bomb = b"".join(streaming.compress(bytes(1024**2)) for _ in range(256)) + streaming.flush()
        assert len(bomb) < 1024**2
        _append(directory, [b"x" * 100], lambda *_: (bomb, FLAG_ZSTD))

    return make


def _file(name: str, content: bytes | int) -> Maker:
    """A file with a content, or a sparse one of a size."""

    def make(directory: Path) -> None:
        path = directory / name
        path.unlink(missing_ok=True)
        path.touch()
        if isinstance(content, int):
            os.truncate(path, content)
        else:
            path.write_bytes(content)

    return make


def _pipe(name: str) -> Maker:
    """A named pipe where a file should be: whoever opens it waits for a writer that never comes."""

    def make(directory: Path) -> None:
        path = _named(directory, name)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return make


def _link(name: str, target: str) -> Maker:
    def make(directory: Path) -> None:
        path = _named(directory, name)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


def _catalog(name: str, *statements: str) -> Maker:
    """A catalog of the right declaration, which was then changed by hand."""

    def make(directory: Path) -> None:
        with contextlib.closing(sqlite3.connect(directory / name, isolation_level=None)) as connection:
            connection.create_function("hostile", 0, lambda: 0, deterministic=True)
            for statement in statements:
                connection.execute(statement)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return make


def _grown_catalog(name: str) -> Maker:
    """A terabyte of nothing behind the last page, which the head counts as pages."""

    def make(directory: Path) -> None:
        _catalog(name)(directory)
        path = directory / name
        with open(path, "r+b") as file:
            pages = 2**28
            file.seek(28)
            file.write(pages.to_bytes(4, "big"))
        os.truncate(path, pages * 4096)

    return make


def _forged(name: str) -> dict[str, Maker]:
    return {
        f"{name} that is a pipe": _pipe(name),
        f"{name} whose own log is a pipe": _pipe(f"{name}-wal"),
        f"{name} that is an endless device": _link(name, "/dev/zero"),
        f"{name} that is somebody else's file": _link(name, "/etc/passwd"),
        f"{name} of a terabyte of nothing": _file(name, 1024 * GIB),
        f"{name} with a terabyte of pages": _grown_catalog(name),
        f"{name} of no kind": _file(name, b"SQLite format 3\0" + b"\xff" * 100_000),
    }


def _named(directory: Path, name: str) -> Path:
    return next(directory.glob(name), directory / name)


def _grown_segment(directory: Path) -> None:
    """A terabyte of nothing behind the last record."""
    os.truncate(next(directory.glob("*.seg")), 1024 * GIB)


def _large_list_of_keys(directory: Path) -> None:
    (directory / "keys").mkdir()
    os.truncate(_touched(directory / "keys" / "KEYS-1"), 1024 * GIB)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _texts(directory: Path) -> None:
    """Texts that a terminal would obey: colours, titles, clearing, the clipboard, text that runs backwards."""

    async def main() -> None:
        async with open_memory(directory) as memory:
            text = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;cm0gLXJm\x07\u202egnp.exe\r\x9b31m\x00[red]not markup[/]"
            handle = await memory.start_episode(
                text, agent=text, tags=["\u202egnp.exe [red]not markup[/]"], episode_id=f"e{text[:8]}"
            )
            await handle.log_step(ExecutionStep(text, text, {text: text}, StepSuccess(text)))
            await handle.flush()

    trio.run(main)


def _no_archive(listed: dict[str, Any] | str) -> Maker:
    def make(directory: Path) -> None:
        (directory / "ARCHIVE").write_text(listed if isinstance(listed, str) else json.dumps(listed))

    return make


def _archive_of(name: str) -> dict[str, Any]:
    return {
        "archive": "stepwell log",
        "version": 1,
        "log_uuid": "0" * 32,
        "branch_uuid": "0" * 32,
        "files": [{"name": name, "bytes": 5, "blake2b": "00"}],
    }


LOGS: dict[str, Maker] = {
    # nesting
    "arrays nested 100,000 deep": _payload(_row(b"\x81" * 100_000 + b"\x00")),
    "maps nested 100,000 deep": _payload(_row(b"\xa1\x00" * 100_000 + b"\x00")),
    "tags nested 100,000 deep": _payload(_row(b"\xc2" * 100_000 + b"\x40")),
    "LOCK nested 100,000 deep": _file("LOCK", b'{"a":' * 100_000),
    "FORMAT nested 100,000 deep": _file("FORMAT", b"[" * 4_000),
    # sizes that are not there
    "an array of 2^40 items": _payload(_row(b"\x9b" + (2**40).to_bytes(8, "big"))),
    "a map of 2^63 items": _payload(_row(b"\xbb" + (2**63).to_bytes(8, "big"))),
    "a text of 2^40 bytes": _payload(_row(b"\x7b" + (2**40).to_bytes(8, "big"))),
    "bytes without end": _payload(_row(b"\x5f" + b"\x41x" * 1_000)),
    "an array without end": _payload(_row(b"\x9f" * 10_000)),
    # decompression
    "a gigabyte in a batch that says so": _zstd(True),
    "a gigabyte in a batch that does not": _zstd(False),
    # many small things
    "fifteen million items": _payload(_row(b"\x9a" + (15_000_000).to_bytes(4, "big") + b"\x00" * 15_000_000)),
    "fifteen million empty maps": _payload(_row(b"\x9a" + (15_000_000).to_bytes(4, "big") + b"\xa0" * 15_000_000)),
    "one key a thousand times": _payload(_row(b"\xb9\x03\xe8" + b"\x61a\x00" * 1_000)),
    # objects, code
    "a regular expression that backtracks": _payload(_row(cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")))),
    "a number with an exponent of 2^60": _payload(_row(cbor2.dumps(cbor2.CBORTag(4, [2**60, 1])))),
    "a fraction with nothing below": _payload(_row(cbor2.dumps(cbor2.CBORTag(30, [1, 0])))),
    "values that refer to themselves": _payload(_row(b"\xd8\x1c\x81\xd8\x1d\x00")),
    "a Python object by its name": _payload(_row(cbor2.dumps(cbor2.CBORTag(40_000, ["os.system", "id"])))),
    "an unknown tag of 64 bits": _payload(_row(b"\xdb" + b"\xff" * 8 + b"\x00")),
    "a number of a million bytes": _payload(_row(b"\xc2\x5a" + (1_000_000).to_bytes(4, "big") + b"\xff" * 1_000_000)),
    "an ending of no kind": _payload(cbor2.dumps({"outcome": {"kind": "__import__('os').system('id')"}}), "ended"),
    "a kind of record that nobody knows": _payload(cbor2.dumps({"__class__": "os.system"}), "reduce"),
    # files
    "a terabyte of nothing behind the records": _grown_segment,
    "a FORMAT of a terabyte": _file("FORMAT", 1024 * GIB),
    "a LOCK of a terabyte": _file("LOCK", 1024 * GIB),
    "a MANIFEST of a terabyte": _file("MANIFEST-00000009", 1024 * GIB),
    "an index of a terabyte": _file("00000001-0000000000000001.idx", 1024 * GIB),
    "a list of keys of a terabyte": _large_list_of_keys,
    "a segment that is a pipe": _pipe("*.seg"),
    "a FORMAT that is a pipe": _pipe("FORMAT"),
    "a LOCK that is a pipe": _pipe("LOCK"),
    "a MANIFEST that is a pipe": _pipe("MANIFEST-00000009"),
    "a segment that is an endless device": _link("*.seg", "/dev/zero"),
    "a FORMAT that is an endless device": _link("FORMAT", "/dev/zero"),
    "a segment that is somebody else's file": _link("*.seg", "/etc/passwd"),
    # terminals
    "texts that a terminal obeys": _texts,
    # what is kept beside the log
    **_forged("catalog.sqlite"),
    **_forged("learning.sqlite"),
    "catalog.sqlite with a table that never ends": _catalog(
        "catalog.sqlite",
        "DROP TABLE episode",
        f"CREATE VIEW episode AS {_ENDLESS}",
    ),
    "catalog.sqlite whose cursor never ends": _catalog(
        "catalog.sqlite",
        "ALTER TABLE catalog RENAME TO truth",
        f"CREATE VIEW catalog AS SELECT name, value FROM truth UNION ALL SELECT 'cursor', n FROM ({_ENDLESS})",
    ),
    "catalog.sqlite with a trigger of its own": _catalog(
        "catalog.sqlite",
        f"CREATE TRIGGER hurts AFTER INSERT ON episode BEGIN UPDATE corpus SET documents = (SELECT max(n) FROM "
        f"({_ENDLESS})); END",
        "UPDATE catalog SET value = '' WHERE name = 'cursor'",
    ),
}
"""By what is hostile about it."""

ARCHIVES: dict[str, Maker] = {
    "a name that leads out": _no_archive(_archive_of("../../../tmp/evil")),
    "an absolute name": _no_archive(_archive_of("/etc/cron.d/evil")),
    "a size of 2^62": _no_archive(
        {
            **_archive_of("00000001-0000000000000001.0.seg"),
            "files": [{"name": "00000001-0000000000000001.0.seg", "bytes": 2**62, "blake2b": "00"}],
        }
    ),
    "nested 100,000 deep": _no_archive('{"a":' * 100_000),
    "a terabyte": _file("ARCHIVE", 1024 * GIB),
    "a pipe": _pipe("ARCHIVE"),
}
"""Archives to restore, by what is hostile about their list."""
