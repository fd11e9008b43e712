"""Make the golden logs of the version that is being developed: `python -m tests.golden.make`.

Only for a version that was not released yet: what a released one wrote is never made again (see README.md). Each log
is a directory with what `expected.json` says of it; LOCK and reserve, which hold nothing, are left out, and so are the
zeros that a living segment has set aside.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from stepstore.journal.contract import append, delete, store_snapshot
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.batch_codec import Compression
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.files import OsFileSystem
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, Batch
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.writer import LogWriter
from stepwell import (
    Abstained,
    ExecutionStep,
    Failure,
    Interrupted,
    PartialSuccess,
    StepError,
    StepInterrupted,
    StepSuccess,
    StepTimeout,
    Success,
    TaskContext,
    open_memory,
)
from stepwell.model.outcome import TaskOutcome
from tests.golden.contents import HERE, MEMORY_CONFIG, OPTIONS, log_contents, memory_contents

VERSION = "v1"
LARGEST_FILE = 60 * 1024
CLEAR = replace(OPTIONS, key_provider=None)

A, B, C, D, E = (bytes([letter]) * 16 for letter in b"ABCDE")
ODD_PAYLOADS = [
    b"",
    b"\0",
    bytes(2000),
    b"stepwell",
    bytes(range(256)),
    b"\xd9\xd9\xf7\x98\x1bhstepwell",
    b"\x8e\x18\x01\x18\x00\x1b" + bytes(67),
    "é ü 漢字 🌊".encode(),
    b"\xff\xfe not UTF-8 \x80",
]


# ---- memories --------------------------------------------------------------------------------------------------------


async def fill_memory(path: Path) -> None:
    """Every kind of record, and values that are easily broken."""
    odd: dict[str, Any] = {
        "": "an empty name",
        "text": "line\nline\ttab \0 nul \x1b[31m 漢字 🌊 \u202e",
        "numbers": [0, -1, 2**53, -(2**63), 2**64 - 1, 2**100, 0.1, -0.0, 1e308, 5e-324],
        "nothing": None,
        "deep": [[[[[{"a": [True, False]}]]]]],
    }
    async with open_memory(path, config=MEMORY_CONFIG) as memory:
        endings: dict[str, TaskOutcome] = {
            "success": Success("it works", ["a.py", "b.py"]),
            "partial": PartialSuccess("half of it", ["done"], ["open"]),
            "failure": Failure("no", "the disk was full"),
            "abstained": Abstained("not for me"),
            "interrupted": Interrupted("the host stopped", "cancelled"),
        }
        for name, outcome in endings.items():
            handle = await memory.start_episode(
                f"Task of {name}",
                context=TaskContext(language="python", framework="trio", domain="golden", tags=["one", "zwei"]),
                task_type="testing",
                agent="maker",
                episode_id=f"golden/{name} ü",
                parent=None if name == "success" else "golden/success ü",
                thread="a thread",
                metadata={"odd": odd},
            )
            for step in (
                ExecutionStep("read", "Read a file", {"path": "a"}, StepSuccess("content"), 5),
                ExecutionStep("run", "", odd, StepError("exit 1\n\0"), 2_500.5, tokens_used=12, reward=-0.5),
                ExecutionStep("wait", "Wait", {}, StepTimeout("60 s"), thought="too long", metadata={"n": 1}),
                ExecutionStep("think", "Think", {}, StepInterrupted("stopped"), key="key-1", step_number=7),
                ExecutionStep("json", "Structured", {}, StepSuccess({"list": [1, None, "x"]})),
                ExecutionStep("none", "No result"),
            ):
                await (await handle.log_step(step)).wait_durable()
            await handle.log_steps([ExecutionStep("batch", f"number {n}") for n in range(3)])
            await handle.complete(outcome)
        await memory.start_episode("Still open", episode_id="golden/open")
        gone = await memory.start_episode("To be deleted", episode_id="golden/deleted")
        await gone.log_step(ExecutionStep("secret", "nobody is to read this"))
        await memory.delete_episode("golden/deleted")


def closed(path: Path) -> None:
    """A memory that was closed in order."""
    trio.run(fill_memory, path)


def killed(path: Path) -> None:
    """A memory whose process died in the middle of a write: whole frames, and half of one behind them."""
    scratch = path.with_name("living")

    async def main() -> None:
        await fill_memory(scratch)
        async with open_memory(scratch, config=MEMORY_CONFIG) as memory:
            handle = await memory.start_episode("Cut off", episode_id="golden/cut off")
            for n in range(5):
                await (await handle.log_step(ExecutionStep("tool", f"durable {n}"))).wait_durable()
            before = _newest(scratch).read_bytes().rstrip(b"\0")
            await (await handle.log_step(ExecutionStep("tool", "torn", {"text": "x" * 900}))).wait_durable()
            _copy(scratch, path)
            torn = _newest(scratch).read_bytes().rstrip(b"\0")
            _newest(path).write_bytes(torn[: len(before) + (len(torn) - len(before)) // 2])

    trio.run(main)
    shutil.rmtree(scratch)


# ---- logs ------------------------------------------------------------------------------------------------------------


async def fill_journal(path: Path, options: LogOptions) -> None:
    """Odd payloads, batches of several streams in one frame, snapshots, closed streams and a deleted one; a mark."""
    journal = SegmentLogJournal.open(str(path), options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        last = {stream: journal.last_seq(stream) for stream in (A, B, C, D)}
        await journal.submit(
            [
                Batch(A, last[A] + 1, ODD_PAYLOADS, FLAG_OPENS),
                Batch(B, last[B] + 1, [b"b"], FLAG_OPENS),
                Batch(A, last[A] + 1 + len(ODD_PAYLOADS), [b"again"], 0),
            ]
        ).wait()
        await append(journal, B, [bytes(5000), b"", b"end"], expected_seq=last[B] + 1, flags=FLAG_CLOSES)
        await store_snapshot(journal, A, b"an older snapshot", through_seq=journal.last_seq(A) - 1)
        await store_snapshot(journal, A, b"a snapshot", through_seq=journal.last_seq(A))
        if not journal.is_deleted(C):
            await append(journal, C, [b"c"], expected_seq=0, flags=FLAG_OPENS)
            await delete(journal, C, b"deleted")
        await trio.sleep(1.5)  # idle: a mark
        await append(journal, A, [b"behind the mark"], expected_seq=journal.last_seq(A))
        journal.finish()
    journal.release()


def plain(path: Path) -> None:
    """A log of one segment."""
    trio.run(fill_journal, path, CLEAR)


def aligned(path: Path) -> None:
    """Groups at multiples of 512."""
    trio.run(fill_journal, path, replace(CLEAR, align=512))


def compressed(path: Path) -> None:
    trio.run(fill_journal, path, replace(CLEAR, compression=Compression("zstd")))


def encrypted(path: Path) -> None:
    """With the key of `contents.MASTER_KEY`, and one that was destroyed."""
    trio.run(fill_journal, path, OPTIONS)


def segments(path: Path) -> None:
    """Several incarnations: segments with footers, one that a crash left with its sidecar, and an empty one."""

    async def crash() -> None:
        log = open_log(OsFileSystem(), str(path), CLEAR)
        writer = LogWriter(log)
        caretaker = LogCaretaker(log, writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            nursery.start_soon(caretaker.run)
            for n in range(4):
                first = writer.queue.last_seq(D) + 1
                await writer.submit([Batch(D, first, [b"d%d" % n, bytes(n)], FLAG_OPENS if first == 1 else 0)]).wait()
                if n == 1:
                    await writer.rotate()
                    await caretaker.wait_sealed()
            nursery.cancel_scope.cancel()
        log.release()

    async def tend() -> None:
        """An opening in which the caretaker has time to write the sidecar."""
        journal = SegmentLogJournal.open(str(path), CLEAR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            await trio.sleep(2)
            journal.finish()
        journal.release()

    trio.run(fill_journal, path, CLEAR)
    trio.run(crash)
    trio.run(tend)
    assert list(path.glob("*.idx"))
    trio.run(fill_journal, path, CLEAR)


def compacted(path: Path) -> None:
    """Deleted streams and superseded snapshots were compacted away; a manifest, and a segment behind its range."""

    async def compact() -> None:
        log = open_log(OsFileSystem(), str(path), CLEAR)
        writer = LogWriter(log)
        caretaker = LogCaretaker(log, writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.run)
            nursery.start_soon(caretaker.run)
            await caretaker.compact()
            writer.finish()
            nursery.cancel_scope.cancel()
        log.release()

    async def fill_stream(and_delete: bool) -> None:
        """Much that is dead once the stream is deleted."""
        journal = SegmentLogJournal.open(str(path), CLEAR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for n in range(2):
                await append(journal, E, [bytes([n + 1]) * 10_000], expected_seq=journal.last_seq(E))
            if and_delete:
                await delete(journal, E, b"deleted, and compacted away")
            journal.finish()
        journal.release()

    for and_delete in (False, True):
        trio.run(fill_journal, path, CLEAR)
        trio.run(fill_stream, and_delete)
    trio.run(compact)
    trio.run(fill_journal, path, CLEAR)
    assert list(path.glob("MANIFEST-*"))


# ---- all of them -----------------------------------------------------------------------------------------------------

MEMORIES: tuple[Callable[[Path], None], ...] = (closed, killed)
LOGS: tuple[Callable[[Path], None], ...] = (plain, aligned, compressed, encrypted, segments, compacted)


def _newest(path: Path) -> Path:
    return max(path.glob("*.seg"))


def _copy(source: Path, target: Path) -> None:
    """Copy what a log is made of."""
    for file in sorted(source.rglob("*")):
        if file.is_dir() or file.name in ("LOCK", "reserve") or file.suffix == ".tmp":
            continue
        to = target / file.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(file.read_bytes())


def main() -> int:
    """Make every log, and note what is in it."""
    target = HERE / VERSION
    if (target / "RELEASED").exists():
        print(f"{VERSION} was released; its logs are never made again", file=sys.stderr)
        return 1
    shutil.rmtree(target, ignore_errors=True)
    for make in (*MEMORIES, *LOGS):
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "log"
            make(made)
            _copy(made, target / make.__name__)
        place = target / make.__name__
        expected: dict[str, Any] = {"log": log_contents(place)}
        if make in MEMORIES:
            expected["memory"] = memory_contents(place)
        text = json.dumps(expected, ensure_ascii=True, indent=1)
        (target / f"{make.__name__}.json").write_text(text + "\n")
        sizes = [file.stat().st_size for file in place.rglob("*") if file.is_file()]
        print(f"{make.__name__}: {len(sizes)} files, {sum(sizes):,} bytes, {len(text):,} bytes expected")
        assert max(sizes) <= LARGEST_FILE
    return 0


if __name__ == "__main__":
    sys.exit(main())
