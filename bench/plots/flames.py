"""Flame graphs: how wide a function is, so much of the time it was on the stack; what it calls stands on it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

NARROWEST = 0.004
"""A function with a smaller share is not drawn."""
LABELLED = 0.02
_COLOURS = {"stepwell": "#d9768f", "stepstore": "#e2a15f", "bench": "#c9c05c", "trio": "#8fb3d9"}
_ELSEWHERE = "#c8ccd2"


@dataclass
class _Frame:
    samples: int = 0
    calls: dict[str, _Frame] = field(default_factory=dict)


def of_flames(pyplot: Any, report: dict[str, Any]) -> dict[str, Any]:
    """A picture for each load."""
    found = {title: part["stacks"] for title, part in report.items() if isinstance(part, dict) and part.get("stacks")}
    return {title: _draw(pyplot, title, stacks) for title, stacks in found.items()}


def _draw(pyplot: Any, title: str, stacks: dict[str, int]) -> Any:
    root = _Frame()
    for stack, count in stacks.items():
        root.samples += count
        at = root
        for name in stack.split(";"):
            at = at.calls.setdefault(name, _Frame())
            at.samples += count
    figure, axis = pyplot.subplots(figsize=(13, 6.5))
    deepest = _place(axis, root, 0.0, -1, root.samples)
    axis.set(xlim=(0, 1), ylim=(0, deepest + 1), xticks=[], yticks=[])
    axis.set_frame_on(False)
    axis.set_title(f"{title}: {root.samples:,} samples with the interpreter at work", loc="left", fontsize=10)
    for number, (name, colour) in enumerate({**_COLOURS, "others": _ELSEWHERE}.items()):
        axis.text(0.55 + number * 0.09, 1.01, name, transform=axis.transAxes, fontsize=7, backgroundcolor=colour)
    return figure


def _place(axis: Any, frame: _Frame, left: float, depth: int, total: int) -> int:
    """Draw what a frame calls, from `left` on; the depth that was reached."""
    deepest = depth
    for name, call in sorted(frame.calls.items()):
        width = call.samples / total
        if width >= NARROWEST:
            axis.barh(depth + 1.5, width, 0.94, left, color=_colour(name), edgecolor="white", linewidth=0.4)
            if width >= LABELLED:
                text = name.partition(" (")[0]
                letters = int(width * 210)
                text = text if len(text) <= letters else text[: max(letters - 1, 1)] + "…"
                axis.text(left + 0.001, depth + 1.5, text, va="center", fontsize=6.5, clip_on=True)
            deepest = max(deepest, _place(axis, call, left, depth + 1, total))
        left += width
    return deepest


def _colour(name: str) -> Any:
    place = name.partition(" (")[2]
    base = next((colour for package, colour in _COLOURS.items() if place.startswith(package)), _ELSEWHERE)
    shade = 0.88 + zlib.crc32(name.encode()) % 100 / 800  # neighbours can be told apart, and look the same every time
    return tuple(int(base[at : at + 2], 16) / 255 * shade for at in (1, 3, 5))
