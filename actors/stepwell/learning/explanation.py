"""Why a pattern is believed, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.learning.intervals import advice_boost, success_interval
from stepwell.learning.text import counted
from stepwell.learning.wording import advice_text, figures_text, interval_text, share
from stepwell.model.pattern import WARNINGS, WHOLE, AdviceRecord, Counts, Evidence, Explanation, Pattern

EPISODES_NAMED = 5


def explain(pattern: Pattern, base: Counts | None, evidence: Sequence[Evidence], advice: AdviceRecord) -> Explanation:
    """The explanation of a pattern. `base`: the counts of its domain; `evidence`: episodes of it, newest first."""
    known = base is not None and base.trials > 0
    interval = success_interval(base.wins, base.trials) if known and base is not None else None
    success = base.wins / WHOLE / base.trials if known and base is not None else None
    boost = advice_boost(advice.helped, advice.judged)
    lines = _lines(pattern, success, evidence, advice, boost)
    return Explanation(
        pattern=pattern,
        base=interval,
        base_success=success,
        evidence=list(evidence),
        advice=advice,
        boost=boost,
        text="\n".join(lines),
    )


def _lines(
    pattern: Pattern, base: float | None, evidence: Sequence[Evidence], advice: AdviceRecord, boost: float
) -> Iterator[str]:
    yield f"{pattern.kind} {pattern.pattern_id} in the domain {pattern.domain}: {pattern.text}."
    yield f"{advice_text(pattern)}."
    yield f"It was {figures_text(pattern)}."
    if base is not None:
        yield f"Of all tasks in the domain {share(base)} were solved."
    believed = "failure" if pattern.kind in WARNINGS else "success"
    yield (
        f"What is believed of it is the lower bound of {believed}, {pattern.confidence:.2f}; the bounds of success are "
        f"{interval_text(pattern.interval)}."
    )
    if pattern.last_seen is not None:
        yield f"Last seen {pattern.last_seen:%Y-%m-%d}; recency {pattern.recency:.2f}, halving every 30 days."
    if evidence:
        named = ", ".join(f"{it.episode_id} (records {_numbers(it.seqs)})" for it in evidence[:EPISODES_NAMED])
        yield f"Newest evidence: {named}."
    yield _record(advice, boost)


def _record(advice: AdviceRecord, boost: float) -> str:
    if not advice.recommended:
        return "It was not recommended yet."
    told = (
        f"It was recommended {counted(advice.recommended, 'time')}, applied {counted(advice.applied, 'time')} and not "
    )
    told += f"applied {counted(advice.ignored, 'time')}"
    if advice.judged:
        told += f"; of {advice.judged:,} applications with a known outcome {advice.helped:g} helped"
    return f"{told}. That adds {boost:+.3f} to its score."


def _numbers(seqs: Sequence[int]) -> str:
    return ", ".join(map(str, seqs)) if seqs else "none: it is about the whole episode"
