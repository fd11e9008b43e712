"""Which advice comes first.

score = t x (0.35 x similar + 0.25 x context) + 0.25 x lift + 0.10 x recency + 0.05 x success + boost

The weights are those that the reference system gives recommendations for a task (section 1.11). What they weigh is in
docs/learning.md.
"""

from __future__ import annotations

import msgspec

from stepwell.learning.intervals import advice_boost
from stepwell.learning.wording import figures_text, share
from stepwell.model.pattern import WARNINGS, AdviceRecord, ContextPattern, ErrorRecovery, Loop, Pattern, PatternContent
from stepwell.model.recommendation import ScoreParts

SIMILAR_WEIGHT = 0.35
CONTEXT_WEIGHT = 0.25
LIFT_WEIGHT = 0.25
RECENCY_WEIGHT = 0.10
SUCCESS_WEIGHT = 0.05
DOMAIN_SHARE = 0.4
TAGS_SHARE = 0.6


class Nearness(msgspec.Struct, frozen=True):
    """How near a pattern is to a task, each 0 to 1.

    `similar`: of the episodes whose task reads like this one, weighed by how much, the share that shows the pattern.
    `tagged`: of the episodes that have its tags, the share; 0 where the task has none. `same_domain`: of its domain.
    """

    similar: float
    tagged: float
    same_domain: bool


def lift(pattern: Pattern, base: float | None) -> float:
    """How much more is believed of a pattern than of any task of its domain, 0 to 1; 0.5 for as much.

    `base`: the share of the domain's tasks that were solved. What is believed is `confidence`, which of a warning is
    about failure, so it is compared with the share that was not solved.
    """
    if base is None:
        return pattern.confidence
    usual = 1.0 - base if pattern.kind in WARNINGS else base
    if pattern.confidence <= usual:
        return 0.5 * pattern.confidence / usual if usual else 0.5
    return 0.5 + 0.5 * (pattern.confidence - usual) / (1.0 - usual)


def score_parts(pattern: Pattern, near: Nearness, advice: AdviceRecord, base: float | None) -> ScoreParts:
    """The score of a pattern as advice for a task; `base` as for `lift`."""
    success = pattern.success
    if success is not None and pattern.kind in WARNINGS:
        success = 1.0 - success
    context = DOMAIN_SHARE * near.same_domain + TAGS_SHARE * near.tagged
    lifted = lift(pattern, base)
    telling = min(1.0, 2 * lifted)  # that all similar episodes show it is no merit of what does not help
    return ScoreParts(
        similar=SIMILAR_WEIGHT * near.similar * telling,
        context=CONTEXT_WEIGHT * context * telling,
        lift=LIFT_WEIGHT * lifted,
        recency=RECENCY_WEIGHT * pattern.recency,
        success=SUCCESS_WEIGHT * (success or 0.0),
        boost=advice_boost(advice.helped, advice.judged),
    )


def why(pattern: Pattern, near: Nearness, advice: AdviceRecord) -> str:
    """Why this is advised, in words."""
    parts = [figures_text(pattern)]
    if near.similar:
        parts.append(f"shown by {share(near.similar)} of the similar episodes")
    if near.tagged:
        parts.append(f"by {share(near.tagged)} of those with the same tags")
    if advice.judged:
        helped = f"{advice.helped:.0f}" if advice.helped == int(advice.helped) else f"{advice.helped:.1f}"
        parts.append(f"applied as advice {advice.judged:,} times, and helped {helped}")
    return "; ".join(parts)


def best(ranked: list[tuple[float, Pattern]], limit: int) -> list[int]:
    """The places of the best `limit`, in order, of patterns with their scores.

    At most half of them warn, rounded up, and at most half are of one kind, while there is anything else left. A
    pattern that says the same as a better one for another error is left out: the same remedy for the same operation,
    or that a call is not to be repeated. Equals are in the order of their ids.
    """
    order = sorted(range(len(ranked)), key=lambda place: (-ranked[place][0], ranked[place][1].pattern_id))
    most = -(-limit // 2)
    kinds: dict[str, int] = {}
    warnings = 0
    said: set[PatternContent | tuple[str, ...]] = set()
    chosen: list[int] = []
    later: list[int] = []
    for place in order:
        pattern = ranked[place][1]
        if isinstance(pattern.content, ContextPattern):
            continue  # a base rate is no advice
        gist = _gist(pattern.content)
        if gist in said:
            continue
        said.add(gist)
        warns = pattern.kind in WARNINGS
        if kinds.get(pattern.kind, 0) < most and not (warns and warnings == most):
            warnings += warns
            kinds[pattern.kind] = kinds.get(pattern.kind, 0) + 1
            chosen.append(place)
        else:
            later.append(place)
    chosen = (chosen[:limit] + later)[:limit]
    return sorted(chosen, key=order.index)


def _gist(content: PatternContent) -> PatternContent | tuple[str, ...]:
    if isinstance(content, ErrorRecovery):
        return ("recovery", content.operation, content.remedy)
    if isinstance(content, Loop):
        return ("loop", content.operation)
    return content
