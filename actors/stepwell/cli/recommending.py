"""`stepwell recommend`: advice for a task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio
from rich.padding import Padding
from rich.text import Text

from stepwell.cli.options import opened
from stepwell.cli.output import count_text, print_json, printable, stdout_console
from stepwell.cli.waiting import answered
from stepwell.learning.wording import interval_text, share
from stepwell.model.context import TaskContext
from stepwell.model.recommendation import Advice, Recommendation

_CALL_CHARACTERS = 240


def run_recommend(task: str, context: TaskContext, directory: Path, *, limit: int, record: bool, as_json: bool) -> None:
    """Print what the memory in a directory advises for a task; store it if `record`."""

    async def ask() -> Recommendation:
        async with opened(directory, to_write=record) as memory:
            return await answered(memory, lambda: memory.recommend(task, context, limit), quiet=as_json)

    found = trio.run(ask)
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    console = stdout_console()
    for indent, line in _lines(found):
        console.print(Padding(line, (0, 0, 0, indent), expand=False) if line else "")


def _lines(found: Recommendation) -> Iterator[tuple[int, Text]]:
    """The lines, and how far each is indented, wherever it is broken."""
    for rate in found.base_rates:
        solved = f"{share(rate.success)} of {count_text(rate.episodes, 'task')} solved"
        yield 0, Text(f"{printable(rate.features, 80)}: {solved} ({interval_text(rate.interval)})", style="dim")
    for number, advice in enumerate(found.advice, 1):
        yield 0, Text()
        yield 0, Text(f"{number}. {printable(advice.text, 300)}", style="bold")
        for line in _below(advice):
            yield 3, line
    if found.episodes:
        yield 0, Text()
        yield 0, Text("Solved before", style="bold")
    for episode in found.episodes:
        name = Text(printable(episode.episode_id, 80), style="cyan")
        yield 2, Text(f"{printable(episode.task, 160)} (").append(name).append(")")
        if episode.answer:
            yield 4, Text(printable(episode.answer, _CALL_CHARACTERS), style="green")
    if found.note:
        yield 0, Text(found.note)
    if found.id:
        yield 0, Text()
        yield 0, Text(f'Stored as {found.id}: memory.feedback("{found.id}", applied=[…], outcome=…)', style="dim")


def _below(advice: Advice) -> Iterator[Text]:
    yield Text(advice.why)
    example = advice.example
    if example is not None and example.failed:
        yield Text("failed: ", style="red").append(printable(example.failed, _CALL_CHARACTERS), style="default")
    if example is not None and example.worked:
        yield Text("worked: ", style="green").append(printable(example.worked, _CALL_CHARACTERS), style="default")
    where = "" if example is None else f", as in {printable(example.episode_id, 80)}"
    yield Text(f"pattern {advice.pattern_id}, score {advice.score:.2f}{where}", style="dim")
