"""The task of one stream that is no episode: rebuild from the log → incarnation → backoff → again.

As `episode_task`, without an ending, and without a beginning: a stream that holds nothing is live as well.
"""

from __future__ import annotations

import logging

import trio

from stepstore.errors import Damaged, Forked, KeyDestroyed
from stepstore.journal import Journal
from stepstore.restarting import Backoff, error_text
from stepwell.errors import OutcomeUnknown, StepwellError, Unavailable
from stepwell.model.limits import Limits
from stepwell.runtime.episode_task import run_incarnation
from stepwell.runtime.oversight import Oversight
from stepwell.runtime.stream_cell import StreamCell
from stepwell.runtime.stream_reading import find_generation, last_time

_logger = logging.getLogger("stepwell.runtime")
_UNSOUND = (Damaged, Forked, KeyDestroyed)


@trio.lowlevel.enable_ki_protection
async def stream_task(
    cell: StreamCell, journal: Journal, limits: Limits, oversight: Oversight, rebuilds: trio.CapacityLimiter
) -> None:
    """Run the stream until it is asleep, parked, or stopped to be cleared.

    Never raises but `Cancelled`: one bad stream touches no other.
    """
    backoff = Backoff(oversight.policy)
    while True:
        stored = _stored_seq(cell, journal, 0)
        backoff.begin(trio.current_time(), stored)
        try:
            await cell.wait_result()  # first: a slow medium must not keep others from reading
            async with rebuilds:
                await _rebuild(cell, journal)
            await run_incarnation(cell, journal, limits)
            return
        except Exception as error:
            delay = backoff.failed(trio.current_time(), _stored_seq(cell, journal, stored))
            cell.restarts += 1
            cell.failure, cell.accepting = error, False
            if cell.deleting:
                cell.fail_pending(OutcomeUnknown(f"not stored before it was cleared: {error_text(error)}"))
                cell.state.value = "gone"
                return
            if isinstance(error, _UNSOUND) or delay is None:
                _park(cell, error, backoff.failures)
                return
            if isinstance(error, Unavailable) and not cell.pending_commits:
                cell.state.value = "parked"  # for now: asking again tries again
                return
            cell.state.value = "waking"
            oversight.restarts += 1
            _logger.warning(
                "%s %r failed (%s); restarting from the log in %.1f s",
                cell.kind.noun,
                cell.name,
                error_text(error),
                delay,
            )
            with trio.move_on_after(delay):
                while not cell.deleting:
                    await trio.lowlevel.wait_task_rescheduled(cell.until_woken())


def _stored_seq(cell: StreamCell, journal: Journal, otherwise: int) -> int:
    if not cell.generation:
        return otherwise
    try:
        return journal.durable_seq(cell.stream)
    except (StepwellError, OSError):
        return otherwise


@trio.lowlevel.enable_ki_protection
def _park(cell: StreamCell, error: Exception, failures: int) -> None:
    if isinstance(error, _UNSOUND):
        told = f"{cell.kind.noun} {cell.name!r} cannot be read: {error}"
    else:
        told = (
            f"{cell.kind.noun} {cell.name!r} is parked after {failures} failures in a row, the last: "
            f"{error_text(error)}. Reopen the memory to try again."
        )
    unavailable = Unavailable(told)
    unavailable.__cause__ = error
    _logger.error("%s", unavailable)
    unknown = OutcomeUnknown(f"not stored before its stream was parked: {error_text(error)}")
    unknown.__cause__ = error
    cell.fail_pending(unknown)
    cell.failure, cell.stays_parked = unavailable, True
    cell.state.value = "parked"


async def _rebuild(cell: StreamCell, journal: Journal) -> None:
    """Make the cell say what the log says; what is in hand comes behind it."""
    if not cell.generation:
        cell.use_generation(await find_generation(journal, cell.kind.name, cell.name))
    last_seq = await journal.look_up(cell.stream)
    pending = cell.pending_commits
    if pending and pending[0].first_seq != last_seq + 1:
        cell.fail_pending(OutcomeUnknown("what was accepted no longer continues what the log holds"))
    if cell.contents is None:
        contents = cell.kind.new_state()
        last_ns = await last_time(journal, cell.stream, last_seq)
        await contents.restore(journal, cell.stream, last_seq)
        _take(cell, last_seq, last_ns)
        cell.contents = contents
    cell.failure = None
    cell.state.value, cell.accepting = "live", not cell.intake_stopped


def _take(cell: StreamCell, last_seq: int, last_ns: int) -> None:
    cell.restore(last_seq, last_ns, 0, None, ())
