"""Failing calls: the suite fails what it says it fails, and objects to logs that take a failure lightly."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable
from typing import Any

import pytest

from stepstore.errors import LogFull
from stepstore.log.files import File
from stepstore.log.memory_files import MemoryFileSystem
from stepstore.log.segment import Frame, Segment
from stepstore.log.submission import Submission
from stepstore.log.write_errors import WriteErrors
from tests.crash import failing_calls
from tests.crash.failing_calls import SCRIPTS, Suite, fail_every_call, script
from tests.crash.faults import Fault, FaultyMedium, faults, first_half
from tests.crash.repeatable import deterministic
from tests.crash.watching import Call, WatchedFiles

BRIEF = script("brief", "tiny", "append large append look")


class Untouched(FaultyMedium):
    """A medium on which nothing fails, and that notes the calls."""

    def __init__(self) -> None:
        super().__init__(Fault(10**9, "EIO", "once"))
        self.noted: list[Call] = []

    def __call__(self, call: Call) -> int | None:
        self.noted.append(call)
        return super().__call__(call)


def failed_at(operation: str) -> Suite:
    """Every fault at each call of this operation on the log in a brief workload."""
    untouched = Untouched()
    with deterministic() as dice:
        suite = Suite(1, dice)
        assert suite.run_on(BRIEF, untouched) is None
        for at, call in enumerate(untouched.noted, 1):
            if call.operation == operation and call.path.startswith("/log"):
                for fault in faults(at, operation):
                    first = suite.run(BRIEF, fault)
                    assert first is not None
                    assert first[:4] == call[:4]
    print("\n".join(suite.tally.broken))
    return suite


def complaints(suite: Suite) -> set[str]:
    return {word for text in suite.tally.broken for word in text.replace("; ", ": ").split(": ") if word.isupper()}


# ---- logs that take a failure lightly --------------------------------------------------------------------------------

Breaking = Callable[[pytest.MonkeyPatch], None]


def a_failed_sync_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Segment.write

    def trying_twice(self: Segment, frame: Frame) -> None:
        try:
            write(self, frame)
        except OSError:
            self._file.datasync()

    monkeypatch.setattr(Segment, "write", trying_twice)


def a_short_write_is_taken_for_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(file: File, offset: int, data: bytes) -> None:
        file.write(offset, data)

    monkeypatch.setattr("stepstore.log.segment.write_all", once)


def a_failed_sync_of_a_directory_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = WatchedFiles.sync_directory

    def lightly(self: WatchedFiles, path: str) -> None:
        with contextlib.suppress(OSError):
            sync(self, path)

    monkeypatch.setattr(WatchedFiles, "sync_directory", lightly)


def what_may_be_stored_is_called_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def leave(self: WriteErrors, group: list[Submission], error: OSError) -> None:
        self._admission.failed = error
        self._queue.fail(group, LogFull("not stored, they say"))

    monkeypatch.setattr(WriteErrors, "leave_segment", leave)


def recovery_syncs_instead_of_writing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepstore.log.repair.put_on_medium", lambda file, pieces: file.datasync())


def an_error_of_the_system_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = Submission.resolve

    def passing_on(self: Submission, first_lsn: int = 0, error: Any = None) -> None:
        resolve(self, first_lsn, error and (error.__cause__ or error))

    monkeypatch.setattr(Submission, "resolve", passing_on)


@pytest.mark.parametrize(
    ("broken", "operation", "complaint"),
    [
        (a_failed_sync_is_tried_again, "datasync", "LOST"),
        (a_short_write_is_taken_for_a_whole_one, "write", "NOT_OPENED"),
        (a_failed_sync_of_a_directory_is_passed_over, "sync_directory", "LOST"),
        (what_may_be_stored_is_called_refused, "datasync", "REFUSED"),
        (recovery_syncs_instead_of_writing_again, "datasync", "ANOTHER_ANSWER"),
        (an_error_of_the_system_is_passed_on, "datasync", "UNDECLARED"),
    ],
)
def test_the_suite_objects_to_a_log_where(
    broken: Breaking, operation: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    assert complaint in complaints(failed_at(operation))


@pytest.mark.parametrize(
    "operation",
    [
        "write",
        "datasync",
        "rename",
        "lock",
        "allocate",
        "truncate",
        "read",
    ],
)
def test_a_brief_workload_survives_every_failure_of(operation: str) -> None:
    suite = failed_at(operation)
    assert not suite.tally.broken
    assert suite.tally.operations[operation] >= 2
    assert suite.tally.examined > 20
    if operation == "datasync":
        assert suite.tally.acknowledged_behind_a_sync > 5


# ---- the faults ------------------------------------------------------------------------------------------------------


def test_every_call_fails_in_every_way_until_the_workload_completes_untouched() -> None:
    with deterministic() as dice:
        suite = Suite(1, dice)
        calls = list(fail_every_call(suite, BRIEF, enough=10**6))
    assert calls == list(range(1, len(calls) + 1))
    assert suite.tally.calls == {"brief": len(calls)}
    ways = {"read": 7, "write": 14, "datasync": 10, "sync_directory": 10}
    failed = {operation: runs // ways.get(operation, 5) for operation, runs in suite.tally.operations.items()}
    assert sum(failed.values()) == len(calls)
    assert suite.tally.runs == sum(suite.tally.operations.values()) + 1
    assert set(failed) >= {
        "open",
        "create",
        "read",
        "write",
        "datasync",
        "stat",
        "rename",
        "sync_directory",
        "allocate",
        "lock",
        "truncate",
        "list_names",
        "make_directory",
    }


def opened(content: bytes = b"") -> Call:
    disk = MemoryFileSystem()
    file = disk.open("/f", create=True)
    file.write(0, content)
    file.datasync()
    return Call("write", "/f", 0, 0, b"", file)


def test_once_fails_one_call_and_for_ever_all_of_its_kind_or_all() -> None:
    def failing(fault: Fault) -> list[int]:
        medium, failed = FaultyMedium(fault), []
        for number, operation in enumerate(["stat", "open", "stat", "open", "stat"], 1):
            try:
                medium(Call(operation, "/f"))
            except OSError as error:
                assert error.errno == (errno.EIO if fault.how == "EIO" else errno.ENOSPC)
                failed.append(number)
        assert medium.failed == len(failed)
        return failed

    assert failing(Fault(2, "EIO", "once")) == [2]
    assert failing(Fault(3, "ENOSPC", "for ever")) == [3, 5]
    assert failing(Fault(2, "EIO", "for ever, all")) == [2, 3, 4, 5]
    assert failing(Fault(6, "EIO", "once")) == []


def test_a_failed_sync_reached_the_medium_or_left_its_pages_clean() -> None:
    for reached in (False, True):
        call = opened(b"old")
        assert call.file is not None
        call.file.write(0, b"new")
        with pytest.raises(OSError, match="Input/output error"):
            FaultyMedium(Fault(1, "EIO", "once", reached))(call._replace(operation="datasync"))
        assert call.file.read(0, 3) == b"new"
        call.file.datasync()
        assert bytes(call.file._inode.durable) == (b"new" if reached else b"old")


def test_a_write_fails_behind_whole_sectors_of_its_first_half() -> None:
    assert first_half(Call("write", "/f", 600, 3000)) == 2048 - 600
    assert first_half(Call("write", "/f", 600, 300)) == 0
    assert first_half(Call("write", "/f", 0, 1024)) == 512
    call = opened()._replace(offset=0, size=2048, data=b"x" * 2048)
    assert call.file is not None
    with pytest.raises(OSError, match="No space"):
        FaultyMedium(Fault(1, "ENOSPC", "once", reached=True))(call)
    assert call.file.read(0, 4096) == b"x" * 1024


def test_a_short_call_takes_half_of_what_there_is_and_at_least_a_byte() -> None:
    short = FaultyMedium(Fault(1, "short", "for ever"))
    call = opened(b"x" * 100)
    assert short(call._replace(size=64)) == 32
    assert short(call._replace(size=1)) == 1
    short = FaultyMedium(Fault(1, "short", "once"))
    assert short(call._replace(operation="read", size=4096)) == 50
    assert short(call._replace(operation="read", size=4096)) is None


def test_a_short_write_is_followed_by_no_room() -> None:
    medium = FaultyMedium(Fault(1, "short, then ENOSPC", "once"))
    call = opened()._replace(size=2048, data=b"x" * 2048)
    assert medium(call) == 1024
    with pytest.raises(OSError, match="No space"):
        medium(call._replace(offset=1024, size=1024))
    assert medium(call) is None


def test_scripts_name_only_operations_that_there_are() -> None:
    assert len({one.name for one in SCRIPTS}) == len(SCRIPTS)
    assert all(len(one.workload) > 5 for one in SCRIPTS)
    with pytest.raises(AssertionError):
        script("odd", "tiny", "append nonsense")


def test_the_command_reports_runs_and_fails_if_a_promise_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failing_calls, "SCRIPTS", (BRIEF,))
    untouched = Untouched()
    with deterministic() as dice:
        Suite(1, dice).run_on(BRIEF, untouched)
    at = 1 + next(n for n, call in enumerate(untouched.noted) if call.operation == "write" and call.size > 3000)
    assert failing_calls.main(["--only", f"brief:{at}", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["runs"] == figures["runs_by_operation"]["write"] == 14
    assert figures["violations"] == []
    a_short_write_is_taken_for_a_whole_one(monkeypatch)
    assert failing_calls.main(["--only", f"brief:{at}"]) == 1
    assert "BROKEN brief:" in capsys.readouterr().out
