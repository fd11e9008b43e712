"""Recording events of a run into the episode that it is.

Lenient, unlike logging: a run begins with whatever comes first, and what comes behind its ending is kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import trio

from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepstore.log.frame import MAX_BATCH_BYTES, batch_cost
from stepwell.errors import InvalidInput, NotFound, Rejected, TooLarge
from stepwell.model.codec import encode_step
from stepwell.model.ids import EpisodeId
from stepwell.model.limits import Limits
from stepwell.model.plain_step import SHORT_TEXT_BYTES
from stepwell.model.redaction import Redaction
from stepwell.model.run_event import LlmCall, RunEvent, Started, ToolCall
from stepwell.model.run_record import (
    checked_event,
    encode_event,
    encode_implied_start,
    encode_plain_llm_call,
    encode_recorded_ending,
    encode_started,
    is_ending,
    outcome_of,
    recorded_ending,
    step_of_tool_call,
)
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.ending_request import EndingRequest
from stepwell.runtime.episode_task import being_deleted
from stepwell.runtime.receipt import Receipt
from stepwell.runtime.supervisor import Supervisor


class Recording:
    """Checked events of one run as the records they become at one time.

    `begins`: they are the first of the run. `may_end`: it has no ending yet. `steps`: how many of them are steps;
    `flags`: of their batch; `request`: the ending that they bring with them, None if they bring none.
    """

    def __init__(
        self,
        run_id: str,
        events: Sequence[RunEvent],
        time_ns: int,
        limits: Limits,
        *,
        begins: bool = False,
        may_end: bool = True,
    ):
        self.payloads: list[bytes] = []
        self.steps = 0
        self.flags = FLAG_OPENS if begins else 0
        self.request: EndingRequest | None = None
        self.time_ns = time_ns
        if begins and type(events[0]) is not Started:
            self.payloads.append(encode_implied_start(run_id, time_ns, limits))
        for place, event in enumerate(events):
            try:
                if type(event) is Started and begins and not place:
                    self.payloads.append(encode_started(event, run_id, time_ns, limits))
                elif may_end and is_ending(event):
                    may_end = False
                    self.payloads.append(encode_recorded_ending(event, time_ns, limits))
                    self.flags |= FLAG_CLOSES
                    self.request = EndingRequest(outcome_of(event), {})
                    self.request.ending = recorded_ending(event, time_ns)
                else:
                    self.payloads.append(encode_event(event, time_ns, limits))
                    self.steps += type(event) is ToolCall
            except Rejected as error:
                if len(events) == 1:
                    raise
                raise type(error)(f"events[{place}]: {error}") from error
        size = batch_cost(sum(map(len, self.payloads)), len(self.payloads))
        if len(self.payloads) > 1 and size > min(MAX_BATCH_BYTES, limits.record_bytes):
            raise TooLarge(f"events: {size:,} bytes in one batch exceed {limits.record_bytes:,}; split it")


async def record(supervisor: Supervisor, run_id: EpisodeId, events: Sequence[RunEvent]) -> Receipt:
    """Have checked events accepted, all or none, in the order of the calls. A checkpoint; cancelled, none is accepted.

    Raises: `InvalidInput`, `TooLarge`, `InvalidState` (the run is being deleted, or was), `EpisodeUnavailable`,
    `Unavailable`, `Closed`, `LogFull`.
    """
    while True:
        supervisor.check_open()
        await supervisor.check_not_deleted(run_id)
        if not supervisor.exists(run_id):
            return begin_run(supervisor, run_id, events)
        try:
            cell = await supervisor.found(run_id)
        except NotFound:
            continue  # its start, by another caller, did not reach the log
        cell.want()  # its task is still there, and now it stays
        try:
            if await takes_events(supervisor, cell):
                return accept(supervisor, cell, events)
        finally:
            cell.unwant()


async def takes_events(supervisor: Supervisor, cell: EpisodeCell) -> bool:
    """Wait until the run takes events, which it does until the next checkpoint. False if there is none any more.

    Raises: as `record`.
    """
    while True:
        state = await cell.wait_awake()
        if state == "waking":
            continue  # it failed between waking and now
        if state == "draining":
            supervisor.passivator.cancel_drain(cell)
            state = cell.state.value
        supervisor.check_usable(cell, state)
        if state not in ("live", "ended"):
            return False
        if cell.deleting:
            raise being_deleted(cell.episode_id)
        supervisor.check_open()
        request = cell.ending_request
        if request is not None and request.ending is None:
            await request.done.wait()  # it is being analysed, and what comes now comes behind it
        elif cell.full:
            await cell.wait_room()
        else:
            return True


@trio.lowlevel.enable_ki_protection
def accept(supervisor: Supervisor, cell: EpisodeCell, events: Sequence[RunEvent]) -> Receipt:
    """Accept events of a run that takes them, with room for them. Raises: as `record`; then none is accepted."""
    recording = Recording(
        cell.episode_id, events, cell.now_ns(), supervisor.config.limits, may_end=cell.ending_request is None
    )
    supervisor.journal.check_open(critical=recording.request is not None)
    return _take(cell, recording)


@trio.lowlevel.enable_ki_protection
def begin_run(supervisor: Supervisor, run_id: EpisodeId, events: Sequence[RunEvent]) -> Receipt:
    """Begin a run with these events: its cell, its task, its first records accepted. One synchronous section."""
    supervisor.check_open()
    supervisor.journal.check_open()
    recording = Recording(run_id, events, time.time_ns(), supervisor.config.limits, begins=True)
    return _take(supervisor.add_fresh(run_id), recording)


def _take(cell: EpisodeCell, recording: Recording) -> Receipt:
    return cell.accept_recorded(
        recording.payloads, recording.steps, recording.time_ns, recording.flags, recording.request
    )


def accept_one(cell: EpisodeCell, event: RunEvent, limits: Limits, redaction: Redaction | None) -> Receipt:
    """Check and accept an event of a run that is live and has no ending, with room for it; it is no ending itself.

    Raises: as `record`; then it is not accepted.
    """
    now = cell.now_ns()
    kind = type(event)
    if redaction is None:
        try:
            if kind is ToolCall:
                step = step_of_tool_call(event)  # type: ignore[arg-type]
                if step is not None:
                    return cell.accept_event(encode_step(step, now, limits), now, is_step=True)
            elif kind is LlmCall and limits.text_bytes >= SHORT_TEXT_BYTES:
                payload = encode_plain_llm_call(event, now)  # type: ignore[arg-type]
                if payload is not None and len(payload) <= limits.record_bytes:
                    return cell.accept_event(payload, now, is_step=False)
        except (InvalidInput, TooLarge):
            pass  # what follows says it of the event, and takes what is no step
    event = checked_event(event, limits, redaction)
    return cell.accept_event(encode_event(event, now, limits), now, is_step=kind is ToolCall)
