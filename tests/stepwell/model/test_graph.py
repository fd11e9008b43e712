"""Relationships as a graph: orders, paths and exports."""

from __future__ import annotations

import datetime as dt
import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import InvalidState, Relationship, graph
from stepwell.model.graph import find_path, reachable

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def edge(begin: str, end: str, priority: int = 5) -> Relationship:
    return Relationship(from_episode=begin, to_episode=end, kind="depends_on", priority=priority, created_at=NOW)


edges = st.lists(st.tuples(*[st.sampled_from("abcdefg")] * 2), max_size=20).map(
    lambda pairs: [edge(*pair) for pair in pairs]
)


def reaches(pairs: list[Relationship], begin: str, end: str) -> bool:
    """Whether a walk of at least one step leads there: by squaring nothing, just by going on until nothing is new."""
    met: set[str] = set()
    front = {begin}
    while front:
        front = {item.to_episode for item in pairs if item.from_episode in front} - met
        met |= front
    return end in met


@given(edges)
def test_there_is_an_order_unless_something_leads_back_to_itself(pairs: list[Relationship]) -> None:
    names = {end for item in pairs for end in (item.from_episode, item.to_episode)}
    if any(reaches(pairs, name, name) for name in names):
        with pytest.raises(InvalidState, match="in a circle") as caught:
            graph.topological_order(pairs)
        circle = [part.strip("'") for part in str(caught.value).split(": ")[1].split(" → ")]
        assert circle[0] == circle[-1]
        steps = {(item.from_episode, item.to_episode) for item in pairs}
        assert len(circle) > 1
        assert set(itertools.pairwise(circle)) <= steps
    else:
        order = graph.topological_order(pairs)
        assert sorted(order) == sorted(names)
        assert all(order.index(item.from_episode) < order.index(item.to_episode) for item in pairs)


@given(edges, st.sampled_from("abcdefg"), st.sampled_from("abcdefg"))
def test_a_path_is_found_where_there_is_one_and_is_a_shortest(pairs: list[Relationship], begin: str, end: str) -> None:
    def following(here: str) -> list[str]:
        return [item.to_episode for item in pairs if item.from_episode == here]

    path = find_path(begin, end, following)
    assert (path is not None) == (begin == end or reaches(pairs, begin, end))
    if path is not None:
        assert (path[0], path[-1]) == (begin, end)
        assert all(there in following(here) for here, there in itertools.pairwise(path))
        within = reachable(begin, lambda here: [item for item in pairs if item.from_episode == here], len(path) - 1)
        assert begin == end or end in {item.to_episode for item in within}
        if len(path) > 2:
            nearer = reachable(begin, lambda here: [item for item in pairs if item.from_episode == here], len(path) - 2)
            assert end not in {item.to_episode for item in nearer}


def test_dot_quotes_whatever_an_id_holds() -> None:
    assert graph.to_dot([edge('a"b', "c\\d\nü", 7)]) == (
        'digraph episodes {\n  "a\\"b" -> "c\\\\d\\nü" [label="depends_on", priority=7];\n}\n'
    )
    assert graph.to_dot([]) == "digraph episodes {\n}\n"


def test_json_holds_all_that_a_relationship_says() -> None:
    listed = [edge("a", "b"), edge("b", "ü")]
    shown = json.loads(graph.to_json(listed))
    assert shown["nodes"] == ["a", "b", "ü"]
    assert [msgspec.convert(item, Relationship, strict=False) for item in shown["edges"]] == listed
