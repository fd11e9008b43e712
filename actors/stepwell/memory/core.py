"""What every facet of a memory works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from stepstore.journal import Journal
from stepwell.memory.figures import MemoryRecovery
from stepwell.memory.organising_checks import OrganisingChecks
from stepwell.model.ids import EpisodeId, checked_id
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.relating import Relating
from stepwell.runtime.right_loop import checkpoint
from stepwell.runtime.runtime import Runtime
from stepwell.runtime.stream_index import StreamIndex

if TYPE_CHECKING:
    from stepwell.memory.memory import Memory
    from stepwell.memory.run_scope import RunScope


class MemoryCore:
    """The journal, the settings and the runtime of an opened memory. The facets of `Memory` are its subclasses."""

    def __init__(self, journal: Journal, config: MemoryConfig, runtime: Runtime):
        self._journal, self._config, self._runtime = journal, config, runtime
        self._supervisor = runtime.supervisor
        self._redaction = runtime.supervisor.redaction
        self._cells: dict[str, EpisodeCell] = runtime.supervisor.cells
        self._checks = OrganisingChecks(config.limits, self._redaction)
        self._relating = Relating(runtime.supervisor, runtime.projections.episodes)
        self._stream_index = StreamIndex(journal)
        self._commit_durability = config.durability == "commit"
        self._was_open = frozenset(journal.open_streams())
        self._scopes: dict[RunScope, None] = {}
        report = journal.report
        self._recovery = MemoryRecovery(
            segments=report.segments,
            records=report.records,
            bytes_cut=report.bytes_cut,
            quarantined=list(report.quarantined),
            open_episodes=report.open_streams,
            seconds=report.seconds,
            notes=list(report.notes),
        )

    @property
    def _whole(self) -> Memory:
        """The memory that this facet is part of: handles and scopes use all of it."""
        return cast("Memory", self)


async def checked_id_in_turn(episode_id: object) -> EpisodeId:
    """The checked id of an episode. A checkpoint on every path. Raises: `InvalidInput`."""
    try:
        return checked_id(episode_id)
    finally:
        await checkpoint()
