"""Which advice comes first, rules of thumb, playbooks and skills: from plain values, without a memory."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.learning.accumulation import pattern_of
from stepwell.learning.advising import Nearness, best, lift, score_parts, why
from stepwell.learning.heuristics import heuristics_of
from stepwell.learning.likeness import likeness, terms_of
from stepwell.learning.playbook import playbook_of
from stepwell.learning.skill_ranking import ranked_skills
from stepwell.learning.wording import advice_text
from stepwell.model.context import TaskContext
from stepwell.model.pattern import (
    WARNINGS,
    AdviceRecord,
    ContextPattern,
    Counts,
    DeadEnd,
    DecisionPoint,
    ErrorRecovery,
    Loop,
    Pattern,
    PatternContent,
    ToolSequence,
)
from stepwell.model.recommendation import Advice, Recommendation
from stepwell.model.skill import Skill
from tests.stepwell.learning.builders import START
from tests.stepwell.learning.strategies import texts

NOW = 10**18
FAR, NEAR = Nearness(0.0, 0.0, False), Nearness(1.0, 1.0, True)
UNTRIED = AdviceRecord()
SEQUENCE = ToolSequence(("show", "select"))
RECOVERY = ErrorRecovery("Table 'a' is missing", "select", "show")
LOOP, DEAD_END = Loop("select", "boom"), DeadEnd("select", "boom")
CHECK = DecisionPoint("check the name", "look", "select")


def pattern(content: PatternContent, wins: int = 5, trials: int = 10) -> Pattern:
    counts = Counts(episodes=trials, trials=trials, wins=1_000 * wins, occurrences=trials, failed=trials, last_ns=NOW)
    return pattern_of("shop", content, counts, NOW)


def advice(content: PatternContent, wins: int = 5, trials: int = 10) -> Advice:
    found = pattern(content, wins, trials)
    parts = score_parts(found, NEAR, UNTRIED, 0.5)
    return Advice(pattern=found, text=advice_text(found), why="", score=parts.total, parts=parts)


def recommendation(*given: Advice) -> Recommendation:
    return Recommendation(id="r", task="task", context=TaskContext(), created_at=START, advice=list(given))


def test_the_score_is_what_the_formula_says() -> None:
    found = pattern(SEQUENCE, wins=8)
    parts = score_parts(found, Nearness(0.5, 0.25, True), AdviceRecord(judged=1, helped=1.0), base=0.4)
    assert parts.similar == pytest.approx(0.35 * 0.5)
    assert parts.context == pytest.approx(0.25 * (0.4 + 0.6 * 0.25))
    assert parts.lift == pytest.approx(0.25 * (0.5 + 0.5 * (0.4902 - 0.4) / 0.6), abs=1e-4)
    assert (parts.recency, parts.success) == pytest.approx((0.1, 0.05 * 0.8))
    assert parts.boost == pytest.approx(0.25 * 0.2065, abs=1e-4)


def test_what_is_believed_as_much_as_any_task_of_the_domain_has_half_the_lift() -> None:
    found = pattern(SEQUENCE, wins=8)
    assert lift(found, found.confidence) == 0.5
    assert lift(found, 0.1) > 0.5 > lift(found, 0.9)
    assert lift(found, None) == found.confidence


def test_that_everybody_does_it_is_no_merit_of_what_does_not_help() -> None:
    useless, useful = pattern(SEQUENCE, wins=0, trials=100), pattern(RECOVERY, wins=90, trials=100)
    everywhere = score_parts(useless, NEAR, UNTRIED, 0.5).total
    nowhere = score_parts(useful, FAR, UNTRIED, 0.5).total
    assert everywhere < nowhere


@given(st.integers(0, 50), st.integers(1, 50), st.sampled_from([SEQUENCE, LOOP, RECOVERY]))
def test_more_successes_raise_what_to_do_and_lower_what_to_avoid(
    wins: int, losses: int, content: PatternContent
) -> None:
    before = score_parts(pattern(content, wins, wins + losses), NEAR, UNTRIED, 0.5).total
    after = score_parts(pattern(content, wins + 1, wins + losses + 1), NEAR, UNTRIED, 0.5).total
    assert (after < before) if pattern(content).kind in WARNINGS else (after > before)


def test_at_most_half_of_the_advice_warns_while_there_is_anything_else() -> None:
    given = [
        (0.9, pattern(LOOP)),
        (0.8, pattern(DEAD_END)),
        (0.7, pattern(DeadEnd("x", "y"))),
        (0.1, pattern(SEQUENCE)),
    ]
    given.append((0.05, pattern(RECOVERY)))
    assert best(given, 4) == [0, 1, 3, 4]
    assert best(given[:3], 3) == [0, 1, 2]


def test_what_says_the_same_for_another_error_is_left_out_and_a_base_rate_is_no_advice() -> None:
    given = [
        (0.9, pattern(ContextPattern(("domain:shop",)))),
        (0.8, pattern(RECOVERY)),
        (0.7, pattern(ErrorRecovery("another", "select", "show"))),
        (0.6, pattern(Loop("select", "another"))),
        (0.5, pattern(LOOP)),
        (0.4, pattern(ErrorRecovery("another", "select", "ask"))),
    ]
    assert best(given, 6) == [1, 3, 5]


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([SEQUENCE, RECOVERY, LOOP, DEAD_END, CHECK])), max_size=8))
def test_the_choice_does_not_depend_on_the_order_of_what_is_chosen_from(
    given: list[tuple[float, PatternContent]],
) -> None:
    ranked = [(score, pattern(content)) for score, content in given]
    chosen = [ranked[place][1].pattern_id for place in best(ranked, 3)]
    turned = ranked[::-1]
    assert sorted(chosen) == sorted(turned[place][1].pattern_id for place in best(turned, 3))


def test_why_tells_where_a_figure_comes_from() -> None:
    told = why(pattern(LOOP, wins=1), NEAR, AdviceRecord(recommended=3, applied=2, judged=2, helped=1.0))
    assert "10 % of these solved the task (95 % interval 2–40 %)" in told
    assert "applied as advice 2 times, and helped 1" in told


def test_rules_of_thumb_are_the_patterns_that_say_when_and_what() -> None:
    rules = heuristics_of(
        [
            pattern(SEQUENCE),
            pattern(LOOP, 0),
            pattern(RECOVERY),
            pattern(CHECK),
            pattern(DecisionPoint("a", "b", ""), 1, 1),
        ]
    )
    assert [(rule.condition, rule.action) for rule in rules] == [
        ("'select' failed with: boom", "do not call it again unchanged"),
        *sorted(
            [("check the name", "select"), ("'select' failed with: Table 'a' is missing", "use 'show'")],
            key=lambda rule: pattern(CHECK if rule[1] == "select" else RECOVERY).pattern_id,
        ),
    ]


def test_a_playbook_is_checks_then_the_best_sequence_then_remedies_and_warnings_are_pitfalls() -> None:
    book = playbook_of(recommendation(advice(RECOVERY), advice(SEQUENCE), advice(LOOP, 0), advice(CHECK)), max_steps=5)
    assert book is not None
    assert [step.tool_hint for step in book.steps] == ["look", "show", "select", "show"]
    assert book.steps[-1].action == "If 'select' fails with «Table 'a' is missing», use 'show'"
    assert [pitfall.warning for pitfall in book.pitfalls] == ["Do not call 'select' again unchanged after «boom»"]
    assert book.match == pytest.approx(0.6 * 0.5 + 0.4)
    assert book.confidence == pytest.approx(0.4 * 0.5 + 0.1 * 1.386294, abs=1e-6)
    shorter = playbook_of(recommendation(advice(SEQUENCE), advice(CHECK)), max_steps=2)
    assert shorter is not None
    assert len(shorter.steps) == 2


def test_where_nothing_says_what_to_do_there_is_no_playbook() -> None:
    assert playbook_of(recommendation(), max_steps=5) is None
    assert playbook_of(recommendation(advice(LOOP), advice(DEAD_END)), max_steps=5) is None


@given(texts, texts)
def test_likeness_is_symmetric_and_bounded(one: str, other: str) -> None:
    found = likeness(terms_of(one), terms_of(other))
    assert 0 <= found <= 1
    assert found == likeness(terms_of(other), terms_of(one))
    assert likeness(terms_of(one), terms_of(one)) == (1.0 if terms_of(one) else 0.0)


def test_skills_are_ranked_by_words_context_and_how_they_did() -> None:
    def skill(name: str, confidence: float = 0.0, domain: str = "general") -> Skill:
        return Skill(
            skill_id=name,
            name=name,
            description="deploy the shop",
            steps=[],
            context=TaskContext(domain=domain),
            sources=[],
            metadata={},
            created_at=START,
            updated_at=START,
            confidence=confidence,
        )

    known = [skill("alpha"), skill("beta", confidence=0.9), skill("gamma", domain="shop")]
    assert [it.skill.name for it in ranked_skills(known, "deploy the shop", TaskContext(domain="shop"))] == [
        "beta",
        "gamma",
        "alpha",
    ]
    assert ranked_skills(known, "bake a cake", None) == []
    assert len(ranked_skills(known, "", None)) == 3


def test_a_pattern_is_a_value_that_can_be_sent_on() -> None:
    found = pattern(RECOVERY)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Pattern) == found
