"""A large sealed log, as agents would have left it, written fast: through the journal, with records encoded once.

Episodes run in waves of `LIVE`. Most have 98 steps in batches of 10; in each wave ten have 200 steps in 20 batches, and
ten 200 steps in 200 batches, each batch in a commit group of its own. So the average is 100 steps, a start and an
ending.

    python -m bench.large_log DIR WAVES [STEPS_PER_BATCH]
"""

from __future__ import annotations

import sys
import time

import trio

from bench.workload import encoded, step
from stepstore.journal import Batch, SegmentLogJournal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepwell import Limits, Success, TaskContext
from stepwell.learning import analyse_completion
from stepwell.model.codec import decode_record
from stepwell.model.ending import encode_ending
from stepwell.model.event import utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.start import EpisodeStart, encode_start

LIVE = 1_000
ROUNDS = 200
SPECIAL = 10
"""So many episodes of each wave have 20 batches of 10 steps, and so many 200 batches of one."""


def name_of(wave: int, number: int) -> str:
    """The id of an episode."""
    return f"episode-{wave}-{number}"


def start_payload(name: str) -> bytes:
    """The first record of an episode."""
    start = EpisodeStart(
        task="go through a large repository and mend what is broken",
        context=TaskContext(language="python", domain="ci"),
        task_type="code_generation",
        agent="bench",
        parent=None,
        thread=None,
        metadata={},
    )
    return encode_start(start, name, time.time_ns(), Limits())


def ending_payload() -> bytes:
    """The last record of an episode of 20 steps."""
    fold = EpisodeFold("any")
    payloads = [start_payload("any"), *[encoded(step(1, n)) for n in range(20)]]
    for seq, payload in enumerate(payloads, 1):
        fold.add(seq, seq, decode_record(payload, "a record"))
    now = time.time_ns()
    analysis = analyse_completion(fold.episode(outcome=Success("done"), end_ns=now), now=utc(now))
    return encode_ending(Success("done"), analysis, {}, now, Limits())


async def write(path: str, waves: int, per_batch: int = 10) -> int:
    """Write the log and close it. Returns how many records it has."""
    journal = SegmentLogJournal.open(path)
    ending = ending_payload()
    payloads = [encoded(step(n % 997, n)) for n in range(1_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for wave in range(waves):
            names = [name_of(wave, number) for number in range(LIVE)]
            streams = [stream_id(EPISODE_STREAM, name) for name in names]
            seqs = [0] * LIVE

            def give(
                batches: list[Batch],
                number: int,
                records: list[bytes],
                flags: int = 0,
                streams: list[bytes] = streams,
                seqs: list[int] = seqs,
            ) -> None:
                batches.append(Batch(streams[number], seqs[number] + 1, records, flags))
                seqs[number] += len(records)

            batches: list[Batch] = []
            for number in range(LIVE):
                give(batches, number, [start_payload(names[number])], FLAG_OPENS)
            await store(journal, batches)
            for round_number in range(ROUNDS):
                batches = []
                for number in range(LIVE):
                    if number < SPECIAL:
                        if round_number % 10 == 0:
                            give(batches, number, [payloads[(number + n) % 1_000] for n in range(10)])
                    elif number < 2 * SPECIAL:
                        give(batches, number, [payloads[(number + round_number) % 1_000]])
                    elif (round_number + number) % (2 * per_batch) == 0 and seqs[number] < 99:
                        many = min(per_batch, 99 - seqs[number])
                        give(batches, number, [payloads[(number + n) % 1_000] for n in range(many)])
                if batches:
                    await store(journal, batches)
            batches = []
            for number in range(LIVE):
                give(batches, number, [ending], FLAG_CLOSES)
            await store(journal, batches)
        journal.finish()
    records = journal.durable_lsn
    journal.release()
    return records


async def store(journal: SegmentLogJournal, batches: list[Batch]) -> None:
    """Store batches of different streams and wait until they are durable."""
    # As the runtime does it: a submission for each episode, and one commit group for all that wait.
    submissions = [journal.submit([batch]) for batch in batches]
    await submissions[-1].wait()
    if submissions[-1].error is not None:
        raise submissions[-1].error


if __name__ == "__main__":
    began = time.perf_counter()
    size = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    count = trio.run(write, sys.argv[1], int(sys.argv[2]), size)
    print(f"{count:,} records in {time.perf_counter() - began:.1f} s")
