"""Making a recommendation, and taking feedback on one: what is logged of it are the two facts, in a stream of its own.

recommendation ab12…   1 recommended {task, context, advice: [pattern or skill ids], episodes}
                       2 feedback {applied, consulted, outcome, rating}        the newest one counts
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from stepstore.journal import Batch, Journal
from stepstore.journal.contract import append
from stepwell.errors import EpisodeUnavailable, InvalidInput, NotFound
from stepwell.learning.accumulation import pattern_of
from stepwell.learning.advising import best, score_parts, why
from stepwell.learning.extraction import context_patterns, domain_of
from stepwell.learning.intervals import success_interval
from stepwell.learning.wording import advice_text, pattern_text
from stepwell.model.codec import decode_record, encode_record
from stepwell.model.context import TaskContext
from stepwell.model.event import utc
from stepwell.model.ids import new_episode_id, stream_id
from stepwell.model.limits import Limits
from stepwell.model.pattern import WHOLE
from stepwell.model.recommendation import (
    FEEDBACK,
    RECOMMENDATION_STREAM,
    RECOMMENDED,
    Advice,
    BaseRate,
    Feedback,
    FeedbackReceipt,
    Recommendation,
    SimilarEpisode,
)
from stepwell.runtime import learned
from stepwell.runtime.exemplifying import answer_of, example_of
from stepwell.runtime.learned import Candidate, Considered
from stepwell.runtime.projections import Projections
from stepwell.runtime.similar import SimilarTask, similar_tasks

SIMILAR_SHOWN = 3
EXAMPLES_TRIED = 3
LEAST_EPISODES = 2
"""What was seen in one episode only is no advice, unless that episode's task is like this one."""


async def recommend(
    journal: Journal, projections: Projections, task: str, context: TaskContext, limit: int, now_ns: int
) -> Recommendation:
    """Advice for a task, not stored yet. A checkpoint. Raises: `Unavailable`, `RecoveryFailed`, `Closed`."""
    alike = await projections.episodes.read_now(lambda connection: similar_tasks(connection, task, context.tags))
    weights = {it.stream: it.likeness for it in alike}
    domain, contexts = domain_of(context), context_patterns(context, "other")[:-1]
    considered = await projections.learning.read_now(
        lambda connection: learned.consider(connection, domain, contexts, weights)
    )
    advice = await _advice(journal, projections, considered, weights, limit, now_ns)
    return Recommendation(
        id="",
        task=task,
        context=context,
        created_at=utc(now_ns),
        advice=advice,
        episodes=await _solved(journal, alike),
        base_rates=_base_rates(considered),
        note=_note(considered, domain, bool(advice)),
    )


async def _advice(
    journal: Journal,
    projections: Projections,
    considered: Considered,
    near: dict[bytes, float],
    limit: int,
    now_ns: int,
) -> list[Advice]:
    candidates: list[tuple[Candidate, Advice]] = []
    rate = considered.rates[0].counts if considered.rates else None
    base = rate.wins / WHOLE / rate.trials if rate is not None and rate.trials else None
    for it in considered.candidates:
        if it.learned.counts.episodes < LEAST_EPISODES and not it.near.similar:
            continue
        pattern = pattern_of(it.learned.domain, it.learned.content, it.learned.counts, now_ns)
        parts = score_parts(pattern, it.near, it.advice, base)
        text, reason = advice_text(pattern), why(pattern, it.near, it.advice)
        candidates.append((it, Advice(pattern=pattern, text=text, why=reason, score=parts.total, parts=parts)))
    chosen = best([(advice.score, advice.pattern) for _it, advice in candidates], limit)
    return [await _with_example(journal, projections, *candidates[place], near) for place in chosen]


async def _with_example(
    journal: Journal, projections: Projections, candidate: Candidate, advice: Advice, near: dict[bytes, float]
) -> Advice:
    shown = await projections.learning.read(
        lambda connection: learned.examples(connection, candidate.learned, near, EXAMPLES_TRIED)
    )
    for it in shown:
        example = await example_of(journal, it)
        if example is not None:
            return msgspec.structs.replace(advice, example=example)
    return advice


async def _solved(journal: Journal, alike: Sequence[SimilarTask]) -> list[SimilarEpisode]:
    """The similar episodes that were solved, each task once."""
    found: list[SimilarEpisode] = []
    tasks: set[str] = set()
    for it in alike:
        if it.outcome not in ("success", "partial_success") or it.task in tasks:
            continue
        tasks.add(it.task)
        found.append(
            SimilarEpisode(
                episode_id=it.episode_id,
                task=it.task,
                outcome=it.outcome,
                similarity=it.likeness,
                answer=await answer_of(journal, it.episode_id, it.last_seq),
            )
        )
        if len(found) == SIMILAR_SHOWN:
            break
    return found


