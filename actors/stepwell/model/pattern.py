"""What a pattern is: something that happened in episodes, told apart by its content, with counts over all of them."""

from __future__ import annotations

import datetime as dt
from hashlib import blake2b
from typing import Literal

import msgspec

PatternKind = Literal["tool_sequence", "decision_point", "error_recovery", "context_pattern", "loop", "dead_end"]
PATTERN_KINDS: tuple[PatternKind, ...] = (
    "tool_sequence",
    "decision_point",
    "error_recovery",
    "context_pattern",
    "loop",
    "dead_end",
)
WARNINGS: frozenset[PatternKind] = frozenset(("loop", "dead_end"))
"""Kinds that tell what to avoid; the others tell what to do."""
WHOLE = 1_000
"""Success is counted in thousandths of an episode: whole numbers add up to the same sum in any order."""


class _Content(msgspec.Struct, frozen=True, tag_field="kind"):
    """What a pattern says; equal contents of one domain are one pattern, in whatever episode."""


class ToolSequence(_Content, frozen=True, tag="tool_sequence"):
    """These operations succeeded one after another, at the start of the episode."""

    operations: tuple[str, ...]


class DecisionPoint(_Content, frozen=True, tag="decision_point"):
    """A step looked whether something holds (`condition`) with `operation`; `then` is what was done next."""

    condition: str
    operation: str
    then: str


class ErrorRecovery(_Content, frozen=True, tag="error_recovery"):
    """`operation` failed with `error`, and `remedy` was what succeeded next."""

    error: str
    operation: str
    remedy: str


class ContextPattern(_Content, frozen=True, tag="context_pattern"):
    """How episodes of one kind end: their `features` (`domain:sql`, `tag:db:world_1`), and the task type, if it is one
    of them, as the `approach`."""

    features: tuple[str, ...]
    approach: str = ""


class Loop(_Content, frozen=True, tag="loop"):
    """`operation` failed with `error` and was called again unchanged, and failed again."""

    operation: str
    error: str


class DeadEnd(_Content, frozen=True, tag="dead_end"):
    """`operation` failed with `error`; `failed` counts the episodes in which no step succeeded any more behind that,
    `ok` those that got past it."""

    operation: str
    error: str


PatternContent = ToolSequence | DecisionPoint | ErrorRecovery | ContextPattern | Loop | DeadEnd


def kind_of(content: PatternContent) -> PatternKind:
    """The kind of a content, which is its tag."""
    tag = content.__struct_config__.tag
    assert tag in PATTERN_KINDS
    return tag


def pattern_id(domain: str, content: PatternContent) -> str:
    """The id of a pattern: a hash of its domain and its content (24 hexadecimal digits), so the same everywhere."""
    return blake2b(msgspec.json.encode([domain, content]), digest_size=12).hexdigest()


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a pattern over some episodes. They add up, in any order, to those over all of them.

    `episodes` have it, `trials` of them ended in a way that tells something (success, partial success, failure), and
    `wins` is the sum of their success in thousandths. `occurrences` is how often it happened in them; `ok` and `failed`
    count what went well and badly where it happened (see each kind). Times are nanoseconds since 1970, of endings.
    """

    episodes: int = 0
    trials: int = 0
    wins: int = 0
    occurrences: int = 0
    ok: int = 0
    failed: int = 0
    first_ns: int | None = None
    last_ns: int | None = None

    def __add__(self, other: Counts) -> Counts:
        firsts = [ns for ns in (self.first_ns, other.first_ns) if ns is not None]
        lasts = [ns for ns in (self.last_ns, other.last_ns) if ns is not None]
        return Counts(
            episodes=self.episodes + other.episodes,
            trials=self.trials + other.trials,
            wins=self.wins + other.wins,
            occurrences=self.occurrences + other.occurrences,
            ok=self.ok + other.ok,
            failed=self.failed + other.failed,
            first_ns=min(firsts, default=None),
            last_ns=max(lasts, default=None),
        )


class Sighting(msgspec.Struct, frozen=True):
    """A pattern in one episode: how often, what went well and badly there, and the steps that show it (`seqs`)."""

    content: PatternContent
    occurrences: int = 1
    ok: int = 0
    failed: int = 0
    seqs: tuple[int, ...] = ()


class Interval(msgspec.Struct, frozen=True):
    """Bounds of a share, 0 to 1."""

    low: float
    high: float


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """An episode that shows a pattern: the `seqs` of the steps that do, and how the episode ended (1 success, 0
    failure, None where the ending tells nothing)."""

    episode_id: str
    seqs: tuple[int, ...]
    occurrences: int
    success: float | None
    ended_at: dt.datetime


class AdviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a pattern as advice: how often it was recommended, how often somebody said that they applied it
    or did not, and of the applied ones the sum of success (`helped`) with the number whose outcome tells (`judged`)."""

    recommended: int = 0
    applied: int = 0
    ignored: int = 0
    judged: int = 0
    helped: float = 0.0


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern with what is known of it.

    `success` is the mean success of the episodes that have it, None while none ended in a way that tells; `interval`
    its 95 % Wilson interval. `confidence` is what the ranking believes: of what to do the lower bound of success, of
    what to avoid the lower bound of failure. `recency` halves every 30 days since the pattern was last seen, as of the
    call. `text` says in words what it is.
    """

    pattern_id: str
    kind: PatternKind
    domain: str
    content: PatternContent
    text: str
    episodes: int
    occurrences: int
    ok: int
    failed: int
    trials: int
    success: float | None
    interval: Interval
    confidence: float
    recency: float
    first_seen: dt.datetime | None
    last_seen: dt.datetime | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a pattern is believed: the pattern, the base rate of its domain, the newest episodes that show it, and what
    became of it as advice, with what that adds to its score (`boost`, -0.25 to 0.25). `text` says all of it."""

    pattern: Pattern
    base: Interval | None
    base_success: float | None
    evidence: list[Evidence]
    advice: AdviceRecord
    boost: float
    text: str
