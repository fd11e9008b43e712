"""A log of many finished episodes that differ in everything a list can be filtered by, written through the journal.

    python -m bench.catalog_log DIR EPISODES

Episodes run in waves of `LIVE`, side by side; each logs `STEPS` steps, two in a batch. Names and tags are drawn with
weights, as a fleet would have them: few agents do most of the work, most tags are rare.
"""

from __future__ import annotations

import random
import sys
import time

import msgspec
import trio

from bench.large_log import store
from bench.workload import encoded, step
from stepstore.journal import Batch, SegmentLogJournal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS
from stepwell import Abstained, Failure, Limits, PartialSuccess, Success, TaskContext
from stepwell.learning import analyse_completion
from stepwell.model.analysis import CompletionAnalysis
from stepwell.model.codec import decode_record
from stepwell.model.ending import encode_ending
from stepwell.model.event import utc
from stepwell.model.fold import EpisodeFold
from stepwell.model.ids import EPISODE_STREAM, stream_id
from stepwell.model.outcome import TaskOutcome
from stepwell.model.start import EpisodeStart, encode_start

LIVE, STEPS = 1_000, 10
WORDS = 5_000
OUTCOMES: list[TaskOutcome] = [Success("ok"), PartialSuccess("half"), Failure("no"), Abstained("cannot", 1)]


class Fleet:
    """Draws episodes, the same ones for the same seed."""

    def __init__(self, seed: int = 1):
        self._dice = random.Random(seed)
        syllables = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu"]
        self.words = ["".join(self._dice.choices(syllables, k=3)) + str(number % 10) for number in range(WORDS)]
        self.agents = [f"agent-{number}" for number in range(50)]
        self.tags = [f"team:{number}" for number in range(400)]

    def _skewed(self, names: list[str]) -> str:
        return names[int(len(names) * self._dice.random() ** 3)]

    def task(self) -> str:
        """About ten words; the most frequent ones stand in many tasks, the others in few."""
        return " ".join(self._skewed(self.words) for _ in range(10))

    def start(self, number: int) -> EpisodeStart:
        """The start of an episode."""
        dice = self._dice
        return EpisodeStart(
            task=self.task(),
            context=TaskContext(
                language=dice.choice(["python", "rust", "go", None]),
                domain=self._skewed([f"domain-{n}" for n in range(20)]),
                tags=list({self._skewed(self.tags) for _ in range(number % 3)}),
            ),
            task_type=dice.choice(["code_generation", "debugging", "analysis", "testing", "other"]),
            agent=self._skewed(self.agents),
        )

    def outcome(self) -> TaskOutcome:
        """How it ends."""
        return self._dice.choices(OUTCOMES, weights=(70, 15, 13, 2))[0]

    def rewarded(self, analysis: CompletionAnalysis) -> CompletionAnalysis:
        """The same with another reward."""
        if analysis.reward is None:
            return analysis
        reward = msgspec.structs.replace(analysis.reward, total=round(self._dice.triangular(0, 2, 1.2), 3))
        return msgspec.structs.replace(analysis, reward=reward)


def analyses(payloads: list[bytes]) -> dict[str, CompletionAnalysis]:
    """What is learnt of each way to end, computed once for all."""
    found = {}
    for outcome in OUTCOMES:
        fold = EpisodeFold("any")
        first = encode_start(Fleet().start(1), "any", time.time_ns(), Limits())
        for seq, payload in enumerate([first, *payloads[:STEPS]], 1):
            fold.add(seq, seq, decode_record(payload, "a record"))
        now = time.time_ns()
        found[type(outcome).__name__] = analyse_completion(fold.episode(outcome=outcome, end_ns=now), now=utc(now))
    return found


async def write(path: str, episodes: int) -> int:
    """Write the log and close it. Returns how many records it has."""
    journal = SegmentLogJournal.open(path)
    fleet, limits = Fleet(), Limits()
    payloads = [encoded(step(n % 997, n)) for n in range(1_000)]
    learnt = analyses(payloads)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for first in range(0, episodes, LIVE):
            names = [f"episode-{number}" for number in range(first, min(first + LIVE, episodes))]
            streams = [stream_id(EPISODE_STREAM, name) for name in names]
            starts = [
                encode_start(fleet.start(first + n), name, time.time_ns(), limits) for n, name in enumerate(names)
            ]
            await store(
                journal,
                [Batch(stream, 1, [start], FLAG_OPENS) for stream, start in zip(streams, starts, strict=True)],
            )
            for done in range(0, STEPS, 2):
                await store(
                    journal,
                    [
                        Batch(stream, 2 + done, [payloads[(n + done) % 1_000], payloads[(n + done + 1) % 1_000]], 0)
                        for n, stream in enumerate(streams)
                    ],
                )
            endings = []
            for stream in streams:
                outcome = fleet.outcome()
                analysis = fleet.rewarded(learnt[type(outcome).__name__])
                payload = encode_ending(outcome, analysis, {}, time.time_ns(), limits)
                endings.append(Batch(stream, 2 + STEPS, [payload], FLAG_CLOSES))
            await store(journal, endings)
        journal.finish()
    records = journal.durable_lsn
    journal.release()
    return records


if __name__ == "__main__":
    began = time.perf_counter()
    print(f"{trio.run(write, sys.argv[1], int(sys.argv[2])):,} records in {time.perf_counter() - began:.0f} s")
