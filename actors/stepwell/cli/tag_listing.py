"""`stepwell tags`: all tags that episodes have, with counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import trio

from stepwell.cli.options import opened
from stepwell.cli.output import count_text, print_json, printable


def run_tags(directory: Path, *, limit: int, cursor: str | None, frequent: bool, as_json: bool) -> None:
    """Print a page of the tags of the memory in a directory."""

    async def show() -> None:
        async with opened(directory) as memory:
            page = await memory.tags(limit=limit, cursor=cursor, order="count" if frequent else "tag")
        if as_json:
            found: dict[str, Any] = {"tags": msgspec.to_builtins(page.items)}
            if page.next_cursor is not None:
                found["next_cursor"] = page.next_cursor
            print_json(found)
        elif not page.items:
            click.echo("no tags")
        else:
            width = max(len(f"{item.episodes:,}") for item in page.items)
            for item in page.items:
                click.echo(f"{item.episodes:>{width},}  {printable(item.tag, 100)}")
            if page.next_cursor is not None:
                click.echo(f"… and more; --limit shows more than {count_text(len(page.items), 'tag')}")

    trio.run(show)
