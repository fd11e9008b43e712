"""Specimens are sound, what they are said to be, and the same for the same seed; the comparison objects to changes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import trio

from stepstore.errors import CorruptLog, Damaged
from stepstore.journal.contract import Record
from stepstore.log.frame import KIND_CLOSE, KIND_DATA, KIND_FOOTER, KIND_MARK
from tests.crash.readback import Reading, compare, read_read_only, read_writable, verify_outcome
from tests.crash.specimen import (
    LOG_BYTES,
    Specimen,
    compacted,
    disk_with,
    encrypted,
    is_exempt,
    mixed,
    sealed,
    several_lives,
    small,
    unclean_logs,
)
from tests.stepstore.log_lab import frames_of, header_of

MAKERS: dict[str, Callable[[int], Specimen]] = {
    "mixed": lambda seed: sealed(seed, mixed),
    "small": lambda seed: sealed(seed, small, size=16 * 1024),
    "several lives": several_lives,
    "unclean": lambda seed: unclean_logs(seed)[0],
    "encrypted": encrypted,
    "compacted": compacted,
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_makes_the_same_bytes(name: str) -> None:
    make = MAKERS[name]
    assert make(3).files == make(3).files
    assert make(3).files != make(4).files


@pytest.mark.parametrize("name", MAKERS)
def test_an_unspoiled_specimen_is_sound_and_reads_as_it_was_stored(name: str) -> None:
    specimen = MAKERS[name](5)
    disk = disk_with(specimen.image)
    assert verify_outcome(disk) == "nothing"
    assert compare(specimen, trio.run(read_read_only, disk, specimen.options)).kind == "identical"
    assert compare(specimen, trio.run(read_writable, disk, specimen.options)).kind == "identical"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sealed_specimen_is_as_long_as_it_is_said_to_be(seed: int) -> None:
    specimen = sealed(seed)
    assert LOG_BYTES <= sum(len(specimen.files[path]) for path in specimen.segments) < 2 * LOG_BYTES
    assert len(specimen.segments) >= 2
    assert len(specimen.groups) >= 6


def test_sealed_specimens_hold_what_is_hard() -> None:
    specimens = [sealed(seed) for seed in (1, 2, 3)]
    payloads = [stored.record.payload for log in specimens for group in log.groups for stored in group]
    assert any(bytes(1024) in payload for payload in payloads)
    assert b"" in payloads
    contents = [specimen.contents(len(specimen.groups)) for specimen in specimens]
    assert any(0 < len(some.open_streams) < len(some.streams) for some in contents)
    assert all(len(some.streams) > 6 for some in contents)
    assert any(some.deleted for some in contents)
    assert any(some.snapshots for some in contents)


def test_several_lives_leave_what_a_crash_leaves() -> None:
    specimen = several_lives(1)
    assert any("/quarantine/" in path for path in specimen.image), "no write was torn"
    assert any(path.endswith(".idx") for path in specimen.files), "no segment was left without a footer"
    disk = disk_with(specimen.image)
    kinds = {frame.head.kind for path in specimen.segments for frame in frames_of(disk, path)}
    assert kinds == {KIND_DATA, KIND_MARK, KIND_FOOTER, KIND_CLOSE}


def test_an_encrypted_log_has_keys_and_hides_its_payloads() -> None:
    specimen = encrypted(1)
    assert any("/keys/" in path for path in specimen.files)
    stored = b"".join(specimen.files.values())
    payloads = [stored.record.payload for group in specimen.groups for stored in group]
    assert not any(payload in stored for payload in payloads if len(payload) > 30)


def test_a_compacted_log_has_manifests_and_files_that_stand_for_several() -> None:
    specimen = compacted(1)
    assert sum("/MANIFEST-" in path for path in specimen.files) == 2
    disk = disk_with(specimen.image)
    headers = [header_of(disk, path) for path in specimen.segments]
    assert any(header.seq_last > header.seq for header in headers)
    assert headers[-1].generation == 0


def test_lock_reserve_and_quarantine_are_exempt_and_nothing_else() -> None:
    specimen = several_lives(1)
    assert {path for path in specimen.image if not is_exempt(path)} - specimen.files.keys() == {"/log"}
    assert any(path.endswith("FORMAT") for path in specimen.files)


# ---- the comparison --------------------------------------------------------------------------------------------------

SPECIMEN = sealed(2, size=8 * 1024)
FIRST = max(SPECIMEN.contents(len(SPECIMEN.groups)).streams.items(), key=lambda item: len(item[1]))[0]


def sound(groups: int | None = None) -> Reading:
    """A reading of what the first groups hold."""
    contents = SPECIMEN.contents(len(SPECIMEN.groups) if groups is None else groups)
    return Reading(
        end_lsn=contents.end_lsn,
        streams={stream: list(records) for stream, records in contents.streams.items()},
        last_seqs={stream: len(records) for stream, records in contents.streams.items()},
        open_streams=contents.open_streams,
        deleted=contents.deleted,
        snapshots=dict(contents.snapshots),
        in_order=list(contents.events),
    )


def test_sound_readings_are_told_apart() -> None:
    assert compare(SPECIMEN, sound()) == ("identical", len(SPECIMEN.groups), "")
    assert compare(SPECIMEN, sound(2)) == ("prefix", 2, "")
    assert compare(SPECIMEN, Reading(refused=CorruptLog("no"))).kind == "refused"
    reading = sound()
    reading.damaged[FIRST] = Damaged("gone")
    reading.streams[FIRST] = reading.streams[FIRST][:1]
    assert compare(SPECIMEN, reading).kind == "damaged"


def lost(reading: Reading) -> None:
    del reading.streams[FIRST][-1]


def lost_stream(reading: Reading) -> None:
    del reading.streams[FIRST]


def lost_in_front_of_an_error(reading: Reading) -> None:
    reading.damaged[FIRST] = Damaged("behind it")
    del reading.streams[FIRST][0]


def changed(reading: Reading) -> None:
    reading.streams[FIRST][0] = reading.streams[FIRST][0]._replace(payload=b"something else")


def doubled(reading: Reading) -> None:
    reading.streams[FIRST].append(reading.streams[FIRST][-1])


def displaced(reading: Reading) -> None:
    assert reading.in_order is not None
    reading.in_order.reverse()


def lost_in_log_order(reading: Reading) -> None:
    assert reading.in_order is not None
    del reading.in_order[-1]


def invented(reading: Reading) -> None:
    reading.streams[b"invented stream!"] = [Record(b"invented stream!", 1, 1, b"")]


def half_a_group(reading: Reading) -> None:
    reading.end_lsn += 1


def wrong_end(reading: Reading) -> None:
    reading.last_seqs[FIRST] += 1


def wrongly_deleted(reading: Reading) -> None:
    reading.deleted ^= {FIRST}


def snapshot_invented(reading: Reading) -> None:
    reading.snapshots[FIRST] = Record(FIRST, 1, 1, b"")


def wrongly_open(reading: Reading) -> None:
    reading.open_streams ^= {FIRST}


@pytest.mark.parametrize(
    "change",
    [
        *(lost, lost_stream, lost_in_front_of_an_error, changed, doubled, displaced, lost_in_log_order),
        *(invented, half_a_group, wrong_end, wrongly_open, wrongly_deleted, snapshot_invented),
    ],
)
def test_the_comparison_objects(change: Callable[[Reading], None]) -> None:
    reading = copy.deepcopy(sound())
    change(reading)
    assert compare(SPECIMEN, reading).kind == "wrong"


def test_damage_is_no_excuse_for_a_shorter_log() -> None:
    reading = sound(len(SPECIMEN.groups) - 1)
    reading.damaged[FIRST] = Damaged("gone")
    assert compare(SPECIMEN, reading).kind == "wrong"
