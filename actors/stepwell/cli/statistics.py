"""`stepwell stats`: how large a memory is, told by its indexes, and what happened over time, told by its events."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.cli.history import history_charts, history_of
from stepwell.cli.options import must_hold_a_memory
from stepwell.cli.output import count_text, print_json, printable, stdout_console

if TYPE_CHECKING:
    from rich.text import Text

    from stepstore.log.survey import LogSurvey


def run_stats(directory: Path, *, over_time: bool | None, as_json: bool) -> None:
    """Print the figures of the memory in a directory, and what happened in it over time: unless told otherwise, for
    people only, since that reads every event. Raises: as `survey_log`, and as opening for reading."""
    from stepstore.log.survey import survey_log

    must_hold_a_memory(directory)
    survey = survey_log(str(directory))
    history = (
        history_of(directory, survey.records, quiet=as_json)
        if over_time or not (as_json or over_time is False)
        else None
    )
    if as_json:
        drawn = {} if history is None else {"over_time": history.fields()}
        print_json({"dir": str(directory), **dataclasses.asdict(survey), **drawn})
        return
    console = stdout_console()
    console.print(survey_text(directory, survey), soft_wrap=True)
    if history is not None and history.events:
        console.print()
        console.print(history_charts(history, width=console.width))


def survey_text(directory: Path, survey: LogSurvey) -> Text:
    """The figures for people."""
    from rich.text import Text

    text = Text(f"{directory}: ")
    # Which of them are episodes, the indexes of the log do not tell.
    text.append(count_text(survey.streams, "stream"), style="bold")
    text.append(f" ({survey.open_streams:,} open), {survey.deleted_streams:,} deleted")
    text.append(" (episodes, threads, scopes of facts)", style="dim")
    text.append(f"\n  records     {survey.records:,} with {count_text(survey.payload_bytes, 'byte')}")
    text.append(
        f"\n  files       {count_text(survey.segments, 'segment')} ({survey.sealed:,} sealed), "
        f"{count_text(survey.log_bytes, 'byte')} on disk"
    )
    text.append(f"\n  dead        {count_text(survey.dead_bytes, 'byte')} in ")
    text.append(f"{survey.dead_batches:,} batch{'' if survey.dead_batches == 1 else 'es'}")
    if survey.worth_compacting:
        text.append(f"; {count_text(len(survey.worth_compacting), 'file')} worth compacting", style="yellow")
    if survey.quarantine_files:
        text.append(f"\n  quarantine  {count_text(survey.quarantine_files, 'file')}, ")
        text.append(count_text(survey.quarantine_bytes, "byte"))
    for note in survey.notes:
        text.append("\n  · ", style="dim").append(printable(note, 2_000))
    return text
