"""Reading files of events and handing every episode its own, many episodes at a time."""

from __future__ import annotations

from pathlib import Path

import trio

from stepwell import Memory
from stepwell.cli.importing.episode_writing import EpisodeWriting, Item, Places, make_relationship
from stepwell.cli.importing.report import FileReport, OnProblem, OnProgress
from stepwell.cli.neutral_form import BadLine, parse_line, read
from stepwell.cli.neutral_form.files import Line, LineFile, Unreadable, has_event
from stepwell.cli.output import CommandFailed
from stepwell.errors import Closed, InvalidState, LogFull, NotFound, Rejected
from stepwell.model.redaction import Redaction

EPISODES_AT_ONCE = 128
"""How many episodes of a file are written at the same time; they share commit groups."""

_RUN_EVENTS = 500
_RUN_BYTES = 2 * 1024 * 1024


def refuse_files_without_events(paths: list[Path]) -> None:
    """Look at every file before anything is stored.

    Raises:
        CommandFailed: a file cannot be read, or some hold not one valid event line; the message names them.
    """
    foreign: list[Path] = []
    for path in paths:
        try:
            if not has_event(path):
                foreign.append(path)
        except Unreadable as error:
            hint = f"; name the files in it, {path}/*.jsonl for instance" if path.is_dir() else ""
            raise CommandFailed(f"{path}: {error}{hint}. Nothing was imported.", file=str(path)) from None
    if foreign:
        others = f"; leave these out as well: {', '.join(map(str, foreign[1:]))}" if len(foreign) > 1 else ""
        raise CommandFailed(
            f"{foreign[0]}: not a single event line in it, so it is not in the neutral form "
            f'(lines with "event": "start", "step" or "complete"){others}. Nothing was imported.',
            file=str(foreign[0]),
        )


_NAMES = frozenset({"event", "episode", "change", "parent", "thread", "to_episode", "kind", "actor", "outcome"})
_NUMBERS = frozenset({"step_number", "latency_ms", "tokens_used", "reward", "steps", "priority"})
_NEVER_REDACTED = _NAMES | _NUMBERS
"""The fields of events that `redaction` leaves alone. Everything else holds what somebody wrote, above all keys that
the form does not know: they become metadata."""


async def import_files(
    memory: Memory,
    paths: list[Path],
    *,
    strict: bool,
    on_problem: OnProblem,
    on_progress: OnProgress,
    redaction: Redaction | None = None,
) -> list[FileReport]:
    """Import the files one after another; with `strict` stop at the first bad line. `redaction`: applied to each event
    before it is compared with what is stored, or stored.

    Returns one report per file that was begun. Cancelling stops between two events; importing again continues.
    """
    known: set[str] = {episode_id async for episode_id in memory.episode_ids()}
    importer = _Importer(memory, known, strict, on_problem, on_progress, redaction)
    reports = []
    for path in paths:
        report = FileReport(file=str(path))
        reports.append(report)
        await importer.import_file(path, report)
        if strict and report.bad_lines:
            break
    await importer.relate()
    return reports


class _Importer:
    def __init__(
        self,
        memory: Memory,
        known: set[str],
        strict: bool,
        on_problem: OnProblem,
        on_progress: OnProgress,
        redaction: Redaction | None,
    ):
        self.memory = memory
        self.redaction = redaction
        self.places = Places(known)
        self.strict = strict
        self.on_problem = on_problem
        self.on_progress = on_progress
        self.busy: dict[str, trio.Event] = {}
        self.slots = trio.Semaphore(EPISODES_AT_ONCE)

    async def import_file(self, path: Path, report: FileReport) -> None:
        run: list[Item] = []
        run_bytes = 0
        with LineFile(path) as file:
            async with trio.open_nursery() as nursery:
                while not self._stopped(report):
                    try:
                        lines = await trio.to_thread.run_sync(file.next_lines)
                    except Unreadable as error:
                        report.unreadable = str(error)
                        break
                    if not lines:
                        break
                    for line in lines:
                        item = self._parsed(line, report)
                        if item is None:
                            if self._stopped(report):
                                break
                            continue
                        whole = len(run) >= _RUN_EVENTS or run_bytes >= _RUN_BYTES
                        if run and (whole or item.parsed.episode != run[0].parsed.episode):
                            await self._begin(nursery, run, report)
                            run, run_bytes = [], 0
                        run.append(item)
                        run_bytes += len(line.data)
                    self.on_progress(report, file.position)
                if run:
                    await self._begin(nursery, run, report)
        self.on_progress(report, file.size)

    async def relate(self) -> None:
        """Make the relationships of all files, now that the episodes they lead to are there."""
        for line, report, record in self.places.relationships:
            try:
                await make_relationship(self.memory, record)
            except (NotFound, Rejected, InvalidState) as error:
                if isinstance(error, Closed | LogFull):
                    raise
                self.on_problem(report.refuse(line, error))
            else:
                report.changes += 1

    def _stopped(self, report: FileReport) -> bool:
        return self.strict and report.bad_lines > 0

    def _parsed(self, line: Line, report: FileReport) -> Item | None:
        try:
            if line.problem is not None:
                raise BadLine(line.problem)
            event = parse_line(line.data)
            parsed = read(event)
            if self.redaction is not None:
                written = {name: value for name, value in event.items() if name not in _NEVER_REDACTED}
                kept = {name: value for name, value in event.items() if name in _NEVER_REDACTED}
                event = kept | self.redaction.value(event["event"], written)
                parsed = read(event)
            return Item(line.number, event, parsed)
        except BadLine as error:
            self.on_problem(report.refuse(line.number, error))
            return None

    async def _begin(self, nursery: trio.Nursery, run: list[Item], report: FileReport) -> None:
        """Start writing a run of events of one episode, once there is room and its previous run is done."""
        episode_id = run[0].parsed.episode
        await self.slots.acquire()
        while (previous := self.busy.get(episode_id)) is not None:
            await previous.wait()
        self.busy[episode_id] = trio.Event()
        nursery.start_soon(self._write, run, report)
        # Episodes begin one scheduling round apart and so stand in the log in the order of the file, most of the time.
        await trio.lowlevel.checkpoint()

    async def _write(self, run: list[Item], report: FileReport) -> None:
        episode_id = run[0].parsed.episode
        try:
            writing = EpisodeWriting(self.memory, self.places, episode_id, report)
            for item in run:
                if self._stopped(report) and item.line > min(problem.line for problem in report.problems):
                    break
                try:
                    await writing.take(item)
                except (Closed, LogFull):
                    raise
                except (BadLine, Rejected, InvalidState) as error:
                    self.on_problem(report.refuse(item.line, error))
            await writing.settle()
        finally:
            self.slots.release()
            self.busy.pop(episode_id).set()
