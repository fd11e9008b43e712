"""What holds of cells, supervisor and writer whenever no task is in the midst of a step."""

from __future__ import annotations

import itertools

from stepstore.journal import SegmentLogJournal
from stepwell import Memory
from stepwell.runtime.cell import EpisodeCell
from stepwell.runtime.cell_mailbox import MAILBOX_BYTES, PER_RECORD


def torn(memory: Memory) -> list[str]:
    """Everything that does not agree; none is what is wanted."""
    supervisor = memory._supervisor
    wrong: list[str] = []
    for name, cell in supervisor.cells.items():
        wrong += [f"cell {name!r}: {text}" for text in _torn_cell(cell)]
        if cell.episode_id != name:
            wrong.append(f"cell {name!r} is that of {cell.episode_id!r}")
    if supervisor._nursery is not None:
        running = {task.name for task in supervisor._nursery.child_tasks}
        for name, cell in supervisor.cells.items():
            if cell.state.value in ("live", "waking") and f"stepwell episode {name}" not in running:
                wrong.append(f"cell {name!r} is {cell.state.value} and has no task")
        for name in supervisor.deletions.under_way:
            if f"stepwell deletion of {name}" not in running:
                wrong.append(f"the deletion of {name!r} has no task")
    for stream in supervisor.streams.all_cells():
        wrong += [f"{stream.kind.noun} {stream.name!r}: {text}" for text in _torn_cell(stream)]
    return wrong + _torn_writer(memory)


def _torn_cell(cell: EpisodeCell) -> list[str]:
    mail: list[bytes | list[bytes]] = [] if cell.mail is None else list(cell.mail._state.data)
    in_mail = [record for item in mail for record in ([item] if isinstance(item, bytes) else item)]
    commits = cell.pending_commits
    size = sum(len(record) + PER_RECORD for record in in_mail)
    size += sum(len(record) + PER_RECORD for record in cell.in_hand[cell.drained :])
    at_least, at_most = len(mail) + bool(cell._taken), len(mail) + cell._taken
    facts = {
        "pending records": (cell._pending, sum(commit.records for commit in commits)),
        "records in mailbox and hand": (len(in_mail) + len(cell.in_hand), cell._pending),
        "whether anything is queued": (cell._is_queued, bool(mail)),
        "bytes in the mailbox, or taken in hand at the door": (cell._mail_bytes, size),
        "as many messages": (at_least <= cell._mail_count <= at_most, True),
        "full": (cell.full, cell._mail_count >= cell._mailbox_size or cell._mail_bytes >= MAILBOX_BYTES),
        "the batch at the journal": (cell._at_journal in (None, *commits[:1]), True),
        "the batch that gathers": (cell._open in (None, *commits[-1:]), True),
        "batches that have a result": ([commit.done for commit in commits], [False] * len(commits)),
    }
    for before, after in itertools.pairwise(commits):
        facts[f"the batch behind seq {before.first_seq}"] = (after.first_seq, before.first_seq + before.records)
    if commits:
        facts["the next seq"] = (cell._next_seq, commits[-1].first_seq + commits[-1].records)
    facts["seqs of keys"] = (all(known.seq < cell._next_seq for known in cell._keys._steps.values()), True)
    return [f"{what}: {found} and {due}" for what, (found, due) in facts.items() if found != due]


def _torn_writer(memory: Memory) -> list[str]:
    journal = memory._journal
    writer = journal._writer if isinstance(journal, SegmentLogJournal) else None
    if writer is None:
        return []
    queue = writer.queue
    queued = sum(submission.cost for submission in queue._queue)
    at_journal = sum(cell._at_journal is not None for cell in memory._supervisor.every_cell())
    wrong: list[str] = []
    if queued > queue._queued_bytes or (queued == 0 and not at_journal and queue._queued_bytes and not queue._deleting):
        wrong.append(f"the writer counts {queue._queued_bytes} bytes, and {queued} are queued")
    if any(submission.done for submission in queue._queue):
        wrong.append("what has a result is queued")
    return wrong
