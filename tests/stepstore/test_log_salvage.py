"""`salvage_log`: whatever is done to a log, the new one is sound, holds nothing that was never stored, and holds all of
each stream up to its first missing record; everything else is set aside or listed as lost."""

from __future__ import annotations

import base64
import errno
import json
import os
import posixpath
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing

from stepstore.errors import CorruptLog, InvalidInput, NotFound, RecoveryFailed
from stepstore.log.batch_codec import Compression
from stepstore.log.footer import TRAILER_BYTES, IndexHead, Trailer, parse_head, parse_trailer
from stepstore.log.frame import FLAG_CLOSES, FLAG_OPENS, FLAG_SNAPSHOT, FLAG_TOMBSTONE, HEADER_BYTES, KIND_MARK, Batch
from stepstore.log.indexed_batch import IndexedBatch
from stepstore.log.key_provider import LocalKeyProvider
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.records import Record
from stepstore.log.salvage import salvage_log
from stepstore.log.salvage_report import SalvageReport
from stepstore.log.sealing import sidecar_path, write_sidecar
from stepstore.log.stream_listing import streams_of
from stepstore.log.stream_reader import StreamReader
from stepstore.log.tolerant_file import TolerantFile
from stepstore.log.verify import verify_log
from tests.stepstore.compaction_lab import Kept, a_log_with_dead_records, compact
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    FailOnce,
    Group,
    Stopped,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    payload,
    put,
    read_log,
    read_stream,
    remove,
    segments,
    stopping_at,
    stream_id,
    throw_dice_anew,
    tree,
    write_log,
    writing,
)

NEW = "/new"
ASIDE = f"{NEW}/salvaged"
SEED = 20240229  # of `conftest`
Truth = dict[bytes, list[bytes]]
"""The payloads of each stream, in order: what was acknowledged."""


def truth_of(records: Iterable[Record]) -> Truth:
    truth: Truth = defaultdict(list)
    for record in records:
        truth[record.stream].append(record.payload)
    return truth


def set_aside(disk: MemoryFileSystem) -> dict[bytes, dict[int, bytes]]:
    """What lies in the JSON lines: the payloads of each stream by seq. Snapshots are left out."""
    found: dict[bytes, dict[int, bytes]] = defaultdict(dict)
    for name in disk.list_names(ASIDE):
        if not name.endswith(".jsonl"):
            continue
        for text in content(disk, posixpath.join(ASIDE, name)).splitlines():
            line = json.loads(text)
            if line["kind"] != "record":
                continue
            found[bytes.fromhex(name.removesuffix(".jsonl"))][line["seq"]] = base64.b64decode(line["payload"])
    return found


def salvaged(disk: MemoryFileSystem, truth: Truth | None) -> SalvageReport:
    """Salvage, and check all that must hold whatever was done to the log; what it holds against `truth`, if given."""
    before = tree(disk, LOG)
    files = WatchedFiles(disk)
    report = salvage_log(LOG, NEW, files=files, options=SMALL)
    assert [call for call in files.changes(but=()) if call.path.startswith(LOG)] == []
    assert tree(disk, LOG) == before
    assert verify_log(NEW, files=disk).problems == []
    log = open_log(disk, NEW, SMALL)
    assert log.report.bytes_cut == 0
    assert not log.report.notes
    assert all(segment.sealed for segment in log.index.segments)
    found = {} if truth is None else truth_of(read_log(log))
    log.release()
    if truth is not None:
        check_streams(report, truth, found, set_aside(disk))
    assert json.loads(content(disk, f"{ASIDE}/REPORT.json"))["lost"] == report.lost
    text = content(disk, f"{ASIDE}/REPORT.txt").decode()
    assert ("SOMETHING IS LOST" in text) == report.lost
    return report


def check_streams(report: SalvageReport, truth: Truth, found: Truth, aside: dict[bytes, dict[int, bytes]]) -> None:
    """What is missing must be named; the end of a stream may be missing without a trace, if the report says that there
    is a place of which it is not known what it held (or, at the end of the log, a torn write)."""
    blind = any(place.lost and not place.streams_known for place in report.places)
    torn = any("never acknowledged" in note for note in report.notes)
    troubled = {bytes.fromhex(item.stream): item for item in report.streams}
    assert found.keys() | aside.keys() <= truth.keys(), "a stream that never was"
    for stream, payloads in truth.items():
        kept = found.get(stream, [])
        assert kept == payloads[: len(kept)], "the new log holds something else than was stored"
        behind = aside.get(stream, {})
        assert all(payloads[seq - 1] == data for seq, data in behind.items())
        missing = set(range(len(kept) + 1, len(payloads) + 1)) - behind.keys()
        named = {
            seq
            for first, last in (troubled[stream].missing if stream in troubled else ())
            for seq in range(first, last + 1)
        }
        assert named <= missing
        unnamed = missing - named
        if unnamed:
            assert blind or torn, f"stream {stream.hex()}: {named} named as missing, {missing} are"
            assert min(unnamed) > max([len(kept), *behind, *named]), "a hole that is not named"
        assert not missing or report.lost or torn
        assert len(kept) + 1 not in behind, "what continues the stream belongs into the log"
    if found == truth:
        assert not report.streams


GROUPS = [
    [(A, [payload(90, n), payload(40, 100 + n)]), (B, [payload(700, 200 + n)])] if n % 3 else [(C, [payload(30, n)])]
    for n in range(12)
]
FOUR = LogOptions(segment_bytes=2048)


def many_segments(*, close: bool = True, options: LogOptions = FOUR) -> tuple[MemoryFileSystem, Truth]:
    """A log of several segments, each with a footer, or (`close` not set) none with one."""
    disk = MemoryFileSystem()
    truth = truth_of(write_log(disk, GROUPS, close=close, options=options))
    if close:
        index_all(disk)
    assert len(segments(disk)) > 3
    return disk, truth


def index_all(disk: MemoryFileSystem) -> None:
    """Give every segment without a footer a sidecar, as the caretaker of the next incarnation does."""
    from stepstore.log.index_building import rebuild_index
    from stepstore.log.open_streams import open_streams_after

    log = open_log(disk, LOG, SMALL)
    kept = log.index.segments
    for number, segment in enumerate(kept):
        if not segment.sealed:
            write_sidecar(disk, segment, open_streams_after(kept[: number + 1], lambda one: rebuild_index(disk, one)))
    log.release()


