"""The task of one episode: rebuild from the log → incarnation → backoff → again.

An incarnation is a function, not a second task. Whatever it loses is in the cell or in the log, so any exception in it
costs a restart and nothing else. There is no "go on with the old state": after a failure of the journal the outcome is
unknown, and only the log can tell.
"""

from __future__ import annotations

import logging

import trio

from stepstore.journal import Journal, Record
from stepstore.restarting import Backoff, error_text
from stepwell.errors import EpisodeUnavailable, InvalidState, OutcomeUnknown, StepwellError, Unavailable
from stepwell.learning import analyse_completion
from stepwell.model.codec import decode_record, decode_step
from stepwell.model.ending import Ending, encode_ending
from stepwell.model.event import utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.limits import Limits
from stepwell.model.step import ExecutionStep
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.oversight import Oversight
from stepwell.runtime.passivation import finish_drain
from stepwell.runtime.reading import fold_episode
from stepwell.runtime.receipt import Commit, Receipt

_logger = logging.getLogger("stepwell.runtime")


@trio.lowlevel.enable_ki_protection
async def episode_task(
    cell: EpisodeCell,
    journal: Journal,
    limits: Limits,
    oversight: Oversight,
    rebuilds: trio.CapacityLimiter,
    *,
    fresh: bool,
) -> None:
    """Run the episode until it has ended, is asleep or parked, or turns out not to exist. `fresh`: nothing of it is
    stored yet. `rebuilds`: how many read the log at a time; first come, first served.

    Never raises but `Cancelled`: one bad episode touches no other.
    """
    lifecycle, backoff = oversight.lifecycle, Backoff(oversight.policy)
    told = False
    while True:
        stored = _stored_seq(cell, journal, 0)
        backoff.begin(trio.current_time(), stored)
        was_ending = fresh or cell.ending_request is not None
        try:
            if fresh or await _rebuild_in_turn(cell, journal, rebuilds):
                if not fresh and lifecycle.watchers:
                    lifecycle.tell("live", episode_id=cell.episode_id)
                fresh, was_ending = False, True
                await run_incarnation(cell, journal, limits)
            if cell.state.value == "ended":
                if was_ending and not told and lifecycle.watchers:
                    lifecycle.tell("ended", episode_id=cell.episode_id)
                told = True
                await serve_ended(cell, journal)
            elif cell.state.value == "asleep" and lifecycle.watchers:
                lifecycle.tell("asleep", episode_id=cell.episode_id)
            return
        except Exception as error:
            fresh = False
            delay = backoff.failed(trio.current_time(), _stored_seq(cell, journal, stored))
            cell.restarts += 1
            cell.failure = error
            cell.accepting = False
            if cell.deleting:
                cell.fail_pending(OutcomeUnknown(f"not stored before its episode was deleted: {error_text(error)}"))
                cell.state.value = "gone"
                return
            if isinstance(error, EpisodeUnavailable) or delay is None:
                _park(cell, error, backoff.failures)
                if lifecycle.watchers:
                    lifecycle.tell("parked", episode_id=cell.episode_id, detail=str(cell.failure))
                return
            if isinstance(error, Unavailable) and not cell.pending_commits:
                _give_up_for_now(cell, error)
                if lifecycle.watchers:
                    lifecycle.tell("unavailable", episode_id=cell.episode_id, detail=str(error))
                return
            cell.state.value = "waking"
            oversight.restarts += 1
            why = error_text(error)
            _logger.warning("episode %r failed (%s); restarting from the log in %.1f s", cell.episode_id, why, delay)
            if lifecycle.watchers:
                detail = f"{why}; it runs again in {delay:.1f} s"
                lifecycle.tell("restarted", episode_id=cell.episode_id, detail=detail)
            with trio.move_on_after(delay):
                while not cell.deleting:
                    await trio.lowlevel.wait_task_rescheduled(cell.until_woken())


def _stored_seq(cell: EpisodeCell, journal: Journal, otherwise: int) -> int:
    """How far the episode is stored; `otherwise` where the medium has to tell and fails to: that, too, concerns this
    episode only."""
    try:
        return journal.durable_seq(cell.stream)
    except (StepwellError, OSError):
        return otherwise


@trio.lowlevel.enable_ki_protection
def _park(cell: EpisodeCell, error: Exception, failures: int) -> None:
    if isinstance(error, EpisodeUnavailable):
        unavailable = error
    else:
        unavailable = EpisodeUnavailable(
            f"episode {cell.episode_id!r} is parked after {failures} failures in a row, the last: {error_text(error)}. "
            "Its stored steps can be read; reopen the memory to try again.",
            reason="parked",
        )
        unavailable.__cause__ = error
    _logger.error("%s", unavailable)
    unknown = OutcomeUnknown(f"not stored before its episode was parked: {error_text(error)}")
    unknown.__cause__ = error
    cell.fail_pending(unknown)
    cell.failure = unavailable
    if cell.ending_request is not None:
        cell.ending_request.finish(error=unavailable)
    cell.state.value = "parked"


def _give_up_for_now(cell: EpisodeCell, error: Unavailable) -> None:
    """Nothing is in hand and the log cannot be read, for want of a key: who asked is told; asking again tries again."""
    if cell.ending_request is not None:
        cell.ending_request.finish(error=error)
    cell.state.value = "parked"


async def _rebuild_in_turn(cell: EpisodeCell, journal: Journal, rebuilds: trio.CapacityLimiter) -> bool:
    await cell.wait_result()  # first: a slow medium must not keep others from reading
    async with rebuilds:
        return await rebuild(cell, journal)


