"""The cell of an episode: what must outlive an incarnation of its task.

In Trio, closing a receive channel drops what it buffered, and a task that has drained its mailbox into a local loses
that when it crashes. So the supervisor owns, per episode, the receive end, what is in hand, the next seq and the batch
at the journal; an incarnation drains into `in_hand` in the same synchronous section as `receive_nowait`, and an item
leaves it only when the result of its batch is known.

Accepting is one synchronous section in the caller's task: check, encode, take the next seq, enqueue. So an accepted
step has its number, cannot be refused afterwards, and a cancelled caller leaves no gap.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from stepstore.journal import Batch, Journal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from stepwell.errors import Closed, InvalidInput, InvalidState, Rejected, StepwellError, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import encode_step
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.model.organising import Change, Organisation, OrganisingRecord, encode_organising
from stepwell.model.redaction import Redaction
from stepwell.model.step import ExecutionStep
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.keys import IdempotencyKeys, StagedStep
from stepwell.runtime.receipt import Commit, Receipt
from stepwell.runtime.state import EpisodeState
from stepwell.runtime.untold import UntoldFailures, called

if TYPE_CHECKING:
    from stepwell.runtime.passivation import Place

MAILBOX_BYTES = 4 * 1024 * 1024
COMMIT_BYTES = 4 * 1024 * 1024
"""A commit takes items up to this, unless a single one is larger."""
_PER_RECORD = batch_cost(0, 1) - batch_cost(0, 0)


class Flusher(Protocol):
    """Wakes a cell some time after its first unsent step."""

    def schedule(self, cell: EpisodeCell) -> None:
        """Call `cell.flush_due` after the flush interval."""


class EpisodeCell:
    """See the module. Steps are accepted only while `state` is "live".

    `state`: "waking" (being rebuilt from the log), "live", "draining" (it goes to sleep unless it is used; takes steps
    as before), "asleep" (it has left memory; using it makes another cell), "ended"; "parked" (unavailable: `failure`
    says why), "gone" (there is no such episode, or it is to be deleted) and "closed" (the runtime is over).

    `used`: the number of its last use, see `passivation`; `drained_at`: what that was when it was marked draining.
    `place`: where the passivator has it. `wanted_by`: callers that need it awake; for them the task of an episode that
    has ended stays, too. `organisation`: how it is organised, None until somebody has asked.
    """

    __slots__ = (
        "_at_journal",
        "_commits",
        "_config",
        "_due",
        "_flusher",
        "_gate",
        "_interval",
        "_journal",
        "_keys",
        "_last_ns",
        "_limits",
        "_mail_bytes",
        "_mail_count",
        "_mailbox",
        "_mailbox_size",
        "_next_seq",
        "_open",
        "_pending",
        "_room",
        "_send_at",
        "_sleeper",
        "_steps",
        "_steps_allowed",
        "_untold",
        "_urgent",
        "_uses",
        "accepting",
        "batches_sent",
        "deleting",
        "drained_at",
        "ending_request",
        "episode_id",
        "failure",
        "full",
        "in_hand",
        "intake_stopped",
        "locked",
        "mail",
        "organisation",
        "place",
        "redaction",
        "restarts",
        "state",
        "stream",
        "used",
        "wanted_by",
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
        self.episode_id = episode_id
        self.stream = stream_id(EPISODE_STREAM, episode_id)
        self.state = EpisodeState("waking")
        self.accepting = self.intake_stopped = self.deleting = False
        self.full = self.locked = False
        self.ending_request: EndingRequest | None = None
        self.failure: BaseException | None = None
        self.restarts = 0
        self._uses, self._untold = uses, untold
        self.used = self.drained_at = self.wanted_by = 0
        self.place: Place | None = None
        self.organisation: Organisation | None = None
        self.redaction: Redaction | None = None
        self._journal, self._config, self._flusher = journal, config, flusher
        self._gate = journal.gate
        self._limits = config.limits
        self._steps_allowed = config.limits.steps_per_episode
        self._mailbox, self.mail = trio.open_memory_channel[bytes | list[bytes]](config.mailbox_size)
        self._mailbox_size = config.mailbox_size
        self._mail_count = self._mail_bytes = 0
        self.in_hand: list[bytes] = []
        self._commits: list[Commit] = []  # two or three at the most, and a deque takes 760 bytes empty
        self._open: Commit | None = None
        self._pending = 0
        self._at_journal: Commit | None = None
        self._urgent = self._due = False
        self.batches_sent = 0
        self._next_seq = 1
        self._last_ns = 0
        self._steps = 0
        self._keys = IdempotencyKeys(episode_id, config.keys_kept)
        self._sleeper: trio.lowlevel.Task | None = None
        self._room: trio.lowlevel.ParkingLot | None = None
        # With durability="commit" every acceptance is awaited at once; a timer would only be in the way.
        batch = config.batch
        self._send_at = batch.max_batch_size if batch.auto_flush else sys.maxsize
        timed = batch.auto_flush and config.durability == "receipt"
        self._interval = batch.flush_interval_ms / 1000 if timed else None

    # ---- the door: in the caller's task ------------------------------------------------------------------------------

    async def wait_room(self) -> None:
        """Wait until something has left the mailbox; the caller looks again. Cancelled: nothing was accepted."""
        if self.full:
            self.wake()
            if self._room is None:
                self._room = trio.lowlevel.ParkingLot()
            await self._room.park()
        else:
            await trio.lowlevel.checkpoint()

    def check_accepting(self) -> None:
        """Raises: `InvalidState` (the episode has ended or is ending), `Closed`, `LogFull`."""
        if not self._gate.is_open:
            self._journal.check_open()
        if self.ending_request is not None:
            raise InvalidState(f"episode {self.episode_id!r} is being completed and takes no more steps")
        if not self.accepting:
            raise Closed(f"episode {self.episode_id!r} takes no steps now")

    def check_expected(self, expected_seq: int) -> None:
        """Raises: `InvalidState` if the last record accepted for the episode has another number; `InvalidInput`."""
        check.check_number(expected_seq, "expected_seq", minimum=0, whole=True)
        if expected_seq != self._next_seq - 1:
            raise InvalidState(
                f"episode {self.episode_id!r} ends with seq {self._next_seq - 1}, and {expected_seq} was expected; "
                "look at what was logged meanwhile"
            )

    @trio.lowlevel.enable_ki_protection
    def accept_step(self, step: ExecutionStep, expected_seq: int | None = None) -> Receipt:
        """Accept one step. The caller has seen that there is room. With `expected_seq`, only behind that record; a step
        whose key is known is behind it anyway.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState`, `Closed`, `LogFull`; then nothing is accepted.
        """
        if not self.accepting or self.ending_request is not None or not self._gate.is_open:
            self.check_accepting()
        now = time.time_ns()
        if now < self._last_ns:
            now = self._last_ns
        payload = encode_step(step, now, self._limits)
        if self.redaction is not None:
            step = self.redaction.step(step)
            payload = encode_step(step, now, self._limits)
        key = step.key
        if key is not None:
            known = self._keys.find(step)
            if known is not None:
                return known
        if expected_seq is not None:
            self.check_expected(expected_seq)
        if self._steps >= self._steps_allowed:
            raise TooLarge(
                f"episode {self.episode_id!r} has {self._steps:,} steps, the most an episode may have "
                "(MemoryConfig.limits); complete it and start another"
            )
        self._last_ns = now
        self._steps += 1
        receipt = self._enqueue(payload, 1, len(payload) + _PER_RECORD)
        if key is not None:
            self._keys.remember(step, receipt.seq, receipt._commit)
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_steps(self, steps: Sequence[ExecutionStep], expected_seq: int | None = None) -> Receipt:
        """Accept steps that are stored together or not at all. Raises as `accept_step`; then none is accepted."""
        self.check_accepting()
        if not steps:
            raise InvalidInput("steps: must hold at least one step")
        now = max(time.time_ns(), self._last_ns)
        limits = self._limits
        try:
            payloads = [encode_step(step, now, limits) for step in steps]
        except Rejected:
            payloads = [self._encode_one_of(steps, position, now) for position in range(len(steps))]
        if self.redaction is not None:
            steps = [self.redaction.step(step) for step in steps]
            payloads = [self._encode_one_of(steps, position, now) for position in range(len(steps))]
        keys = [step.key for step in steps if step.key is not None]
        if keys:
            known = [self._keys.find(step) for step in steps if step.key is not None]
            if any(known):
                if not all(known) or len(known) != len(steps):
                    raise InvalidState("steps: some of them were logged before under their keys and some were not")
                receipt = known[-1]
                assert receipt is not None
                return receipt
            if len(set(keys)) != len(keys):
                raise InvalidInput("steps: the same key stands at two of them")
        if expected_seq is not None:
            self.check_expected(expected_seq)
        self.check_steps_allowed(len(steps))
        size = sum(map(len, payloads)) + _PER_RECORD * len(payloads)
        if size + batch_cost(0, 0) > min(MAX_BATCH_BYTES, self._limits.record_bytes):
            raise TooLarge(f"steps: {size:,} bytes in one batch exceed {self._limits.record_bytes:,}; split it")
        self._last_ns = now
        self._steps += len(steps)
        receipt = self._enqueue(payloads, len(payloads), size)
        if keys:
            for offset, step in enumerate(steps, receipt.seq - len(steps) + 1):
                self._keys.remember(step, offset, receipt._commit)
        return receipt

    @property
    def steps(self) -> int:
        """How many steps were accepted for it."""
        return self._steps

    def check_steps_allowed(self, more: int) -> None:
        """Raises: `TooLarge` if an episode may not have so many more steps."""
        if self._steps + more > self._steps_allowed:
            raise TooLarge(
                f"{more} more steps would make {self._steps + more:,}; an episode may have "
                f"{self._steps_allowed:,} (MemoryConfig.limits)"
            )

    def _encode_one_of(self, steps: Sequence[ExecutionStep], position: int, now: int) -> bytes:
        """One step of a batch in which one is refused, so that the error says which."""
        try:
            return encode_step(steps[position], now, self._limits)
        except Rejected as error:
            raise type(error)(f"steps[{position}]: {error}") from error

    @trio.lowlevel.enable_ki_protection
    def accept_start(self, payload: bytes, time_ns: int) -> Receipt:
        """Accept the first record of a new episode."""
        self._journal.check_open()
        self._last_ns = time_ns
        receipt = self._enqueue(payload, 1, len(payload) + _PER_RECORD, flags=FLAG_OPENS)
        receipt._commit.asked_again = 1
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_ending(self, payload: bytes, time_ns: int) -> Receipt:
        """Accept the record that ends the episode; it may use the reserve of a full disk."""
        self._last_ns = max(self._last_ns, time_ns)
        receipt = self._enqueue(payload, 1, len(payload) + _PER_RECORD, flags=FLAG_CLOSES, critical=True)
        receipt._commit.asked_again = 1
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_change(self, change: Change) -> Receipt | None:
        """Accept a record that organises the episode, also behind its ending; None if `change` changes nothing.

        Raises: `InvalidInput`, `TooLarge`, `InvalidState`, `Closed`, `LogFull`; then nothing is accepted.
        """
        self._journal.check_open()
        assert self.organisation is not None
        record = change(self.organisation, self._steps)
        if record is None:
            return None
        now = self.now_ns()
        payload = encode_organising(record, now, self._limits)
        self._last_ns = now
        receipt = self._enqueue(payload, 1, len(payload) + _PER_RECORD)
        self.organisation.apply(record, receipt.seq, now)
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_recorded(
        self, payloads: list[bytes], steps: int, time_ns: int, flags: int = 0, request: EndingRequest | None = None
    ) -> Receipt:
        """Accept records of events of the run that this episode is, also behind its ending. `steps`: how many of them
        are steps; `request`: the ending that is among them.

        Raises: `TooLarge` (an episode may not have so many steps), `Closed`, `LogFull`; then nothing is accepted.
        """
        if request is None and not self._gate.is_open:
            self._journal.check_open()
        if steps:
            self.check_steps_allowed(steps)
        size = sum(map(len, payloads)) + _PER_RECORD * len(payloads)
        self._last_ns = time_ns
        self._steps += steps
        item = payloads[0] if len(payloads) == 1 else payloads
        receipt = self._enqueue(item, len(payloads), size, flags=flags, critical=request is not None)
        if request is not None:
            request.receipt = receipt
            self.ending_request = request
            self.make_urgent()
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_event(self, payload: bytes, time_ns: int, *, is_step: bool) -> Receipt:
        """As `accept_recorded`, for one that is no ending: the hot path of recording."""
        if not self._gate.is_open:
            self._journal.check_open()
        if is_step:
            if self._steps >= self._steps_allowed:
                self.check_steps_allowed(1)
            self._steps += 1
        self._last_ns = time_ns
        return self._enqueue(payload, 1, len(payload) + _PER_RECORD)

    def now_ns(self) -> int:
        """The time of a record accepted now: never before that of an earlier one."""
        return self.time_from(time.time_ns())

    def time_from(self, clock_ns: int) -> int:
        """The time of a record accepted while the clock says `clock_ns`."""
        return max(clock_ns, self._last_ns)

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
        self._mailbox.send_nowait(item)
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

    # ---- transactions ------------------------------------------------------------------------------------------------

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

    async def settle(self) -> None:
        """Return once everything accepted has a result, having made it urgent. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._commits:
            await self._commits[-1].wait()

    def find_staged(self, staged: Sequence[StagedStep], expected_seq: int | None) -> Receipt | None:
        """The receipt of the last of these steps if all of them are stored under their keys, None if all are new.

        Raises: `InvalidState` (some are stored and some not, a key was used for another step, or the new ones were
        expected behind another record), `TooLarge` (too many for one episode).
        """
        known = self._keys.find_all(staged)
        if known is None:
            if expected_seq is not None:
                self.check_expected(expected_seq)
            self.check_steps_allowed(len(staged))
        return known

    def batch_of(self, payloads: Iterable[bytes], flags: int = 0) -> Batch:
        """The batch that stores these records behind everything accepted."""
        return Batch(self.stream, self._next_seq, tuple(payloads), flags)

    @trio.lowlevel.enable_ki_protection
    def accept_submitted(self, batch: Batch, staged: Sequence[StagedStep | OrganisingRecord], time_ns: int) -> Receipt:
        """Accept records whose batch was given to the journal by a transaction, which calls `on_result` in the end.

        Nothing else is accepted and not stored, so the batch has its place; what is accepted from now on comes behind.
        """
        assert self.is_idle, "a transaction waits until nothing is before it"
        self.touch()
        commit = Commit(batch.first_seq, self)
        commit.records = len(batch.payloads)
        self._commits.append(commit)
        self._at_journal = commit
        self.in_hand.extend(batch.payloads)
        self.batches_sent += 1
        self._pending += commit.records
        self._next_seq += commit.records
        self._steps += commit.records
        self._last_ns = time_ns
        for seq, it in enumerate(staged, batch.first_seq):
            if isinstance(it, StagedStep):
                self._keys.remember_staged(it, seq, commit)
            else:
                assert self.organisation is not None
                self.organisation.apply(it, seq, time_ns)
                self._steps -= 1
        return Receipt(self._next_seq - 1, commit)

    @trio.lowlevel.enable_ki_protection
    def accept_submitted_events(self, batch: Batch, steps: int, time_ns: int, request: EndingRequest | None) -> Receipt:
        """As `accept_submitted`, for events of the run that this episode is; see `accept_recorded`."""
        receipt = self.accept_submitted(batch, (), time_ns)
        receipt._commit.flags = batch.flags
        self._steps += steps - len(batch.payloads)
        if request is not None:
            request.receipt = receipt
            self.ending_request = request
        return receipt

    @trio.lowlevel.enable_ki_protection
    def vanish(self) -> None:
        """There is to be no such episode: nothing was accepted for it. Its task ends."""
        self.accepting = False
        self.state.value = "gone"
        self.wake()

    # ---- urgency -----------------------------------------------------------------------------------------------------

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

    def wake(self) -> None:
        """Let the task look whether there is something to do."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            trio.lowlevel.reschedule(sleeper)

    @property
    def pending_commits(self) -> tuple[Commit, ...]:
        """Everything accepted whose result is not known, oldest first."""
        return tuple(self._commits)

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages in the mailbox, and their bytes."""
        return self._mail_count, self._mail_bytes

    @property
    def called(self) -> str:
        """What an error calls it."""
        return called(self.episode_id)

    @property
    def is_stored(self) -> bool:
        """Whether the start of the episode is in the log."""
        return not (self._commits and self._commits[0].flags & FLAG_OPENS)

    # ---- the task's side ---------------------------------------------------------------------------------------------

    async def park(self) -> None:
        """Wait for `wake`. Only the episode's own task does, so no parking lot is needed."""
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stop_sleeping)

    def _stop_sleeping(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

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

    @trio.lowlevel.enable_ki_protection
    def drain(self) -> None:
        """Take everything from the mailbox in hand, in one synchronous section."""
        in_hand, receive = self.in_hand, self.mail.receive_nowait
        try:
            while True:
                item = receive()
                if isinstance(item, bytes):
                    in_hand.append(item)
                else:
                    in_hand.extend(item)
        except trio.WouldBlock:
            pass
        if self._mail_count:
            self._mail_count = self._mail_bytes = 0
            self.full = self.locked
            self.release_callers()

    @trio.lowlevel.enable_ki_protection
    def send(self) -> None:
        """Give the oldest commit to the journal. In hand it stays until its result is known."""
        self.drain()
        commit = self._commits[0]
        if commit is self._open:
            self._open = None
        batch = Batch(self.stream, commit.first_seq, tuple(self.in_hand[: commit.records]), commit.flags)
        self._at_journal = commit
        if len(self._commits) == 1:
            self._urgent = self._due = False
        self.batches_sent += 1
        try:
            self._journal.submit((batch,), critical=commit.critical, on_done=commit)
        except StepwellError as error:
            self._at_journal = None
            self.fail_pending(error)

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
        if self._pending and self._interval is not None and not self._due:
            self._flusher.schedule(self)
        commit.resolve(first_lsn, None)
        if self.should_send or self.full or self.is_wanted or self.state.value == "draining":
            self.send_or_wake()

    @trio.lowlevel.enable_ki_protection
    def fail_pending(self, error: StepwellError) -> None:
        """Give up everything accepted whose result is not known, and have the task rebuild from the log."""
        self.failure = error
        self.accepting = False
        self.organisation = None
        if self.state.value in ("live", "draining", "ended"):
            self.state.value = "waking"
        self.drain()
        self.in_hand.clear()
        commits, self._open = list(self._commits), None
        self._at_journal = None  # what is on its way there is given up as well; its result will find nobody
        self._commits.clear()
        self._pending = 0
        self._urgent = self._due = False
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

    @property
    def is_idle(self) -> bool:
        """Whether nothing is accepted that is not stored."""
        return not self._commits and self._at_journal is None

    # ---- going to sleep ----------------------------------------------------------------------------------------------

    def touch(self) -> None:
        """The episode is used."""
        self.used = next(self._uses)

    @trio.lowlevel.enable_ki_protection
    async def wait_awake(self) -> str:
        """Wait while the episode is being rebuilt, and give its state. Until the caller has its turn it stays awake.

        Cancelling the caller does not stop the rebuild. A checkpoint.
        """
        self.touch()
        self.want()
        try:
            await self.state.wait_value(lambda value: value != "waking")
        finally:
            self.unwant()
        return self.state.value

    def want(self) -> None:
        """Keep it in memory until `unwant`, and its task as well if it has ended."""
        self.wanted_by += 1

    def unwant(self) -> None:
        """See `want`."""
        self.wanted_by -= 1
        if self.state.value == "ended":
            self.wake()

    @property
    def is_awake(self) -> bool:
        """Whether its task runs and it has not ended."""
        return self.state.value in ("live", "draining", "waking")

    @property
    def is_wanted(self) -> bool:
        """Whether somebody needs it in memory, though everything accepted may be stored."""
        return self.ending_request is not None or self.deleting or self.locked or self.wanted_by > 0

    @property
    def may_drain(self) -> bool:
        """Whether it can go to sleep once everything accepted is stored. With manual batches nothing is sent for it."""
        return (
            self.state.value == "live"
            and self.accepting
            and not self.is_wanted
            and (self.is_idle or (self._gate.is_open and self._config.batch.auto_flush))
        )

    async def wait_result(self) -> None:
        """Return once the batch at the journal, if any, has a result."""
        while self._at_journal is not None:
            await self._at_journal.wait()

    # ---- rebuilding --------------------------------------------------------------------------------------------------

    def restore(
        self,
        last_seq: int,
        last_ns: int,
        steps: int,
        organisation: Organisation | None,
        keyed: Iterable[tuple[ExecutionStep, int, int]],
    ) -> None:
        """Take over what the log says (`keyed`: the steps with keys, their seq and LSN); behind it comes what is still
        in hand or in the mailbox."""
        self._keys.restore(keyed)
        self._last_ns = max(self._last_ns, last_ns)
        if self._commits:
            return  # accepted and not stored yet: the numbers given out before the restart stay
        self._next_seq = last_seq + 1
        self._steps = steps
        self.organisation = organisation

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

    def release_callers(self) -> None:
        """Have callers that wait for room look again."""
        if self._room is not None:
            self._room.unpark_all()
            self._room = None

    def close(self) -> None:
        """The episode's task is gone for good."""
        self.accepting = False
        self._mailbox.close()
        self.mail.close()
        self.release_callers()
