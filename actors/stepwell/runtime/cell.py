"""The cell of an episode: what must outlive an incarnation of its task. Here is its door, in the caller's task.

Accepting is one synchronous section in the caller's task: check, encode, take the next seq, enqueue. So an accepted
step has its number, cannot be refused afterwards, and a cancelled caller leaves no gap. What becomes of it then is in
`cell_mailbox`; how the task of the cell is, in `cell_life`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import trio

from stepstore.journal import Batch, Journal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from stepwell.errors import Closed, InvalidInput, InvalidState, Rejected, StepwellError, TooLarge
from stepwell.model import validation as check
from stepwell.model.codec import encode_step
from stepwell.model.ids import EpisodeId
from stepwell.model.organising import Change, Organisation, OrganisingRecord, encode_organising
from stepwell.model.redaction import Redaction
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell_mailbox import PER_RECORD, CellMailbox, Flusher
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.keys import StagedStep
from stepwell.runtime.receipt import Commit, Receipt
from stepwell.runtime.untold import UntoldFailures


class EpisodeCell(CellMailbox):
    """See the module. `organisation`: how the episode is organised, None until somebody has asked."""

    __slots__ = ("_limits", "_steps", "_steps_allowed", "organisation", "redaction")

    def __init__(
        self,
        episode_id: EpisodeId,
        journal: Journal,
        config: MemoryConfig,
        flusher: Flusher,
        uses: Iterator[int],
        untold: UntoldFailures,
    ):
        super().__init__(episode_id, journal, config, flusher, uses, untold)
        self.organisation: Organisation | None = None
        self.redaction: Redaction | None = None
        self._limits = config.limits
        self._steps_allowed = config.limits.steps_per_episode
        self._steps = 0

    # ---- accepting ---------------------------------------------------------------------------------------------------

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
        receipt = self._enqueue(payload, 1, len(payload) + PER_RECORD)
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
        size = sum(map(len, payloads)) + PER_RECORD * len(payloads)
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
        receipt = self._enqueue(payload, 1, len(payload) + PER_RECORD, flags=FLAG_OPENS)
        receipt._commit.asked_again = 1
        return receipt

    @trio.lowlevel.enable_ki_protection
    def accept_ending(self, payload: bytes, time_ns: int) -> Receipt:
        """Accept the record that ends the episode; it may use the reserve of a full disk."""
        self._last_ns = max(self._last_ns, time_ns)
        receipt = self._enqueue(payload, 1, len(payload) + PER_RECORD, flags=FLAG_CLOSES, critical=True)
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
        receipt = self._enqueue(payload, 1, len(payload) + PER_RECORD)
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
        size = sum(map(len, payloads)) + PER_RECORD * len(payloads)
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
        return self._enqueue(payload, 1, len(payload) + PER_RECORD)

    def now_ns(self) -> int:
        """The time of a record accepted now: never before that of an earlier one."""
        return self.time_from(time.time_ns())

    def time_from(self, clock_ns: int) -> int:
        """The time of a record accepted while the clock says `clock_ns`."""
        return max(clock_ns, self._last_ns)

    # ---- transactions ------------------------------------------------------------------------------------------------

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

    # ---- what the log says -------------------------------------------------------------------------------------------

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

    @trio.lowlevel.enable_ki_protection
    def fail_pending(self, error: StepwellError) -> None:
        """Give up everything accepted whose result is not known, and have the task rebuild from the log."""
        super().fail_pending(error)
        self.organisation = None
