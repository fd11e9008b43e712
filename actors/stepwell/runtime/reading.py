"""Episodes and their events, read from the journal. Needs no actor: the log is the truth."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from operator import attrgetter

import msgspec
import trio

from stepstore.errors import Damaged, Forked, KeyDestroyed
from stepstore.journal import Journal, Record, RecordSlices
from stepwell.errors import EpisodeUnavailable, InvalidInput, NotFound, RecoveryFailed, Unavailable
from stepwell.model.codec import decode_record, envelope_of, event_data
from stepwell.model.event import Event, utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, stream_id
from stepwell.model.start import decode_start
from stepwell.model.step_decoding import are_steps

_payload = attrgetter("payload")

UNREADABLE = (Damaged, Forked, KeyDestroyed, Unavailable, InvalidInput)
"""What reading one stream may raise that says nothing about any other: its bytes, or its key."""


def not_found(episode_id: str) -> NotFound:
    """The error for an id under which there is no episode."""
    return NotFound(f"there is no episode {episode_id!r} in this memory; `stepwell list` shows those there are")


async def fold_episode(
    journal: Journal, episode_id: EpisodeId, *, partial: bool = False, catch_up: bool = False
) -> tuple[EpisodeFold, list[Record]]:
    """Fold the durable records of an episode; gives the keyed records too. With `partial`, what is sound of it. With
    `catch_up`, as `Journal.read`.

    Raises: `NotFound`, `EpisodeUnavailable`, `Unavailable`, `RecoveryFailed`.
    """
    fold = EpisodeFold(episode_id)
    keyed: list[Record] = []
    slices = journal.read(stream_id(EPISODE_STREAM, episode_id), catch_up=catch_up)
    try:
        while records := await _next_slice(journal, slices, episode_id):
            fold_records(fold, records, keyed)
    except EpisodeUnavailable:
        if not partial or fold.start is None:
            raise
    if fold.start is None:
        raise not_found(episode_id)
    return fold, keyed


def fold_records(fold: EpisodeFold, records: list[Record], keyed: list[Record]) -> None:
    """Fold records, and add those with a key to `keyed`: each run of steps at once, everything else one by one.

    Raises: `EpisodeUnavailable`, with all before the record folded that is not sound.
    """
    which = are_steps(map(_payload, records))
    if False not in which:  # nearly every slice but the first and the last of an episode
        _fold_steps(fold, records, keyed)
        return
    at = 0
    for is_step, run in itertools.groupby(which):
        end = at + len(list(run))
        if is_step:
            _fold_steps(fold, records[at:end], keyed)
        else:
            _fold_each(fold, records[at:end], keyed)
        at = end


def _fold_steps(fold: EpisodeFold, records: list[Record], keyed: list[Record]) -> None:
    _streams, seqs, lsns, payloads = zip(*records, strict=True)
    with_key = fold.add_steps(seqs, lsns, payloads) if seqs[0] > 1 else None  # the first record is to have a name
    if with_key is not None:
        keyed += [records[place] for place in with_key]
    elif len(records) > 1:
        half = len(records) // 2
        _fold_steps(fold, records[:half], keyed)
        _fold_steps(fold, records[half:], keyed)
    else:
        _fold_each(fold, records, keyed)


def _fold_each(fold: EpisodeFold, records: list[Record], keyed: list[Record]) -> None:
    for record in records:
        decoded = decode_record(record.payload, f"record {record.seq} of episode {fold.episode_id!r}")
        if record.seq == 1:
            _check_name(decoded.meta, fold.episode_id)
        fold.add(record.seq, record.lsn, decoded)
        if decoded.meta is not None and "key" in decoded.meta:
            keyed.append(record)


async def _next_slice(journal: Journal, slices: RecordSlices, episode_id: str) -> list[Record]:
    try:
        found = await slices.next_slice()
    except KeyDestroyed as error:
        if journal.is_deleted(stream_id(EPISODE_STREAM, episode_id)):
            raise not_found(episode_id) from error  # deleted while it was being read
        raise EpisodeUnavailable(f"episode {episode_id!r} cannot be read: {error}", reason="undecodable") from error
    except (Unavailable, InvalidInput) as error:  # of the key provider
        raise Unavailable(f"episode {episode_id!r} cannot be read now: {error}") from error
    except (Damaged, Forked) as error:
        reason = "forked" if isinstance(error, Forked) else "damaged"
        raise EpisodeUnavailable(
            f"episode {episode_id!r} is {reason}: {error} get_episode(…, partial=True) returns what is sound of it.",
            reason="forked" if reason == "forked" else "damaged",
        ) from error
    if not found and journal.is_deleted(stream_id(EPISODE_STREAM, episode_id)):
        raise not_found(episode_id)  # what was read before is not all of it
    return found


def _check_name(meta: dict[str, object] | None, episode_id: str) -> None:
    stored = None if meta is None else meta.get("id")
    if stored != episode_id:
        raise EpisodeUnavailable(
            f"the stream of episode {episode_id!r} belongs to {stored!r} (their names collide on disk)",
            reason="undecodable",
        )


async def last_time_ns(journal: Journal, stream: bytes) -> int:
    """The time of the last durable record of a stream; 0 where that cannot be read, which says nothing. A checkpoint.

    Raises: `Closed`.
    """
    try:
        last = await journal.read(stream, max(await journal.look_up(stream) - 1, 0)).next_slice()
        return envelope_of(last[-1].payload, "the last record of an episode")[1] if last else 0
    except (*UNREADABLE, EpisodeUnavailable, RecoveryFailed):
        return 0


class EpisodeEvents:
    """The events of one episode, oldest first: an async iterator in bounded memory with nothing to close.

    A checkpoint once per slice of at most 256 events. Cancelled or failed, it goes on where it was. Raises what
    `get_episode` raises.
    """

    def __init__(self, journal: Journal, episode_id: EpisodeId, after: int, settle: Callable[[], Awaitable[None]]):
        self._journal, self._id, self._after, self._settle = journal, episode_id, after, settle
        self._slices: RecordSlices | None = None
        self._ready: deque[Record] = deque()
        self._cursor = journal.cursor

    def __aiter__(self) -> EpisodeEvents:
        return self

    async def __anext__(self) -> Event:
        if not self._ready:
            if self._slices is None:
                await self._settle()
                stream = stream_id(EPISODE_STREAM, self._id)
                if not await self._journal.look_up(stream) or self._journal.is_deleted(stream):
                    raise not_found(self._id)
                self._slices = self._journal.read(stream, self._after)
            self._ready.extend(await _next_slice(self._journal, self._slices, self._id))
            if not self._ready:
                raise StopAsyncIteration
        event = event_of(self._ready[0], self._id, self._cursor)
        self._ready.popleft()  # only now: failed, it goes on where it was
        return event


def event_of(record: Record, episode_id: str, cursor: Callable[[int], str]) -> Event:
    """One record as the event it is.

    Raises: `EpisodeUnavailable` (reason "undecodable").
    """
    _stream, seq, lsn, payload = record
    kind, time_ns, version = envelope_of(payload, f"a record of episode {episode_id!r}")
    return Event(episode_id, kind, seq, lsn, time_ns, version, payload, event_data, cursor)


class OpenEpisode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode without an ending: what its first record says, and how many records it has."""

    episode_id: str
    task_description: str
    task_type: str
    agent: str
    start_time: dt.datetime
    last_seq: int


async def first_record(journal: Journal, stream: bytes) -> tuple[str, str, Record] | None:
    """(kind of stream, its id as text, its first record), None if it has none, or that says neither.

    Raises: UNREADABLE, `RecoveryFailed`.
    """
    found = await journal.read(stream).next_slice()
    if not found:
        return None
    meta = decode_record(found[0].payload, "the first record of a stream").meta
    if meta is None or not isinstance(meta.get("id"), str) or not isinstance(meta.get("stream"), str):
        return None
    return meta["stream"], meta["id"], found[0]


async def read_open_episode(journal: Journal, stream: bytes) -> OpenEpisode | None:
    """What is known of the open episode in `stream`; None if it is no sound episode."""
    try:
        found = await first_record(journal, stream)
        if found is None or found[0] != EPISODE_STREAM:
            return None
        decoded = decode_record(found[2].payload, "a first record")
        start = decode_start(decoded.data)
    except (*UNREADABLE, msgspec.ValidationError):
        await trio.lowlevel.checkpoint()
        return None
    return OpenEpisode(
        episode_id=found[1],
        task_description=start.task,
        task_type=start.task_type,
        agent=start.agent,
        start_time=utc(decoded.time_ns),
        last_seq=journal.durable_seq(stream),
    )
