"""The decision table of recovery, row by row, on logs that were really written and then damaged by hand.

Rows 12 (FORMAT), 15 and 17 are in `test_log_directory`; row 8 is in `test_log_reading`.
"""

from __future__ import annotations

import itertools
import posixpath
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from stepstore import errors
from stepstore.errors import CorruptLog, InvalidState, RecoveryFailed
from stepstore.log import frame as fr
from stepstore.log import segment_header as sh
from stepstore.log.batch_codec import FLAG_ENCRYPTED, BatchCodec, Compression
from stepstore.log.directory import must_exist
from stepstore.log.footer import TRAILER_BYTES
from stepstore.log.frame import KIND_MARK, Batch, Encode
from stepstore.log.live_index import STREAM_FORKED
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log, open_log_read_only
from stepstore.log.records import Record
from stepstore.log.recovery import recover
from stepstore.log.sealing import sidecar_path
from stepstore.log.stream_reader import StreamReader
from stepstore.log.verify import verify_log
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    FoundFrame,
    WatchedFiles,
    clone,
    content,
    flip,
    frames_of,
    header_of,
    move,
    payload,
    put,
    read_log,
    read_stream,
    records_of,
    remove,
    reopen,
    segments,
    store,
    tree,
    with_nul_runs,
    write_log,
    writing,
)

CUT = LogOptions(segment_bytes=SMALL.segment_bytes, tail="cut")
PLAIN = payload(1900)
NULS = with_nul_runs(7000)
GROUPS = [[(A, [b"first"])], [(B, [payload(300, 7)])], [(A, [b"third", PLAIN])]]


@dataclass
class Damaged:
    """A log of one segment that crashed, about to be damaged."""

    disk: MemoryFileSystem
    stored: list[Record]

    @property
    def segment(self) -> str:
        return segments(self.disk)[-1]

    @property
    def frames(self) -> list[FoundFrame]:
        return frames_of(self.disk, self.segment)

    @property
    def last(self) -> FoundFrame:
        return self.frames[-1]


def a_log(groups: list[list[tuple[bytes, list[bytes]]]] = GROUPS, *, close: bool = False) -> Damaged:
    disk = MemoryFileSystem()
    return Damaged(disk, write_log(disk, groups, close=close))


def a_marked_log() -> Damaged:
    """As `a_log`, and a mark behind the last frame."""

    async def main() -> Damaged:
        disk = MemoryFileSystem()
        stored: list[Record] = []
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            for group in GROUPS:
                stored += records_of(await store(writer, *group))
            writer.want_mark()
            await trio.testing.wait_all_tasks_blocked()
        return Damaged(disk, stored)

    return trio.run(main)


def many_segments() -> Damaged:
    """Segments of up to two frames; the last frame of the log is alone in its segment."""
    log = a_log([[(A, [payload(7000, n)])] for n in range(5)])
    assert len(segments(log.disk)) == 3
    return log


def must_refuse(log: Damaged, row: int, *, options: LogOptions = SMALL) -> CorruptLog:
    """Opening raises `CorruptLog` of this row, names the file, and changes nothing on the disk."""
    before = tree(log.disk)
    files = WatchedFiles(log.disk)
    with pytest.raises(CorruptLog) as caught:
        open_log(files, LOG, options)
    assert caught.value.row == row, str(caught.value)
    assert files.changes() == []
    assert tree(log.disk) == before
    assert posixpath.basename(caught.value.file) in str(caught.value)
    assert f"row {row}" in str(caught.value) or row == 7
    assert "None" not in str(caught.value), "it says why"
    return caught.value


def must_refuse_at(log: Damaged, row: int, frame: FoundFrame, *, end: int, options: LogOptions = SMALL) -> CorruptLog:
    """As `must_refuse`, and the place named is the end of the chain: behind the frame before `frame`."""
    error = must_refuse(log, row, options=options)
    assert (error.file, error.offset, error.first_lsn) == (log.segment, end, frame.head.first_lsn)
    return error


def must_cut(log: Damaged, at: int, kept: int, *, options: LogOptions = SMALL) -> None:
    """Opening cuts the newest segment at `at`: a copy in quarantine, a successor that names the cut, `kept` records."""
    segment, data, header = log.segment, content(log.disk, log.segment), header_of(log.disk, log.segment)
    frames = [frame for frame in readable_frames(data, header.segment_tag) if frame.end <= at]
    leftover = data[at:].rstrip(b"\0")
    assert leftover
    found, report = reopen(log.disk, options=options)
    assert found == log.stored[:kept]

    (name,) = report.quarantined
    assert name.endswith(f"-{posixpath.basename(segment)}-{at}")
    assert content(log.disk, f"{LOG}/quarantine/{name}") == leftover
    assert report.bytes_cut == len(leftover)
    assert any(segment in note for note in report.notes)

    assert content(log.disk, segment) == data[:at]
    successor = header_of(log.disk, segments(log.disk)[-1])
    assert successor.seq == header.seq + 1
    assert successor.epoch == header.epoch + 1
    assert (successor.prev_seq, successor.prev_end_offset, successor.prev_end_lsn) == (header.seq, at, kept)
    chain = frames[-1].head.header_crc if frames else int.from_bytes(data[sh.HEADER_BYTES - 4 : sh.HEADER_BYTES], "big")
    assert successor.prev_chain == chain
    assert successor.first_lsn == kept + 1

    again, second = reopen(log.disk)
    assert (again, second.quarantined, second.bytes_cut) == (found, (), 0)
    durable, seen = tree(log.disk.durable_copy()), tree(log.disk)
    del durable[f"{LOG}/reserve"], seen[f"{LOG}/reserve"]  # space set aside again at the next opening if it was lost
    assert durable == seen


def readable_frames(data: bytes, tag: int) -> list[FoundFrame]:
    found = ((match.start(), fr.parse_header(data, match.start())) for match in re.finditer(rb"\x8e", data))
    return [FoundFrame(at, head) for at, head in found if head is not None and head.segment_tag == tag]


# ---- row 1: the end --------------------------------------------------------------------------------------------------


def test_row_01_zeros_to_the_end_of_the_allocation_are_the_end() -> None:
    log = a_log()
    assert not any(content(log.disk, log.segment)[log.last.end :])
    found, report = reopen(log.disk)
    assert found == log.stored
    assert (report.quarantined, report.notes, report.bytes_cut) == ((), (), 0)
    assert len(segments(log.disk)) == 1


def test_row_01_a_trailer_is_the_end() -> None:
    log = a_log(close=True)
    before = tree(log.disk)
    assert reopen(log.disk)[0] == log.stored
    assert tree(log.disk) == before


