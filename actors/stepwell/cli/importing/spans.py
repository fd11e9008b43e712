"""Files of spans made into files of events before they are imported."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.cli.importing.report import FileReport, Problem
from stepwell.cli.neutral_form import BadLine, to_line
from stepwell.cli.neutral_form.files import Unreadable
from stepwell.cli.output import CommandFailed
from stepwell.cli.span_form import TooManySpans, holds_spans, read_spans, spans_of_file


class Converted:
    """The files to import, and what came of those that had to be converted first."""

    def __init__(self, paths: list[Path]):
        self.originals = {str(path): path for path in paths}
        self.paths = list(paths)
        self.problems: dict[str, FileReport] = {}

    def named(self, problem: Problem) -> Problem:
        """A problem as one of the file that was named; of one that was converted the line is not known."""
        original = str(self.originals[problem.file])
        return problem if original == problem.file else Problem(original, 0, problem.reason)

    def name_originals(self, reports: list[FileReport]) -> None:
        """Make reports speak of the files that were named, and tell which lines of those were no spans."""
        for report in reports:
            report.problems = [self.named(problem) for problem in report.problems]
            report.file = str(self.originals[report.file])
            if (found := self.problems.get(report.file)) is not None:
                report.bad_lines += found.bad_lines
                report.problems = [*found.problems, *report.problems]


@contextmanager
def with_spans_converted(paths: list[Path], *, strict: bool = False) -> Iterator[Converted]:
    """Each file of spans replaced by a temporary file with the events of its episodes, as long as the block lasts.

    Raises: `CommandFailed` if a file of spans tells of no episode, cannot be read, or, with `strict`, has a bad line.
    """
    converted = Converted(paths)
    with tempfile.TemporaryDirectory(prefix="stepwell-import-") as place:
        for number, path in enumerate(paths):
            try:
                if not path.is_file() or not holds_spans(path):
                    continue
                target = Path(place) / f"{number}.jsonl"
                found = _convert(path, target)
            except (OSError, Unreadable, TooManySpans) as error:
                raise CommandFailed(f"{path}: {error}. Nothing was imported.", file=str(path)) from None
            if strict and found.problems:
                raise CommandFailed(f"{found.problems[0]}. Nothing was imported.", file=str(path))
            converted.paths[number] = target
            converted.originals[str(target)] = path
            converted.problems[str(path)] = found
        yield converted


def _convert(path: Path, target: Path) -> FileReport:
    report = FileReport(file=str(path))

    def on_problem(line: int, error: BadLine) -> None:
        report.refuse(line, error)

    spans = spans_of_file(path, on_problem)
    with open(target, "wb") as file:
        for event in read_spans(spans):
            try:
                file.write(to_line(event))
            except UnicodeEncodeError:
                report.refuse(0, BadLine(f"half a surrogate pair in a text of episode {event['episode']!r}"))
    if not any(span.operation for span in spans):
        first: Problem | None = next(iter(report.problems), None)
        why = f" ({first.reason})" if first is not None else ""
        raise CommandFailed(
            f"{path}: no span in it is one of an agent, a tool or a model (gen_ai.operation.name){why}. "
            "Nothing was imported.",
            file=str(path),
        )
    return report
