"""`verify_log`: every byte checked, nothing touched, damage reported and not raised."""

from __future__ import annotations

import errno
import pathlib
from typing import Any

import pytest

from stepstore.errors import InvalidInput, NotFound, RecoveryFailed
from stepstore.log import batch_search
from stepstore.log import segment_header as sh
from stepstore.log.files import OsFileSystem
from stepstore.log.footer import TRAILER_BYTES, IndexHead, Trailer, parse_head, parse_trailer
from stepstore.log.frame import MAX_BATCH_BYTES
from stepstore.log.indexed_batch import fields_from_words
from stepstore.log.live_index import LiveIndex
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions, open_log
from stepstore.log.problems import NO_RECORD, SALVAGE
from stepstore.log.sealing import sidecar_path
from stepstore.log.tolerant_file import TolerantFile, TolerantFiles
from stepstore.log.verify import verify_log
from stepstore.log.verify_report import VerifyReport
from tests.stepstore.log_lab import (
    LOG,
    SMALL,
    A,
    B,
    C,
    Call,
    Group,
    WatchedFiles,
    clone,
    content,
    failing_at,
    flip,
    frames_of,
    header_of,
    payload,
    put,
    remove,
    segments,
    store,
    tree,
    write_log,
    writing,
)


def three_segments(*, close: bool = False) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(7000, n)]), (B, [b"%d" % n])] for n in range(5)], close=close)
    assert len(segments(disk)) == 3
    return disk


def verified(disk: MemoryFileSystem) -> VerifyReport:
    """The report; nothing may have been written, not even LOCK."""
    before = tree(disk)
    files = WatchedFiles(disk)
    report = verify_log(LOG, files=files)
    assert files.changes(but=()) == []
    assert tree(disk) == before
    return report


@pytest.mark.parametrize("close", [False, True], ids=["crashed", "closed"])
def test_a_sound_log_has_no_problems_and_is_counted(close: bool) -> None:
    disk = three_segments(close=close)
    report = verified(disk)
    assert (report.problems, report.notes, report.live_tail) == ([], [], None)
    assert (report.segments, report.frames, report.records, report.streams) == (3, 5, 10, 2)
    assert report.bytes == sum(frames_of(disk, segment)[-1].end for segment in segments(disk))


def test_progress_is_told_after_each_segment_in_bytes() -> None:
    disk = three_segments()
    calls: list[tuple[int, int]] = []
    verify_log(LOG, lambda done, total: calls.append((done, total)), files=disk)
    sizes = [len(content(disk, segment)) for segment in segments(disk)]
    assert calls == [(sum(sizes[:n]), sum(sizes)) for n in (1, 2, 3)]


def test_an_empty_log_is_sound() -> None:
    disk = MemoryFileSystem()
    open_log(disk, LOG, SMALL).release()
    report = verified(disk)
    assert (report.problems, report.segments, report.records) == ([], 1, 0)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("where", ["header", "frame", "payload"])
def test_damage_in_any_segment_is_a_problem_that_names_the_file(number: int, where: str) -> None:
    disk = three_segments()
    segment = segments(disk)[number]
    frame = frames_of(disk, segment)[0]
    flip(disk, segment, {"header": 200, "frame": frame.at + 3, "payload": frame.end - 9}[where])
    (problem,) = verified(disk).problems
    assert segment in str(problem)


def test_several_damaged_segments_are_all_named() -> None:
    disk = three_segments()
    for segment in segments(disk):
        flip(disk, segment, 900)
    problems = verified(disk).problems
    assert len(problems) == 3
    for segment, problem in zip(segments(disk), problems, strict=True):
        assert segment in str(problem)


def test_a_damaged_close_frame_is_a_problem_although_nothing_is_lost() -> None:
    disk = three_segments(close=True)
    segment = segments(disk)[-1]
    *_data, close = frames_of(disk, segment)
    for at in (close.at, close.at + 30, close.end - 1, close.at - 1):
        image = clone(disk)
        flip(image, segment, at)
        (problem,) = verified(image).problems
        assert segment in str(problem)
        assert "close frame" in str(problem)


