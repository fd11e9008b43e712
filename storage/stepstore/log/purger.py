"""Purge the log when somebody asks for it: everything dead is left out of its files, and that is proved."""

from __future__ import annotations

from collections.abc import Collection

import trio

from stepstore.log.compaction_report import Tally
from stepstore.log.compactor import WaitSettled
from stepstore.log.opening import OpenLog
from stepstore.log.purge import (
    NOT_THE_LOGS,
    OF_A_SALVAGE,
    OUT_OF_REACH,
    DeletionReport,
    Proof,
    Samples,
    clean_quarantine,
    clean_salvaged,
)
from stepstore.log.segment_rewriter import SegmentRewriter
from stepstore.log.worker_thread import Blocking, has_more
from stepstore.log.writer import LogWriter


class LogPurger:
    """Purges an opened log, on request."""

    def __init__(self, log: OpenLog, writer: LogWriter, rewriter: SegmentRewriter, blocking: Blocking):
        self._log, self._writer, self._rewriter, self._blocking = log, writer, rewriter, blocking

    @trio.lowlevel.enable_ki_protection
    async def purge(self, wait_settled: WaitSettled) -> DeletionReport:
        """Rewrite every file that holds anything dead, and prove that nothing of deleted streams is left.

        If it is cancelled or fails, or the process dies, what is done stays done; calling it again does the rest.
        Raises: as `LogCompactor.compact`.
        """
        tally = Tally()
        async with self._rewriter.archiving, self._rewriter.at_once():  # an archive being made holds on to old files
            await self._writer.rotate()
            await wait_settled()
            await self._rewriter.take_up_all()
            deleted = dict(self._rewriter.dead.deleted)
            samples = Samples(deleted)
            await self._rewriter.rewrite_all(tally, all_dead=True, on_dead=samples.take)
            removed = await self._blocking(clean_quarantine, self._log, deleted, samples.pieces)
            set_aside = await self._blocking(clean_salvaged, self._log, deleted)
            proof = await self._prove_or_rewrite(deleted, samples, tally)
        out_of_reach = [*OUT_OF_REACH]
        if proof.has_salvaged:
            out_of_reach.append(OF_A_SALVAGE)
        if proof.others:
            out_of_reach.append(NOT_THE_LOGS + ", ".join(proof.others))
        return DeletionReport(
            **tally.fields(),
            streams_purged=len(deleted),
            files_checked=proof.files_checked,
            frames_checked=proof.frames_checked,
            batches_checked=proof.batches_checked,
            bytes_searched=proof.bytes_searched,
            samples=len(samples.pieces),
            quarantine_removed=tuple(removed),
            salvaged_removed=tuple(set_aside),
            found=tuple(proof.found),
            unreadable=tuple(proof.unreadable),
            shared=tuple(proof.shared),
            out_of_reach=tuple(out_of_reach),
        )

    async def _prove_or_rewrite(self, deleted: Collection[bytes], samples: Samples, tally: Tally) -> Proof:
        """Prove it; where the frames hold what an index had not told of, rewrite those files and prove it again."""
        proof = await self._prove(deleted, samples)
        found = {*proof.segments_found} - {*self._rewriter.left_alone}
        again = [segment for segment in self._log.ended_segments() if segment.path in found]
        if not again:
            return proof
        for segment in again:
            await self._rewriter.rewrite_one([segment], tally, samples.take)
        return await self._prove(deleted, samples)

    async def _prove(self, deleted: Collection[bytes], samples: Samples) -> Proof:
        proof = Proof(self._log, deleted, samples.pieces)
        steps = proof.run()
        try:
            while await self._blocking(has_more, steps):
                self._writer.admission.check_open(critical=True)
        finally:
            steps.close()
        return proof
