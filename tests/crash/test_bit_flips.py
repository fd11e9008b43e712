"""A sample of flipped bits passes; the judge objects to a `verify` and to a reader that do less than they should."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from unittest import mock

import pytest

from stepstore.errors import CorruptLog
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log import frame, frame_reader, stream_reader, verify
from stepstore.log.files import FileSystem
from stepstore.log.verify_report import VerifyReport
from tests.crash import bit_flips
from tests.crash.bit_flips import Field, Flip, field_of, is_lone_bit, is_unwritten, try_flips
from tests.crash.specimen import sealed, unclean_logs
from tests.crash.sweep import Tally, evenly
from tests.stepstore.log_lab import content, put

SEED = 11


def sample(count: int) -> list[int]:
    return evenly(len(field_of(SEED)), count, SEED)


def bits_of(path_ends: str, every: int = 1) -> list[int]:
    field = field_of(SEED)
    return [number for number in range(0, len(field), every) if field[number].path.endswith(path_ends)]


def test_every_bit_of_every_file_has_a_number() -> None:
    logs = [sealed(1, size=4096), unclean_logs(1)[0]]
    field = Field([(log, path) for log in logs for path in log.files])
    assert len(field) == 8 * sum(len(data) for log in logs for data in log.files.values())
    assert field[0][1:] == (min(logs[0].files), 0, 0)
    assert field[9][2:] == (1, 1)
    assert field[len(field) - 1] == Flip(logs[1], max(logs[1].files), len(logs[1].files[max(logs[1].files)]) - 1, 7)
    assert len({(id(flip.specimen), *flip[1:]) for flip in map(field.__getitem__, range(0, len(field), 7))}) == len(
        range(0, len(field), 7)
    )


def test_a_sample_is_spread_evenly_and_is_the_same_for_the_same_seed() -> None:
    numbers = evenly(10_000, 100, 5)
    assert [number // 100 for number in numbers] == list(range(100))
    assert numbers == evenly(10_000, 100, 5) != evenly(10_000, 100, 6)
    assert evenly(7, 100, 5) == list(range(7))


def test_a_sample_of_flips_is_found_and_harmless() -> None:
    tally = try_flips(SEED, sample(400))
    assert tally.cases == 400
    assert not tally.violations, tally.places


def test_the_documented_limit_is_met_and_counted() -> None:
    field = field_of(SEED)
    lone = field.lone_bits()
    assert 1 <= len(lone) < 20
    assert all(is_lone_bit(field[number]) for number in lone)
    tally = try_flips(SEED, lone)
    assert not tally.violations
    assert tally.seen["documented limit: the one bit set in a sector of the last group"] == len(lone)


def test_the_limit_covers_no_neighbour_of_such_a_bit_nor_any_in_a_closed_log() -> None:
    field = field_of(SEED)
    (first, *_rest) = field.lone_bits()
    flip = field[first]
    assert not is_lone_bit(flip._replace(bit=(flip.bit + 1) % 8))
    assert not is_lone_bit(flip._replace(offset=flip.offset + 1))
    closed = field[0].specimen
    assert not any(is_lone_bit(Flip(closed, closed.newest, at, bit)) for at in range(600) for bit in range(8))


def test_space_set_aside_begins_behind_the_last_group() -> None:
    log = unclean_logs(SEED)[0]
    end = log.last_group[1]
    assert not is_unwritten(Flip(log, log.newest, end - 1, 0))
    assert is_unwritten(Flip(log, log.newest, end, 0))
    assert not is_unwritten(Flip(log, log.segments[0], end, 0))


# ---- the judge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skipped", [0, 2, -1], ids=["the first file", "some segment", "the last segment"])
def test_a_verify_that_skips_a_file_is_objected_to(skipped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    specimen = field_of(SEED)[0].specimen
    path = sorted(specimen.files)[skipped]
    whole = verify.verify_log

    def skipping(log: str, *, files: FileSystem) -> VerifyReport:
        spoiled = content(files, path)
        put(files, path, specimen.files[path])  # as if it were never looked at
        try:
            return whole(log, files=files)
        finally:
            put(files, path, spoiled)

    numbers = [number for number in bits_of(path, 997) if field_of(SEED)[number].specimen is specimen][:20]
    assert not try_flips(SEED, numbers).violations or skipped == -1
    monkeypatch.setattr(verify, "verify_log", skipping)
    tally = try_flips(SEED, numbers)
    assert tally.violations.total() == len(numbers)
    assert all("verify reports no problem" in what for what in tally.violations)


def test_a_verify_that_only_notes_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "verify_log", lambda log, files: VerifyReport(notes=["something is odd"]))
    tally = try_flips(SEED, bits_of("FORMAT", 101)[:5])
    assert tally.violations.total() == 5


def test_a_reader_that_ignores_checksums_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "body_is_sound", lambda *_args: True)
    for reader in (stream_reader, frame_reader):
        monkeypatch.setattr(reader, "zlib", SimpleNamespace(crc32=lambda _data: mock.ANY))
    specimen = field_of(SEED)[0].specimen
    last = specimen.frames[specimen.segments[1]][0]
    payload_bits = [
        number
        for number in range(0, len(field_of(SEED)), 331)
        if field_of(SEED)[number][:2] == (specimen, specimen.segments[1])
        and last.at + 600 < field_of(SEED)[number].offset < last.end
    ]
    tally = try_flips(SEED, payload_bits)
    assert payload_bits
    assert tally.violations.total() == len(payload_bits)


def test_a_log_that_takes_every_damage_for_a_torn_write_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "count_zero_pieces", lambda data, offset: 1_000_000)
    field = field_of(SEED)
    logs = unclean_logs(SEED)
    numbers = [
        number
        for number in range(0, len(field), 331)
        if field[number].specimen.name == logs[0].name
        and field[number].path == logs[0].newest
        and logs[0].last_group[0] + 600 < field[number].offset < logs[0].last_group[1]
    ]
    tally = try_flips(SEED, numbers)
    assert numbers
    assert tally.violations.total() == len(numbers)


def test_an_undeclared_error_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def opening(*_args: object) -> SegmentLogJournal:
        raise IndexError("not declared")

    monkeypatch.setattr(SegmentLogJournal, "open", opening)
    tally = try_flips(SEED, sample(3))
    assert tally.violations.total() == 3
    assert all("IndexError" in what for what in tally.violations)


def test_violations_are_printed_with_their_places_and_make_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def objecting(cases: object, work: object, **_rest: object) -> Tally:
        tally = Tally(cases=9)
        for flip in itertools.islice(map(field_of(SEED).__getitem__, itertools.count(12)), 9):
            tally.violation(flip, "something is wrong")
        return tally

    monkeypatch.setattr(bit_flips, "sweep", objecting)
    assert bit_flips.main(["--short", "--seed", str(SEED)]) == 1
    printed = capsys.readouterr().out
    assert f"seed {SEED}" in printed
    assert "VIOLATION, 9 times: something is wrong" in printed
    assert "offset 1 bit 4" in printed
    assert bit_flips.main(["--short", "--seed", str(SEED), "--json"]) == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["sound"] is False
    assert outcome["violations"][0]["count"] == 9


def test_a_declared_error_of_verify_counts_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(log: str, *, files: FileSystem) -> VerifyReport:
        raise CorruptLog("no")

    monkeypatch.setattr(verify, "verify_log", refusing)
    tally = try_flips(SEED, bits_of("FORMAT", 101)[:5])
    assert tally.seen["verify: CorruptLog"] == 5