def test_a_missing_segment_is_a_problem() -> None:
    for number in (0, 1):
        disk = three_segments()
        remove(disk, segments(disk)[number])
        (problem,) = verified(disk).problems
        assert "missing" in str(problem)


def test_a_missing_format_is_a_problem() -> None:
    disk = three_segments()
    remove(disk, f"{LOG}/FORMAT")
    (problem,) = verified(disk).problems
    assert "FORMAT" in str(problem)


def test_a_torn_tail_is_a_note_and_suspected_rot_a_problem() -> None:
    disk = three_segments()
    segment = segments(disk)[-1]
    last = frames_of(disk, segment)[-1]
    torn, rotten = clone(disk), clone(disk)
    put(torn, segment, bytes(512), at=1024)
    flip(rotten, segment, last.end - 1)
    report = verified(torn)
    assert report.problems == []
    assert len(report.notes) == 1
    assert segment in report.notes[0]
    report = verified(rotten)
    assert len(report.problems) == 1
    assert report.notes == []


def test_what_a_crashed_repair_left_behind_a_cut_is_a_note() -> None:
    disk = three_segments()
    segment = segments(disk)[1]
    put(disk, segment, b"never acknowledged", at=header_of(disk, segments(disk)[2]).prev_end_offset)
    report = verified(disk)
    assert report.problems == []
    assert "never acknowledged" in report.notes[0]
    assert segment in report.notes[0]


async def test_the_tail_of_a_live_log_is_not_judged() -> None:
    disk = MemoryFileSystem()
    async with writing(open_log(disk, LOG, SMALL)) as writer:
        for n in range(4):
            await store(writer, (A, [payload(7000, n)]))
        assert verified(disk).live_tail is None
        segment = segments(disk)[-1]
        end = frames_of(disk, segment)[-1].end
        file = disk.open(segment)
        file.write(end + 600, b"half a frame")
        report = verified(disk)
        assert report.problems == []
        assert report.live_tail is not None
        assert segment in report.live_tail
        flip(disk, segments(disk)[0], 900)
        assert len(verified(disk).problems) == 1, "older files are judged as ever"
    with pytest.raises(AssertionError):  # without a writer, the same bytes are judged
        assert verified(disk).live_tail is not None


def test_verify_says_what_it_cannot_look_at(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFound):
        verify_log(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("text")
    with pytest.raises(InvalidInput):
        verify_log(str(tmp_path / "file"))
    with pytest.raises(InvalidInput):
        verify_log(str(tmp_path))


@pytest.mark.parametrize(("error", "at_least"), [(errno.EMFILE, 12), (errno.EIO, 4)])
def test_row_18_an_error_that_passes_is_raised_or_overcome_and_never_reported_as_damage(
    error: int, at_least: int
) -> None:
    """A read for which the medium gave an error is repeated piece by piece; no other error is got over."""
    disk = three_segments()
    number, raised = 0, 0
    while True:
        number += 1
        files = WatchedFiles(disk, failing_at(number, error))
        try:
            report = verify_log(LOG, files=files)
        except RecoveryFailed as failed:
            raised += 1
            assert failed.errno == error
        else:
            assert report.problems == []
            if len(files.calls) < number:
                break
    assert raised > at_least


# ---- what the medium does not give back ------------------------------------------------------------------------------


def bad_sectors(disk: MemoryFileSystem, path: str, start: int, end: int) -> WatchedFiles:
    """A medium that gives an error for every read that touches these bytes of a file."""

    def before(call: Call) -> None:
        if call.operation == "read" and call.path == path and call.offset < end and call.offset + call.size > start:
            raise OSError(errno.EIO, "Input/output error", path)

    return WatchedFiles(disk, before)


def test_a_range_that_cannot_be_read_is_a_problem_and_the_rest_of_the_log_is_judged() -> None:
    disk = three_segments()
    first, second, third = segments(disk)
    frame = frames_of(disk, second)[0]
    flip(disk, third, frames_of(disk, third)[0].end - 1)
    flipped = verify_log(LOG, files=disk).problems
    report = verify_log(LOG, files=bad_sectors(disk, second, frame.end - 20, frame.end - 10), name=lambda _first: None)
    unreadable, *others = report.problems
    assert (unreadable.file, unreadable.first_lsn) == (second, None)
    assert unreadable.offset is not None
    assert unreadable.offset <= frame.end - 20
    assert "does not give back" in unreadable.text
    concerned = [problem for problem in others if problem.file == second]
    assert concerned[0].first_lsn == frame.head.first_lsn, "the records that lie there are told"
    assert [str(problem) for problem in others if problem.file == third] == [str(problem) for problem in flipped]
    assert report.segments == 3
    assert first not in str(report.problems)


def test_neighbouring_pieces_that_cannot_be_read_are_told_as_one() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(9000)])], [(B, [b"x"])]], options=LogOptions(segment_bytes=64 * 1024))
    (path,) = segments(disk)
    found = verify_log(LOG, files=bad_sectors(disk, path, 5000, 9000)).problems
    (told,) = [problem for problem in found if "the medium" in problem.text]
    assert (told.file, told.offset) == (path, 4096)
    assert "8,192 bytes" in told.text