async def rebuild(cell: EpisodeCell, journal: Journal) -> bool:
    """Make the cell say what the log says; what is in hand comes behind it. False if the episode is over.

    What is in hand is stored even if the episode is to be deleted: whoever holds its receipts waits for a result.
    Raises: `EpisodeUnavailable`, `Unavailable`, `RecoveryFailed`.
    """
    if cell.deleting and not cell.pending_commits:
        cell.state.value = "gone"
        return False
    if not await journal.look_up(cell.stream):
        if cell.pending_commits:
            _go_live(cell)
            return True
        cell.state.value = "gone"
        return False
    fold, keyed = await fold_episode(journal, cell.episode_id)
    pending = cell.pending_commits
    if pending and pending[0].first_seq != fold.last_seq + 1:
        cell.fail_pending(OutcomeUnknown("what was accepted no longer continues what the log holds"))
    cell.restore(fold.last_seq, fold.last_ns, len(fold.steps), fold.organisation, map(_keyed_step, keyed))
    if fold.ending is not None:
        _take_stored_ending(cell, fold)
        return False
    _go_live(cell)
    return True


def _go_live(cell: EpisodeCell) -> None:
    cell.failure = None
    cell.state.value, cell.accepting = "live", not cell.intake_stopped


def _keyed_step(record: Record) -> tuple[ExecutionStep, int, int]:
    decoded = decode_record(record.payload, f"record {record.seq} of an episode")
    return decode_step(decoded.data, decoded.meta), record.seq, record.lsn


def _take_stored_ending(cell: EpisodeCell, fold: EpisodeFold) -> None:
    request = cell.ending_request or EndingRequest(fold.ending.outcome, {})  # type: ignore[union-attr]
    cell.ending_request = request
    request.ending = fold.ending
    request.receipt = Receipt(fold.end_seq, Commit.stored(fold.end_seq, fold.end_lsn))
    request.finish()
    cell.accepting, cell.failure = False, None
    cell.state.value = "ended"


async def run_incarnation(cell: EpisodeCell, journal: Journal, limits: Limits) -> None:
    """Batch what the mailbox holds and give it to the journal, until the episode has ended or is asleep.

    It sleeps until there is a full batch, a waiter, or a batch whose time has come; then it drains everything and
    sends one batch. While that is on its way, the next one gathers.
    """
    while True:
        if cell.failure is not None:
            raise cell.failure
        if cell.should_send:
            await journal.wait_room()
            if cell.should_send:
                cell.send()
        elif (cell.deleting and cell.is_idle) or cell.state.value == "gone":
            cell.state.value = "gone"
            return
        elif cell.ending_request is not None and cell.is_idle:
            if await _write_ending(cell, journal, limits, cell.ending_request):
                return
        elif cell.is_holding_back:
            cell.drain()
        elif cell.state.value == "draining" and (cell.is_idle or cell.used != cell.drained_at):
            if finish_drain(cell):
                return
        else:
            await trio.lowlevel.wait_task_rescheduled(cell.until_woken())


async def serve_ended(cell: EpisodeCell, journal: Journal) -> None:
    """Store what organises an episode that has ended, until nobody wants anything of it any more.

    It returns in the same synchronous section in which it finds that, so that nobody finds a cell without a task.
    """
    while True:
        if cell.failure is not None:
            raise cell.failure
        if cell.should_send:
            await journal.wait_room()
            if cell.should_send:
                cell.send()
        elif cell.is_idle and (cell.deleting or not cell.wanted_by):
            return
        elif cell.is_holding_back:
            cell.drain()
        else:
            await trio.lowlevel.wait_task_rescheduled(cell.until_woken())


async def _write_ending(cell: EpisodeCell, journal: Journal, limits: Limits, request: EndingRequest) -> bool:
    """Work out what an ending says and store it. Everything before it is durable. False if it could not be stored.

    One that was recorded as an event is stored by now.
    """
    if request.ending is not None:
        _end(cell, request)
        return True
    fold, _keyed = await fold_episode(journal, cell.episode_id)
    now_ns = cell.now_ns()
    episode = fold.episode(outcome=request.outcome, end_ns=now_ns)
    analysis = analyse_completion(episode, now=utc(now_ns))
    try:
        payload = encode_ending(request.outcome, analysis, request.metadata, now_ns, limits, request.actor)
    except StepwellError as error:
        cell.ending_request = None
        request.finish(error=error)
        return False
    receipt = cell.accept_ending(payload, now_ns)
    request.is_sent = True
    cell.make_urgent()
    cell.send()
    try:
        await receipt.wait_durable()
    except OutcomeUnknown:
        return False  # `fail_pending` has told the caller, and the next look at the cell restarts this incarnation
    request.receipt = receipt
    request.ending = Ending(
        outcome=request.outcome,
        reward=analysis.reward,
        reflection=analysis.reflection,
        summary=analysis.summary,
        formula_version=analysis.formula_version,
        created_at=analysis.created_at,
        metadata=request.metadata,
        actor=request.actor,
    )
    _end(cell, request)
    return True


@trio.lowlevel.enable_ki_protection
def _end(cell: EpisodeCell, request: EndingRequest) -> None:
    cell.accepting = False
    cell.state.value = "ended"
    request.finish()


def ended_error(episode_id: str) -> InvalidState:
    """The error for a step to an episode that is over."""
    return InvalidState(f"episode {episode_id!r} has ended and takes no more steps; start another")


def being_deleted(episode_id: str) -> InvalidState:
    """The error for whatever would change an episode that is being deleted."""
    return InvalidState(f"episode {episode_id!r} is being deleted, and its id is never used again; use another id")
