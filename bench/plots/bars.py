"""Bars: one for each peer, or for each figure of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.results import RECORDED
from bench.setting import summary

STEPWELL, NOT_DURABLE, OTHERS = "#b03060", "#d9b8c4", "#8a8f98"
Summary = dict[str, float]


def of_peers(pyplot: Any, report: dict[str, Any]) -> dict[str, Any]:
    """A picture for each part of `bench peers` that has rates, and one of reading back."""
    figures: dict[str, Any] = {}
    for title, part in report.items():
        ways = part.get("ways", {}) if isinstance(part, dict) else {}
        rates = {name: way["steps_per_second"] for name, way in ways.items() if "steps_per_second" in way}
        if rates:
            figures[title] = _bars(pyplot, f"{title}: steps/s, more is better", rates, logarithmic=True)
        reads = {name: way["ms"] for name, way in ways.items() if "ms" in way}
        if reads:
            figures[title] = _bars(pyplot, f"{title}: milliseconds, less is better", reads, logarithmic=False)
    return figures


def of_summaries(pyplot: Any, report: dict[str, Any], also: frozenset[str] = frozenset()) -> dict[str, Any]:
    """One picture: every figure of the report that has a median, and every plain one whose name is in `also`; those of
    one name in one panel."""
    panels: dict[str, dict[str, Summary]] = {}
    for path, numbers in summaries(report, also=also):
        panels.setdefault(path[-1], {})[", ".join(path[:-1]) or path[-1]] = numbers
    if not panels:
        return {}
    heights = [1 + len(panel) for panel in panels.values()]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(8, 0.3 * sum(heights) + 0.5), squeeze=False, height_ratios=heights
    )
    for (name, panel), (axis,) in zip(panels.items(), axes, strict=True):
        _fill(axis, name.replace("_", " "), panel, logarithmic=False)
    figure.tight_layout()
    return {"": figure}


def summaries(
    report: Any, path: tuple[str, ...] = (), also: frozenset[str] = frozenset()
) -> Iterator[tuple[tuple[str, ...], Summary]]:
    """Whatever in a report is a median with its lowest and highest, and where; and what stands below a name in `also`,
    a number as it is, several as what they are a sample of."""
    if not isinstance(report, dict):
        name = next((name for name in reversed(path) if name in also), None)
        numbers = report if isinstance(report, list) else [report]
        if name is not None and numbers and all(type(number) in (int, float) for number in numbers):
            yield (*(part for part in path if part != name), name), summary(numbers)
        return
    if {"median", "low", "high"} <= report.keys():
        yield path, report
        return
    for key, value in report.items():
        if key != RECORDED:
            yield from summaries(value, (*path, str(key)), also)


def _bars(pyplot: Any, title: str, values: dict[str, Summary], *, logarithmic: bool) -> Any:
    figure, axis = pyplot.subplots(figsize=(8, 0.32 * len(values) + 0.9))
    _fill(axis, title, values, logarithmic=logarithmic)
    return figure


def _fill(axis: Any, title: str, values: dict[str, Summary], *, logarithmic: bool) -> None:
    names = list(values)
    medians = [values[name]["median"] for name in names]
    spread = [
        [values[name]["median"] - values[name]["low"] for name in names],
        [values[name]["high"] - values[name]["median"] for name in names],
    ]
    axis.barh(names, medians, color=[_colour(name) for name in names], xerr=spread, error_kw={"ecolor": "#333333"})
    if logarithmic:
        axis.set_xscale("log")
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=10)
    for place, name in enumerate(names):
        axis.annotate(
            f"{_short(medians[place])}",
            (values[name]["high"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.margins(x=0.12)


def _colour(name: str) -> str:
    if "Stepwell" not in name:  # the doors `stepwell.aio` and `stepwell.sync` are beside no one else
        return OTHERS
    return NOT_DURABLE if name.startswith("not durable") else STEPWELL


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
