"""What an open memory is made of, put together. `opening` loads this, and so all of it, when a memory is opened."""

from __future__ import annotations

from stepstore.catalog import CatalogOptions
from stepstore.journal import InMemoryJournal, Journal, SegmentLogJournal
from stepstore.log.batch_codec import Compression
from stepstore.log.files import FileSystem
from stepstore.log.opening import LogOptions
from stepstore.restarting import RestartPolicy
from stepwell.memory.memory import Memory
from stepwell.runtime.config import MemoryConfig
from stepwell.runtime.projections import Projections
from stepwell.runtime.runtime import Runtime


def open_journal(
    path: str, config: MemoryConfig, read_only: bool, files: FileSystem | None, restarts: RestartPolicy | None
) -> Journal:
    """The journal in directory `path`, or for `":memory:"` one that keeps nothing. Blocks; recovers the log.

    Raises: what `open_memory` tells.
    """
    if path == ":memory:":
        return InMemoryJournal()
    options = LogOptions(
        tail=config.tail,
        segment_bytes=config.segment_bytes,
        align=config.align,
        compression=Compression(config.compression),
        key_provider=config.key_provider,
        scrub_bytes_per_second=config.scrub_bytes_per_second,
        scrub_every_seconds=config.scrub_every_seconds,
    )
    if read_only:
        return SegmentLogJournal.open_read_only(path, options, files)
    return SegmentLogJournal.open(path, options, files, restarts)


def projections_of(
    journal: Journal,
    directory: str | None,
    config: MemoryConfig,
    *,
    read_only: bool,
    in_threads: bool,
    restarts: RestartPolicy | None,
) -> Projections:
    """What is kept beside the log in `directory`; None: in memory."""
    options = CatalogOptions(
        directory=directory,
        encrypted=config.key_provider is not None,
        read_only=read_only,
        in_threads=in_threads,
        believe_the_log=config.tail == "cut",
        restarts=restarts,
    )
    return Projections(journal, options)


def assembled(
    journal: Journal, config: MemoryConfig, projections: Projections, restarts: RestartPolicy | None
) -> tuple[Runtime, Memory]:
    """The runtime, not yet running, and the memory on it."""
    runtime = Runtime(journal, config, projections, restarts)
    return runtime, Memory(journal, config, runtime)
