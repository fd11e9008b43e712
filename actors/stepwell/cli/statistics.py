"""`stepwell stats`: how large a memory is, and what is in it, without reading its records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.cli.output import count_text, print_json, printable, stdout_console

if TYPE_CHECKING:
    from rich.text import Text

    from stepstore.log.survey import LogSurvey


def run_stats(directory: Path, *, as_json: bool) -> None:
    """Print the figures of the memory in a directory. Raises: as `survey_log`."""
    from stepstore.log.survey import survey_log

    survey = survey_log(str(directory))
    if as_json:
        # Every stream is an episode: a memory writes no others.
        named = {name.replace("streams", "episodes"): value for name, value in dataclasses.asdict(survey).items()}
        print_json({"dir": str(directory), **named})
    else:
        stdout_console().print(survey_text(directory, survey), soft_wrap=True)


def survey_text(directory: Path, survey: LogSurvey) -> Text:
    """The figures for people."""
    from rich.text import Text

    text = Text(f"{directory}: ")
    text.append(count_text(survey.streams, "episode"), style="bold")
    text.append(f" ({survey.open_streams:,} open), {survey.deleted_streams:,} deleted")
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
