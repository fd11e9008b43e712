"""The enumerator objects to every broken log it is given, sees the same twice, and visits what it says it visits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stepstore.journal.contract import Batch, Submission
from stepstore.journal.segment_log import SegmentLogJournal
from stepstore.log.commit_queue import CommitQueue
from stepstore.log.files import write_all
from stepstore.log.segment import Frame, Segment, SegmentSequence
from tests.crash import enumerator
from tests.crash.enumerator import all_cases, enumerate_crashes, spread
from tests.crash.exploring import Case, CutAgain
from tests.crash.lives import SETTINGS
from tests.crash.watching import WatchedFile, WatchedFiles
from tests.crash.workloads import OPERATIONS

ALL = all_cases()

Breaking = Callable[[pytest.MonkeyPatch], None]


def pretend_to_sync(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    datasync = WatchedFile.datasync

    def pretending(file: WatchedFile) -> None:
        if not file.path.endswith(ending):
            datasync(file)

    monkeypatch.setattr(WatchedFile, "datasync", pretending)


def groups_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_sync(monkeypatch, ".seg")


def segment_headers_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_sync(monkeypatch, "spare.tmp")


def the_format_file_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_sync(monkeypatch, "FORMAT.tmp")


def directories_are_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WatchedFiles, "sync_directory", lambda self, path: None)


def a_segment_is_cut_before_its_successor_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = SegmentSequence.begin

    def cutting(self: SegmentSequence, *arguments: Any, **named: Any) -> Segment:
        for name in [name for name in self.files.list_names(self.directory) if name.endswith(".seg")][-1:]:
            file = self.files.open(f"{self.directory}/{name}")
            file.truncate(512)
            file.close()
        return begin(self, *arguments, **named)

    monkeypatch.setattr(SegmentSequence, "begin", cutting)


def recovery_does_not_write_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.repair._write_again", lambda files, state: None)


def recovery_repairs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.repair.Repair.carry_out", lambda self: (None, []))


def acknowledged_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Segment] = []

    def writing(self: Segment, frame: Frame) -> None:
        write_all(self._file, frame.at, frame.data)
        if late:
            late.pop()._file.datasync()
        late.append(self)

    monkeypatch.setattr(Segment, "write", writing)


def submissions_are_stored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = SegmentLogJournal.submit

    def in_parts(
        self: SegmentLogJournal,
        batches: Sequence[Batch],
        *,
        critical: bool = False,
        on_done: Callable[[Submission], None] | None = None,
    ) -> Submission:
        first = submit(self, batches[:1], critical=critical)

        def done(last: Submission) -> None:
            last.first_lsn = first.first_lsn
            assert on_done is not None
            on_done(last)

        for batch in batches[1:-1]:
            submit(self, [batch], critical=critical)
        if batches[1:]:
            return submit(self, batches[-1:], critical=critical, on_done=done)
        first.on_done = on_done
        return first

    monkeypatch.setattr(SegmentLogJournal, "submit", in_parts)
    monkeypatch.setattr(CommitQueue, "take_group", lambda self: [self._queue.popleft()] if self._queue else [])


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (groups_are_not_synced, "LOST"),
        (segment_headers_are_not_synced, "NOT_OPENED"),
        (the_format_file_is_not_synced, "NOT_OPENED"),
        (directories_are_not_synced, "LOST"),
        (a_segment_is_cut_before_its_successor_is_durable, "LOST"),
        (recovery_does_not_write_again, "ANOTHER_ANSWER"),
        (recovery_repairs_nothing, "ANOTHER_ANSWER"),
        (acknowledged_before_the_sync, "LOST"),
        (submissions_are_stored_in_parts, "HALF"),
    ],
)
def test_the_enumerator_objects_to_a_log_where(
    broken: Breaking, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    for seed in range(1, 9):
        found = enumerate_crashes(ALL, 240, seed).tally.broken
        print("\n".join(found))
        if any(f" {complaint}: " in text for text in found):
            return
    pytest.fail(f"of 8 times 240 images none is objected to as {complaint}")


def test_a_sample_of_all_images_breaks_no_promise_and_has_something_of_everything_in_it() -> None:
    outcome = enumerate_crashes(ALL, 1000, 2)
    tally = outcome.tally
    assert not tally.broken
    assert tally.images == 1000
    assert tally.distinct > 500
    for what, share in {
        "torn tails cut": 10,
        "an unacknowledged submission kept": 80,
        "an unacknowledged submission lost": 4,
        "several segments": 4,
        "deaths of the process alone": 20,
    }.items():
        assert tally.seen[what] * share > tally.distinct, f"{what}: too seldom for this test to mean anything"
    assert not outcome.exact
    assert outcome.possible > 100_000


def test_the_first_opening_and_every_single_operation_are_sound_at_every_point_in_every_setting() -> None:
    cases = all_cases(most=1)
    outcome = enumerate_crashes(cases, None, 1)
    assert not outcome.tally.broken
    assert outcome.exact
    assert outcome.tally.workloads == len(cases) == len(SETTINGS) * (1 + len(OPERATIONS))
    assert outcome.tally.images == outcome.possible == outcome.tally.possible


def test_the_recovery_of_what_a_dead_process_left_may_be_cut_anywhere() -> None:
    everywhere = CutAgain(one_cut_in=10**6, one_death_in=1, one_point_in=1, fates=4, images=10**6)
    cases = [*all_cases(most=1), *map(Case.parse, ("tiny:append,delete,compact", "roomy:several,delete,compact"))]
    outcome = enumerate_crashes(cases, None, 1, cut_again=everywhere)
    print(outcome.tally.cut_again, "\n".join(outcome.tally.broken))
    assert not outcome.tally.broken
    assert outcome.tally.cut_again > 10_000


def digest(seed: int) -> str:
    return enumerate_crashes(ALL, 300, seed).tally.digest.hexdigest()


def test_the_enumerator_sees_the_same_twice() -> None:
    assert digest(5) == digest(5)
    assert digest(5) != digest(6)


def test_all_cases_are_all_sequences_in_all_settings() -> None:
    letters = len(OPERATIONS)
    assert len(ALL) == len(set(map(str, ALL))) == len(SETTINGS) * sum(letters**length for length in range(5))
    assert all(str(Case.parse(str(case))) == str(case) for case in ALL[::97])


def of(*arguments: str) -> list[tuple[list[str], int | None]]:
    options = enumerator.options_of(arguments)
    return [([str(case) for case in cases], images) for cases, images in enumerator.parts(options)]


def test_the_exhaustive_form_is_every_sequence_of_the_core_and_every_image_of_it() -> None:
    core = {"append", "rotate", "delete", "compact", "close", "kill"}
    expected = {str(case) for case in ALL if {operation.name for operation in case.workload} <= core}
    [(cases, images)] = of("--exhaustive")
    assert set(cases) == expected
    assert len(cases) == len(expected) == len(SETTINGS) * sum(len(core) ** length for length in range(5))
    assert images is None


def test_the_long_form_is_the_exhaustive_one_and_a_sample_of_everything() -> None:
    everything = list(map(str, ALL))
    assert of() == [*of("--exhaustive"), (everything, 200_000)]
    assert of("--short") == [(everything, 20_000)]
    assert of("--all") == [(everything, None)]


def test_processes_that_share_the_settings_do_all_of_the_work_once() -> None:
    shares = [of("--exhaustive", "--setting", setting.name) for setting in SETTINGS]
    shared = [case for [(cases, _images)] in shares for case in cases]
    [(whole, _images)] = of("--exhaustive")
    assert sorted(shared) == sorted(whole)


def test_a_sample_of_cases_takes_one_from_each_part() -> None:
    chosen = spread(ALL, 100, 3)
    assert [ALL.index(case) * 100 // len(ALL) for case in chosen] == list(range(100))
    assert chosen == spread(ALL, 100, 3) != spread(ALL, 100, 4)
    assert spread(ALL[:7], 7, 1) == spread(ALL[:7], 100, 1) == ALL[:7]


def test_the_command_reports_what_it_visited(capsys: pytest.CaptureFixture[str]) -> None:
    assert enumerator.main(["--images", "200", "--seed", "9", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 200
    assert figures["seed"] == 9
    assert enumerator.main(["--only", "tiny:append,kill"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 workloads" in printed
    assert "0 promises broken" in printed


def test_the_command_fails_if_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups_are_not_synced(monkeypatch)
    assert enumerator.main(["--images", "300"]) == 1
    assert "BROKEN" in capsys.readouterr().out