def test_row_01_zeros_behind_a_trailer_are_the_end_and_are_cut_off() -> None:
    """The process died before it had cut the file."""
    log = a_log(close=True)
    whole = content(log.disk, log.segment)
    put(log.disk, log.segment, b"", at=0, size=len(whole) + 7000)
    assert verify_log(LOG, files=log.disk).problems == []
    assert reopen(log.disk)[0] == log.stored
    assert content(log.disk, log.segment) == whole


def test_row_01_a_footer_and_nothing_behind_it_is_the_end() -> None:
    """The process died before it had written the close frame; the footer is an index and no record, so it goes."""
    log = a_log(close=True)
    data_end, footer = log.frames[-3].end, log.frames[-2]
    for size in (footer.end, footer.end + 700):
        image = clone(log.disk)
        put(image, log.segment, b"", at=0, size=footer.end)
        put(image, log.segment, b"", at=0, size=size)
        assert verify_log(LOG, files=image).problems == []
        found, report = reopen(image)
        assert (found, report.quarantined, report.notes) == (log.stored, (), ())
        assert len(content(image, log.segment)) == data_end
        assert len(segments(image)) == 1


@pytest.mark.parametrize("at", [0, 30, fr.WRAPPER_BYTES - 1, fr.WRAPPER_BYTES, fr.WRAPPER_BYTES + TRAILER_BYTES - 1])
def test_row_01_a_close_frame_or_trailer_that_is_not_sound_costs_nothing(at: int) -> None:
    """The footer proves that no record is missing before it."""
    log = a_log(close=True)
    flip(log.disk, log.segment, log.last.at + at)
    found, report = reopen(log.disk)
    assert (found, report.quarantined, report.notes) == (log.stored, (), ())
    assert len(segments(log.disk)) == 1


def test_row_01_a_file_that_ends_with_its_last_frame_is_the_end() -> None:
    log = a_log()
    put(log.disk, log.segment, b"", at=0, size=log.last.end)
    found, report = reopen(log.disk)
    assert (found, report.notes) == (log.stored, ())


def test_row_01_a_segment_with_nothing_but_its_header_is_the_end() -> None:
    log = a_log([])
    assert reopen(log.disk)[0] == []


# ---- row 2: proven durable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["header", "directory", "payload"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_02_a_later_frame_proves_the_damaged_one_durable(number: int, part: str, options: LogOptions) -> None:
    log = a_log()
    frame = log.frames[number]
    place = {"header": 20, "directory": fr.HEADER_BYTES + 9, "payload": frame.head.frame_len - 2}[part]
    end = log.frames[number - 1].end if number else sh.HEADER_BYTES
    flip(log.disk, log.segment, frame.at + place)
    error = must_refuse_at(log, 2, frame, end=end, options=options)
    assert error.last_lsn == (None if part == "header" else frame.head.last_lsn)