def _base_rates(considered: Considered) -> list[BaseRate]:
    return [
        BaseRate(
            features=pattern_text(it.content),
            episodes=it.counts.trials,
            success=it.counts.wins / WHOLE / it.counts.trials,
            interval=success_interval(it.counts.wins, it.counts.trials),
        )
        for it in considered.rates
        if it.counts.trials
    ]


def _note(considered: Considered, domain: str, is_advised: bool) -> str:
    """Why there is no advice, or none of the task's own domain; "" where there is."""
    if not considered.rates and not considered.domains:
        return "Nothing was learned yet: no episode of this memory has ended."
    if not considered.rates:
        others = f"; the domains there are: {', '.join(considered.domains)}"
        if is_advised:
            return f"No episode has the domain {domain!r}: this is from tasks that read like this one{others}."
        return f"Nothing was learned in the domain {domain!r}, and no ended task reads like this one{others}."
    if is_advised:
        return ""
    return f"In the domain {domain!r} nothing happened in two episodes that could be advised or warned of."


# ---- what is logged --------------------------------------------------------------------------------------------------


async def store_recommendation(journal: Journal, found: Recommendation, limits: Limits, now_ns: int) -> Recommendation:
    """Store what was recommended; durable on return. A checkpoint. If cancelled, whether it is stored is unknown.

    Raises: `Closed`, `LogFull`, `TooLarge`, `OutcomeUnknown`.
    """
    name = new_episode_id()
    data = {
        "task": found.task,
        "context": msgspec.to_builtins(found.context),
        "advice": [it.pattern_id for it in found.advice],
        "episodes": [it.episode_id for it in found.episodes],
    }
    meta = {"stream": RECOMMENDATION_STREAM, "id": name}
    payload = encode_record(RECOMMENDED, now_ns, data, meta, path="task", limit=limits.record_bytes)
    await append(journal, stream_id(RECOMMENDATION_STREAM, name), [payload], expected_seq=0)
    return msgspec.structs.replace(found, id=name)


class _Stored(msgspec.Struct, frozen=True):
    advice: list[str]
    episodes: list[str] = []


async def recommended(journal: Journal, name: str) -> list[str]:
    """The ids that a recommendation advised. A checkpoint. Raises: `NotFound`, `Unavailable`, `Closed`."""
    found = await journal.read(stream_id(RECOMMENDATION_STREAM, name)).next_slice()
    if not found:
        raise NotFound(f"there is no recommendation {name!r} in this memory; `recommend` gives the id of a new one")
    decoded = decode_record(found[0].payload, f"recommendation {name!r}")
    try:
        return msgspec.convert(decoded.data, _Stored).advice
    except msgspec.ValidationError as error:
        raise EpisodeUnavailable(f"recommendation {name!r} is not sound: {error}", reason="undecodable") from error


async def store_feedback(journal: Journal, name: str, feedback: Feedback, limits: Limits) -> FeedbackReceipt:
    """Store feedback on a recommendation that is there; durable on return. A checkpoint. If cancelled, whether it is
    stored is unknown, and giving it again does no harm.

    Raises: `Closed`, `LogFull`, `TooLarge`, `OutcomeUnknown`.
    """
    stream = stream_id(RECOMMENDATION_STREAM, name)
    data: dict[str, Any] = msgspec.to_builtins(feedback)
    payload = encode_record(FEEDBACK, time.time_ns(), data, None, path="feedback", limit=limits.record_bytes)
    seq, lsn = await append_next(journal, stream, payload)
    return FeedbackReceipt(recommendation_id=name, seq=seq, lsn=lsn, replaced=seq > 2)


async def append_next(journal: Journal, stream: bytes, payload: bytes) -> tuple[int, int]:
    """Append a record to a stream, whatever it ends with; gives its number and its LSN once it is durable.

    Raises: `InvalidState` (it was deleted), `Closed`, `LogFull`, `TooLarge`, `OutcomeUnknown`.
    """
    await journal.wait_room()
    await journal.look_up(stream)
    seq = journal.last_seq(stream) + 1  # no checkpoint from here to the submission: two callers take two numbers
    submission = journal.submit([Batch(stream, seq, [payload], 0)])
    await submission.wait()
    submission.check()
    return seq, submission.first_lsn


def check_applied(applied: Sequence[str], advised: Sequence[str], name: str) -> None:
    """Raises: `InvalidInput` if something was applied that was not advised."""
    for place, it in enumerate(applied):
        if it not in advised:
            raise InvalidInput(
                f"applied[{place}]: {it!r} was not advised by recommendation {name!r}, which advised "
                f"{', '.join(advised) or 'nothing'}"
            )