# ---- nothing is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [True, False], ids=["closed", "crashed"])
def test_a_sound_log_is_copied_whole(close: bool) -> None:
    disk, truth = many_segments(close=close)
    report = salvaged(disk, truth)
    assert not report.lost
    assert (report.places, report.streams, report.behind_records, report.duplicates) == ([], [], 0, 0)
    assert (report.kept_records, report.kept_streams) == (sum(map(len, truth.values())), 3)
    assert report.source_log != report.target_log
    assert "Nothing is lost" in content(disk, f"{ASIDE}/REPORT.txt").decode()
    kept = json.loads(content(disk, f"{ASIDE}/REPORT.json"))["kept"]
    assert kept == {stream.hex(): len(payloads) for stream, payloads in truth.items()}


def test_an_empty_log_gives_an_empty_log() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [])
    assert not salvaged(disk, {}).lost


def test_a_torn_tail_is_no_loss() -> None:
    disk = MemoryFileSystem()
    truth = truth_of(write_log(disk, GROUPS[:4]))
    end = frames_of(disk, segments(disk)[-1])[-1].end
    put(disk, segments(disk)[-1], payload(200), at=end + 512 - end % 512)
    report = salvaged(disk, truth)
    assert not report.lost
    assert any("never acknowledged" in note for note in report.notes)


def test_open_streams_stay_open_and_closed_ones_closed() -> None:
    disk = MemoryFileSystem()

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            for batches in (
                [Batch(A, 1, [b"a"], FLAG_OPENS), Batch(B, 1, [b"b"], FLAG_OPENS)],
                [Batch(A, 2, [b"end"], FLAG_CLOSES), Batch(B, 1, [b"so far"], FLAG_SNAPSHOT)][:1],
            ):
                await writer.submit(batches).wait()

    trio.run(main)
    salvaged(disk, {A: [b"a", b"end"], B: [b"b"]})
    log = open_log(disk, NEW, SMALL)
    assert list(log.index.streams_still_open()) == [B]
    log.release()


# ---- damage of every kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("close", [True, False], ids=["closed", "crashed"])
def test_whatever_bit_is_flipped_no_sound_record_is_lost(close: bool) -> None:
    """One flipped bit hits one batch at the most, unless it hits a header or a directory that no index can replace."""
    disk, truth = many_segments(close=close)
    total = sum(map(len, truth.values()))
    losses = 0
    for number, segment in enumerate(segments(disk)):
        end = frames_of(disk, segment)[-1].end
        for at in range(number % 29, end, 29):
            image = clone(disk)
            flip(image, segment, at, bit=at % 8)
            report = salvaged(image, truth)
            losses += report.lost
            assert report.kept_records + report.behind_records >= total - (2 if close else 4)
    assert losses > 20


def test_the_footer_or_the_sidecar_replaces_headers_and_directories() -> None:
    disk, truth = many_segments()
    for segment in segments(disk):
        data = content(disk, segment)
        for frame in frames_of(disk, segment):
            if not frame.head.record_count:
                continue
            image = clone(disk)
            put(image, segment, bytes(HEADER_BYTES), at=frame.at)
            report = salvaged(image, truth)
            assert not report.lost, "every payload is still there"
            before = max([512, *(other.end for other in frames_of(disk, segment) if other.end <= frame.at)])
            assert [place.offset for place in report.places] == [before]
        assert data == content(disk, segment)


def test_a_damaged_segment_header_costs_nothing() -> None:
    for close in (True, False):
        disk, truth = many_segments(close=close)
        for segment in segments(disk):
            image = clone(disk)
            put(image, segment, bytes(512), at=0)
            report = salvaged(image, truth)
            assert not report.lost
            (place,) = report.places
            assert (place.file, place.offset, place.end) == (segment, 0, 512)


def test_damaged_headers_of_all_segments_and_no_format_cost_nothing() -> None:
    disk, truth = many_segments(close=False)
    for segment in segments(disk):
        put(disk, segment, payload(512), at=0)
    remove(disk, f"{LOG}/FORMAT")
    report = salvaged(disk, truth)
    assert not report.lost
    assert "FORMAT" in report.notes[0]
    assert report.source_log is None


def test_a_missing_segment_is_a_loss_with_its_lsns() -> None:
    disk, truth = many_segments()
    for number, segment in enumerate(segments(disk)[:-1]):
        image = clone(disk)
        lsns = [frame.head for frame in frames_of(disk, segment) if frame.head.record_count]
        remove(image, segment)
        if image.stat(sidecar_path(segment)):
            remove(image, sidecar_path(segment))
        report = salvaged(image, truth)
        assert report.lost
        place = report.places[0]
        assert place.text == f"segment {number + 1} is missing"
        assert (place.first_lsn, place.last_lsn) == (lsns[0].first_lsn, lsns[-1].last_lsn)
        assert {part.stream for part in place.streams} <= {stream.hex() for stream in truth}
        assert place.streams


def test_a_segment_of_nothing_but_zeros_is_a_loss_with_its_lsns() -> None:
    disk, truth = many_segments(close=False)
    segment = segments(disk)[1]
    heads = [frame.head for frame in frames_of(disk, segment) if frame.head.record_count]
    put(disk, segment, bytes(len(content(disk, segment))))
    report = salvaged(disk, truth)
    header, missing = sorted(report.places, key=lambda place: place.lost)
    assert (header.file, header.offset, header.end, header.lost) == (segment, 0, 512, False)
    assert (missing.text, missing.lost) == ("records are missing", True)
    assert (missing.first_lsn, missing.last_lsn) == (heads[0].first_lsn, heads[-1].last_lsn)


def test_several_missing_segments_are_one_place() -> None:
    disk, truth = many_segments()
    for segment in segments(disk)[1:3]:
        remove(disk, segment)
    report = salvaged(disk, truth)
    assert [place.text for place in report.places] == ["segments 2 to 3 are missing"]


