"""SIGINT at every line: what must be protected is, and the judge objects when a protection is taken away."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from stepstore.journal.following import FollowedSlices
from stepstore.log.caretaker import LogCaretaker
from stepstore.log.compactor import LogCompactor
from stepstore.log.purger import LogPurger
from stepstore.log.scrubber import LogScrubber
from stepstore.log.segment_rewriter import SegmentRewriter
from stepwell.memory.handle import StepScope
from stepwell.memory.opening import OpenMemory
from stepwell.memory.run_scope import RunScope
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.deletion import Deletions
from stepwell.runtime.supervisor import Supervisor
from tests.cancellation.scenarios import SCENARIOS
from tests.crash.repeatable import deterministic
from tests.interrupts.interrupting import Interrupter
from tests.interrupts.lines import Line, functions
from tests.interrupts.shared_state import REASONS, changed_by, run_unprotected


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    with deterministic() as dice:
        yield Interrupter(dice)


ONLY_WHEN_ALL_IS_LOST = {
    ("stepstore/log/caretaker.py", "LogCaretaker.give_up"),
    ("stepstore/log/admission.py", "Admission.fail"),
    ("stepstore/log/group_commit.py", "GroupCommit._note_slow_sync"),
    ("stepstore/log/write_errors.py", "WriteErrors.fail"),
    ("stepwell/runtime/runtime.py", "Runtime._fail"),
    ("stepwell/runtime/episode_task.py", "_park"),
    ("stepwell/runtime/stream_task.py", "_park"),
}
"""Protected functions that no scenario reaches: a log that is lost, a sync of more than a second, an episode or a
service that is given up. They are called by protected tasks only."""
IN_NO_SCENARIO = {
    ("stepwell/runtime/runtime.py", "Runtime._run_audit"),
    ("stepwell/runtime/vectors.py", "VectorIndex._load"),
}
"""An audit file is a real one, and scenarios run on a file layer in memory; none has an embedder."""


def test_every_protected_function_is_in_a_scenario(interrupter: Interrupter) -> None:
    seen = {(line.path, line.function) for scenario in SCENARIOS.values() for line in interrupter.lines_of(scenario)}
    protected = {(function.path, function.name) for function in functions() if function.is_protected}
    assert len(protected) > 40
    assert protected - seen == ONLY_WHEN_ALL_IS_LOST | IN_NO_SCENARIO


def test_every_way_out_of_a_block_is_protected() -> None:
    leaving = [function for function in functions() if function.name.endswith(".__aexit__")]
    assert len(leaving) >= 5
    assert all(function.is_protected for function in leaving)


def test_what_changes_more_than_one_thing_is_protected_or_says_why(interrupter: Interrupter) -> None:
    found = run_unprotected(interrupter)
    assert found.keys() == REASONS.keys(), "protect them with trio.lowlevel.enable_ki_protection"


def test_the_search_knows_what_a_function_changes() -> None:
    source = """
def f(self, other, local):
    self.a, self.b[1] = 1, 2
    self.c.d += 1
    other.e.append(3)
    del self.g[:2]
    local.append(self.unchanged)
    read = self.unchanged.get(1)
    def inner():
        self.not_here = 1
"""
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert changed_by(function) == {"self.a", "self.b", "self.c.d", "other.e", "self.g"}


@contextmanager
def without_protection(function: Any) -> Iterator[None]:
    trio.lowlevel.disable_ki_protection(function)
    try:
        yield
    finally:
        trio.lowlevel.enable_ki_protection(function)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the wreck that is left
@pytest.mark.parametrize(
    ("function", "scenario", "at", "objection"),
    [
        (EpisodeCell.accept_step, "logging", EpisodeCell._enqueue, "torn: cell"),
        (EpisodeCell.accept_steps, "batches", EpisodeCell._enqueue, "torn: cell"),
        (EpisodeCell.drain, "full-mailboxes", None, "KeyboardInterrupt did not come out"),
        (EpisodeCell.send, "batches", None, "KeyboardInterrupt did not come out"),
        (Supervisor._add, "waking", None, "has no task"),
        (Deletions._begin, "deleting", None, "has no task"),
        (OpenMemory.__aenter__, "logging", None, "LogLocked"),
        (OpenMemory.__aexit__, "logging", None, "TrioInternalError"),
        (RunScope.__aenter__, "run-scopes", None, "no ending"),
        (RunScope.__aexit__, "run-scopes", None, "no ending"),
        (StepScope.__aexit__, "step-scopes", None, "was accepted and is missing"),
        (LogCaretaker.run, "logging", None, "KeyboardInterrupt did not come out"),
        (LogCompactor.run, "logging", None, "KeyboardInterrupt did not come out"),
        (LogScrubber.run, "logging", None, "KeyboardInterrupt did not come out"),
        (LogPurger.purge, "purging", SegmentRewriter.rewrite, "failed half way"),
        (FollowedSlices.receive, "following", None, "TrioInternalError"),
    ],
)
def test_the_judge_objects_when_a_protection_is_taken_away(
    interrupter: Interrupter, function: Any, scenario: str, at: Any, objection: str
) -> None:
    chosen, where = SCENARIOS[scenario], (at or function).__qualname__
    lines = {line: times for line, times in interrupter.lines_of(chosen).items() if line.function == where}
    moments = [(line, nth) for line, times in lines.items() for nth in range(1, min(times, 5) + 1)]
    with without_protection(function):
        said: list[str] = []
        for line, nth in moments:
            said += interrupter.interrupt(chosen, line, nth).violations
            if any(objection in text for text in said):
                break
        else:
            pytest.fail(f"it did not object: {said}")
    gc.collect()
    for line, nth in moments:
        assert not interrupter.interrupt(chosen, line, nth).violations


def test_the_judge_objects_to_a_ctrl_c_that_is_swallowed(
    interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = OpenMemory._close

    async def swallowing(self: OpenMemory, *, in_a_hurry: bool) -> None:
        await close(self, in_a_hurry=in_a_hurry)

    monkeypatch.setattr(OpenMemory, "_close", swallowing)
    chosen = SCENARIOS["logging"]
    lines = [line for line in interrupter.lines_of(chosen) if line.function == "Runtime.close"]
    said = [text for line in lines for text in interrupter.interrupt(chosen, line).violations]
    assert "KeyboardInterrupt did not come out" in said


def test_a_line_that_is_not_reached_interrupts_nothing(interrupter: Interrupter) -> None:
    chosen = SCENARIOS["logging"]
    line = Line("stepwell/runtime/cell.py", "EpisodeCell.accept_step", 1)
    assert interrupter.interrupt(chosen, line) == (False, [])
