"""The published schema of the format, checked against real logs by a CDDL library of somebody else's: every item of
every segment is what `format.cddl` says, and items that are damaged are not."""

from __future__ import annotations

import io
import posixpath
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import cbor2
import pytest
import trio
from cddl_verifier import Validator
from trio.testing import MockClock

import stepstore.log
from stepstore.journal.contract import append
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.batch_codec import Compression
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import FLAG_SNAPSHOT, FLAG_TOMBSTONE, Batch
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.stepstore.compaction_lab import a_log_with_dead_records, compact, manifest_paths
from tests.stepstore.log_lab import LOG, A, B, C, clone, content, payload, segments

SCHEMA = Validator(resources.files(stepstore.log).joinpath("format.cddl").read_text())
KINDS = {fr.KIND_DATA: "data", fr.KIND_MARK: "mark", fr.KIND_FOOTER: "footer", fr.KIND_CLOSE: "close"}


def is_valid(rule: str, item: bytes) -> bool:
    """Whether an item is well-formed and follows a rule."""
    return bool(SCHEMA.validate(item, root_type=rule).valid)


def check(rule: str, item: bytes) -> None:
    result = SCHEMA.validate(item, root_type=rule)
    assert result.valid, (rule, [f"{found.path_text}: {found.message}" for found in result.diagnostics])


class Item(NamedTuple):
    rule: str
    at: int
    data: bytes


def items_of(data: bytes) -> Iterator[Item]:
    """The items of a segment, cut apart by a CBOR decoder, with the rules that they must follow. Zeros are left out."""
    stream = io.BytesIO(data)

    def take() -> bytes:
        at = stream.tell()
        cbor2.load(stream)
        return data[at : stream.tell()]

    yield Item("header", 0, take())
    while stream.tell() < len(data):
        at = stream.tell()
        if data[at] == 0:
            stream.seek(len(data) - len(data[at:].lstrip(b"\0")))
            continue
        first = take()
        if stream.tell() == len(data):
            yield Item("trailer", at, first)
            return
        kind = KINDS[cbor2.loads(first)[0]]
        directory, payloads = take(), take()
        yield Item(f"{kind}-header", at, first)
        yield Item("directory" if kind == "data" else "empty", at + len(first), directory)
        yield Item({"data": "payloads", "footer": "index"}.get(kind, "empty"), stream.tell() - len(payloads), payloads)
        yield Item(f"{kind}-frame", at, b"\x83" + first + directory + payloads)
        yield Item("frame", at, b"\x83" + first + directory + payloads)


async def fill(options: LogOptions) -> MemoryFileSystem:
    """A log with every kind of frame, entry and file: closed, killed, and opened again."""
    disk = MemoryFileSystem()
    for incarnation in range(3):
        journal = SegmentLogJournal.open(LOG, options, disk)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for n in range(6):
                for stream in (A, B):
                    records = [payload(700, n), bytes(40 * n), b""]
                    await append(journal, stream, records, expected_seq=journal.last_seq(stream))
            await trio.sleep(2)  # idle: a mark
            snapshot = Batch(A, journal.last_seq(A), [b"snapshot"], FLAG_SNAPSHOT)
            await journal.submit([snapshot]).wait()
            if incarnation == 1:
                await append(journal, C, [b"c"], expected_seq=0)
                await journal.submit([Batch(C, 2, [b"tombstone"], FLAG_TOMBSTONE)]).wait()
                disk = clone(disk)  # killed: the rest happens to a disk that nobody looks at
            journal.finish()
        journal.release()
    return disk


@pytest.fixture(params=["plain", "align 512", "align 4096", "encrypted"])
def disk(request: pytest.FixtureRequest) -> MemoryFileSystem:
    options = {
        "plain": LogOptions(segment_bytes=32 * 1024),
        "align 512": LogOptions(segment_bytes=32 * 1024, align=512),
        "align 4096": LogOptions(segment_bytes=64 * 1024, align=4096),
        "encrypted": LogOptions(
            segment_bytes=32 * 1024, compression=Compression("zstd"), key_provider=LocalKeyProvider(bytes(32))
        ),
    }[request.param]
    return trio.run(fill, options, clock=MockClock(autojump_threshold=0))


def test_every_item_of_every_segment_follows_its_rule(disk: MemoryFileSystem) -> None:
    seen: Counter[str] = Counter()
    for segment in segments(disk):
        data = content(disk, segment)
        for item in items_of(data):
            check(item.rule, item.data)
            seen[item.rule] += 1
    for rule in ("header", "data-frame", "mark-frame", "footer-frame", "close-frame", "trailer"):
        assert seen[rule], f"no {rule} in this log"


def test_sidecars_and_keys_follow_their_rules(disk: MemoryFileSystem) -> None:
    sidecars = [name for name in disk.list_names(LOG) if name.endswith(".idx")]
    assert sidecars
    for name in sidecars:
        data = content(disk, posixpath.join(LOG, name))
        check("sidecar", data[:-TRAILER_BYTES])
        check("trailer", data[-TRAILER_BYTES:])
    keys = posixpath.join(LOG, "keys")
    if disk.stat(keys) is None:
        return
    (name,) = disk.list_names(keys)
    stream = io.BytesIO(content(disk, posixpath.join(keys, name)))
    data = stream.getvalue()
    rule, slots = "keys-header", 0
    while data[stream.tell() :].strip(b"\0"):
        at = stream.tell()
        cbor2.load(stream)
        check(rule, data[at : stream.tell()])
        rule, slots = "keys-slot", slots + 1
    assert slots > 2


