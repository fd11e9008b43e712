"""Which episode somebody means who types the beginning of its id."""

from __future__ import annotations

from stepwell import Memory
from stepwell.cli.output import CommandFailed, printable
from stepwell.errors import EpisodeUnavailable, NotFound
from stepwell.model.ids import checked_id

_SHOWN = 5


async def whole_id(memory: Memory, beginning: str) -> str:
    """The id that this is, else the only one that begins with it. A checkpoint.

    Raises: `NotFound`, `InvalidInput`; `CommandFailed` if several ids begin with it.
    """
    known = checked_id(beginning)
    try:
        async for _event in memory.events(known):
            break
        return known
    except EpisodeUnavailable:
        return known
    except NotFound as error:
        unknown = error
    found = [episode_id async for episode_id in memory.episode_ids() if episode_id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise unknown
    shown = ", ".join(printable(name, 60) for name in found[-_SHOWN:])
    raise CommandFailed(f"{len(found):,} episodes begin with {beginning!r}, the newest: {shown}. Give more of the id.")
