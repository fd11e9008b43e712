"""The contract of the ports notices every broken rule: what `python -m tests.mutants ports` runs."""

from __future__ import annotations

from tests.mutants.ports import BROKEN, rules, try_ports


def test_every_rule_has_a_twin_that_breaks_it() -> None:
    assert set(rules()) == BROKEN.keys()
    assert len(set(BROKEN.values())) == len(BROKEN)


def test_every_broken_twin_is_noticed() -> None:
    assert [verdict for verdict in try_ports(sound=False) if verdict.noticed is None] == []
