"""The task tree of an opened memory, and its orderly end.

    host nursery                    the caller's body and exactly one child
     └ runtime task                 all of it inside its own CancelScope(shield=True)
        └ runtime nursery
           ├ journal writer         one task; natural group commit
           │  └ services            of the journal: caretaker, compactor, scrubber; restarted, then parked, never fatal
           ├ projectors             follow the log into the catalogs; services like those, but not the journal's
           ├ flusher, passivator    the two timers
           ├ retention              if there is a limit: deletes what is too many; restarted like the services
           ├ audit                  if there is an audit file: follows the log into it; restarted like the services
           ├ resuming               wakes what was open, if asked to; ends then
           └ episode tasks          one per episode that is awake

An outer cancel reaches only the body: were the actors cancelled with it, what they had accepted would be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from stepstore.journal import Journal
from stepstore.restarting import RestartPolicy, Service, error_text
from stepwell.runtime.audit import AuditTrail
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.eviction import Evictor
from stepwell.runtime.lifecycle_events import Lifecycle
from stepwell.runtime.projections import Projections
from stepwell.runtime.resuming import resume_open_episodes
from stepwell.runtime.supervisor import Supervisor

_logger = logging.getLogger("stepwell.runtime")


class Runtime:
    """Everything that runs while a memory is open."""

    def __init__(
        self, journal: Journal, config: MemoryConfig, projections: Projections, restarts: RestartPolicy | None = None
    ):
        self.journal, self.config, self.projections = journal, config, projections
        self.lifecycle = Lifecycle()
        journal.notices.listener = self.lifecycle.tell_notice
        self.supervisor = Supervisor(journal, config, self.lifecycle, restarts)
        self.supervisor.deletions.on_deleted = lambda: projections.show_all_up_to(journal.durable_lsn)
        self._audit: Service | None = None
        self._audit_over = trio.Event()
        if config.audit is not None:
            trail = AuditTrail(journal, config.audit)
            self._audit = Service(
                "audit",
                trail.run,
                policy=restarts or RestartPolicy(),
                notices=journal.notices,
                progress=lambda: trail.written,
                logger=_logger,
            )
        self.evictor = Evictor(self.supervisor, projections.episodes)
        self._retention: Service | None = None
        if config.max_episodes is not None and not projections.are_read_only:
            self._retention = Service(
                "retention",
                lambda: self.evictor.keep_at_most(config.max_episodes or 0, config.eviction),
                policy=restarts or RestartPolicy(),
                notices=journal.notices,
                progress=lambda: self.evictor.evicted,
                logger=_logger,
            )
        self.failure: BaseException | None = None
        self.left_behind = 0
        self.untold = 0
        """Records that had failed when the tasks ended, and nobody was told of."""
        self.running = trio.Event()
        """The tasks are there, or were."""
        self._scope = trio.CancelScope(shield=True)
        self._closing = trio.Event()
        self._ended = trio.Event()
        self._written = trio.Event()
        self._on_failure: trio.CancelScope | None = None

    @property
    def services(self) -> Sequence[Service]:
        """What runs in the background, restarted when it fails, and then parked."""
        own = [service for service in (self._retention, self._audit) if service is not None]
        return (*self.journal.services, *self.projections.services, *own)

    def cancel_on_failure(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` if the log is lost while the memory is open."""
        self._on_failure = scope

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The runtime task. Never raises: what went wrong is in `failure`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, name="stepwell log writer")
                    for projection in self.projections:
                        nursery.start_soon(projection.run, name=f"stepwell {projection.service.name}")
                    self.supervisor.run_in(nursery)
                    if self._audit is not None:
                        nursery.start_soon(self._run_audit, self._audit, name="stepwell audit")
                    if self._retention is not None:
                        nursery.start_soon(self._retention.run, name="stepwell retention")
                    if self.config.resume_open and self.journal.gate.is_open:
                        found = list(self.journal.open_streams())[-self.config.max_live_episodes :]
                        nursery.start_soon(resume_open_episodes, self.supervisor, found[::-1], name="stepwell resuming")
                    self.running.set()
                    await self._closing.wait()
                    await self.supervisor.drained()
                    self.journal.finish()
                    await self._written.wait()
                    await self._finish_audit()
                    nursery.cancel_scope.cancel()
        except Exception as error:
            self._fail(error)
        finally:
            self.untold = self.supervisor.untold.records
            self.left_behind = self.supervisor.give_up()
            self.journal.finish()
            self.lifecycle.close()
            self.running.set()
            self._ended.set()

    @trio.lowlevel.enable_ki_protection
    async def _run_audit(self, audit: Service) -> None:
        await audit.run()
        self._audit_over.set()

    async def _finish_audit(self) -> None:
        """The log has ended, so its followers come to their end. Give the audit file the time for it, unless it fails;
        what it does not get to say, it says after opening again."""
        if self._audit is not None and self._audit.state in ("waiting", "running"):
            with trio.move_on_after(self.config.grace_seconds):
                await self._audit_over.wait()

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        try:
            await self.journal.run()
        finally:
            self._written.set()
            if self.journal.failed is not None:
                self._fail(self.journal.failed)

    @trio.lowlevel.enable_ki_protection
    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            _logger.error("the memory failed: %s", error_text(error))
            if self.lifecycle.watchers:
                self.lifecycle.tell("failed", detail=error_text(error))
        if self._on_failure is not None and not self._closing.is_set():
            self._on_failure.cancel()

    def end_at_once(self) -> None:
        """Cut the closing short, as a second Ctrl-C does: what has not reached the log stays unknown."""
        self._scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def close(self, *, in_a_hurry: bool) -> BaseException | None:
        """Stop intake, wait until everything accepted is on the medium, end all tasks.

        A normal end takes the time it takes; with `in_a_hurry` (after an exception), or once a cancel or a Ctrl-C comes
        in, `grace_seconds`; another Ctrl-C ends it at once. Gives the exception that came in while it waited.
        """
        self.supervisor.stop_intake()
        self._closing.set()
        if self.lifecycle.watchers:
            self.lifecycle.tell("closing")
        interrupted: BaseException | None = None
        try:
            if not in_a_hurry:
                try:
                    await self._ended.wait()
                except (trio.Cancelled, KeyboardInterrupt) as error:
                    interrupted = error
            with trio.move_on_after(self.config.grace_seconds, shield=True):
                await self._ended.wait()
        except KeyboardInterrupt as error:
            interrupted = error
        self._scope.cancel()
        # What is left now ends at the next checkpoint of each task, or when the system call under way returns.
        with trio.CancelScope(shield=True):
            while not self._ended.is_set():
                try:
                    await self._ended.wait()
                except KeyboardInterrupt as error:
                    interrupted = error
        if self.left_behind:
            _logger.error("closing was cut short: %d accepted records had not reached the log", self.left_behind)
        if self.untold:
            _logger.error("the write of %d accepted records failed, and nobody was told before closing", self.untold)
        return interrupted