def test_a_segment_header_that_cannot_be_read_does_not_keep_the_rest_from_being_looked_at() -> None:
    disk = three_segments()
    first = segments(disk)[0]
    report = verify_log(LOG, files=bad_sectors(disk, first, 0, 1))
    assert report.segments == 3
    assert report.problems[0].file == first
    assert report.problems[0].offset == 0


@pytest.mark.parametrize("name", ["FORMAT", "sidecar"])
def test_a_file_beside_the_segments_that_cannot_be_read_is_a_problem(name: str) -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])], [(B, [b"two"])]])
    write_log(disk, [], care=True)
    path = f"{LOG}/FORMAT" if name == "FORMAT" else sidecar_path(segments(disk)[0])
    assert disk.stat(path) is not None
    report = verify_log(LOG, files=bad_sectors(disk, path, 0, 1))
    assert [problem.file for problem in report.problems] == [path, path]
    assert (report.segments, report.records) == (1, 2)


def test_the_layer_that_verify_reads_through_changes_nothing() -> None:
    disk = MemoryFileSystem()
    put(disk, "/f", b"x")
    files = TolerantFiles(disk)
    for change in (
        lambda: files.open("/f"),
        lambda: files.open("/g", create=True, write=False),
        lambda: files.make_directory("/g"),
        lambda: files.rename("/f", "/g"),
        lambda: files.link("/f", "/g"),
        lambda: files.unlink("/f"),
        lambda: files.sync_directory("/"),
    ):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert tree(disk) == {"/f": b"x"}


# ---- what a problem says ---------------------------------------------------------------------------------------------


def test_a_damaged_batch_is_named_with_its_place_its_lsns_and_its_streams() -> None:
    for close in (True, False):
        disk = three_segments(close=close)
        segment = segments(disk)[1]
        frame = frames_of(disk, segment)[0]
        at = content(disk, segment).index(payload(7000, 2))
        flip(disk, segment, at)
        report = verify_log(LOG, files=disk, name=lambda first: "stream " + first[:4].hex())
        (problem,) = report.problems
        assert (problem.file, problem.offset, problem.row) == (segment, at, 2)
        assert (problem.first_lsn, problem.last_lsn) == (frame.head.first_lsn, frame.head.first_lsn)
        assert problem.streams_known
        (touched,) = problem.streams
        assert (touched.stream, touched.first_seq, touched.last_seq) == (A.hex(), 3, 3)
        assert touched.name == "stream " + payload(7000, 0)[:4].hex()
        assert f"record 3 of {touched.name}" in str(problem)
        assert "salvage" in problem.advice
        assert report.records == 10 - 1, "what is left is counted"


