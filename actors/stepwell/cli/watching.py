"""`stepwell tail`: the newest events of a memory, and with `-f` those to come, while other processes write them."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import trio

from stepstore.journal import Gap, SegmentLogJournal
from stepstore.log.opening import LogOptions
from stepwell.cli.event_lines import event_line, item_fields
from stepwell.cli.options import memory_config, must_hold_a_memory
from stepwell.cli.output import print_json_line, stdout_console
from stepwell.memory.following import START, Following
from stepwell.model import event as of
from stepwell.model.event import Event
from stepwell.model.fact_records import FORGOTTEN, REMEMBERED
from stepwell.model.message import MESSAGE, SUMMARY

KINDS = (
    *(of.STARTED, of.STEP, of.RECORDED, of.ENDED, of.DELETED),
    *(of.TAGGED, of.UPDATED, of.ARCHIVED, of.RESTORED, of.RELATED, of.UNRELATED, of.CHECKPOINTED),
    *(MESSAGE, SUMMARY, REMEMBERED, FORGOTTEN, of.CLEARED),
)
"""All kinds of events that followers are given."""
POLL_SECONDS = 0.2
"""How often the log is looked at again."""

Item = Event | Gap
Wanted = Callable[[Item], bool]


def run_tail(
    directory: Path, *, last: int, follow: bool, kinds: Iterable[str], episode: str | None, as_json: bool
) -> None:
    """Print the newest events of the memory in a directory, then, with `follow`, each new one, until Ctrl-C."""
    chosen = frozenset(kinds)

    def wanted(item: Item) -> bool:
        if isinstance(item, Gap):
            return True
        return (not chosen or item.kind in chosen) and (episode is None or item.stream == episode)

    must_hold_a_memory(directory)

    async def main() -> None:
        options = LogOptions(key_provider=memory_config().key_provider)
        journal = await trio.to_thread.run_sync(SegmentLogJournal.open_read_only, str(directory), options)
        try:
            found, end = await newest(journal, last, wanted)
            for item in found:
                give(item)
            if follow:
                await follow_on(journal, end, lambda item: give(item) if wanted(item) else None)
        finally:
            journal.release()

    console = stdout_console()
    day: dt.date | None = None

    def give(item: Item) -> None:
        nonlocal day
        if as_json:
            print_json_line(item_fields(item))
            return
        if isinstance(item, Event) and item.time.date() != day:
            day = item.time.date()
            console.print(f"{day} (UTC)", style="bold")
        console.print(event_line(item), no_wrap=True, overflow="ellipsis")

    try:
        trio.run(main)
    except KeyboardInterrupt:
        if not follow:  # it is how following ends
            raise


async def newest(journal: SegmentLogJournal, last: int, wanted: Wanted) -> tuple[list[Item], int]:
    """The newest `last` items that are wanted, oldest first, and the LSN up to which there is nothing else.

    It looks at ever more of the end of the log until it has found so many. Raises: as `Following`.
    """
    await journal.catch_up()
    end = journal.durable_lsn
    window = max(last, 1)
    found: deque[Item] = deque(maxlen=last)
    while last:
        after = max(0, end - window)
        found.clear()
        async with _behind(journal, after) as events:
            async for item in events:
                if _first_lsn(item) > end:
                    break
                if wanted(item):
                    found.append(item)
        if len(found) == last or after == 0:
            break
        window *= 8
    return list(found), end


async def follow_on(journal: SegmentLogJournal, after: int, give: Callable[[Item], None]) -> NoReturn:
    """Call `give` with everything behind an LSN, and with what comes, until cancelled. Raises: as `Following`."""
    while True:
        async with _behind(journal, after) as events:
            async for item in events:
                give(item)
                after = _last_lsn(item)
        await trio.sleep(POLL_SECONDS)


def _behind(journal: SegmentLogJournal, after: int) -> Following:
    return Following(journal, lambda: None, journal.cursor(after) if after else START, None)


def _first_lsn(item: Item) -> int:
    return item.first_lsn if isinstance(item, Gap) else item.lsn


def _last_lsn(item: Item) -> int:
    return item.last_lsn if isinstance(item, Gap) else item.lsn
