"""Waking in the background what was open when the memory was last closed or its process died."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from stepwell.errors import Closed, StepwellError
from stepwell.model.ids import EpisodeId
from stepwell.runtime.reading import read_open_episode
from stepwell.runtime.supervisor import Supervisor

PATIENCE_SECONDS = 1.0
"""An episode that is not awake by then, because reading it fails again and again, is left to its own task."""
_logger = logging.getLogger("stepwell.runtime")


@trio.lowlevel.enable_ki_protection
async def resume_open_episodes(supervisor: Supervisor, streams: Sequence[bytes]) -> None:
    """Wake the episodes in `streams`, one after another, while there is room for another live one.

    One after another: of the places for rebuilding, callers that wait for an episode have all the others. What cannot
    be read is parked, as it would be for a caller, and the next one is woken. Never raises but `Cancelled`.
    """
    for stream in streams:
        if not supervisor.passivator.has_room:
            break
        try:
            found = await read_open_episode(supervisor.journal, stream)
            if found is not None:
                with trio.move_on_after(PATIENCE_SECONDS):
                    await supervisor.awake(EpisodeId(found.episode_id))
        except Closed:
            break
        except StepwellError as error:
            _logger.warning("an open episode was not resumed: %s", error)
    await trio.lowlevel.checkpoint()
