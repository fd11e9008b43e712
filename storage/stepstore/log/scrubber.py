"""The task that reads old segments again, slowly, so that rot is noticed while there still is a copy to restore from.

It changes nothing and ends nothing: what it finds is logged and counted.
"""

from __future__ import annotations

import logging

import trio

from stepstore.log.indexed_segment import IndexedSegment
from stepstore.log.opening import OpenLog
from stepstore.log.scrub import BLOCK, Finding, SegmentScrub
from stepstore.log.tolerant_file import MEDIUM_ERRORS
from stepstore.log.writer_stats import WriterStats

FIRST_PASS_AFTER = 60.0
"""Seconds from opening to the first pass: what opens a log mostly wants to read from it first."""

_logger = logging.getLogger("stepstore.log")


class LogScrubber:
    """Reads every segment that nothing is written to any more, by the rate and the period of the log's options."""

    def __init__(self, log: OpenLog, stats: WriterStats):
        self._log, self._stats = log, stats
        self._rate = log.options.scrub_bytes_per_second
        self._period = log.options.scrub_every_seconds
        self._limiter = trio.CapacityLimiter(1)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Pass after pass, until cancelled; at once if the options say so. A cancel waits for one block at most."""
        if not self._rate or not self._period:
            await trio.lowlevel.checkpoint()
            return
        due = trio.current_time() + FIRST_PASS_AFTER
        while True:
            await trio.sleep_until(due)
            due = max(trio.current_time(), due) + self._period
            for segment in self._log.index.segments:
                if segment.sealed or segment.index_path:
                    await self._scrub(segment)
            self._stats.scrubs += 1

    async def _scrub(self, segment: IndexedSegment) -> None:
        scrub = SegmentScrub(self._log.files, segment)
        while not scrub.is_done and segment in self._log.index.segments:  # a compaction may have replaced it
            try:
                count, findings = await self._step(scrub)
            except OSError as error:
                if segment not in self._log.index.segments:
                    return
                if error.errno not in MEDIUM_ERRORS:
                    _logger.warning("scrub: cannot read %s (%s); it is left out this time", segment.path, error)
                    return
                self._stats.scrub_problems += 1
                _logger.error("scrub: the medium gives an error for %s (%s)", segment.path, error)
                await trio.sleep(BLOCK / self._rate)
                continue
            self._stats.scrubbed_bytes += count
            for finding in findings:
                self._stats.scrub_problems += 1
                _logger.error("scrub: %s; run `stepwell verify`, and restore the file while a copy exists", finding)
            await trio.sleep(count / self._rate)

    async def _step(self, scrub: SegmentScrub) -> tuple[int, list[Finding]]:
        if self._log.files.needs_thread:
            return await trio.to_thread.run_sync(scrub.step, limiter=self._limiter)
        await trio.lowlevel.checkpoint()
        return scrub.step()
