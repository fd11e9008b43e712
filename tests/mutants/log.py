"""Every declared mutant of the log, in the order of the design: rows, promises, and the parts that came later."""

from __future__ import annotations

from tests.mutants import compaction, parts, promises, rows
from tests.mutants.mutant import Mutant

MUTANTS: tuple[Mutant, ...] = (*rows.MUTANTS, *promises.MUTANTS, *parts.MUTANTS, *compaction.MUTANTS)