def test_several_damaged_places_of_one_segment_are_all_told() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [payload(600, n)]), (B, [payload(30, n)])] for n in range(6)], close=True)
    (segment,) = segments(disk)
    frames = frames_of(disk, segment)
    flip(disk, segment, frames[1].end - 1)
    flip(disk, segment, frames[3].end - 1)
    put(disk, segment, bytes(400), at=frames[4].at)
    problems = verified(disk).problems
    assert [problem.first_lsn for problem in problems] == [4, 8, 9]
    assert [stream.stream for stream in problems[0].streams] == [B.hex()]
    # The header and the directory of the fifth frame are gone; the footer still tells what was in it.
    assert {stream.stream for problem in problems[2:] for stream in problem.streams} == {A.hex()}


def test_what_concerns_no_record_says_so_and_what_to_do() -> None:
    disk = three_segments(close=True)
    segment = segments(disk)[-1]
    *_data, close = frames_of(disk, segment)
    flip(disk, segment, close.at)
    (problem,) = verified(disk).problems
    assert (problem.first_lsn, problem.last_lsn, problem.streams) == (None, None, [])
    assert "No record is concerned" in str(problem)


def test_a_log_that_is_refused_as_a_whole_is_looked_at_all_the_same() -> None:
    disk = three_segments()
    put(disk, segments(disk)[1], bytes(512), at=0)
    remove(disk, f"{LOG}/FORMAT")
    flip(disk, segments(disk)[0], frames_of(disk, segments(disk)[0])[0].end - 1)
    report = verified(disk)
    assert [problem.row for problem in report.problems] == [15, 0, 0]
    assert report.segments == 3
    assert report.records == 9
    assert report.streams == 2
    assert "FORMAT" in report.problems[0].text
    assert report.problems[1].file == segments(disk)[0]
    assert report.problems[2].file == segments(disk)[1]


def test_a_flipped_bit_in_the_keys_or_in_a_superseded_manifest_is_a_problem() -> None:
    from tests.crash.specimen import compacted, encrypted

    for specimen, folder, prefix in ((encrypted(1), f"{LOG}/keys", "KEYS-"), (compacted(1), LOG, "MANIFEST-")):
        disk = MemoryFileSystem()
        disk.make_directory(LOG)
        disk.make_directory(f"{LOG}/keys")
        for path, data in specimen.files.items():
            put(disk, path, data)
        assert verify_log(LOG, files=disk).problems == []
        names = [name for name in disk.list_names(folder) if name.startswith(prefix)]
        assert names
        for name in names:
            for at in range(0, 40, 3):
                image = clone(disk)
                flip(image, f"{folder}/{name}", at)
                assert verify_log(LOG, files=image).problems, (name, at)


# ---- what the streams are called -------------------------------------------------------------------------------------


def named(disk: MemoryFileSystem) -> dict[tuple[str, int], str]:
    """What verify calls the streams that damage concerns, by id and first number; by the bytes of the first record."""
    report = verify_log(LOG, files=disk, name=lambda first: f"stream {first[:6].decode('ascii', 'replace')}")
    touched = [stream for problem in report.problems for stream in problem.streams]
    return {(stream.stream, stream.first_seq): stream.name for stream in touched}


def two_sealed_segments() -> tuple[MemoryFileSystem, str, str]:
    """A has a batch of two records first, B one, both in the first segment; C begins in the second."""
    disk = MemoryFileSystem()
    groups: list[Group] = [
        [(A, [b"name A", b"two"]), (B, [b"name B"])],
        [(B, [payload(15_500)])],
        [(A, [b"three"]), (B, [b"three"]), (C, [b"name C", payload(3000)])],
        [(C, [b"last"])],
    ]
    write_log(disk, groups, close=True, care=True)
    first, second = segments(disk)
    assert index_of(disk, first)[1].streams == 2
    return disk, first, second


def index_of(disk: MemoryFileSystem, segment: str) -> tuple[Trailer, IndexHead]:
    """The trailer of a sealed segment, and the head of its index."""
    data = content(disk, segment)
    trailer = parse_trailer(data[-TRAILER_BYTES:])
    assert trailer is not None
    return trailer, parse_head(data[trailer.index_at :])


