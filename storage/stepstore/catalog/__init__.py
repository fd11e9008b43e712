"""Catalogs: what a journal holds, folded into tables that can be searched, in SQLite.

    journal ── follow ──▶ fold (the caller's) ──▶ rows and cursor, in one transaction ──▶ reads

The log is the truth and a catalog a fold of it: it may be deleted at any time, and is dropped and folded again whenever
it cannot be trusted: another schema, a cursor of a lost branch or of another log, a damaged file. Since the cursor is
stored in the transaction of the rows, a record takes effect exactly once, whatever a crash cuts off.

- `schema`: tables, indexes and full text, as the caller declares them.
- `store`: the SQLite file. Blocks.
- `catalog`: the same for Trio: worker threads, one at a time per connection.
- `log_reading`: one reading of the journal for all projections of it.
- `projector`: the task that follows the journal.
- `projection`: all of it together, as a service. Begin here.

How to declare another projection: each has a file, a cursor and a task of its own, so that one that fails, or whose
schema changes, takes no other along.

1. Its tables, and the version of the fold that fills them:

       FACTS = CatalogSchema(
           version=1,
           tables=(Table(name="fact", columns={"id": "INTEGER PRIMARY KEY", "said": "TEXT NOT NULL"}),),
           full_texts=(FullText(name="fact_text", table="fact", columns=("said",)),),
       )

2. Its fold: `take` gets the records in log order and `changes` says what they change (`Fold`). It must be a function of
   the records alone, must not mind where the records are cut into batches, and must take the tombstone of a stream as
   the order to forget it: behind a compaction it is all that is left of it. What needs to know the rows there are is
   said in SQL, which may call the `functions` of the schema. A record whose bytes make no sense changes nothing: an
   exception stops the projector for good.

3. The projection. `prepare` it while the journal is being opened, `run` it in a nursery, show its `services` where
   health is told, `wait_for` it when something was deleted, and `purge` it behind a purge:

       facts = Projection("fact projector", "facts.sqlite", FACTS, FactFold, journal, options)
       rows = await facts.read(lambda connection: connection.execute("SELECT …").fetchall(), at_least=receipt.lsn)

   Several of one journal share a `LogReading`: then the log is read once for all of them.

In an opened memory the third is done by adding it to `stepwell.runtime.projections`.
"""

from __future__ import annotations

from stepstore.catalog.catalog import Catalog as Catalog
from stepstore.catalog.log_reading import LogReading as LogReading
from stepstore.catalog.projection import CatalogOptions as CatalogOptions
from stepstore.catalog.projection import Projection as Projection
from stepstore.catalog.projector import Fold as Fold
from stepstore.catalog.projector import Projector as Projector
from stepstore.catalog.projector import ReadingFold as ReadingFold
from stepstore.catalog.schema import CatalogSchema as CatalogSchema
from stepstore.catalog.schema import FullText as FullText
from stepstore.catalog.schema import Table as Table
from stepstore.catalog.store import Change as Change
