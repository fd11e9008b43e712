"""A bar for questions to a memory whose catalogs have to be made first: an encrypted one keeps none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from stepwell.cli.output import progress_bar
from stepwell.memory.fold_progress import fold_progress
from stepwell.memory.memory import Memory

T = TypeVar("T")

PATIENCE_SECONDS = 0.5
_LOOK_SECONDS = 0.1


async def answered(memory: Memory, ask: Callable[[], Awaitable[T]], *, quiet: bool) -> T:
    """What `ask` gives; where it takes its time, with a bar that tells how far the catalog is. Raises: as `ask`, in a
    group."""

    async def watch() -> None:
        await trio.sleep(PATIENCE_SECONDS)
        with progress_bar(quiet=quiet) as bar:
            task = bar.add_task("reading the log", total=None)
            while True:
                found = fold_progress(memory)
                if found.folded:
                    bar.update(task, completed=found.folded, total=found.records)
                await trio.sleep(_LOOK_SECONDS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        answer = await ask()
        nursery.cancel_scope.cancel()
    return answer
