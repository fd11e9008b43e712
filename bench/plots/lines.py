"""Lines: what one more step costs, against something that grows."""

from __future__ import annotations

from typing import Any

from bench.plots.bars import STEPWELL

_OTHERS = ("#4c72b0", "#55a868", "#8172b2", "#c49a3c", "#8a8f98")


def of_scaling(pyplot: Any, report: dict[str, Any]) -> dict[str, Any]:
    """A picture for each part of `bench scaling`; both axes are logarithmic, and flat is what is wanted."""
    figures: dict[str, Any] = {}
    for title, part in report.items():
        if not isinstance(part, dict) or "ways" not in part:
            continue
        figure, axis = pyplot.subplots(figsize=(8, 3.6))
        others = iter(_OTHERS)
        for name, points in part["ways"].items():
            marks = [int(mark) for mark in points]
            medians = [point["median"] for point in points.values()]
            colour = STEPWELL if "Stepwell" in name else next(others)
            axis.plot(marks, medians, marker="o", markersize=4, label=name, color=colour)
            axis.fill_between(
                marks,
                [point["low"] for point in points.values()],
                [point["high"] for point in points.values()],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        axis.set(xscale="log", yscale="log", xlabel=part["against"], ylabel="µs per step")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.yaxis.set_minor_formatter(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "25" else "")
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(which="major", color="#dddddd", linewidth=0.6)
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        figures[title] = figure
    return figures
