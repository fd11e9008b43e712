"""The simulation finds nothing wrong, is the same twice, and objects to a runtime that is broken on purpose."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

import stepwell.runtime.episode_task as episode_task
from stepstore.log.watched_files import WatchedFile, WatchedFiles
from stepwell import CompletedEpisode, Event, ExecutionStep, Receipt, StepwellError
from stepwell.memory.atomic import AtomicScope
from stepwell.memory.following import EventChannel
from stepwell.memory.run_scope import RunScope
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.deletion import Deletions
from stepwell.runtime.keys import IdempotencyKeys
from stepwell.runtime.receipt import Commit
from stepwell.runtime.supervisor import Supervisor
from stepwell.runtime.transaction import Transaction
from stepwell.runtime.untold import UntoldFailures
from tests.simulation import command, world
from tests.simulation.world import World

SEEDS = 10
ENOUGH_SEEDS = 150
"""Within so many every break is found."""

Breaking = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("first", [1, 1_000_000])
def test_no_promise_is_broken_and_each_seed_gives_the_same_run_twice(first: int) -> None:
    tally = command.work(range(first, first + SEEDS))
    assert tally.sound, tally.violations
    assert tally.seen["records"] > 100
    assert tally.seen["lives"] > SEEDS


def test_another_seed_is_another_run() -> None:
    assert len({World(seed).run().digest for seed in range(1, 6)}) == 5


def test_a_run_does_not_depend_on_the_process_it_is_in() -> None:
    code = "from tests.simulation.world import World; print([World(seed).run().digest for seed in (7, 8)])"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == f"{[World(seed).run().digest for seed in (7, 8)]}\n"


def test_the_worlds_meet_what_they_are_there_for() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, 31):
        seen.update(World(seed).run().counts)
    for what in (
        "close",
        "power cut",
        "kill",
        "cancel",
        "error",
        "lives with faults",
        "crashes of an episode's task",
        "purges",
        "transactions",
        "episodes asleep",
        "episodes woken",
        "behind the expected record",
        "compactions",
        "run scopes",
        "nowait",
        "delete",
        "receipts resolved by closing",
    ):
        assert seen[what], what


# ---- the runtime broken on purpose ----------------------------------------------------------------------------------


def groups_are_not_synced(patch: pytest.MonkeyPatch) -> None:
    datasync = WatchedFile.datasync
    patch.setattr(WatchedFile, "datasync", lambda self: None if self.path.endswith(".seg") else datasync(self))


def names_are_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WatchedFiles, "sync_directory", lambda self, path: None)


def steps_are_acknowledged_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    send = EpisodeCell.send

    def sending(self: EpisodeCell) -> None:
        send(self)
        if self._at_journal is not None:
            self._at_journal.resolve(self._journal.durable_lsn + 1, None)

    patch.setattr(EpisodeCell, "send", sending)


def what_is_in_hand_is_lost_by_a_restart(patch: pytest.MonkeyPatch) -> None:
    rebuild = episode_task.rebuild

    async def rebuilding(cell: EpisodeCell, journal: Any) -> bool:
        if cell.restarts:
            await cell.wait_result()
            for commit in cell._commits:
                commit.resolve(journal.durable_lsn + 1, None)
            cell._commits.clear()
            cell.in_hand.clear()
            cell._open, cell._pending = None, 0
        return await rebuild(cell, journal)

    patch.setattr(episode_task, "rebuild", rebuilding)


def keys_are_forgotten_by_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IdempotencyKeys, "restore", lambda self, steps: list(steps) and None)


def a_resubmit_is_another_step(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IdempotencyKeys, "find", lambda self, step: None)


def a_key_is_taken_for_another_step(patch: pytest.MonkeyPatch) -> None:
    def find(self: IdempotencyKeys, step: ExecutionStep) -> Receipt | None:
        known = None if step.key is None else self._steps.get(step.key)
        return None if known is None else Receipt(known.seq, known.commit)

    patch.setattr(IdempotencyKeys, "find", find)


def a_follower_skips_an_event(patch: pytest.MonkeyPatch) -> None:
    wants = EventChannel._wants
    patch.setattr(
        EventChannel,
        "_wants",
        lambda self, event: wants(self, event) and not (isinstance(event, Event) and event.lsn % 7 == 3),
    )


def a_follower_skips_what_a_larger_frame_holds(patch: pytest.MonkeyPatch) -> None:
    from stepstore.log.frame_reader import FrameReader

    read = FrameReader._read_frames

    def reading(self: FrameReader, position: Any, upto: int, records: int) -> Any:
        found, there = read(self, position, upto, records)
        return found, there._replace(after=there.after + 1) if found and there.after % 5 == 0 else there

    patch.setattr(FrameReader, "_read_frames", reading)


def reads_do_not_wait_for_what_was_accepted(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: Supervisor, episode_id: str, *, catch_up: bool = True) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Supervisor, "settle", settle)


def commit_returns_when_accepted(patch: pytest.MonkeyPatch) -> None:
    async def wait(self: Commit) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Commit, "wait", wait)


def closing_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    async def drained(self: Supervisor) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Supervisor, "drained", drained)


def receipts_are_left_open_by_closing(patch: pytest.MonkeyPatch) -> None:
    fail_pending = EpisodeCell.fail_pending

    def failing(self: EpisodeCell, error: StepwellError) -> None:
        if "was closed before" in str(error):
            self._commits.clear()
        fail_pending(self, error)

    patch.setattr(EpisodeCell, "fail_pending", failing)


def steps_change_places(patch: pytest.MonkeyPatch) -> None:
    drain = EpisodeCell.drain

    def draining(self: EpisodeCell) -> None:
        known = len(self.in_hand)
        drain(self)
        self.in_hand[known:] = self.in_hand[: known - 1 if known else None : -1]

    patch.setattr(EpisodeCell, "drain", draining)


def the_waiters_of_a_result_are_not_woken(patch: pytest.MonkeyPatch) -> None:
    def resolve(self: Commit, first_lsn: int, error: Any) -> None:
        self.first_lsn, self.error, self.done, self.cell = first_lsn, error, True, None

    patch.setattr(Commit, "resolve", resolve)


def a_run_scope_writes_no_ending(patch: pytest.MonkeyPatch) -> None:
    async def write(self: RunScope, handle: Any, outcome: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.completed = cast("CompletedEpisode", SimpleNamespace(outcome=outcome))

    patch.setattr(RunScope, "_write", write)


def nobody_is_told_of_what_failed_earlier(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UntoldFailures, "tell", lambda self, stream=None: None)


def a_deletion_is_only_believed(patch: pytest.MonkeyPatch) -> None:
    async def delete(self: Deletions, episode_id: str, *arguments: Any, **named: Any) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Deletions, "delete", delete)


def a_task_outlives_the_memory(patch: pytest.MonkeyPatch) -> None:
    run_in = Supervisor.run_in

    def running_in(self: Supervisor, nursery: trio.Nursery) -> None:
        run_in(self, nursery)
        root = trio.lowlevel.current_root_task()
        assert root is not None
        main = root.child_nurseries[-1]
        main.start_soon(trio.sleep, 1000, name="stepwell stray")

    patch.setattr(Supervisor, "run_in", running_in)


def a_refused_submission_is_written_all_the_same(patch: pytest.MonkeyPatch) -> None:
    fail_pending = EpisodeCell.fail_pending

    def failing(self: EpisodeCell, error: Any) -> None:
        kept = list(self._commits)
        fail_pending(self, error)
        for commit in kept:  # as if it had gone well
            commit.error, commit.first_lsn = None, self._journal.durable_lsn + 1

    patch.setattr(EpisodeCell, "fail_pending", failing)


def a_transaction_is_two_commits(patch: pytest.MonkeyPatch) -> None:
    async def committing(self: AtomicScope, *arguments: Any) -> None:
        self._open = False
        if arguments[0] is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        for part in self._episodes.values():
            one = Transaction(self._memory._journal)
            one._parts[part.place] = part
            await one.commit()
            self._transaction._parts[part.place] = part

    patch.setattr(AtomicScope, "__aexit__", committing)


def the_expected_record_does_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EpisodeCell, "check_expected", lambda self, expected_seq: None)


def an_episode_goes_to_sleep_with_something_in_hand(patch: pytest.MonkeyPatch) -> None:
    def finish_drain(cell: EpisodeCell) -> bool:
        cell.accepting, cell.state.value = False, "asleep"
        return True

    patch.setattr(episode_task, "finish_drain", finish_drain)


BREAKS: Iterable[Breaking] = (
    groups_are_not_synced,
    names_are_not_synced,
    steps_are_acknowledged_before_the_sync,
    what_is_in_hand_is_lost_by_a_restart,
    keys_are_forgotten_by_a_restart,
    a_resubmit_is_another_step,
    a_key_is_taken_for_another_step,
    a_follower_skips_an_event,
    a_follower_skips_what_a_larger_frame_holds,
    reads_do_not_wait_for_what_was_accepted,
    commit_returns_when_accepted,
    closing_does_not_wait,
    receipts_are_left_open_by_closing,
    steps_change_places,
    the_waiters_of_a_result_are_not_woken,
    a_run_scope_writes_no_ending,
    nobody_is_told_of_what_failed_earlier,
    a_deletion_is_only_believed,
    a_task_outlives_the_memory,
    a_refused_submission_is_written_all_the_same,
    a_transaction_is_two_commits,
    the_expected_record_does_not_matter,
    an_episode_goes_to_sleep_with_something_in_hand,
)


@pytest.mark.parametrize("breaking", BREAKS, ids=lambda breaking: breaking.__name__)
def test_objects_to_a_runtime_in_which(breaking: Breaking, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch)
    for seed in range(1, ENOUGH_SEEDS + 1):
        if wrong := World(seed).run().wrong:
            # An error of these kinds would be one of the break itself, which the runtime has outgrown.
            assert not re.search("TypeError|AttributeError|NameError", wrong[0]), wrong[0]
            return
    pytest.fail(f"{ENOUGH_SEEDS} seeds, and no objection")


def test_the_command_tells_where_it_went_wrong_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--seeds", "2", "--first", "5"]) == 0
    assert "0 violations" in capsys.readouterr().out
    a_resubmit_is_another_step(monkeypatch)
    assert command.main(["--seeds", "2", "--first", "5"]) == 1  # the sixth meets it
    printed = capsys.readouterr()
    assert "VIOLATION" in printed.out
    assert "--replay 6" in printed.err
    assert "WRONG" in printed.err
    assert command.main(["--replay", "6"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_two_runs_that_differ_are_objected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter(range(10))
    run = World.run

    def running(self: World) -> world.Result:
        self.simulation.note(f"run {next(lengths)}")
        return run(self)

    monkeypatch.setattr(World, "run", running)
    tally = command.work([3])
    assert "two runs of this seed differ: line 1" in next(iter(tally.violations))
