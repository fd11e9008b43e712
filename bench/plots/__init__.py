"""Pictures of reports, as PNG and SVG. Needs matplotlib, which the dependency group `bench` has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from bench.plots import bars, flames, lines

_NONE: frozenset[str] = frozenset()
_PLAIN = {
    "catalog": frozenset({"episodes/s", "without text", "page ms", "page ms while the others fold"}),
    "learning": frozenset({"recall_10", "mrr", "episodes_per_second", "complete_1000_steps_ms", "p50_ms", "p90_ms"}),
    "ports": frozenset({"p50_ms", "per_second"}),
    "recall": frozenset({"recall_5", "recall_10", "reciprocal", "p50_ms", "per_second"}),
}
"""Of each subject the figures that are drawn although they have no spread."""


class NoMatplotlib(Exception):
    """There is nothing to draw with."""


def draw(subject: str, report: dict[str, Any], directory: Path) -> list[Path]:
    """Draw what there is to draw of a report. Gives the files.

    Raises: `NoMatplotlib`.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("Agg")
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise NoMatplotlib(f"no pictures: {error}; `pip install --group bench` installs matplotlib") from error
    matplotlib.rcParams.update({"svg.hashsalt": "stepwell", "font.size": 9, "axes.spines.top": False})
    matplotlib.rcParams.update({"axes.spines.right": False, "figure.facecolor": "white"})
    special = {"flame": flames.of_flames, "peers": bars.of_peers, "scaling": lines.of_scaling}.get(subject)
    figures = special(pyplot, report) if special else bars.of_summaries(pyplot, report, _PLAIN.get(subject, _NONE))
    files: list[Path] = []
    directory.mkdir(parents=True, exist_ok=True)
    for title, figure in figures.items():
        name = f"{subject}-{slug(title)}".rstrip("-")
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            file = directory / (name + suffix)
            figure.savefig(file, dpi=110, metadata=metadata, bbox_inches="tight")
            files.append(file)
        pyplot.close(figure)
    return files


def slug(title: str) -> str:
    """A title as part of the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