def test_row_02_the_proof_is_found_wherever_the_blocks_of_the_scan_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that lies across two blocks is a header all the same."""
    log = a_log([[(A, [payload(100, n)])] for n in range(3)])
    first, second, last = log.frames
    flip(log.disk, log.segment, first.at + 20)
    flip(log.disk, log.segment, second.at + 20)
    for block in range(last.at - first.at - 5, last.at - first.at + fr.HEADER_BYTES + 5):
        monkeypatch.setattr("stepstore.log.scan._BLOCK", block)
        assert must_refuse_at(Damaged(clone(log.disk), log.stored), 2, first, end=sh.HEADER_BYTES).last_lsn is None


@pytest.mark.parametrize("block", [80, 511, 512, 513, 1000])
def test_row_01_a_log_is_read_whole_with_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = a_log([*GROUPS, [(A, [NULS]), (B, [b""])]])
    monkeypatch.setattr("stepstore.log.scan._BLOCK", block)
    assert reopen(log.disk)[0] == log.stored


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_02_a_frame_that_was_zeroed_is_proven_by_a_later_one(options: LogOptions) -> None:
    log = a_log()
    frame = log.frames[1]
    put(log.disk, log.segment, bytes(frame.head.frame_len), at=frame.at)
    must_refuse_at(log, 2, frame, end=log.frames[0].end, options=options)


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("left", ["footer", "close frame"])
def test_row_02_what_seals_a_segment_proves_the_frame_before_it_also_without_a_trailer(
    left: str, options: LogOptions
) -> None:
    log = a_log(close=True)
    before, frame, footer, close = log.frames[-4:]
    flip(log.disk, log.segment, frame.end - 1)
    if left == "footer":
        put(log.disk, log.segment, b"", at=0, size=footer.end)
    else:
        put(log.disk, log.segment, bytes(footer.head.frame_len), at=footer.at)
        put(log.disk, log.segment, bytes(TRAILER_BYTES), at=close.end)
    must_refuse_at(log, 2, frame, end=before.end, options=options)


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_02_a_mark_proves_the_frame_before_it(options: LogOptions) -> None:
    """Without the mark the same bit is suspected rot (row 5)."""
    log = a_marked_log()
    before, frame, mark = log.frames[-3:]
    assert mark.head.kind == fr.KIND_MARK
    flip(log.disk, log.segment, frame.end - 1)
    unmarked = Damaged(clone(log.disk), log.stored)
    put(unmarked.disk, log.segment, bytes(mark.head.frame_len), at=mark.at)
    must_refuse_at(log, 2, frame, end=before.end, options=options)
    must_refuse_at(unmarked, 5, frame, end=before.end)


def a_log_with_sidecar(behind: int) -> Damaged:
    """A crash left the newest file, and the next process wrote the index beside it; then so many zeros behind."""
    log = a_log()
    write_log(log.disk, [], care=True)
    assert log.disk.stat(sidecar_path(log.segment)) is not None
    put(log.disk, log.segment, b"", at=0, size=len(content(log.disk, log.segment)) + behind)
    return log


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_02_a_sidecar_proves_the_last_frame_of_a_file_that_is_longer(options: LogOptions) -> None:
    log = a_log_with_sidecar(700)
    frame = log.frames[-1]
    flip(log.disk, log.segment, frame.end - 1)
    error = must_refuse(log, 2, options=options)
    assert (error.offset, error.last_lsn) == (log.frames[-2].end, frame.head.last_lsn)


def test_row_01_the_sidecar_of_a_file_that_is_longer_goes_before_the_file_is_cut_and_is_made_anew() -> None:
    """It would be asked by the next opening, and nobody has compared it with what is there."""
    log = a_log_with_sidecar(700)
    files = WatchedFiles(log.disk)
    open_log(files, LOG, SMALL).release()
    done = [(call.operation, call.path) for call in files.changes()]
    assert done.index(("unlink", sidecar_path(log.segment))) < done.index(("truncate", log.segment))
    assert reopen(log.disk)[0] == log.stored
    write_log(log.disk, [], care=True)
    assert log.disk.stat(sidecar_path(log.segment)) is not None
    assert verify_log(LOG, files=log.disk).problems == []


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("damage", ["flipped", "zeroed", "cut off", "cut in the middle"])
def test_row_02_a_successor_proves_what_lies_before_its_cut(damage: str, options: LogOptions) -> None:
    log = many_segments()
    segment = segments(log.disk)[0]
    frames = frames_of(log.disk, segment)
    frame = frames[-1]
    if damage == "flipped":
        flip(log.disk, segment, frame.at + 100)
    elif damage == "zeroed":
        put(log.disk, segment, bytes(frame.head.frame_len), at=frame.at)
    else:
        put(log.disk, segment, b"", at=0, size=frame.at if damage == "cut off" else frame.end - 3)
    error = must_refuse(log, 2, options=options)
    assert (error.file, error.offset, error.first_lsn) == (segment, frames[-2].end, frame.head.first_lsn)


def test_row_02_a_successor_whose_cut_lies_elsewhere_proves_the_file_wrong() -> None:
    """The file before is whole, but ends earlier than the next one says: frames are missing."""
    log = many_segments()
    first, second = segments(log.disk)[:2]
    header = header_of(log.disk, second)
    put(
        log.disk,
        second,
        sh.encode_segment_header(header._replace(prev_end_offset=header.prev_end_offset + 600))[0],
        at=0,
    )
    error = must_refuse(log, 2)
    assert error.file == first


def test_row_02_a_successor_that_names_another_chain_proves_the_file_wrong() -> None:
    log = many_segments()
    first, second = segments(log.disk)[:2]
    header = header_of(log.disk, second)
    put(log.disk, second, sh.encode_segment_header(header._replace(prev_chain=header.prev_chain ^ 1))[0], at=0)
    assert must_refuse(log, 2).file == first


# ---- row 3: closed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("distance", [0, 1, 500, 8000])
def test_row_03_nothing_is_written_behind_a_trailer(distance: int, options: LogOptions) -> None:
    log = a_log(close=True)
    frame = log.last
    put(log.disk, log.segment, b"\x01", at=frame.end + TRAILER_BYTES + distance)
    error = must_refuse(log, 3, options=options)
    assert (error.file, error.offset) == (log.segment, frame.end)
    (problem,) = verify_log(LOG, files=log.disk).problems
    assert "trailer" in str(problem)


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("distance", [0, 5000])
def test_row_03_nothing_but_a_seal_is_written_behind_a_footer(distance: int, options: LogOptions) -> None:
    log = a_log(close=True)
    footer, close = log.frames[-2:]
    put(log.disk, log.segment, bytes(close.head.frame_len + TRAILER_BYTES), at=close.at)
    put(log.disk, log.segment, b"\x01", at=close.end + TRAILER_BYTES + distance)
    error = must_refuse(log, 3, options=options)
    assert (error.file, error.offset) == (log.segment, footer.end)


@pytest.mark.parametrize("kind", ["data", "mark"])
def test_row_03_a_frame_behind_a_footer_is_none_of_this_segment(kind: str) -> None:
    log = a_log(close=True)
    footer = log.frames[-2]
    tag, chain = footer.head.segment_tag, footer.head.header_crc
    if kind == "data":
        next_at = fr.header_position(footer.end)
        batches = [Batch(A, 4, [payload(9000)], 0)]
        data, _crc, _entries = fr.build_frame(
            batches, offset=next_at, first_lsn=5, durable_lsn=4, segment_tag=tag, prev_crc=chain
        )
    else:
        next_at = -(-footer.end // fr.MARK_ALIGNMENT) * fr.MARK_ALIGNMENT
        data, _crc = fr.build_wrapper(
            fr.KIND_MARK, b"", offset=next_at, first_lsn=5, durable_lsn=4, segment_tag=tag, prev_crc=chain
        )
    put(log.disk, log.segment, b"", at=0, size=footer.end)
    put(log.disk, log.segment, data + b"\0" * 200 + b"\x01", at=next_at)
    error = must_refuse(log, 3)
    assert (error.file, error.offset, error.first_lsn) == (log.segment, footer.end, 5)


# ---- row 4: a torn tail ----------------------------------------------------------------------------------------------


def test_row_04_a_file_that_ends_inside_the_body_is_a_torn_tail() -> None:
    log = a_log()
    before, last = log.frames[-2:]
    for size in (last.at + fr.HEADER_BYTES, last.at + fr.HEADER_BYTES + 1, last.end - 100, last.end - 1):
        torn = Damaged(clone(log.disk), log.stored)
        put(torn.disk, torn.segment, b"", at=0, size=size)
        must_cut(torn, before.end, kept=2)


def test_row_04_a_file_that_ends_inside_the_header_is_a_torn_tail() -> None:
    log = a_log()
    before, last = log.frames[-2:]
    for length in range(1, fr.HEADER_BYTES):
        torn = Damaged(clone(log.disk), log.stored)
        put(torn.disk, torn.segment, b"", at=0, size=last.at + length)
        must_cut(torn, before.end, kept=2)


def test_row_04_header_place_zero_and_later_bytes_is_a_torn_tail() -> None:
    log = a_log()
    before, last = log.frames[-2:]
    sector = (last.at // fr.SECTOR + 1) * fr.SECTOR
    put(log.disk, log.segment, bytes(sector - last.at), at=last.at)
    must_cut(log, before.end, kept=2)


def test_row_04_one_byte_within_a_maximal_frame_is_a_torn_tail() -> None:
    log = a_log()
    end = log.last.end
    put(log.disk, log.segment, b"\x01", at=end + fr.MAX_FRAME_BYTES)
    must_cut(log, end, kept=4)


def test_row_04_known_limit_the_only_bit_of_a_sector_looks_like_a_sector_never_written() -> None:
    """Not a promise but a limit, stated in docs/reliability.md: nothing on one disk tells the two apart."""
    lonely = bytes(1500) + b"\x10" + bytes(1500)
    log = a_log([*GROUPS[:2], [(A, [lonely])]])
    before, frame = log.frames[-2:]
    at = content(log.disk, log.segment).rindex(b"\x10", frame.at, frame.end)
    flip(log.disk, log.segment, at, bit=4)
    must_cut(log, before.end, kept=2)


def lost_sectors(frame: FoundFrame) -> list[tuple[int, int]]:
    """The sectors of a frame, as (start, end) inside it."""
    edges = [frame.at, *range((frame.at // fr.SECTOR + 1) * fr.SECTOR, frame.end, fr.SECTOR), frame.end]
    return list(itertools.pairwise(edges))


@pytest.mark.parametrize("last", [PLAIN, NULS[:2600], b"x" + bytes(2000), bytes(1800) + b"x"], ids=range(4))
def test_row_04_any_loss_of_whole_sectors_is_a_torn_tail_or_no_loss(last: bytes) -> None:
    """A power cut keeps any subset of the sectors of the last write."""
    log = a_log([*GROUPS[:2], [(A, [last])]])
    before, frame = log.frames[-2:]
    whole = content(log.disk, log.segment)
    sectors = lost_sectors(frame)
    assert 4 <= len(sectors) <= 7
    for fate in itertools.product([True, False], repeat=len(sectors)):
        torn = Damaged(clone(log.disk), log.stored)
        for (start, end), kept in zip(sectors, fate, strict=True):
            if not kept:
                put(torn.disk, torn.segment, bytes(end - start), at=start)
        left = content(torn.disk, torn.segment)
        if left == whole:
            assert reopen(torn.disk)[0] == log.stored
        elif not any(left[before.end :]):
            assert reopen(torn.disk)[0] == log.stored[:2]
        else:
            must_cut(torn, before.end, kept=2)


def test_row_04_a_torn_first_frame_leaves_an_empty_segment() -> None:
    log = a_log([[(A, [PLAIN])]])
    put(log.disk, log.segment, bytes(512), at=1024)
    must_cut(log, sh.HEADER_BYTES, kept=0)


def test_row_04_a_torn_frame_behind_the_allocation_is_a_torn_tail() -> None:
    """A batch larger than a segment is written beyond the space that was set aside."""
    log = a_log([[(A, [payload(40_000)])]])
    assert len(content(log.disk, log.segment)) > SMALL.segment_bytes
    for sector in (1024, 20 * 1024, 39 * 1024):
        torn = Damaged(clone(log.disk), log.stored)
        put(torn.disk, torn.segment, bytes(512), at=sector)
        must_cut(torn, sh.HEADER_BYTES, kept=0)


@pytest.mark.parametrize("align", [512, 4096])
def test_row_04_a_torn_largest_batch_is_a_torn_tail_with_any_alignment(align: int) -> None:
    """The zeros in front of an aligned frame do not count as its length (row 6)."""
    options = LogOptions(segment_bytes=SMALL.segment_bytes, align=align)
    size = fr.MAX_BATCH_BYTES - fr.batch_cost(0, 1)
    disk = MemoryFileSystem()
    stored = write_log(disk, [[(A, [b"x"])]], options=options)
    segment = segments(disk)[0]
    first = frames_of(disk, segment)[0]
    # By hand, since the writer would begin a new segment for it; a medium whose preallocation failed does not.
    at = fr.header_position(first.end, align)
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 2, [b"\x01" * size], 0)],
        offset=at,
        first_lsn=2,
        durable_lsn=1,
        segment_tag=header_of(disk, segment).segment_tag,
        prev_crc=first.head.header_crc,
    )
    put(disk, segment, data, at=at)
    put(disk, segment, bytes(512), at=at // 512 * 512 + 1024)
    assert at + len(data) - 1 - first.end > fr.MAX_FRAME_BYTES - 512
    found, report = reopen(disk)
    assert found == stored
    assert report.bytes_cut > fr.MAX_BATCH_BYTES


def test_row_04_a_file_that_was_not_preallocated_is_torn_only_where_it_ends() -> None:
    """Without space set aside no hole of zeros can come from a crash."""
    log = a_log()
    segment = log.segment
    frames = log.frames
    header = header_of(log.disk, segment)
    encoded, crc = sh.encode_segment_header(header._replace(features_compatible=sh.FEATURE_NOT_PREALLOCATED))
    # The first frame names the CRC of the segment header; write the chain anew.
    put(log.disk, segment, encoded, at=0)
    chain, durable = crc, 0
    for frame, batch in zip(frames, batches_of(log), strict=True):
        data, chain, _entries = fr.build_frame(
            batch,
            offset=frame.at,
            first_lsn=frame.head.first_lsn,
            durable_lsn=durable,
            segment_tag=header.segment_tag,
            prev_crc=chain,
        )
        put(log.disk, segment, data, at=frame.at)
        durable = frame.head.last_lsn
    put(log.disk, segment, b"", at=0, size=frames[-1].end)
    assert reopen(clone(log.disk))[0] == log.stored

    cut_short = Damaged(clone(log.disk), log.stored)
    put(cut_short.disk, segment, b"", at=0, size=frames[-1].end - 9)
    must_cut(cut_short, frames[-2].end, kept=2)

    for hole in lost_sectors(frames[-1]):
        holed = Damaged(clone(log.disk), log.stored)
        put(holed.disk, segment, bytes(hole[1] - hole[0]), at=hole[0])
        must_refuse_at(holed, 5, frames[-1], end=frames[-2].end)


def batches_of(log: Damaged) -> list[list[Batch]]:
    made: list[list[Batch]] = []
    last: dict[bytes, int] = {}
    for group in GROUPS:
        made.append([])
        for stream, payloads in group:
            first = last.get(stream, 0) + 1
            made[-1].append(Batch(stream, first, payloads, 0))
            last[stream] = first + len(payloads) - 1
    return made


# ---- row 5: suspected rot --------------------------------------------------------------------------------------------


def damage_last_frame(log: Damaged, part: str) -> None:
    frame = log.last
    place = {"header": 3, "header crc": fr.HEADER_BYTES - 1, "directory": fr.HEADER_BYTES + 9, "payload": -2}[part]
    flip(log.disk, log.segment, (frame.end if place < 0 else frame.at) + place, bit=5)


@pytest.mark.parametrize("part", ["header", "header crc", "directory", "payload"])
def test_row_05_a_flipped_bit_in_the_last_group_is_refused(part: str) -> None:
    log = a_log()
    before, last = log.frames[-2:]
    damage_last_frame(log, part)
    error = must_refuse_at(log, 5, last, end=before.end)
    assert error.last_lsn == (None if part.startswith("header") else 4)
    assert 'tail="cut"' in str(error)


@pytest.mark.parametrize("part", ["header", "header crc", "directory", "payload"])
def test_row_05_with_tail_cut_the_last_group_is_quarantined_and_given_up(part: str) -> None:
    log = a_log()
    before = log.frames[-2]
    damage_last_frame(log, part)
    must_cut(log, before.end, kept=2, options=CUT)


@pytest.mark.parametrize("size", [1000, 5000, 7000])
def test_row_05_every_flipped_bit_beside_nul_runs_is_rot_and_not_a_tear(size: int) -> None:
    log = a_log([*GROUPS[:2], [(A, [with_nul_runs(size)]), (B, [bytes(3000)])]])
    before, frame = log.frames[-2:]
    assert frame.head.zero_pieces > 3
    data = content(log.disk, log.segment)
    written = [at for at in range(frame.at, frame.end) if data[at]]
    beside = sorted({near for at in written for near in (at - 1, at, at + 1) if frame.at <= near < frame.end})
    for at in [*beside[:: max(1, len(beside) // 60)], *range(frame.at + 400, frame.end, 331)]:
        rotten = Damaged(clone(log.disk), log.stored)
        flip(rotten.disk, rotten.segment, at, bit=at % 8)
        must_refuse_at(rotten, 5, frame, end=before.end)


def test_row_05_a_flipped_bit_in_the_zeros_before_a_header_is_refused() -> None:
    log = a_log([[(A, [payload(size, size)])] for size in (330, 250, 300)])
    padded = [(b, a) for b, a in itertools.pairwise(log.frames) if a.at > b.end]
    assert padded, "no frame was moved to the next sector; choose other sizes"
    for before, frame in padded:
        rotten = Damaged(clone(log.disk), log.stored)
        flip(rotten.disk, rotten.segment, frame.at - 1)
        must_refuse_at(rotten, 5 if frame == log.last else 2, frame, end=before.end)


def test_row_05_a_crafted_directory_behind_sound_crcs_is_refused() -> None:
    log = a_log()
    last = log.last
    data, crc, _entries = fr.build_frame(
        [Batch(A, 1, [], 0), Batch(A, 3, [b"x"], 0)],  # a batch without records
        offset=last.end,
        first_lsn=5,
        durable_lsn=4,
        segment_tag=last.head.segment_tag,
        prev_crc=last.head.header_crc,
    )
    assert crc
    put(log.disk, log.segment, data, at=fr.header_position(last.end))
    error = must_refuse(log, 5)
    assert (error.offset, error.first_lsn) == (last.end, 5)


RECORD = [Batch(B, 2, [b"crafted"], 0)]


def crafted_frame(log: Damaged, at: int, batches: Sequence[Batch], **changed: int) -> bytes:
    """A frame with sound CRCs that continues the chain of a log and is to be written at `at`."""
    last = log.last.head
    data, _crc, _entries = fr.build_frame(
        batches,
        offset=at,
        first_lsn=last.last_lsn + 1,
        durable_lsn=last.last_lsn,
        segment_tag=last.segment_tag,
        prev_crc=last.header_crc,
    )
    head = fr.parse_header(data)
    assert head is not None
    values = [item for pair in zip(fr._TYPES[1:], head._replace(**changed), strict=True) for item in pair]
    header = fr._HEADER.pack(fr._TYPES[0], *values)[:-5]
    header += b"\x1a" + zlib.crc32(header).to_bytes(4, "big")
    assert fr.parse_header(header) is not None
    return header + data[fr.HEADER_BYTES :]


def test_row_06_a_data_frame_where_only_marks_may_stand_is_refused() -> None:
    log = a_log()
    at = -(-log.last.end // fr.MARK_ALIGNMENT) * fr.MARK_ALIGNMENT
    put(log.disk, log.segment, crafted_frame(log, at, RECORD), at=at)
    error = must_refuse(log, 6)
    assert (error.offset, error.first_lsn) == (log.frames[2].end, 5)


@pytest.mark.parametrize(("aligned", "row"), [(True, 6), (False, 5)])
@pytest.mark.parametrize("what", ["a record", "a number"])
def test_a_mark_that_holds_a_record_or_takes_its_number_is_refused(what: str, aligned: bool, row: int) -> None:
    """It is no mark, wherever it stands: a record would be passed over, or never have been there."""
    log = a_log()
    end = log.last.end
    at = -(-end // fr.MARK_ALIGNMENT) * fr.MARK_ALIGNMENT if aligned else fr.header_position(end)
    batches = RECORD if what == "a record" else []
    put(log.disk, log.segment, crafted_frame(log, at, batches, kind=KIND_MARK, lsn_span=1), at=at)
    error = must_refuse(log, row)
    assert (error.offset, error.first_lsn) == (end, 5)


# ---- row 6: too far behind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
def test_row_06_a_byte_farther_than_a_maximal_frame_is_refused(options: LogOptions) -> None:
    log = a_log()
    last = log.last
    put(log.disk, log.segment, b"\x01", at=fr.header_position(last.end) + fr.MAX_FRAME_BYTES + 1)
    error = must_refuse(log, 6, options=options)
    assert (error.file, error.offset, error.first_lsn) == (log.segment, last.end, 5)


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("lost", ["header", "payload", "everything"])
def test_row_06_a_later_header_behind_the_break_is_refused(lost: str, options: LogOptions) -> None:
    """It proves nothing durable, but groups are written one after the other: the first must have been there."""
    log = a_log()
    last = log.last
    at = fr.header_position(last.end + 700)
    data, _crc, _entries = fr.build_frame(
        [Batch(B, 2, [b"later"], 0)],
        offset=at,
        first_lsn=5,
        durable_lsn=2,
        segment_tag=last.head.segment_tag,
        prev_crc=last.head.header_crc,
    )
    end = log.frames[-2].end
    put(log.disk, log.segment, data, at=at)
    if lost == "everything":
        put(log.disk, log.segment, bytes(last.head.frame_len), at=last.at)
    else:
        flip(log.disk, log.segment, last.at + 3 if lost == "header" else last.end - 1)
    must_refuse_at(log, 6, last, end=end, options=options)


# ---- row 7: missing segments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("number", [0, 1])
def test_row_07_a_missing_segment_is_refused_and_named(number: int, options: LogOptions) -> None:
    log = many_segments()
    missing = header_of(log.disk, segments(log.disk)[number])
    following = header_of(log.disk, segments(log.disk)[number + 1])
    remove(log.disk, segments(log.disk)[number])
    error = must_refuse(log, 7, options=options)
    assert error.last_lsn == following.first_lsn - 1
    assert error.first_lsn <= missing.first_lsn
    assert f"segments {missing.seq} to {missing.seq}" in str(error)
    assert f"LSN {following.first_lsn - 1}" in str(error)


def test_row_07_several_missing_segments_are_refused() -> None:
    log = a_log([[(A, [payload(9000, n)])] for n in range(5)])
    for segment in segments(log.disk)[1:4]:
        remove(log.disk, segment)
    assert "segments 2 to 4" in str(must_refuse(log, 7))


def test_row_07_a_segment_under_another_name_is_refused() -> None:
    log = many_segments()
    segment = segments(log.disk)[-1]
    other = "00000003-00000000000000ff.0.seg"
    renamed = Damaged(clone(log.disk), log.stored)
    move(renamed.disk, segment, f"{LOG}/{other}")
    error = must_refuse(renamed, 7)
    assert error.file == f"{LOG}/{other}"
    assert posixpath.basename(segment) in str(error)


def test_row_07_two_files_for_one_segment_are_refused() -> None:
    log = many_segments()
    segment = segments(log.disk)[-1]
    put(log.disk, segment.replace(".0.seg", ".1.seg"), content(log.disk, segment))
    must_refuse(log, 7)


def test_row_07_two_files_of_one_generation_for_one_segment_are_refused_and_nothing_is_called_missing() -> None:
    log = many_segments()
    segment = segments(log.disk)[1]
    first_lsn = header_of(log.disk, segment).first_lsn
    other = f"{LOG}/00000002-{first_lsn + 1:016x}.0.seg"
    put(log.disk, other, content(log.disk, segment))
    error = must_refuse(log, 7)
    assert (error.file, error.first_lsn, error.last_lsn) == (other, first_lsn + 1, None)
    assert posixpath.basename(segment) in str(error)


@pytest.mark.parametrize("changed", [{"first_lsn": 99}, {"prev_seq": 7}], ids=str)
def test_row_07_a_segment_that_does_not_continue_the_one_before_is_refused(changed: dict[str, int]) -> None:
    log = many_segments()
    segment = segments(log.disk)[-1]
    header = header_of(log.disk, segment)._replace(**changed)  # type: ignore[arg-type]
    remove(log.disk, segment)
    put(log.disk, f"{LOG}/00000003-{header.first_lsn:016x}.0.seg", sh.encode_segment_header(header)[0])
    must_refuse(log, 7)


# ---- row 9: seen before ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_row_09_a_frame_that_was_there_before_is_refused(number: int, options: LogOptions) -> None:
    log = a_log()
    frame, end = log.frames[number], log.last.end
    data = content(log.disk, log.segment)[frame.at : frame.end]
    put(log.disk, log.segment, data, at=fr.header_position(end))
    error = must_refuse(log, 9, options=options)
    assert (error.offset, error.first_lsn) == (end, 5)


@pytest.mark.parametrize("wrong", [{"prev_crc": 1}, {"first_lsn": 6}, {"first_lsn": 4}, {"durable_lsn": 5}], ids=str)
def test_row_09_a_frame_that_does_not_continue_the_chain_is_refused(wrong: dict[str, int]) -> None:
    """Sound in itself, of this very file, and not the next one."""
    log = a_log()
    last = log.last
    at = fr.header_position(last.end)
    fields = {"first_lsn": 5, "durable_lsn": 3, "prev_crc": last.head.header_crc} | wrong
    data, _crc, _entries = fr.build_frame(
        [Batch(A, 4, [b"next"], 0)],
        offset=at,
        segment_tag=last.head.segment_tag,
        first_lsn=fields["first_lsn"],
        durable_lsn=fields["durable_lsn"],
        prev_crc=fields["prev_crc"],
    )
    put(log.disk, log.segment, data, at=at)
    error = must_refuse(log, 9)
    assert (error.offset, error.first_lsn) == (last.end, 5)


def test_row_09_a_header_of_another_segment_is_only_rot() -> None:
    """An old block of the disk under a new file: not ours, so no proof of anything."""
    log, other = a_log(), a_log()
    assert header_of(log.disk, log.segment).segment_tag != header_of(other.disk, other.segment).segment_tag
    foreign = content(other.disk, other.segment)[other.frames[0].at : other.frames[0].end]
    end = log.last.end
    put(log.disk, log.segment, foreign, at=fr.header_position(end))
    assert must_refuse(Damaged(clone(log.disk), log.stored), 5).offset == end
    must_cut(log, end, kept=4, options=CUT)


def test_row_09_a_payload_that_holds_a_copy_of_earlier_frames_does_no_harm() -> None:
    """Its last group torn, such a log is cut or refused, but what is cut is the last group only."""
    log = a_log()
    early = content(log.disk, log.segment)[sh.HEADER_BYTES : log.last.end]
    write_log(log.disk, [[(B, [early])]])
    stored = reopen(clone(log.disk))[0]
    segment = segments(log.disk)[-1]
    last = frames_of(log.disk, segment)[-1]
    for start, end in lost_sectors(last):
        torn = Damaged(clone(log.disk), stored)
        put(torn.disk, segment, bytes(end - start), at=start)
        must_cut(torn, sh.HEADER_BYTES, kept=4)


# ---- rows 10 and 11: a number of a stream twice ----------------------------------------------------------------------


def repeat(
    disk: MemoryFileSystem,
    *batches: tuple[int, list[bytes]],
    seal: bool = False,
    encode: Encode | None = None,
    before: Batch | None = None,
) -> None:
    """Store batches of A whatever numbers it has already: what no writer of ours does, but an import might have.
    `before`: stored in the same frame as each of them, where its lengths are before theirs and its bytes behind these.
    """

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL), close=seal) as writer:
            for first_seq, payloads in batches:
                writer.queue._pending_seq[A] = first_seq - 1
                own = (
                    []
                    if before is None
                    else [Batch(before.stream, writer.queue.last_seq(before.stream) + 1, before.payloads, 0)]
                )
                writer._group_commit._encode = encode
                submission = writer.submit([*own, Batch(A, first_seq, payloads, 0)])
                await submission.wait()
                assert submission.error is None

    trio.run(main)


def read_a(disk: MemoryFileSystem) -> tuple[list[bytes], int]:
    """What can be read of A after an opening, and what is wrong with it."""
    log = open_log(disk, LOG, SMALL)
    try:
        reader = StreamReader(log.reading, log.index)
        return [record.payload for record in read_stream(reader, A)], log.index.flags(A)
    finally:
        log.release()


def duplicates_in(disk: MemoryFileSystem) -> int:
    return recover(disk, LOG, must_exist(disk, LOG)).duplicates


@pytest.mark.parametrize(
    ("again", "count"),
    [
        ([(2, [b"two"])], 1),
        ([(1, [b"one"])], 1),
        ([(2, [b"two", b"three"])], 2),
        ([(1, [b"one"]), (3, [b"three"]), (3, [b"three"])], 3),
        ([(1, [b"one", b"two", b"three"])], 3),
    ],
    ids=["the second", "the first", "a whole batch", "several", "over two batches"],
)
def test_row_10_records_stored_twice_with_equal_bytes_are_kept_once_and_counted(
    again: list[tuple[int, list[bytes]]], count: int
) -> None:
    disk = MemoryFileSystem()
    repeat(disk, (1, [b"one"]), (2, [b"two", b"three"]), *again, (4, [b"four"]))
    assert duplicates_in(disk) == count
    assert read_a(disk) == ([b"one", b"two", b"three", b"four"], 0)


@pytest.mark.parametrize("seal", [False, True], ids=["crashed", "sealed"])
def test_row_10_a_segment_that_begins_with_a_retry_continues_its_stream(seal: bool) -> None:
    disk = MemoryFileSystem()
    repeat(disk, (1, [b"one"]), (2, [b"two", b"three"]), seal=seal)
    repeat(disk, (2, [b"two", b"three"]), (4, [b"four"]), seal=seal)
    repeat(disk, (1, [b"one"]), seal=seal)
    repeat(disk, (5, [b"five"]), seal=seal)
    assert read_a(disk) == ([b"one", b"two", b"three", b"four", b"five"], 0)


@pytest.mark.parametrize(
    ("again", "readable"),
    [
        ([(2, [b"TWO"])], 3),
        ([(2, [b"two", b"THREE"])], 3),
        ([(3, [b"three", b"and on"])], 3),
        ([(2, [b"two"]), (1, [b"ONE"])], 3),
    ],
    ids=["another record", "a batch that ends differently", "a batch that goes on", "a retry and a fork"],
)
@pytest.mark.parametrize("seal", [False, True], ids=["crashed", "sealed"])
def test_row_11_a_number_with_different_bytes_is_a_fork_and_ends_what_is_readable(
    again: list[tuple[int, list[bytes]]], readable: int, seal: bool
) -> None:
    """In one segment, and in two of them. Every other stream is untouched."""
    for apart in (False, True):
        disk = MemoryFileSystem()
        others = write_log(disk, [[(B, [b"of another stream"])]])
        first = [(1, [b"one"]), (2, [b"two", b"three"])]
        if apart:
            repeat(disk, *first, seal=seal)
            for batch in again:
                repeat(disk, batch, seal=seal)
        else:
            repeat(disk, *first, *again, (4, [b"behind the fork"]))
        found, flags = read_a(disk)
        assert flags & STREAM_FORKED
        assert found == [b"one", b"two", b"three"][:readable]
        log = open_log(disk, LOG, SMALL)
        assert read_stream(StreamReader(log.reading, log.index), B) == others
        log.release()


def test_row_11_a_forked_stream_takes_no_writes_and_can_be_deleted() -> None:
    disk = MemoryFileSystem()
    repeat(disk, (1, [b"one"]), (1, [b"ONE"]))

    async def main() -> None:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            with pytest.raises(InvalidState, match="forked"):
                writer.submit([Batch(A, 2, [b"two"], 0)])
            submission = writer.submit([Batch(A, 2, [b"gone"], fr.FLAG_TOMBSTONE)])
            await submission.wait()
            assert submission.error is None

    trio.run(main)
    assert read_a(disk)[0] == []


def encrypted_anew(_stream: bytes, _first_seq: int, payloads: Sequence[bytes]) -> tuple[bytes, int]:
    """With another nonce each time, as it were."""
    encrypted_anew.times += 1  # type: ignore[attr-defined]
    return encrypted_anew.times.to_bytes(28, "big") + b"".join(payloads), FLAG_ENCRYPTED  # type: ignore[attr-defined]


encrypted_anew.times = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("far", [False, True], ids=["lengths nearby", "lengths far from the bytes"])
@pytest.mark.parametrize("seal", [False, True], ids=["crashed", "sealed"])
@pytest.mark.parametrize(
    ("encode", "again", "flags"),
    [
        (BatchCodec(Compression(method="zstd")).encode, (2, [b"two" * 99, b"three" * 99]), 0),
        (BatchCodec(Compression(method="zstd")).encode, (2, [b"TWO" * 99, b"three" * 99]), STREAM_FORKED),
        (BatchCodec(Compression(method="zstd")).encode, (3, [b"three" * 99]), STREAM_FORKED),
        (encrypted_anew, (2, [b"two" * 99, b"three" * 99]), STREAM_FORKED),
    ],
    ids=["a retry", "another record", "a part of it", "encrypted anew"],
)
def test_rows_10_and_11_compressed_or_encrypted_records_stored_twice_hurt_no_other_stream(
    encode: Encode, again: tuple[int, list[bytes]], flags: int, seal: bool, far: bool
) -> None:
    """In one segment, and in two of them. They are compared as they are stored, without a key."""
    for apart in (False, True):
        disk = MemoryFileSystem()
        others = write_log(disk, [[(B, [b"of another stream"])]])
        before = Batch(C, 1, [random.Random(1).randbytes(20_000)], 0) if far else None
        first = [(1, [b"one" * 99]), (2, [b"two" * 99, b"three" * 99])]
        if apart:
            repeat(disk, *first, seal=seal, encode=encode, before=before)
            repeat(disk, again, seal=seal, encode=encode, before=before)
        else:
            repeat(disk, *first, again, encode=encode, before=before)
        log = open_log(disk, LOG, SMALL)
        located = log.index.locate(A)
        assert (located.last_seq, located.flags & STREAM_FORKED) == (3, flags)
        assert read_stream(StreamReader(log.reading, log.index), B) == others
        log.release()


def test_rows_8_and_10_a_compressed_batch_that_is_damaged_is_not_taken_for_a_repeated_one() -> None:
    disk = MemoryFileSystem()
    encode = BatchCodec(Compression(method="zstd")).encode
    repeat(disk, (1, [b"one" * 99]), seal=True, encode=encode)
    damaged = segments(disk)[-1]
    repeat(disk, (1, [b"one" * 99]), seal=True, encode=encode)
    log = open_log(disk, LOG, SMALL)
    (batch,) = log.index._batches_of(log.index.locate(A).parts[0])
    log.release()
    flip(disk, damaged, batch.payload_at)
    log = open_log(disk, LOG, SMALL)
    with pytest.raises(errors.Damaged):
        log.index.locate(A)
    log.release()


# ---- rows 12, 13, 16: segment headers --------------------------------------------------------------------------------


def rewritten_header(log: Damaged, number: int, **changed: object) -> str:
    segment = segments(log.disk)[number]
    header = header_of(log.disk, segment)._replace(**changed)  # type: ignore[arg-type]
    put(log.disk, segment, sh.encode_segment_header(header)[0], at=0)
    return segment


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize(
    ("changed", "named"),
    [({"format_major": 2}, "2.0"), ({"features_incompatible": 1}, "0x1"), ({"features_incompatible": 1 << 40}, "0x1")],
    ids=str,
)
def test_row_12_an_unknown_major_or_incompatible_feature_is_refused_by_name(
    number: int, changed: dict[str, int], named: str
) -> None:
    log = many_segments()
    segment = rewritten_header(log, number, **changed)
    before = tree(log.disk)
    files = WatchedFiles(log.disk)
    with pytest.raises(RecoveryFailed, match="was written in segment format") as caught:
        open_log(files, LOG, CUT)
    assert caught.value.file == segment
    assert named in str(caught.value)
    assert files.changes() == []
    assert tree(log.disk) == before


def test_row_12_an_unknown_minor_or_compatible_feature_is_no_matter() -> None:
    """Nothing follows the first header but its own chain, so it may be rewritten in an empty log only."""
    log = a_log([])
    rewritten_header(log, 0, format_minor=9, features_compatible=0x80)
    assert reopen(log.disk)[0] == []


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("field", ["log_uuid", "branch_uuid"])
def test_row_13_a_segment_of_another_log_is_refused(field: str, options: LogOptions) -> None:
    log = many_segments()
    segment = rewritten_header(log, -1, **{field: b"somebody elses!!"})
    error = must_refuse(log, 13, options=options)
    assert error.file == segment


def test_row_13_a_stray_segment_copied_in_is_refused() -> None:
    log, other = a_log(), a_log()
    name = "00000002-0000000000000005.0.seg"
    put(log.disk, f"{LOG}/{name}", content(other.disk, other.segment))
    assert must_refuse(log, 13).file == f"{LOG}/{name}"


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 60, 300, 511])
def test_row_16_a_segment_header_that_is_not_sound_is_refused(number: int, at: int, options: LogOptions) -> None:
    log = many_segments()
    segment = segments(log.disk)[number]
    first = header_of(log.disk, segment).first_lsn
    flip(log.disk, segment, at)
    error = must_refuse(log, 16, options=options)
    assert (error.file, error.first_lsn) == (segment, first)


@pytest.mark.parametrize("size", [0, 1, 511])
def test_row_16_a_segment_shorter_than_its_header_is_refused(size: int) -> None:
    log = many_segments()
    put(log.disk, segments(log.disk)[-1], b"", at=0, size=size)
    assert must_refuse(log, 16).file == segments(log.disk)[-1]


@pytest.mark.parametrize("options", [SMALL, CUT], ids=["strict", "cut"])
@pytest.mark.parametrize("at", [0, 60, 511])
def test_row_16_the_newest_segment_is_refused_although_its_footer_has_a_copy_of_its_header(
    at: int, options: LogOptions
) -> None:
    log = a_log(close=True)
    flip(log.disk, log.segment, at)
    error = must_refuse(log, 16, options=options)
    assert (error.file, error.first_lsn) == (log.segment, 1)


def test_a_file_that_only_resembles_a_segment_is_left_alone() -> None:
    log = many_segments()
    names = ["00000004-0000000000000006.0.seg.bak", "4-6.0.seg", "00000001-0000000000000001.idx", "x.seg"]
    for name in names:
        put(log.disk, f"{LOG}/{name}", b"kept")
    assert reopen(log.disk)[0] == log.stored
    assert all(content(log.disk, f"{LOG}/{name}") == b"kept" for name in names)


# ---- reading beside a writer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["header", "payload"])
def test_a_reader_beside_a_writer_takes_a_bad_tail_of_the_newest_file_for_not_yet(part: str) -> None:
    log = a_log()
    damage_last_frame(log, part)
    before = tree(log.disk)
    files = WatchedFiles(log.disk)
    assert read_log(open_log_read_only(files, LOG)) == log.stored[:2]
    assert files.changes(but=()) == []
    assert tree(log.disk) == before


def test_row_02_a_reader_beside_a_writer_does_not_excuse_what_a_later_frame_proves_durable() -> None:
    log = a_log()
    segment = segments(log.disk)[-1]
    first, second, _last = frames_of(log.disk, segment)
    for at in (first.end - 1, second.at + 3):
        image = clone(log.disk)
        flip(image, segment, at)
        with pytest.raises(CorruptLog) as caught:
            open_log_read_only(image, LOG)
        assert caught.value.row == 2


def test_what_a_writer_has_written_while_the_file_was_read_is_no_damage() -> None:
    """The reader saw the place of a frame before it was written, and then the frame behind it."""
    log = a_log()
    segment = segments(log.disk)[-1]
    _first, second, _last = frames_of(log.disk, segment)
    files = WatchedFiles(log.disk)
    early: list[Call] = []

    def before_it_was_written(call: Call, data: bytes) -> bytes:
        reaches = call.path == segment and call.offset <= second.at and call.offset + len(data) >= second.end
        if not reaches or early:
            return data
        early.append(call)
        at = second.at - call.offset
        return data[:at] + bytes(second.end - second.at) + data[second.end - call.offset :]

    files.spoil_read = before_it_was_written
    assert read_log(open_log_read_only(files, LOG)) == log.stored
    assert early


def test_a_reader_beside_a_writer_does_not_excuse_an_older_file() -> None:
    log = many_segments()
    flip(log.disk, segments(log.disk)[0], 700)
    with pytest.raises(CorruptLog) as caught:
        open_log_read_only(log.disk, LOG)
    assert caught.value.row == 2


def test_row_06_a_rotten_byte_in_the_zeros_before_a_mark_does_not_cost_the_group_behind_it() -> None:
    """The mark still stands there whole, so what lies behind was written in order, and none of it is a torn write."""
    disk = MemoryFileSystem()

    async def main() -> list[Record]:
        async with writing(open_log(disk, LOG, SMALL)) as writer:
            stored = records_of(await store(writer, (A, [b"before the mark"])))
            writer.want_mark()
            await trio.testing.wait_all_tasks_blocked()
            return stored + records_of(await store(writer, (A, [b"behind the mark"])))

    stored = trio.run(main)
    segment = segments(disk)[-1]
    first, mark, last = frames_of(disk, segment)
    assert (mark.head.kind, last.head.first_lsn) == (KIND_MARK, first.head.last_lsn + 1)
    for at in range(first.end, mark.at, 101):
        image = clone(disk)
        flip(image, segment, at)
        with pytest.raises(CorruptLog) as caught:
            reopen(image)
        assert caught.value.row == 6
        assert verify_log(LOG, files=image).problems
    assert reopen(disk)[0] == stored