def test_two_files_for_one_segment_are_both_read() -> None:
    disk, truth = many_segments(close=False)
    segment = segments(disk)[1]
    copy = f"{segment.split('.')[0]}.1.seg"
    put(disk, copy, content(disk, segment))
    report = salvaged(clone(disk), truth)
    assert not report.lost
    assert report.duplicates == sum(frame.head.record_count for frame in frames_of(disk, segment))
    for damaged in (segment, copy):  # what one has lost, the other has
        image = clone(disk)
        first = frames_of(image, damaged)[0]
        put(image, damaged, payload(first.end - first.at), at=first.at)
        report = salvaged(image, truth)
        assert report.places
        assert not report.lost


def test_records_that_are_there_twice_and_differ_are_kept_once_and_set_aside() -> None:
    disk, truth = many_segments(close=False)
    throw_dice_anew(SEED)  # another log of the same id, whose segments have the same tags
    other = MemoryFileSystem()
    changed = [[(stream, [data[::-1] for data in payloads]) for stream, payloads in group] for group in GROUPS]
    write_log(other, changed, options=FOUR)
    segment = segments(disk)[1]
    put(disk, f"{segment.split('.')[0]}.1.seg", content(other, segments(other)[1]))
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert report.lost
    assert report.places == []
    twice = {stream for frame in frames_of(disk, segment) for stream in (A, B, C) if frame.head.record_count}
    assert {bytes.fromhex(stream.stream) for stream in report.streams} <= twice
    assert all("differ" in stream.why for stream in report.streams)
    log = open_log(disk, NEW, SMALL)
    assert truth_of(read_log(log)) == truth, "what was found first is kept"
    log.release()
    for stream, behind in set_aside(disk).items():
        assert all(truth[stream][seq - 1] == data[::-1] for seq, data in behind.items())


def test_a_segment_of_another_log_is_left_out() -> None:
    disk, truth = many_segments(close=False)
    other = MemoryFileSystem()
    write_log(other, [[(B, [b"foreign"])]], options=FOUR)
    put(disk, f"{LOG}/00000099-0000000000000063.0.seg", content(other, segments(other)[0]))
    report = salvaged(disk, truth)
    assert not report.lost
    assert any("another log" in note for note in report.notes)


def test_a_truncated_segment_loses_what_was_cut_off_and_nothing_else() -> None:
    disk, truth = many_segments(close=False)
    for segment in segments(disk)[:-1]:
        frames = frames_of(disk, segment)
        image = clone(disk)
        put(image, segment, b"", at=0, size=frames[-1].at)
        report = salvaged(image, truth)
        assert [(place.first_lsn, place.last_lsn) for place in report.places] == [
            (frames[-1].head.first_lsn, frames[-1].head.last_lsn)
        ]


def test_heaps_of_damage() -> None:
    """Sectors overwritten, zeroed and swapped, all over the log at once."""
    for seed in range(60):
        rng = random.Random(seed)
        disk, truth = many_segments(close=bool(seed % 2))
        for _ in range(rng.randrange(1, 6)):
            segment = rng.choice(segments(disk))
            size = len(content(disk, segment))
            at = rng.randrange(size // 512) * 512
            what = rng.randrange(3)
            if what == 0:
                put(disk, segment, rng.randbytes(rng.randrange(1, 900)), at=at, size=size)
            elif what == 1:
                put(disk, segment, bytes(512), at=at, size=size)
            else:
                there, other = content(disk, segment)[at : at + 512], rng.randrange(size // 512) * 512
                put(disk, segment, content(disk, segment)[other : other + 512], at=at, size=size)
                put(disk, segment, there, at=other, size=size)
        salvaged(disk, truth)


def test_a_payload_that_holds_copies_of_frames_is_not_taken_for_frames() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(60, n)])] for n in range(3)])
    copied = content(disk, segments(disk)[0])[512:4096]
    # The same dice give the same tag again, so the copies carry the tag of the segment that holds them.
    throw_dice_anew(SEED)
    other = MemoryFileSystem()
    groups = [[(A, [payload(60, n)])] for n in range(3)] + [[(B, [copied, b"more"])], [(A, [b"last"])]]
    truth = truth_of(write_log(other, groups, options=LogOptions(segment_bytes=64 * 1024)))
    holder = frames_of(other, segments(other)[0])[3]
    assert content(other, segments(other)[0])[holder.at : holder.end].count(copied)
    put(other, segments(other)[0], bytes(HEADER_BYTES), at=holder.at)
    report = salvaged(other, truth)
    assert report.duplicates == 0
    assert [(place.first_lsn, place.last_lsn) for place in report.places] == [(4, 5)]


def test_a_frame_that_stands_in_the_place_of_the_one_before_it_is_taken_once_and_the_other_is_missing() -> None:
    """A write that went to the wrong place: a sound header, but not the one that continues the chain there."""
    disk = MemoryFileSystem()
    groups: list[Group] = [[(A, [payload(300, n)])] for n in range(4)]
    truth = truth_of(write_log(disk, groups))
    (segment,) = segments(disk)
    _first, second, third, fourth = frames_of(disk, segment)
    assert (second.end - second.at) == (third.end - third.at)
    put(disk, segment, content(disk, segment)[third.at : third.end], at=second.at)
    report = salvaged(disk, truth)
    assert (report.kept_records, report.behind_records, report.duplicates) == (1, 2, 0)
    assert [(place.first_lsn, place.last_lsn) for place in report.places] == [(2, 2), (None, None)]
    assert (report.places[1].offset, report.places[1].end) == (second.end, fourth.at)
    (stream,) = report.streams
    assert (stream.stream, stream.missing) == (A.hex(), [(2, 2)])


