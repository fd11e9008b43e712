"""`stepwell demo`: the command around the story: its directory, its progress bars, and who reads it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from stepwell.cli.demo.report import act_text, print_ending, print_opening, story_fields
from stepwell.cli.demo.story import Act, Story, refuse_used_directory, tell
from stepwell.cli.output import print_json, progress_bar, stdout_console

if TYPE_CHECKING:
    from rich.console import Console


def run_demo(*, agents: int, seed: int, directory: Path | None, keep: bool, as_json: bool) -> bool:
    """Run the demo and say what happened; whether everything acknowledged was kept.

    Raises:
        CommandFailed: the directory is in use, or the fleet could not be run.
    """
    if directory is not None:
        refuse_used_directory(directory)
        return _run(directory, agents=agents, seed=seed, kept=True, as_json=as_json)
    place = Path(tempfile.mkdtemp(prefix="stepwell-demo-"))
    try:
        return _run(place / "memory", agents=agents, seed=seed, kept=keep, as_json=as_json)
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def _run(directory: Path, *, agents: int, seed: int, kept: bool, as_json: bool) -> bool:
    if as_json:
        story = trio.run(lambda: tell(directory, agents=agents, seed=seed))
        print_json(story_fields(story, kept=kept))
        return story.ok
    console = stdout_console()
    print_opening(console, agents)
    story = trio.run(_tell_with_progress, console, directory, agents, seed)
    print_ending(console, story, kept=kept)
    return story.ok


async def _tell_with_progress(console: Console, directory: Path, agents: int, seed: int) -> Story:
    with progress_bar(console=console) as progress:
        bar = progress.add_task("", total=None, visible=False)

        def on_progress(doing: str, done: int, total: int) -> None:
            progress.update(bar, description=doing, completed=done, total=total, visible=True)

        def on_act(act: Act) -> None:
            progress.update(bar, visible=False)
            console.print(act_text(act))

        return await tell(directory, agents=agents, seed=seed, on_progress=on_progress, on_act=on_act)
