"""What the log says of how an episode was organised, for files of events."""

from __future__ import annotations

from stepwell import Memory
from stepwell.cli.neutral_form import History
from stepwell.cli.neutral_form.changes import current_changes
from stepwell.model.episode import Episode
from stepwell.model.event import ENDED, STARTED
from stepwell.model.organising import ORGANISING, OrganisingRecord, Related, decode_organising
from stepwell.model.start import EpisodeStart, decode_start


async def history_of(memory: Memory, episode: Episode) -> History | None:
    """The history of an episode; None if it has nothing but a start, steps and an ending.

    Relationships are those that are there now. Raises: as `Memory.events` and `Memory.related`.
    """
    if episode.last_seq == 1 + len(episode.steps) + episode.is_complete:
        return None
    start: EpisodeStart | None = None
    changes: list[tuple[int, OrganisingRecord]] = []
    ended_seq = 0
    async for event in memory.events(episode.episode_id):
        if event.kind == STARTED:
            start = decode_start(event.data)
        elif event.kind == ENDED:
            ended_seq = ended_seq or event.seq
        elif event.kind in ORGANISING:
            changes.append((event.seq, decode_organising(event.kind, event.data)))
    assert start is not None, "an episode begins with its start"
    related: set[tuple[str, str]] = set()
    if any(isinstance(record, Related) for _seq, record in changes):
        related = {(edge.kind, edge.to_episode) for edge in await memory.related(episode.episode_id)}
    return History(start=start, changes=current_changes(changes, related), ended_seq=ended_seq)