def test_a_frame_behind_the_cut_is_not_taken_for_the_damaged_one_before_it() -> None:
    """A sync failed, the group was reported as not stored, and all of it is on the medium nevertheless: the header of
    the next segment says that the log goes on without it."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(A, [b"two"])], [(A, [b"rejected"])]])
    (segment,) = segments(disk)
    _first, second, rejected = frames_of(disk, segment)
    group = content(disk, segment)[rejected.at : rejected.end]
    put(disk, segment, bytes(len(group)), at=rejected.at)
    write_log(disk, [[(A, [b"three"])]])
    put(disk, segment, group, at=rejected.at)
    put(disk, segment, bytes(HEADER_BYTES), at=second.at)
    report = salvaged(disk, {A: [b"one", b"two", b"three"]})
    assert set_aside(disk) == {A: {3: b"three"}}
    assert [(place.file, place.first_lsn, place.last_lsn) for place in report.places] == [(segment, 2, 2)]


# ---- what ends a segment ---------------------------------------------------------------------------------------------


def one_closed_segment() -> tuple[MemoryFileSystem, Truth, str]:
    """A log of one segment, with a footer, a close frame and a trailer."""
    disk = MemoryFileSystem()
    truth = truth_of(write_log(disk, GROUPS[:5], close=True))
    (segment,) = segments(disk)
    return disk, truth, segment


def index_of(disk: MemoryFileSystem, segment: str) -> tuple[Trailer, IndexHead]:
    """The trailer of a sealed segment, and the head of its index."""
    data = content(disk, segment)
    trailer = parse_trailer(data[-TRAILER_BYTES:])
    assert trailer is not None
    return trailer, parse_head(data[trailer.index_at :])


def test_a_damaged_trailer_of_the_newest_segment_costs_nothing_and_is_told() -> None:
    disk, truth, segment = one_closed_segment()
    size = len(content(disk, segment))
    for at in range(size - TRAILER_BYTES, size, 7):
        image = clone(disk)
        flip(image, segment, at)
        report = salvaged(image, truth)
        assert not report.lost
        (place,) = report.places
        assert (place.file, place.offset, place.end) == (segment, size - TRAILER_BYTES, size)
        assert place.text == "what ends the segment is not what was written"
        assert place.first_lsn is None


def test_zeros_that_a_crash_left_behind_the_trailer_are_no_damage() -> None:
    disk, truth, segment = one_closed_segment()
    put(disk, segment, b"", at=0, size=len(content(disk, segment)) + 5000)
    report = salvaged(disk, truth)
    assert (report.lost, report.places, report.notes) == (False, [], [])


@pytest.mark.parametrize("what", ["trailer", "close frame"])
def test_a_damaged_batch_and_a_damaged_end_of_its_segment_are_two_places_and_one_loss(what: str) -> None:
    disk, truth, segment = one_closed_segment()
    size = len(content(disk, segment))
    *_frames, footer, close = frames_of(disk, segment)
    first = frames_of(disk, segment)[1]
    flip(disk, segment, first.end - 1)
    flip(disk, segment, size - 3 if what == "trailer" else close.at + 3)
    report = salvaged(disk, truth)
    lost, end = report.places
    assert (lost.lost, lost.last_lsn) == (True, first.head.last_lsn)
    assert (end.lost, end.text) == (False, "what ends the segment is not what was written")
    assert (end.offset, end.end) == ((close.end if what == "trailer" else footer.end), size)


def test_a_damaged_mark_at_the_end_of_an_older_segment_costs_nothing_and_is_told() -> None:
    disk = MemoryFileSystem()

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            await writer.submit([Batch(A, 1, [b"one"], 0)]).wait()
            writer.want_mark()
            await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    write_log(disk, [[(A, [b"two"])]])
    segment = segments(disk)[0]
    data, mark = frames_of(disk, segment)
    assert mark.head.kind == KIND_MARK
    flip(disk, segment, mark.at + 5)
    report = salvaged(disk, {A: [b"one", b"two"]})
    assert not report.lost
    (place,) = report.places
    assert (place.file, place.offset, place.end) == (segment, data.end, mark.end)
    assert place.text == "a mark is not what was written"


# ---- a damaged index -------------------------------------------------------------------------------------------------


def test_without_header_and_index_the_trailer_still_tells_the_tag() -> None:
    disk, truth, segment = one_closed_segment()
    trailer, _head = index_of(disk, segment)
    put(disk, segment, bytes(512), at=0)
    flip(disk, segment, trailer.index_at + 20)
    report = salvaged(disk, truth)
    assert not report.lost
    assert [(place.offset, place.end) for place in report.places] == [(0, 512)]


def test_several_frames_without_header_are_all_restored_from_one_index() -> None:
    disk, truth, segment = one_closed_segment()
    frames = [frame for frame in frames_of(disk, segment) if frame.head.record_count]
    for frame in (frames[0], frames[2], frames[4]):
        put(disk, segment, bytes(HEADER_BYTES), at=frame.at)
    report = salvaged(disk, truth)
    assert not report.lost
    assert len(report.places) == 3


@pytest.mark.parametrize("table", ["streams", "batches"])
def test_an_index_whose_tables_are_damaged_is_not_believed(table: str) -> None:
    disk, truth, segment = one_closed_segment()
    trailer, head = index_of(disk, segment)
    frame = frames_of(disk, segment)[1]
    put(disk, segment, bytes(HEADER_BYTES), at=frame.at)
    flip(disk, segment, trailer.index_at + (head.streams_at if table == "streams" else head.batches_at) + 9)
    report = salvaged(disk, truth)
    (place,) = report.places
    assert (place.lost, place.streams_known) == (True, False)
    assert (place.first_lsn, place.last_lsn) == (frame.head.first_lsn, frame.head.last_lsn)
    assert "is known only as far as" in content(disk, f"{ASIDE}/REPORT.txt").decode()


# ---- two files for one segment ---------------------------------------------------------------------------------------


def beside(disk: MemoryFileSystem, data: bytes, number: int = 0) -> str:
    """Put a second file for a segment there, which is read behind the first one."""
    copy = f"{segments(disk)[number].split('.')[0]}.1.seg"
    put(disk, copy, data)
    return copy


def twin(groups: Sequence[Group], options: LogOptions = SMALL) -> MemoryFileSystem:
    """Another log with the same ids and tags."""
    throw_dice_anew(SEED)
    disk = MemoryFileSystem()
    write_log(disk, groups, options=options)
    return disk


def test_a_batch_whose_beginning_is_known_already_gives_its_new_end() -> None:
    disk = twin([[(A, [b"one"])], [(B, [b"x"])]])
    longer = twin([[(A, [b"one", b"two", b"three"])], [(B, [b"x"])]])
    beside(disk, content(longer, segments(longer)[0]))
    report = salvaged(disk, {A: [b"one", b"two", b"three"], B: [b"x"]})
    assert (report.lost, report.duplicates, report.kept_records) == (False, 2, 4)


def test_a_batch_that_one_file_has_lost_and_the_other_has_makes_its_stream_whole() -> None:
    groups: list[Group] = [[(A, [b"one"])], [(A, [b"two"])], [(A, [b"three"])]]
    disk = twin(groups)
    (segment,) = segments(disk)
    copy = beside(disk, content(disk, segment))
    flip(disk, segment, frames_of(disk, copy)[1].end - 1)
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert report.streams == [], "the other file had it"
    log = open_log(disk, NEW, SMALL)
    assert truth_of(read_log(log)) == {A: [b"one", b"two", b"three"]}
    log.release()


def test_a_hole_is_not_put_down_to_a_place_that_held_later_records() -> None:
    """The second file lacks the first record of A as well, and has the second, which the first file lacks too."""
    disk = twin([[(A, [b"one"])], [(B, [b"x"])], [(A, [b"two"])], [(B, [b"y"])]])
    (segment,) = segments(disk)
    copy = beside(disk, content(disk, segment))
    first, _second, third, _fourth = frames_of(disk, copy)
    for path, at in ((segment, first.at), (segment, third.at), (copy, first.at)):
        put(disk, path, bytes(HEADER_BYTES), at=at)
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    found = {
        (place.file, place.first_lsn): [(s.first_seq, s.last_seq) for s in place.streams] for place in report.places
    }
    assert found == {(segment, 1): [(1, 1)], (segment, 3): [], (copy, 1): [(1, 1)]}
    (stream,) = report.streams
    assert (stream.stream, stream.kept, stream.missing, stream.behind) == (A.hex(), 0, [(1, 1)], 1)


ZSTD = replace(SMALL, compression=Compression("zstd"))


@pytest.mark.parametrize("same", [True, False], ids=["equal", "different"])
def test_compressed_records_that_are_there_twice_are_told_apart_by_their_checksums(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = twin([[(A, [b"one " * 100])]], ZSTD)
    other = twin([[(A, [(b"one " if same else b"eno ") * 100])]], ZSTD)
    beside(disk, content(other, segments(other)[0]))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zstandard", None)
        report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert (report.lost, report.kept_records) == (not same, 1)
    assert read_back(disk, SMALL) == {A: [b"one " * 100]}, "what was found first is kept"
    if same:
        assert (report.duplicates, report.streams) == (1, [])
        return
    (stream,) = report.streams
    assert (stream.stream, stream.behind) == (A.hex(), 0)
    assert "differ" in stream.why
    (line,) = content(disk, f"{ASIDE}/{A.hex()}.jsonl").splitlines()
    assert base64.b64decode(json.loads(line)["stored"]) in content(other, segments(other)[0])


@pytest.mark.parametrize("same", [True, False], ids=["equal", "different"])
def test_a_record_that_is_there_again_uncompressed_is_set_aside_where_the_library_to_compare_them_is_missing(
    same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = twin([[(A, [b"one " * 100])]], ZSTD)
    again = (b"one " if same else b"eno ") * 100
    other = twin([[(A, [again, b"two"])]])
    beside(disk, content(other, segments(other)[0]))
    unread = clone(disk)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "zstandard", None)
        report = salvage_log(LOG, NEW, files=unread, options=SMALL)
    assert (report.lost, report.kept_records, report.duplicates) == (True, 1, 0)
    assert read_back(unread, SMALL) == {A: [b"one " * 100]}, "what was found first is kept"
    (stream,) = report.streams
    assert "records 1 to 2 are there twice and cannot be compared, for want of a library" in stream.why
    lines = content(unread, f"{ASIDE}/{A.hex()}.jsonl").splitlines()
    assert [base64.b64decode(json.loads(line)["payload"]) for line in lines] == [again, b"two"]
    # With it they are.
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert (report.lost, report.kept_records, report.duplicates) == ((False, 2, 1) if same else (True, 1, 0))


# ---- deleted streams, snapshots, stored in other ways ----------------------------------------------------------------


def with_a_deleted_stream() -> MemoryFileSystem:
    disk = MemoryFileSystem()

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            for batch in (
                Batch(A, 1, [b"secret"], FLAG_OPENS),
                Batch(B, 1, [b"stays", b"too"], FLAG_OPENS),
                Batch(B, 2, [b"snapshot of two"], FLAG_SNAPSHOT),
                Batch(A, 2, [b"gone"], FLAG_TOMBSTONE),
            ):
                if batch.flags == FLAG_SNAPSHOT:
                    continue
                await writer.submit([batch]).wait()

    trio.run(main)
    return disk


def test_deleted_streams_stay_deleted_and_their_records_are_not_copied() -> None:
    disk = with_a_deleted_stream()
    report = salvaged(disk, None)
    assert (report.lost, report.deleted_streams, report.kept_records) == (False, 1, 2)
    assert all(b"secret" not in (data or b"") for path, data in tree(disk, NEW).items())
    log = open_log(disk, NEW, SMALL)
    assert list(streams_of(log.index)) == [B]
    assert log.index.last_seq(A) == 2, "its id is not to be used again"
    log.release()


def test_a_tombstone_whose_text_is_damaged_still_deletes() -> None:
    disk = with_a_deleted_stream()
    last = frames_of(disk, segments(disk)[0])[-1]
    flip(disk, segments(disk)[0], last.end - 1)
    put(disk, segments(disk)[0], b"", at=0, size=last.end)
    report = salvaged(disk, None)
    assert report.deleted_streams == 1
    log = open_log(disk, NEW, SMALL)
    assert list(streams_of(log.index)) == [B]
    assert log.index.last_seq(A)
    log.release()


KEY = LocalKeyProvider(bytes(range(32)))


def coded_log(options: LogOptions) -> tuple[MemoryFileSystem, Truth]:
    disk = MemoryFileSystem()
    groups = [[(A, [b"a%d " % n * 50, b"again"]), (B, [b"b%d " % n * 50])] for n in range(4)]
    return disk, truth_of(write_log(disk, groups, options=options))


def read_back(disk: MemoryFileSystem, options: LogOptions) -> Truth:
    log = open_log(disk, NEW, options)
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    found = {stream: [record.payload for record in read_stream(reader, stream)] for stream in streams_of(log.index)}
    log.release()
    return found


def test_what_is_compressed_is_copied_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, truth = coded_log(replace(SMALL, compression=Compression("zstd")))
    for library in (True, False):
        image = clone(disk)
        with monkeypatch.context() as patch:
            if not library:
                patch.setitem(sys.modules, "zstandard", None)
            report = salvage_log(LOG, NEW, files=image, options=SMALL)
        assert (report.lost, report.kept_records) == (False, 12)
        assert read_back(image, SMALL) == truth
        stored = content(disk, segments(disk)[0])
        (batch,) = [batch for batch in _batches(image, A) if batch.first_seq == 1]
        assert batch.flags & 16
        assert content(image, batch.segment.path)[batch.payload_at :][: batch.size] in stored


def _batches(disk: MemoryFileSystem, stream: bytes) -> list[IndexedBatch]:
    log = open_log(disk, NEW, SMALL)
    try:
        return log.index.batches_after(stream, 0)
    finally:
        log.release()


def test_what_is_encrypted_is_set_aside_without_its_key_and_encrypted_anew_with_it() -> None:
    options = replace(SMALL, key_provider=KEY, compression=Compression("zstd"))
    disk, truth = coded_log(options)
    without, wrong = clone(disk), clone(disk)
    report = salvage_log(LOG, NEW, files=disk, options=options)
    assert (report.lost, report.kept_records) == (False, 12)
    assert read_back(disk, options) == truth
    assert all(batch.flags & 32 for batch in _batches(disk, A)), "nothing of it is in clear in the new log"

    report = salvage_log(LOG, NEW, files=without, options=SMALL)
    assert (report.lost, report.kept_records, report.behind_records) == (True, 0, 12)
    assert all("key" in stream.why for stream in report.streams)
    line = json.loads(content(without, f"{ASIDE}/{A.hex()}.jsonl").splitlines()[0])
    assert (line["seq"], line["last_seq"], line["lengths"]) == (1, 2, [150, 5])
    assert line["flags"] & 32
    assert base64.b64decode(line["stored"]) in content(without, segments(without)[0])

    with pytest.raises(InvalidInput, match="master key"):
        other = replace(SMALL, key_provider=LocalKeyProvider(bytes(32)))
        salvage_log(LOG, NEW, files=wrong, options=other)


def test_a_lost_key_sets_its_stream_aside_and_no_other() -> None:
    options = replace(SMALL, key_provider=KEY)
    disk, truth = coded_log(options)
    log = open_log(disk, LOG, options)
    assert log.keys is not None
    log.keys.destroy([A])
    log.release()
    report = salvage_log(LOG, NEW, files=disk, options=options)
    assert [stream.stream for stream in report.streams] == [A.hex()]
    assert read_back(disk, options) == {B: truth[B]}


def test_an_encrypted_snapshot_without_its_key_is_left_out_and_no_record_with_it() -> None:
    """A log that was not encrypted from the beginning: the records are in clear, the snapshot of them is not."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one", b"two"])]])
    encrypted = replace(SMALL, key_provider=KEY)

    async def main() -> None:
        async with writing(open_log(disk, LOG, encrypted)) as writer:
            await writer.submit([Batch(A, 2, [b"so far"], FLAG_SNAPSHOT)]).wait()

    trio.run(main)
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert (report.lost, report.kept_records, report.behind_records) == (False, 2, 0)
    log = open_log(disk, NEW, SMALL)
    reader = StreamReader(log.reading, log.index)
    assert reader.read_snapshot(A) is None
    assert truth_of(read_log(log)) == {A: [b"one", b"two"]}
    log.release()


