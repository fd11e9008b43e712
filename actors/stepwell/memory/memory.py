"""The memory an agent holds."""

from __future__ import annotations

from stepstore.journal import Journal
from stepwell.memory.atomic import AtomicCommits
from stepwell.memory.episodic import EpisodicPort
from stepwell.memory.figures import MemoryRecovery
from stepwell.memory.finding import Finding
from stepwell.memory.handing_over import HandingOver
from stepwell.memory.handle import EpisodeHandle
from stepwell.memory.learning import Learning
from stepwell.memory.long_term import LongTermPort
from stepwell.memory.observing import Observing
from stepwell.memory.organising import Organising
from stepwell.memory.retaining import Retaining
from stepwell.memory.retrieving import Retrieving
from stepwell.memory.short_term import ShortTermPort
from stepwell.memory.skills import Skills
from stepwell.memory.step_logging import StepLogging
from stepwell.memory.upkeep import Upkeep
from stepwell.model.ids import checked_id
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.runtime import Runtime


class Memory(
    HandingOver, StepLogging, AtomicCommits, Organising, Finding, Retrieving, Learning, Retaining, Upkeep, Observing
):
    """An opened memory. Get one from `open_memory`; use it from the Trio run that opened it.

    Every async function is a checkpoint on every path. Arguments are checked before anything is accepted; a `Rejected`
    error means that nothing is stored.
    """

    def __init__(self, journal: Journal, config: MemoryConfig, runtime: Runtime):
        super().__init__(journal, config, runtime)
        self._long_term, self._skills = LongTermPort(self), Skills(self)
        self._short_term, self._episodic = ShortTermPort(self), EpisodicPort(self)

    def handle(self, episode_id: str) -> EpisodeHandle:
        """A handle to an episode by id. Free: an unknown id is `NotFound` at first use. Raises: `InvalidInput`."""
        return EpisodeHandle(self, checked_id(episode_id))

    @property
    def skills(self) -> Skills:
        """Procedural skills: what somebody wrote down under a name, to be found again; see `Skills`."""
        return self._skills

    @property
    def short_term(self) -> ShortTermPort:
        """The conversation threads; see `ShortTermPort`."""
        return self._short_term

    @property
    def long_term(self) -> LongTermPort:
        """Facts in scopes, found again by what they say; see `LongTermPort`."""
        return self._long_term

    @property
    def episodic(self) -> EpisodicPort:
        """The events of runs; see `EpisodicPort`."""
        return self._episodic

    @property
    def recovery(self) -> MemoryRecovery:
        """What opening this memory found and did."""
        return self._recovery
