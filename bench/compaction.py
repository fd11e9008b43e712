"""What compaction costs: the same ingest into the same old log, while three fifths of that are compacted away, and with
compaction switched off."""

from __future__ import annotations

import argparse
import functools
import gc
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import trio

from bench import setting
from bench.workload import encoded, log_steps, start_episodes, step
from stepstore.journal import Batch, SegmentLogJournal
from stepstore.journal.contract import FLAG_CLOSES, FLAG_OPENS, FLAG_TOMBSTONE
from stepstore.log.opening import LogOptions
from stepwell import MemoryConfig, open_memory
from stepwell.model.ids import EPISODE_STREAM, stream_id

SEGMENT_BYTES = 16 * 1024 * 1024
EPISODES, STEPS = 1_000, 600
OLD_STREAMS, OLD_STEPS, BATCHES = 500, 60, 60
DEAD = 0.6
TARGET_LOSS, TARGET_RATE = 20.0, 20.0


async def _old_log(path: str) -> None:
    """About 400 MiB of other people's records; most streams are deleted at the end."""
    journal = SegmentLogJournal.open(path, LogOptions(segment_bytes=SEGMENT_BYTES, compaction_bytes_per_second=0))
    records = [encoded(step(1, number)) for number in range(OLD_STEPS)]
    streams = [stream_id(EPISODE_STREAM, f"old {number}") for number in range(OLD_STREAMS)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        for number in range(BATCHES):
            flags = FLAG_OPENS if number == 0 else FLAG_CLOSES if number == BATCHES - 1 else 0
            submissions = [
                journal.submit([Batch(stream, number * OLD_STEPS + 1, records, flags)]) for stream in streams
            ]
            await submissions[-1].wait()
        last = BATCHES * OLD_STEPS
        tombstones = [
            journal.submit([Batch(stream, last + 1, [b"deleted"], FLAG_CLOSES | FLAG_TOMBSTONE)])
            for stream in streams[: int(OLD_STREAMS * DEAD)]
        ]
        await tombstones[-1].wait()
        journal.finish()
    journal.release()


async def _ingest(path: Path, steps: int) -> tuple[float, float]:
    """(seconds, bytes of input that compaction got through meanwhile)."""
    async with open_memory(path, config=MemoryConfig(segment_bytes=SEGMENT_BYTES)) as memory:
        seconds = await log_steps(memory, await start_episodes(memory, EPISODES), steps)
        journal = memory._journal
        assert isinstance(journal, SegmentLogJournal)
        assert journal._caretaker is not None
        return seconds, float(journal._caretaker.compactor.rewriter.bytes_read)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds on each medium; rates, the share lost, and what compaction got through."""
    steps = STEPS // 4 if options.quick else STEPS
    rows: list[list[str]] = []
    report: dict[str, Any] = {"machine": setting.machine(), "episodes": EPISODES, "steps": steps}
    off = functools.partial(LogOptions, compaction_bytes_per_second=0)
    for medium, parent in setting.media():
        rates: dict[str, list[float]] = {"compacting": [], "not compacting": []}
        lost: list[float] = []
        through: list[float] = []
        with setting.scratch(parent) as old:
            trio.run(_old_log, str(old / "memory"))
            for number in range(options.rounds + 1):
                for name, found in rates.items():
                    with setting.scratch(parent) as path:
                        shutil.copytree(old / "memory", path / "memory")
                        gc.collect()
                        options_of = LogOptions if name == "compacting" else off
                        with mock.patch("stepwell.memory.assembling.LogOptions", options_of):
                            seconds, compacted = trio.run(_ingest, path / "memory", steps)
                    if number:  # the first round warms up
                        found.append(EPISODES * steps / seconds)
                        if name == "compacting":
                            through.append(compacted / seconds / 1e6)
                if number:
                    with_it, without = (found[-1] for found in rates.values())
                    lost.append((1 - with_it / without) * 100)
        report[medium] = {name: setting.summary(found) for name, found in rates.items()}
        report[medium] |= {"lost_percent": setting.summary(lost), "compaction_mb_per_s": setting.summary(through)}
        for name, unit in (
            ("compacting", "steps/s"),
            ("not compacting", "steps/s"),
            ("lost_percent", "%"),
            ("compaction_mb_per_s", "MB/s"),
        ):
            numbers = report[medium][name]
            shown = [f"{numbers[key]:,.{0 if unit == 'steps/s' else 1}f}" for key in ("median", "low", "high")]
            rows.append([f"{medium}: {name.replace('_', ' ')}", *shown, unit])
    setting.show(
        f"compaction: {EPISODES:,} episodes × {steps} steps into a log of which {DEAD:.0%} is dead",
        ["", "median", "low", "high", ""],
        rows,
        [
            f"{options.rounds} interleaved rounds, each against the other run of its round; targets: "
            f"≤ {TARGET_LOSS:.0f} % lost while compaction gets through ≥ {TARGET_RATE:.0f} MB/s"
        ],
    )
    return report