def test_damaged_keys_are_noted_and_what_they_open_is_set_aside() -> None:
    options = replace(SMALL, key_provider=KEY)
    disk, _truth = coded_log(options)
    (name,) = disk.list_names(f"{LOG}/keys")
    flip(disk, f"{LOG}/keys/{name}", 3)
    report = salvage_log(LOG, NEW, files=disk, options=options)
    assert any(name in note and "What is encrypted is set aside" in note for note in report.notes)
    assert (report.lost, report.kept_records, report.behind_records) == (True, 0, 12)


# ---- compacted logs --------------------------------------------------------------------------------------------------


def compacted_log() -> tuple[MemoryFileSystem, Truth]:
    disk = MemoryFileSystem()

    async def main() -> Kept:
        kept = await a_log_with_dead_records(disk)
        await compact(disk, kept)
        return kept

    kept = trio.run(main)
    return disk, truth_of(record for record in kept.alive if record.stream not in kept.deleted)


def read_without_snapshots(disk: MemoryFileSystem) -> Truth:
    log = open_log(disk, NEW, SMALL)
    reader = StreamReader(log.reading, log.index, log.codec.decode)
    found = {stream: [record.payload for record in read_stream(reader, stream)] for stream in streams_of(log.index)}
    log.release()
    return found


