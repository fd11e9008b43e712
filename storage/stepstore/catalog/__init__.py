"""Catalogs: what a journal holds, folded into tables that can be searched, in one SQLite file.

    journal ── follow ──▶ fold (the caller's) ──▶ rows and cursor, in one transaction ──▶ reads

The log is the truth and a catalog a fold of it: it may be deleted at any time, and is dropped and folded again whenever
it cannot be trusted: another schema, a cursor of a lost branch or of another log, a damaged file. Since the cursor is
stored in the transaction of the rows, a record takes effect exactly once, whatever a crash cuts off.

- `schema`: tables, indexes and full text, as the caller declares them.
- `store`: the SQLite file. Blocks.
- `catalog`: the same for Trio: worker threads, one at a time per connection.
- `projector`: the task that follows the journal.
"""

from __future__ import annotations

from stepstore.catalog.catalog import Catalog as Catalog
from stepstore.catalog.projector import Fold as Fold
from stepstore.catalog.projector import Projector as Projector
from stepstore.catalog.schema import CatalogSchema as CatalogSchema
from stepstore.catalog.schema import FullText as FullText
from stepstore.catalog.schema import Table as Table
from stepstore.catalog.store import Change as Change