def damage(disk: MemoryFileSystem, segment: str, *payloads: bytes) -> None:
    """Flip a bit in the first record that has this payload; then it has another."""
    for one in payloads:
        flip(disk, segment, content(disk, segment).index(one))


def test_streams_in_a_sealed_log_are_named_by_their_first_records_which_the_indexes_find() -> None:
    disk, _first, second = two_sealed_segments()
    damage(disk, second, b"three", b"three", b"last")
    assert named(disk) == {(A.hex(), 3): "stream name A", (B.hex(), 3): "stream name B", (C.hex(), 3): "stream name C"}


def test_a_stream_whose_first_record_is_damaged_has_no_name() -> None:
    disk, first, second = two_sealed_segments()
    damage(disk, first, b"name B")
    damage(disk, second, b"three", b"three")
    assert named(disk) == {(A.hex(), 3): "stream name A", (B.hex(), 1): "", (B.hex(), 3): ""}


def test_a_damaged_index_costs_the_names_that_it_would_have_found_and_nothing_else() -> None:
    disk, first, second = two_sealed_segments()
    trailer, head = index_of(disk, first)
    flip(disk, first, trailer.index_at + head.batches_at + 3)
    damage(disk, second, b"three", b"last")
    problems = verify_log(LOG, files=disk).problems
    assert [problem.advice == NO_RECORD for problem in problems] == [True, True, False, False]
    assert (problems[1].file, problems[1].offset) == (first, trailer.index_at)
    assert "its index is damaged" in problems[1]
    assert named(disk) == {(A.hex(), 3): "", (C.hex(), 3): "stream name C"}


def test_an_index_that_names_a_first_record_of_gigabytes_costs_that_name_and_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, _first, second = two_sealed_segments()
    damage(disk, second, b"three", b"three", b"last")
    lied_about: list[int] = []
    asked: list[int] = []
    read = TolerantFile.read

    def lying(words: tuple[int, ...], at: int = 0) -> tuple[int, ...]:
        fields = fields_from_words(words, at)
        if lied_about:
            return fields
        lied_about.append(fields[0])
        return (*fields[:3], 16 * 1024**3, *fields[4:])

    def noted(file: TolerantFile, offset: int, size: int) -> bytes:
        asked.append(size)
        return read(file, offset, size)

    monkeypatch.setattr(batch_search, "fields_from_words", lying)
    monkeypatch.setattr(TolerantFile, "read", noted)
    assert named(disk) == {(A.hex(), 3): "", (B.hex(), 3): "stream name B", (C.hex(), 3): "stream name C"}
    assert lied_about
    assert max(asked) <= MAX_BATCH_BYTES


def test_streams_of_a_log_that_is_refused_as_a_whole_are_named_too() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"name A", b"two"])], [(A, [b"three"]), (B, [b"name B"])], [(A, [b"four"])]])
    remove(disk, f"{LOG}/FORMAT")
    flip(disk, segments(disk)[0], frames_of(disk, segments(disk)[0])[2].end - 1)
    assert named(disk) == {(A.hex(), 4): "stream name A"}


def test_a_name_that_cannot_be_read_is_left_out_and_the_damage_is_told() -> None:
    disk, first, second = two_sealed_segments()
    damage(disk, second, b"three")
    trailer, head = index_of(disk, first)
    reads = 0

    def before(call: Call) -> None:
        nonlocal reads
        if (call.operation, call.path, call.offset) == ("read", first, trailer.index_at + head.batches_at):
            reads += 1
            if reads > 1:  # verify has read it once, to check it
                raise OSError(errno.EMFILE, "Too many open files", first)

    report = verify_log(LOG, files=WatchedFiles(disk, before), name=lambda _first: "a name")
    assert reads == 2
    (problem,) = report.problems
    assert [(stream.stream, stream.first_seq, stream.name) for stream in problem.streams] == [(A.hex(), 3, "")]