def test_a_compacted_log_is_copied_whole_with_its_newest_snapshots() -> None:
    disk, truth = compacted_log()
    assert any(not name.endswith(".0.seg") for name in segments(disk))
    report = salvaged(disk, None)
    assert (report.lost, report.places, report.duplicates, report.deleted_streams) == (False, [], 0, 2)
    assert read_without_snapshots(disk) == truth
    snapshots: list[list[tuple[int, bytes]]] = []
    for path in (LOG, NEW):
        log = open_log(disk, path, SMALL)
        reader = StreamReader(log.reading, log.index)
        found = [reader.read_snapshot(stream) for stream in (A, C)]
        snapshots.append([(record.seq, record.payload) for record in found if record is not None])
        log.release()
    assert len(snapshots[0]) == 2
    assert snapshots[0] == snapshots[1]


def test_a_compacted_log_without_manifest_is_copied_whole() -> None:
    disk, truth = compacted_log()
    for path in [path for path in tree(disk, LOG) if "MANIFEST" in path]:
        remove(disk, path)
    report = salvaged(disk, None)
    assert not report.lost
    assert read_without_snapshots(disk) == truth


def test_a_rewritten_segment_that_was_cut_short_has_lost_what_its_header_says_it_reached() -> None:
    """Its end is not that which the header of the next segment names."""
    disk, truth = compacted_log()
    segment = next(path for path in segments(disk) if not path.endswith(".0.seg"))
    head = frames_of(disk, segment)[0].head
    put(disk, segment, b"", at=0, size=512)
    report = salvaged(disk, None)
    place = report.places[0]
    assert (place.file, place.offset) == (segment, 512)
    assert place.text == "the end of the segment is not what was written"
    assert (place.lost, place.first_lsn, place.last_lsn) == (True, head.first_lsn, head.last_lsn)
    assert report.lost
    for stream, kept in read_without_snapshots(disk).items():
        assert kept == truth[stream][: len(kept)]


