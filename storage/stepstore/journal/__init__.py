"""The journal: what the actor runtime stands on.

A journal keeps *streams* of opaque records. `contract` says what every implementation promises; `segment_log` keeps
them in a segment log, `in_memory` only for the life of the process (in `in_memory_streams`).
"""

from __future__ import annotations

from stepstore.journal.contract import Appended as Appended
from stepstore.journal.contract import ArchiveReport as ArchiveReport
from stepstore.journal.contract import Batch as Batch
from stepstore.journal.contract import CompactionReport as CompactionReport
from stepstore.journal.contract import DeletionReport as DeletionReport
from stepstore.journal.contract import Gap as Gap
from stepstore.journal.contract import Gate as Gate
from stepstore.journal.contract import Journal as Journal
from stepstore.journal.contract import JournalReport as JournalReport
from stepstore.journal.contract import JournalStats as JournalStats
from stepstore.journal.contract import Record as Record
from stepstore.journal.contract import RecordBatch as RecordBatch
from stepstore.journal.contract import RecordSlices as RecordSlices
from stepstore.journal.contract import Stored as Stored
from stepstore.journal.contract import StoredBatch as StoredBatch
from stepstore.journal.contract import Submission as Submission
from stepstore.journal.contract import between as between
from stepstore.journal.contract import last_lsn_of as last_lsn_of
from stepstore.journal.in_memory import InMemoryJournal as InMemoryJournal
from stepstore.journal.in_memory_streams import InMemoryStreams as InMemoryStreams
from stepstore.journal.segment_log import SegmentLogJournal as SegmentLogJournal
