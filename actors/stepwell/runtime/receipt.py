"""The acknowledgement of a step, and of everything that goes to the log together with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import msgspec
import trio

from stepstore.errors import afresh
from stepstore.journal import Submission
from stepwell.errors import OutcomeUnknown, StepwellError
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.woken import WOKEN

if TYPE_CHECKING:
    from stepwell.runtime.cell_mailbox import CellMailbox
    from stepwell.runtime.untold import Loss


class Commit(msgspec.Struct, gc=False, eq=False):
    """Records of one episode that go to the log in one batch. One object for all of them, none per step.

    `accepted_ns`: when the first of them was accepted. `asked_again`: how many are a start or an ending, for which its
    caller asks again. `losses`: what whoever asks a receipt is told of, if it failed; see `untold`.
    """

    # There may be one for every step, each alive until its group is on the medium. Were they known to the garbage
    # collector, it would go through all of them again and again, which took a third of the time. That is safe because
    # every commit is resolved (the memory's closing resolves what is left), and with that lets go of its cell and of
    # who waits; and its error is nobody's who raises it, see `afresh`. So none stays part of a cycle.

    first_seq: int
    cell: CellMailbox | None
    records: int = 0
    bytes: int = 0
    flags: int = 0
    first_lsn: int = 0
    accepted_ns: int = 0
    critical: bool = False
    done: bool = False
    error: StepwellError | None = None
    keys: list[str] | None = None
    asked_again: int = 0
    losses: tuple[Loss, ...] = ()
    _waiter: trio.lowlevel.Task | None = None
    _more_waiters: trio.lowlevel.ParkingLot | None = None

    @classmethod
    def stored(cls, seq: int, lsn: int) -> Commit:
        """The commit of one record that is in the log already."""
        return cls(seq, None, records=1, first_lsn=lsn, done=True)

    def __call__(self, submission: Submission) -> None:
        """The journal has a result. Runs in the writer's turn."""
        if self.cell is not None:  # else it was given up meanwhile: its episode was parked
            self.cell.on_result(submission.first_lsn, submission.error)

    @trio.lowlevel.enable_ki_protection
    def resolve(self, first_lsn: int, error: StepwellError | None) -> None:
        """Say what became of it, once, and wake who waits."""
        self.first_lsn, self.error, self.done, self.cell = first_lsn, error and afresh(error), True, None
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            trio.lowlevel.reschedule(waiter, WOKEN)
        if self._more_waiters is not None:
            self._more_waiters.unpark_all()
            self._more_waiters = None

    @trio.lowlevel.enable_ki_protection
    async def wait(self) -> None:
        """Return once it is done, having made it urgent. A checkpoint on every path."""
        if self.begin_waiting():
            await trio.lowlevel.wait_task_rescheduled(_StopWaiting(self))
        else:
            await self.wait_beside()

    @trio.lowlevel.enable_ki_protection
    def begin_waiting(self) -> bool:
        """Make it urgent. True if this task is the one that waits from now on, and has to sleep in the same section."""
        if not self.done and self.cell is not None:
            self.cell.check_thread()
            self.cell.make_urgent(self)  # which may refuse it at this very moment
        if self.done or self._waiter is not None:
            return False
        # Most have one waiter: it is kept as the task it is, since an event would cost three objects more.
        self._waiter = trio.lowlevel.current_task()
        return True

    async def wait_beside(self) -> None:
        """Wait where `begin_waiting` gave False: it is done, or somebody waits already. A checkpoint."""
        if self.done:
            await checkpoint()
            return
        if self._more_waiters is None:
            self._more_waiters = trio.lowlevel.ParkingLot()
        await self._more_waiters.park()

    def stop_waiting(self) -> None:
        """The task that waits is cancelled."""
        self._waiter = None

    async def reach_log(self) -> None:
        """Wait until it is done, and raise why it failed if it did."""
        await self.wait()
        if self.error is not None:
            self.tell(self.error)

    @trio.lowlevel.enable_ki_protection
    def tell(self, error: StepwellError) -> NoReturn:
        """Raise why it failed. Protected, since a Ctrl-C in between would be taken for the telling."""
        self.note_told()
        raise afresh(error)

    @trio.lowlevel.enable_ki_protection
    def note_told(self) -> None:
        """It failed, and its holder is being told."""
        losses, self.losses = self.losses, ()
        for loss in losses:
            loss.untold.asked(loss)


class _StopWaiting(msgspec.Struct, gc=False):
    """The abort function of a task that waits for a commit: a method bound to it would be the garbage collector's."""

    commit: Commit

    def __call__(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self.commit.stop_waiting()
        return trio.lowlevel.Abort.SUCCEEDED


class Receipt(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What `log_step` and its kin return: the step is accepted, and this tells whether it is durable yet."""

    # One is made for every step: a C-level constructor, and (gc=False) no work for the garbage collector. That is safe
    # because no commit refers to its receipts, so none can be part of a cycle.

    seq: int
    """The number of the record in its episode; of the last one, for a batch."""
    _commit: Commit

    @property
    def lsn(self) -> int | None:
        """The number of the record in the whole log, None until it is durable."""
        commit = self._commit
        return commit.first_lsn + self.seq - commit.first_seq if self.is_durable else None

    @property
    def is_durable(self) -> bool:
        """Whether the record is on the medium."""
        return self._commit.done and self._commit.error is None

    @trio.lowlevel.enable_ki_protection
    async def wait_durable(self) -> None:
        """Return once the record is on the medium. May be awaited any number of times, also after the memory closed.

        Waiting makes the batch go as soon as the log is free. Cancelling the waiter does not cancel the write.
        Raises: `OutcomeUnknown` if the log failed or was closed first; resubmit with the same key. `WrongLoop`.
        """
        commit = self._commit
        if commit.begin_waiting():  # `Commit.wait`, without its coroutine: thousands may wait at once
            await trio.lowlevel.wait_task_rescheduled(_StopWaiting(commit))
        else:
            await commit.wait_beside()
        if commit.error is not None:
            self.check_durable()

    @trio.lowlevel.enable_ki_protection
    def check_durable(self) -> None:
        """Raises: `OutcomeUnknown` if it is known that the record cannot be told to be on the medium."""
        error = self._commit.error
        if error is None:
            return
        if not isinstance(error, OutcomeUnknown):
            cause, error = error, OutcomeUnknown(f"accepted, but it did not reach the log: {error}")
            error.__cause__ = cause
        self._commit.tell(error)

    async def reach_log(self) -> None:
        """As `wait_durable`, but raises the very reason: a `Rejected` says more than `OutcomeUnknown`."""
        await self._commit.reach_log()

    def __eq__(self, other: object) -> bool:
        """Receipts are equal that acknowledge the same record."""
        if not isinstance(other, Receipt):
            return NotImplemented
        same_commit = self._commit is other._commit or (self.lsn is not None and self.lsn == other.lsn)
        return self.seq == other.seq and same_commit

    def __ne__(self, other: object) -> bool:
        """As `__eq__` says: a Struct would compare by identity."""
        return not self == other

    def __hash__(self) -> int:
        return hash(self.seq)

    def __repr__(self) -> str:
        state = f"lsn {self.lsn}" if self.is_durable else "failed" if self._commit.done else "not durable yet"
        return f"<Receipt seq {self.seq}, {state}>"