def test_leftovers_of_a_compaction_are_not_read() -> None:
    disk, truth = compacted_log()
    put(disk, f"{LOG}/00000001-0000000000000001.0.seg", b"replaced long ago")
    report = salvaged(disk, None)
    assert not report.lost
    assert any("left over" in note for note in report.notes)
    assert read_without_snapshots(disk) == truth


def test_damage_to_a_compacted_log_costs_no_more_than_elsewhere() -> None:
    disk, truth = compacted_log()
    total = sum(map(len, truth.values()))
    for segment in segments(disk):
        for at in range(5, len(content(disk, segment)), 997):
            image = clone(disk)
            flip(image, segment, at)
            report = salvaged(image, None)
            found = read_without_snapshots(image)
            aside = set_aside(image)
            for stream, payloads in truth.items():
                kept = found.get(stream, [])
                assert kept == payloads[: len(kept)]
                assert all(payloads[seq - 1] == data for seq, data in aside[stream].items())
            left = sum(map(len, found.values())) + sum(map(len, aside.values()))
            assert left >= total - 3
            assert report.lost == (left < total or any(aside.values()))


# ---- the medium, and the target --------------------------------------------------------------------------------------


def test_sectors_that_cannot_be_read_count_as_damaged() -> None:
    disk, truth = many_segments(close=False)
    segment = segments(disk)[0]
    for frame in frames_of(disk, segment):
        image = clone(disk)
        files = WatchedFiles(image)
        bad = range(frame.at, frame.end)

        def spoil(call: Call, data: bytes, bad: range = bad) -> bytes:
            if call.path == segment and call.offset < bad.stop and call.offset + len(data) > bad.start:
                raise OSError(errno.EIO, os.strerror(errno.EIO), call.path)
            return data

        files.spoil_read = spoil
        report = salvage_log(LOG, NEW, files=files, options=SMALL)
        assert report.lost
        assert any("the medium gave an error" in note for note in report.notes)
        log = open_log(image, NEW, SMALL)
        check_streams(report, truth, truth_of(read_log(log)), set_aside(image))
        log.release()


def test_an_error_that_is_not_of_the_medium_is_raised() -> None:
    disk, _truth = many_segments(close=False)
    files = WatchedFiles(disk)

    def before(call: Call) -> None:
        if call.operation == "open" and call.path.endswith(".seg"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), call.path)

    files.before = before
    with pytest.raises(RecoveryFailed):
        salvage_log(LOG, NEW, files=files)
    assert disk.stat(NEW) is None


@pytest.mark.parametrize("target", [LOG, f"{LOG}/inside", f"{LOG}/../log/x"])
def test_the_target_must_not_lie_in_the_source(target: str) -> None:
    disk, _truth = many_segments(close=False)
    before = tree(disk)
    with pytest.raises(InvalidInput, match="inside"):
        salvage_log(LOG, target, files=disk)
    assert tree(disk) == before


def test_the_target_must_be_empty() -> None:
    disk, truth = many_segments(close=False)
    disk.make_directory(NEW)
    image = clone(disk)
    salvaged(image, truth)
    put(disk, f"{NEW}/x", b"")
    with pytest.raises(InvalidInput, match="not an empty directory"):
        salvage_log(LOG, NEW, files=disk)


def test_where_there_is_no_log_there_is_nothing_to_salvage() -> None:
    disk = MemoryFileSystem()
    disk.make_directory(LOG)
    with pytest.raises(NotFound):
        salvage_log(LOG, NEW, files=disk)
    with pytest.raises(NotFound):
        salvage_log("/nowhere", NEW, files=disk)
    assert disk.stat(NEW) is None


def test_an_unfinished_salvage_is_not_taken_for_a_log() -> None:
    disk, truth = many_segments(close=False)
    number = 0
    while True:
        number += 1
        image = clone(disk)
        files = WatchedFiles(image, stopping_at(number))
        try:
            salvage_log(LOG, NEW, files=files, options=SMALL)
        except Stopped:
            pass
        else:
            break
        left = image.durable_copy()
        if left.stat(NEW) is None or not segments(left, NEW):
            continue
        try:
            log = open_log(left, NEW, SMALL)
        except CorruptLog as error:
            assert error.row == 15
            continue
        assert truth_of(read_log(log)) in (truth, {}), "all of it, or not even begun"
        log.release()
    assert number > 60


def test_progress_reaches_the_end_and_never_goes_back() -> None:
    disk, _truth = many_segments()
    calls: list[tuple[int, int]] = []
    salvage_log(LOG, NEW, lambda done, total: calls.append((done, total)), files=disk, options=SMALL)
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == 2 * sum(len(content(disk, segment)) for segment in segments(disk))


def test_payloads_are_described_and_streams_named_by_the_caller() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"name", b"two"])], [(A, [b"three"])], [(A, [b"four"])]])
    middle = frames_of(disk, segments(disk)[0])[1]
    flip(disk, segments(disk)[0], middle.end - 1)
    name: Callable[[bytes], str | None] = lambda data: f"stream of {data.decode()}"  # noqa: E731
    report = salvage_log(LOG, NEW, files=disk, options=SMALL, describe=lambda data: {"text": data.decode()}, name=name)
    (stream,) = report.streams
    assert (stream.name, stream.kept, stream.missing, stream.behind) == ("stream of name", 2, [(3, 3)], 1)
    assert report.places[0].streams[0].name == "stream of name"
    line = json.loads(content(disk, f"{ASIDE}/{A.hex()}.jsonl"))
    assert (line["seq"], line["lsn"], line["kind"], line["record"]) == (4, 4, "record", {"text": "four"})
    assert "stream of name: records 1 to 2" in content(disk, f"{ASIDE}/REPORT.txt").decode()


