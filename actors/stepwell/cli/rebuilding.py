"""`stepwell rebuild`: fold the catalogs of a memory anew."""

from __future__ import annotations

import time
from pathlib import Path

import click
import trio

from stepwell.cli.options import memory_config, must_hold_a_memory
from stepwell.cli.output import count_text, print_json, progress_bar


def run_rebuild(directory: Path, *, as_json: bool) -> None:
    """Rebuild, and print what came of it."""
    from stepwell.memory.rebuilding import rebuild_catalogs

    must_hold_a_memory(directory, to_write=True)
    config, began = memory_config(), time.perf_counter()
    with progress_bar(quiet=as_json) as bar:
        task = bar.add_task("rebuilding", total=None)

        async def rebuilding() -> int:
            return await rebuild_catalogs(
                directory, config=config, progress=lambda done, records: bar.update(task, completed=done, total=records)
            )

        records = trio.run(rebuilding)
    seconds = time.perf_counter() - began
    if as_json:
        print_json({"dir": str(directory), "records": records, "kept": config.key_provider is None})
    elif config.key_provider is not None:
        click.echo("nothing of an encrypted memory is kept beside its log; it is folded when somebody asks")
    else:
        click.echo(f"rebuilt from {count_text(records, 'record')} in {seconds:.1f} s")
