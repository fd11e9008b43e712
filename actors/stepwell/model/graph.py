"""Relationships as a graph: pure functions over a list of them.

edges = await memory.related("release", direction="both", depth=5)
topological_order(edge for edge in edges if edge.kind == "depends_on")
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from stepwell.errors import InvalidState
from stepwell.model.relationship import Relationship


def find_path(begin: str, end: str, next_of: Callable[[str], Iterable[str]]) -> list[str] | None:
    """A shortest path, both ends included, where `next_of` gives what one step reaches; None if there is none."""
    came_from: dict[str, str] = {begin: begin}
    waiting = deque([begin])
    while waiting:
        here = waiting.popleft()
        if here == end:
            path = [here]
            while path[-1] != begin:
                path.append(came_from[path[-1]])
            return path[::-1]
        for there in next_of(here):
            if there not in came_from:
                came_from[there] = here
                waiting.append(there)
    return None


def reachable(begin: str, edges_of: Callable[[str], Sequence[Relationship]], depth: int) -> list[Relationship]:
    """The relationships met within `depth` steps of an episode, each once, the nearest first."""
    met: dict[tuple[str, str, str], Relationship] = {}
    seen, here = {begin}, [begin]
    for _ in range(depth):
        there: list[str] = []
        for episode in here:
            for edge in edges_of(episode):
                met.setdefault((edge.kind, edge.from_episode, edge.to_episode), edge)
                other = edge.to_episode if edge.from_episode == episode else edge.from_episode
                if other not in seen:
                    seen.add(other)
                    there.append(other)
        if not there:
            break
        here = there
    return list(met.values())


def topological_order(edges: Iterable[Relationship]) -> list[str]:
    """The episodes at the ends of these relationships, each before all that it leads to; otherwise as they come.

    Raises: `InvalidState` if they lead in a circle, naming it.
    """
    following: dict[str, dict[str, None]] = {}
    before: dict[str, int] = {}
    for edge in edges:
        reached = following.setdefault(edge.from_episode, {})
        before.setdefault(edge.from_episode, 0)
        before.setdefault(edge.to_episode, 0)
        if edge.to_episode not in reached:
            reached[edge.to_episode] = None
            before[edge.to_episode] += 1
    ready = deque(episode for episode, count in before.items() if not count)
    order: list[str] = []
    while ready:
        order.append(episode := ready.popleft())
        for other in following.get(episode, ()):
            before[other] -= 1
            if not before[other]:
                ready.append(other)
    if len(order) < len(before):
        raise InvalidState(f"there is no order, for they lead in a circle: {_shown(_circle(following, before))}")
    return order


def _circle(following: dict[str, dict[str, None]], before: dict[str, int]) -> list[str]:
    """One circle among the episodes that still have something before them."""
    left = {episode for episode, count in before.items() if count}
    for episode in left:
        for other in following.get(episode, ()):
            path = find_path(other, episode, lambda here: [to for to in following.get(here, ()) if to in left])
            if path is not None:
                return [episode, *path]
    raise AssertionError("what is left leads in a circle")


def cycle_error(kind: str, path: Sequence[str]) -> InvalidState:
    """The error for a relationship that would close the circle `path`, whose first episode is its last as well."""
    return InvalidState(f"{kind!r} must not lead in a circle, and this would: {_shown(path)}")


def _shown(path: Sequence[str]) -> str:
    return " → ".join(map(repr, path))


def to_dot(edges: Iterable[Relationship]) -> str:
    """The relationships as a graph in the DOT language of Graphviz."""
    lines = ["digraph episodes {"]
    for edge in edges:
        ends = f"{_quoted(edge.from_episode)} -> {_quoted(edge.to_episode)}"
        lines.append(f"  {ends} [label={_quoted(edge.kind)}, priority={edge.priority}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "\\r").replace("\n", "\\n")
    return f'"{escaped}"'


def to_json(edges: Iterable[Relationship]) -> str:
    """The relationships as a JSON object: `nodes`, ids in the order of first appearance, and `edges`, with all that a
    `Relationship` says."""
    listed = list(edges)
    nodes = dict.fromkeys(end for edge in listed for end in (edge.from_episode, edge.to_episode))
    shown: list[dict[str, Any]] = [msgspec.to_builtins(edge) for edge in listed]
    return json.dumps({"nodes": list(nodes), "edges": shown}, ensure_ascii=False)