def test_other_errors_than_those_of_the_medium_are_raised_however_much_was_read_before_them() -> None:
    """The block cannot be read (EIO), so it is tried piece by piece; and a piece fails for want of memory."""
    disk, _truth = many_segments(close=False)
    for numbers in ([errno.ENOMEM], [errno.EIO, errno.ENOMEM]):
        files = WatchedFiles(disk, FailOnce("read", *numbers))
        with pytest.raises(RecoveryFailed, match="Nothing was changed") as caught:
            salvage_log(LOG, NEW, files=files, options=SMALL)
        assert caught.value.errno == errno.ENOMEM
        assert disk.stat(NEW) is None


def test_a_sidecar_that_is_out_of_reach_is_an_error_that_names_it_and_not_taken_for_none() -> None:
    """Without it, frames would be given up that it restores."""
    disk, _truth = many_segments()
    sidecar = next(path for path in map(sidecar_path, segments(disk)) if disk.stat(path))

    def before(call: Call) -> None:
        if (call.operation, call.path) == ("open", sidecar):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), sidecar)

    with pytest.raises(RecoveryFailed) as caught:
        salvage_log(LOG, NEW, files=WatchedFiles(disk, before), options=SMALL)
    assert (caught.value.errno, caught.value.file) == (errno.EACCES, sidecar)
    assert disk.stat(NEW) is None


def test_a_tolerant_file_changes_nothing() -> None:
    disk, _truth = many_segments(close=False)
    segment = segments(disk)[0]
    before = tree(disk)
    inner = disk.open(segment)
    file = TolerantFile(inner)
    changes: list[Callable[[], object]] = [
        lambda: file.write(0, b"x"),
        file.datasync,
        lambda: file.truncate(0),
        lambda: file.allocate(1 << 20),
    ]
    for change in changes:
        with pytest.raises(OSError, match="opened for reading") as caught:
            change()
        assert caught.value.errno == errno.EBADF
    assert file.identity() == inner.identity()
    assert file.lock() is False, "it takes no lock"
    file.close()
    assert tree(disk) == before


@pytest.mark.parametrize("path", [NEW, f"{LOG}/quarantine"])
def test_a_place_that_cannot_be_looked_into_is_an_error_that_names_it(path: str) -> None:
    disk, _truth = many_segments(close=False)

    def before(call: Call) -> None:
        if (call.operation, call.path) == ("stat", path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    with pytest.raises(RecoveryFailed, match="look into") as caught:
        salvage_log(LOG, NEW, files=WatchedFiles(disk, before))
    assert caught.value.errno == errno.EIO
    assert caught.value.file == (NEW if path == NEW else LOG)
    assert disk.stat(NEW) is None


def test_a_log_that_a_process_has_open_is_salvaged_with_a_note() -> None:
    disk, truth = many_segments(close=False)
    log = open_log(disk, LOG, SMALL)
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    log.release()
    assert any("a process had the log open" in note for note in report.notes)
    assert report.kept_records == sum(map(len, truth.values()))
    again = salvage_log(LOG, "/newer", files=disk, options=SMALL)
    assert not [note for note in again.notes if "open" in note]


def a_hole_in_each_of(streams: list[bytes]) -> MemoryFileSystem:
    """A log in which the second of three records is lost of every stream, and the others are there."""
    disk = MemoryFileSystem()
    groups: list[Group] = [[(stream, [b"%d" % n]) for stream in streams] for n in range(3)]
    write_log(disk, groups, options=LogOptions(segment_bytes=64 * 1024))
    put(disk, segments(disk)[0], bytes(HEADER_BYTES), at=frames_of(disk, segments(disk)[0])[1].at)
    return disk


def test_many_streams_are_set_aside_with_a_few_files_open_at_once() -> None:
    streams = [stream_id(str(n)) for n in range(40)]
    disk = a_hole_in_each_of(streams)
    files = WatchedFiles(disk)
    most = 0

    def before(_call: Call) -> None:
        nonlocal most
        most = max(most, sum(file.path.endswith(".jsonl") for file in files.open_files))

    files.before = before
    report = salvage_log(LOG, NEW, files=files, options=SMALL)
    assert report.behind_records == 40
    assert 1 < most <= 33
    left = disk.durable_copy()
    assert set_aside(left) == {stream: {3: b"2"} for stream in streams}


def test_the_text_names_so_many_streams_and_says_where_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.salvage_report.STREAMS_IN_TEXT", 2)
    disk = a_hole_in_each_of([A, B, C, stream_id("D"), stream_id("E")])
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert len(report.streams) == 5
    text = content(disk, f"{ASIDE}/REPORT.txt").decode()
    assert "Streams that are not whole: 5\n" in text
    assert "… and 3 more, in REPORT.json" in text
    assert text.count("missing: 2") == 2
    assert len(json.loads(content(disk, f"{ASIDE}/REPORT.json"))["streams"]) == 5


def test_salvage_does_not_take_a_rejected_group_behind_the_cut_for_the_acknowledged_one() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(B, [b"x"])], [(A, [b"one"])], [(A, [b"two"])], [(A, [b"rejected"])]])
    (segment,) = segments(disk)
    rejected = frames_of(disk, segment)[3]
    group = content(disk, segment)[rejected.at : rejected.end]
    put(disk, segment, bytes(len(group)), at=rejected.at)
    write_log(disk, [[(A, [b"acknowledged"])]])  # the header of the next segment cuts the log behind "two"
    put(disk, segment, group, at=rejected.at)  # the sync had failed, and the bytes are there
    flip(disk, segment, frames_of(disk, segment)[0].end - 1)  # rot, elsewhere in that segment
    salvage_log(LOG, NEW, files=disk, options=SMALL)
    log = open_log(disk, NEW, SMALL)
    assert [record.payload for record in read_log(log)] == [b"one", b"two", b"acknowledged"]
    log.release()


def test_salvage_says_that_nothing_is_lost_where_the_second_file_of_a_segment_has_the_batch() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(A, [b"two"])], [(A, [b"three"])]])
    (segment,) = segments(disk)
    second = frames_of(disk, segment)[1]
    put(disk, f"{segment.split('.')[0]}.1.seg", content(disk, segment))
    flip(disk, segment, second.end - 1)
    report = salvage_log(LOG, NEW, files=disk, options=SMALL)
    assert (report.kept_records, report.streams) == (3, [])
    assert not report.lost
