"""The events of one run, read from the journal."""

from __future__ import annotations

import msgspec

from stepwell.errors import EpisodeUnavailable, NotFound
from stepwell.model.codec import decode_record
from stepwell.model.event import Event
from stepwell.model.ids import EpisodeId
from stepwell.model.run_record import RUN_KINDS, RecordedEvent, event_of_record
from stepwell.runtime.reading import EpisodeEvents


class RunEvents:
    """The events of one run, oldest first: an async iterator in bounded memory with nothing to close.

    A checkpoint once per slice of at most 256 records. Cancelled or failed, it goes on where it was. Raises what
    `EpisodicPort.replay` raises.
    """

    def __init__(self, events: EpisodeEvents, run: EpisodeId):
        self._events, self._run = events, run

    def __aiter__(self) -> RunEvents:
        return self

    async def __anext__(self) -> RecordedEvent:
        while True:
            try:
                found = await self._events.__anext__()
            except NotFound:
                raise StopAsyncIteration from None
            recorded = recorded_of(found, self._run)
            if recorded is not None:
                return recorded


def recorded_of(found: Event, run: str) -> RecordedEvent | None:
    """A record of a run as the event it is, None if it is none. Raises: `EpisodeUnavailable` (undecodable)."""
    if found.kind not in RUN_KINDS:
        return None
    what = f"record {found.seq} of run {run!r}"
    try:
        event = event_of_record(decode_record(found._payload, what))
    except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
        raise EpisodeUnavailable(f"{what} is no sound event: {error}", reason="undecodable") from error
    return None if event is None else RecordedEvent(found.seq, found.lsn, found.time_ns, event)
