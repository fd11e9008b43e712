"""How an episode ended and what was worked out of it, checked and as a record."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from stepwell.errors import InvalidInput
from stepwell.model import validation as check
from stepwell.model.analysis import (
    CompletionAnalysis,
    EpisodeSummary,
    QualityScore,
    Reflection,
    RewardScore,
    SalientFeatures,
)
from stepwell.model.codec import encode_record
from stepwell.model.event import ENDED
from stepwell.model.limits import Limits
from stepwell.model.outcome import Abstained, Failure, Interrupted, PartialSuccess, Success, TaskOutcome

_KINDS = (Success, PartialSuccess, Failure, Abstained, Interrupted)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The last record of a finished episode: its outcome, and the analysis made of it with one formula version."""

    outcome: TaskOutcome
    reward: RewardScore | None
    reflection: Reflection | None
    summary: EpisodeSummary
    formula_version: int
    created_at: dt.datetime
    quality: QualityScore | None = None
    salient_features: SalientFeatures | None = None
    metadata: dict[str, Any] = {}
    actor: str = ""


def checked_outcome(outcome: object, limits: Limits) -> TaskOutcome:
    """`outcome` if it is one, as it will be read back.

    Raises: `InvalidInput`, `TooLarge`.
    """
    if type(outcome) not in _KINDS:
        raise InvalidInput(
            f"outcome: must be one of {', '.join(kind.__name__ for kind in _KINDS)}, not {type(outcome).__name__}"
        )
    fields: dict[str, Any] = {}
    for name in outcome.__struct_fields__:  # type: ignore[attr-defined]
        value, path = getattr(outcome, name), f"outcome.{name}"
        if name in ("artifacts", "completed", "failed", "infeasibility_signals"):
            check.check_text_list(value, path, limits.text_bytes)
        elif name == "stopped_at_step":
            check.check_number(value, path, minimum=0, whole=True)
        elif name == "error_details":
            check.check_optional_text(value, path, limits.text_bytes)
        else:
            check.check_text(value, path, limits.text_bytes)
        bad_text = check.find_bad_text(value, path)
        if bad_text is not None:
            raise InvalidInput(bad_text)
        fields[name] = check.plain(value)
    return type(outcome)(**fields)  # type: ignore[return-value]


def encode_ending(
    outcome: TaskOutcome,
    analysis: CompletionAnalysis,
    metadata: dict[str, Any],
    time_ns: int,
    limits: Limits,
    actor: str = "",
) -> bytes:
    """The record that ends an episode.

    Raises: `InvalidInput`, `TooLarge`.
    """
    ending = Ending(
        outcome=outcome,
        reward=analysis.reward,
        reflection=analysis.reflection,
        summary=analysis.summary,
        formula_version=analysis.formula_version,
        created_at=analysis.created_at,
        quality=analysis.quality,
        salient_features=analysis.salient_features,
        metadata=check.plain(metadata),
        actor=actor,
    )
    data = msgspec.to_builtins(ending)
    if not actor:
        del data["actor"]
    return encode_record(ENDED, time_ns, data, None, path="outcome", limit=limits.record_bytes)


def decode_ending(data: dict[str, Any]) -> Ending:
    """The ending of an episode from its record. Raises `msgspec.ValidationError`."""
    return msgspec.convert(data, Ending)
