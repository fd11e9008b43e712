"""What users hold: `open_memory`, the memory it gives, handles to episodes, and the run scope.

General layout: `opening` (the context manager), `assembling` (what it puts together), `memory` (`Memory`, made of the
facets `lifecycle`, `step_logging`, `episode_reading`, `organising`, `relationships`, `handing_over`, `upkeep` and
`observing` on one `core`), `handle` (`EpisodeHandle`, `StepScope`), `run_scope` (`memory.episode(...)`), `completed`
(what `complete` returns).
"""

from __future__ import annotations

from stepwell.memory.opening import open_memory as open_memory
