"""Reading episodes, their events, and the events of all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable

from stepwell.errors import InvalidInput
from stepwell.memory.core import MemoryCore, checked_id_in_turn
from stepwell.memory.following import START, Following, Place
from stepwell.model import validation as check
from stepwell.model.episode import Episode
from stepwell.model.ids import EPISODE_STREAM, EpisodeId, checked_id, stream_id
from stepwell.runtime.reading import (
    UNREADABLE,
    EpisodeEvents,
    OpenEpisode,
    first_record,
    fold_episode,
    read_open_episode,
)
from stepwell.runtime.right_loop import checkpoint


class EpisodeReading(MemoryCore):
    """The part of a memory that shows what it holds."""

    async def get_episode(self, episode_id: str, *, partial: bool = False) -> Episode:
        """The episode with everything accepted for it before this call. With `partial`, what is sound of a damaged one.

        Takes time and memory in proportion to the episode; `events` reads one in bounded memory. Changes nothing, also
        when cancelled.
        Raises: `InvalidInput`, `TooLarge` (no id), `NotFound`, `EpisodeUnavailable` (also with `partial`, where not
        even its start is sound).
        """
        known = await checked_id_in_turn(episode_id)
        await self._supervisor.settle(known, catch_up=False)
        fold, _keyed = await fold_episode(self._journal, known, partial=partial, catch_up=True)
        return fold.episode()

    async def get_episodes(self, episode_ids: Iterable[str]) -> list[Episode]:
        """Several episodes, in the order asked for. Raises: as `get_episode`, naming the first that is unknown."""
        await checkpoint()
        if isinstance(episode_ids, str) or not isinstance(episode_ids, Iterable):
            raise InvalidInput(f"episode_ids: must be several ids, not {type(episode_ids).__name__}")
        return [await self.get_episode(episode_id) for episode_id in episode_ids]

    def events(self, episode_id: str, after: int = 0) -> EpisodeEvents:
        """The events of an episode behind seq `after`, oldest first, in bounded memory: `async for event in …`.

        It sees everything accepted before its first item is asked for. Nothing has to be closed.
        Raises: `InvalidInput`; the iteration raises `NotFound`, `EpisodeUnavailable`.
        """
        known = checked_id(episode_id)
        check.check_number(after, "after", minimum=0, whole=True)
        return EpisodeEvents(self._journal, known, after, lambda: self._supervisor.settle(known))

    def follow(self, cursor: str | Place = START, *, kinds: Collection[str] | None = None) -> Following:
        """Follow the durable events of all episodes, threads and scopes in log order, then those to come:
        `async with memory.follow(cursor) as events: async for event in events: …`.

        `cursor`: START, NOW, or the `cursor` of an event, behind which it goes on, also after a restart. `kinds`: only
        events of these kinds. Records whose bytes are damaged or cannot be decoded come as a `Gap`. A deleted episode
        comes as its "deleted" event alone, a cleared thread or scope as "cleared"; the `stream` of such an event is ""
        for a follower that has seen nothing else of it. A slow reader lags behind; nothing waits for it and nothing is
        dropped. Closing the memory ends it. A checkpoint once per slice of at most 256 events.
        Raises: `InvalidInput`; entering raises `InvalidInput` (no cursor, or one of another memory), `InvalidState`
        (the cursor's record was lost after a crash), `CorruptLog` (records that were durable have vanished), `Closed`.
        """
        return Following(self._journal, self._supervisor.check_open, cursor, kinds)

    async def open_episodes(self) -> list[OpenEpisode]:
        """The episodes that were still open when the memory was last closed or its process died, and still are."""
        self._supervisor.check_thread()
        await self._journal.catch_up()
        found = [
            await read_open_episode(self._journal, stream)
            for stream in self._journal.open_streams()
            if stream in self._was_open
        ]
        return [episode for episode in found if episode is not None]

    async def episode_ids(self) -> AsyncIterator[EpisodeId]:
        """Every stored episode's id, in the order in which they were started.

        Left out is one whose first record cannot be read, since only that tells the id. Reads one record for each, so
        it may take seconds over a large memory: `list_episodes` looks into a catalog instead.
        """
        await self._supervisor.settle_all()
        for stream in self._journal.streams():
            try:
                found = await first_record(self._journal, stream)
            except UNREADABLE:
                continue
            if found is not None and found[0] == EPISODE_STREAM and stream_id(EPISODE_STREAM, found[1]) == stream:
                yield EpisodeId(found[1])
