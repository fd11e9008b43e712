"""`stepwell replay`: an episode as it went, step by step, with the pauses it had."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import trio

from stepwell import Memory
from stepwell.cli.event_lines import event_line, item_fields, step_of
from stepwell.cli.finding import whole_id
from stepwell.cli.options import opened
from stepwell.cli.output import print_json_line, stdout_console
from stepwell.cli.step_lines import Retries, StepLine
from stepwell.model.event import STARTED, STEP, Event


def run_replay(episode_id: str, directory: Path, *, speed: float, longest: float, as_json: bool) -> None:
    """Print the events of one episode of the memory in a directory one after another, until Ctrl-C.

    Pauses are those between the events, divided by `speed` and at most `longest` seconds; none if `speed` is 0.
    """

    async def main() -> None:
        async with opened(directory) as memory:
            known = await whole_id(memory, episode_id)
            begun: dt.datetime | None = None
            retries = Retries()

            def give(event: Event) -> None:
                nonlocal begun
                if as_json:
                    print_json_line(item_fields(event))
                    return
                if event.kind == STARTED:
                    begun = event.time
                if event.kind == STEP and begun is not None:
                    step = step_of(event)
                    console.print(StepLine(step, begun, retry=retries.before(step)))
                else:
                    console.print(event_line(event), no_wrap=True, overflow="ellipsis")

            await play(memory, known, give, speed=speed, longest=longest)

    console = stdout_console()
    try:
        trio.run(main)
    except KeyboardInterrupt:
        return  # whoever has seen enough


async def play(memory: Memory, episode_id: str, give: Callable[[Event], None], *, speed: float, longest: float) -> None:
    """Call `give` with each event of an episode, after the pause that it had. Raises: as `Memory.events`."""
    last_ns = None
    async for event in memory.events(episode_id):
        if speed and last_ns is not None:
            await trio.sleep(min(longest, max(0, event.time_ns - last_ns) / 1e9 / speed))
        last_ns = event.time_ns
        give(event)
