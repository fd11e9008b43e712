"""The projections of an opened memory: what is kept beside the log so that it can be searched."""

from __future__ import annotations

from collections.abc import Iterator

from stepstore.catalog import CatalogOptions, Projection
from stepstore.journal import Journal
from stepstore.restarting import Service
from stepwell.runtime.episode_fold import episode_projection
from stepwell.runtime.learner import learning_projection
from stepwell.runtime.retrieval_fold import retrieval_projection
from stepwell.runtime.step_batches import log_reading


class Projections:
    """One attribute each. A new one goes into `__init__` and into `__iter__`; everything else follows."""

    def __init__(self, journal: Journal, options: CatalogOptions):
        self.are_read_only = options.read_only
        """Somebody else writes what they are made of: nothing can be stored."""
        reading = log_reading(journal)
        self.episodes = episode_projection(journal, options, reading)
        self.retrieval = retrieval_projection(journal, options, reading)
        self.learning = learning_projection(journal, options, reading)

    def __iter__(self) -> Iterator[Projection]:
        return iter((self.episodes, self.retrieval, self.learning))

    @property
    def services(self) -> tuple[Service, ...]:
        """What runs in the background for them."""
        return tuple(service for projection in self for service in projection.services)

    def prepare(self, fresh: bool = False) -> None:
        """Look whether one of them has seen records that the log has not; `fresh`: drop what there is instead. Blocks;
        before they run.

        Raises: `CorruptLog` (row 2 of recovery).
        """
        try:
            for projection in self:
                if fresh:
                    projection.catalog.store.drop()
                projection.prepare()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the files back where no task will do it. Blocks."""
        for projection in self:
            projection.catalog.store.close()

    def show_all_up_to(self, lsn: int) -> None:
        """Whoever reads from now on waits until everything up to a durable LSN is there: what was deleted by then is
        never shown again."""
        for projection in self:
            projection.least = max(projection.least, lsn)
