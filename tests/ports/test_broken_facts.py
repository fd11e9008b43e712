"""The contract of long-term memories notices every broken rule, and objects to no sound twin."""

from __future__ import annotations

from stepwell.testing.ports import InMemoryLongTerm
from tests.mutants.facts import BROKEN_FACTS, facts_rules, outcome


def test_every_rule_has_a_twin_that_breaks_it() -> None:
    assert set(facts_rules()) == BROKEN_FACTS.keys()
    assert len(set(BROKEN_FACTS.values())) == len(BROKEN_FACTS)


def test_every_broken_twin_is_noticed() -> None:
    assert [rule for rule, twin in BROKEN_FACTS.items() if outcome(rule, twin) is None] == []


def test_a_sound_twin_is_objected_to_by_none() -> None:
    assert [rule for rule in facts_rules() if outcome(rule, InMemoryLongTerm) is not None] == []
