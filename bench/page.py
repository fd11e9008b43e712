"""The end of docs/performance.md: every subject that `make bench` has measured, with its pictures and their reading.

    python -m bench.page           # from docs/bench into docs/performance.md
    python -m bench.page --quick   # from build/bench into build/bench/page.md: a first look is no measurement

It is made of the numbers and of nothing else, so it cannot say what was not measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import readings, results

PAGE = results.ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: written by `python -m bench.page` -->", "<!-- measured: to here -->"
_PARTS_WITH_PICTURES = ("flame", "peers", "scaling")


def section(directory: Path, folder: str) -> str:
    """The text about what is in a directory; `folder` is the path to it in links."""
    parts = []
    for subject in readings.SUBJECTS:
        file = directory / f"{subject}.json"
        if file.exists():
            report = json.loads(file.read_text(encoding="utf-8"))
            parts.append(_of(subject, report, pictures(subject, directory), folder))
    return "\n".join(parts)


def pictures(subject: str, directory: Path) -> list[Path]:
    """Those of a subject, by name."""
    pattern = f"{subject}-*.png" if subject in _PARTS_WITH_PICTURES else f"{subject}.png"
    return sorted(directory.glob(pattern))


def _of(subject: str, report: dict[str, Any], drawn: list[Path], folder: str) -> str:
    found = readings.figures(subject, report)
    recorded = report.get(results.RECORDED, {})
    lines = [f"### `{subject}`", "", *_shown(subject, drawn, folder), readings.reading(found), ""]
    if found:
        lines += ["| | found | aim | |", "|---|---|---|---|"]
        for figure in found:
            verdict = {True: "reached", False: "**missed**", None: ""}[figure.reached]
            unit = f" {figure.unit}" if figure.unit else ""
            lines.append(f"| {figure.what} | {readings.shown(figure.value)}{unit} | {figure.aim} | {verdict} |")
        lines.append("")
    seconds = f", in {recorded['seconds']} s" if "seconds" in recorded else ""
    rounds = recorded.get("settings", {}).get("rounds", "?")
    when = f"Commit `{recorded.get('commit', 'unknown')}`, {recorded.get('at', 'at an unknown time')}, {rounds} rounds"
    load = recorded.get("machine", {}).get("load before", "unknown")
    return "\n".join([*lines, f"{when}{seconds}; load of the machine before: {load}.", ""])


def _shown(subject: str, drawn: list[Path], folder: str) -> list[str]:
    lines: list[str] = []
    for picture in drawn:
        title = picture.stem.removeprefix(subject).strip("-").replace("-", " ") or "each figure, lowest to highest"
        lines += [f"![{subject}: {title}]({folder}{picture.name})", ""]
    return lines


def inserted(page: str, text: str) -> str:
    """The page with this text between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write the page."""
    if "--quick" in arguments:
        target, text = results.FIRST_LOOKS / "page.md", section(results.FIRST_LOOKS, "")
    else:
        target = PAGE
        text = inserted(PAGE.read_text(encoding="utf-8"), section(results.MEASURED, "bench/"))
    target.write_text(text, encoding="utf-8")
    print(target, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
