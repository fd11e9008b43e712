"""A journal in memory that outlives the memories opened on it, and fails when it is told to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import trio
from trio_util import AsyncValue

from stepstore.journal import InMemoryStreams, Journal
from stepwell.errors import InvalidInput, InvalidState, LogLocked, Rejected
from stepwell.model.event import STEP
from stepwell.model.ids import EPISODE_STREAM, checked_id, stream_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.step import ExecutionStep
from stepwell.testing.journal_life import JournalLife
from stepwell.testing.policies import Policies, When
from stepwell.testing.preloading import earlier_episode
from stepwell.testing.stored_records import StoredRecord, as_stored, read_record


class MemoryJournal:
    """What a test opens memories on (`open_memory_on`), any number of them one after another.

    It stands for the medium: what is durable here is there in the next life, and nothing else. Records go through a
    frame of the real log on their way, with its limits and its errors.

    The policies (`fail_next`, `reject_next`, `hang_next`, `lose_ack_next`) each say what becomes of the next `n`
    submissions, or of the next `n` that `when` is true of. A submission is what one episode sends at once: its start,
    or steps, or its ending; see `Submitted`. Where several policies are meant for one submission, the one asked for
    first decides (and one of `hang_next` lets another decide when the hanging is over). Whatever else waits in the same
    streams shares the fate of what it was to continue; other streams are not touched.

    All functions are plain ones but `wait_hanging`. Not for use from several threads.
    """

    def __init__(self) -> None:
        self._kept = InMemoryStreams()
        self._policies = Policies()
        self._life: JournalLife | None = None
        self._hanging = AsyncValue(0)
        self._lot = trio.lowlevel.ParkingLot()

    # ---- lives -------------------------------------------------------------------------------------------------------

    def open(self) -> Journal:
        """The `Journal` of a new life, which holds what was durable. `open_memory_on` calls this.

        Raises: `LogLocked` while the life before has not been released.
        """
        if self._life is not None:
            raise LogLocked("a memory is open on this MemoryJournal; leave it first, or take `after_crash()`")
        self._life = JournalLife(self._kept, self._policies, self._hang, self._forget_life)
        return self._life

    def _forget_life(self) -> None:
        self._life = None

    def after_crash(self) -> MemoryJournal:
        """Another journal: what a crash of the process at this moment would leave, which is what is durable. The memory
        that is open here goes on as if nothing had happened."""
        survivor = MemoryJournal()
        survivor._kept = self._kept.copy()
        return survivor

    def preload(
        self,
        episode_id: str,
        steps: Sequence[ExecutionStep] = (),
        *,
        task: str = "a task of an earlier life",
        outcome: TaskOutcome | None = None,
        at: dt.datetime | None = None,
        **start: Any,
    ) -> None:
        """Put an episode here as if an earlier life had left it: durable, open unless `outcome` ends it.

        `at` is when all of it happened (default: now). `start`: further arguments of `start_episode`.
        Raises: `InvalidInput`, `TooLarge`, as the calls of a memory do; `InvalidState` (there is such an episode, or a
        memory is open here).
        """
        if self._life is not None:
            raise InvalidState("preload: a memory is open on this MemoryJournal; preload before opening it")
        known = checked_id(episode_id)
        if stream_id(EPISODE_STREAM, known) in self._kept.records:
            raise InvalidState(f"preload: there is an episode {episode_id!r} already")
        self._kept.store(earlier_episode(known, steps, task=task, outcome=outcome, at=at, arguments=start))

    # ---- policies ----------------------------------------------------------------------------------------------------

    def fail_next(self, n: int = 1, when: When | None = None) -> None:
        """They fail: not stored, and reported as `OutcomeUnknown`, as after an I/O error."""
        self._policies.add("fail", n, when)

    def reject_next(self, n: int = 1, when: When | None = None, error: Rejected | None = None) -> None:
        """They are refused with `error` (default: a `LogFull`): definitely not stored. What comes behind is taken."""
        if error is not None and not isinstance(error, Rejected):
            raise InvalidInput(f"error: must be a Rejected, not {type(error).__name__}")
        self._policies.add("reject", n, when, error)

    def hang_next(self, n: int = 1, when: When | None = None) -> None:
        """They hang, and all behind them waits, until `release`; then they go on.

        As with a dead disk nothing else ends it: closing the memory waits for it even when its grace is used up.
        """
        self._policies.add("hang", n, when)

    def lose_ack_next(self, n: int = 1, when: When | None = None) -> None:
        """They are stored, and reported as `OutcomeUnknown` all the same: only reading, or a resubmit with the same
        key, tells what happened."""
        self._policies.add("lose_ack", n, when)

    @trio.lowlevel.enable_ki_protection
    def release(self) -> None:
        """Let go on what hangs now. Where nothing does, nothing happens."""
        self._hanging.value = 0
        self._lot.unpark_all()

    async def wait_hanging(self) -> None:
        """Return once something hangs. A checkpoint."""
        await self._hanging.wait_value(lambda count: count > 0)

    @property
    def policies_left(self) -> int:
        """How many submissions are still to meet a policy: 0 once everything that was asked for has happened."""
        return self._policies.waiting

    def clear_policies(self) -> None:
        """Forget the policies that nothing has met. What hangs goes on hanging."""
        self._policies.clear()

    @trio.lowlevel.enable_ki_protection
    def _hang(self) -> trio.lowlevel.ParkingLot:
        self._hanging.value += 1
        return self._lot

    # ---- what is stored ----------------------------------------------------------------------------------------------

    def records(self, episode_id: str) -> list[StoredRecord]:
        """What is durable of an episode now, oldest first; nothing if there is no such episode or it was deleted."""
        stream = stream_id(EPISODE_STREAM, checked_id(episode_id))
        if stream in self._kept.deleted:
            return []
        return [
            read_record(episode_id, seq, payload)
            for seq, (_lsn, payload) in enumerate(self._kept.records.get(stream, ()), 1)
            if payload is not None
        ]

    def steps(self, episode_id: str) -> list[ExecutionStep]:
        """The durable steps of an episode, as they were given."""
        return [record.step() for record in self.records(episode_id) if record.kind == STEP]

    def expect_step(self, episode_id: str, step: ExecutionStep, *, times: int = 1) -> list[StoredRecord]:
        """Check that the episode holds this very step, durable, exactly `times` times; gives those records.

        Raises: `AssertionError`, with the steps that are there.
        """
        wanted = as_stored(step)
        found = [record for record in self.records(episode_id) if record.kind == STEP and record.step() == wanted]
        if len(found) != times:
            there = "".join(f"\n  {item!r}" for item in self.steps(episode_id)) or " none"
            raise AssertionError(
                f"episode {episode_id!r}: expected {times} times {wanted!r}, found it {len(found)} times; "
                f"its durable steps:{there}"
            )
        return found
