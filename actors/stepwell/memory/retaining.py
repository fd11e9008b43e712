"""Deleting episodes by age, outcome, reward and number."""

from __future__ import annotations

from stepwell.errors import StepwellError
from stepwell.memory.core import MemoryCore
from stepwell.model import validation as check
from stepwell.model.retention import RetentionPolicy, RetentionReport, checked_policy
from stepwell.runtime.right_loop import checkpoint


class Retaining(MemoryCore):
    """The part of a memory that keeps what is worth keeping."""

    async def retain(
        self, policy: RetentionPolicy, *, dry_run: bool = False, limit: int = 10_000, actor: str = ""
    ) -> RetentionReport:
        """Delete the ended episodes that a policy does not keep, as `delete_episode` does: durable on return, and gone
        from everything that is derived from them. Never one that is open. With `dry_run` nothing is deleted, and the
        report says what would be.

        First those go that the rules of the policy name, the oldest first; then, if there are still more than
        `max_episodes`, the worst of the others. At most `limit` in one call: `has_more` tells that more are due.
        Everything that was durable before the call counts; what changes while it works may or may not. `actor`: who
        asked; it stands in the events. If cancelled, the deletions that are under way go on, and no more begin.
        Raises: `InvalidInput`, naming the field; `Unavailable` (the list of episodes is not kept up to date any more),
        `Closed`, `LogFull`, `OutcomeUnknown`; some may be deleted then, and calling again goes on.
        """
        try:
            checked = checked_policy(policy, self._config.limits)
            check.check_number(limit, "limit", minimum=1, whole=True)
            asked_by = check.check_actor(actor)
        except StepwellError:
            await checkpoint()
            raise
        await checkpoint()
        self._supervisor.check_open()
        return await self._runtime.evictor.retain(checked, dry_run=dry_run, limit=limit, actor=asked_by)