def test_a_hole_in_a_stream_is_put_down_to_the_damage_between_its_batches_only() -> None:
    """The headers of two frames are lost, and there is no index: what lay there is told by what is missing."""
    disk = MemoryFileSystem()
    groups: list[Group] = [[(A, [b"1"])], [(B, [b"1"])], [(A, [b"2"])], [(A, [b"3"])], [(A, [b"4"])], [(B, [b"2"])]]
    write_log(disk, groups)
    (segment,) = segments(disk)
    frames = frames_of(disk, segment)
    for frame in (frames[1], frames[3]):
        put(disk, segment, bytes(40), at=frame.at)
    problems = verified(disk).problems
    touched = [[(s.stream, s.first_seq, s.last_seq) for s in problem.streams] for problem in problems]
    assert [problem.first_lsn for problem in problems] == [2, 4]
    assert touched == [[], [(A.hex(), 3, 3)]]


# ---- what contradicts itself -----------------------------------------------------------------------------------------


def test_a_sealed_segment_that_does_not_end_where_the_next_one_says_is_a_problem() -> None:
    """As where the file of an older copy of the log stands there: each of the two is sound by itself."""
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])]], close=True)
    write_log(disk, [[(A, [b"two"])]])
    first, second = segments(disk)
    assert verified(disk).problems == []
    header = header_of(disk, second)
    data, _crc = sh.encode_segment_header(header._replace(prev_chain=header.prev_chain ^ 1))
    put(disk, second, data, size=len(content(disk, second)))
    (problem,) = verified(disk).problems
    assert (problem.file, problem.row, problem.advice) == (first, 2, SALVAGE)
    assert "does not end where the segment behind it says" in problem


def test_an_index_that_counts_other_records_than_there_are_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = LiveIndex.encode

    def wrong(self: LiveIndex, **head: Any) -> tuple[bytes, int]:
        self.records += 1
        return encode(self, **head)

    disk = MemoryFileSystem()
    with monkeypatch.context() as patch:
        patch.setattr(LiveIndex, "encode", wrong)
        write_log(disk, [[(A, [b"one"])]], close=True)
    report = verified(disk)
    (problem,) = report.problems
    assert (problem.file, problem.advice) == (segments(disk)[0], SALVAGE)
    assert "its index does not tell what is in its frames" in problem
    assert report.records == 1


def test_zeros_that_a_crash_left_behind_the_trailer_are_a_note() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"one"])]], close=True)
    (segment,) = segments(disk)
    put(disk, segment, b"", at=0, size=len(content(disk, segment)) + 3000)
    report = verified(disk)
    assert report.problems == []
    (note,) = report.notes
    assert segment in note
    assert "behind the trailer zeros that were not cut off yet" in note


@pytest.mark.parametrize("is_open", [True, False])
def test_where_the_kernel_has_no_table_of_locks_the_lock_itself_is_asked(
    is_open: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_table(path: str, **_: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr("stepstore.log.lock_probe.open", no_table, raising=False)
    place = str(tmp_path / "log")
    files = OsFileSystem()
    write_log(files, [[(A, [b"one"])]], path=place)
    (segment,) = segments(files, place)
    log = open_log(files, place, SMALL)
    if not is_open:
        log.release()
    with open(segment, "r+b") as file:
        file.seek(frames_of(files, segment)[-1].end + 600)
        file.write(b"half a frame")
    report = verify_log(place)
    if is_open:
        log.release()
    assert (report.live_tail is not None) == is_open
    assert any("never acknowledged" in note for note in report.notes) != is_open
    open_log(files, place, SMALL).release()  # verify has not kept the lock


def test_verify_raises_no_plain_os_error_when_it_looks_for_names() -> None:
    disk = MemoryFileSystem()
    write_log(disk, [[(A, [b"name", b"two"])], [(A, [b"three"])]], close=True)
    flip(disk, segments(disk)[0], content(disk, segments(disk)[0]).index(b"three"))
    number = 0
    while True:
        number += 1
        files = WatchedFiles(disk, failing_at(number, errno.EMFILE))
        try:
            verify_log(LOG, files=files, name=lambda _first: "name")
        except RecoveryFailed:
            continue
        if len(files.calls) < number:
            break
