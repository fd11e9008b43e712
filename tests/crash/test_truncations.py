"""A sample of cuts passes, and the judge objects to a log that serves what is left where it knows of more."""

from __future__ import annotations

import dataclasses

import pytest

from stepstore.errors import CorruptLog
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.opening import LogOptions
from tests.crash import readback, truncations
from tests.crash.readback import Reading
from tests.crash.specimen import Specimen, sealed
from tests.crash.truncations import Cut, Cuts, cut_image, cuts_of, try_cuts, whole_groups

SEED = 21


def numbers_of(path_ends: str, every: int) -> list[int]:
    """Every so-manieth cut of the files whose path ends so."""
    cuts = cuts_of(SEED, 1)
    return [number for number in range(0, len(cuts), every) if cuts[number].path.endswith(path_ends)]


def specimen() -> Specimen:
    return cuts_of(SEED, 1)[0].specimen


def test_every_length_of_the_log_and_of_each_file_has_a_number() -> None:
    log = sealed(1, size=4096)
    cuts = Cuts([log])
    total = sum(len(log.files[path]) for path in log.segments)
    others = [path for path in log.files if path != log.newest]
    assert len(cuts) == total + 1 + sum(len(log.files[path]) + 1 for path in others)
    assert cuts[0] == Cut(log, "", 0)
    assert cuts[total] == Cut(log, "", total)
    assert cuts[total + 1] == Cut(log, others[0], 0)


def test_a_cut_log_loses_what_lies_behind_the_cut_and_nothing_else() -> None:
    log = specimen()
    first, second, *rest = log.segments
    size = len(log.files[first])
    image, path = cut_image(Cut(log, "", size + 700))
    assert path == second
    assert image[first] == log.files[first]
    assert image[second] == log.files[second][:700]
    assert not any(other in image for other in rest)
    assert image["/log/FORMAT"] == log.files["/log/FORMAT"]
    assert cut_image(Cut(log, "", size))[1] == ""
    assert second not in cut_image(Cut(log, "", size))[0]
    whole = cut_image(Cut(log, "", sum(len(log.files[path]) for path in log.segments)))[0]
    assert whole == log.image
    assert whole_groups(log, whole) == len(log.groups)
    assert whole_groups(log, image) == len(log.frames[first]) + sum(frame.end <= 700 for frame in log.frames[second])


def test_a_sample_of_cuts_opens_to_a_prefix_or_is_refused() -> None:
    tally = try_cuts(SEED, 1, 1, range(0, len(cuts_of(SEED, 1)), 311))
    assert tally.cases > 300
    assert not tally.violations, tally.places
    kinds = {label.split(":")[0] for label in tally.seen}
    assert {f"{where} cut, writable" for where in ("newest segment", "older segment")} <= kinds


# ---- the judge -------------------------------------------------------------------------------------------------------


def test_a_log_that_serves_a_shorter_history_although_a_successor_proves_more_is_objected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = readback.read_writable

    async def serving_what_there_is(files: MemoryFileSystem, options: LogOptions) -> Reading:
        reading = await whole(files, options)
        return reading if reading.refused is None else await whole(truncated_to_nothing(files), options)

    def truncated_to_nothing(files: MemoryFileSystem) -> MemoryFileSystem:
        return MemoryFileSystem()

    oldest = specimen().segments[0]
    end = specimen().frames[oldest][-1].end
    numbers = [n for n in numbers_of(oldest, 251) if cuts_of(SEED, 1)[n].length < end]
    assert numbers
    assert not try_cuts(SEED, 1, 10**9, numbers).violations
    monkeypatch.setattr(truncations, "read_writable", serving_what_there_is)
    tally = try_cuts(SEED, 1, 10**9, numbers)
    assert tally.violations.total() == len(numbers)
    assert all("older segment cut, writable: prefix" in what for what in tally.violations)


def test_a_log_that_serves_fewer_groups_than_are_whole_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = readback.read_writable

    async def forgetful(files: MemoryFileSystem, options: LogOptions) -> Reading:
        await whole(files, options)
        return await whole(MemoryFileSystem(), options)

    end = specimen().frames[specimen().segments[0]][0].end
    monkeypatch.setattr(truncations, "read_writable", forgetful)
    tally = try_cuts(SEED, 1, 10**9, [end - 1, end])
    assert tally.violations.total() == 1
    (what,) = tally.violations
    assert "of other groups than those that are whole" in what


def test_a_second_opening_that_finds_something_else_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = readback.read_writable
    openings = 0

    async def fickle(files: MemoryFileSystem, options: LogOptions) -> Reading:
        nonlocal openings
        openings += 1
        reading = await whole(files, options)
        if openings % 2 == 0:
            return dataclasses.replace(reading, bytes_cut=reading.bytes_cut + 1)
        return reading

    monkeypatch.setattr(truncations, "read_writable", fickle)
    tally = try_cuts(SEED, 1, 1, [1001])
    assert list(tally.violations) == ["the second opening cuts again"]


def test_a_refusal_that_verify_does_not_see_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncations, "verify_outcome", lambda files: "note")
    tally = try_cuts(SEED, 1, 1, numbers_of("FORMAT", 17)[:2])
    assert tally.violations.total() == 2
    assert all("verify reports no problem" in what for what in tally.violations)


def test_an_undeclared_error_is_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def opening(*_args: object) -> SegmentLogJournal:
        raise IndexError("not declared")

    monkeypatch.setattr(SegmentLogJournal, "open", opening)
    tally = try_cuts(SEED, 1, 10**9, [5, 50_000])
    assert tally.violations.total() == 2


def test_refusals_are_counted_by_their_row() -> None:
    tally = try_cuts(SEED, 1, 10**9, [5])
    assert tally.seen == {"newest segment cut, writable: refused CorruptLog (row 16)": 1}
    assert CorruptLog.__name__ == "CorruptLog"


def test_a_run_prints_its_seed_and_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncations, "cuts_of", lambda seed, workloads: range(0))
    assert truncations.main(["--short", "--seed", "5", "--jobs", "1"]) == 0
    assert "0 cuts of 1 logs, seed 5" in capsys.readouterr().out