def test_manifests_follow_their_rule() -> None:
    disk = MemoryFileSystem()

    async def main() -> None:
        await compact(disk, await a_log_with_dead_records(disk))

    trio.run(main)
    assert manifest_paths(disk)
    for path in manifest_paths(disk):
        data = content(disk, path)
        check("manifest", data)
        assert not is_valid("manifest", data.replace(b"stepmani", b"stepmany"))
    for segment in segments(disk):
        for item in items_of(content(disk, segment)):
            check(item.rule, item.data)


def structural_bytes(item: Item) -> Iterator[int]:
    """The bytes of an item that say of what types and lengths it is, or that can have one value only."""
    if item.rule == "header":
        data = io.BytesIO(item.data)
        yield from range(len(sh._PREFIX))
        data.seek(len(sh._PREFIX))
        while data.tell() < len(item.data):
            yield data.tell()
            cbor2.load(data)
        return
    # Of a frame header: the array, the heads of its fourteen integers, its kind and its flags.
    yield from (0, 1, 2, 3, 4)
    data = io.BytesIO(item.data)
    data.seek(5)
    while data.tell() < len(item.data):
        yield data.tell()
        cbor2.load(data)


INTEGER_HEADS = {0x18, 0x19, 0x1A, 0x1B}


def test_damaged_items_do_not_follow_any_rule_of_the_format(disk: MemoryFileSystem) -> None:
    """Every bit of every byte that carries structure. What CDDL cannot see is a changed value, which is what the
    checksums are for, and the width of an integer, which is nothing of the value: a wider one swallows the bytes
    behind it, and now and then what is left still is an item."""
    refused = swallowed = 0
    for item in items_of(content(disk, segments(disk)[0])):
        if item.rule != "header" and not item.rule.endswith("-header"):
            continue
        for at in structural_bytes(item):
            for bit in range(8):
                damaged = bytearray(item.data)
                damaged[at] ^= 1 << bit
                if not is_valid(item.rule, bytes(damaged)):
                    refused += 1
                else:
                    assert {item.data[at], damaged[at]} <= INTEGER_HEADS, (item.rule, at, bit)
                    swallowed += 1
    assert refused > 1_000
    assert swallowed < refused / 100


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("header", cbor2.CBORTag(55799, ["stepwell"])),
        ("header", ["stepwell", *range(26)]),
        ("data-header", [5, *([0] * 13)]),
        ("data-header", [1, 1, *([0] * 12)]),
        ("data-header", [1, *([0] * 12)]),
        ("data-header", [1, *([0] * 14)]),
        ("data-header", [1, 0, 2**64, *([0] * 11)]),
        ("data-header", [1, 0, 1, 2**32, *([0] * 10)]),
        ("data-header", [1, 0, -1, *([0] * 11)]),
        ("data-header", [1, 0, 1.0, *([0] * 11)]),
        ("mark-header", [2, 0, 1, 1, *([0] * 10)]),
        ("mark-header", [1, *([0] * 13)]),
        ("directory", "text"),
        ("payloads", [1]),
        ("empty", b"something"),
        ("trailer", b"x" * 61),
        ("sidecar", b"without the tag"),
        ("zero", 1),
        ("frame", [[1, *([0] * 13)], b""]),
        ("frame", [[2, *([0] * 13)], b"", b"something"]),
        ("frame", [[4, *([0] * 13)], b"", b"", b""]),
        ("keys-header", cbor2.CBORTag(55799, ["stepwell keys", 1, 100, 0, 0, 0, bytes(16), b"", 0])),
        ("keys-slot", [0, 0, 0, bytes(15), b"", b"", 0]),
    ],
)
def test_what_is_not_of_the_format_is_refused(rule: str, value: object) -> None:
    assert not is_valid(rule, cbor2.dumps(value))


def test_the_smallest_of_each_rule_is_taken() -> None:
    """So that the refusals above mean something."""
    for rule, value in (
        ("data-header", [1, *([0] * 13)]),
        ("mark-header", [2, *([0] * 13)]),
        ("directory", b""),
        ("empty", b""),
        ("trailer", b"x" * 62),
        ("sidecar", cbor2.CBORTag(55799, b"")),
        ("zero", 0),
        ("frame", [[1, *([0] * 13)], b"", b""]),
        ("frame", [[4, *([0] * 13)], b"", b""]),
        ("keys-header", cbor2.CBORTag(55799, ["stepwell keys", 1, 128, 0, 0, 0, bytes(16), b"", 0])),
        ("keys-slot", [0, 0, 0, bytes(16), b"", b"", 0]),
    ):
        assert is_valid(rule, cbor2.dumps(value)), rule


def test_a_cut_item_is_no_item(disk: MemoryFileSystem) -> None:
    for item in items_of(content(disk, segments(disk)[0])):
        assert not is_valid(item.rule, item.data[:-1])
