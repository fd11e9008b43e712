"""The mailbox of a cell, and the way of what is in it to the journal: in hand, gathered into commits, sent, resolved.

In Trio, closing a receive channel drops what it buffered, and a task that has drained its mailbox into a local loses
that when it crashes. So the supervisor owns, per episode, the receive end, what is in hand, the next seq and the batch
at the journal; an incarnation drains into `in_hand` in the same synchronous section as `receive_nowait`, and an item
leaves it only when the result of its batch is known.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

import trio

from stepstore.errors import afresh
from stepstore.journal import Batch, Journal
from stepstore.journal.contract import FLAG_OPENS
from stepstore.log.frame import batch_cost
from stepstore.restarting import error_text
from stepwell.errors import Closed, OutcomeUnknown, StepwellError
from stepwell.model.ids import EpisodeId
from stepwell.runtime.cell_life import CellLife
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.keys import IdempotencyKeys
from stepwell.runtime.receipt import Commit, Receipt
from stepwell.runtime.untold import UntoldFailures

_logger = logging.getLogger("stepwell.runtime")

MAILBOX_BYTES = 4 * 1024 * 1024
COMMIT_BYTES = 4 * 1024 * 1024
"""A commit takes items up to this, unless a single one is larger."""
NEVER = math.inf
PER_RECORD = batch_cost(0, 1) - batch_cost(0, 0)
"""What a record takes in a batch beside its payload."""


class Flusher(Protocol):
    """Has a cell send some time after its first unsent step."""

    def schedule(self, cell: CellMailbox) -> None:
        """Have `cell.flush_due` called after the flush interval, unless `cell.flush_at` is set anew before."""


class CellMailbox(CellLife):
    """See the module. `full`: callers have to wait for room. `mail`: the receive end, None while nothing needs one.
    `in_hand`: what was taken from it and has no result yet, oldest first. `flush_at`: when the oldest unsent step is to
    go, NEVER if nothing waits for that; `is_timed`: whether the flusher has the cell. Both are set by the flusher, and
    the first by whoever sends.

    While the task is parked and the channel is empty, the door puts a message in hand itself; that saves the way
    through the channel, and the order is the same. Such a message counts as one in the mailbox until the next drain.
    So the channel is made when a message first has to go through it, and given back once everything has a result: it
    takes 1,700 bytes, a third of what an episode takes that does nothing.
    """

    __slots__ = (
        "_at_journal",
        "_commits",
        "_config",
        "_due",
        "_flusher",
        "_gate",
        "_interval",
        "_is_closed",
        "_is_queued",
        "_journal",
        "_keys",
        "_last_ns",
        "_mail_bytes",
        "_mail_count",
        "_mailbox",
        "_mailbox_size",
        "_next_seq",
        "_open",
        "_pending",
        "_room",
        "_send_at",
        "_taken",
        "_untold",
        "_urgent",
        "flush_at",
        "full",
        "in_hand",
        "is_timed",
        "mail",
    )

    def __init__(
        self,
        episode_id: EpisodeId,
        journal: Journal,
        config: MemoryConfig,
        flusher: Flusher,
        uses: Iterator[int],
        untold: UntoldFailures,
    ):
        super().__init__(episode_id, uses)
        self._untold = untold
        self.full = False
        self._journal, self._config, self._flusher = journal, config, flusher
        self._gate = journal.gate
        self._mailbox: trio.MemorySendChannel[bytes | list[bytes]] | None = None
        self.mail: trio.MemoryReceiveChannel[bytes | list[bytes]] | None = None
        self._mailbox_size = config.mailbox_size
        self._mail_count = self._mail_bytes = self._taken = 0
        self._is_queued = self._is_closed = False
        self.in_hand: list[bytes] = []
        self._commits: list[Commit] = []  # two or three at the most, and a deque takes 760 bytes empty
        self._open: Commit | None = None
        self._pending = 0
        self._at_journal: Commit | None = None
        self._urgent = self._due = False
        self.flush_at = NEVER
        self.is_timed = False
        self._next_seq = 1
        self._last_ns = 0
        self._keys = IdempotencyKeys(episode_id, config.keys_kept)
        self._room: trio.lowlevel.ParkingLot | None = None
        # With durability="commit" every acceptance is awaited at once; a timer would only be in the way.
        batch = config.batch
        self._send_at = batch.max_batch_size if batch.auto_flush else sys.maxsize
        timed = batch.auto_flush and config.durability == "receipt"
        self._interval = batch.flush_interval_ms / 1000 if timed else None

    # ---- callers and their room --------------------------------------------------------------------------------------

    async def wait_room(self) -> None:
        """Wait until something has left the mailbox; the caller looks again. Cancelled: nothing was accepted."""
        if self.full:
            self.wake()
            if self._room is None:
                self._room = trio.lowlevel.ParkingLot()
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()

    def release_callers(self) -> None:
        """Have callers that wait for room look again."""
        if self._room is not None:
            self._room.unpark_all()
            self._room = None

    @trio.lowlevel.enable_ki_protection
    def lock(self) -> None:
        """Have everybody else wait, as for room in the mailbox, until `unlock`."""
        self.locked = self.full = True

    @trio.lowlevel.enable_ki_protection
    def unlock(self) -> None:
        """Take steps again, and have those who waited look."""
        self.locked = False
        self.full = self._mail_count >= self._mailbox_size or self._mail_bytes >= MAILBOX_BYTES
        self.release_callers()

    def _enqueue(
        self, item: bytes | list[bytes], records: int, size: int, *, flags: int = 0, critical: bool = False
    ) -> Receipt:
        self.used = next(self._uses)
        commit = self._open
        if commit is None or commit.bytes + size > COMMIT_BYTES or critical:
            commit = self._open = Commit(self._next_seq, self)
            commit.accepted_ns = self._last_ns
            commit.critical = critical
            commit.flags = flags
            self._commits.append(commit)
            if critical and self.full:
                self.drain()  # an ending waits for no room: it is the last thing to come
        if self._sleeper is None or self._is_queued:
            mailbox = self._mailbox or self._open_mailbox()
            mailbox.send_nowait(item)
            self._is_queued = True
        # Else nothing is before it and the task is parked: what that would do first is done here, in the caller's turn.
        elif isinstance(item, bytes):
            self.in_hand.append(item)
            self._taken += 1
        else:
            self.in_hand.extend(item)
            self._taken += records
        self._mail_count = mail_count = self._mail_count + 1
        self._mail_bytes = mail_bytes = self._mail_bytes + size
        if mail_count >= self._mailbox_size or mail_bytes >= MAILBOX_BYTES:
            self.full = True
        commit.records += records
        commit.bytes += size
        self._next_seq = following = self._next_seq + records
        self._pending = pending = self._pending + records
        if pending >= self._send_at or commit.bytes >= COMMIT_BYTES or len(self._commits) > 2:
            self._due = True
            self.wake()
        elif pending == records and self._interval is not None:
            self._flusher.schedule(self)
        elif self.full:
            self.wake()
        return Receipt(following - 1, commit)

    def _open_mailbox(self) -> trio.MemorySendChannel[bytes | list[bytes]]:
        if self._is_closed:
            raise Closed(f"{self.called} is not in memory any more, and nobody would read what is sent to it")
        self._mailbox, self.mail = trio.open_memory_channel[bytes | list[bytes]](self._mailbox_size)
        return self._mailbox

    # ---- urgency -----------------------------------------------------------------------------------------------------

    def check_thread(self) -> None:
        """Raises: `WrongLoop` in another thread than that of the memory: waking a task there would lose it."""
        self._untold.check_thread()

    def make_urgent(self, commit: Commit | None = None) -> None:
        """Somebody waits for `commit` (default: for everything): send it as soon as the journal is free."""
        if commit is not None and commit is self._at_journal:
            return
        self._urgent = True
        self.send_or_wake()

    def flush_due(self) -> None:
        """The flush interval of the oldest unsent step is over."""
        self._due = True
        self.send_or_wake()

    def send_or_wake(self) -> None:
        """Send what is to go, in the caller's turn if the task sleeps and has nothing else to do; that saves a wake.

        It is the task's own synchronous step on the same cell, so the order is the same whoever runs it.
        """
        if self.should_send and self._sleeper is not None and self.failure is None and self._journal.has_room:
            self.send()
        else:
            self.wake()

    async def settle(self) -> None:
        """Return once everything accepted has a result, having made it urgent. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._commits:
            await self._commits[-1].wait()

    async def wait_result(self) -> None:
        """Return once the batch at the journal, if any, has a result."""
        while self._at_journal is not None:
            await self._at_journal.wait()

    # ---- what is pending ---------------------------------------------------------------------------------------------

    @property
    def pending_commits(self) -> tuple[Commit, ...]:
        """Everything accepted whose result is not known, oldest first."""
        return tuple(self._commits)

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages in the mailbox, and their bytes."""
        return self._mail_count, self._mail_bytes

    @property
    def drained(self) -> int:
        """Records in hand that count as in the mailbox no more."""
        return len(self.in_hand) - self._taken

    @property
    def is_stored(self) -> bool:
        """Whether the start of the episode is in the log."""
        return not (self._commits and self._commits[0].flags & FLAG_OPENS)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is accepted that is not stored."""
        return not self._commits and self._at_journal is None

    @property
    def may_drain(self) -> bool:
        """Whether it can go to sleep once everything accepted is stored. With manual batches nothing is sent for it."""
        return (
            self.state.value == "live"
            and self.accepting
            and not self.is_wanted
            and (self.is_idle or (self._gate.is_open and self._config.batch.auto_flush))
        )

    @property
    def should_send(self) -> bool:
        """Whether a batch is to go now: nothing is on its way, and there is something that is urgent or due."""
        return self._at_journal is None and bool(self._pending) and (self._urgent or self._due)

    @property
    def is_holding_back(self) -> bool:
        """Whether the mailbox is full although nothing is to go yet: then it is taken in hand, up to COMMIT_BYTES.

        Not while a batch is at the journal: behind a slow medium callers must wait, or memory would fill.
        """
        return self.full and self._mail_count > 0 and self._at_journal is None

    # ---- to the journal ----------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def drain(self) -> None:
        """Take everything from the mailbox in hand, in one synchronous section."""
        if self._is_queued:
            assert self.mail is not None
            in_hand, receive = self.in_hand, self.mail.receive_nowait
            try:
                while True:
                    item = receive()
                    if isinstance(item, bytes):
                        in_hand.append(item)
                    else:
                        in_hand.extend(item)
            except trio.WouldBlock:
                self._is_queued = False
        if self._mail_count:
            self._mail_count = self._mail_bytes = self._taken = 0
            self.full = self.locked
            self.release_callers()

    @trio.lowlevel.enable_ki_protection
    def send(self) -> None:
        """Give the oldest commit to the journal. In hand it stays until its result is known.

        Whoever runs this (a caller, the timer, the writer) is not concerned if it fails: the episode is, and its task
        is supervised.
        """
        self.drain()
        commit = self._commits[0]
        if commit is self._open:
            self._open = None
        self._at_journal = commit
        if len(self._commits) == 1:
            self._urgent = self._due = False
        self.flush_at = NEVER
        refusal: StepwellError
        try:
            self._journal.submit(self._batches_of(commit), critical=commit.critical, on_done=commit)
            return
        except StepwellError as error:
            refusal = error
        except Exception as error:
            _logger.error("giving a batch of %s to the journal failed", self.called, exc_info=error)
            refusal = OutcomeUnknown(f"giving it to the journal failed: {error_text(error)}")
            refusal.__cause__ = error.with_traceback(None)  # its frames know the commit, which keeps the refusal
        self._at_journal = None
        self.fail_pending(refusal)

    def _batches_of(self, commit: Commit) -> Batch | Sequence[Batch]:
        """What the journal is to store together for the oldest commit."""
        return Batch(self.stream, commit.first_seq, tuple(self.in_hand[: commit.records]), commit.flags)

    @trio.lowlevel.enable_ki_protection
    def on_result(self, first_lsn: int, error: StepwellError | None) -> None:
        """The result of the batch at the journal is known. Runs in the writer's turn."""
        commit, self._at_journal = self._at_journal, None
        assert commit is not None
        if error is not None:
            # What was accepted behind it has numbers that no longer fit: none of it can be stored as promised.
            self.fail_pending(error)
            return
        self._commits.pop(0)
        del self.in_hand[: commit.records]
        self._pending -= commit.records
        if not self._commits:
            self._mailbox = self.mail = None
        elif self._pending and self._interval is not None and not self._due:
            self._flusher.schedule(self)
        commit.resolve(first_lsn, None)
        if self.should_send or self.full or self.is_wanted or self.state.value == "draining":
            self.send_or_wake()

    @trio.lowlevel.enable_ki_protection
    def fail_pending(self, error: StepwellError) -> None:
        """Give up everything accepted whose result is not known, and have the task rebuild from the log."""
        self.failure, error = afresh(error), afresh(error)  # the task raises the one, and callers others
        self.accepting = False
        if self.state.value in ("live", "draining", "ended"):
            self.state.value = "waking"
        self.drain()
        self.in_hand.clear()
        commits, self._open = list(self._commits), None
        self._at_journal = None  # what is on its way there is given up as well; its result will find nobody
        self._commits.clear()
        self._pending = 0
        self._urgent = self._due = False
        self.flush_at = NEVER
        for commit in commits:
            self._keys.forget(commit)
            commit.resolve(0, error)
            self._untold.note(self.called, commit, error)
        if self.ending_request is not None and not self.ending_request.is_stored:
            # It was to end with everything before it stored; that is no longer so, and the caller must decide anew.
            request, self.ending_request = self.ending_request, None
            request.finish(error=error)
        self.release_callers()
        self.wake()

    # ---- the end -----------------------------------------------------------------------------------------------------

    def stop_intake(self) -> None:
        """Accept no more steps, not even after a restart, and send at once what was accepted."""
        self.intake_stopped, self.accepting = True, False
        self.make_urgent()
        self.release_callers()

    def delete(self) -> None:
        """The episode is to be deleted: send what was accepted, then the task ends."""
        self.deleting = True
        self.stop_intake()
        self.wake()

    @trio.lowlevel.enable_ki_protection
    def vanish(self) -> None:
        """There is to be no such episode: nothing was accepted for it. Its task ends."""
        self.accepting = False
        self.state.value = "gone"
        self.wake()

    def close(self) -> None:
        """The episode's task is gone for good."""
        self.accepting, self._is_closed = False, True
        self._mailbox = self.mail = None
        self.release_callers()
