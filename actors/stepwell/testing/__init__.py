"""For tests: of agents that use Stepwell, and of journals that Stepwell is to use.

    journal = MemoryJournal()
    journal.lose_ack_next(when=lambda batch: "step" in batch.kinds)
    async with open_memory_on(journal) as memory:
        ...                       # the agent under test
    journal.expect_step("episode", ExecutionStep(tool="search", key="k"))

and of a whole program in a simulated world, with power cuts: `Simulation(seed)`.

General layout: `memory_journal` (`MemoryJournal`: what a test holds), made of `policies` (what becomes of the next
submissions), `stored_records` (what it shows of what is stored), `preloading` (episodes of an earlier life) and
`journal_life` (the `Journal` of one opening); `opening` (`open_memory_on`). `scheduling` (Trio runs whose order follows
from a seed), `simulated_threads` (worker threads as part of such a run) and `simulation` on them. Two modules are
imported by name, since they need pytest and pytest-trio (`pip install 'stepwell[testing]'`): `fixtures`, and
`journal_contract`, the tests that every journal has to pass. Nothing else in `stepwell` imports this package.
"""

from __future__ import annotations

from stepwell.testing.memory_journal import MemoryJournal as MemoryJournal
from stepwell.testing.opening import open_memory_on as open_memory_on
from stepwell.testing.policies import Submitted as Submitted
from stepwell.testing.policies import When as When
from stepwell.testing.scheduling import UnknownTrioError as UnknownTrioError
from stepwell.testing.scheduling import run_deterministically as run_deterministically
from stepwell.testing.simulation import Simulation as Simulation
from stepwell.testing.simulation import StuckError as StuckError
from stepwell.testing.stored_records import StoredRecord as StoredRecord
