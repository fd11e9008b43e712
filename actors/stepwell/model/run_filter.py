"""Which runs `list_runs` gives, in which order, and what it says of each."""

from __future__ import annotations

import datetime as dt
from typing import Literal, TypeAlias

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.event import utc

RunStatus: TypeAlias = Literal["running", "completed", "failed"]
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """All that is given must hold; an empty one is met by every run.

    `agent`: a part of the agent's name, taken literally and by case unless `casefold`. `since`, `until`: bounds of
    `started_at`, both included, aware times. `limit`: at most so many (None: all; 0: none). `after`: only those behind
    the run whose `cursor` this is, in the order of `list_runs`.
    """

    agent: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    limit: int | None = None
    casefold: bool = False
    after: str | None = None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `agent` is "" if nothing told it. `started_at`: the time of its first event, whatever that is;
    `finished_at`: that of its last event if the run has a `Completed` or `Failed`, else None; `terminal_at`: that of
    the first of these. `episode_count`: how many events it has. Times are UTC."""

    run_id: str
    agent: str
    started_at: dt.datetime
    finished_at: dt.datetime | None
    episode_count: int
    terminal_at: dt.datetime | None = None
    status: RunStatus = "running"
    cursor: str = ""


def checked_filter(run_filter: object) -> RunFilter:
    """Raises: `InvalidInput`."""
    if run_filter is None:
        return RunFilter()
    if not isinstance(run_filter, RunFilter):
        raise InvalidInput(f"filter: must be a RunFilter, not {type(run_filter).__name__}")
    if run_filter.agent is not None and not isinstance(run_filter.agent, str):
        raise InvalidInput(f"filter.agent: must be text, not {type(run_filter.agent).__name__}")
    for name in ("since", "until"):
        value = getattr(run_filter, name)
        if value is not None and (not isinstance(value, dt.datetime) or value.utcoffset() is None):
            raise InvalidInput(
                f"filter.{name}: must be an aware datetime, such as datetime.now(UTC), not {check.shown(value)}"
            )
    if run_filter.limit is not None:
        check.check_number(run_filter.limit, "filter.limit", minimum=0, whole=True)
    if run_filter.after is not None:
        parse_cursor(run_filter.after)
    return run_filter


def cursor_of(started_ns: int, run_id: str) -> str:
    """The place of a run in the order of `list_runs`."""
    return f"{started_ns}:{run_id}"


def parse_cursor(text: object) -> tuple[int, str]:
    """The place that a cursor stands for. Raises: `InvalidInput`."""
    if isinstance(text, str):
        started, colon, run_id = text.partition(":")
        if colon and run_id and started.isascii() and started.isdigit() and len(started) < 20:
            return int(started), run_id
    raise InvalidInput(f"filter.after: {check.shown(text)} is no cursor; take one from a RunSummary")


class RunFold:
    """What is known of a run: a fold of its events, in order."""

    __slots__ = ("agent", "agent_told", "count", "first_ns", "last_ns", "run_id", "status", "terminal_ns")

    def __init__(self, run_id: str):
        self.run_id = run_id
        self.agent, self.agent_told = "", False
        self.count = self.first_ns = self.last_ns = self.terminal_ns = 0
        self.status: RunStatus = "running"

    def add(self, time_ns: int) -> None:
        """One more event."""
        if not self.count:
            self.first_ns = time_ns
        self.count += 1
        self.last_ns = max(self.last_ns, time_ns)

    def start(self, agent: str) -> None:
        """It is a `Started`; the first one tells the agent."""
        if not self.agent_told:
            self.agent, self.agent_told = agent, True

    def end(self, time_ns: int, status: RunStatus) -> None:
        """It is a `Completed` or `Failed`; the first one counts."""
        if self.status == "running":
            self.terminal_ns, self.status = time_ns, status

    def summary(self) -> RunSummary:
        """What `list_runs` says of it."""
        is_over = self.status != "running"
        return RunSummary(
            run_id=self.run_id,
            agent=self.agent,
            started_at=utc(self.first_ns),
            finished_at=utc(self.last_ns) if is_over else None,
            episode_count=self.count,
            terminal_at=utc(self.terminal_ns) if is_over else None,
            status=self.status,
            cursor=cursor_of(self.first_ns, self.run_id),
        )


def _micros(value: dt.datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def select(folds: list[RunFold], run_filter: RunFilter) -> list[RunSummary]:
    """The runs a filter is met by: the latest started first, and of equal times the greater id first."""
    if run_filter.limit == 0:
        return []
    wanted, casefold = run_filter.agent, run_filter.casefold
    if wanted is not None and casefold:
        wanted = wanted.casefold()
    since = None if run_filter.since is None else _micros(run_filter.since)
    until = None if run_filter.until is None else _micros(run_filter.until)
    behind = None if run_filter.after is None else parse_cursor(run_filter.after)

    def is_met(fold: RunFold) -> bool:
        started = fold.first_ns // 1000  # bounds are compared as they are shown: in microseconds
        return (
            fold.count > 0
            and (wanted is None or wanted in (fold.agent.casefold() if casefold else fold.agent))
            and (since is None or started >= since)
            and (until is None or started <= until)
            and (behind is None or (fold.first_ns, fold.run_id) < behind)
        )

    found = sorted(filter(is_met, folds), key=lambda fold: (fold.first_ns, fold.run_id), reverse=True)
    return [fold.summary() for fold in found[: run_filter.limit]]
